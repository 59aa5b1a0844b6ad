import { type Bytes, concat, encodeRecord, type EventRecord, SealpostError } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import { deliver, entomb, NOW_MS, sealChain, sealTestEvent, testDevice } from '@sealpost/testing/clients/honest-events'
import { type Inbox, openInbox, type RecordsMessage } from './inbox.ts'
import type { StreamNotice } from '../notices.ts'
import type { DeviceStore, ItemAck, ReceivedRow, StoredHead } from '../ports.ts'
import { createServerClock } from '../connection/server-clock.ts'
import { createMemoryStore, type MemoryStore } from '@sealpost/testing/clients/memory-store'
import { createTestAccount, createTestClock, identityOf } from '@sealpost/testing/clients/clock-and-account'

const self = testDevice(1)
const other = testDevice(2)

async function createWorld(store: MemoryStore = createMemoryStore()) {
  const account = createTestAccount(self, [self, other])
  const world = {
    store,
    account,
    told: [] as StreamNotice[],
    failed: [] as unknown[],
    adopted: [] as { seen: number; acks: readonly ItemAck[]; upto: number }[],
    caughtUp: 0,
    forgot: 0,
    resets: [] as number[],
    moved: [] as boolean[],
    logAsked: 0,
    answerLog: () => account.rotate(),
  }
  const open = async (): Promise<Inbox> =>
    openInbox(
      {
        crypto: nodeCrypto,
        store,
        clock: createTestClock(),
        identity: identityOf(self),
        account,
        time: createServerClock(createTestClock()),
        withOwn: async (call) => {
          const state = await store.readReceiveState()
          const heads = new Map<string, StoredHead>()
          for (const [key, head] of state.heads) if (key.startsWith(self.device_id)) heads.set(key.slice(self.device_id.length + 1), head)
          return call({
            acked_device_seq: state.acked_device_seq,
            heads,
            async find(ids) {
              const rows = await store.readOutcomes(ids)
              return {
                waiting: new Set(rows.filter((row) => row.state === 'pending').map((row) => row.event_id)),
                known: new Set(rows.map((row) => row.event_id)),
              }
            },
            adopt: (seen, acks, _heads, upto) => world.adopted.push({ seen, acks, upto }),
          })
        },
        forgetOwnHeads: () => {
          world.forgot++
          return Promise.resolve()
        },
        resetStored: () => world.resets.push(store.transactions()),
        requestLog: () => {
          world.logAsked++
          world.answerLog()
          return Promise.resolve()
        },
        tell: (notice) => world.told.push(notice),
        acksStored: () => Promise.resolve(),
        stored: (moved) => world.moved.push(moved),
        caughtUp: () => {
          world.caughtUp++
        },
        failed: (error) => world.failed.push(error),
      },
      await store.readReceiveState(),
    )
  const inbox = await open()
  inbox.begin({ history_id: 'h', floor: 0 })
  return { world, inbox, open }
}

const bodyOf = (records: readonly EventRecord[]): Bytes => concat(...records.map(encodeRecord))

function message(records: readonly EventRecord[], o: Partial<RecordsMessage> = {}): RecordsMessage {
  const first = records[0]?.server?.position ?? 1
  const last = records.at(-1)?.server?.position ?? 0
  return { is: 'records', after: first - 1, upto: last, body: bodyOf(records), floor: null, last: false, ...o }
}

async function rowsOf(store: DeviceStore, stream = 'main'): Promise<ReceivedRow[]> {
  return store.readReceived(stream, 0, 1_000, 1e9)
}

const positions = (rows: readonly ReceivedRow[]): number[] => rows.flatMap((row) => (row.is === 'event' ? [row.position] : []))

