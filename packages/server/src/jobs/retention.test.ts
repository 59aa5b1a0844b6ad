import { FLAG } from '@sealpost/protocol'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RetentionRules } from '../ports/store.ts'
import { createStore, type PostgresStore } from '../store/store.ts'
import { createAccount, makeRun, openSession, type TestEvent } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createRetentionJobs } from './retention.ts'
import type { JobResult, JobTurn } from './schedule.ts'

const database = useDatabase()
let store: PostgresStore
/** Another node; without a tolerance for clocks. */
let node: PostgresStore

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
  node = await createStore({ connection: database.connection, log: silent, clock_skew_ms: 0 })
})
afterAll(() => Promise.all([store.close(), node.close()]))

const KEEP: RetentionRules = { age_ms: null, streams: [], stream_bytes: null, bytes: null, tombstone_ms: null, revoked_ms: null }
const ALWAYS: JobTurn = { wanted: () => true, batch: (work) => work() }
const expired = (more: TestEvent = {}): TestEvent => ({ ttl: 1, made_at: Date.now() - 61_000, ...more })

function runJob(name: string, rules: Partial<RetentionRules> = {}, turn = ALWAYS, by = node): Promise<JobResult> {
  const job = createRetentionJobs(by, { ...KEEP, ...rules }).find((each) => each.name === name)
  if (job === undefined) throw new Error(`there is no job ${name}`)
  return job.run(turn)
}

async function fill(events: number | TestEvent[]): Promise<{ user_no: number }> {
  const { user_no, log_seq: epoch } = await createAccount(store)
  const sender = { user_no, device_no: 1, session_id: await openSession(store, user_no, 1), epoch }
  const list = typeof events === 'number' ? Array.from({ length: events }, (): TestEvent => ({})) : events
  for (let at = 0; at < list.length; at += 500) {
    const [verdict] = await store.ingest([makeRun({ ...sender, first_seq: at + 1 }, list.slice(at, at + 500))], true)
    if (verdict?.is !== 'stored') throw new Error(verdict?.is)
  }
  return { user_no }
}

const query = async <R extends object>(text: string, values: unknown[] = []): Promise<R[]> =>
  (await store.pools.main.query<R>(text, values)).rows
const bytesOf = async (user_no: number) =>
  (await query<{ bytes: number }>('select bytes from head where user_no = $1 and stream_no = 0', [user_no]))[0]?.bytes ?? 0
const sumOfAll = async () => (await query<{ sum: number }>('select sum(bytes)::int8 as sum from head where stream_no = 0'))[0]?.sum ?? 0
const wholeOf = async (user_no: number) =>
  (await query<{ n: number }>('select count(*)::int4 as n from event where user_no = $1 and (flags & 8) = 0', [user_no]))[0]?.n ?? 0

