import { randomInt } from 'node:crypto'
import { FLAG, toTombstone } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
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
/** Takes events that expired a while ago. */
let store: PostgresStore
/** Of the same database, without a tolerance for clocks: what has expired is swept. */
let sweeper: PostgresStore
let sql: Client

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
  sweeper = await createStore({ connection: database.connection, log: silent, clock_skew_ms: 0 })
  sql = new Client(database.connection)
  await sql.connect()
})
afterAll(async () => {
  await Promise.all([store.close(), sweeper.close(), sql.end()])
})

type Sender = { account: TestAccount; user_no: number; device_no: number; session_id: string; epoch: number; next: number }

async function sender(account?: TestAccount, device_no = 1): Promise<Sender> {
  const of = account ?? (await createAccount(store, 2))
  return {
    account: of,
    user_no: of.user_no,
    device_no,
    session_id: await openSession(store, of.user_no, device_no),
    epoch: of.log_seq,
    next: 1,
  }
}

async function send(from: Sender, events: number | TestEvent[]): Promise<void> {
  const run = makeRun({ ...from, first_seq: from.next }, events)
  const [verdict] = await store.ingest([run], true)
  if (verdict?.is !== 'stored') throw new Error(`not stored: ${JSON.stringify(verdict)}`)
  from.next += run.events.length
}

/** An event whose ttl ended a minute ago, within the tolerance. */
const expired = (more: TestEvent = {}): TestEvent => ({ ttl: 1, made_at: Date.now() - 61_000, ...more })

type Row = { position: number; stream_no: number; flags: number; record: Buffer; expires_at: number | null }
async function rows(user_no: number): Promise<Row[]> {
  const { rows: found } = await sql.query<Row>(
    'select position::int4, stream_no, flags, record, expires_at from event where user_no = $1 order by position',
    [user_no],
  )
  return found
}
const positions = async (user_no: number) => (await rows(user_no)).map((row) => row.position)
/** Positions, tombstones negative. */
const outline = async (user_no: number) =>
  (await rows(user_no)).map((row) => ((row.flags & FLAG.tombstone) === 0 ? row.position : -row.position))

async function heads(user_no: number): Promise<{ bytes: number; floor: number; swept_seq: number[] }> {
  const { rows: found } = await sql.query<{ bytes: number; floor: number; swept_seq: number[] }>(
    `select h.bytes::int4, a.floor::int4,
            array(select d.swept_seq::int4 from device d where d.user_no = a.user_no order by d.device_no) as swept_seq
       from account a join head h on h.user_no = a.user_no and h.stream_no = 0 where a.user_no = $1`,
    [user_no],
  )
  return found[0]!
}

/** Heads whose bytes are not those of their events. */
async function miscounted(): Promise<unknown[]> {
  const { rows: found } = await sql.query(
    `select h.user_no, h.stream_no, h.bytes, s.bytes as stored from head h
       left join (select e.user_no, coalesce(e.stream_no, 0) as stream_no, sum(octet_length(e.record)) as bytes
                    from event e group by grouping sets ((e.user_no, e.stream_no), (e.user_no))) s
         on s.user_no = h.user_no and s.stream_no = h.stream_no
      where h.bytes <> coalesce(s.bytes, 0)`,
  )
  return found
}

async function hold(user_no: number): Promise<() => Promise<void>> {
  const other = new Client(database.connection)
  await other.connect()
  await other.query('begin')
  await other.query('select from account where user_no = $1 for no key update', [user_no])
  return () => other.end()
}

/** Batches until nothing more is expired. */
async function sweepAll(by = sweeper): Promise<number> {
  let swept = 0
  for (let after = 0; ; ) {
    const batch = await by.sweepExpiredEvents(after)
    if (batch.is === 'taken') continue
    if (batch.last === null) return swept
    swept += batch.rows
    if (batch.skipped > 0) after = batch.last
  }
}

