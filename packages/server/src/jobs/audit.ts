/**
 * What keeps the audit log verifiable and bounded: checkpoints, signed by the server key after `ROWS` rows or an hour, and the removal of
 * rows behind an old one (docs/operations/audit.md).
 */
import type { Bytes } from '@sealpost/protocol'
import type { Job } from './schedule.ts'
import type { AuditStore } from '../ports/store.ts'

const CHECKPOINT_EVERY_MS = 60_000
const REMOVE_EVERY_MS = 3_600_000
/** Rows between two checkpoints are removed together. */
const ROWS = 1_000
const HOUR_MS = 3_600_000

export function createAuditJobs(
  store: Pick<AuditStore, 'addAuditCheckpoint' | 'removeOldAudit'>,
  /** By the server key. */
  sign: (bytes: Bytes) => Bytes,
  older_ms: number | null,
): Job[] {
  const jobs: Job[] = [
    {
      name: 'audit_checkpoint',
      every_ms: CHECKPOINT_EVERY_MS,
      run: async (turn) => {
        const added = await turn.batch(() => store.addAuditCheckpoint(sign, { rows: ROWS, ms: HOUR_MS }))
        return { rows: added === null ? 0 : 1 }
      },
    },
  ]
  if (older_ms === null) return jobs
  return [
    ...jobs,
    {
      name: 'old_audit',
      every_ms: REMOVE_EVERY_MS,
      run: async (turn) => {
        let rows = 0
        while (turn.wanted()) {
          const batch = await turn.batch(() => store.removeOldAudit(older_ms))
          if (batch.is !== 'done') return { rows, left: batch.is }
          rows += batch.rows
          if (!batch.more) break
        }
        return { rows }
      },
    },
  ]
}
