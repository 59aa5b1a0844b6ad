/**
 * Races against a real PostgreSQL, over many connections: two calls are released at the same moment, for many users at
 * once, and whatever order the database chose, nothing may be half done.
 */
import { randomUUID } from 'node:crypto'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Run, Store, Verdict } from '../ports/store.ts'
import {
  append,
  createAccount,
  makeDevice,
  makeEntry,
  makeRun,
  openSession,
  type TestAccount,
} from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { roundsOf } from '@sealpost/testing/tier'
import { createStore, type PostgresStore } from './store.ts'

const USERS = 40
const ROUNDS = roundsOf({ quick: 4, system: 25 })

const database = useDatabase()
let nodes: PostgresStore[]

beforeAll(async () => {
  const open = () => createStore({ connection: database.connection, log: silent, ingest_connections_max: 6, main_connections_max: 6 })
  nodes = [await open(), await open()]
})
afterAll(async () => {
  await Promise.all(nodes.map((node) => node.close()))
})

/** Two nodes: the one that writes events is not the one that changes the account. */
const here = (): Store => nodes[0]!
const there = (): Store => nodes[1]!

/** Runs `round` for each of USERS users at a time, ROUNDS times. */
async function race(round: (user: number, n: number) => Promise<void>, rounds = ROUNDS): Promise<void> {
  for (let n = 0; n < rounds; n++) await Promise.all(Array.from({ length: USERS }, (_, user) => round(user, n)))
}

/**
 * Starts both at once, one of them late by up to the time that the other took lately: so they meet at every point of it,
 * and each wins often.
 */
function createStarter() {
  const lately = [5, 5]
  return async <A, B>(n: number, a: () => Promise<A>, b: () => Promise<B>): Promise<[A, B]> => {
    const start = async <T>(which: 0 | 1, work: () => Promise<T>): Promise<T> => {
      if (n % 2 === which) await sleep((lately[1 - which]! * (n % 11)) / 10)
      const began = performance.now()
      const result = await work()
      lately[which] = 0.9 * lately[which]! + 0.1 * (performance.now() - began)
      return result
    }
    return Promise.all([start(0, a), start(1, b)])
  }
}

async function settle(store: Store, run: Run): Promise<Verdict> {
  for (let patient = false; ; patient = true) {
    const [verdict] = await store.ingest([run], patient)
    if (verdict!.is !== 'busy') return verdict!
  }
}

async function numbers(text: string, values: unknown[]): Promise<number[]> {
  const { rows } = await nodes[0]!.pools.main.query<unknown[]>({ text, values, rowMode: 'array' })
  return (rows[0] ?? []).map(Number)
}

