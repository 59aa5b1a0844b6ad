/** A relay behind a pooler that lends a server for one transaction, as the real pgbouncer does (docs/operations/pooler.md). */
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Cursor } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { Client, DatabaseError, Pool } from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Pgbouncer, type PgbouncerOptions, startPgbouncer } from '@sealpost/testing/components/pgbouncer'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { writeFirstOwner } from '../src/admin/admins/first-owner.ts'
import { readConfig } from '../src/config/config.ts'
import { diagnose } from '../src/doctor/doctor.ts'
import type { Run, Verdict } from '../src/ports/store.ts'
import { startServer } from '../src/server.ts'
import { openExternalDatabase } from '../src/store/postgres/database.ts'
import { startEmbeddedPostgres } from '../src/store/postgres/embedded-postgres.ts'
import { choosePostgresAccount, giveFolder } from '../src/store/postgres/postgres-account.ts'
import { findPostgres } from '../src/store/postgres/postgres-binaries.ts'
import { migrate } from '../src/store/postgres/migrate.ts'
import { readSchema } from '../src/store/postgres/schema-files.ts'
import { withClient, withTransaction } from '../src/store/postgres/pool.ts'
import { createStore, type PostgresStore } from '../src/store/store.ts'
import {
  append,
  createAccount,
  makeAccount,
  makeDevice,
  makeEntry,
  makeRun,
  openSession,
  type TestAccount,
} from '@sealpost/testing/clients/store-accounts'
import { createTestDatabase, query, type TestDatabase, withDatabase } from '@sealpost/testing/components/test-database'
import { createDoor, type Door } from '@sealpost/testing/relays/configured-relays'
import { silent } from '@sealpost/testing/relays/silent-log'
import { connectRaw, type RawClient } from '@sealpost/testing/clients/raw-client'
import { makeRecords, takeAcks, takeEvents } from '@sealpost/testing/relays/socket-relay'

const SIZE = 4
/** A database that went away is tried again soon. */
const SOON = ['server_login_retry = 1']

let folder: string
let database: TestDatabase
let pooler: Pgbouncer

const size = (servers: number): string[] => [...SOON, `default_pool_size = ${servers}`]
const nameOf = (url: string): string => new URL(url).pathname.slice(1)
const openPooled = (url: string, more: Partial<Parameters<typeof createStore>[0]> = {}): Promise<PostgresStore> =>
  createStore({ connection: { connectionString: url }, pooler: 'transaction', log: silent, ...more })

async function direct<T>(use: (sql: Client) => Promise<T>, url = database.url): Promise<T> {
  const sql = new Client({ connectionString: url })
  await sql.connect()
  try {
    return await use(sql)
  } finally {
    await sql.end()
  }
}

async function count(text: string, values: unknown[] = [], url = database.url): Promise<number> {
  return direct(async (sql) => Number(Object.values((await sql.query<Record<string, string>>(text, values)).rows[0] ?? {})[0]), url)
}

/** Where the database `relay` of a pooler leads. */
async function point({ folder: of, ask }: Pgbouncer, change: (all: string) => string): Promise<void> {
  const file = join(of, 'pgbouncer.ini')
  const [all = '', ...rest] = (await readFile(file, 'utf8'))
    .split('\n')
    .filter((line) => !line.startsWith('relay = ') && line !== '[databases]')
  await writeFile(file, ['[databases]', `relay = ${change(all.replace('* = ', ''))}`, all, ...rest].join('\n'))
  await ask('reload')
}

async function startRelay(url: string): Promise<{ door: Door; stop(): Promise<void> }> {
  const data = join(folder, randomUUID().slice(0, 8))
  const config = readConfig({
    SEALPOST_PORT: '0',
    SEALPOST_DATA: data,
    SEALPOST_ADMIN: 'off',
    SEALPOST_TRUSTED_PROXIES: '127.0.0.1',
    SEALPOST_STOP_S: '10',
    DATABASE_URL: url,
    SEALPOST_DATABASE_POOLER: 'transaction',
  })
  const server = await startServer(config, { logger: silent, test: true })
  return { door: createDoor(server), stop: () => server.stop() }
}

