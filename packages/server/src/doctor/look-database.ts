/**
 * Looks at the database as a new connection of the relay finds it, and changes nothing: every statement is in a read-only transaction of
 * its own. Nothing is set for the session, because a pooler would hand it on to others.
 */
import { Socket } from 'node:net'
import type { Bytes } from '@sealpost/protocol'
import { Client, type ClientConfig, DatabaseError } from 'pg'
import { isLoopback } from '@sealpost/protocol'
import type { Config } from '../config/config.ts'
import { findRunningPostgres } from '../store/postgres/embedded-postgres.ts'
import { isPooled } from '../store/postgres/pool.ts'
import { explainRefusal } from '../store/postgres/refusals.ts'
import { SIGNUP } from '../config/variables.ts'
import {
  type Database,
  type OwnTables,
  type ReachedDatabase,
  type Role,
  type Seen,
  type Setting,
  SETTING_NAMES,
  type SettingName,
} from './facts.ts'

const PINGS = 3

const CLOCK = 'select (extract(epoch from clock_timestamp()) * 1000)::float8 as now'

const SERVER = `select current_setting('server_version_num')::int4 / 10000 as version, current_setting('server_encoding') as encoding,
  pg_is_in_recovery() as replica, pg_backend_pid() as pid, (select s.version from pg_stat_ssl s where s.pid = pg_backend_pid() and s.ssl) as server_tls`

const TABLES = `select to_regclass('sealpost_migration') is not null as migrations, to_regclass('sealpost_function') is not null as functions, to_regclass('server_meta') is not null as meta,
  to_regclass('admin') is not null as admins, to_regclass('audit_head') is not null as audit, to_regclass('setting') is not null as settings`

// reset_val: what a session begins with
const SETTINGS = `select s.name, s.reset_val as value, s.source from pg_settings s where s.name in ('${SETTING_NAMES.join("', '")}')`

const ROLE = `select r.rolsuper as superuser, r.rolconnlimit as role_connections, d.datconnlimit as database_connections,
  (select count(*) from pg_stat_activity a where a.datid is not null and (a.usesysid, a.datid) is distinct from (r.oid, d.oid))::int4
    as other_connections,
  coalesce(has_schema_privilege(current_schema(), 'create'), false) as may_create,
  has_table_privilege(to_regclass('event'), 'select') and has_table_privilege(to_regclass('event'), 'insert')
    and has_table_privilege(to_regclass('event'), 'update') and has_table_privilege(to_regclass('event'), 'delete') as may_write
  from pg_roles r, pg_database d where r.rolname = current_user and d.datname = current_database()`

const AGES = `select
  (select coalesce(max(extract(epoch from clock_timestamp() - a.xact_start)), 0) from pg_stat_activity a
    where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend')::float8 as oldest_transaction_s,
  (select count(*) from pg_prepared_xacts p where p.database = current_database())::int4 as prepared,
  (select coalesce(max(extract(epoch from clock_timestamp() - p.prepared)), 0) from pg_prepared_xacts p
    where p.database = current_database())::float8 as prepared_s`

const OWNERS = `select count(*)::int4 as owners from admin a where a.role = 'owner' and a.removed_at is null`

// after retention no row may be left, but the checkpoint behind them
const AUDIT = `select exists (select from audit_head h where (h.seq, h.hash) = (select a.seq, a.hash from audit a order by a.seq desc limit 1)
  or not exists (select from audit) and (h.seq = 0 or exists (select from audit_checkpoint c where (c.seq, c.hash) = (h.seq, h.hash)))) as whole`

type Ask = <T extends object>(sql: string) => Promise<T[]>

export async function lookAtDatabase({ database_url, data_dir }: Config, now: () => number, signal: AbortSignal): Promise<Database> {
  const external = database_url !== null
  const connection: ClientConfig | null = database_url !== null ? { connectionString: database_url } : await findRunningPostgres(data_dir)
  if (connection === null) return { is: 'asleep' }
  // a socket of our own: the driver cannot give up an attempt to connect, and does not tell where it leads
  const socket = new Socket()
  const abort = (): void => void socket.destroy(new Error('no answer in time'))
  signal.addEventListener('abort', abort)
  let client: Client | undefined
  try {
    client = new Client({ ...connection, application_name: 'sealpost doctor', stream: () => socket })
    client.on('error', () => {})
    await client.connect()
    return { is: 'reached', external, link: linkOf(socket.remoteAddress, client.ssl), ...(await readAll(client, now)) }
  } catch (error) {
    const { says, advice } = explainRefusal(error)
    return { is: 'unreachable', external, reason: says, advice }
  } finally {
    signal.removeEventListener('abort', abort)
    // who does not answer is told nothing
    if (!signal.aborted) await client?.end().catch(() => {})
    socket.destroy()
  }
}

