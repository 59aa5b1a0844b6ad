/**
 * Reads pages of a user's events straight from the primary key, for delivery out of the store (protocol.md §5, §7). One
 * statement, so one snapshot: positions commit in order, so that any snapshot shows a prefix. Bounds: `limit` records,
 * `bytes` encoded (payloads beyond are not even read), 10,000 positions looked at. Primary only (C7).
 */
import { bytesToUuid, LIMITS, type Tip } from '@sealpost/protocol'
import type { Pool } from 'pg'
import type { Page, PageRequest, ReadStore, SessionStanding, StoredEvent } from '../../ports/store.ts'
import { int4Array, int8Array } from '../postgres/binary-array.ts'
import { withClient } from '../postgres/pool.ts'

/** Of an encoded record, what is not the client part: length, flags, server part. */
const RECORD_HEAD_BYTES = 29

/**
 * $1 user · $2 after · $3 limit · $4 bytes · $5 own device (0 = none) · $6 own upto · $7 streams or null · $8 positions.
 * The first record is there whatever its size; the one that is cut off comes without its bytes, to tell that it is there.
 * The first row of the outer join is there even when no event is; `until` is the last position looked at.
 */
const PAGE = {
  name: 'read_page',
  text: `select b.head_position, b.floor, b.until, t.received_at as tip_received_at, substring(t.record from 1 for 16) as tip_event,
       (x.rank is not null and x.total > $4::int8 and x.rank > 1) as cut,
       x.position, x.stream_seq, x.received_at, x.device_no, x.device_seq, x.stream_no, x.flags,
       case when x.total <= $4::int8 or x.rank = 1 then x.record end as record
  from (select h.head_position, a.floor, greatest($2::int8, least(greatest($2::int8, a.floor) + $8::int8, h.head_position)) as until
          from account a,
               lateral (select coalesce((select h.last from head h where h.user_no = a.user_no and h.stream_no = 0), 0) as head_position) h
         where a.user_no = $1::int8) b
  left join event t on t.user_no = $1::int8 and t.position = b.until
  left join lateral (
    select w.* from (
      select e.*, sum(octet_length(e.record) + ${RECORD_HEAD_BYTES}) over (rows unbounded preceding) as total, row_number() over () as rank
        from (select i.position, i.stream_seq, i.received_at, i.device_no, i.device_seq, i.stream_no, i.flags, i.record
                from event i
               where i.user_no = $1::int8 and i.position > $2::int8 and i.position <= b.until
                 and (i.device_no <> $5::int4 or i.device_seq > $6::int8)
                 and ($7::int4[] is null or i.stream_no = any($7::int4[]))
               order by i.position limit $3::int4) e) w
     where w.rank <= 2 or w.total - octet_length(w.record) - ${RECORD_HEAD_BYTES} <= $4::int8) x on true
 order by x.position`,
}

const TIP = {
  name: 'read_tip',
  text: `select substring(e.record from 1 for 16) as tip_event, e.received_at as tip_received_at
  from event e where e.user_no = $1::int8 and e.position = $2::int8`,
}

/** Rows of those alone for which something is not as it was told. A reader has the version of its token in place of a fence. */
const COMPARE = {
  name: 'compare_sessions',
  text: `select x.i, x.user_no is null as gone, x.position, x.log_seq, coalesce(x.entitled, false) as entitled from (
    select t.i, t.known_position, t.known_log_seq, a.user_no, a.log_seq, coalesce(h.last, 0) as position,
           a.active and d.active and case when t.token_version is null then d.session_id is not distinct from t.session_id
             else t.token_version = (select p.token_version from device_profile p where p.user_no = t.user_no and p.device_no = t.device_no) end as entitled
      from unnest($1::int8[], $2::int4[], $3::int8[], $4::int8[], $5::uuid[], $6::int4[])
             with ordinality t (user_no, device_no, known_position, known_log_seq, session_id, token_version, i)
      left join account a on a.user_no = t.user_no
      left join device d on d.user_no = t.user_no and d.device_no = t.device_no
      left join head h on h.user_no = t.user_no and h.stream_no = 0) x
 where x.user_no is null or x.position <> x.known_position or x.log_seq <> x.known_log_seq or x.entitled is distinct from true`,
}

