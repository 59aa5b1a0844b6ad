/**
 * Everything that is held about an account, row by row (B08, docs/export.md). Read in pages by key up to where the account stood at
 * the beginning; between two pages no connection and no snapshot is held, so a slow reader costs nothing. Rows that retention
 * takes meanwhile are not there; an account that is deleted meanwhile breaks the export off.
 */
import { decodeRecords, type EventJson, FLAG, recordToJson, SealpostError, toBase64url, writeRecord } from '@sealpost/protocol'
import type { Pool } from 'pg'
import type { ExportRow, ExportStore, ReadStore, StoredEvent, UserSummary } from '../../ports/store.ts'
import { withClient } from '../postgres/pool.ts'

const PAGE_ROWS = 500
const PAGE_BYTES = 1_048_576
const RECORD_ROOM = 64
const LOG_PAGE = 20

/** What an operator decided, and what is ruled for this account alone. */
const ACCOUNT = {
  name: 'export_account',
  text: 'select a.suspended_at, a.quota_bytes, a.quota_streams, a.quota_devices from account a where a.user_no = $1::int8',
}

const DEVICES = {
  name: 'export_devices',
  text: `select d.device_id, p.name, p.device_type, p.sign_pub, p.added_log_seq, p.revoked_log_seq, p.suspended_at, p.cleared_at, p.last_seen, p.seen_position,
       d.last_seq as last_device_seq, d.swept_seq as swept_device_seq, d.session_id is not null as has_session, p.token_version, d.device_no
  from device d join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where d.user_no = $1::int8 and d.device_no > $2::int4 order by d.device_no limit ${PAGE_ROWS}`,
}

const ENTRIES = {
  name: 'export_log',
  text: `select e.log_seq, e.stored_at, e.body, e.sig,
       (select json_object_agg(coalesce(d.device_id::text, 'root'), encode(b.box, 'base64'))
          from log_box b left join device d on d.user_no = b.user_no and d.device_no = b.recipient
         where b.user_no = e.user_no and b.log_seq = e.log_seq) as boxes
  from log_entry e where e.user_no = $1::int8 and e.log_seq > $2::int8 order by e.log_seq limit ${LOG_PAGE}`,
}

const STREAMS = {
  name: 'export_streams',
  text: `select s.stream_no, s.stream_id, coalesce(h.last, 0) as stream_seq, coalesce(h.bytes, 0) as stored_bytes, coalesce(h.swept, 0) as swept_position
  from stream s left join head h on h.user_no = s.user_no and h.stream_no = s.stream_no
 where s.user_no = $1::int8 and s.stream_no > $2::int4 order by s.stream_no limit ${PAGE_ROWS}`,
}

const FAMILIES = {
  name: 'export_refresh_families',
  text: `select f.device_no, d.device_id, f.family_id, f.generation, f.created_at, f.rotated_at, f.expires_at
  from refresh_family f join device d on d.user_no = f.user_no and d.device_no = f.device_no
 where f.user_no = $1::int8 and f.device_no > $2::int4 order by f.device_no limit ${PAGE_ROWS}`,
}

const PAIRINGS = {
  name: 'export_pairings',
  text: `select p.mailbox_id, d.device_id, p.expires_at, s.slot, s.box
  from pairing p left join device d on d.user_no = p.user_no and d.device_no = p.device_no
  left join pairing_slot s on s.mailbox_id = p.mailbox_id
 where p.user_no = $1::int8 and (p.mailbox_id, coalesce(s.slot, '')) > ($2::text, $3::text)
 order by p.mailbox_id, coalesce(s.slot, '') limit ${PAGE_ROWS}`,
}

/** Rows about the account in the audit log, where it stands as a hash. */
const AUDIT = {
  name: 'export_audit',
  text: `select a.seq, a.at, a.actor, a.action, a.outcome, a.target, a.request_id, a.address, a.detail
  from audit a where a.user_hash = (select sha256(u.user_id) from account u where u.user_no = $1::int8) and a.seq > $2::int8
 order by a.seq limit ${PAGE_ROWS}`,
}

type Query = { name: string; text: string }
type Key = (number | string)[]
type DeviceNoRow = { device_no: number; [name: string]: unknown }
type DeviceRow = DeviceNoRow & { sign_pub: Buffer }
type StreamRow = { stream_no: number; [name: string]: unknown }
type AuditedRow = { seq: number; [name: string]: unknown }
type PairingRow = { mailbox_id: string; slot: string | null; box: Buffer | null; [name: string]: unknown }
type EntryRow = { log_seq: number; stored_at: number; body: Buffer; sig: Buffer; boxes: Record<string, string> | null }