describe(`${USERS * ROUNDS} rounds each`, { timeout: 120_000 }, () => {
  it('R01, G09: revoke × ingest: an event commits before the revocation or not at all', async () => {
    const accounts = await Promise.all(Array.from({ length: USERS }, () => createAccount(here(), 1)))
    const start = createStarter()
    const outcomes = { stored: 0, refused: 0 }
    await race(async (user, n) => {
      const account = accounts[user]!
      // a repair has no rate to keep to
      const device = makeDevice()
      await appendRepair(there(), account, { type: 'add_device', device })
      const device_no = n + 2
      const session_id = await openSession(there(), account.user_no, device_no)
      const run = makeRun({ user_no: account.user_no, device_no, session_id, first_seq: 1, epoch: account.log_seq }, 2)
      const revoke = async (): Promise<number> => {
        await appendRepair(there(), account, { type: 'revoke_device', revoked: [{ device_id: device.device_id }] })
        return (await numbers('select count(*) from event where user_no = $1 and device_no = $2', [account.user_no, device_no]))[0]!
      }
      const [verdict, eventsAtReturn] = await start(n + user, () => settle(here(), run), revoke)
      const eventsNow = await numbers('select count(*) from event where user_no = $1 and device_no = $2', [account.user_no, device_no])
      expect(eventsNow).toEqual([eventsAtReturn])
      expect(eventsAtReturn).toBe(verdict.is === 'stored' ? 2 : 0)
      expect(['stored', 'not_active']).toContain(verdict.is)
      outcomes[verdict.is === 'stored' ? 'stored' : 'refused']++
      expect(await settle(here(), { ...run, first_seq: verdict.is === 'stored' ? 3 : 1 })).toEqual({ is: 'not_active' })
    })
    await checkNumbers(accounts)
    expect(outcomes.stored + outcomes.refused).toBe(USERS * ROUNDS)
    expect(Math.min(outcomes.stored, outcomes.refused)).toBeGreaterThan(0)
  })

  it('G24: suspend × ingest: an event commits before the suspension or not at all, of a device and of an account', async () => {
    const accounts = await Promise.all(Array.from({ length: USERS }, () => createAccount(here(), 1)))
    const last = accounts.map(() => 0)
    const start = createStarter()
    const outcomes = { stored: 0, refused: 0 }
    await race(async (user, n) => {
      const { user_no, user_id, log_seq, devices } = accounts[user]!
      const { device_id } = devices[0]!
      const session_id = await openSession(there(), user_no, 1)
      const run = makeRun({ user_no, device_no: 1, session_id, first_seq: last[user]! + 1, epoch: log_seq }, 2)
      const turn = (suspended: boolean) =>
        n % 2 === 0 ? there().suspendUser(user_id, suspended) : there().suspendDevice(user_id, device_id, suspended)
      const count = async (): Promise<number> => (await numbers('select count(*) from event where user_no = $1', [user_no]))[0]!
      const suspend = async (): Promise<number> => {
        expect(await turn(true)).toEqual({ user_no, device_ids: [device_id] })
        return count()
      }
      const [verdict, eventsAtReturn] = await start(n + user, () => settle(here(), run), suspend)
      if (verdict.is === 'stored') last[user]! += 2
      else expect(verdict).toEqual({ is: 'not_active' })
      expect([eventsAtReturn, await count()]).toEqual([last[user], last[user]])
      outcomes[verdict.is === 'stored' ? 'stored' : 'refused']++
      const late = { ...run, first_seq: last[user]! + 1 }
      expect(await settle(here(), late)).toEqual({ is: 'not_active' })
      await turn(false)
      // what was resumed writes under a session of its own alone
      expect(await settle(here(), late)).toEqual({ is: 'fenced' })
    })
    await checkNumbers(accounts)
    expect(outcomes.stored + outcomes.refused).toBe(USERS * ROUNDS)
    expect(Math.min(outcomes.stored, outcomes.refused)).toBeGreaterThan(0)
  })

  it('R11: session × ingest: what the new session is told is all that the old one has stored', async () => {
    const accounts = await Promise.all(Array.from({ length: USERS }, () => createAccount(here(), 1)))
    const sessions = await Promise.all(accounts.map((account) => openSession(here(), account.user_no, 1)))
    const last = accounts.map(() => 0)
    const start = createStarter()
    const outcomes = { stored: 0, fenced: 0 }
    await race(async (user, n) => {
      const { user_no, log_seq } = accounts[user]!
      const run = makeRun({ user_no, device_no: 1, session_id: sessions[user]!, first_seq: last[user]! + 1, epoch: log_seq }, 2)
      const session_id = randomUUID()
      const cursor = { position: 0, event_id: null, received_at: null, history_id: null }
      const opening = { user_no, device_no: 1, session_id, node_no: null, cursor, last_device_seq: 0, log_seq: null }
      const establish = () => there().establishSession(opening)
      const [verdict, result] = await start(n + user, () => settle(here(), run), establish)
      if (!result.ok) throw new Error(result.code)
      const { last_device_seq, head_position } = result.established
      if (verdict.is === 'stored') last[user]! += 2
      else expect(verdict).toEqual({ is: 'fenced' })
      expect([last_device_seq, head_position]).toEqual([last[user], last[user]])
      outcomes[verdict.is === 'stored' ? 'stored' : 'fenced']++
      sessions[user] = session_id
    })
    await checkNumbers(accounts)
    expect(outcomes.stored + outcomes.fenced).toBe(USERS * ROUNDS)
    expect(Math.min(outcomes.stored, outcomes.fenced)).toBeGreaterThan(0)
  })

  it('append × append: of two entries for the same place one is stored, whole, and the other is a conflict', async () => {
    const accounts = await Promise.all(Array.from({ length: USERS }, () => createAccount(here(), 1)))
    const start = createStarter()
    await race(async (user, n) => {
      const account = accounts[user]!
      const requests = [0, 1].map(() => ({ ...makeEntry(account, { type: 'rotate_keys' }), repair: true }))
      const results = await start(
        n + user,
        () => here().appendEntry(requests[0]!),
        () => there().appendEntry(requests[1]!),
      )
      const won = results.findIndex((result) => result.ok)
      expect(results[1 - won]).toMatchObject({ ok: false, code: 'log_conflict', log_seq: account.log_seq + 1 })
      expect(await here().appendEntry(requests[won]!)).toMatchObject({ ok: true, already_known: true })
      const result = results[won]!
      account.log_seq = result.log_seq
      account.log_head = result.log_head
      const { entries } = await there().readEntries(account.user_no, 'root', account.log_seq, 10)
      expect(entries).toHaveLength(1)
      expect(Buffer.from(entries[0]!.body).equals(requests[won]!.entry.body)).toBe(true)
      expect(entries[0]!.box).not.toBeNull()
    })
    const [entries, boxes] = await numbers(
      'select (select count(*) from log_entry where user_no = any($1)), (select count(*) from log_box where user_no = any($1))',
      [accounts.map((account) => account.user_no)],
    )
    expect([entries, boxes]).toEqual([USERS * (ROUNDS + 1), USERS * (ROUNDS + 1) * 2])
  })
})

