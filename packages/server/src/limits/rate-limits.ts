/**
 * Rates over time (protocol.md §9, R12), counted by a counter that all nodes share, where there is one that answers; else by this
 * process for itself, within its part of each rate: what all nodes let through together is then less, never more.
 *
 * An IPv6 address counts for the networks around it too, widest first: whoever owns one has more addresses, but not as many times
 * the rate, and makes no more keys than that.
 */
import { countedNetworks } from './address.ts'
import type { Limit, LimitCounter } from './counter.ts'
import { createMemoryCounter } from './memory-counter.ts'
import { RATES, type RateRule } from './rules.ts'

export type RateLimits = {
  /** Counts `points`, 1 by default; null when that is within the limit, else the ms until it may be tried again. A null key is exempt. */
  take(rule: RateRule, key: string | null, points?: number): Promise<number | null>
  /** From now on. */
  set(rule: RateRule, points: number): void
  /** Takes back one that was counted. */
  giveBack(rule: RateRule, key: string | null): Promise<void>
}

/** Points per rule; what is not named is as in the list. */
export type Rates = Partial<Record<RateRule, number>>

type Count = { limit: Limit; key: string }

/** `counter`: null while it is of no use. `nodes`: how many count for themselves without it. */
export type SharedCounts = { counter(): LimitCounter | null; nodes(): number }

const ALONE: SharedCounts = { counter: () => null, nodes: () => 1 }

export function createRateLimits(configured: Rates = {}, shared: SharedCounts = ALONE): RateLimits {
  const local = createMemoryCounter()
  const rates: Rates = { ...configured }

  function countsOf(rule: RateRule, key: string): Count[] {
    const { per, points: standard, duration } = RATES[rule]
    const points = rates[rule] ?? standard
    if (per !== 'address') return [{ limit: { name: rule, points, duration }, key }]
    return countedNetworks(key).map(({ key: network, times }) => ({
      limit: { name: times === 1 ? rule : `${rule} × ${times}`, points: points * times, duration },
      key: network,
    }))
  }

  async function consume({ limit, key }: Count, points: number): Promise<number | null> {
    try {
      const all = await shared.counter()?.consume(limit, key, points)
      if (all !== undefined) return all
    } catch {
      // the counts of this process are there for that
    }
    return local.consume({ ...limit, points: Math.max(1, Math.floor(limit.points / shared.nodes())) }, key, points)
  }

  async function reward(counts: readonly Count[], points: number): Promise<void> {
    for (const { limit, key } of counts) {
      // one more that is counted is no harm
      await (shared.counter() ?? local).reward(limit, key, points).catch(() => {})
    }
  }

  return {
    async take(rule, key, points = 1) {
      if (key === null) return null
      const counts = countsOf(rule, key)
      for (const [i, count] of counts.entries()) {
        const wait = await consume(count, points)
        if (wait === null) continue
        // one that is above its own limit takes nothing from its neighbours
        await reward(counts.slice(0, i), points)
        return wait
      }
      return null
    },
    set(rule, points) {
      rates[rule] = points
    },
    async giveBack(rule, key) {
      if (key !== null) await reward(countsOf(rule, key), 1)
    },
  }
}
