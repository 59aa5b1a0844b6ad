/**
 * What the store knows of an account and its devices, beside their events (protocol.md §10): lists for the account itself, and its
 * deletion. `last_activity` is derived: the last time any of its devices was seen.
 *
 * Isolation: read committed. Deletion takes the account row `for update` and deletes everything in one transaction; who waited
 * for the row finds no account (C5).
 */
import { createHash } from 'node:crypto'
import { fromBase64url } from '@sealpost/protocol'
import type { ClientBase, Pool } from 'pg'
import type { AccountStore, DeletedBy, DeviceSummary, UserSummary } from '../../ports/store.ts'
import { deviceName } from '../../audit/entry.ts'
import { appendAudit } from '../operators/audit-store.ts'
import { withClient, withTransaction } from '../postgres/pool.ts'
import { createTurns } from '../postgres/turns.ts'

/** Revoked devices stay in the log for ever; the newest of them are listed. */
const DEVICES_MAX = 1_000
/** For one statement: an account of many events takes its time. */
const DELETE_MS_MAX = 600_000
/** The server ends it first. */
const DELETE_ANSWER_MS = 5_000
/** Each holds a connection as long as it takes. */
const DELETIONS_MAX = 2
const DELETION_WAIT_MS = 10_000
const ALL = 0

const DEVICE = `select d.device_id, p.name, p.device_type, p.added_log_seq, p.revoked_log_seq, p.last_seen,
       d.active and is_online(d.session_id, d.session_node, p.follower_node) as online
  from device d join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no`

const LIST = {
  name: 'list_devices',
  text: `${DEVICE} where d.user_no = $1::int8 and (d.active or $2::bool) order by d.active desc, d.device_no desc limit ${DEVICES_MAX}`,
}

const READ = { name: 'read_device', text: `${DEVICE} where d.user_no = $1::int8 and d.device_id = $2::uuid` }

const LOG_HEAD = { name: 'read_log_head', text: 'select a.log_seq, a.log_head from account a where a.user_no = $1::int8' }

/**
 * Of events there is one row per position above the floor, not to be counted one by one: positions are given without a gap in the
 * transaction that inserts, what expires keeps its row as a tombstone, and what retention removes it removes as a prefix, which is
 * what the floor says.
 */
const USER = {
  name: 'read_user',
  text: `select a.user_id, a.created_at, a.log_seq, a.log_head, a.floor, h.last as head_position, h.bytes as stored_bytes, a.quota_bytes,
       (select max(p.last_seen) from device_profile p where p.user_no = a.user_no) as last_activity,
       (select count(*) from device d where d.user_no = a.user_no and d.active) as devices,
       (select count(*) from stream s where s.user_no = a.user_no) as streams,
       h.last - a.floor as events
  from account a join head h on h.user_no = a.user_no and h.stream_no = 0
 where a.user_no = $1::int8`,
}

const LOCK = { name: 'lock_account_to_delete', text: 'select a.user_no from account a where a.user_id = $1::bytea for update' }

const IS_ACTIVE = {
  name: 'is_device_active',
  text: 'select from device d where d.user_no = $1::int8 and d.device_id = $2::uuid and d.active',
}

/** In the order in which all who write to them take them. */
const LOCK_PROFILES = {
  name: 'lock_profiles_to_delete',
  text: 'select from device_profile p where p.user_no = $1::int8 order by p.device_no for update',
}

const REMEMBER = {
  name: 'remember_deleted',
  text: 'insert into deleted_account (user_id_hash, deleted_at) values ($1::bytea, clock_ms()) on conflict do nothing',
}

const OF_USER = 'where t.user_no = $1::int8'

/** Every other table that holds rows of an account, those that others refer to last. */
const TABLES: readonly (readonly [table: string, rows: string])[] = [
  ['head', OF_USER],
  ['stream', OF_USER],
  ['log_box', OF_USER],
  ['log_entry', OF_USER],
  ['pairing_slot', 'using pairing p where p.mailbox_id = t.mailbox_id and p.user_no = $1::int8'],
  ['pairing', OF_USER],
  ['refresh_family', OF_USER],
  ['device_profile', OF_USER],
  ['device', OF_USER],
  ['account', OF_USER],
]

export function createAccountStore(pool: Pool): AccountStore {
  const deletions = createTurns({ width: DELETIONS_MAX, wait_ms: DELETION_WAIT_MS })
  return {
    listDevices: (user_no, include_revoked) =>
      withClient(pool, async (client) =>
        (await client.query<DeviceSummary>({ ...LIST, values: [user_no, include_revoked] })).rows.reverse(),
      ),
    readDevice: (user_no, device_id) =>
      withClient(pool, async (client) => (await client.query<DeviceSummary>({ ...READ, values: [user_no, device_id] })).rows[0] ?? null),
    readLogHead: (user_no) =>
      withClient(
        pool,
        async (client) => (await client.query<{ log_seq: number; log_head: Buffer }>({ ...LOG_HEAD, values: [user_no] })).rows[0] ?? null,
      ),
    readUser: (user_no) =>
      withClient(pool, async (client) => (await client.query<UserSummary>({ ...USER, values: [user_no] })).rows[0] ?? null),
    deleteAccount: (user_id, device_id, by) =>
      deletions(ALL, () => withTransaction(pool, (client) => remove(client, user_id, device_id, by))),
  }
}

async function remove(
  client: ClientBase,
  user_id: string,
  device_id: string | null,
  by: DeletedBy | undefined,
): Promise<{ user_no: number; counts: Record<string, number> } | null> {
  const key = Buffer.from(fromBase64url(user_id, 32))
  await client.query(`set local statement_timeout = ${DELETE_MS_MAX}`)
  const user_no = (await client.query<{ user_no: number }>({ ...LOCK, values: [key] })).rows[0]?.user_no
  if (user_no === undefined) return null
  if (device_id !== null && (await client.query({ ...IS_ACTIVE, values: [user_no, device_id] })).rowCount === 0) return null
  // what takes long comes before the profiles are locked: one statement of others writes to those of many accounts
  const counts: Record<string, number> = { event: await deleteRows(client, 'event', OF_USER, user_no) }
  await client.query({ ...LOCK_PROFILES, values: [user_no] })
  for (const [table, rows] of TABLES) counts[table] = await deleteRows(client, table, rows, user_no)
  await client.query({ ...REMEMBER, values: [createHash('sha256').update(key).digest()] })
  const actor = by?.actor ?? (device_id === null ? 'root' : deviceName(device_id))
  await appendAudit(client, { actor, action: 'account_deleted', outcome: 'done', user_id, origin: by?.origin ?? null, detail: counts })
  return { user_no, counts }
}

async function deleteRows(client: ClientBase, table: string, rows: string, user_no: number): Promise<number> {
  // by default the driver gives a statement up after 10 s, whatever the server was told
  const query_timeout = DELETE_MS_MAX + DELETE_ANSWER_MS
  const query = { name: `delete_account_${table}`, text: `delete from ${table} t ${rows}`, values: [user_no], query_timeout }
  return (await client.query(query)).rowCount ?? 0
}
