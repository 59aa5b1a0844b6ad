/** Deletion against everything that writes, on a real PostgreSQL over several nodes, and what others feel of it (G04, G10, C5). */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { toBase64url } from '@sealpost/protocol'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Store, Verdict } from '../../ports/store.ts'
import { assertAs, extendAccount, type TestAccount as TestRootAccount } from '@sealpost/testing/clients/signing-account'
import { createAccount, makeDevice, makeEntry, makeRun, openSession, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { useRest } from '@sealpost/testing/relays/injected-rest'
import { roundsOf } from '@sealpost/testing/tier'
import { createStore, type PostgresStore } from '../store.ts'

const USERS = 40
const ROUNDS = roundsOf({ quick: 4, system: 25 })
/** A node deletes two accounts at a time. */
const DELETING = 3

const database = useDatabase()
let nodes: PostgresStore[]

beforeAll(async () => {
  const open = (connections: number) =>
    createStore({
      connection: database.connection,
      log: silent,
      ingest_connections_max: connections,
      main_connections_max: connections,
    })
  nodes = await Promise.all([open(6), ...Array.from({ length: DELETING }, () => open(2))])
})
afterAll(async () => {
  await Promise.all(nodes.map((node) => node.close()))
})
const here = (): Store => nodes[0]!
const there = (n = 0): Store => nodes[1 + (n % DELETING)]!

const TABLES = ['event', 'head', 'stream', 'log_box', 'log_entry', 'refresh_family', 'device_profile', 'device', 'pairing', 'account']

async function rowsOf(user_no: number): Promise<number> {
  const counts = TABLES.map((table) => `(select count(*) from ${table} where user_no = $1)`)
  const { rows } = await nodes[0]!.pools.main.query<{ n: number }>(`select (${counts.join(' + ')})::int4 as n`, [user_no])
  return rows[0]!.n
}

/** Both at once, one of them late by a little: they meet at every point of each other. */
async function together<A, B>(n: number, a: () => Promise<A>, b: () => Promise<B>): Promise<[A, B]> {
  const late = async <T>(first: boolean, work: () => Promise<T>): Promise<T> => {
    if ((n % 2 === 0) === first) await sleep((n % 11) / 2)
    return work()
  }
  return Promise.all([late(true, a), late(false, b)])
}

/** `USERS × ROUNDS` accounts, each deleted while `work` goes on; whatever came first, no row of it remains. */
async function raceDeletion<T>(
  work: (account: TestAccount, session_id: string) => Promise<T>,
  judge: (result: T) => boolean,
): Promise<number> {
  let first = 0
  for (let round = 0; round < ROUNDS; round++)
    await Promise.all(
      Array.from({ length: USERS }, async (_, user) => {
        const account = await createAccount(here(), 1)
        const session_id = await openSession(here(), account.user_no, 1)
        const remove = () => there(user).deleteAccount(account.user_id, account.devices[0]!.device_id)
        const [result, deleted] = await together(round + user, () => work(account, session_id), remove)
        expect(deleted).toMatchObject({ user_no: account.user_no, counts: { account: 1, device: expect.any(Number) } })
        expect(await rowsOf(account.user_no)).toBe(0)
        if (judge(result)) first++
        // and what comes late brings nothing back
        await work(account, session_id).catch((error: unknown) => expect(error).toMatchObject({ code: 'unavailable' }))
        expect(await rowsOf(account.user_no)).toBe(0)
      }),
    )
  return first
}

async function settle(store: Store, account: TestAccount, session_id: string): Promise<Verdict> {
  const run = makeRun({ user_no: account.user_no, device_no: 1, session_id, first_seq: 1, epoch: account.log_seq }, 2)
  for (let patient = false; ; patient = true) {
    const [verdict] = await store.ingest([run], patient)
    if (verdict!.is !== 'busy') return verdict!
  }
}

describe(`${USERS * ROUNDS} rounds each`, { timeout: 120_000 }, () => {
  it('G10: delete × ingest: an event goes with the account or is refused', async () => {
    const stored = await raceDeletion(
      (account, session_id) => settle(here(), account, session_id),
      (verdict) => {
        expect(['stored', 'not_active']).toContain(verdict.is)
        return verdict.is === 'stored'
      },
    )
    expect(stored).toBeGreaterThan(0)
    expect(stored).toBeLessThan(USERS * ROUNDS)
  })

  it('G10: delete × entry: a device is added and goes with the account, or the account is gone', async () => {
    const added = await raceDeletion(
      (account) => here().appendEntry({ ...makeEntry(account, { type: 'add_device', device: makeDevice() }), repair: true }),
      (result) => {
        if (!result.ok) expect(['account_gone', 'not_found']).toContain(result.code)
        return result.ok
      },
    )
    expect(added).toBeGreaterThan(0)
  })

  it('G10: delete × session: a fence is written and goes with the account, or there is no account', async () => {
    const cursor = { position: 0, event_id: null, received_at: null, history_id: null }
    await raceDeletion(
      ({ user_no }) =>
        here().establishSession({
          user_no,
          device_no: 1,
          session_id: randomUUID(),
          node_no: null,
          cursor,
          last_device_seq: 0,
          log_seq: null,
        }),
      (result) => {
        if (!result.ok) expect(result.code).toBe('account_gone')
        return result.ok
      },
    )
  })
})

it('G04: while 100,000 events are deleted, others store theirs', { timeout: 120_000 }, async () => {
  const account = await createAccount(here(), 2)
  const other = await createAccount(here(), 1)
  const session_id = await openSession(here(), account.user_no, 1)
  for (let first_seq = 1; first_seq <= 100_000; first_seq += 4_000) {
    const run = makeRun({ user_no: account.user_no, device_no: 1, session_id, first_seq, epoch: account.log_seq }, 4_000)
    expect((await here().ingest([run], true))[0]!.is).toBe('stored')
  }
  const fence = await openSession(here(), other.user_no, 1)
  let first_seq = 1
  const waits: number[] = []
  const timed = async (): Promise<number> => {
    const began = performance.now()
    const run = makeRun({ user_no: other.user_no, device_no: 1, session_id: fence, first_seq: first_seq++, epoch: other.log_seq }, 1)
    expect((await here().ingest([run], false))[0]!.is).toBe('stored')
    return performance.now() - began
  }
  const state = { done: false }
  const began = performance.now()
  const deleting = there()
    .deleteAccount(account.user_id, null)
    .finally(() => (state.done = true))
  while (!state.done) waits.push(await timed())
  const deleted = await deleting
  const ms = performance.now() - began
  expect(deleted!.counts).toMatchObject({ event: 100_000, device: 2, account: 1 })
  expect(await rowsOf(account.user_no)).toBe(0)
  waits.sort((a, b) => a - b)
  const figures = { ms: Math.round(ms), acks: waits.length, p50: waits[waits.length >> 1]!, max: waits.at(-1)! }
  // one that waits for the deletion would be acked once, at its end
  expect(figures.acks).toBeGreaterThan(2)
  if (process.env['FIGURES'] !== undefined) process.stdout.write(`deletion of 100,000 events: ${JSON.stringify(figures)}\n`)
})

it('an account that is deleted meanwhile breaks its export off', async () => {
  const account = await createAccount(here(), 1)
  const session_id = await openSession(here(), account.user_no, 1)
  await settle(here(), account, session_id)
  const user = (await here().readUser(account.user_no))!
  expect(toBase64url(user.user_id)).toBe(account.user_id)
  const kinds: string[] = []
  await expect(async () => {
    for await (const row of here().exportRows(account.user_no, user)) {
      if (kinds.push(row.kind) === 1) await there().deleteAccount(account.user_id, null)
    }
  }).rejects.toMatchObject({ code: 'account_gone' })
  expect(kinds).toEqual(['account'])
})

/** Deletions take so long from here on; `off` ends that. */
async function slowDown(url: string, seconds: number): Promise<{ off(): Promise<void> }> {
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query(`create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(${seconds}); return null; end'`)
  await client.query('create trigger slow after delete on event for each statement execute function slow()')
  return {
    async off() {
      await client.query('drop function slow cascade')
      await client.end()
    },
  }
}

it('G04: takes longer than the driver waits for a statement by default', async () => {
  const account = await createAccount(here(), 1)
  const connection = { ...database.connection, query_timeout: 400 }
  const store = await createStore({ connection, log: silent })
  const slow = await slowDown(database.url, 1)
  try {
    await expect(store.pools.main.query('select pg_sleep(1)')).rejects.toThrow('Query read timeout')
    expect(await store.deleteAccount(account.user_id, null)).toMatchObject({ counts: { account: 1, event: 0 } })
    expect(await rowsOf(account.user_no)).toBe(0)
  } finally {
    await slow.off()
    await store.close()
  }
})

it('the number of events that are held is known without counting them', async () => {
  const { pools } = nodes[0]!
  const account = await createAccount(here(), 1)
  const { user_no } = account
  const session_id = await openSession(here(), user_no, 1)
  let first_seq = 1
  const store = async (count: number, ttl?: number): Promise<void> => {
    const events = Array.from({ length: count }, (_, i) => ({ stream_id: `s${i % 3}`, ...(ttl === undefined ? {} : { ttl }) }))
    const run = makeRun({ user_no, device_no: 1, session_id, first_seq, epoch: account.log_seq }, events)
    expect((await here().ingest([run], true))[0]!.is).toBe('stored')
    first_seq += count
  }
  const isRight = async (events: number): Promise<void> => {
    const { rows } = await pools.main.query<{ n: number }>('select count(*)::int4 as n from event where user_no = $1', [user_no])
    expect([rows[0]!.n, (await here().readUser(user_no))!.events]).toEqual([events, events])
  }
  const age = (older: string): Promise<unknown> =>
    pools.main.query(
      `update event set received_at = received_at - 100000, expires_at = expires_at - 1000000 where user_no = $1 and ${older}`,
      [user_no],
    )
  await isRight(0)
  await store(30)
  await store(10, 60)
  await isRight(40)
  await age('position <= 12')
  expect(await here().removePrefix(user_no, { age_ms: 50_000, tombstone_ms: null, bytes: null })).toMatchObject({ is: 'done', rows: 12 })
  await isRight(28)
  await age('expires_at is not null')
  expect(await here().sweepExpiredEvents(0)).toMatchObject({ is: 'done', rows: 10 })
  await isRight(28)
  await store(5)
  await isRight(33)
  expect(await here().removePrefix(user_no, { age_ms: 0, tombstone_ms: null, bytes: null })).toMatchObject({ rows: 33 })
  await isRight(0)
  await store(2)
  await isRight(2)
})

describe('others over REST', () => {
  const rest = useRest()
  const MOST_MS = 1_000

  /** An account, and what its own requests take while something else goes on. */
  async function another() {
    const account = await rest.registered()
    const token = await rest.tokenOf(account)
    return async (until: () => boolean): Promise<number> => {
      let most = 0
      const timed = async (work: () => Promise<{ status: number } | string>): Promise<void> => {
        const began = performance.now()
        const answer = await work()
        most = Math.max(most, performance.now() - began)
        expect(typeof answer === 'string' ? 200 : answer.status).toBe(200)
      }
      do {
        await timed(() => rest.as(token, 'GET', '/api/user'))
        await timed(() => rest.as(token, 'GET', '/api/devices'))
        await timed(() => rest.tokenOf(account))
        await sleep(20)
      } while (!until())
      return most
    }
  }

  const cursor = { position: 0, event_id: null, received_at: null, history_id: null }
  const writers: Record<string, (held: TestRootAccount) => Promise<() => Promise<unknown>>> = {
    'ask for tokens': async (held) => {
      const assertion = await assertAs(held, rest.server_key, 'token')
      return async () => expect(await rest.post('/api/auth/token', assertion)).toMatchObject({ status: 200 })
    },
    'open sessions': async (held) => {
      const { user_no } = (await rest.store.findDevice(held.user_id, held.device.device_id))!
      const opening = { user_no, device_no: 1, node_no: null, cursor, last_device_seq: 0, log_seq: null }
      return () => rest.store.establishSession({ ...opening, session_id: randomUUID() })
    },
    'change the log': async (held) => {
      const { entry, boxes } = await extendAccount({ ...held, entries: [] }, { type: 'rotate_keys' })
      return () => rest.store.appendEntry({ user_id: held.user_id, entry, boxes, repair: false, allow_genesis: false })
    },
  }

  it.each(Object.entries(writers))('wait for nothing while the devices of an account whose row is held %s', async (_, prepare) => {
    const requests = await another()
    const held = await rest.registered()
    const writes = await Promise.all(Array.from({ length: 24 }, () => prepare(held)))
    const client = new Client({ connectionString: rest.url })
    await client.connect()
    await client.query('begin')
    await client.query('select from account where user_id = $1 for update', [Buffer.from(held.user_id, 'base64url')])
    try {
      let left = writes.length
      const answers = Promise.allSettled(writes.map((write) => write().finally(() => left--)))
      expect(await requests(() => left === 0)).toBeLessThan(MOST_MS)
      expect((await answers).filter(({ status }) => status === 'fulfilled')).toEqual([])
    } finally {
      await client.query('rollback')
      await client.end()
    }
    // and among themselves they take turns
    await Promise.all((await Promise.all(Array.from({ length: 24 }, () => prepare(held)))).map((write) => write()))
  })

  it('wait for nothing while accounts are deleted that take long, however many', { timeout: 60_000 }, async () => {
    const requests = await another()
    const gone = await Promise.all(Array.from({ length: 8 }, () => rest.registered()))
    const asked = await Promise.all(gone.map((account) => assertAs(account, rest.server_key, 'delete-account')))
    const slow = await slowDown(rest.url, 1.3)
    try {
      let left = asked.length
      const deleted = asked.map((payload) => rest.ask({ method: 'DELETE', url: '/api/user', payload }).finally(() => left--))
      expect(await requests(() => left === 0)).toBeLessThan(MOST_MS)
      for (const answer of deleted) expect(await answer).toMatchObject({ status: 200, body: { deleted: { account: 1 } } })
    } finally {
      await slow.off()
    }
  })
})
