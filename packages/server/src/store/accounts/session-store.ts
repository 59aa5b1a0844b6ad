/**
 * Devices and their sessions (protocol.md §4). The fence: `device.session_id` is written under the account's row lock,
 * in the transaction that reads the numbers of `session_established`; an ingest batch of any other session finds its runs
 * fenced. `last_seen` is written when a session ends and in coalesced touches, not per event.
 *
 * Isolation: read committed. Locks: the account row, then the device row.
 */
import { type Bytes, bytesToUuid, type Cursor, fromBase64url, LIMITS, toBase64url, uuidToBytes } from '@sealpost/protocol'
import type { ClientBase, Pool } from 'pg'
import type { Log } from '../../telemetry/log.ts'
import type {
  DeviceRow,
  Established,
  EstablishRequest,
  EstablishResult,
  PresenceRow,
  Reader,
  SessionStore,
  StoredLogEntry,
} from '../../ports/store.ts'
import { int4Array, int8Array } from '../postgres/binary-array.ts'
import { inTurn, type Pools, withClient } from '../postgres/pool.ts'
import { readLogEntries } from '../log/read-log.ts'

/** A claim never brings the numbers of a device near to 2^53, where the next one would not be a number any more. */
const CLAIMED_SEQ_MAX = 2 ** 52
/** Entries told at once with `session_established`; what is missing above them is told in pages. */
const ENTRIES_MAX = 200
const ENTRY_BYTES_MAX = LIMITS.frameBytesMax / 2

const FIND = {
  name: 'find_device',
  text: `select d.user_no, d.device_no, p.sign_pub, a.active and d.active as active, p.revoked_log_seq, a.active as account_active, d.session_id, p.token_version
  from account a
  join device d on d.user_no = a.user_no and d.device_id = $2::uuid
  join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where a.user_id = $1::bytea`,
}

const ESTABLISH = {
  name: 'establish_session',
  text: `select s.outcome, s.log_seq, s.log_head, s.head_position, s.floor, s.stored_seq, s.cursor_state
  from establish_session($1::int8, $2::int4, $3::uuid, $4::int4, $5::int8, $6::bytea, $7::int8, $8::int8) s`,
}

/** The outcomes and the cursor's state as `establish_session` has them, of one snapshot and without a fence. 5: the token was ended. */
const JUDGE = {
  name: 'judge_cursor',
  text: `select case when not a.active then 2 when d.device_no is null then 3 when not d.active then 4
            when p.token_version <> $6::int4 then 5 else 0 end as outcome,
       a.log_seq, a.log_head, coalesce(h.last, 0) as head_position, a.floor, coalesce(d.last_seq, 0) as stored_seq,
       case when $3::int8 = 0 then 0
            when e.position is null then case when $3::int8 <= a.floor then 1 else 2 end
            when substring(e.record from 1 for 16) is distinct from $4::bytea or e.received_at is distinct from $5::int8 then 2
            else 0 end as cursor_state
  from account a
  left join device d on d.user_no = a.user_no and d.device_no = $2::int4
  left join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
  left join head h on h.user_no = a.user_no and h.stream_no = 0
  left join event e on e.user_no = a.user_no and e.position = $3::int8
 where a.user_no = $1::int8`,
}

const END = { name: 'end_session', text: 'select end_session($1::int8, $2::int4, $3::uuid, $4::int8) as offline' }

const IS_REVOKED = {
  name: 'is_revoked',
  text: 'select p.revoked_log_seq is not null as revoked from device_profile p where p.user_no = $1::int8 and p.device_no = $2::int4',
}

const PRESENCE = {
  name: 'read_presence',
  text: `select d.device_id, d.active and is_online(d.session_id, d.session_node, p.follower_node) as online, p.last_seen,
       p.suspended_at is not null as suspended
  from device d join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where d.user_no = $1::int8 and p.revoked_log_seq is null order by d.device_no`,
}

const ONLINE = {
  name: 'read_online',
  text: `with live as materialized (select n.node_no from node n where n.lease_until > clock_ms())
  select d.user_no, d.device_id from unnest($1::int8[]) u (user_no)
  join device d on d.user_no = u.user_no and d.active
  join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where (d.session_id is not null and d.session_node in (select node_no from live)) or p.follower_node in (select node_no from live)
 order by d.user_no, d.device_no`,
}

