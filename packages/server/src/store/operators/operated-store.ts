/**
 * Accounts as an operator sees and steers them (docs/operations/admin.md): figures and states, no payload, no log entry. What is decided here
 * ends the fence of the sessions that it concerns, by which every node notices (protocol.md §6).
 *
 * Isolation: read committed. Locks: the account row, then device rows.
 */
import { fromBase64url, toBase64url } from '@sealpost/protocol'
import type { Pool } from 'pg'
import type { DatabaseFigures, Figures, OperatedDevice, OperatedStore, OperatedUser } from '../../ports/store.ts'
import { withClient, withTransaction } from '../postgres/pool.ts'

/** Events: as `read_user` of the account has them. */
const USER = `a.user_no, a.user_id, a.created_at, a.suspended_at, a.log_seq, a.floor, a.quota_bytes, a.quota_streams, a.quota_devices,
       coalesce(h.last, 0) as head_position, coalesce(h.last, 0) - a.floor as events, coalesce(h.bytes, 0) as stored_bytes,
       (select max(p.last_seen) from device_profile p where p.user_no = a.user_no) as last_activity,
       (select count(*) from device d where d.user_no = a.user_no and d.active) as devices
  from account a left join head h on h.user_no = a.user_no and h.stream_no = 0`

const LIST = {
  name: 'list_operated_users',
  text: `select ${USER} where a.user_no > $1::int8 and ($2::bool is null or (a.suspended_at is not null) = $2::bool) order by a.user_no limit $3::int4`,
}
const READ = { name: 'read_operated_user', text: `select ${USER} where a.user_id = $1::bytea` }

const DEVICES = {
  name: 'list_operated_devices',
  text: `select d.device_id, p.name, p.device_type, d.active, p.suspended_at, p.revoked_log_seq, p.last_seen, d.session_id is not null as has_session
  from account a join device d on d.user_no = a.user_no
  join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where a.user_id = $1::bytea order by d.device_no limit 1000`,
}

const LOCK = {
  name: 'lock_operated_user',
  text: 'select a.user_no, a.suspended_at from account a where a.user_id = $1::bytea for no key update',
}

const SUSPEND_USER = {
  name: 'suspend_user',
  text: `update account set active = $2::bool, suspended_at = case when $2::bool then null else coalesce(suspended_at, clock_ms()) end
 where user_no = $1::int8`,
}

/** Nobody writes under a session from before. */
const CLEAR_SESSIONS = {
  name: 'clear_sessions',
  text: 'update device set session_id = null where user_no = $1::int8 and ($2::uuid is null or device_id = $2::uuid)',
}

const SUSPEND_DEVICE = {
  name: 'suspend_device',
  text: `with found as (
    select p.device_no, p.revoked_log_seq from device d join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
     where d.user_no = $1::int8 and d.device_id = $2::uuid for no key update of d),
  changed as (
    update device d set active = $3::bool from found f where d.user_no = $1::int8 and d.device_no = f.device_no and f.revoked_log_seq is null),
  noted as (
    update device_profile p set suspended_at = case when $3::bool then null else coalesce(p.suspended_at, clock_ms()) end
      from found f where p.user_no = $1::int8 and p.device_no = f.device_no and f.revoked_log_seq is null)
  select f.revoked_log_seq from found f`,
}

/** Rows are locked in the order of touches, which take no row of the account. */
const END_TOKENS = {
  name: 'end_tokens',
  text: `with locked as materialized (
    select p.user_no, p.device_no from device_profile p join device d on d.user_no = p.user_no and d.device_no = p.device_no
     where p.user_no = $1::int8 and ($2::uuid is null or d.device_id = $2::uuid)
     order by p.user_no, p.device_no for no key update of p)
  update device_profile p set token_version = p.token_version + 1 from locked l where p.user_no = l.user_no and p.device_no = l.device_no`,
}

const DEVICE_IDS = {
  name: 'ids_of_devices',
  text: 'select d.device_id from device d where d.user_no = $1::int8 and ($2::uuid is null or d.device_id = $2::uuid) order by d.device_no',
}

const SET_QUOTA = {
  name: 'set_user_quota',
  text: 'update account set quota_bytes = $2::int8, quota_streams = $3::int4, quota_devices = $4::int4 where user_no = $1::int8',
}

/** Estimates of the planner where a count would read everything. */
const FIGURES = {
  name: 'read_figures',
  text: `select (select greatest(c.reltuples, 0)::int8 from pg_class c where c.oid = 'account'::regclass) as accounts,
       (select count(*) from account a where a.suspended_at is not null) as suspended,
       (select greatest(c.reltuples, 0)::int8 from pg_class c where c.oid = 'device'::regclass) as devices,
       (select greatest(c.reltuples, 0)::int8 from pg_class c where c.oid = 'event'::regclass) as events,
       pg_database_size(current_database()) as database_bytes`,
}

