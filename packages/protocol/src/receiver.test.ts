import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bytes, concat, fromHex, toBase64url, toHex } from './bytes.ts'
import { type ChainHead, type Chains, chainKey } from './chain.ts'
import type { Crypto } from './crypto.ts'
import type { DeviceLog } from './device-log.ts'
import { SealpostError } from './errors.ts'
import { type SealInput, sealEvent } from './event.ts'
import { nodeCrypto } from './node.ts'
import { type Received, type ReceiveContext, receivePage } from './receiver.ts'
import { decodeRecords, type EventRecord, encodeRecord } from './record.ts'
import {
  deliver,
  entomb,
  eventIdAt,
  fill,
  NOW_MS,
  sealChain,
  sealTestEvent,
  signTestRecord,
  type TestEvent,
  testContext,
  testDevice,
  testLog,
} from '@sealpost/testing/clients/honest-events'
import { webCrypto } from './web-crypto.ts'

const vectors = JSON.parse(readFileSync(new URL('../../../vectors/events.json', import.meta.url), 'utf8'))

const laptop = testDevice(1)
const phone = testDevice(2)
const tablet = testDevice(3)
const devices = [laptop, phone, tablet]
const log = testLog(2, devices)
const receive = (records: EventRecord[], chains: Chains = new Map(), more: Partial<ReceiveContext> = {}, crypto: Crypto = nodeCrypto) =>
  receivePage(crypto, testContext(log, more), chains, records)

/** What happened, in a word per item: `2` for an opened event with that device_seq, else its name. */
const outline = (items: readonly Received[]) =>
  items.map((item) => {
    if (item.is === 'event') return item.record.device_seq
    if (item.is === 'gap') return `gap ${item.reason} from ${item.from_device_seq}`
    return item.is === 'alarm' ? `alarm ${item.reason}` : item.is
  })
const opened = (items: readonly Received[]) => items.flatMap((item) => (item.is === 'event' ? [item] : []))

const flip = (bytes: Bytes, at = bytes.length - 1): Bytes => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte))
const clips = (n: number) => Array.from({ length: n }, () => 'clip')

describe('the pages of the vectors', () => {
  type Page = {
    name: string
    heads: (ChainHead & { device_id: string; stream_id: string })[]
    floor: number
    records: string
    items: unknown[]
    heads_after?: unknown[]
  }
  const world: DeviceLog = {
    ...testLog(vectors.log_seq, []),
    user_id: vectors.user_id,
    devices: new Map(
      vectors.devices.map(
        (device: {
          device_id: string
          sign_pub: string
          added: number
          revoked: { log_seq: number; last_device_seq: number; heads: { event_hash: string }[] } | null
        }) => {
          const { revoked } = device
          const pins = revoked && {
            last_device_seq: revoked.last_device_seq,
            heads: revoked.heads.map((h) => ({ ...h, event_hash: fromHex(h.event_hash) })),
          }
          return [
            device.device_id,
            {
              ...device,
              sign_pub: fromHex(device.sign_pub),
              revoked: revoked && { log_seq: revoked.log_seq, by: 'root', created_at: 0, pins },
            },
          ]
        },
      ),
    ),
    epochs: vectors.epochs.map(({ entry_hash }: { entry_hash: string }) => ({ entry_hash: fromHex(entry_hash) })),
  }
  const keys: Bytes[] = vectors.epochs.map(({ key }: { key: string }) => fromHex(key))
  const run = (crypto: Crypto, page: Page) =>
    receivePage(
      crypto,
      { user_id: vectors.user_id, log: world, epoch_key: (epoch) => keys[epoch] ?? null, floor: page.floor, now_ms: vectors.now_ms },
      new Map(page.heads.map((h) => [chainKey(h), { ...h, event_hash: fromHex(String(h.event_hash)) }])),
      decodeRecords(fromHex(page.records)),
    )
  const told = (items: readonly Received[]) =>
    items.map((item) => {
      if (item.is === 'event') return { is: 'event', event_id: item.record.event_id, data: toHex(item.data) }
      return item.is === 'expired' ? { is: 'expired', event_id: item.record.event_id } : item
    })

  for (const [name, crypto] of [
    ['node:crypto', nodeCrypto],
    ['WebCrypto', webCrypto],
  ] as const) {
    it.each(vectors.pages as Page[])(`${name}: $name`, async (page) => {
      const { items, moved } = await run(crypto, page)
      expect(told(items)).toEqual(page.items)
      if (page.heads_after)
        expect([...moved].map(([key, head]) => ({ key, ...head, event_hash: toHex(head.event_hash) }))).toEqual(
          (page.heads_after as { device_id: string; stream_id: string }[]).map(({ device_id, stream_id, ...head }) => ({
            key: `${device_id}/${stream_id}`,
            ...head,
          })),
        )
    })

    it.each(vectors.invalid as Page[])(`${name}, alarm: $name`, async (page) => {
      const { items } = await run(crypto, page)
      expect(told(items)).toEqual(page.items)
    })
  }
})

