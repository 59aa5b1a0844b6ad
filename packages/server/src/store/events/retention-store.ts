/**
 * The batches of retention (protocol.md §3; the calls: sql/functions). Each is one call and one
 * transaction of at most `ROWS_MAX` rows and `BYTES_MAX` stored bytes, under the row lock of its accounts, which it never
 * waits for: an account that is held is left for later. Of all nodes one at a time has a batch under way, by a lock
 * of the database that ends with the transaction. Times are those of the database's clock.
 *
 * What a crash undoes is done again: these transactions do not wait for the disk.
 */
import type { Pool } from 'pg'
import type { RetentionStore, StreamRule } from '../../ports/store.ts'
import { int8Array } from '../postgres/binary-array.ts'
import { withClient } from '../postgres/pool.ts'

const ROWS_MAX = 500
/** Hashing or deleting this much takes some 20 ms, for which its account is held. */
const BYTES_MAX = 4 * 1_048_576
/** Positions looked at in search of the events of single streams. */
const SCAN_MAX = 5_000
const DEVICES_MAX = 50

const SWEEP_EXPIRED = {
  name: 'sweep_expired',
  text: 'select s.outcome, s.rows, s.freed, s.skipped, s.last from sweep_expired($1::int8, $2::int8, $3::int4, $4::int8) s',
}

const REMOVE_PREFIX = {
  name: 'remove_prefix',
  text: 'select r.outcome, r.rows, r.freed from remove_prefix($1::int8, $2::int8, $3::int8, $4::int8, $5::int4, $6::int8) r',
}

const SWEEP_STREAMS = {
  name: 'sweep_streams',
  text: `select s.outcome, s.rows, s.freed, s.active
  from sweep_streams($1::int8, $2::text[], $3::int8[], $4::int8, $5::int4, $6::int4, $7::int8) s`,
}

const CLEAR_REVOKED = {
  name: 'clear_revoked',
  text: `select c.outcome, c.rows, c.looked_at, c.last_user, c.last_device, c.more
  from clear_revoked($1::int8, $2::int8, $3::int4, $4::int4, $5::int4) c`,
}

/** The oldest event of each account: the one look that tells whether there is work. */
const AGED = {
  name: 'find_aged_accounts',
  text: `select a.user_no, coalesce(e.received_at <= t.now - $3::int8, false)
       or coalesce((e.flags & 8) <> 0 and e.received_at <= t.now - $4::int8, false) as due
  from (select i.user_no from account i where i.user_no > $1::int8 order by i.user_no limit $2::int4) a
  cross join (select clock_ms() as now) t
  left join lateral (select i.received_at, i.flags from event i where i.user_no = a.user_no order by i.position limit 1) e on true
 order by a.user_no`,
}

const RULED = {
  name: 'find_ruled_accounts',
  text: `select a.user_no,
       exists (select from unnest($3::text[], $4::int8[]) r (stream_id, older_ms)
                 join stream s on s.user_no = a.user_no and s.stream_id = r.stream_id
                 join head h on h.user_no = s.user_no and h.stream_no = s.stream_no
                where (select e.received_at from event e where e.user_no = a.user_no and e.position > greatest(h.swept, a.floor)
                        order by e.position limit 1) <= t.now - r.older_ms)
       or exists (select from head h where h.user_no = a.user_no and h.stream_no > 0 and h.bytes > $5::int8
                     and greatest(h.swept, a.floor) < (select u.last from head u where u.user_no = a.user_no and u.stream_no = 0)) as due
  from (select i.user_no, i.floor from account i where i.user_no > $1::int8 order by i.user_no limit $2::int4) a
  cross join (select clock_ms() as now) t
 order by a.user_no`,
}

const SIZES = {
  name: 'read_sizes',
  text: `select a.user_no, coalesce(h.bytes, 0) as bytes
  from (select i.user_no from account i where i.user_no > $1::int8 order by i.user_no limit $2::int4) a
  left join head h on h.user_no = a.user_no and h.stream_no = 0
 order by a.user_no`,
}

const TAKEN = 1
const HELD = 2

type BatchRow = { outcome: number; rows: number; freed: number }

export function createRetentionStore(pool: Pool, clock_skew_ms: number): RetentionStore {
  async function ask<R extends object>(query: { name: string; text: string }, values: unknown[]): Promise<R[]> {
    return withClient(pool, async (client) => (await client.query<R>({ ...query, values })).rows)
  }

  async function askOne<R extends object>(query: { name: string; text: string }, values: unknown[]): Promise<R> {
    const row = (await ask<R>(query, values))[0]
    if (row === undefined) throw new TypeError(`${query.name} answers one row`)
    return row
  }

  return {
    async sweepExpiredEvents(after) {
      const row = await askOne<BatchRow & { skipped: number; last: number | null }>(SWEEP_EXPIRED, [
        clock_skew_ms,
        after,
        ROWS_MAX,
        BYTES_MAX,
      ])
      if (row.outcome === TAKEN) return { is: 'taken' }
      return { is: 'done', rows: row.rows, bytes: row.freed, skipped: row.skipped, last: row.last }
    },
    async removePrefix(user_no, rule) {
      const values = [user_no, rule.age_ms, rule.tombstone_ms, rule.bytes, ROWS_MAX, BYTES_MAX]
      const row = await askOne<BatchRow>(REMOVE_PREFIX, values)
      if (row.outcome === TAKEN) return { is: 'taken' }
      if (row.outcome === HELD) return { is: 'held' }
      return { is: 'done', rows: row.rows, bytes: row.freed, more: row.rows > 0 }
    },
    async sweepStreams(user_no, rules, stream_bytes) {
      const values = [user_no, ...ruleArrays(rules), stream_bytes, SCAN_MAX, ROWS_MAX, BYTES_MAX]
      const row = await askOne<BatchRow & { active: boolean }>(SWEEP_STREAMS, values)
      if (row.outcome === TAKEN) return { is: 'taken' }
      if (row.outcome === HELD) return { is: 'held' }
      return { is: 'done', rows: row.rows, bytes: row.freed, more: row.active }
    },
    async clearRevoked(older_ms, after) {
      type Row = BatchRow & { looked_at: number; last_user: number; last_device: number; more: boolean }
      const row = await askOne<Row>(CLEAR_REVOKED, [older_ms, after.user_no, after.device_no, DEVICES_MAX, ROWS_MAX])
      if (row.outcome === TAKEN) return { is: 'taken' }
      const next = row.more ? after : { user_no: row.last_user, device_no: row.last_device }
      return { is: 'done', rows: row.rows, next: row.looked_at === 0 ? null : next }
    },
    findAgedAccounts: (after, limit, rule) => ask(AGED, [after, limit, rule.age_ms, rule.tombstone_ms]),
    findRuledAccounts: (after, limit, rules, stream_bytes) => ask(RULED, [after, limit, ...ruleArrays(rules), stream_bytes]),
    readSizes: (after, limit) => ask(SIZES, [after, limit]),
  }
}

function ruleArrays(rules: readonly StreamRule[]): [string[], Buffer] {
  return [rules.map(({ stream_id }) => stream_id), int8Array(rules.map(({ age_ms }) => age_ms))]
}
