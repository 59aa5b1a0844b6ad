/**
 * `history_id`: names the timeline of the store (protocol.md §1). It changes on dump restore (another cluster or another
 * stored uuid), point-in-time recovery and promotion (another timeline). Read by each connection when it opens: a
 * connection that may write does not outlive its server, so it cannot change under one. Behind a pooler that lends a server for
 * one transaction it is read by each transaction.
 */
import { createHash } from 'node:crypto'
import { toBase64url, tuple, uuidToBytes } from '@sealpost/protocol'

/**
 * Who answers. The timeline of the last checkpoint is that of before a promotion for a moment; that of the log position is not, which a
 * standby does not tell.
 */
export const SERVER_SQL = `
select pg_is_in_recovery() as standby, pg_backend_pid() as pid, m.store_id, s.system_identifier::text as system_identifier,
       pg_postmaster_start_time()::text || '/' || (select d.oid::text from pg_database d where d.datname = current_database()) as incarnation,
       case when pg_is_in_recovery() then 0
            else greatest(c.timeline_id, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4) end as timeline
  from server_meta m, pg_control_system() s, pg_control_checkpoint() c`

/**
 * What tells one server from another at a tenth of the cost: whoever answers this as before is who they were. The path has the number of
 * the database in it, which no other gets when this one is dropped.
 */
export const PLACE_SQL = `
select pg_is_in_recovery() as standby, m.store_id || ' ' || pg_postmaster_start_time() || ' ' || pg_relation_filepath('server_meta') || ' ' ||
       case when pg_is_in_recovery() then '' else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end as place
  from server_meta m`

export type PlaceRow = { standby: boolean; place: string }
export type HistoryRow = { store_id: string; system_identifier: string; timeline: number }
export type ServerRow = HistoryRow & { standby: boolean; pid: number; incarnation: string }

/** One run of a server on a database: what was read in another may have been undone by a restore. */
export function incarnationOf(row: HistoryRow & { incarnation: string }): string {
  return `${historyId(row)}/${row.incarnation}`
}

export function historyId(row: HistoryRow): string {
  const source = tuple('history', uuidToBytes(row.store_id), row.system_identifier, row.timeline)
  return toBase64url(createHash('sha256').update(source).digest())
}
