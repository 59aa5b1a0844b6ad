import { randomUUID } from 'node:crypto'

import { toTombstone } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StoredEvent, Verdict } from '../../ports/store.ts'
import {
  append,
  createAccount,
  makeEvent,
  makeRun,
  openSession,
  type TestAccount,
  type TestEvent,
} from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createStore, type PostgresStore } from '../store.ts'

const database = useDatabase()
let store: PostgresStore
let sql: Client

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent, streams_max: 5 })
  sql = new Client(database.connection)
  await sql.connect()
})
afterAll(async () => {
  await store.close()
  await sql.end()
})

const KINDS = ['ok', 'ok', 'ok', 'fenced', 'gap', 'not_next', 'stale_epoch', 'event_expired', 'clock_skew', 'not_active']

type Sender = { account: TestAccount; user_no: number; device_no: number; session_id: string; epoch: number }

async function sender(device_no = 1, account?: TestAccount): Promise<Sender> {
  const of = account ?? (await createAccount(store, 2))
  return { account: of, user_no: of.user_no, device_no, session_id: await openSession(store, of.user_no, device_no), epoch: of.log_seq }
}

const run = ({ user_no, device_no, session_id, epoch }: Sender, first_seq: number, events: number | TestEvent[]) =>
  makeRun({ user_no, device_no, session_id, epoch, first_seq }, events)

async function ingestOne(...args: Parameters<typeof run>): Promise<Verdict> {
  return (await store.ingest([run(...args)], false))[0]!
}

function stored(verdict: Verdict | undefined): StoredEvent[] {
  if (verdict?.is !== 'stored') throw new Error(`not stored: ${JSON.stringify(verdict)}`)
  return verdict.events
}