/** Another node may have taken its place meanwhile. */
const SET_FOLLOWER = {
  name: 'set_follower',
  text: `update device_profile p set follower_node = case when $4::bool then $3::int4 end
  from device d
 where p.user_no = $1::int8 and p.device_no = $2::int4 and d.user_no = p.user_no and d.device_no = p.device_no
   and ($4::bool or p.follower_node = $3::int4)
 returning not (d.active and is_online(d.session_id, d.session_node, p.follower_node)) as offline`,
}

/** Rows are locked in one order, so that two nodes that touch the same devices wait and do not deadlock. */
const TOUCH = {
  name: 'touch_devices',
  text: `with locked as materialized (
    select p.user_no, p.device_no, t.position, nullif(t.follower_node, 0) as follower_node
      from unnest($1::int8[], $2::int4[], $3::int8[], $4::int4[]) t (user_no, device_no, position, follower_node)
      join device_profile p on p.user_no = t.user_no and p.device_no = t.device_no
     order by p.user_no, p.device_no for no key update of p)
  update device_profile p set last_seen = clock_ms(), seen_position = greatest(p.seen_position, l.position),
         follower_node = coalesce(l.follower_node, p.follower_node)
    from locked l where p.user_no = l.user_no and p.device_no = l.device_no`,
}

type Offline = { offline: boolean }

type EstablishedRow = {
  outcome: number
  log_seq: number
  log_head: Bytes
  head_position: number
  floor: number
  stored_seq: number
  cursor_state: number
}