describe('expired events', () => {
  it('become the tombstones of the protocol, byte for byte, whatever the payload and the labels', async () => {
    const from = await sender()
    const events = Array.from(
      { length: 40 },
      (_, i): TestEvent =>
        expired({ stream_id: 'x'.repeat(1 + ((i * 7) % 64)), payload: nodeCrypto.random([60, 61, 300, 5_000][i % 4]! + randomInt(50)) }),
    )
    await send(from, events)
    const before = await rows(from.user_no)
    expect(await sweepAll()).toBe(40)
    const after = await rows(from.user_no)
    for (const [i, row] of before.entries()) {
      const tombstone = await toTombstone(nodeCrypto, row.flags, row.record)
      expect(after[i]).toMatchObject({ flags: tombstone.flags, expires_at: null })
      expect(after[i]!.record.equals(tombstone.client)).toBe(true)
    }
    expect(await miscounted()).toEqual([])
  })

  it('only those beyond the tolerance for clocks; what has no ttl or lives stays whole', async () => {
    const from = await sender()
    await send(from, [expired(), {}, { ttl: 600 }, expired()])
    expect(await sweepAll(store)).toBe(0)
    expect(await sweepAll()).toBe(2)
    expect(await outline(from.user_no)).toEqual([-1, 2, 3, -4])
    expect(await sweepAll()).toBe(0)
  })

  it('an account that is held is left out, the others are swept; later it is swept too', async () => {
    const [held, free] = [await sender(), await sender()]
    await send(held, [expired()])
    await send(free, [expired()])
    const release = await hold(held.user_no)
    expect(await sweeper.sweepExpiredEvents(0)).toMatchObject({ is: 'done', rows: 1, skipped: 1 })
    expect(await outline(free.user_no)).toEqual([-1])
    expect(await sweepAll()).toBe(0)
    await release()
    expect(await sweepAll()).toBe(1)
    expect(await outline(held.user_no)).toEqual([-1])
  })

  it('one batch at a time in the whole database: others find the turn taken, and nothing is done', async () => {
    const from = await sender()
    await send(from, [expired()])
    const other = new Client(database.connection)
    await other.connect()
    await other.query('begin')
    await other.query('select take_retention_turn()')
    expect(await sweeper.sweepExpiredEvents(0)).toEqual({ is: 'taken' })
    expect(await store.removePrefix(from.user_no, { age_ms: 0, tombstone_ms: null, bytes: null })).toEqual({ is: 'taken' })
    expect(await store.sweepStreams(from.user_no, [], 0)).toEqual({ is: 'taken' })
    expect(await store.clearRevoked(0, { user_no: 0, device_no: 0 })).toEqual({ is: 'taken' })
    expect(await outline(from.user_no)).toEqual([1])
    await other.end()
    expect(await sweepAll()).toBe(1)
  })
})