describe('ingest', () => {
  it('G14: numbers of a user are contiguous over devices, those of a stream within it', async () => {
    const a = await sender(1)
    const b = await sender(2, a.account)
    const verdicts = await store.ingest(
      [run(b, 1, [{ stream_id: 'x' }, { stream_id: 'y' }, { stream_id: 'x' }]), run(a, 1, [{ stream_id: 'y' }, { stream_id: 'x' }])],
      false,
    )
    const numbers = verdicts.map((verdict) => stored(verdict).map((e) => [e.device_no, e.device_seq, e.position, e.stream_seq]))
    expect(numbers).toEqual([
      [
        [2, 1, 3, 2],
        [2, 2, 4, 2],
        [2, 3, 5, 3],
      ],
      [
        [1, 1, 1, 1],
        [1, 2, 2, 1],
      ],
    ])
  })

  it('G09: refuses a run of an unknown or revoked device, an unknown user, or another session, and stores nothing of it', async () => {
    const a = await sender()
    const unknownDevice = run({ ...a, device_no: 99 }, 1, 1)
    const unknownUser = makeRun({ ...a, user_no: 2 ** 40, first_seq: 1 }, 1)
    const fenced = run({ ...a, session_id: randomUUID() }, 1, 2)
    expect(await store.ingest([unknownDevice, unknownUser, fenced], false)).toEqual([
      { is: 'not_active' },
      { is: 'not_active' },
      { is: 'fenced' },
    ])
    const second = await sender(2, a.account)
    await append(store, a.account, { type: 'revoke_device', revoked: [{ device_id: a.account.devices[1]!.device_id }] })
    expect(await ingestOne(second, 1, 1)).toEqual({ is: 'not_active' })
    expect(await countEvents(a.user_no)).toBe(0)
  })

  it('R11: answers what is not the next number, with the one expected', async () => {
    const a = await sender()
    stored(await ingestOne(a, 1, 3))
    expect(await ingestOne(a, 3, 2)).toEqual({ is: 'not_next', expected_seq: 4 })
    expect(await ingestOne(a, 5, 1)).toEqual({ is: 'gap', expected_seq: 4 })
    expect(stored(await ingestOne(a, 4, 1))[0]).toMatchObject({ position: 4, device_seq: 4 })
  })

  it('refuses another epoch than the current, but finds a duplicate whatever its epoch', async () => {
    const a = await sender()
    stored(await ingestOne(a, 1, 1))
    await append(store, a.account, { type: 'rotate_keys' })
    expect(await ingestOne(a, 2, 1)).toEqual({ is: 'stale_epoch', expected_seq: 2, log_seq: a.account.log_seq })
    expect(await ingestOne(a, 1, 1)).toEqual({ is: 'not_next', expected_seq: 2 })
    expect(await ingestOne({ ...a, epoch: a.account.log_seq + 1 }, 2, 1)).toMatchObject({ is: 'stale_epoch' })
    stored(await ingestOne({ ...a, epoch: a.account.log_seq }, 2, 1))
  })

  it('a busy account goes back, the others are stored; patient waits for it', async () => {
    const a = await sender()
    const b = await sender()
    stored(await ingestOne(a, 1, 1))
    const other = new Client(database.connection)
    await other.connect()
    await other.query('begin')
    await other.query('select from account where user_no = $1 for no key update', [a.user_no])
    const [first, second] = await store.ingest([run(a, 2, 1), run(b, 1, 1)], false)
    expect(first).toEqual({ is: 'busy' })
    expect(stored(second)).toHaveLength(1)
    const waiting = store.ingest([run(a, 2, 1)], true)
    await other.query('select pg_sleep(0.1)')
    await other.query('commit')
    expect(stored((await waiting)[0])).toHaveLength(1)
    await other.end()
  })

  it('two accounts that are locked, and waited for patiently, do not stall a third', async () => {
    const locked = [await sender(), await sender()]
    const free = [await sender(), await sender()]
    for (const each of [...locked, ...free]) stored(await ingestOne(each, 1, 1))
    const other = new Client(database.connection)
    await other.connect()
    await other.query('begin')
    const user_nos = locked.map(({ user_no }) => user_no)
    await other.query('select from account where user_no = any($1::int8[]) for no key update', [user_nos])
    let waited = false
    const waiting = Promise.all(locked.map((each) => store.ingest([run(each, 2, 1)], true))).finally(() => (waited = true))
    const began = performance.now()
    const lanes = await Promise.all(free.map((each) => ingestOne(each, 2, 1)))
    const ms = performance.now() - began
    expect(waited).toBe(false)
    await other.query('commit')
    for (const verdict of [...lanes, ...(await waiting).flat()]) stored(verdict)
    await other.end()
    // waiting for the locks would be 2 s
    expect(ms).toBeLessThan(1000)
  })

  it('R01: a batch that waited for a revocation, a new session or a new epoch sees it', async () => {
    const changes = [
      { text: 'update device set active = false where user_no = $1', is: 'not_active' },
      { text: 'update device set session_id = gen_random_uuid() where user_no = $1', is: 'fenced' },
      { text: 'update account set log_seq = log_seq + 1 where user_no = $1', is: 'stale_epoch' },
      { text: 'update account set active = false where user_no = $1', is: 'not_active' },
    ]
    for (const { text, is } of changes) {
      const a = await sender()
      stored(await ingestOne(a, 1, 1))
      const other = new Client(database.connection)
      await other.connect()
      await other.query('begin')
      await other.query('select from account where user_no = $1 for no key update', [a.user_no])
      await other.query(text, [a.user_no])
      const waiting = store.ingest([run(a, 2, 1)], true)
      await other.query('select pg_sleep(0.05)')
      await other.query('commit')
      expect((await waiting)[0]).toMatchObject({ is })
      expect(await countEvents(a.user_no)).toBe(1)
      await other.end()
    }
  })

  it('a patient batch gives up after the lock timeout as `unavailable`, and its connection is fine for the next', async () => {
    const a = await sender()
    stored(await ingestOne(a, 1, 1))
    const other = new Client(database.connection)
    await other.connect()
    await other.query('begin')
    await other.query('select from account where user_no = $1 for no key update', [a.user_no])
    await expect(store.ingest([run(a, 2, 1)], true)).rejects.toMatchObject({ code: 'unavailable' })
    await other.end()
    stored(await ingestOne(a, 2, 1))
  })

  describe('G07: the ttl rule has a tolerance of five minutes, by the clock of the database', () => {
    const FIVE = 300_000
    const now = async (): Promise<number> =>
      (await sql.query<{ ms: string }>('select clock_ms() as ms')).rows.map((row) => Number(row.ms))[0]!

    it.each([
      { what: 'expired 4:58 ago', made: -FIVE - 8_000, ttl: 10, is: 'stored' },
      { what: 'expired 5:01 ago', made: -FIVE - 11_000, ttl: 10, is: 'event_expired' },
      { what: '4:58 in the future', made: FIVE - 2_000, ttl: 10, is: 'stored' },
      { what: '5:02 in the future', made: FIVE + 2_000, ttl: 10, is: 'clock_skew' },
    ])('an event $what is $is', async ({ made, ttl, is }) => {
      const a = await sender()
      const events = [{}, {}, { ttl, made_at: (await now()) + made }, {}]
      const verdict = await ingestOne(a, 1, events)
      expect(verdict).toMatchObject(is === 'stored' ? { is } : { is, index: 2, expected_seq: 1 })
      expect(await countEvents(a.user_no)).toBe(is === 'stored' ? 4 : 0)
    })

    it('the clock of an event without ttl does not matter', async () => {
      const a = await sender()
      stored(await ingestOne(a, 1, [{ made_at: Date.now() + 2 * FIVE }]))
    })

    it('the first event that breaks the rule is named, and a broken run takes no other one with it', async () => {
      const a = await sender()
      const b = await sender()
      const ms = await now()
      const broken = run(a, 1, [
        { ttl: 60, made_at: ms },
        { ttl: 60, made_at: ms + 2 * FIVE },
        { ttl: 1, made_at: ms - 2 * FIVE },
      ])
      const [first, second] = await store.ingest([broken, run(b, 1, [{ ttl: 60, made_at: ms }])], false)
      expect(first).toEqual({ is: 'clock_skew', index: 1, expected_seq: 1 })
      expect(stored(second)[0]).toMatchObject({ position: 1, stream_seq: 1 })
    })

    it('a duplicate and a stale epoch come before the ttl', async () => {
      const a = await sender()
      stored(await ingestOne(a, 1, 1))
      const old = [{ ttl: 1, made_at: 1000 }]
      expect(await ingestOne(a, 1, old)).toMatchObject({ is: 'not_next' })
      expect(await ingestOne({ ...a, epoch: 0 }, 2, old)).toMatchObject({ is: 'stale_epoch' })
      expect(await ingestOne(a, 2, old)).toMatchObject({ is: 'event_expired' })
    })

    it('the tolerance is configurable', async () => {
      const strict = await createStore({ connection: database.connection, log: silent, clock_skew_ms: 1_000 })
      const a = await sender()
      const [verdict] = await strict.ingest([run(a, 1, [{ ttl: 60, made_at: (await now()) + 3_000 }])], false)
      expect(verdict).toMatchObject({ is: 'clock_skew' })
      await strict.close()
    })
  })

  it('the stream limit refuses the event that meets it, after all other checks, and known streams go on', async () => {
    const a = await sender()
    const b = await sender(2, a.account)
    const streams = ['1', '2', '3', '4'].map((stream_id) => ({ stream_id }))
    stored(await ingestOne(a, 1, streams))
    expect(await ingestOne(a, 5, [{ stream_id: '1' }, { stream_id: '5' }, { stream_id: '6' }])).toEqual({
      is: 'too_many_streams',
      index: 2,
      expected_seq: 5,
    })
    const [fenced, good] = await store.ingest(
      [run({ ...a, session_id: randomUUID() }, 5, [{ stream_id: '7' }]), run(b, 1, [{ stream_id: '5' }])],
      false,
    )
    expect(fenced).toEqual({ is: 'fenced' })
    expect(stored(good)[0]).toMatchObject({ position: 5, stream_seq: 1 })
    expect(await ingestOne(a, 9, [{ stream_id: '8' }])).toEqual({ is: 'gap', expected_seq: 5 })
    const next = await ingestOne(a, 5, [{ stream_id: '4' }])
    expect(stored(next)[0]).toMatchObject({ position: 6, stream_seq: 2 })
  })

  it('a new stream of a user whose account is locked is busy, and of a user who is gone it is not active', async () => {
    const a = await sender()
    const other = new Client(database.connection)
    await other.connect()
    await other.query('begin')
    await other.query('select from account where user_no = $1 for no key update', [a.user_no])
    expect(await ingestOne(a, 1, [{ stream_id: 'new' }])).toEqual({ is: 'busy' })
    await other.query('rollback')
    await other.end()
    stored(await ingestOne(a, 1, [{ stream_id: 'new' }]))
    const gone = await sender()
    await sql.query('delete from head where user_no = $1', [gone.user_no])
    await sql.query('delete from account where user_no = $1', [gone.user_no])
    expect(await ingestOne(gone, 1, [{ stream_id: 'new' }])).toEqual({ is: 'not_active' })
    const { rows } = await sql.query('select from stream where user_no = $1', [gone.user_no])
    expect(rows).toHaveLength(0)
  })

  it('a stream is numbered for a session that holds alone: none for a fenced or revoked one, also when that happens while it waits', async () => {
    const a = await sender()
    const fenced = { ...a, session_id: randomUUID() }
    const streams = async () => (await sql.query('select stream_id from stream where user_no = $1', [a.user_no])).rows
    expect(await ingestOne(fenced, 1, [{ stream_id: 'x' }])).toEqual({ is: 'fenced' })
    expect(await ingestOne({ ...a, device_no: 9 }, 1, [{ stream_id: 'x' }])).toEqual({ is: 'not_active' })
    expect(await streams()).toEqual([])
    const other = new Client(database.connection)
    await other.connect()
    const changes = [
      { text: 'update device set session_id = gen_random_uuid() where user_no = $1 and device_no = 2', is: 'fenced' },
      { text: 'update device set active = false where user_no = $1 and device_no = 2', is: 'not_active' },
    ]
    for (const { text, is } of changes) {
      const b = await sender(2, a.account)
      await other.query('begin')
      await other.query('select from account where user_no = $1 for no key update', [a.user_no])
      const waiting = store.ingest([run(b, 1, [{ stream_id: 'y' }])], true)
      await other.query('select pg_sleep(0.1)')
      await other.query(text, [a.user_no])
      await other.query('commit')
      expect(await waiting).toEqual([{ is }])
      expect(await streams()).toEqual([])
    }
    await other.end()
    // in one batch with one that holds: its streams are numbered, once
    const c = await sender(2)
    const verdicts = await store.ingest(
      [run({ ...c, device_no: 1, session_id: randomUUID() }, 1, [{ stream_id: 'x' }]), run(c, 1, [{ stream_id: 'z' }, { stream_id: 'x' }])],
      false,
    )
    expect(verdicts.map(({ is }) => is)).toEqual(['fenced', 'stored'])
    const { rows } = await sql.query('select stream_id, stream_no from stream where user_no = $1 order by stream_no', [c.user_no])
    expect(new Set(rows.map((row) => row.stream_id))).toEqual(new Set(['x', 'z']))
    expect(rows.map((row) => Number(row.stream_no))).toEqual([1, 2])
  })

  it('stores the client part and its flags verbatim', async () => {
    const a = await sender()
    const event = makeEvent(1, { ttl: 60, payload: new Uint8Array(5000).fill(7) })
    const [verdict] = await store.ingest([{ ...a, first_seq: 1, events: [event] }], false)
    const { rows } = await sql.query('select record, flags, expires_at from event where user_no = $1', [a.user_no])
    expect(rows).toEqual([{ record: Buffer.from(event.client), flags: 1, expires_at: String(event.expires_at) }])
    expect(stored(verdict)[0]!.client).toBe(event.client)
  })

  it('B06: an ack means on disk: every connection commits synchronously', async () => {
    for (const pool of [store.pools.ingest, store.pools.main]) {
      const { rows } = await pool.query(`select current_setting('synchronous_commit') as a, current_setting('lock_timeout') as b,
        current_setting('statement_timeout') as c, current_setting('default_transaction_isolation') as d`)
      expect(rows).toEqual([{ a: 'on', b: '2s', c: '5s', d: 'read committed' }])
    }
  })

  it('mixed batches agree with a naive model', { timeout: 60_000 }, async () => {
    type Device = Sender & { last: number }
    const devices: Device[] = []
    for (let user = 0; user < 5; user++) {
      const account = await createAccount(store, 3)
      for (let no = 1; no <= 3; no++) devices.push({ ...(await sender(no, account)), last: 0 })
    }
    const positions = new Map<number, number>()
    const streamSeqs = new Map<string, number>()
    const next = (map: Map<number, number> | Map<string, number>, key: never): number => {
      const value = (map.get(key) ?? 0) + 1
      ;(map as Map<unknown, number>).set(key, value)
      return value
    }
    let seed = 7
    const random = (n: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) % n
    const seen = new Map<string, number>()
    for (let round = 0; round < 150; round++) {
      const chosen = devices.filter(() => random(3) > 0).sort(() => random(3) - 1)
      const kinds = chosen.map(({ last }) => {
        const kind = KINDS[random(KINDS.length)]!
        return kind === 'not_next' && last === 0 ? 'ok' : kind
      })
      const runs = chosen.map((device, i) => {
        const kind = kinds[i]!
        const list: TestEvent[] = Array.from({ length: 1 + random(4) }, () => ({ stream_id: `s${random(4)}` }))
        if (kind === 'event_expired') list[0] = { ttl: 1, made_at: 1_000 }
        if (kind === 'clock_skew') list[0] = { ttl: 1, made_at: Date.now() + 1e9 }
        const of = { ...device }
        if (kind === 'fenced') of.session_id = randomUUID()
        if (kind === 'stale_epoch') of.epoch = 0
        if (kind === 'not_active') of.device_no += 100
        return run(of, device.last + 1 + (kind === 'gap' ? 1 : 0) - (kind === 'not_next' ? 1 : 0), list)
      })
      const verdicts = await store.ingest(runs, false)
      const order = [...runs.keys()].sort((x, y) => runs[x]!.user_no - runs[y]!.user_no || runs[x]!.device_no - runs[y]!.device_no)
      for (const i of order) {
        const { user_no, first_seq, events } = runs[i]!
        const kind = kinds[i]!
        const verdict = verdicts[i]!
        seen.set(verdict.is, (seen.get(verdict.is) ?? 0) + 1)
        expect(verdict.is).toBe(kind === 'ok' ? 'stored' : kind)
        if (verdict.is !== 'stored') continue
        chosen[i]!.last += events.length
        for (const [j, event] of verdict.events.entries())
          expect([event.device_seq, event.position, event.stream_seq]).toEqual([
            first_seq + j,
            next(positions, user_no as never),
            next(streamSeqs, `${user_no}/${events[j]!.stream_id}` as never),
          ])
      }
    }
    expect([...seen.keys()].sort()).toEqual([
      'clock_skew',
      'event_expired',
      'fenced',
      'gap',
      'not_active',
      'not_next',
      'stale_epoch',
      'stored',
    ])
    for (const [user_no, last] of positions) expect(await countEvents(user_no)).toBe(last)
  })
})