describe('the receive path', () => {
  it('stores events, chain heads and cursor of a message in one transaction', async () => {
    const { world, inbox } = await createWorld()
    const records = deliver(await sealChain(other, ['main', 'main', 'side']))
    const before = world.store.transactions()
    expect(inbox.offer(message(records, { last: true }))).toBe(true)
    await inbox.idle()
    expect(world.store.transactions() - before).toBe(1)
    expect(positions(await rowsOf(world.store))).toEqual([1, 2])
    const { cursor, heads } = await world.store.readReceiveState()
    expect(cursor).toEqual({ position: 3, event_id: records[2]?.event_id, received_at: NOW_MS, history_id: 'h' })
    expect(heads.get(`${other.device_id}/main`)?.device_seq).toBe(2)
    expect(world.caughtUp).toBe(1)
    expect(world.moved).toEqual([true])
    expect(inbox.cursor).toEqual(cursor)
  })

  it('a message that does not begin where the last one ended is refused, also while earlier ones wait (C6)', async () => {
    const { inbox } = await createWorld()
    const records = deliver(await sealChain(other, ['main', 'main', 'main']))
    expect(inbox.offer(message(records.slice(1)))).toBe(false)
    expect(inbox.offer(message(records.slice(0, 1)))).toBe(true)
    expect(inbox.offer(message(records.slice(0, 1)))).toBe(false)
    expect(inbox.offer(message(records.slice(2)))).toBe(false)
    expect(inbox.offer(message(records.slice(1)))).toBe(true)
    await inbox.idle()
  })

  it('records outside of the range that their message names end the session, and nothing of it is stored', async () => {
    const records = deliver(await sealChain(other, ['main', 'main', 'main']))
    for (const [given, range] of [
      [records, { upto: 2 }],
      [[records[1]!, records[0]!], { after: 0, upto: 3 }],
      [[records[0]!, records[0]!], { after: 0, upto: 3 }],
    ] as const) {
      const { world, inbox } = await createWorld()
      inbox.offer(message(given, { after: 0, ...range }))
      await inbox.idle()
      expect(world.failed).toEqual([expect.objectContaining({ code: 'invalid_message' })])
      expect((await world.store.readReceiveState()).cursor.position).toBe(0)
    }
  })

  it('a message without records moves the cursor to its tip, or to a place that retention emptied', async () => {
    const { inbox } = await createWorld()
    const tip = { event_id: '01890000-0000-7000-8000-000000000001', received_at: 9 }
    inbox.offer(message([], { after: 0, upto: 4, tip }))
    await inbox.idle()
    expect(inbox.cursor).toEqual({ position: 4, ...tip, history_id: 'h' })
    inbox.offer(message([], { after: 4, upto: 6, tip: null }))
    await inbox.idle()
    expect(inbox.cursor).toEqual({ position: 6, event_id: null, received_at: null, history_id: 'h' })
  })

  it('a message that does not name the entry where it ends is refused when that is not its last record', async () => {
    const { world, inbox } = await createWorld()
    inbox.offer(message([], { after: 0, upto: 4 }))
    await inbox.idle()
    expect(world.failed).toEqual([expect.objectContaining({ code: 'invalid_message' })])
    expect(inbox.cursor.position).toBe(0)
    // where nothing moved there is nothing to name
    const same = await createWorld()
    same.inbox.offer(message([], { after: 0, upto: 0 }))
    await same.inbox.idle()
    expect(same.world.failed).toEqual([])
  })

  it('the own chains are the outbox’s: what it has forgotten is not known here either', async () => {
    const { world, inbox } = await createWorld()
    const chain = await sealChain(self, ['main'])
    inbox.offer(message(deliver(chain)))
    await inbox.idle()
    await world.store.ackItems([], 0, [{ key: `${self.device_id}/main`, head: null }])
    const again = deliver([await sealTestEvent(self, { device_seq: 2 })]).map((record) => ({
      ...record,
      server: { position: 2, stream_seq: 2, received_at: NOW_MS },
    }))
    inbox.offer(message(again))
    await inbox.idle()
    // a chain without a known head begins there; behind a head it would be told as a restart
    expect(world.told).toEqual([])
  })

  it('an event of an unknown epoch waits for the log, and then comes in its place', async () => {
    const { world, inbox } = await createWorld()
    const [first] = await sealChain(other, ['main'])
    const second = await sealTestEvent(other, { device_seq: 2, epoch: 1, prev_hash: first!.event_hash })
    inbox.offer(message(deliver([first!, second])))
    await inbox.idle()
    expect(world.logAsked).toBe(1)
    expect(positions(await rowsOf(world.store))).toEqual([1, 2])
    expect(world.failed).toEqual([])
  })

  it('an epoch whose entry never comes is log_withheld: nothing of the message is stored, the cursor stays', async () => {
    const { world, inbox } = await createWorld()
    world.answerLog = () => undefined
    inbox.offer(message(deliver([await sealTestEvent(other, { device_seq: 1, epoch: 1 })])))
    await inbox.idle()
    expect(world.failed).toEqual([expect.objectContaining({ code: 'log_withheld' })])
    expect((await world.store.readReceiveState()).cursor.position).toBe(0)
  })

  it('what does not verify is an alarm in its place and not handed over; the rest goes on', async () => {
    const { world, inbox } = await createWorld()
    const records = deliver(await sealChain(other, ['main', 'side', 'main']))
    const forged = records.map((record, i) => (i === 1 ? { ...record, sig: new Uint8Array(64) } : record))
    inbox.offer(message(forged))
    await inbox.idle()
    expect(positions(await rowsOf(world.store))).toEqual([1, 3])
    expect(world.told).toEqual([{ is: 'alarm', position: 2, device_id: other.device_id, reason: 'invalid_signature' }])
    expect(await world.store.countAlarms()).toBe(1)
    expect(inbox.cursor.position).toBe(3)
  })

  it('a missing event is an unexplained gap and an alarm, an expired one a gap alone', async () => {
    const { world, inbox } = await createWorld()
    const chain = await sealChain(other, ['main', 'main', 'main', 'main'], (i) => (i === 3 ? { ttl: 1, event_id: expiredId } : {}))
    const expired = chain[3]!
    inbox.offer(message(deliver([chain[0]!, chain[2]!, { record: entomb(expired.record) }])))
    await inbox.idle()
    expect(world.told).toEqual([
      expect.objectContaining({ is: 'gap', reason: 'unexplained', from_device_seq: 2 }),
      expect.objectContaining({ is: 'gap', reason: 'expired', from_device_seq: 4 }),
    ])
    expect((await world.store.readAlarms(5)).map((alarm) => alarm.reason)).toEqual(['unexplained_gap'])
  })

  it('after a reset the application is told first, and only what is above the known heads is handed over (C6)', async () => {
    const { world, inbox, open } = await createWorld()
    const chain = await sealChain(other, ['main', 'main', 'main', 'side'])
    inbox.offer(message(deliver(chain.slice(0, 2))))
    await inbox.idle()
    inbox.offer({ is: 'reset', reason: 'history_changed', history_id: 'h2', head_position: 4, from_position: 0 })
    await inbox.idle()
    expect(world.told).toEqual([{ is: 'reset', reason: 'history_changed' }])
    expect(world.forgot).toBe(1)
    // sending goes on only once the reset is on disk
    expect(world.resets).toEqual([world.store.transactions()])
    // a restart in between forgets nothing of it
    const again = await open()
    again.begin({ history_id: 'h2', floor: 0 })
    again.offer(message(deliver(chain)))
    await again.idle()
    const rows = await rowsOf(world.store)
    expect(rows.map((row) => row.is)).toEqual(['event', 'event', 'notice', 'event'])
    expect(positions(rows)).toEqual([1, 2, 3])
    expect(positions(await rowsOf(world.store, 'side'))).toEqual([4])
    expect([again.cursor.position, again.cursor.history_id]).toEqual([4, 'h2'])
    expect(await world.store.countAlarms()).toBe(0)
  })

  it('own events: a waiting one is acked, a known one skipped, an unknown one handed over', async () => {
    const { world, inbox } = await createWorld()
    const chain = await sealChain(self, ['main', 'main'])
    await world.store.enqueue([
      { event_id: chain[0]!.record.event_id, stream_id: 'main', type: 'app', ttl: null, data: new Uint8Array(1), queued_at: 0 },
    ])
    inbox.offer(message(deliver(chain)))
    await inbox.idle()
    expect(positions(await rowsOf(world.store))).toEqual([2])
    expect(await world.store.readOutcomes([chain[0]!.record.event_id])).toEqual([expect.objectContaining({ state: 'acked', position: 1 })])
    expect(world.adopted).toEqual([{ seen: 2, acks: [expect.objectContaining({ device_seq: 1 })], upto: 2 }])
    expect((await world.store.readReceiveState()).acked_device_seq).toBe(2)
  })

  it('a failed write ends the session without moving the cursor; the next one brings the events again', async () => {
    const store = createMemoryStore()
    let broken = true
    const failing: MemoryStore = {
      ...store,
      commitReceived: (commit) => (broken ? Promise.reject(new SealpostError('disk', 'full')) : store.commitReceived(commit)),
    }
    const { world, inbox } = await createWorld(failing)
    const records = deliver(await sealChain(other, ['main', 'main']))
    inbox.offer(message(records))
    await inbox.idle()
    expect(world.failed).toEqual([expect.objectContaining({ code: 'disk' })])
    expect(inbox.cursor.position).toBe(0)
    broken = false
    inbox.end()
    inbox.begin({ history_id: 'h', floor: 0 })
    expect(inbox.offer(message(records))).toBe(true)
    await inbox.idle()
    expect(positions(await rowsOf(store))).toEqual([1, 2])
  })
})

const expiredId = '00000000-0001-7000-8000-000000000001'
