/** What is told to whoever proved to be a device that may do nothing: what its own account decided, then what an operator did. */
import type { DeviceRow } from '../../ports/store.ts'

type Standing = Pick<DeviceRow, 'active' | 'account_active' | 'revoked_log_seq'>

/** Null: it is active. */
export function standingProblem(device: Standing): { problem: { code: 'device_revoked' | 'suspended' } } | null {
  if (device.active) return null
  return device.account_active && device.revoked_log_seq !== null ? REVOKED : SUSPENDED
}

export const SUSPENDED = { problem: { code: 'suspended' } } as const
const REVOKED = { problem: { code: 'device_revoked' } } as const