describe('a prefix of positions', () => {
  const nothing = { age_ms: null, tombstone_ms: null, bytes: null }

  it('is removed by age, and no further than the first event that is younger; floor and swept numbers say what went', async () => {
    const a = await sender()
    const b = await sender(a.account, 2)
    await send(a, 2)
    await send(b, 3)
    await send(a, 1)
    await sql.query('update event set received_at = received_at - 10000 where user_no = $1 and position in (1, 2, 3, 4, 6)', [a.user_no])
    expect(await store.removePrefix(a.user_no, { ...nothing, age_ms: 9_000 })).toMatchObject({ is: 'done', rows: 4 })
    expect(await store.removePrefix(a.user_no, { ...nothing, age_ms: 9_000 })).toMatchObject({ is: 'done', rows: 0, more: false })
    expect(await positions(a.user_no)).toEqual([5, 6])
    expect(await heads(a.user_no)).toMatchObject({ floor: 4, swept_seq: [2, 2] })
    expect(await store.removePrefix(a.user_no, { ...nothing, age_ms: 0 })).toMatchObject({ rows: 2 })
    expect(await heads(a.user_no)).toEqual({ bytes: 0, floor: 6, swept_seq: [3, 3] })
    await send(a, 1)
    expect(await positions(a.user_no)).toEqual([7])
    expect(await miscounted()).toEqual([])
  })

  it('is removed down to a level of bytes, the oldest first', async () => {
    const a = await sender()
    await send(a, 10)
    const sizes = (await rows(a.user_no)).map((row) => row.record.length)
    const level = sizes.slice(4).reduce((sum, size) => sum + size, 0)
    expect(await store.removePrefix(a.user_no, { ...nothing, bytes: level })).toMatchObject({ rows: 4 })
    expect(await heads(a.user_no)).toMatchObject({ bytes: level, floor: 4 })
    expect(await store.removePrefix(a.user_no, { ...nothing, bytes: level - 1 })).toMatchObject({ rows: 1 })
    expect(await miscounted()).toEqual([])
  })

  it('of old tombstones alone is removed, up to the first whole event', async () => {
    const a = await sender()
    await send(a, [expired(), expired(), {}, expired()])
    await sweepAll()
    expect(await store.removePrefix(a.user_no, { ...nothing, tombstone_ms: 3_600_000 })).toMatchObject({ rows: 0 })
    expect(await store.removePrefix(a.user_no, { ...nothing, tombstone_ms: 0 })).toMatchObject({ rows: 2 })
    expect(await outline(a.user_no)).toEqual([3, -4])
  })

  it('takes at most 500 events and some 4 MiB at once, and is left alone while another writer has the account', async () => {
    const a = await sender()
    for (let i = 0; i < 6; i++) await send(a, 100)
    const release = await hold(a.user_no)
    expect(await store.removePrefix(a.user_no, { ...nothing, age_ms: 0 })).toEqual({ is: 'held' })
    await release()
    expect(await store.removePrefix(a.user_no, { ...nothing, age_ms: 0 })).toMatchObject({ rows: 500, more: true })
    expect(await store.removePrefix(a.user_no, { ...nothing, age_ms: 0 })).toMatchObject({ rows: 100 })
    await send(
      a,
      Array.from({ length: 30 }, () => ({ payload: new Uint8Array(250_000) })),
    )
    expect(await store.removePrefix(a.user_no, { ...nothing, age_ms: 0 })).toMatchObject({ rows: 17, more: true })
    expect(await miscounted()).toEqual([])
  })

  it('R11: a retried event whose row went is swept, one above it a duplicate', async () => {
    const a = await sender()
    const events = [makeEvent(1), makeEvent(2)]
    await store.ingest([{ ...a, first_seq: 1, events }], true)
    await store.removePrefix(a.user_no, { ...nothing, bytes: events[1]!.client.length })
    const asked = events.map((event, i) => ({ device_seq: i + 1, ...event }))
    expect(await store.readDuplicates(a.user_no, 1, asked)).toMatchObject([{ is: 'swept', device_seq: 1 }, { is: 'duplicate' }])
  })

  it('the walk tells which accounts have work', async () => {
    const [old, young, swept, empty] = [await sender(), await sender(), await sender(), await sender()]
    await send(old, 1)
    await sql.query('update event set received_at = 1000 where user_no = $1', [old.user_no])
    await send(young, 1)
    await send(swept, [expired()])
    await sweepAll()
    await sql.query('update event set received_at = received_at - 60000 where user_no = $1', [swept.user_no])
    const due = async (age_ms: number | null, tombstone_ms: number | null) =>
      (await store.findAgedAccounts(old.user_no - 1, 4, { age_ms, tombstone_ms })).map((row) => row.due)
    expect(await due(3_600_000, null)).toEqual([true, false, false, false])
    expect(await due(null, 30_000)).toEqual([false, false, true, false])
    expect(await store.findAgedAccounts(empty.user_no, 4, { age_ms: 0, tombstone_ms: 0 })).toEqual([])
  })
})