describe('what authenticates an event', () => {
  const fields: [string, (record: EventRecord, other: EventRecord) => Partial<EventRecord>][] = [
    ['event_id', (_, other) => ({ event_id: other.event_id })],
    ['device_id', (_, other) => ({ device_id: other.device_id })],
    ['device_seq', (record) => ({ device_seq: record.device_seq + 1 })],
    ['stream_id', () => ({ stream_id: 'other' })],
    ['type', () => ({ type: 'other' })],
    ['ttl removed', () => ({ ttl: null })],
    ['ttl', () => ({ ttl: 7200 })],
    ['epoch', () => ({ epoch: 2 })],
    ['prev_hash', (_, other) => ({ prev_hash: other.prev_hash })],
    ['prev_hash removed', () => ({ prev_hash: null })],
    ['payload', (_, other) => ({ payload: other.payload })],
    ['signature', (_, other) => ({ sig: other.sig })],
  ]
  const make = async () => {
    const one = await sealTestEvent(laptop, { device_seq: 5, epoch: 1, ttl: 3600, prev_hash: fill(7) })
    const two = await sealTestEvent(phone, { device_seq: 6, epoch: 1, ttl: 60, prev_hash: fill(8), type: 'x' })
    return [one, two] as const
  }

  it.each(fields)('%s of another event: alarm, nothing handed over, the chain stands still', async (_, edit) => {
    const [one, two] = await make()
    const [honest, foreign] = deliver([one, two]) as [EventRecord, EventRecord]
    expect(outline((await receive([honest])).items)).toEqual([5])
    const got = await receive([{ ...honest, ...edit(honest, foreign) }])
    expect(outline(got.items)).toEqual(['alarm invalid_signature'])
    expect(got.items[0]).toMatchObject({ position: 1 })
    expect(got.moved.size).toBe(0)
  })

  const swaps: Partial<SealInput>[] = [
    { event_id: eventIdAt(NOW_MS) },
    { device_seq: 6 },
    { stream_id: 'other' },
    { type: 'other' },
    { ttl: null },
    { ttl: 7200 },
    { epoch: 2 },
    { prev_hash: null },
    { prev_hash: fill(8) },
    { user_id: toBase64url(fill(8)) },
  ]
  it.each(swaps)('is also the AAD: with %o changed and signed anew by the device, the payload does not open', async (swap) => {
    const [{ record }] = await make()
    const payload = record.payload!
    // seals nothing: puts the honest payload inside the changed header
    const crypto: Crypto = { ...nodeCrypto, random: () => payload.subarray(0, 12), aesGcmSeal: () => payload.subarray(12) }
    const input = { ...record, user_id: log.user_id, sign_seed: laptop.sign_seed, event_key: fill(0), data: fill(0, 5) }
    const unchanged = decodeRecords((await sealEvent(crypto, input)).record)
    expect(outline((await receive(deliver(unchanged.map((record) => ({ record }))))).items)).toEqual([5])
    const changed = decodeRecords((await sealEvent(crypto, { ...input, ...swap })).record)
    const context = testContext({ ...log, user_id: swap.user_id ?? log.user_id })
    const got = await receivePage(nodeCrypto, context, new Map(), deliver(changed.map((record) => ({ record }))))
    expect(outline(got.items)).toEqual(['alarm decrypt_failed'])
  })

  it('an event sealed and signed by one device in the name of another is an alarm', async () => {
    const forged = await sealTestEvent({ ...laptop, sign_seed: phone.sign_seed }, { device_seq: 1 })
    expect(outline((await receive(deliver([forged]))).items)).toEqual(['alarm invalid_signature'])
  })

  it('what a device signed moves its chain even when it does not open', async () => {
    const [one, two, three] = await sealChain(laptop, clips(3), (i) => (i === 1 ? { event_key: fill(9) } : {}))
    const got = await receive(deliver([one!, two!, three!]))
    expect(outline(got.items)).toEqual([1, 'alarm decrypt_failed', 3])
  })

  it.each([
    ['node:crypto', nodeCrypto],
    ['WebCrypto', webCrypto],
  ] as const)('%s: a payload that its device signed but that is no ciphertext is an alarm, of any length', async (_, crypto) => {
    const { record } = await sealTestEvent(laptop, { device_seq: 1 })
    for (const length of [0, 1, 11, 12, 13, 27, 28, 29, 60]) {
      const signed = signTestRecord(laptop, { ...record, payload: fill(1, length) })
      const got = await receive(deliver([{ record: signed }]), new Map(), {}, crypto)
      expect(outline(got.items), `${length}`).toEqual(['alarm decrypt_failed'])
      expect(got.moved.size).toBe(1)
    }
  })

  it('a failure of the crypto backend is an error, not an alarm', async () => {
    const broken: Crypto = {
      ...nodeCrypto,
      aesGcmKey: () => ({ seal: () => fill(0), open: () => Promise.reject(new Error('out of memory')) }),
    }
    await expect(receive(deliver(await sealChain(laptop, clips(1))), new Map(), {}, broken)).rejects.toThrow('out of memory')
    const thrown: Crypto = {
      ...nodeCrypto,
      aesGcmKey: () => ({
        seal: () => fill(0),
        open: () => {
          throw new SealpostError('internal', 'no')
        },
      }),
    }
    await expect(receive(deliver(await sealChain(laptop, clips(1))), new Map(), {}, thrown)).rejects.toMatchObject({ code: 'internal' })
  })

  it('a record without a server part is refused', async () => {
    const [event] = await sealChain(laptop, clips(1))
    await expect(receive([event!.record])).rejects.toMatchObject({ code: 'invalid_message' })
  })
})