const STREAMS = {
  name: 'find_streams',
  text: 'select s.stream_no from stream s where s.user_no = $1::int8 and s.stream_id = any($2::text[])',
}

type StandingRow = { i: number; gone: boolean; position: number; log_seq: number; entitled: boolean }
type TipRow = { tip_event: Buffer | null; tip_received_at: number | null }
type PageRow = TipRow &
  Omit<StoredEvent, 'client' | 'position'> & {
    head_position: number
    floor: number
    until: number
    cut: boolean
    position: number | null
    record: Buffer | null
  }

export function createPageStore(pool: Pool): ReadStore {
  async function readPage(request: PageRequest): Promise<Page> {
    const streams = request.streams === null ? null : await findStreams(request.user_no, request.streams)
    const limit = Math.max(1, request.limit)
    const values = [
      request.user_no,
      request.after,
      limit,
      request.bytes,
      request.own?.device_no ?? 0,
      request.own?.upto_seq ?? 0,
      streams,
      LIMITS.replayScanMax,
    ]
    const { rows } = await withClient(pool, (client) => client.query<PageRow>({ ...PAGE, values }))
    return toPage(rows, request.after, limit)
  }

  async function findStreams(user_no: number, stream_ids: readonly string[]): Promise<number[]> {
    const { rows } = await withClient(pool, (client) => client.query<{ stream_no: number }>({ ...STREAMS, values: [user_no, stream_ids] }))
    return rows.map((row) => row.stream_no)
  }

  return {
    readPage,
    async readTip(user_no, position) {
      const { rows } = await withClient(pool, (client) => client.query<TipRow>({ ...TIP, values: [user_no, position] }))
      return rows[0] === undefined ? null : toTip(rows[0])
    },
    async compareSessions(sessions) {
      if (sessions.length === 0) return []
      // neighbours in the tables are asked for one after another: half the work for PostgreSQL
      const order = [...sessions.keys()].sort((i, j) => byPlace(sessions[i], sessions[j]))
      const asked = order.flatMap((i) => sessions[i] ?? [])
      const values = [
        int8Array(asked.map(({ user_no }) => user_no)),
        int4Array(asked.map(({ device_no }) => device_no)),
        int8Array(asked.map(({ position }) => position)),
        int8Array(asked.map(({ log_seq }) => log_seq)),
        asked.map(({ by }) => ('session_id' in by ? by.session_id : null)),
        asked.map(({ by }) => ('token_version' in by ? by.token_version : null)),
      ]
      const { rows } = await withClient(pool, (client) => client.query<StandingRow>({ ...COMPARE, values }))
      const standings = sessions.map((): SessionStanding => ({ is: 'same' }))
      for (const { i, gone, position, log_seq, entitled } of rows)
        standings[order[i - 1] ?? -1] = gone ? { is: 'gone' } : { is: 'moved', position, log_seq, entitled }
      return standings
    },
  }
}

type Place = { user_no: number; device_no: number } | undefined
function byPlace(a: Place, b: Place): number {
  return (a?.user_no ?? 0) - (b?.user_no ?? 0) || (a?.device_no ?? 0) - (b?.device_no ?? 0)
}

function toPage(rows: readonly PageRow[], after: number, limit: number): Page {
  const first = rows[0]
  // the account is gone: its sessions are about to be told
  if (first === undefined) return { events: [], upto: after, tip: null, head_position: after, floor: 0 }
  const events: StoredEvent[] = []
  let cut = false
  for (const { position, record, cut: beyond, stream_seq, received_at, device_no, device_seq, stream_no, flags } of rows) {
    if (position === null) continue
    if (beyond || record === null) cut = true
    else events.push({ position, stream_seq, received_at, device_no, device_seq, stream_no, flags, client: record })
  }
  const last = events.at(-1)
  const { head_position, floor } = first
  if (last !== undefined && (cut || events.length === limit)) {
    const tip = { event_id: bytesToUuid(last.client), received_at: last.received_at }
    return { events, upto: last.position, tip, head_position, floor }
  }
  return { events, upto: first.until, tip: toTip(first), head_position, floor }
}

function toTip({ tip_event, tip_received_at }: TipRow): Tip | null {
  return tip_event === null || tip_received_at === null ? null : { event_id: bytesToUuid(tip_event), received_at: tip_received_at }
}
