/**
 * Counts that all nodes share, in Redis (R12). Bound: one key per key of a limit, which ends with its time.
 */
import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible'
import type { RedisLink } from '../bus/redis-link.ts'
import type { Limit, LimitCounter } from './counter.ts'

/** `relay`: what relays that share one Redis differ by. Throws while Redis does not answer. To be made before anything is counted. */
export function createRedisCounter({ commands }: Pick<RedisLink, 'commands'>, relay: string): LimitCounter {
  const limiters = new Map<string, RateLimiterRedis>()
  // commands of one turn leave together (ioredis pipelines them), and a turn that began before the script was known to the client cannot
  // take it: ioredis then throws where nobody catches. So it is known before the first is counted
  limiterOf({ name: 'first', points: 1, duration: 1 })

  function limiterOf({ name, points, duration }: Limit): RateLimiterRedis {
    const known = limiters.get(name)
    if (known !== undefined) {
      // a limit may be set anew while its keys are counted
      known.points = points
      return known
    }
    const keyPrefix = `sealpost:${relay}:limit:${name}`
    const made = new RateLimiterRedis({ storeClient: commands, points, duration, keyPrefix, rejectIfRedisNotReady: true })
    limiters.set(name, made)
    return made
  }

  return {
    async consume(limit, key, points) {
      try {
        await limiterOf(limit).consume(key, points)
        return null
      } catch (refused) {
        if (refused instanceof RateLimiterRes) return Math.max(1, refused.msBeforeNext)
        throw refused
      }
    },
    async reward(limit, key, points) {
      const limiter = limiterOf(limit)
      // of a count that is over there is nothing to take back
      const { consumedPoints = 0, msBeforeNext = 0 } = (await limiter.get(key)) ?? {}
      if (consumedPoints > 0 && msBeforeNext > 0) await limiter.reward(key, points)
    },
  }
}
