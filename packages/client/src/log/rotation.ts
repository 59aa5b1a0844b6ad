/** When this device renews the content key (protocol.md §2, rotation). Pure. */
import { LIMITS } from '@sealpost/protocol'

/** A rotation waits a random part of this, so that not all devices of an account rotate at once. */
export const ROTATION_SPREAD_MS = 600_000
/** A device that cannot open an epoch asks for a new one at most this often. */
export const UNREADABLE_EVERY_MS = 3_600_000

export type EpochAge = { first_seen: number; own_events: number; readable: boolean; last_forced: number | null }

/** `now`: at once. `soon`: after a random pause. */
export function rotationDue(epoch: EpochAge, now_ms: number): 'now' | 'soon' | null {
  const age = ageOf(epoch.first_seen, now_ms)
  if (!epoch.readable) return epoch.last_forced !== null && ageOf(epoch.last_forced, now_ms) < UNREADABLE_EVERY_MS ? null : 'now'
  if (age >= LIMITS.epochForbiddenMs) return 'now'
  return age >= LIMITS.epochRotateMs || epoch.own_events >= LIMITS.epochEventsMax ? 'soon' : null
}

/** A time that lies ahead was written by a wrong clock and tells nothing. */
function ageOf(at_ms: number, now_ms: number): number {
  return at_ms > now_ms + LIMITS.clockSkewMs ? Infinity : now_ms - at_ms
}