describe('single streams', () => {
  async function sweepStreams(user_no: number, rules: { stream_id: string; age_ms: number }[], bytes: number | null): Promise<number> {
    let swept = 0
    for (let more = true; more; ) {
      const batch = await store.sweepStreams(user_no, rules, bytes)
      if (batch.is !== 'done') throw new Error(batch.is)
      swept += batch.rows
      more = batch.more
    }
    return swept
  }

  it('old events of a named stream become tombstones; other streams and younger events stay', async () => {
    const a = await sender()
    await send(a, [{ stream_id: 'logs' }, { stream_id: 'chat' }, { stream_id: 'logs' }, { stream_id: 'chat' }])
    await sql.query('update event set received_at = received_at - 60000 where user_no = $1', [a.user_no])
    await send(a, [{ stream_id: 'logs' }])
    const rules = [{ stream_id: 'logs', age_ms: 30_000 }]
    const due = async () => (await store.findRuledAccounts(a.user_no - 1, 1, rules, null))[0]?.due
    expect(await due()).toBe(true)
    expect(await sweepStreams(a.user_no, rules, null)).toBe(2)
    expect(await outline(a.user_no)).toEqual([-1, 2, -3, 4, 5])
    expect(await due()).toBe(false)
    await sql.query('update event set received_at = received_at - 60000 where user_no = $1 and position = 5', [a.user_no])
    expect(await due()).toBe(true)
    expect(await sweepStreams(a.user_no, rules, null)).toBe(1)
    expect(await miscounted()).toEqual([])
  })

  it('a stream above its bytes loses the oldest payloads until it fits, and no more than that', async () => {
    const a = await sender()
    const payload = new Uint8Array(1_000)
    await send(a, [{ stream_id: 'small' }, ...Array.from({ length: 10 }, () => ({ stream_id: 'large', payload }))])
    const size = (await rows(a.user_no))[1]!.record.length
    const tombstone = size - 1_000 - 4 + 32
    // ten whole ones are to shrink to the bytes of seven whole ones and three tombstones
    const bound = 7 * size + 3 * tombstone
    expect((await store.findRuledAccounts(a.user_no - 1, 1, [], bound))[0]?.due).toBe(true)
    expect(await sweepStreams(a.user_no, [], bound)).toBe(3)
    expect(await outline(a.user_no)).toEqual([1, -2, -3, -4, 5, 6, 7, 8, 9, 10, 11])
    expect((await store.findRuledAccounts(a.user_no - 1, 1, [], bound))[0]?.due).toBe(false)
    // what cannot shrink any more is not looked at again
    expect(await sweepStreams(a.user_no, [], 1)).toBe(8)
    expect((await store.findRuledAccounts(a.user_no - 1, 1, [], 1))[0]?.due).toBe(false)
    expect(await miscounted()).toEqual([])
  })

  it('streams with different ages over more positions than one batch looks at all get what is ruled', async () => {
    const a = await sender()
    for (let i = 0; i < 30; i++)
      await send(
        a,
        Array.from({ length: 200 }, (_, n) => ({ stream_id: ['a', 'b', 'c'][n % 3]! })),
      )
    // one second between two positions, the newest now
    await sql.query('update event set received_at = received_at - (6000 - position) * 1000 where user_no = $1', [a.user_no])
    const rules = [
      { stream_id: 'a', age_ms: 4_000_500 },
      { stream_id: 'b', age_ms: 500_500 },
    ]
    await sweepStreams(a.user_no, rules, null)
    const { rows: left } = await sql.query<{ stream_id: string; whole: number; last: number }>(
      `select s.stream_id, count(*) filter (where (e.flags & 8) = 0)::int4 as whole, max(e.position) filter (where (e.flags & 8) <> 0)::int4 as last
         from event e join stream s using (user_no, stream_no) where e.user_no = $1 group by 1 order by 1`,
      [a.user_no],
    )
    const [inA, inB, inC] = left
    expect(inA!.last).toBeGreaterThan(1_950)
    expect(inA!.last).toBeLessThan(2_010)
    expect(inB!.last).toBeGreaterThan(5_450)
    expect(inB!.last).toBeLessThan(5_510)
    expect(inC).toMatchObject({ whole: 1_980, last: null })
    expect(await miscounted()).toEqual([])
  })
})