describe('runs', () => {
  const counting = () => {
    const counts = { verify: 0 }
    const crypto: Crypto = {
      ...nodeCrypto,
      ed25519Verify: (...args) => {
        counts.verify++
        return nodeCrypto.ed25519Verify(...args)
      },
    }
    return { counts, crypto }
  }

  it('one signature is checked per run of a chain', async () => {
    const { counts, crypto } = counting()
    const mine = await sealChain(laptop, ['a', 'b', 'a', 'b', 'a'])
    const theirs = await sealChain(phone, clips(3))
    const records = deliver([mine[0]!, theirs[0]!, mine[1]!, mine[2]!, theirs[1]!, mine[3]!, theirs[2]!, mine[4]!])
    const { items } = await receive(records, new Map(), {}, crypto)
    expect(opened(items)).toHaveLength(8)
    expect(counts.verify).toBe(3)
  })

  it('when the last signature of a run fails, only what it alone vouched for becomes an alarm', async () => {
    const { counts, crypto } = counting()
    const records = deliver(await sealChain(laptop, clips(5)))
    records[4] = { ...records[4]!, sig: flip(records[4]!.sig) }
    const { items, moved: chains } = await receive(records, new Map(), {}, crypto)
    expect(outline(items)).toEqual([1, 2, 3, 4, 'alarm invalid_signature'])
    expect(chains.get(chainKey(records[0]!))).toMatchObject({ device_seq: 4, position: 4 })
    expect(counts.verify).toBe(5)
  })

  it('each failed run of a page is judged on its own', async () => {
    const mine = deliver(await sealChain(laptop, clips(3)))
    const theirs = deliver(await sealChain(phone, clips(3)))
    mine[2] = { ...mine[2]!, sig: flip(mine[2]!.sig) }
    for (const i of [1, 2]) theirs[i] = { ...theirs[i]!, sig: flip(theirs[i]!.sig) }
    const { items } = await receive([...mine, ...theirs])
    expect(outline(items)).toEqual([1, 2, 'alarm invalid_signature', 1, 'alarm invalid_signature', 'alarm invalid_signature'])
  })

  it('an altered event in the middle is an alarm, those before and after it are delivered, the hole is told', async () => {
    const records = deliver(await sealChain(laptop, clips(5)))
    records[2] = { ...records[2]!, payload: flip(records[2]!.payload!) }
    expect(outline((await receive(records)).items)).toEqual([1, 2, 'alarm invalid_signature', 'gap unexplained from 3', 4, 5])
  })

  it('a forged event put between honest ones harms none of them', async () => {
    const [one, two] = await sealChain(laptop, clips(2))
    const forged = await sealTestEvent(
      { ...laptop, sign_seed: phone.sign_seed },
      { device_seq: 2, stream_id: 'clip', prev_hash: one!.event_hash },
    )
    expect(outline((await receive(deliver([one!, forged, two!]))).items)).toEqual([1, 'alarm invalid_signature', 2])
  })

  it('the chains of others go on', async () => {
    const mine = await sealChain(laptop, clips(2))
    const theirs = await sealChain(phone, clips(2))
    const records = deliver([mine[0]!, theirs[0]!, mine[1]!, theirs[1]!])
    records[0] = { ...records[0]!, sig: fill(0, 64) }
    records[2] = { ...records[2]!, sig: fill(0, 64) }
    expect(outline((await receive(records)).items)).toEqual(['alarm invalid_signature', 1, 'alarm invalid_signature', 2])
  })
})