/** A Unix socket has no address. `ssl`: what the driver was told; with it, it refuses a server without TLS. */
export function linkOf(remoteAddress: string | undefined, ssl: unknown): ReachedDatabase['link'] {
  const over = remoteAddress === undefined ? 'socket' : isLoopback(remoteAddress) ? 'loopback' : 'network'
  if (ssl === false) return { over, tls: 'none' }
  return { over, tls: (ssl as { rejectUnauthorized?: boolean }).rejectUnauthorized === false ? 'unverified' : 'verified' }
}

function askWith(client: Client): Ask {
  return async <T extends object>(sql: string): Promise<T[]> => {
    // pg answers several statements in one text with a list
    const results = (await client.query(`begin read only; ${sql}; commit`)) as unknown as { rows: T[] }[]
    return results[1]?.rows ?? []
  }
}

async function readAll(client: Client, now: () => number): Promise<Omit<ReachedDatabase, 'external' | 'link'>> {
  const ask = askWith(client)
  const clock = await compareClocks(ask, now)
  const { pid, ...server } = await one<Pick<ReachedDatabase, 'version' | 'encoding' | 'replica' | 'server_tls'> & { pid: number }>(
    ask,
    SERVER,
  )
  const settings = await ask<Setting & { name: SettingName }>(SETTINGS)
  const role = await one<Role>(ask, ROLE)
  const ages = await one<{ oldest_transaction_s: number; prepared: number; prepared_s: number }>(ask, AGES)
  return {
    ...clock,
    ...server,
    pooled: isPooled(client, pid),
    settings: Object.fromEntries(settings.map(({ name, value, source }) => [name, { value, source }])) as ReachedDatabase['settings'],
    role,
    oldest_transaction_s: ages.oldest_transaction_s,
    prepared: { count: ages.prepared, oldest_s: ages.prepared_s },
    own: await readOwn(ask),
  }
}

async function readOwn(ask: Ask): Promise<Seen<OwnTables>> {
  const has = await one<Record<'migrations' | 'functions' | 'meta' | 'admins' | 'audit' | 'settings', boolean>>(ask, TABLES)
  try {
    const migrations = has.migrations ? await ask<{ version: number }>('select m.version from sealpost_migration m') : []
    const meta = has.meta ? await ask<{ server_key_hash: Bytes | null }>('select m.server_key_hash from server_meta m') : []
    const set = has.settings ? await ask<{ value: string }>(`select s.value from setting s where s.name = 'signup'`) : []
    const seen: OwnTables = {
      migrations: migrations.map(({ version }) => version),
      functions: has.functions
        ? await ask<OwnTables['functions'][number]>('select f.name, f.sha256, f.version from sealpost_function f')
        : [],
      server_key_hash: meta[0]?.server_key_hash ?? null,
      owners: has.admins ? (await one<{ owners: number }>(ask, OWNERS)).owners : null,
      audit: has.audit ? ((await one<{ whole: boolean }>(ask, AUDIT)).whole ? 'whole' : 'broken') : null,
      signup: SIGNUP.find((known) => JSON.stringify(known) === set[0]?.value) ?? null,
    }
    return { seen }
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error
    const reason = error.code === '42501' ? 'this user may not' : `error ${error.code}`
    return { unseen: `the tables of the relay were not read: ${reason}` }
  }
}

async function one<T extends object>(ask: Ask, sql: string): Promise<T> {
  const [row] = await ask<T>(sql)
  if (row === undefined) throw new TypeError('the statement answers one row')
  return row
}

async function compareClocks(ask: Ask, now: () => number): Promise<{ round_trip_ms: number; clock_ahead_ms: number }> {
  let best = { round_trip_ms: Number.POSITIVE_INFINITY, clock_ahead_ms: 0 }
  for (let i = 0; i < PINGS; i++) {
    const [at, began] = [now(), performance.now()]
    const { now: there } = await one<{ now: number }>(ask, CLOCK)
    const round_trip_ms = performance.now() - began
    if (round_trip_ms < best.round_trip_ms) best = { round_trip_ms, clock_ahead_ms: there - at - round_trip_ms / 2 }
  }
  return best
}
