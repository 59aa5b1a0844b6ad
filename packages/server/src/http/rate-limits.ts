/**
 * Limits of REST (protocol.md §9, §10; R12), counted in this process. Bound: keys are folded into 65,536 salted buckets per
 * rule, so that a flood of addresses or mailbox ids costs no memory; two that share a bucket share its limit.
 */
import { createHash, randomBytes } from 'node:crypto'
import { LIMITS } from '@sealpost/protocol'
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'

const RULES = {
  /** Any request, by address. */
  address: { points: LIMITS.restPerAddressPerMinute, duration: 60 },
  /** New accounts, by address. */
  genesis: { points: LIMITS.genesisPerAddressPerHour, duration: 3_600 },
  /** Entries that a repair brought back, by user. */
  repair: { points: LIMITS.repairsPerHour, duration: 3_600 },
  /** Repairs that were posted, by address. */
  repair_address: { points: LIMITS.repairsPerHour, duration: 3_600 },
  /** Reads of a pairing mailbox, by its id. */
  mailbox: { points: LIMITS.pairingGetsPerMinute, duration: 60 },
  /** New pairing mailboxes, by user. */
  offer: { points: LIMITS.pairingOffersPerUserPerHour, duration: 3_600 },
} as const

export type RateRule = keyof typeof RULES

export type RateLimits = {
  /** Counts one; null when it is within the limit, else the ms until it may be tried again. A null key is exempt. */
  take(rule: RateRule, key: string | null): Promise<number | null>
  /** Takes back one that was counted. */
  giveBack(rule: RateRule, key: string): Promise<void>
}

export function createRateLimits(): RateLimits {
  const salt = randomBytes(16)
  const limiters = new Map(Object.entries(RULES).map(([rule, options]) => [rule, new RateLimiterMemory(options)]))
  const bucketOf = (key: string): string => createHash('sha256').update(salt).update(key).digest('hex').slice(0, 4)
  return {
    take: async (rule, key) => {
      const limiter = limiters.get(rule)
      if (key === null || limiter === undefined) return null
      try {
        await limiter.consume(bucketOf(key))
        return null
      } catch (refused) {
        if (refused instanceof RateLimiterRes) return Math.max(1, refused.msBeforeNext)
        throw refused
      }
    },
    giveBack: async (rule, key) => {
      await limiters.get(rule)?.reward(bucketOf(key))
    },
  }
}
