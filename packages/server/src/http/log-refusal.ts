/** What is said of an entry of the device log that was not appended, whichever route it came by. */
import { toBase64url } from '@sealpost/protocol'
import type { AppendResult } from '../ports/store.ts'
import type { Problem } from './problems.ts'

export function logRefusal(result: AppendResult & { ok: false }): Problem {
  return {
    code: result.code,
    ...(result.code === 'invalid_entry' && result.reason !== undefined ? { detail: result.reason } : {}),
    ...(result.retry_after_ms === undefined ? {} : { retry_after_ms: result.retry_after_ms }),
    extra: { log_seq: result.log_seq, ...(result.log_head === null ? {} : { log_head: toBase64url(result.log_head) }) },
  }
}
