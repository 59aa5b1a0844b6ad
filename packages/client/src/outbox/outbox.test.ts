import { decodeRecords, type EventRecord, eventTimeMs, LIMITS, receivePage, SealpostError, toHex } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { deliver, NOW_MS, testContext, testDevice } from '@sealpost/testing/clients/honest-events'
import { createEventIdMaker } from './event-id.ts'
import { openOutbox, type Outbox } from './outbox.ts'
import type { DeviceStore, ItemAck, StoredHead } from '../ports.ts'
import { createServerClock } from '../connection/server-clock.ts'
import { createMemoryStore } from '@sealpost/testing/clients/memory-store'
import { createTestAccount, createTestClock, identityOf } from '@sealpost/testing/clients/clock-and-account'

const makeEventId = createEventIdMaker(nodeCrypto)

const device = testDevice(1)
const identity = identityOf(device)
const LIMITS_SMALL = { batch_events: 4, batch_bytes: 100_000, inflight_events: 10, inflight_bytes: 1e6 }
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** The server's side of §5 and §6 for one device: next number only, duplicates acked again, discard after a nack. */
function createServer() {
  const stored: EventRecord[] = []
  return {
    stored,
    discarding: false,
    /** What a batch is answered with. */
    take(records: readonly EventRecord[], epoch: number, poison: ReadonlySet<string>) {
      const acks: { device_seq: number; position: number; stream_seq: number }[] = []
      for (const record of records) {
        const next = stored.length + 1
        if (this.discarding && record.device_seq > next) continue
        if (record.device_seq < next) {
          const known = stored[record.device_seq - 1]
          if (known === undefined || toHex(known.sig) !== toHex(record.sig))
            return { acks, nack: this.refuse('sequence_conflict', record.device_seq) }
          acks.push({ device_seq: record.device_seq, position: record.device_seq, stream_seq: record.device_seq })
          continue
        }
        if (record.device_seq > next) return { acks, nack: this.refuse('sequence_gap', record.device_seq) }
        this.discarding = false
        if (record.epoch !== epoch) return { acks, nack: this.refuse('stale_epoch', record.device_seq) }
        if (poison.has(record.event_id)) return { acks, nack: this.refuse('invalid_event', record.device_seq) }
        stored.push(record)
        acks.push({ device_seq: next, position: next, stream_seq: next })
      }
      return { acks, nack: null }
    },
    refuse(code: string, device_seq: number, retry_after_ms?: number) {
      this.discarding = true
      return { code, device_seq, expected_device_seq: stored.length + 1, ...(retry_after_ms === undefined ? {} : { retry_after_ms }) }
    },
  }
}

async function createWorld(store: DeviceStore = createMemoryStore()) {
  const clock = createTestClock()
  const account = createTestAccount(device, [device])
  const server = createServer()
  const wire: EventRecord[][] = []
  const fatal: SealpostError[] = []
  const told: SealpostError[] = []
  const settled: boolean[] = []
  const time = createServerClock(clock)
  time.hear(clock.now())
  const world = { clock, time, account, server, wire, fatal, told, settled, store, connected: false, reconnects: 0, epoch: 0, announced: 0 }
  const open = (acked: number, heads: ReadonlyMap<string, StoredHead>): Promise<Outbox> =>
    openOutbox(
      {
        crypto: nodeCrypto,
        store,
        clock,
        identity,
        account,
        time,
        send(records) {
          if (!world.connected) return false
          wire.push(decodeRecords(records))
          return true
        },
        logBehind: () => account.log.log_seq < world.announced,
        async wantLog() {
          while (account.log.log_seq < world.epoch) account.rotate()
        },
        wantRotation: () => undefined,
        reconnect() {
          world.reconnects++
        },
        fatal: (error) => fatal.push(error),
        tell: (error) => told.push(error),
        settled: (acked) => settled.push(acked),
      },
      acked,
      heads,
    )
  return { ...world, world, open }
}

async function enqueue(store: DeviceStore, count: number, streams = 2, ttl: number | null = null): Promise<string[]> {
  const items = Array.from({ length: count }, (_, i) => ({
    event_id: makeEventId(NOW_MS - 1_000),
    stream_id: `s${i % streams}`,
    type: 'app',
    ttl,
    data: new TextEncoder().encode(`event ${i}`),
    queued_at: NOW_MS,
  }))
  await store.enqueue(items)
  return items.map((item) => item.event_id)
}