describe('revoked devices', () => {
  it('after the time ruled their boxes, tokens and activity go; the log and the other devices stay', async () => {
    const account = await createAccount(store, 3)
    const [first, second, third] = account.devices
    await store.touchDevices([2, 3].map((device_no) => ({ user_no: account.user_no, device_no, position: 0, follower_node: null })))
    await store.startFamily(account.user_no, 2, { family_id: crypto.randomUUID(), token_hash: nodeCrypto.random(32) }, 60_000)
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: second!.device_id }] })
    const boxes = async () =>
      (
        await sql.query<{ recipient: number; n: number }>(
          'select recipient, count(*)::int4 as n from log_box where user_no = $1 group by 1 order by 1',
          [account.user_no],
        )
      ).rows.map(({ recipient, n }) => [recipient, n])
    const clear = async (older_ms: number) => {
      for (let after: { user_no: number; device_no: number } | null = { user_no: 0, device_no: 0 }; after !== null; ) {
        const batch = await store.clearRevoked(older_ms, after)
        if (batch.is === 'taken') throw new Error('taken')
        after = batch.next
      }
    }
    await clear(3_600_000)
    expect(await boxes()).toEqual([
      [0, 4],
      [1, 4],
      [2, 2],
      [3, 2],
    ])
    await clear(0)
    expect(await boxes()).toEqual([
      [0, 4],
      [1, 4],
      [3, 2],
    ])
    const { rows: profiles } = await sql.query(
      'select device_no, last_seen, cleared_at is null as kept from device_profile where user_no = $1 order by 1',
      [account.user_no],
    )
    expect(profiles).toMatchObject([{ kept: true }, { last_seen: null, kept: false }, { kept: true }])
    expect(profiles[2].last_seen).not.toBeNull()
    expect((await sql.query('select from refresh_family where user_no = $1', [account.user_no])).rowCount).toBe(0)
    // the log verifies: the next entry is accepted on top of it
    await append(store, account, { type: 'rename_device', rename: { device_id: third!.device_id, name: 'still here' } })
    expect((await store.readEntries(account.user_no, first!.device_id, 0, 50)).entries).toHaveLength(5)
  })
})

describe('stored bytes', () => {
  it('head.bytes is the sum of the stored records, per user and stream, after any history', async () => {
    const senders = await Promise.all(Array.from({ length: 4 }, () => sender()))
    for (let round = 0; round < 60; round++) {
      const runs = senders
        .filter(() => randomInt(3) > 0)
        .map((from) => {
          // some runs are refused, so that the counts of a batch are made anew
          const gap = randomInt(5) === 0 ? 1 : 0
          const events = Array.from({ length: 1 + randomInt(5) }, (): TestEvent => {
            const more = { stream_id: `s${randomInt(4)}`, payload: nodeCrypto.random(60 + randomInt(400)) }
            return randomInt(2) === 0 ? expired(more) : more
          })
          return { from, run: makeRun({ ...from, first_seq: from.next + gap }, events) }
        })
      const verdicts = await store.ingest(
        runs.map(({ run }) => run),
        true,
      )
      for (const [i, { from, run }] of runs.entries()) if (verdicts[i]?.is === 'stored') from.next += run.events.length
      const some = senders[randomInt(senders.length)]!
      const work = [
        () => sweeper.sweepExpiredEvents(0),
        async () => store.removePrefix(some.user_no, { age_ms: null, tombstone_ms: 0, bytes: randomInt(3_000) }),
        () => store.sweepStreams(some.user_no, [{ stream_id: 's1', age_ms: 0 }], 500 + randomInt(1_000)),
      ][randomInt(4)]
      await work?.()
      expect(await miscounted()).toEqual([])
    }
    const floors: number[] = []
    for (const from of senders) floors.push((await heads(from.user_no)).floor)
    expect(Math.max(...floors)).toBeGreaterThan(0)
  })

  it('R12: a user whose stored bytes have reached the quota is refused, others of the batch are not; removal makes room again', async () => {
    const tight = await createStore({ connection: database.connection, log: silent, quota_bytes: 2_000 })
    const [full, free] = [await sender(), await sender()]
    // below the quota a batch is taken whole, though it goes over
    await send(full, [{ payload: new Uint8Array(1_700) }])
    const over = makeRun({ ...full, first_seq: 2 }, [{ payload: new Uint8Array(1_000) }])
    expect(await tight.ingest([over], true)).toMatchObject([{ is: 'stored' }])
    const runs = [makeRun({ ...full, first_seq: 3 }, 2), makeRun({ ...free, first_seq: 1 }, 2)]
    expect(await tight.ingest(runs, true)).toMatchObject([{ is: 'quota_exceeded', index: 0, expected_seq: 3 }, { is: 'stored' }])
    expect(await tight.ingest(runs.slice(0, 1), false)).toMatchObject([{ is: 'quota_exceeded' }])
    expect(await miscounted()).toEqual([])
    await store.removePrefix(full.user_no, { age_ms: null, tombstone_ms: null, bytes: 1_500 })
    expect(await tight.ingest(runs.slice(0, 1), true)).toMatchObject([{ is: 'stored' }])
    await tight.close()
  })
})
