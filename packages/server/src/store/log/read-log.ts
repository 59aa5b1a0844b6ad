/** Reads the device log of an account (protocol.md §2): entries as they were signed, and the boxes of one reader. */
import type { Bytes } from '@sealpost/protocol'
import type { ClientBase } from 'pg'
import type { StoredLogEntry } from '../../ports/store.ts'

/** The root's number where devices have theirs. */
export const ROOT_NO = 0

/** $1 user · $2 recipient · $3 from · $4 limit · $5 bytes: at least one entry, else only while the sum is within the bound. */
const ENTRIES = {
  name: 'read_log_entries',
  text: `select x.log_seq, x.body, x.sig, x.box
  from (select e.log_seq, e.body, e.sig, b.box, row_number() over w as rank,
               sum(octet_length(e.body) + coalesce(octet_length(b.box), 0) + 128) over w as total
          from (select l.* from log_entry l where l.user_no = $1::int8 and l.log_seq >= $3::int8 order by l.log_seq limit $4::int4 + 1) e
          left join log_box b on b.user_no = $1::int8 and b.recipient = $2::int4 and b.log_seq = e.log_seq
        window w as (order by e.log_seq)) x
 where x.rank = 1 or x.total <= $5::int8
 order by x.log_seq`,
}

const NEWEST = { name: 'read_log_seq', text: 'select a.log_seq from account a where a.user_no = $1::int8' }

export async function readLogEntries(
  client: ClientBase,
  user_no: number,
  recipient_no: number,
  from: number,
  limit: number,
  bytes: number,
): Promise<{ entries: StoredLogEntry[]; has_more: boolean }> {
  const newest = (await client.query<{ log_seq: number }>({ ...NEWEST, values: [user_no] })).rows[0]?.log_seq ?? -1
  const values = [user_no, recipient_no, from, limit, bytes]
  const { rows } = await client.query<{ log_seq: number; body: Bytes; sig: Bytes; box: Bytes | null }>({ ...ENTRIES, values })
  const entries = rows.slice(0, limit)
  const last = entries.at(-1)
  return { entries, has_more: last !== undefined && (rows.length > limit || last.log_seq < newest) }
}