async function quiet(outbox: Outbox): Promise<void> {
  for (let i = 0; i < 6; i++) {
    await turn()
    await outbox.idle()
  }
}

function ownHeads(heads: ReadonlyMap<string, StoredHead>): Map<string, StoredHead> {
  return new Map([...heads].map(([key, head]) => [key.slice(device.device_id.length + 1), head]))
}

describe('the outbox', () => {
  it('over any losses, refusals, rotations and restarts each event is stored once, in order, in one chain (C3, R04)', async () => {
    const step = fc.constantFrom('deliver', 'deliver', 'deliver', 'lose', 'lose_ack', 'busy', 'rotate', 'restart', 'more')
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), fc.nat(7), async (steps, poisoned) => {
        const { world, open, store, server, wire, clock, account } = await createWorld()
        const ids = await enqueue(store, 12)
        const poison = new Set(ids.slice(poisoned, poisoned + 1))
        let outbox = await open(0, new Map())
        const begin = async (): Promise<void> => {
          world.connected = true
          server.discarding = false
          wire.length = 0
          await outbox.begin({ last_device_seq: server.stored.length, limits: LIMITS_SMALL, caught_up: true, resetting: false })
          await quiet(outbox)
        }
        const drop = (): void => {
          world.connected = false
          wire.length = 0
          outbox.end()
        }
        const act = async (what: string): Promise<void> => {
          if (what === 'more') ids.push(...(await enqueue(store, 3)))
          if (what === 'rotate') world.epoch++
          if (what === 'lose') drop()
          if (what === 'restart') {
            drop()
            await outbox.idle()
            const state = await store.readReceiveState()
            outbox = await open(state.acked_device_seq, ownHeads(state.heads))
          }
          if (!world.connected) await begin()
          outbox.pump()
          await quiet(outbox)
          const batch = wire.shift()
          if (batch === undefined) return
          const next = server.stored.length + 1
          if (what === 'busy' && batch.every((record) => record.device_seq >= next) && batch.some((record) => record.device_seq === next)) {
            void outbox.onNack(server.refuse('unavailable', next, 50))
          } else {
            const { acks, nack } = server.take(batch, world.epoch, poison)
            if (what !== 'lose_ack') {
              void outbox.onAcks(1, acks)
              if (nack !== null) void outbox.onNack(nack)
            } else drop()
          }
          await quiet(outbox)
          clock.advance(60)
        }
        for (const what of steps) await act(what)
        for (let i = 0; i < 120 && (await store.countOutbox()).pending > 0; i++) await act('deliver')

        expect(world.fatal).toEqual([])
        expect(await store.countOutbox()).toMatchObject({ pending: 0, set_aside: poison.size })
        expect(server.stored.map((record) => record.event_id)).toEqual(ids.filter((id) => !poison.has(id)))
        expect(server.stored.map((record) => record.device_seq)).toEqual(server.stored.map((_, i) => i + 1))
        const page = await receivePage(
          nodeCrypto,
          testContext(account.log),
          new Map(),
          deliver(server.stored.map((record) => ({ record }))),
        )
        expect(page.items.map((item) => item.is)).toEqual(server.stored.map(() => 'event'))
      }),
      { numRuns: 150 },
    )
  }, 60_000)

  it('bytes leave only after their sealed form is on disk, and a retry sends the same bytes', async () => {
    const { world, open, store, wire } = await createWorld()
    await enqueue(store, 3)
    const outbox = await open(0, new Map())
    world.connected = true
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    const sent = wire.flat().map((record) => toHex(record.sig))
    const kept = (await store.readPending(0, 10, 1e6)).map((item) => toHex(decodeRecords(item.sealed!.record)[0]!.sig))
    expect(sent).toEqual(kept)
    outbox.end()
    const again = await open(0, new Map())
    await again.begin({ last_device_seq: 2, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(again)
    expect(
      wire
        .flat()
        .slice(3)
        .map((record) => toHex(record.sig)),
    ).toEqual(sent)
  })

  it('an item that nothing stands before is stored sealed in one transaction and leaves at once; else it waits its turn', async () => {
    const memory = createMemoryStore()
    const { world, open, wire } = await createWorld(memory)
    const outbox = await open(0, new Map())
    const item = () => ({
      event_id: makeEventId(NOW_MS - 1_000),
      stream_id: 's0',
      type: 'app',
      ttl: null,
      data: new Uint8Array(3),
      queued_at: NOW_MS,
    })
    expect(await outbox.sendNow([item()])).toBe(false)
    world.connected = true
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    const before = memory.transactions()
    const first = item()
    expect(await outbox.sendNow([first])).toBe(true)
    await quiet(outbox)
    expect(memory.transactions() - before).toBe(1)
    expect(wire.flat().map((record) => [record.event_id, record.device_seq])).toEqual([[first.event_id, 1]])
    expect((await memory.readPending(0, 9, 1e6)).map((one) => one.sealed?.device_seq)).toEqual([1])
    // another process was faster
    const second = item()
    const third = item()
    await memory.enqueue([second])
    expect(await outbox.sendNow([third])).toBe(false)
    await memory.enqueue([third])
    outbox.pump()
    await quiet(outbox)
    const sent = wire.flat()
    expect(sent.map((record) => [record.event_id, record.device_seq])).toEqual(
      [first, second, third].map((one, i) => [one.event_id, i + 1]),
    )
    const page = await receivePage(nodeCrypto, testContext(world.account.log), new Map(), deliver(sent.map((record) => ({ record }))))
    expect(page.items.map((one) => one.is)).toEqual(['event', 'event', 'event'])
    outbox.holdForReset()
    expect(await outbox.sendNow([item()])).toBe(false)
  })

  it('seals nothing while an entry that the server announced is not here, and then under its epoch', async () => {
    const { world, open, store, wire, account } = await createWorld()
    const [event_id] = await enqueue(store, 1)
    const outbox = await open(0, new Map())
    world.connected = true
    world.announced = 1
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    const item = { event_id: makeEventId(NOW_MS), stream_id: 's0', type: 'app', ttl: null, data: new Uint8Array(3), queued_at: NOW_MS }
    expect(await outbox.sendNow([item])).toBe(false)
    expect([wire.length, outbox.next_seq]).toEqual([0, 1])
    account.rotate()
    outbox.pump()
    await quiet(outbox)
    expect(wire.flat().map((record) => [record.event_id, record.epoch])).toEqual([[event_id, 1]])
  })

  it('holds what is unacked to the limits of the session', async () => {
    const { world, open, store, wire } = await createWorld()
    await enqueue(store, 50)
    const outbox = await open(0, new Map())
    world.connected = true
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    expect(wire.flat()).toHaveLength(10)
    expect(wire.every((batch) => batch.length <= 4)).toBe(true)
    await outbox.onAcks(
      1,
      [1, 2, 3, 4].map((n) => ({ device_seq: n, position: n, stream_seq: n })),
    )
    await quiet(outbox)
    expect(wire.flat()).toHaveLength(14)
  })

  it('seals nothing while the server knows numbers that it does not, adopts own events, and goes on behind them', async () => {
    const { world, open, store, wire } = await createWorld()
    const ids = await enqueue(store, 3, 1)
    const outbox = await open(0, new Map())
    world.connected = true
    await outbox.begin({ last_device_seq: 2, limits: LIMITS_SMALL, caught_up: false, resetting: false })
    await quiet(outbox)
    expect([outbox.held, wire.length]).toEqual([true, 0])
    // the replay shows both: one is the first of our items, the other nobody remembers
    const head: StoredHead = { device_seq: 2, event_hash: new Uint8Array(32).fill(9), epoch: 0, position: 2 }
    const ack: ItemAck = { event_id: ids[0]!, device_seq: 1, position: 1, stream_seq: 1, received_at: 1 }
    await outbox.withOwn(async (own) => {
      expect(await own.find([ids[0]!, 'unknown'])).toEqual({ waiting: new Set([ids[0]]), known: new Set([ids[0]]) })
      await store.ackItems([ack], 2, [])
      own.adopt(2, [ack], new Map([['s0', head]]), 2)
    })
    await outbox.caughtUp()
    await quiet(outbox)
    expect(wire.flat().map((record) => [record.event_id, record.device_seq])).toEqual([
      [ids[1], 3],
      [ids[2], 4],
    ])
    expect(wire[0]?.[0]?.prev_hash).toEqual(head.event_hash)
    expect(world.settled).toEqual([true])
  })

  it('begins its chains anew when the replay did not show all of the numbers that the server has', async () => {
    const { world, open, store, wire } = await createWorld()
    await enqueue(store, 1, 1)
    const known = new Map([['s0', { device_seq: 1, event_hash: new Uint8Array(32), epoch: 0, position: 1 }]])
    const outbox = await open(1, known)
    world.connected = true
    await outbox.begin({ last_device_seq: 5, limits: LIMITS_SMALL, caught_up: false, resetting: false })
    await outbox.caughtUp()
    await quiet(outbox)
    expect(wire.flat()[0]).toMatchObject({ device_seq: 6, prev_hash: null })
  })

  it('two conflicts in a row stop it; the first one only begins the session anew', async () => {
    const { world, open, store } = await createWorld()
    await enqueue(store, 2)
    const outbox = await open(0, new Map())
    const conflict = { code: 'sequence_conflict', device_seq: 1, expected_device_seq: 1 }
    world.connected = true
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    await outbox.onNack(conflict)
    expect([world.reconnects, world.fatal.length, outbox.held]).toEqual([1, 0, true])
    outbox.end()
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: false, resetting: false })
    await outbox.caughtUp()
    await quiet(outbox)
    expect(outbox.held).toBe(false)
    await outbox.onNack(conflict)
    expect(world.fatal[0]?.code).toBe('state_diverged')
  })

  it('after a reset of the history nothing leaves before it is stored, and then the next event of each stream has no link', async () => {
    const { world, open, store, wire } = await createWorld()
    const ids = await enqueue(store, 3, 1)
    const known = new Map([['s0', { device_seq: 1, event_hash: new Uint8Array(32).fill(7), epoch: 0, position: 1 }]])
    const before = await open(1, known)
    world.connected = true
    await before.begin({ last_device_seq: 1, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(before)
    const sealed = wire.flat().map((record) => toHex(record.sig))
    before.end()
    wire.length = 0

    const outbox = await open(1, known)
    // the server has the first of them; what comes behind it links to a past that is gone
    await outbox.begin({ last_device_seq: 2, limits: LIMITS_SMALL, caught_up: false, resetting: true })
    await quiet(outbox)
    outbox.pump()
    await quiet(outbox)
    expect(wire).toEqual([])
    await outbox.forgetHeads()
    await quiet(outbox)
    expect(wire).toEqual([])
    outbox.resetStored()
    await quiet(outbox)
    const sent = wire.flat()
    expect(sent.map((record) => [record.event_id, record.device_seq])).toEqual(ids.map((id, i) => [id, i + 2]))
    expect(toHex(sent[0]!.sig)).toBe(sealed[0])
    expect(sent.slice(1).map((record) => toHex(record.sig))).not.toEqual(sealed.slice(1))
    // the second goes on behind the one that is there, not behind what was forgotten
    expect(sent[1]?.prev_hash).not.toBeNull()

    const alone = await createWorld()
    await enqueue(alone.store, 1, 1)
    const fresh = await alone.open(1, known)
    alone.world.connected = true
    await fresh.begin({ last_device_seq: 1, limits: LIMITS_SMALL, caught_up: false, resetting: true })
    await fresh.forgetHeads()
    fresh.resetStored()
    await quiet(fresh)
    expect(alone.wire.flat()).toEqual([expect.objectContaining({ device_seq: 2, prev_hash: null })])
  })

  it('a reset that comes in the middle of a session holds it at once, and unseals only what has not left', async () => {
    const { world, open, store, wire } = await createWorld()
    await enqueue(store, 2, 1)
    const outbox = await open(0, new Map())
    world.connected = true
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    expect(wire.flat()).toHaveLength(2)
    outbox.holdForReset()
    await enqueue(store, 1, 1)
    outbox.pump()
    await quiet(outbox)
    await outbox.forgetHeads()
    expect(wire.flat()).toHaveLength(2)
    outbox.resetStored()
    await quiet(outbox)
    expect(wire.flat().map((record) => record.device_seq)).toEqual([1, 2, 3])
  })

  it('a stale epoch without a newer entry waits before it is sent again, and says so', async () => {
    const { world, open, store, wire, clock } = await createWorld()
    await enqueue(store, 1)
    const outbox = await open(0, new Map())
    world.connected = true
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    await outbox.onNack({ code: 'stale_epoch', device_seq: 1, expected_device_seq: 1 })
    await quiet(outbox)
    expect(wire.flat()).toHaveLength(1)
    expect(world.told.map((error) => error.code)).toEqual(['log_withheld'])
    clock.advance(60_000)
    await quiet(outbox)
    expect(wire.flat()).toHaveLength(2)
  })

  it('a quota holds all and is told, an unknown code too; the numbers are given back meanwhile, and nothing is lost', async () => {
    for (const [code, told] of [
      ['quota_exceeded', 'quota_exceeded'],
      ['something_new', 'unknown_version'],
    ] as const) {
      const { world, open, store, wire, clock } = await createWorld()
      await enqueue(store, 2)
      const outbox = await open(0, new Map())
      world.connected = true
      await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
      await quiet(outbox)
      await outbox.onNack({ code, device_seq: 1, expected_device_seq: 1 })
      await quiet(outbox)
      expect(world.told.map((error) => error.code)).toEqual([told])
      expect(wire.flat()).toHaveLength(2)
      expect((await store.readOutbox(0, 9)).map((row) => row.sealed)).toEqual([false, false])
      clock.advance(60_000)
      await quiet(outbox)
      expect(wire.flat().map((record) => record.device_seq)).toEqual([1, 2, 1, 2])
    }
  })

  it('what concerns one item sets it aside, whole, and the others go on under its number', async () => {
    for (const code of ['event_expired', 'payload_too_large', 'invalid_event', 'too_many_streams', 'clock_skew']) {
      const { world, open, store, wire } = await createWorld()
      const ids = await enqueue(store, 3)
      const outbox = await open(0, new Map())
      world.connected = true
      await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
      await quiet(outbox)
      await outbox.onNack({ code, device_seq: 2, expected_device_seq: 2 })
      await quiet(outbox)
      expect(wire.flat().map((record) => [record.event_id, record.device_seq])).toEqual([...ids.map((id, i) => [id, i + 1]), [ids[2], 2]])
      expect(world.told).toEqual([])
      expect(await store.readOutbox(0, 9)).toMatchObject([
        { code: null },
        { event_id: ids[1], code, bytes: 7, sealed: false },
        { code: null },
      ])
    }
  })

  it('a refusal that passes by itself is told from the second one in a row on', async () => {
    const { world, open, store, clock } = await createWorld()
    await enqueue(store, 1)
    const outbox = await open(0, new Map())
    world.connected = true
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    const told: number[] = []
    for (let round = 0; round < 2; round++) {
      await outbox.onNack({ code: 'unavailable', device_seq: 1, expected_device_seq: 1 })
      told.push(world.told.length)
      clock.advance(2_000)
      await quiet(outbox)
    }
    expect(told).toEqual([0, 1])
  })

  it('the stamp of an item with a ttl is its age, counted back from the time of the server; without a ttl it stays as it is', async () => {
    const { world, open, store, wire, clock } = await createWorld()
    const DAY = 86_400_000
    const make = async (stamp: number, queued_at: number, ttl: number | null): Promise<string> => {
      const event_id = createEventIdMaker(nodeCrypto)(stamp)
      await store.enqueue([{ event_id, stream_id: 's', type: 'app', ttl, data: new Uint8Array(1), queued_at }])
      return event_id
    }
    // queued by a clock that was 400 days ahead, and set right since
    const ahead = await make(NOW_MS + 400 * DAY, NOW_MS + 400 * DAY, 60)
    const plain = await make(NOW_MS + 400 * DAY, NOW_MS + 400 * DAY, null)
    // queued half a minute ago by a clock that still is an hour behind
    world.time.hear(NOW_MS + 3_600_000)
    const behind = await make(NOW_MS - 30_000, NOW_MS - 30_000, 60)
    const right = await make(NOW_MS + 3_600_000, NOW_MS, 60)
    const outbox = await open(0, new Map())
    world.connected = true
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    const sent = wire.flat()
    expect(sent.map((record) => eventTimeMs(record.event_id) - clock.now() - 3_600_000)).toEqual([0, 400 * DAY - 3_600_000, -30_000, 0])
    expect([sent[1]?.event_id, sent[3]?.event_id]).toEqual([plain, right])
    // each is found under both of its names
    expect(await store.readOutcomes([ahead, behind])).toEqual([
      { event_id: sent[0]?.event_id, queued_id: ahead, state: 'pending' },
      { event_id: sent[2]?.event_id, queued_id: behind, state: 'pending' },
    ])
    await outbox.onAcks(
      1,
      [1, 2, 3, 4].map((n) => ({ device_seq: n, position: n, stream_seq: n })),
    )
    expect(await store.readOutcomes([ahead])).toMatchObject([{ queued_id: ahead, state: 'acked', position: 1 }])
  })

  it('an item that was sealed with a time ahead of the server is sealed anew with the right one', async () => {
    const { world, open, store, wire } = await createWorld()
    const event_id = createEventIdMaker(nodeCrypto)(NOW_MS + 3_600_000)
    await store.enqueue([{ event_id, stream_id: 's', type: 'app', ttl: 60, data: new Uint8Array(1), queued_at: NOW_MS + 3_600_000 }])
    const sealed = { device_seq: 1, epoch: 0, event_hash: new Uint8Array(32), record: new Uint8Array(9) }
    await store.sealItems([{ item_no: 1, event_id, ...sealed }])
    const outbox = await open(0, new Map())
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    world.connected = true
    await outbox.onNack({ code: 'clock_skew', device_seq: 1, expected_device_seq: 1 })
    await quiet(outbox)
    expect(wire.flat().map((record) => [eventTimeMs(record.event_id), record.device_seq])).toEqual([[NOW_MS, 1]])
  })

  it('where the clock was changed since the handshake, nothing with a ttl is sealed before another one', async () => {
    const { world, open, store, wire } = await createWorld()
    const event_id = createEventIdMaker(nodeCrypto)(NOW_MS)
    await store.enqueue([{ event_id, stream_id: 's', type: 'app', ttl: 60, data: new Uint8Array(1), queued_at: NOW_MS }])
    const outbox = await open(0, new Map())
    world.connected = true
    world.clock.set(NOW_MS - 600_000)
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    expect([world.reconnects, wire.length]).toEqual([1, 0])
    world.time.hear(NOW_MS)
    outbox.pump()
    await quiet(outbox)
    expect(wire.flat().map((record) => eventTimeMs(record.event_id))).toEqual([NOW_MS])
  })

  it('an item that is dropped while it is being sealed does not leave', async () => {
    const store = createMemoryStore()
    const ids = await enqueue(store, 3, 1)
    const dropping: DeviceStore = {
      ...store,
      async sealItems(rows) {
        if (rows.length === 3) await store.dropItems([ids[1]!])
        return store.sealItems(rows)
      },
    }
    const { world, open, wire } = await createWorld(dropping)
    world.connected = true
    const outbox = await open(0, new Map())
    await outbox.begin({ last_device_seq: 0, limits: LIMITS_SMALL, caught_up: true, resetting: false })
    await quiet(outbox)
    expect(wire.flat().map((record) => [record.event_id, record.device_seq])).toEqual([
      [ids[0], 1],
      [ids[2], 2],
    ])
  })

  it('what has expired before it could be sent is refused without a number', async () => {
    const { world, open, store, wire, clock } = await createWorld()
    const [gone = ''] = await enqueue(store, 1, 1, 1)
    const [stays = ''] = await enqueue(store, 1, 1)
    clock.advance(2_000)
    const outbox = await open(0, new Map())
    world.connected = true
    await outbox.begin({
      last_device_seq: 0,
      limits: { ...LIMITS_SMALL, inflight_events: LIMITS.inflightEventsMax },
      caught_up: true,
      resetting: false,
    })
    await quiet(outbox)
    expect(wire.flat().map((record) => [record.event_id, record.device_seq])).toEqual([[stays, 1]])
    expect(await store.readOutcomes([gone])).toEqual([{ event_id: gone, queued_id: gone, state: 'set_aside', code: 'event_expired' }])
  })
})