describe('senders (G14, B01)', () => {
  const old = testDevice(4, { revoked: { log_seq: 2, pins: null } })
  const fresh = testDevice(5, { added: 2 })
  const at = (records: EventRecord[], ...more: Parameters<typeof testLog>[1]) =>
    receivePage(nodeCrypto, testContext(testLog(3, [old, fresh, ...more])), new Map(), records)

  it('a device that the log does not know is an alarm', async () => {
    const got = await at(deliver([await sealTestEvent(laptop, { device_seq: 1 })]))
    expect(outline(got.items)).toEqual(['alarm unknown_device'])
  })

  it('an epoch before a device was added, or from its revocation on, is an alarm', async () => {
    for (const [epoch, expected] of [
      [1, 'alarm inactive_device'],
      [2, 1],
      [3, 1],
    ] as const)
      expect(outline((await at(deliver([await sealTestEvent(fresh, { device_seq: 1, epoch })]))).items)).toEqual([expected])
    for (const [epoch, expected] of [
      [0, 1],
      [1, 1],
      [2, 'alarm inactive_device'],
      [3, 'alarm inactive_device'],
    ] as const)
      expect(outline((await at(deliver([await sealTestEvent(old, { device_seq: 1, epoch })]))).items)).toEqual([expected])
  })

  it('pins bound the past of a revoked device: up to the pin, at it only the pinned event, nothing above or beside it', async () => {
    const lost = testDevice(6)
    const events = await sealChain(lost, ['clip', 'clip', 'clip', 'notes'])
    const rewritten = await sealTestEvent(lost, { device_seq: 2, stream_id: 'clip', prev_hash: events[0]!.event_hash })
    const pins = { last_device_seq: 2, heads: [{ stream_id: 'clip', device_seq: 2, event_hash: events[1]!.event_hash }] }
    const pinned = { ...lost, revoked: { log_seq: 1, pins } }
    expect(outline((await at(deliver(events), pinned)).items)).toEqual([1, 2, 'alarm outside_pins', 'alarm outside_pins'])
    expect(outline((await at(deliver([events[0]!, rewritten]), pinned)).items)).toEqual([1, 'alarm pin_mismatch'])
    const later = { ...lost, revoked: { log_seq: 1, pins: { ...pins, last_device_seq: 4 } } }
    expect(outline((await at(deliver(events), later)).items)).toEqual([1, 2, 'alarm outside_pins', 'alarm outside_pins'])
    const loose = { ...lost, revoked: { log_seq: 1, pins: null } }
    expect(outline((await at(deliver(events), loose)).items)).toEqual([1, 2, 3, 4])
  })

  it('a record of an epoch that the log does not know stops the page there', async () => {
    const events = await sealChain(laptop, clips(4), (i) => ({ epoch: i === 2 ? 3 : 0 }))
    const got = await receive(deliver(events))
    expect(outline(got.items)).toEqual([1, 2])
    expect(got.unknown_epoch).toEqual({ index: 2, epoch: 3 })
    expect(got.moved.get(chainKey(events[0]!.record))).toMatchObject({ device_seq: 2 })
    expect((await receive(deliver(events.slice(0, 2)))).unknown_epoch).toBeNull()
  })

  it('an epoch whose key is closed to this device is said so, and the chain goes on', async () => {
    const events = await sealChain(laptop, clips(3), (i) => ({ epoch: i === 0 ? 0 : 1 }))
    const got = await receive(deliver(events), new Map(), { epoch_key: (epoch) => (epoch === 0 ? null : fill(0x41)) })
    expect(outline(got.items)).toEqual(['closed', 2, 3])
  })
})