async function settle(store: PostgresStore, run: Run): Promise<Verdict> {
  for (let patient = false; ; patient = true) {
    const [verdict] = await store.ingest([run], patient)
    if (verdict!.is !== 'busy') return verdict!
  }
}

describeWith(['pgbouncer'], 'behind pgbouncer', () => {
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 's-'))
    database = await createTestDatabase()
    pooler = await startPgbouncer({ database_url: database.url, ini: size(SIZE) })
  })
  afterAll(async () => {
    await pooler?.stop()
    await database?.drop()
    await rm(folder, { recursive: true, force: true })
  })

  it('the schema is applied once, also when nodes start together, and a store opens on it', async () => {
    const empty = await createTestDatabase()
    const url = withDatabase(pooler.url, nameOf(empty.url))
    try {
      await query(empty.url, 'drop schema public cascade; create schema public')
      const applied = await Promise.all([1, 2, 3].map(() => migrate({ connectionString: url })))
      const { tables, functions } = readSchema()
      expect(applied.flat()).toEqual([...tables, ...functions].map(({ name }) => name))
      expect(await migrate({ connectionString: url })).toEqual([])
      const store = await openPooled(url)
      await createAccount(store)
      await store.close()
      await query(empty.url, `insert into sealpost_migration (version, name) values (9999, 'later')`)
      await expect(migrate({ connectionString: url })).rejects.toMatchObject({ code: 'data_newer' })
    } finally {
      await empty.drop()
    }
  })

  it('B06: each transaction has the settings of the store, whatever the server has, and leaves none behind', {
    timeout: 30_000,
  }, async () => {
    const own = await createTestDatabase()
    const url = withDatabase(pooler.url, nameOf(own.url))
    const names = ['synchronous_commit', 'plan_cache_mode', 'lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout']
    const all = `concat_ws(' ', ${names.map((name) => `current_setting('${name}')`).join(', ')})`
    await query(
      own.url,
      `alter database ${nameOf(own.url)} set synchronous_commit = off;
       create table seen (settings text);
       create function see() returns trigger language plpgsql as $f$ begin insert into seen select ${all}; return null; end $f$;
       create trigger see after insert on event for each statement execute function see();
       create trigger see after update of log_seq on account for each statement execute function see();
       create trigger see after update of session_id on device for each statement execute function see()`,
    )
    const store = await openPooled(url)
    try {
      const account = await createAccount(store, 2)
      const session_id = await openSession(store, account.user_no, 1)
      await settle(store, makeRun({ user_no: account.user_no, device_no: 1, session_id, first_seq: 1, epoch: account.log_seq }, 3))
      const seen = await direct((sql) => sql.query('select settings, count(*)::int4 as n from seen group by settings'), own.url)
      expect(seen.rows).toEqual([{ settings: 'on force_generic_plan 2s 5s 10s', n: 3 }])
      // on the servers that the relay has used
      const look = (at: string) => direct(async (sql) => (await sql.query<{ s: string }>(`select ${all} as s`)).rows[0]?.s, at)
      const untouched = await look(own.url)
      expect(untouched).toMatch(/^off auto 0 0 (?!10s)/)
      for (const after of await Promise.all(Array.from({ length: SIZE }, () => look(url)))) expect(after).toBe(untouched)
      const began = performance.now()
      await expect(withClient(store.pools.main, (client) => client.query('select pg_sleep(20)'))).rejects.toMatchObject({
        code: 'unavailable',
        cause: expect.objectContaining({ code: '57014' }),
      })
      expect(performance.now() - began).toBeLessThan(8_000)
      expect(await store.readAuditEnds()).toMatchObject({ checkpoints: [] })
    } finally {
      await store.close()
      await own.drop()
    }
  })

  it('a use of a connection is one transaction: on one server, undone as a whole, and no statement has a name', async () => {
    const store = await openPooled(pooler.url)
    const account = await createAccount(store)
    const touch = {
      name: 'touch',
      text: 'update account set floor = floor + 1 where user_no = $1 returning floor, pg_backend_pid() as pid',
    }
    const values = [account.user_no]
    const floor = () => count('select floor from account where user_no = $1', values)
    try {
      const pids = await withClient(store.pools.main, async (client) => {
        const answers = [await client.query({ ...touch, values }), await client.query({ ...touch, values })]
        expect((await client.query('select from pg_prepared_statements')).rowCount).toBe(0)
        expect(await floor()).toBe(0)
        return answers.map(({ rows }) => (rows[0] as { pid: number }).pid)
      })
      expect(pids[0]).toBe(pids[1])
      expect(await floor()).toBe(2)
      for (const use of [withClient, withTransaction]) {
        const failing = use(store.pools.main, async (client) => {
          await client.query({ ...touch, values })
          await client.query('select * from no_such_table')
        })
        await expect(failing).rejects.toMatchObject({ code: 'internal', message: 'the database refused a statement' })
        // a failure that somebody has caught does not become a success
        const caught = use(store.pools.main, async (client) => {
          await client.query({ ...touch, values })
          await client.query('select * from no_such_table').catch((error: unknown) => expect(error).toBeInstanceOf(DatabaseError))
        })
        await expect(caught).rejects.toMatchObject({ code: 'unavailable' })
      }
      expect(await floor()).toBe(2)
    } finally {
      await store.close()
    }
  })

  it('more connections than servers share them', async () => {
    const stores = await Promise.all(Array.from({ length: 3 }, () => openPooled(pooler.url)))
    try {
      const accounts = await Promise.all(Array.from({ length: 12 }, (_, i) => createAccount(stores[i % 3]!)))
      await Promise.all(
        accounts.map(async ({ user_no, log_seq: epoch }, i) => {
          const store = stores[i % 3]!
          const session_id = await openSession(store, user_no, 1)
          for (let first_seq = 1; first_seq <= 20; first_seq++)
            expect(await settle(store, makeRun({ user_no, device_no: 1, session_id, first_seq, epoch }, 1))).toMatchObject({ is: 'stored' })
        }),
      )
      const of = (rows: Record<string, unknown>[]) => rows.filter((row) => row['database'] === nameOf(database.url)).length
      const [clients, servers] = [of(await pooler.ask('show clients')), of(await pooler.ask('show servers'))]
      expect(servers).toBeLessThanOrEqual(SIZE)
      expect(clients).toBeGreaterThan(2 * SIZE)
    } finally {
      await Promise.all(stores.map((store) => store.close()))
    }
  })

  it('the number of a stream is remembered once it is committed, whatever becomes of its batch', async () => {
    const own = await createTestDatabase()
    const store = await openPooled(withDatabase(pooler.url, nameOf(own.url)))
    try {
      const { user_no, log_seq: epoch } = await createAccount(store)
      const session_id = await openSession(store, user_no, 1)
      const run = makeRun({ user_no, device_no: 1, session_id, first_seq: 1, epoch }, [{ stream_id: 'new' }])
      await query(
        own.url,
        `create function refuse() returns trigger language plpgsql as $f$ begin raise 'no' using errcode = '53100'; end $f$;
         create trigger refuse before insert on event for each statement execute function refuse()`,
      )
      await expect(store.ingest([run], true)).rejects.toMatchObject({ code: 'unavailable' })
      const streams = () => count(`select stream_no from stream where user_no = $1 and stream_id = 'new'`, [user_no], own.url)
      expect(await streams()).toBe(1)
      await query(own.url, 'drop trigger refuse on event')
      expect(await store.ingest([run], true)).toMatchObject([{ is: 'stored' }])
      expect(await count('select stream_no from event where user_no = $1', [user_no], own.url)).toBe(await streams())
    } finally {
      await store.close()
      await own.drop()
    }
  })

  it('batches with new streams wait for the accounts of others in the same order as all', async () => {
    const store = await openPooled(pooler.url)
    try {
      const senders = await Promise.all(
        Array.from({ length: 2 }, async () => {
          const account = await createAccount(store, 2)
          const sessions = [await openSession(store, account.user_no, 1), await openSession(store, account.user_no, 2)]
          return { user_no: account.user_no, epoch: account.log_seq, sessions }
        }),
      )
      const batch = (first_seq: number, device: 0 | 1, streams: [string, string]) =>
        senders.map(({ user_no, epoch, sessions }, i) =>
          makeRun({ user_no, device_no: device + 1, session_id: sessions[device]!, first_seq, epoch }, [{ stream_id: streams[i]! }]),
        )
      for (let n = 1; n <= 60; n++) {
        const verdicts = await Promise.all([
          store.ingest(batch(n, 0, ['main', `new-${n}`]), true),
          store.ingest(batch(n, 1, ['main', 'main']), true),
        ])
        expect(verdicts.flat().map(({ is }) => is)).toEqual(['stored', 'stored', 'stored', 'stored'])
      }
    } finally {
      await store.close()
    }
  })

  it('R01: an event commits before the revocation of its device or not at all, in 300 rounds', { timeout: 60_000 }, async () => {
    const [here, there] = await Promise.all([openPooled(pooler.url), openPooled(pooler.url)])
    const beside = new Pool({ ...database.connection, max: 4 })
    const outcomes = { stored: 0, not_active: 0 }
    const lately = [5, 5]
    /** One of both is late by up to the time that the other took lately: each wins often. */
    const start = async <T>(which: 0 | 1, n: number, work: () => Promise<T>): Promise<T> => {
      if (n % 2 === which) await sleep((lately[1 - which]! * (n % 11)) / 10)
      const began = performance.now()
      const result = await work()
      lately[which] = 0.9 * lately[which]! + 0.1 * (performance.now() - began)
      return result
    }
    const revise = async (account: TestAccount, change: Parameters<typeof append>[2]): Promise<void> => {
      // a repair has no rate to keep to
      const result = await there.appendEntry({ ...makeEntry(account, change), repair: true })
      if (!result.ok) throw new Error(result.code)
      Object.assign(account, { log_seq: result.log_seq, log_head: result.log_head })
    }
    try {
      await Promise.all(
        Array.from({ length: 20 }, async (_, user) => {
          const account = await createAccount(here)
          const events = async (device_no: number): Promise<unknown> =>
            (
              await beside.query('select count(*)::int4 as n from event where user_no = $1 and device_no = $2', [
                account.user_no,
                device_no,
              ])
            ).rows[0].n
          for (let n = 0; n < 15; n++) {
            const device = makeDevice()
            await revise(account, { type: 'add_device', device })
            const device_no = n + 2
            const session_id = await openSession(there, account.user_no, device_no)
            const run = makeRun({ user_no: account.user_no, device_no, session_id, first_seq: 1, epoch: account.log_seq }, 2)
            const revoke = () => revise(account, { type: 'revoke_device', revoked: [{ device_id: device.device_id }] })
            const [verdict, atReturn] = await Promise.all([
              start(0, n + user, () => settle(here, run)),
              start(1, n + user, revoke).then(() => events(device_no)),
            ])
            expect(['stored', 'not_active']).toContain(verdict.is)
            expect([atReturn, await events(device_no)]).toEqual(verdict.is === 'stored' ? [2, 2] : [0, 0])
            outcomes[verdict.is as keyof typeof outcomes] += 1
          }
        }),
      )
      expect(outcomes.stored + outcomes.not_active).toBe(300)
      expect(Math.min(outcomes.stored, outcomes.not_active)).toBeGreaterThan(5)
    } finally {
      await Promise.all([here.close(), there.close(), beside.end()])
    }
  })

  it('a whole relay needs one server and no more: no use of a connection waits for another', { timeout: 60_000 }, async () => {
    const own = await createTestDatabase()
    await using one = await startPgbouncer({ database_url: own.url, ini: size(1) })
    const { door, stop } = await startRelay(one.url)
    try {
      const account = makeAccount()
      const laptop = makeDevice()
      const phone = makeDevice()
      expect(await door.postEntry(account, { type: 'genesis', device: laptop })).toMatchObject({ status: 200 })
      expect(await door.postEntry(account, { type: 'add_device', device: phone })).toMatchObject({ status: 200 })
      const [a, b] = await Promise.all([connectRaw(door.raw(account, 0)), connectRaw(door.raw(account, 1))])
      const epoch = account.log_seq
      a.sendRecords(...makeRecords(a, 1, 20, { epoch }), ...makeRecords(a, 21, 20, { epoch, stream_id: 'other' }))
      expect(await takeAcks(a, 40)).toHaveLength(40)
      expect(await takeEvents(b, 40, 0)).toHaveLength(40)
      await b.close()
      const again = await connectRaw(door.raw(account, 1))
      expect((await again.replayAll(7)).map(({ device_seq }) => device_seq)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1))

      const token = await door.token(account, 0)
      const read = (path: string) => door.ask('GET', path, { token })
      expect((await read('/api/events?limit=10')).body.events).toHaveLength(10)
      expect((await read('/api/devices')).body.devices).toHaveLength(2)
      expect((await read('/api/user')).body).toMatchObject({ head_position: 40, devices: 2 })
      const lines = String((await read('/api/user/export')).body)
        .trim()
        .split('\n')
      expect(lines.filter((line) => (JSON.parse(line) as { kind: string }).kind === 'event')).toHaveLength(40)
      expect((await read('/readyz')).status).toBe(200)

      const mailbox = Buffer.from(nodeCrypto.random(16)).toString('base64url')
      const put = (slot: string, credential?: string) =>
        door.ask('PUT', `/api/pairing/${mailbox}/${slot}`, {
          bytes: new Uint8Array(40),
          ...(credential === undefined ? {} : { token: credential }),
        })
      expect([(await put('offer', token)).status, (await put('join')).status]).toEqual([204, 204])

      const revoked = await door.postEntry(account, { type: 'revoke_device', revoked: [{ device_id: phone.device_id }] })
      expect(revoked).toMatchObject({ status: 200 })
      await again.closed
      await expect(connectRaw(door.raw(account, 1))).rejects.toThrow()

      await writeFirstOwner(
        { data_dir: '/nonexistent', database_url: one.url, database_wait_ms_max: 5_000, database_pooler: 'transaction' },
        { name: 'ada', public_key: nodeCrypto.ed25519Public(nodeCrypto.random(32)), another: false },
        silent,
      )
      const proof = await door.assertion(account, 'root', 'delete-account')
      expect((await door.ask('DELETE', '/api/user', { json: proof })).body).toMatchObject({ deleted: { event: 40, account: 1 } })
      await a.closed
      expect(await count('select count(*) from event', [], own.url)).toBe(0)
    } finally {
      await stop()
      await one.stop()
      await own.drop()
    }
  })

  it('the jobs do their work', async () => {
    const own = await createTestDatabase()
    const store = await openPooled(withDatabase(pooler.url, nameOf(own.url)), { clock_skew_ms: 0 })
    try {
      const { user_no, log_seq: epoch, user_id } = await createAccount(store)
      const session_id = await openSession(store, user_no, 1)
      const made_at = Date.now() - 3_000
      await settle(store, makeRun({ user_no, device_no: 1, session_id, first_seq: 1, epoch }, [{ ttl: 4, made_at }, {}, {}]))
      await expect.poll(() => store.sweepExpiredEvents(0), { timeout: 5_000 }).toMatchObject({ is: 'done', rows: 1 })
      const rule = { age_ms: 0, tombstone_ms: null, bytes: null }
      expect(await store.findAgedAccounts(0, 10, rule)).toEqual([{ user_no, due: true }])
      expect(await store.removePrefix(user_no, rule)).toMatchObject({ is: 'done', rows: 3 })
      // one node at a time has a batch under way
      await direct(async (other) => {
        await other.query('begin; select take_retention_turn()')
        expect(await store.removePrefix(user_no, rule)).toEqual({ is: 'taken' })
      }, own.url)
      expect(await store.removePrefix(user_no, rule)).toMatchObject({ is: 'done', rows: 0 })
      const family = { family_id: randomUUID(), token_hash: nodeCrypto.random(32) }
      expect(await store.startFamily(user_no, 1, family, 0)).toEqual({ token_version: expect.any(Number) })
      expect(await store.sweepTokens(10)).toBe(1)
      expect(await store.rememberAssertion(randomUUID(), user_id)).toBe(true)
      expect(await store.sweepExpired(10)).toBe(0)
      expect(await store.addAuditCheckpoint(() => new Uint8Array(64), { rows: 0, ms: 0 })).toMatchObject({ seq: 1 })
      expect(await store.removeOldAudit(0)).toMatchObject({ is: 'done' })
      expect(await store.clearRevoked(0, { user_no: 0, device_no: 0 })).toMatchObject({ is: 'done' })
    } finally {
      await store.close()
      await own.drop()
    }
  })

  it('nothing acked is lost while pgbouncer pauses, is killed and comes back, and the relay goes on', { timeout: 60_000 }, async () => {
    const own = await createTestDatabase()
    await using shaken = await startPgbouncer({ database_url: own.url, ini: size(3) })
    const { door, stop } = await startRelay(shaken.url)
    const open = new Set<RawClient>()
    const ending = new AbortController()
    const isGoing = (): boolean => !ending.signal.aborted
    try {
      const seats = await Promise.all(
        Array.from({ length: 6 }, async () => {
          const account = makeAccount()
          expect(await door.postEntry(account, { type: 'genesis', device: makeDevice() })).toMatchObject({ status: 200 })
          const seat: { account: TestAccount; acked: number; joined: number } = { account, acked: 0, joined: 0 }
          return seat
        }),
      )
      /** As a device does: what is not acked is sent again, from where the relay says that it stands. */
      const send = async (seat: (typeof seats)[number]): Promise<void> => {
        while (isGoing()) {
          try {
            const options = door.raw(seat.account)
            const client = await connectRaw({ ...options, patience: 1_500, auth: { ...options.auth, last_device_seq: seat.acked } })
            open.add(client)
            expect(client.established.last_device_seq).toBeGreaterThanOrEqual(seat.acked)
            seat.acked = client.established.last_device_seq ?? 0
            seat.joined += 1
            while (isGoing()) {
              client.sendRecords(
                ...makeRecords(client, seat.acked + 1, 5, { epoch: seat.account.log_seq, stream_id: `s${seat.acked % 7}` }),
              )
              await takeAcks(client, 5)
              seat.acked += 5
            }
          } catch (error) {
            if (error instanceof Error && error.name === 'AssertionError') throw error
            await sleep(50)
          }
        }
      }
      const sending = seats.map(send)
      const more = async (): Promise<void> => {
        const before = seats.map(({ acked }) => acked)
        await expect.poll(() => seats.every(({ acked }, i) => acked > before[i]! + 10), { timeout: 15_000 }).toBe(true)
      }
      await more()
      await shaken.ask('pause')
      await sleep(300)
      await shaken.ask('resume')
      await more()
      for (let i = 0; i < 3; i++) {
        await shaken.restart()
        await more()
      }
      await query(
        own.url,
        'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
      )
      await more()
      ending.abort()
      await Promise.all(sending)
      for (const { account, acked, joined } of seats) {
        expect(joined).toBeGreaterThan(1)
        const [row] = await direct(
          async (sql) =>
            (
              await sql.query(
                `select count(*)::int4 as n, max(device_seq)::int4 as last, count(distinct device_seq)::int4 as seqs, max(position)::int4 as position,
                        count(distinct position)::int4 as positions from event join account using (user_no) where user_id = $1`,
                [Buffer.from(account.user_id, 'base64url')],
              )
            ).rows,
          own.url,
        )
        expect(row.n).toBeGreaterThanOrEqual(acked)
        expect(row).toEqual({ n: row.n, last: row.n, seqs: row.n, position: row.n, positions: row.n })
      }
    } finally {
      ending.abort()
      await Promise.all([...open].map((client) => client.close()))
      await stop()
      await shaken.stop()
      await own.drop()
    }
  })

  it('C6: when another database is behind it, sessions end and cursors are judged by the new history', { timeout: 60_000 }, async () => {
    const before = await createTestDatabase()
    const name = nameOf(before.url)
    const made = await createStore({ connection: before.connection, log: silent })
    const account = await createAccount(made)
    const { history_id } = made
    await made.close()
    await query(database.url, `create database ${name}_copy template ${name}`)
    const copy_url = withDatabase(before.url, `${name}_copy`)
    await query(copy_url, 'update server_meta set store_id = gen_random_uuid()')
    await using switched = await startPgbouncer({ database_url: before.url, ini: size(3) })
    await point(switched, (all) => `${all} dbname=${name}`)
    const { door, stop } = await startRelay(withDatabase(switched.url, 'relay'))
    try {
      const epoch = account.log_seq
      const old = await connectRaw(door.raw(account))
      expect(old.established.history_id).toBe(history_id)
      const records = makeRecords(old, 1, 3, { epoch })
      old.sendRecords(...records)
      const last = (await takeAcks(old, 3)).at(-1)!
      const received_at = await count('select received_at from event where position = 3', [], before.url)
      await point(switched, (all) => `${all} dbname=${name}_copy`)
      old.sendRecords(...makeRecords(old, 4, 1, { epoch }))
      expect(await old.closed).toMatchObject({ code: 1001 })
      expect(old.types.filter((type) => type === 'ack')).toHaveLength(1)

      const cursor: Cursor = { position: last.position, event_id: eventIdOf(records[2]!), received_at, history_id }
      const client = await connectRaw({ ...door.raw(account), auth: { log_seq: epoch, log_head: null, cursor, last_device_seq: 3 } })
      expect(client.established).toMatchObject({ last_device_seq: 3, head_position: 0 })
      expect(client.established.history_id).not.toBe(history_id)
      expect((await client.next('reset')).head).toMatchObject({ reason: 'history_changed', from_position: 0 })
      client.sendRecords(...makeRecords(client, 4, 1, { epoch }))
      await takeAcks(client, 1)
      expect(await count('select count(*) from event', [], copy_url)).toBe(1)
      expect(await count('select count(*) from event', [], before.url)).toBeLessThanOrEqual(4)

      await point(switched, (all) => `${all} dbname=${name}`)
      expect(await client.closed).toMatchObject({ code: 1001 })
      const back = await connectRaw({ ...door.raw(account), auth: { log_seq: epoch, log_head: null, cursor, last_device_seq: 3 } })
      expect(back.established.history_id).toBe(history_id)
      expect(back.types).not.toContain('reset')
      await back.close()
    } finally {
      await stop()
      await switched.stop()
      await query(database.url, `drop database ${name}_copy with (force)`)
      await before.drop()
    }
  })

  it('C6: what was done on a server while another took over is not passed on', async () => {
    const [before, after] = [await createTestDatabase(), await createTestDatabase()]
    await query(after.url, 'update server_meta set store_id = gen_random_uuid()')
    await using switched = await startPgbouncer({ database_url: before.url, ini: size(3) })
    await point(switched, (all) => `${all} dbname=${nameOf(before.url)}`)
    const store = await openPooled(withDatabase(switched.url, 'relay'))
    try {
      const { history_id } = store
      const { user_no, log_seq: epoch } = await createAccount(store)
      const session_id = await openSession(store, user_no, 1)
      await query(
        before.url,
        `create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(1); return null; end';
        create trigger slow after insert on event for each statement execute function slow()`,
      )
      const late = store.ingest([makeRun({ user_no, device_no: 1, session_id, first_seq: 1, epoch }, [{}])], true)
      const refused = expect(late).rejects.toMatchObject({ code: 'unavailable', message: 'another server took over the store' })
      await sleep(100)
      await point(switched, (all) => `${all} dbname=${nameOf(after.url)}`)
      await store.ping()
      expect(store.history_id).not.toBe(history_id)
      await refused
      expect(await count('select count(*) from event', [], before.url)).toBe(1)
    } finally {
      await store.close()
      await switched.stop()
      await Promise.all([before.drop(), after.drop()])
    }
  })

  it('C7: a standby behind it is refused until it is promoted, and then has another history', { timeout: 60_000 }, async () => {
    const [first_dir, second_dir] = [join(folder, 'first'), join(folder, 'second')]
    const made = await startEmbeddedPostgres({ data_dir: first_dir, test: true })
    await migrate(made.connection)
    await made.stop()
    await cp(first_dir, second_dir, { recursive: true, preserveTimestamps: true })
    await writeFile(join(second_dir, 'postgres', 'standby.signal'), '')
    const first = await startEmbeddedPostgres({ data_dir: first_dir, test: true })
    const second = await startStandby(second_dir)
    const targetOf = (host: string) => `host=${host} user=${first.connection.user} dbname=${first.connection.database}`
    await using switched = await startPgbouncer({ database_url: database.url, ini: size(3) })
    await point(switched, () => targetOf(first.connection.host))
    const store = await openPooled(withDatabase(switched.url, 'relay'))
    try {
      const { user_id, devices } = await createAccount(store)
      const { history_id } = store
      await point(switched, () => targetOf(second.host))
      const find = () => store.findDevice(user_id, devices[0]!.device_id)
      await expect
        .poll(() => find().catch((error: unknown) => error))
        .toMatchObject({ code: 'unavailable', message: 'the store is a standby' })
      expect(store.history_id).toBe(history_id)
      const sql = new Client({ host: second.host, user: first.connection.user, database: first.connection.database })
      await sql.connect()
      await sql.query('select pg_promote()')
      await sql.end()
      await expect.poll(() => find().catch((error: unknown) => error)).toBeNull()
      expect(store.history_id).not.toBe(history_id)
      await createAccount(store)
    } finally {
      await store.close()
      await switched.stop()
      await Promise.all([first.stop(), second.stop()])
    }
  })

  it('is not mixed up with a direct connection: the start fails, the doctor says so, and a connection that is opened later is not used', async () => {
    const start = (env: Record<string, string>) =>
      startServer(readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: join(folder, 'off'), DATABASE_URL: pooler.url, ...env }), {
        logger: silent,
        test: true,
      })
    await expect(start({})).rejects.toMatchObject({ code: 'invalid_config', message: expect.stringContaining('SEALPOST_DATABASE_POOLER') })
    await expect(start({ SEALPOST_DATABASE_POOLER: 'session' })).rejects.toMatchObject({
      code: 'invalid_config',
      message: expect.stringContaining('to transaction'),
    })
    await expect(createStore({ connection: { connectionString: pooler.url }, log: silent })).rejects.toMatchObject({ code: 'unavailable' })
    const judged = async (url: string, env: Record<string, string> = {}) =>
      (await diagnose({ env: { SEALPOST_DATA: join(folder, 'off'), DATABASE_URL: url, ...env } })).find(
        ({ name }) => name === 'database-pooler',
      )
    expect(await judged(pooler.url)).toMatchObject({ is: 'fail' })
    expect(await judged(pooler.url, { SEALPOST_DATABASE_POOLER: 'transaction' })).toMatchObject({ is: 'ok' })
    expect(await judged(database.url)).toMatchObject({ is: 'ok', found: 'none' })
  })

  it('one that lends a server for a session is used as a direct connection, once that is said', async () => {
    const options: PgbouncerOptions = { database_url: database.url, pool_mode: 'session', ini: size(20) }
    await using lending = await startPgbouncer(options)
    await expect(openExternalDatabase(lending.url, silent, 0)).rejects.toMatchObject({ code: 'invalid_config' })
    const { connection, pooler: mode } = await openExternalDatabase(lending.url, silent, 0, undefined, 'session')
    const store = await createStore({ connection, pooler: mode, log: silent })
    const { user_no } = await createAccount(store)
    await openSession(store, user_no, 1)
    await store.close()
  })
})

