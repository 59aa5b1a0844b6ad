/**
 * The end of a device that was revoked (protocol.md §4): only an entry that verified wipes the keys, never a close code, and the
 * entry is acted on whenever it is found: as it comes, and at the next start when the wipe did not happen or did not end.
 */
import { SealpostError } from '@sealpost/protocol'
import type { AccountLog } from './account-log.ts'
import type { DeviceStore, Identity, Revocation } from '../ports.ts'

/** Wipes this device when its log says so; what to tell then, else null. Throws `disk` when the keys are still there. */
export async function wipeWhenRevoked(store: DeviceStore, account: AccountLog, identity: Identity): Promise<SealpostError | null> {
  const revoked = account.log.devices.get(identity.device_id)?.revoked ?? null
  if (revoked === null) return null
  const revocation: Revocation = {
    user_id: identity.user_id,
    device_id: identity.device_id,
    by: revoked.by,
    by_name: account.deviceName(revoked.by),
    at: revoked.created_at,
    log_seq: revoked.log_seq,
  }
  await store.wipe(revocation)
  identity.sign_seed.fill(0)
  identity.kem_seed.fill(0)
  return revokedError(revocation)
}

export function revokedError(revocation: Revocation): SealpostError {
  const day = new Date(revocation.at).toISOString().slice(0, 10)
  return new SealpostError(
    'device_revoked',
    `this device was revoked by "${revocation.by_name}" on ${day}; pair it again with: sealpost join`,
  )
}
