/** What is put into the audit log, and how accounts and devices are named there: by hashes, so that a deletion leaves no id behind. */
import { fromBase64url, toBase64url, uuidToBytes } from '@sealpost/protocol'
import { createHash } from 'node:crypto'

export const AUDIT_OUTCOMES = ['begun', 'done', 'refused', 'failed'] as const
export type AuditOutcome = (typeof AUDIT_OUTCOMES)[number]

/** Whence a request came. */
export type Origin = { request_id: string; address: string | null }

export type AuditEntry = {
  /** `admin:<admin_id>`, `device:<hash>`, `root`, `server`, `stranger`. */
  actor: string
  action: string
  outcome: AuditOutcome
  /** What was acted on: `device:<hash>`, `admin:<admin_id>`, `limit:<rule>` … */
  target?: string | null
  /** The account concerned. */
  user_id?: string | null
  origin?: Origin | null
  /** Numbers and names, no payload, no secret. */
  detail?: Readonly<Record<string, string | number | boolean | null>> | null
}

/** SHA-256 of the id, as `deleted_account` has it. */
export function userHash(user_id: string): Buffer {
  return createHash('sha256').update(fromBase64url(user_id, 32)).digest()
}

export function adminName(admin_id: string): string {
  return `admin:${admin_id}`
}

/** `device:` and 22 characters of the hash of the id. */
export function deviceName(device_id: string): string {
  return `device:${toBase64url(createHash('sha256').update(uuidToBytes(device_id)).digest()).slice(0, 22)}`
}