export function createSessionStore(pools: Pools, log: Log): SessionStore {
  const pool: Pool = pools.main

  async function establishSession(request: EstablishRequest): Promise<EstablishResult> {
    const claimed = Math.min(request.last_device_seq, CLAIMED_SEQ_MAX)
    const { cursor, user_no, device_no } = request
    const event = cursor.event_id === null ? null : Buffer.from(uuidToBytes(cursor.event_id))
    const values = [user_no, device_no, request.session_id, request.node_no, cursor.position, event, cursor.received_at, claimed]
    const establish = async (client: ClientBase): Promise<{ row: EstablishedRow; history_id: string }> => {
      // one statement, so one transaction
      const first = (await client.query<EstablishedRow>({ ...ESTABLISH, values })).rows[0]
      if (first === undefined) throw new TypeError('establish_session answers one row')
      return { row: first, history_id: pools.historyOf(client) }
    }
    const { row, history_id } = await inTurn(pool, user_no, () => withClient(pool, establish))
    if (row.outcome !== 0) return { ok: false, code: await refusalOf(row.outcome, user_no, device_no) }
    const entries = await readEntriesUpTo(user_no, device_no, request.log_seq ?? -1, row.log_seq)
    const surplus = claimed > row.stored_seq
    const acked_event_missing = surplus && cursor.history_id === history_id
    if (acked_event_missing)
      log.error(
        { code: 'acked_event_missing', user_no, device_no, claimed, stored: row.stored_seq },
        'a device knows acks of events that are not stored',
      )
    else if (surplus && cursor.history_id === null)
      log.warn(
        { code: 'acked_event_missing', user_no, device_no, claimed, stored: row.stored_seq },
        'a device knows acks of events that are not stored, and does not say of which history',
      )
    return {
      ok: true,
      established: {
        log_seq: row.log_seq,
        log_head: row.log_head,
        history_id,
        head_position: row.head_position,
        floor: row.floor,
        last_device_seq: Math.max(row.stored_seq, claimed),
        acked_event_missing,
        ...judge(cursor, row, history_id),
        entries,
      },
    }
  }

  /** After the commit: entries do not change, and whoever waits for the account need not wait for the reading. */
  async function readEntriesUpTo(user_no: number, device_no: number, known: number, log_seq: number): Promise<StoredLogEntry[]> {
    if (log_seq <= known) return []
    const read = await withClient(pool, (client) => readLogEntries(client, user_no, device_no, known + 1, ENTRIES_MAX, ENTRY_BYTES_MAX))
    return read.entries.filter((entry) => entry.log_seq <= log_seq)
  }

  async function judgeCursor({ user_no, device_no, token_version }: Reader, cursor: Cursor): Promise<EstablishResult> {
    const event = cursor.event_id === null ? null : Buffer.from(uuidToBytes(cursor.event_id))
    const values = [user_no, device_no, cursor.position, event, cursor.received_at, token_version]
    const { row, history_id } = await withClient(pool, async (client) => {
      const { rows } = await client.query<EstablishedRow>({ ...JUDGE, values })
      return { row: rows[0], history_id: pools.historyOf(client) }
    })
    if (row === undefined) return { ok: false, code: 'account_gone' }
    if (row.outcome !== 0) return { ok: false, code: await refusalOf(row.outcome, user_no, device_no) }
    const { log_seq, log_head, head_position, floor, stored_seq: last_device_seq } = row
    const numbers = { log_seq, log_head, history_id, head_position, floor, last_device_seq, acked_event_missing: false }
    return { ok: true, established: { ...numbers, ...judge(cursor, row, history_id), entries: [] } }
  }

  /** A device that is not active was revoked by its account, or suspended by an operator. */
  async function refusalOf(outcome: number, user_no: number, device_no: number): Promise<Extract<EstablishResult, { ok: false }>['code']> {
    if (outcome === 1) return 'account_gone'
    if (outcome === 2) return 'suspended'
    if (outcome === 5) return 'reauthenticate'
    if (outcome !== 4) return 'auth_failed'
    const values = [user_no, device_no]
    const { rows } = await withClient(pool, (client) => client.query<{ revoked: boolean }>({ ...IS_REVOKED, values }))
    return rows[0]?.revoked === false ? 'suspended' : 'device_revoked'
  }

  return {
    establishSession,
    judgeCursor,
    async findDevice(user_id, device_id) {
      const values = [Buffer.from(fromBase64url(user_id, 32)), bytesToUuid(uuidToBytes(device_id))]
      const { rows } = await withClient(pool, (client) => client.query<Omit<DeviceRow, 'user_id' | 'device_id'>>({ ...FIND, values }))
      return rows[0] === undefined ? null : { ...rows[0], user_id: toBase64url(fromBase64url(user_id, 32)), device_id }
    },
    async endSession(user_no, device_no, session_id, seen) {
      const values = [user_no, device_no, session_id, seen.position]
      const { rows } = await inTurn(pool, user_no, () => withClient(pool, (client) => client.query<Offline>({ ...END, values })))
      return rows[0]?.offline === true
    },
    async setFollower({ user_no, device_no }, node_no, follows) {
      const values = [user_no, device_no, node_no, follows]
      // of two streams that begin and end together, the last word is written last
      const { rows } = await inTurn(pool, user_no, () => withClient(pool, (client) => client.query<Offline>({ ...SET_FOLLOWER, values })))
      return rows[0]?.offline === true
    },
    async readPresence(user_no) {
      const { rows } = await withClient(pool, (client) => client.query<PresenceRow>({ ...PRESENCE, values: [user_no] }))
      return rows
    },
    async readOnline(user_nos) {
      const online = new Map<number, string[]>()
      if (user_nos.length === 0) return online
      type Row = { user_no: number; device_id: string }
      const { rows } = await withClient(pool, (client) =>
        client.query<Row>({ ...ONLINE, values: [int8Array([...user_nos].sort((a, b) => a - b))] }),
      )
      for (const { user_no, device_id } of rows) {
        const devices = online.get(user_no)
        if (devices === undefined) online.set(user_no, [device_id])
        else devices.push(device_id)
      }
      return online
    },
    async touchDevices(rows) {
      if (rows.length === 0) return
      const values = [
        int8Array(rows.map((row) => row.user_no)),
        int4Array(rows.map((row) => row.device_no)),
        int8Array(rows.map((row) => row.position)),
        int4Array(rows.map((row) => row.follower_node ?? 0)),
      ]
      await withClient(pool, (client) => client.query({ ...TOUCH, values }))
    },
  }
}

/** protocol.md §1: the entry itself decides; where retention took it, the history does; otherwise `reset`. */
function judge(cursor: Cursor, row: EstablishedRow, history_id: string): Pick<Established, 'mode' | 'reset_reason'> {
  const sameHistory = cursor.history_id === history_id
  const holds = row.cursor_state === 0 || (row.cursor_state === 1 && sameHistory)
  if (!holds) return { mode: 'reset', reset_reason: sameHistory ? 'cursor_unknown' : 'history_changed' }
  return { mode: cursor.position === row.head_position ? 'live' : 'replay', reset_reason: null }
}