describe('chains (B01)', () => {
  it('link from page to page, and the chains given are not changed', async () => {
    const records = deliver(await sealChain(laptop, ['a', 'b', 'a', 'b']))
    const first = await receive(records.slice(0, 2))
    const kept = new Map(first.moved)
    const second = await receive(records.slice(2), first.moved)
    expect(outline([...first.items, ...second.items])).toEqual([1, 2, 3, 4])
    expect(first.moved).toEqual(kept)
    expect([...second.moved.keys()].sort()).toEqual(records.slice(0, 2).map(chainKey).sort())
  })

  it('without a known head the first event is the anchor', async () => {
    const records = deliver((await sealChain(laptop, clips(3))).slice(1), 2)
    expect(outline((await receive(records)).items)).toEqual([2, 3])
  })

  it('a number that does not rise, or an epoch that falls, is an alarm though signed and linked', async () => {
    const [one] = await sealChain(laptop, clips(1), () => ({ epoch: 1, device_seq: 5 }))
    const next = { stream_id: 'clip', prev_hash: one!.event_hash }
    const again = await sealTestEvent(laptop, { ...next, epoch: 1, device_seq: 5 })
    const fell = await sealTestEvent(laptop, { ...next, epoch: 0, device_seq: 6 })
    const good = await sealTestEvent(laptop, { ...next, epoch: 1, device_seq: 7 })
    expect(outline((await receive(deliver([one!, again, fell, good]))).items)).toEqual([
      5,
      'alarm sequence_not_rising',
      'alarm epoch_fell',
      7,
    ])
  })

  it('a replayed event is an alarm, in the page and in a later one', async () => {
    const [one, two] = deliver(await sealChain(laptop, clips(2))) as [EventRecord, EventRecord]
    const got = await receive([one, two, one])
    expect(outline(got.items)).toEqual([1, 2, 'alarm sequence_not_rising'])
    expect(outline((await receive([two], got.moved)).items)).toEqual(['alarm sequence_not_rising'])
  })

  it('a missing event is an unexplained gap; above the floor the floor explains nothing', async () => {
    const records = deliver(await sealChain(laptop, clips(4)))
    const [first, , third, fourth] = records as [EventRecord, EventRecord, EventRecord, EventRecord]
    const known = (await receive([first])).moved
    const expected = { is: 'gap', stream_id: 'clip', device_id: laptop.device_id, from_device_seq: 2, reason: 'unexplained', position: 3 }
    expect((await receive([third, fourth], known)).items[0]).toEqual(expected)
    expect(outline((await receive([third], known, { floor: 1 })).items)).toEqual(['gap unexplained from 2', 3])
    expect(outline((await receive([third], known, { floor: 2 })).items)).toEqual(['gap retention from 2', 3])
  })

  it('no prev_hash on a known chain is a restart', async () => {
    const [one] = await sealChain(laptop, clips(1))
    const anew = await sealTestEvent(laptop, { device_seq: 9, stream_id: 'clip' })
    expect(outline((await receive(deliver([one!, anew]))).items)).toEqual([1, 'gap restart from 2', 9])
  })
})

