/** What an entry of the device log means for the audit log: sign-up, pairing, revocation, recovery. Rotations are no event of security. */
import type { Bytes, LogBody } from '@sealpost/protocol'
import type { SecurityAction } from './actions.ts'
import { type AuditEntry, deviceName, type Origin } from './entry.ts'

/** How an entry came in: `repair` brings back what was known, and an invite let a genesis in. */
export type AppendedBy = { user_id: string; repair: boolean; origin?: Origin | null; invite_hash?: Bytes | null }

export function auditEntries({ user_id, repair, origin = null, invite_hash = null }: AppendedBy, body: LogBody): AuditEntry[] {
  const actor = body.signer === 'root' ? 'root' : deviceName(body.signer)
  const detail = { log_seq: body.log_seq, ...(repair ? { repair } : {}), ...(invite_hash === null ? {} : { invited: true }) }
  const row = (action: SecurityAction, device_id: string | null): AuditEntry => ({
    actor,
    action,
    outcome: 'done',
    target: device_id === null ? null : deviceName(device_id),
    user_id,
    origin,
    detail,
  })
  switch (body.type) {
    case 'genesis':
      return [row('account_created', body.device.device_id)]
    case 'add_device':
      return [row('device_added', body.device.device_id)]
    case 'recover':
      return [row('account_recovered', body.device.device_id)]
    case 'revoke_device':
      return body.revoked.map(({ device_id }) => row('device_revoked', device_id))
    case 'rename_device':
      return [row('device_renamed', body.rename.device_id)]
    case 'rotate_keys':
      return []
  }
}