describe('R11: readDuplicates', () => {
  it('finds the first numbers of an event with the same event_id and signature; anything else is a conflict', async () => {
    const a = await sender()
    const events = [
      makeEvent(1, { stream_id: 'x' }),
      makeEvent(2, { stream_id: 'y', payload: new Uint8Array(3000) }),
      makeEvent(3, { ttl: 9 }),
    ]
    const [verdict] = await store.ingest([{ ...a, first_seq: 1, events }], false)
    const { received_at } = stored(verdict)[0]!
    const other = makeEvent(2)
    const sameId = { ...events[2]!, client: Uint8Array.from(events[2]!.client) }
    sameId.client[sameId.client.length - 64 - 4 - 64]! ^= 1
    expect(
      await store.readDuplicates(a.user_no, 1, [
        { device_seq: 2, ...events[1]! },
        { device_seq: 2, ...other },
        { device_seq: 3, ...sameId },
        { device_seq: 3, ...events[2]! },
        { device_seq: 1, ...events[0]! },
      ]),
    ).toEqual([
      { is: 'duplicate', device_seq: 2, position: 2, stream_seq: 1, received_at },
      { is: 'conflict', device_seq: 2 },
      { is: 'conflict', device_seq: 3 },
      { is: 'duplicate', device_seq: 3, position: 3, stream_seq: 1, received_at },
      { is: 'duplicate', device_seq: 1, position: 1, stream_seq: 1, received_at },
    ])
  })

  it('a row that retention removed is swept, one that was never there a conflict, and a tombstone still a duplicate', async () => {
    const a = await sender()
    const events = [makeEvent(1), makeEvent(2), makeEvent(3)]
    await store.ingest([{ ...a, first_seq: 1, events }], false)
    await sql.query('delete from event where user_no = $1 and position = 1', [a.user_no])
    await sql.query('update device set swept_seq = 1 where user_no = $1 and device_no = 1', [a.user_no])
    const { flags, client } = await toTombstone(nodeCrypto, events[1]!.flags, events[1]!.client)
    await sql.query('update event set record = $2, flags = $3 where user_no = $1 and position = 2', [a.user_no, client, flags])
    await sql.query('delete from event where user_no = $1 and position = 3', [a.user_no])
    const asked = events.map((event, i) => ({ device_seq: i + 1, ...event }))
    expect(await store.readDuplicates(a.user_no, 1, asked)).toMatchObject([
      { is: 'swept', device_seq: 1 },
      { is: 'duplicate', position: 2 },
      { is: 'conflict' },
    ])
    expect(await store.readDuplicates(a.user_no, 99, asked.slice(0, 1))).toEqual([{ is: 'conflict', device_seq: 1 }])
  })
})

async function countEvents(user_no: number): Promise<number> {
  return (await sql.query('select from event where user_no = $1', [user_no])).rows.length
}
