/**
 * Rates over time (protocol.md §9, R12), counted by a counter that may be shared: in memory, or in Redis. One that fails is
 * replaced for that call by the counts of this process, which know less traffic of others but are never open.
 *
 * Bound: keys are folded into 65,536 salted buckets per rule, so that a flood of addresses or mailbox ids costs no memory; two
 * that share a bucket share its limit.
 */
import { createHash, randomBytes } from 'node:crypto'
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'
import { RATES, type RateRule } from './rules.ts'

/** Counts `points` for a key; null within the limit, else the ms until it may be tried again. */
export interface LimitCounter {
  consume(rule: RateRule, key: string, points: number): Promise<number | null>
  reward(rule: RateRule, key: string, points: number): Promise<void>
}

export type RateLimits = {
  /** Counts `points`, 1 by default; null when that is within the limit, else the ms until it may be tried again. A null key is exempt. */
  take(rule: RateRule, key: string | null, points?: number): Promise<number | null>
  /** Takes back one that was counted. */
  giveBack(rule: RateRule, key: string | null): Promise<void>
}

/** Points per rule; what is not named is as in the list. */
export type Rates = Partial<Record<RateRule, number>>

export function createRateLimits(rates: Rates = {}, shared: LimitCounter | null = null): RateLimits {
  const local = createMemoryCounter(rates)
  return {
    async take(rule, key, points = 1) {
      if (key === null) return null
      try {
        return await (shared ?? local).consume(rule, key, points)
      } catch (error) {
        if (shared === null) throw error
        return local.consume(rule, key, points)
      }
    },
    async giveBack(rule, key) {
      if (key === null) return
      try {
        await (shared ?? local).reward(rule, key, 1)
      } catch (error) {
        // one more that is counted is no harm
        if (shared === null) throw error
      }
    },
  }
}

/** The counts of this process. */
export function createMemoryCounter(rates: Rates = {}): LimitCounter {
  const salt = randomBytes(16)
  const bucketOf = (key: string): string => createHash('sha256').update(salt).update(key).digest('hex').slice(0, 4)
  const limiters = Object.fromEntries(
    Object.entries(RATES).map(([rule, { points, duration }]) => [
      rule,
      new RateLimiterMemory({ points: rates[rule as RateRule] ?? points, duration }),
    ]),
  ) as Record<RateRule, RateLimiterMemory>
  return {
    async consume(rule, key, points) {
      try {
        await limiters[rule].consume(bucketOf(key), points)
        return null
      } catch (refused) {
        if (refused instanceof RateLimiterRes) return Math.max(1, refused.msBeforeNext)
        throw refused
      }
    },
    async reward(rule, key, points) {
      await limiters[rule].reward(bucketOf(key), points)
    },
  }
}