export function createExportStore(pool: Pool, pages: Pick<ReadStore, 'readPage'>): ExportStore {
  const read = <R extends object>(query: Query, ...values: Key): Promise<R[]> =>
    withClient(pool, async (client) => (await client.query<R>({ ...query, values })).rows)

  /** Page by page, each from behind the key of the last row on. */
  async function* readAll<R extends object>(query: Query, user_no: number, first: Key, keyOf: (row: R) => Key): AsyncGenerator<R> {
    for (let after = first; ; ) {
      const rows = await read<R>(query, user_no, ...after)
      yield* rows
      const last = rows.at(-1)
      if (last === undefined || rows.length < PAGE_ROWS) return
      after = keyOf(last)
    }
  }

  return {
    async *exportRows(user_no, user: UserSummary) {
      const user_id = toBase64url(user.user_id)
      const { log_seq, head_position } = user
      const decided = (await read<object>(ACCOUNT, user_no))[0]
      if (decided === undefined) throw gone()
      yield {
        kind: 'account',
        created_at: user.created_at,
        last_activity: user.last_activity,
        log_seq,
        log_head: toBase64url(user.log_head),
        floor: user.floor,
        head_position,
        stored_bytes: user.stored_bytes,
        ...decided,
      }
      for await (const row of readAll<DeviceRow>(DEVICES, user_no, [0], (device) => [device.device_no])) {
        const { device_no: _, sign_pub, ...shown } = row
        yield { kind: 'device', ...shown, sign_pub: toBase64url(sign_pub) }
      }
      for (let after = -1; after < log_seq; ) {
        const rows = await read<EntryRow>(ENTRIES, user_no, after)
        if (rows.length === 0) throw gone()
        for (const row of rows) {
          after = row.log_seq
          if (row.log_seq <= log_seq) yield exportEntry(row)
        }
      }
      for await (const row of readAll<StreamRow>(STREAMS, user_no, [0], (stream) => [stream.stream_no])) {
        const { stream_no: _, ...shown } = row
        yield { kind: 'stream', ...shown }
      }
      for (let after = 0; after < head_position; ) {
        const page = await pages.readPage({ user_no, after, limit: PAGE_ROWS, bytes: PAGE_BYTES, own: null, streams: null })
        if (page.upto <= after) throw gone()
        after = page.upto
        for (const event of page.events)
          if (event.position <= head_position) yield { kind: 'event', ...eventToJson(user_id, event), ...tombstoneMark(event) }
      }
      for await (const row of readAll<DeviceNoRow>(FAMILIES, user_no, [0], (family) => [family.device_no])) {
        const { device_no: _, ...shown } = row
        yield { kind: 'refresh_family', ...shown }
      }
      const keyOf = ({ mailbox_id, slot }: PairingRow): Key => [mailbox_id, slot ?? '']
      for await (const { box, ...shown } of readAll<PairingRow>(PAIRINGS, user_no, ['', ''], keyOf))
        yield { kind: 'pairing', ...shown, box: box === null ? null : toBase64url(box) }
      for await (const row of readAll<AuditedRow>(AUDIT, user_no, [0], ({ seq }) => [seq])) yield { kind: 'audit', ...row }
    },
  }
}

/** The JSON form of protocol.md §3. */
export function eventToJson(user_id: string, event: StoredEvent): EventJson {
  const scratch = new Uint8Array(event.client.length + RECORD_ROOM)
  const record = decodeRecords(scratch.subarray(0, writeRecord(scratch, 0, event.flags, event.client, event)))[0]
  if (record === undefined) throw new TypeError('a stored event is one record')
  return recordToJson(user_id, record)
}

function tombstoneMark({ flags }: StoredEvent): { tombstone?: true } {
  return (flags & FLAG.tombstone) === 0 ? {} : { tombstone: true }
}

function exportEntry({ log_seq, stored_at, body, sig, boxes }: EntryRow): ExportRow {
  const sealed = Object.fromEntries(Object.entries(boxes ?? {}).map(([to, box]) => [to, toBase64url(Buffer.from(box, 'base64'))]))
  return { kind: 'log_entry', log_seq, stored_at, body: toBase64url(body), sig: toBase64url(sig), boxes: sealed }
}

function gone(): SealpostError {
  return new SealpostError('account_gone', 'the account was deleted meanwhile')
}