describe('rotate × ingest', { timeout: 60_000 }, () => {
  it('B03: no event of an older epoch commits after the next one', async () => {
    const accounts = await Promise.all(Array.from({ length: USERS }, () => createAccount(here(), 1)))
    const sessions = await Promise.all(accounts.map((account) => openSession(here(), account.user_no, 1)))
    const last = accounts.map(() => 0)
    const start = createStarter()
    const outcomes = { stored: 0, stale_epoch: 0 }
    await race(async (user, n) => {
      const account = accounts[user]!
      const { user_no, log_seq: epoch } = account
      const run = makeRun({ user_no, device_no: 1, session_id: sessions[user]!, first_seq: last[user]! + 1, epoch }, 1)
      const rotate = async (): Promise<number[]> => {
        await appendRepair(there(), account, { type: 'rotate_keys' })
        return numbers('select count(*) from event where user_no = $1', [user_no])
      }
      const [verdict, eventsAtReturn] = await start(n + user, () => settle(here(), run), rotate)
      if (verdict.is === 'stored') last[user]! += 1
      else expect(verdict).toEqual({ is: 'stale_epoch', expected_seq: last[user]! + 1, log_seq: epoch + 1 })
      expect(eventsAtReturn).toEqual([last[user]])
      outcomes[verdict.is === 'stored' ? 'stored' : 'stale_epoch']++
    }, 10)
    await checkNumbers(accounts)
    expect(Math.min(outcomes.stored, outcomes.stale_epoch)).toBeGreaterThan(0)
  })
})

describe('B06, G14: writers and readers', { timeout: 60_000 }, () => {
  it('4 writers on the same users, readers at the tail: no gap, no order but that of positions, nothing missed', async () => {
    const DEVICES = 4
    const accounts = await Promise.all(Array.from({ length: 6 }, () => createAccount(here(), DEVICES)))
    const ended = Date.now() + 3_000
    const acked = new Map<number, Set<number>>(accounts.map(({ user_no }) => [user_no, new Set()]))
    const write = async (device_no: number): Promise<void> => {
      const node = nodes[device_no % 2]!
      const sessions = await Promise.all(accounts.map(({ user_no }) => openSession(node, user_no, device_no)))
      const next = accounts.map(() => 1)
      let busy = 0
      while (Date.now() < ended) {
        const runs = accounts.map(({ user_no, log_seq }, i) =>
          makeRun({ user_no, device_no, session_id: sessions[i]!, first_seq: next[i]!, epoch: log_seq }, [
            { stream_id: 'a' },
            { stream_id: `${device_no}` },
          ]),
        )
        const verdicts = await node.ingest(runs, busy >= 3)
        busy = verdicts.some((verdict) => verdict.is === 'busy') ? busy + 1 : 0
        for (const [i, verdict] of verdicts.entries()) {
          if (verdict.is === 'busy') continue
          if (verdict.is !== 'stored') throw new Error(verdict.is)
          next[i]! += 2
          for (const { position } of verdict.events) acked.get(accounts[i]!.user_no)!.add(position)
        }
      }
    }
    let writing = true
    const tail = async ({ user_no }: TestAccount): Promise<number> => {
      const streams = new Map<number, number>()
      let at = 0
      for (;;) {
        const last = !writing
        const page = await there().readPage({ user_no, after: at, limit: 100, bytes: 1e6, own: null, streams: null })
        for (const event of page.events) {
          expect(event.position).toBe(++at)
          expect(event.stream_seq).toBe((streams.get(event.stream_no) ?? 0) + 1)
          streams.set(event.stream_no, event.stream_seq)
        }
        expect(page.upto).toBe(at)
        if (last && page.events.length === 0) return at
        await nextTurn()
      }
    }
    const readers = accounts.map(tail)
    await Promise.all(Array.from({ length: DEVICES }, (_, i) => write(i + 1)))
    writing = false
    const read = await Promise.all(readers)
    for (const [i, { user_no }] of accounts.entries()) {
      expect(acked.get(user_no)!.size).toBe(read[i])
      expect(read[i]).toBeGreaterThan(100)
    }
    await checkNumbers(accounts)
  })
})

async function appendRepair(store: Store, account: TestAccount, change: Parameters<typeof append>[2]): Promise<void> {
  const wrapped = { appendEntry: (request: Parameters<Store['appendEntry']>[0]) => store.appendEntry({ ...request, repair: true }) }
  await append(wrapped as Store, account, change)
}

/** Heads, events and devices agree: nothing half stored, no number given twice or left out. */
async function checkNumbers(accounts: readonly TestAccount[]): Promise<void> {
  const user_nos = accounts.map((account) => account.user_no)
  const { rows } = await nodes[0]!.pools.main.query(
    `select e.user_no from (select user_no, count(*) as n, max(position) as last from event where user_no = any($1) group by user_no) e
       join head h on h.user_no = e.user_no and h.stream_no = 0 where e.n <> e.last or h.last <> e.last
     union all
     select e.user_no from (select user_no, stream_no, count(*) as n, max(stream_seq) as last from event where user_no = any($1) group by 1, 2) e
       join head h on h.user_no = e.user_no and h.stream_no = e.stream_no where e.n <> e.last or h.last <> e.last
     union all
     select d.user_no from device d where d.user_no = any($1)
        and d.last_seq <> (select count(*) from event e where e.user_no = d.user_no and e.device_no = d.device_no)`,
    [user_nos],
  )
  expect(rows).toEqual([])
}
