/**
 * The counts of this process. A key is counted by itself, so that nobody uses up what is another's; only when `KEYS_MAX` keys of a
 * limit are being counted do further ones share salted buckets, until there is room again.
 *
 * Bound: `KEYS_MAX` keys and `BUCKETS` buckets per limit, some 25 MiB; a flood of addresses or mailbox ids costs no more.
 */
import { hash, randomBytes } from 'node:crypto'
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'
import type { Limit, LimitCounter } from './counter.ts'

export const KEYS_MAX = 32_768
const BUCKETS = 16_384

/** `ends`: when the count of a key is over; as all take the same time, in the order of it. */
type Counts = { limiter: RateLimiterMemory; ends: Map<string, number> }

export function createMemoryCounter(): LimitCounter {
  const salt = randomBytes(16).toString('hex')
  const counted = new Map<string, Counts>()

  function countsOf({ name, points, duration }: Limit): Counts {
    const known = counted.get(name)
    if (known !== undefined) {
      // a limit may be set anew while its keys are counted
      known.limiter.points = points
      return known
    }
    const made = { limiter: new RateLimiterMemory({ points, duration, keyPrefix: '' }), ends: new Map<string, number>() }
    counted.set(name, made)
    return made
  }

  /** No key looks like it: those that a client chooses are base64url. */
  function bucketOf(key: string): string {
    return `bucket ${hash('sha256', salt + key, 'buffer').readUInt32BE() % BUCKETS}`
  }

  /** Where a key is counted from now on. */
  function placeOf({ ends }: Counts, key: string, duration: number): string {
    const now = Date.now()
    if ((ends.get(key) ?? 0) > now) return key
    ends.delete(key)
    if (ends.size >= KEYS_MAX) makeRoom(ends, now)
    if (ends.size >= KEYS_MAX) return bucketOf(key)
    ends.set(key, now + duration * 1_000)
    return key
  }

  function makeRoom(ends: Map<string, number>, now: number): void {
    for (const [key, end] of ends) {
      if (end > now) return
      ends.delete(key)
    }
  }

  return {
    async consume(limit, key, points) {
      const counts = countsOf(limit)
      try {
        await counts.limiter.consume(placeOf(counts, key, limit.duration), points)
        return null
      } catch (refused) {
        if (refused instanceof RateLimiterRes) return Math.max(1, refused.msBeforeNext)
        throw refused
      }
    },
    async reward(limit, key, points) {
      const { limiter, ends } = countsOf(limit)
      const place = ends.has(key) ? key : bucketOf(key)
      // of a count that is over there is nothing to take back
      const { consumedPoints = 0, msBeforeNext = 0 } = (await limiter.get(place)) ?? {}
      if (consumedPoints > 0 && msBeforeNext > 0) await limiter.reward(place, points)
    },
  }
}