describe('the jobs of retention', () => {
  it('are those that the rules ask for', () => {
    const names = (rules: Partial<RetentionRules>) => createRetentionJobs(store, { ...KEEP, ...rules }).map((job) => job.name)
    expect(names({})).toEqual(['expired_rows', 'expired_events'])
    expect(
      names({ age_ms: 1, streams: [{ stream_id: 'x', age_ms: 1 }], stream_bytes: 1, bytes: 1, tombstone_ms: 1, revoked_ms: 1 }),
    ).toEqual(['expired_rows', 'expired_events', 'old_in_streams', 'old_events', 'largest_accounts', 'revoked_devices'])
  })

  it('two at once: each expired event is swept by one of them, in batches that exclude each other', async () => {
    const { user_no } = await fill(Array.from({ length: 2_500 }, () => expired()))
    const other = await createStore({ connection: database.connection, log: silent, clock_skew_ms: 0 })
    let rows = 0
    while ((await wholeOf(user_no)) > 0) {
      const results = await Promise.all([runJob('expired_events'), runJob('expired_events', {}, ALWAYS, other)])
      for (const result of results) rows += result.rows
    }
    expect(rows).toBe(2_500)
    await other.close()
  })

  it('a run that ends between two batches loses nothing: the next one finishes, on whatever node', async () => {
    const { user_no } = await fill(1_700)
    let batches = 0
    const ending: JobTurn = { wanted: () => batches < 3, batch: (work) => ((batches += 1), work()) }
    const began = await runJob('old_events', { age_ms: 0 }, ending)
    expect(began.rows).toBeGreaterThan(0)
    const [account] = await query<{ floor: number; first: number; n: number }>(
      `select a.floor, min(e.position) as first, count(*)::int4 as n from account a join event e using (user_no) where a.user_no = $1 group by 1`,
      [user_no],
    )
    expect(account).toEqual({ floor: 1_700 - account!.n, first: 1_700 - account!.n + 1, n: account!.n })
    const rest = await runJob('old_events', { age_ms: 0 }, ALWAYS, store)
    expect(began.rows + rest.rows).toBeGreaterThanOrEqual(1_700)
    expect(await query('select from event where user_no = $1', [user_no])).toEqual([])
  })

  it('a batch whose connection is killed did nothing or all of it, and the next goes on', async () => {
    const { user_no } = await fill(600)
    const broken = await createStore({ connection: database.connection, log: silent })
    const killer = new Client(database.connection)
    await killer.connect()
    // the batch stands still in its transaction, behind a row of the device, and is killed there
    await killer.query('begin')
    await killer.query('select from device where user_no = $1 for update', [user_no])
    const batch = broken.removePrefix(user_no, { age_ms: 0, tombstone_ms: null, bytes: null })
    const failed = expect(batch).rejects.toMatchObject({ code: 'unavailable' })
    const waiting = `select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%remove_prefix%'`
    await expect.poll(async () => (await query(waiting)).length).toBe(1)
    await query(`select pg_terminate_backend(s.pid) from (${waiting}) s`)
    await failed
    await killer.query('rollback')
    expect((await query('select from event where user_no = $1', [user_no])).length).toBe(600)
    expect(await runJob('old_events', { age_ms: 0 })).toMatchObject({ rows: 600 })
    await Promise.all([killer.end(), broken.close()])
  })

  it('the largest accounts lose their oldest events until all fit; the small lose nothing', async () => {
    await runJob('old_events', { age_ms: 0 })
    const sizes = [10, 400, 900]
    const users = []
    for (const n of sizes) users.push(await fill(n))
    const [small, middle, large] = await Promise.all(users.map(({ user_no }) => bytesOf(user_no)))
    const total = Math.floor(small! + middle! * 1.5)
    const { rows } = await runJob('largest_accounts', { bytes: total })
    expect(rows).toBeGreaterThan(500)
    expect(await sumOfAll()).toBeLessThanOrEqual(total)
    expect(await sumOfAll()).toBeGreaterThan(total - 2 * 300)
    expect(await bytesOf(users[0]!.user_no)).toBe(small)
    expect(Math.abs((await bytesOf(users[1]!.user_no)) - (await bytesOf(users[2]!.user_no)))).toBeLessThan(300)
    expect(large).toBeGreaterThan(middle!)
    expect(await runJob('largest_accounts', { bytes: total })).toMatchObject({ rows: 0 })
  })

  it('an account that stays held is left to the next run, and the others are done', async () => {
    const [held, free] = [await fill(3), await fill(3)]
    const other = new Client(database.connection)
    await other.connect()
    await other.query('begin')
    await other.query('select from account where user_no = $1 for no key update', [held.user_no])
    expect(await runJob('old_events', { age_ms: 0 })).toMatchObject({ left: 'held' })
    expect([await wholeOf(held.user_no), await wholeOf(free.user_no)]).toEqual([3, 0])
    await other.end()
    expect(await runJob('old_events', { age_ms: 0 })).toEqual({ rows: 3, bytes: expect.any(Number) })
  })

  it('streams with a rule, expired families and revoked devices are seen to', async () => {
    const { user_no } = await fill([{ stream_id: 'logs' }, { stream_id: 'main' }, { stream_id: 'logs' }])
    await store.startFamily(user_no, 1, { family_id: crypto.randomUUID(), token_hash: new Uint8Array(32) }, -1)
    expect(await runJob('old_in_streams', { streams: [{ stream_id: 'logs', age_ms: 0 }] })).toMatchObject({ rows: 2 })
    expect(await wholeOf(user_no)).toBe(1)
    expect(await runJob('expired_rows')).toEqual({ rows: 1 })
    expect(await runJob('revoked_devices', { revoked_ms: 0 })).toEqual({ rows: 0 })
  })
})

describe('the sweep beside others', () => {
  it('a page that is read meanwhile shows each event whole or as its tombstone, and leaves none out', async () => {
    const payload = new Uint8Array(3_000).fill(7)
    const { user_no } = await fill(Array.from({ length: 1_500 }, () => expired({ payload })))
    const sweep = { done: false }
    const sweeping = runJob('expired_events').finally(() => (sweep.done = true))
    const kinds = new Set<boolean>()
    let pages = 0
    while (!sweep.done || pages === 0) {
      for (let after = 0; after < 1_500; pages++) {
        const page = await store.readPage({ user_no, after, limit: 300, bytes: 1_000_000, own: null, streams: null })
        expect(page.events.map((event) => event.position)).toEqual(page.events.map((_, i) => after + i + 1))
        for (const { flags, client } of page.events) {
          const tombstone = (flags & FLAG.tombstone) !== 0
          kinds.add(tombstone)
          expect(client.length > 3_000).toBe(!tombstone)
        }
        after = page.upto
      }
    }
    await sweeping
    expect(kinds).toContain(true)
  })

  it('ingest of the accounts that are swept goes on: nothing is refused, and nothing lost or miscounted', async () => {
    const senders = []
    for (let i = 0; i < 5; i++) {
      const { user_no, log_seq: epoch } = await createAccount(store)
      senders.push({ user_no, device_no: 1, session_id: await openSession(store, user_no, 1), epoch, first_seq: 1 })
    }
    const sweep = { wanted: true }
    const sweeping = (async () => {
      while (sweep.wanted) {
        await runJob('expired_events')
        await runJob('old_events', { tombstone_ms: 0 })
      }
    })()
    for (let round = 0; round < 60; round++) {
      const runs = senders.map((sender) => makeRun(sender, [expired(), {}, expired()]))
      const verdicts = await store.ingest(runs, false)
      for (const [i, verdict] of verdicts.entries()) {
        expect(['stored', 'busy']).toContain(verdict.is)
        if (verdict.is === 'stored') senders[i]!.first_seq += 3
      }
    }
    sweep.wanted = false
    await sweeping
    await runJob('expired_events')
    for (const { user_no, first_seq } of senders) {
      expect(first_seq).toBeGreaterThan(1)
      expect(await wholeOf(user_no)).toBe((first_seq - 1) / 3)
      const [sum] = await query<{ bytes: number }>('select sum(octet_length(record))::int8 as bytes from event where user_no = $1', [
        user_no,
      ])
      expect(await bytesOf(user_no)).toBe(sum?.bytes)
    }
  })
})