describe('ttl and tombstones (G07)', () => {
  const shortLived = (i: number) => (i === 1 || i === 2 ? { ttl: 60, event_id: eventIdAt(NOW_MS - 61_000) } : {})

  it('the chain passes through tombstones; their ttl being over proves `expired`, told once', async () => {
    const records = deliver(await sealChain(laptop, clips(5), shortLived))
    const swept = records.map((record, i) => (i === 1 || i === 2 ? entomb(record) : record))
    expect(outline((await receive(swept)).items)).toEqual([1, 'gap expired from 2', 'expired', 'expired', 4, 5])
  })

  it('an expired event is never handed over, also where its tombstone is not there yet', async () => {
    const records = deliver(await sealChain(laptop, clips(5), shortLived))
    expect(outline((await receive(records)).items)).toEqual([1, 'gap expired from 2', 'expired', 'expired', 4, 5])
    expect(outline((await receive(records, new Map(), { now_ms: NOW_MS - 1_001 })).items)).toEqual([1, 2, 3, 4, 5])
    expect(outline((await receive(records, new Map(), { now_ms: NOW_MS - 1_000 })).items)).toEqual([
      1,
      'gap expired from 2',
      'expired',
      'expired',
      4,
      5,
    ])
  })

  it('a tombstone whose ttl is not over, or that has none, is retention', async () => {
    const records = deliver(await sealChain(laptop, clips(4), (i) => (i === 1 ? { ttl: 3600 } : {})))
    const swept = [records[0]!, entomb(records[1]!), entomb(records[2]!), records[3]!]
    expect(outline((await receive(swept)).items)).toEqual([1, 'gap retention from 2', 'expired', 'expired', 4])
  })

  it('a missing event before a tombstone is told beside it', async () => {
    const records = deliver(await sealChain(laptop, clips(4), (i) => (i > 1 ? { ttl: 1, event_id: eventIdAt(NOW_MS - 61_000) } : {})))
    const page = [records[0]!, entomb(records[2]!), entomb(records[3]!)]
    expect(outline((await receive(page)).items)).toEqual([1, 'gap unexplained from 2', 'gap expired from 3', 'expired', 'expired'])
  })

  it('each stretch of expired events is told anew: after an event, and after another gap', async () => {
    const over = { ttl: 1, event_id: eventIdAt(NOW_MS - 61_000) }
    const records = deliver(await sealChain(laptop, clips(5), (i) => (i === 2 ? {} : over))).map((r, i) => (i === 2 ? r : entomb(r)))
    const told = ['gap expired from 1', 'expired', 'expired', 3, 'gap expired from 4', 'expired', 'expired']
    expect(outline((await receive(records)).items)).toEqual(told)
    const page = [records[0]!, records[1]!, records[3]!, records[4]!]
    const broken = ['gap expired from 1', 'expired', 'expired', 'gap unexplained from 3', 'gap expired from 4', 'expired', 'expired']
    expect(outline((await receive(page)).items)).toEqual(broken)
  })

  it("a tombstone's header, hash, link and signature verify", async () => {
    const [one, two] = deliver(await sealChain(laptop, clips(2))) as [EventRecord, EventRecord]
    const dead = entomb(two)
    for (const edit of [{ payload_hash: fill(1) }, { sig: flip(dead.sig) }, { ttl: 60 }, { type: 'other' }, { prev_hash: null }])
      expect(outline((await receive([one, { ...dead, ...edit }])).items)).toEqual([1, 'alarm invalid_signature'])
  })
})

// ---------------------------------------------------------------- properties

/** A history over three devices and three streams under rising epochs, interleaved as the server happened to order it. */
const history = fc
  .array(fc.record({ device: fc.nat(2), stream: fc.nat(2), rise: fc.nat(9), bytes: fc.nat(80) }), { minLength: 1, maxLength: 30 })
  .map((steps) => {
    let epoch = 0
    return steps.map(({ rise, ...step }) => {
      if (rise === 0 && epoch < 2) epoch += 1
      return { ...step, epoch }
    })
  })
type History = typeof history extends fc.Arbitrary<infer H> ? H : never

async function sealHistory(steps: History): Promise<TestEvent[]> {
  const heads = new Map<string, Bytes>()
  const seqs = [0, 0, 0]
  const out: TestEvent[] = []
  for (const { device, stream, epoch, bytes } of steps) {
    const key = `${device}/${stream}`
    seqs[device]! += 1
    const event = await sealTestEvent(devices[device]!, {
      device_seq: seqs[device]!,
      stream_id: `s${stream}`,
      epoch,
      prev_hash: heads.get(key) ?? null,
      data: nodeCrypto.random(bytes),
    })
    heads.set(key, event.event_hash)
    out.push(event)
  }
  return out
}

async function receivePages(records: EventRecord[], size: number, crypto: Crypto = nodeCrypto): Promise<Received[]> {
  const items: Received[] = []
  const chains: Chains = new Map()
  for (let i = 0; i < records.length; i += size) {
    const got = await receive(records.slice(i, i + size), chains, {}, crypto)
    for (const [key, head] of got.moved) chains.set(key, head)
    items.push(...got.items)
    if (got.unknown_epoch !== null) break
  }
  return items
}

const contentOf = ({ record, data }: { record: EventRecord; data: Bytes }) => {
  const { server: _, sig: __, ...content } = record
  return JSON.stringify({
    ...content,
    payload: toHex(record.payload!),
    prev_hash: record.prev_hash && toHex(record.prev_hash),
    data: toHex(data),
  })
}