const DATABASE = {
  name: 'read_database',
  text: `select current_setting('server_version') as version, pg_database_size(current_database()) as bytes,
       current_setting('fsync') as fsync, current_setting('synchronous_commit') as synchronous_commit,
       current_setting('full_page_writes') as full_page_writes, current_setting('max_connections')::int4 as connections_max,
       (select count(*)::int4 from pg_stat_activity s where s.datname = current_database()) as connections,
       (select max(f.version) from sealpost_function f) as schema_version`,
}

export function createOperatedStore(pool: Pool): OperatedStore {
  const keyOf = (user_id: string): Buffer => Buffer.from(fromBase64url(user_id, 32))
  const toUser = ({ user_id, ...rest }: Omit<OperatedUser, 'user_id'> & { user_id: Buffer }): OperatedUser => ({
    user_id: toBase64url(user_id),
    ...rest,
  })
  type UserRow = Omit<OperatedUser, 'user_id'> & { user_id: Buffer }

  return {
    listUsers: (after, suspended, limit) =>
      withClient(pool, async (client) => (await client.query<UserRow>({ ...LIST, values: [after, suspended, limit] })).rows.map(toUser)),
    readOperatedUser: (user_id) =>
      withClient(pool, async (client) => {
        const row = (await client.query<UserRow>({ ...READ, values: [keyOf(user_id)] })).rows[0]
        return row === undefined ? null : toUser(row)
      }),
    listOperatedDevices: (user_id) =>
      withClient(pool, async (client) => (await client.query<OperatedDevice>({ ...DEVICES, values: [keyOf(user_id)] })).rows),
    suspendUser: (user_id, suspended) =>
      withTransaction(pool, async (client) => {
        const row = (await client.query<{ user_no: number }>({ ...LOCK, values: [keyOf(user_id)] })).rows[0]
        if (row === undefined) return null
        await client.query({ ...SUSPEND_USER, values: [row.user_no, !suspended] })
        if (suspended) await client.query({ ...CLEAR_SESSIONS, values: [row.user_no, null] })
        const { rows } = await client.query<{ device_id: string }>({ ...DEVICE_IDS, values: [row.user_no, null] })
        return { user_no: row.user_no, device_ids: rows.map(({ device_id }) => device_id) }
      }),
    suspendDevice: (user_id, device_id, suspended) =>
      withTransaction(pool, async (client) => {
        const row = (await client.query<{ user_no: number }>({ ...LOCK, values: [keyOf(user_id)] })).rows[0]
        if (row === undefined) return null
        const { rows } = await client.query<{ revoked_log_seq: number | null }>({
          ...SUSPEND_DEVICE,
          values: [row.user_no, device_id, !suspended],
        })
        // what was revoked by the account's own devices is no operator's any more
        if (rows[0] === undefined || rows[0].revoked_log_seq !== null) return null
        if (suspended) await client.query({ ...CLEAR_SESSIONS, values: [row.user_no, device_id] })
        return { user_no: row.user_no, device_ids: [device_id] }
      }),
    endSessions: (user_id, device_id) =>
      withTransaction(pool, async (client) => {
        const row = (await client.query<{ user_no: number }>({ ...LOCK, values: [keyOf(user_id)] })).rows[0]
        if (row === undefined) return null
        const values = [row.user_no, device_id]
        const { rows } = await client.query<{ device_id: string }>({ ...DEVICE_IDS, values })
        if (rows.length === 0) return null
        await client.query({ ...CLEAR_SESSIONS, values })
        await client.query({ ...END_TOKENS, values })
        return { user_no: row.user_no, device_ids: rows.map((device) => device.device_id) }
      }),
    setUserQuota: (user_id, { bytes, streams, devices }) =>
      withTransaction(pool, async (client) => {
        const row = (await client.query<{ user_no: number }>({ ...LOCK, values: [keyOf(user_id)] })).rows[0]
        if (row === undefined) return false
        await client.query({ ...SET_QUOTA, values: [row.user_no, bytes, streams, devices] })
        return true
      }),
    readFigures: () =>
      withClient(pool, async (client) => {
        const row = (await client.query<Figures>(FIGURES)).rows[0]
        if (row === undefined) throw new TypeError('figures are one row')
        return row
      }),
    readDatabaseFigures: () =>
      withClient(pool, async (client) => {
        const row = (await client.query<DatabaseFigures>(DATABASE)).rows[0]
        if (row === undefined) throw new TypeError('the figures of the database are one row')
        return row
      }),
  }
}