/** As an embedded one, but for the primary that it waits for. */
async function startStandby(data_dir: string): Promise<{ host: string; stop(): Promise<void> }> {
  const [{ postgres }, account] = await Promise.all([findPostgres(), choosePostgresAccount()])
  await giveFolder(account, join(data_dir, 'postgres'))
  const host = join(data_dir, 'run')
  const settings = ['listen_addresses=', `unix_socket_directories=${host}`, 'fsync=off'].flatMap((setting) => ['-c', setting])
  const [command = '', ...rest] = [...account.prefix, postgres, '-D', join(data_dir, 'postgres'), ...settings]
  const child = spawn(command, rest, { ...account.ids, stdio: 'ignore' })
  const ended = once(child, 'exit')
  const stop = async (): Promise<void> => {
    child.kill('SIGINT')
    await ended
  }
  const isStandby = async (): Promise<boolean> => {
    const sql = new Client({ host, user: 'sealpost', database: 'postgres' })
    sql.on('error', () => {})
    try {
      await sql.connect()
      return (await sql.query<{ is: boolean }>('select pg_is_in_recovery() as is')).rows[0]?.is === true
    } finally {
      await sql.end().catch(() => {})
    }
  }
  try {
    await expect.poll(() => isStandby().catch(() => false), { timeout: 20_000 }).toBe(true)
  } catch (error) {
    await stop()
    throw error
  }
  return { host, stop }
}

/** The first 16 bytes behind length and flags. */
function eventIdOf(record: Uint8Array): string {
  const hex = Buffer.from(record.subarray(5, 21)).toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
