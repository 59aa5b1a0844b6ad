/** The audit log for those who read it, and what it takes to verify it elsewhere (docs/operations/audit.md). */
import { toBase64url } from '@sealpost/protocol'
import type { AuditRow } from '../../audit/chain.ts'
import { adminName } from '../../audit/entry.ts'
import type { Audit } from '../../audit/recorder.ts'
import type { AuditStore } from '../../ports/store.ts'
import type { AdminAnswers } from '../call.ts'
import { cursorAfter, decodeCursor, encodeCursor } from '../cursor.ts'
import { PAGE } from '../fields.ts'
import type { AUDIT_CONTRACTS } from './contracts.ts'

export function createAuditRoutes(store: AuditStore, audit: Audit): AdminAnswers<typeof AUDIT_CONTRACTS> {
  return {
    async list_audit({ query }) {
      // what was noted on this node is there when somebody looks
      await audit.flush()
      const { limit = PAGE, order = 'oldest', action, admin_id, user_id } = query
      const newest_first = order === 'newest'
      const from = decodeCursor(query.cursor) ?? (newest_first ? Number.MAX_SAFE_INTEGER : 0)
      const actor = admin_id === undefined ? undefined : adminName(admin_id)
      const rows = await store.readAudit(from, newest_first, { action, actor, user_id }, limit)
      return { json: { rows: rows.map(show), next_cursor: cursorAfter(rows, limit, ({ seq }) => encodeCursor(seq)) } }
    },
    async read_audit_head() {
      const { head, checkpoints } = await store.readAuditEnds()
      return {
        json: {
          seq: head.seq,
          hash: toBase64url(head.hash),
          checkpoints: checkpoints.map(({ seq, at, hash, sig }) => ({ seq, at, hash: toBase64url(hash), sig: toBase64url(sig) })),
        },
      }
    },
  }
}

function show({ user_hash, hash, ...row }: AuditRow): object {
  return { ...row, user_hash: user_hash === null ? null : toBase64url(user_hash), hash: toBase64url(hash) }
}
