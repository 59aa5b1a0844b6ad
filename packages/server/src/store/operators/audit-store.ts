/**
 * The audit log in the database: rows are appended by one SQL function and by nothing else (sql/functions/append_audit.sql). What belongs to a change is
 * appended in the transaction of the change, as its last statement; the row of `audit_head` is the one lock, taken last by everybody.
 *
 * Isolation: read committed. Bounds: pages of `PAGE_MAX`.
 */
import { toBase64url } from '@sealpost/protocol'
import type { ClientBase, Pool } from 'pg'
import type { AuditCheckpoint, AuditHead, AuditRow } from '../../audit/chain.ts'
import { checkpointBytes } from '../../audit/chain.ts'
import { type AuditEntry, userHash } from '../../audit/entry.ts'
import type { AuditFilter, AuditStore } from '../../ports/store.ts'
import { withClient, withTransaction } from '../postgres/pool.ts'

const PAGE_MAX = 1_000
const DETAIL_MAX = 4_096

const APPEND = {
  name: 'append_audit',
  text: 'select append_audit($1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::bytea) as seq',
}

const COLUMNS = 'a.seq, a.at, a.actor, a.action, a.outcome, a.target, a.request_id, a.address, a.detail, a.user_hash, a.hash'
const MATCHES = `($2::text is null or a.action = $2::text) and ($3::text is null or a.actor = $3::text) and ($4::bytea is null or a.user_hash = $4::bytea)`

const OLDEST_FIRST = {
  name: 'list_audit_up',
  text: `select ${COLUMNS} from audit a where a.seq > $1::int8 and ${MATCHES} order by a.seq limit $5::int4`,
}

const NEWEST_FIRST = {
  name: 'list_audit_down',
  text: `select ${COLUMNS} from audit a where a.seq < $1::int8 and ${MATCHES} order by a.seq desc limit $5::int4`,
}

const HEAD = { name: 'read_audit_head', text: 'select h.seq, h.hash from audit_head h' }
const CHECKPOINTS = { name: 'read_audit_checkpoints', text: 'select c.seq, c.at, c.hash, c.sig from audit_checkpoint c order by c.seq' }

const LAST_CHECKPOINT = {
  name: 'last_audit_checkpoint',
  text: `select h.seq, h.hash, clock_ms() as at, coalesce((select max(c.seq) from audit_checkpoint c), 0) as last,
       coalesce((select max(c.at) from audit_checkpoint c), 0) as last_at
  from audit_head h`,
}

const ADD_CHECKPOINT = {
  name: 'add_audit_checkpoint',
  text: 'insert into audit_checkpoint (seq, at, hash, sig) values ($1::int8, $2::int8, $3::bytea, $4::bytea) on conflict do nothing',
}

const REMOVE_OLD = { name: 'remove_old_audit', text: 'select r.outcome, r.rows, r.more from remove_old_audit($1::int8) r' }

/** In the transaction of `client`, as its last statement. */
export async function appendAudit(client: ClientBase, entry: AuditEntry): Promise<number> {
  const { actor, action, outcome, target = null, user_id = null, origin = null, detail = null } = entry
  const text = detail === null ? null : JSON.stringify(detail)
  const values = [
    actor,
    action,
    outcome,
    target,
    origin?.request_id ?? null,
    origin?.address ?? null,
    // what is too long to be kept whole is not kept in part: half an object is none
    text !== null && Buffer.byteLength(text) > DETAIL_MAX ? '{"detail":"too long"}' : text,
    user_id === null ? null : userHash(user_id),
  ]
  return (await client.query<{ seq: number }>({ ...APPEND, values })).rows[0]?.seq ?? 0
}

export function createAuditStore(pool: Pool): AuditStore {
  async function readAudit(from: number, newest_first: boolean, filter: AuditFilter, limit: number): Promise<AuditRow[]> {
    const user = filter.user_id === undefined ? null : userHash(filter.user_id)
    const values = [from, filter.action ?? null, filter.actor ?? null, user, Math.min(limit, PAGE_MAX)]
    return withClient(
      pool,
      async (client) => (await client.query<AuditRow>({ ...(newest_first ? NEWEST_FIRST : OLDEST_FIRST), values })).rows,
    )
  }

  return {
    appendAudit: (entries) =>
      withTransaction(pool, async (client) => {
        for (const entry of entries) await appendAudit(client, entry)
      }),
    readAudit,
    readAuditEnds: () =>
      // one snapshot: a row that is appended meanwhile is in neither
      withTransaction(
        pool,
        async (client) => {
          const head = (await client.query<AuditHead>(HEAD)).rows[0]
          if (head === undefined) throw new TypeError('the audit log has a head')
          return { head, checkpoints: (await client.query<AuditCheckpoint>(CHECKPOINTS)).rows }
        },
        'repeatable read',
      ),
    addAuditCheckpoint: (sign, due) =>
      withTransaction(pool, async (client) => {
        type Row = AuditHead & { at: number; last: number; last_at: number }
        const row = (await client.query<Row>(LAST_CHECKPOINT)).rows[0]
        if (row === undefined || row.seq === row.last) return null
        if (row.seq - row.last < due.rows && row.at - row.last_at < due.ms) return null
        const { seq, at, hash } = row
        await client.query({ ...ADD_CHECKPOINT, values: [seq, at, hash, Buffer.from(sign(checkpointBytes({ seq, at, hash })))] })
        return { seq, hash: toBase64url(hash) }
      }),
    async removeOldAudit(older_ms) {
      type Row = { outcome: number; rows: number; more: boolean }
      const row = await withClient(pool, async (client) => (await client.query<Row>({ ...REMOVE_OLD, values: [older_ms] })).rows[0])
      if (row === undefined) throw new TypeError('remove_old_audit answers one row')
      return row.outcome === 1 ? { is: 'taken' } : { is: 'done', rows: row.rows, bytes: 0, more: row.more }
    },
  }
}