describe('streams of honest events', () => {
  it('open whole in every paging, with both backends', async () => {
    await fc.assert(
      fc.asyncProperty(history, fc.integer({ min: 1, max: 30 }), fc.boolean(), async (steps, size, web) => {
        const events = await sealHistory(steps)
        const items = await receivePages(deliver(events), size, web ? webCrypto : nodeCrypto)
        expect(items.map((item) => (item.is === 'event' ? contentOf(item) : item))).toEqual(events.map(contentOf))
      }),
      { numRuns: 60 },
    )
  })

  it('show every event dropped from inside a chain, at the next event of that chain, and deliver the rest', async () => {
    await fc.assert(
      fc.asyncProperty(history, fc.nat(), fc.integer({ min: 1, max: 30 }), async (steps, pick, size) => {
        const events = await sealHistory(steps)
        const inside = events.flatMap((event, i) => {
          const same = (other: TestEvent) => chainKey(other.record) === chainKey(event.record)
          return events.slice(0, i).some(same) && events.slice(i + 1).some(same) ? [i] : []
        })
        fc.pre(inside.length > 0)
        const dropped = inside[pick % inside.length]!
        const records = deliver(events)
        const items = await receivePages(records.toSpliced(dropped, 1), size)
        const next = records.slice(dropped + 1).find((record) => chainKey(record) === chainKey(records[dropped]!))!
        expect(opened(items)).toHaveLength(events.length - 1)
        expect(items.filter((item) => item.is !== 'event')).toMatchObject([
          { is: 'gap', reason: 'unexplained', device_id: next.device_id, stream_id: next.stream_id, position: next.server!.position },
        ])
      }),
      { numRuns: 60 },
    )
  })

  it('show two events of a chain that changed places, and hand over nothing twice or backwards', async () => {
    await fc.assert(
      fc.asyncProperty(history, fc.nat(), fc.integer({ min: 1, max: 30 }), async (steps, pick, size) => {
        const events = await sealHistory(steps)
        const pairs = events.flatMap((event, i) => {
          const j = events.findIndex((other, at) => at > i && chainKey(other.record) === chainKey(event.record))
          return j < 0 ? [] : [[i, j] as const]
        })
        fc.pre(pairs.length > 0)
        const [i, j] = pairs[pick % pairs.length]!
        const swapped = [...events]
        swapped[i] = events[j]!
        swapped[j] = events[i]!
        const items = await receivePages(deliver(swapped), size)
        expect(items).toContainEqual(expect.objectContaining({ is: 'alarm', reason: 'sequence_not_rising', position: j + 1 }))
        const seen = new Map<string, number>()
        for (const { record } of opened(items)) {
          expect(record.device_seq).toBeGreaterThan(seen.get(chainKey(record)) ?? 0)
          seen.set(chainKey(record), record.device_seq)
        }
      }),
      { numRuns: 60 },
    )
  })

  it('show every altered bit that is authenticated, and never hand over what was not sent', async () => {
    let visible = 0
    await fc.assert(
      fc.asyncProperty(history, fc.nat(), fc.nat(), fc.nat(7), async (steps, pick, byte, bit) => {
        const events = await sealHistory(steps)
        const sent = new Set(events.map(contentOf))
        const bodies = deliver(events).map((record) => encodeRecord(record))
        const at = pick % bodies.length
        const body = bodies[at]!.slice()
        const offset = byte % body.length
        body[offset]! ^= 1 << bit
        bodies[at] = body
        let records: EventRecord[]
        try {
          records = decodeRecords(concat(...bodies))
        } catch (error) {
          expect(error).toMatchObject({ code: 'invalid_message' })
          return
        }
        const items = await receivePages(records, 30)
        for (const item of opened(items)) expect(sent.has(contentOf(item))).toBe(true)
        // the server part is the server's word; a signature inside a run is stood in for by the last one
        const { payload } = events[at]!.record
        const sigAt = body.length - payload!.length - 4 - 64
        if (offset < 29 || (offset >= sigAt && offset < sigAt + 64)) return
        visible++
        expect(opened(items).length).toBeLessThan(events.length)
        const stopped = items.length < events.length
        expect(stopped || items.some((item) => item.is === 'alarm')).toBe(true)
      }),
      { numRuns: 150 },
    )
    expect(visible).toBeGreaterThan(20)
  })
})
