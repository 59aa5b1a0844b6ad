/**
 * `history_id`: names the timeline of the store (protocol.md §1). It changes on dump restore (another cluster or another
 * stored uuid), point-in-time recovery and promotion (another timeline). Read by each connection when it opens: a
 * connection that may write does not outlive its server, so it cannot change under one.
 */
import { createHash } from 'node:crypto'
import { toBase64url, tuple, uuidToBytes } from '@sealpost/protocol'

/** The timeline of the last checkpoint is that of before a promotion for a moment; that of the log position is not. */
export const HISTORY_SQL = `
select m.store_id, s.system_identifier::text as system_identifier,
       pg_postmaster_start_time()::text || '/' || (select d.oid::text from pg_database d where d.datname = current_database()) as incarnation,
       greatest(c.timeline_id, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4) as timeline
  from server_meta m, pg_control_system() s, pg_control_checkpoint() c`

export type HistoryRow = { store_id: string; system_identifier: string; timeline: number }

/** One run of a server on a database: what was read in another may have been undone by a restore. */
export function incarnationOf(row: HistoryRow & { incarnation: string }): string {
  return `${historyId(row)}/${row.incarnation}`
}

export function historyId(row: HistoryRow): string {
  const source = tuple('history', uuidToBytes(row.store_id), row.system_identifier, row.timeline)
  return toBase64url(createHash('sha256').update(source).digest())
}
