import { describe, expect, it } from 'vitest'
import { createLoadShed, type Load } from './load.ts'
import { createMemoryCounter, createRateLimits, type LimitCounter } from './rate-limits.ts'
import { RATES, type RateRule } from './rules.ts'

describe('R12: rates', () => {
  it.each(Object.keys(RATES) as RateRule[])('%s: so many and no more, for each key by itself, with a time to come back', async (rule) => {
    const limits = createRateLimits({ [rule]: 3 })
    for (let i = 0; i < 3; i++) expect(await limits.take(rule, 'a')).toBeNull()
    const wait = await limits.take(rule, 'a')
    expect(wait).toBeGreaterThan(0)
    expect(wait).toBeLessThanOrEqual(RATES[rule].duration * 1_000)
    expect(await limits.take(rule, 'b')).toBeNull()
    expect(await limits.take(rule, null)).toBeNull()
    await limits.giveBack(rule, 'b')
    for (let i = 0; i < 3; i++) expect(await limits.take(rule, 'b')).toBeNull()
  })

  it('many points at once count as many', async () => {
    const limits = createRateLimits({ rest_user: 10 })
    expect(await limits.take('rest_user', 'a', 10)).toBeNull()
    expect(await limits.take('rest_user', 'a')).not.toBeNull()
  })

  it('a shared counter that fails is replaced by the counts of this process: tighter, never open', async () => {
    let down = false
    const counter = createMemoryCounter({ genesis: 5 })
    const shared: LimitCounter = {
      consume: (...args) => (down ? Promise.reject(new Error('gone')) : counter.consume(...args)),
      reward: () => Promise.reject(new Error('gone')),
    }
    const limits = createRateLimits({ genesis: 5 }, shared)
    expect(await limits.take('genesis', 'a')).toBeNull()
    await limits.giveBack('genesis', 'a')
    down = true
    for (let i = 0; i < 5; i++) expect(await limits.take('genesis', 'a')).toBeNull()
    expect(await limits.take('genesis', 'a')).not.toBeNull()
  })

  it('100,000 keys cost no more than the buckets of one rule', async () => {
    const counter = createMemoryCounter()
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < 100_000; i++) await counter.consume('mailbox', `key ${i}`, 1)
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(80 * 1_048_576)
  })
})

describe('R12: load is shed before the process collapses', () => {
  const good: Load = { loop_ms: 5, heap: 0.2, queues: 0 }
  function start() {
    const world = { now: 0, load: { ...good } }
    const shed = createLoadShed({ queues: () => world.load.queues, random: () => 0, read: () => world.load, now: () => world.now })
    shed.close()
    return { world, shed }
  }

  it.each<Partial<Load>>([{ loop_ms: 250 }, { heap: 0.95 }, { queues: 0.95 }])('new work is sent away at %o, with a time', (bad) => {
    const { world, shed } = start()
    shed.look()
    expect(shed.retryAfterMs()).toBeNull()
    world.load = { ...good, ...bad }
    for (world.now = 0; world.now <= 1_500; world.now += 500) shed.look()
    expect(shed.retryAfterMs()).toBe(2_000)
  })

  it('it comes in again a second after all is calm, and not before', () => {
    const { world, shed } = start()
    world.load = { ...good, queues: 1 }
    shed.look()
    for (const [now, loop_ms, sheds] of [
      [500, 5, true],
      [1_000, 200, true],
      [1_500, 5, true],
      [2_400, 5, true],
      [2_500, 5, false],
    ] as const) {
      world.now = now
      world.load = { ...good, loop_ms }
      shed.look()
      expect(shed.retryAfterMs() !== null).toBe(sheds)
    }
  })

  it('a loop that was late for a moment is not overloaded', () => {
    const { world, shed } = start()
    for (const [now, loop_ms] of [
      [0, 3_000],
      [500, 3_000],
      [1_000, 20],
      [1_500, 3_000],
      [2_500, 3_000],
    ] as const) {
      world.now = now
      world.load = { ...good, loop_ms }
      shed.look()
      expect(shed.retryAfterMs()).toBeNull()
    }
  })

  it('a loop that is really late is seen', async () => {
    const shed = createLoadShed({ queues: () => 0, random: () => 0.5 })
    try {
      // turn after turn, as work that never ends would do it
      const seen: (number | null)[] = []
      for (let turn = 0; turn < 12 && !seen.includes(3_000); turn++) {
        const until = performance.now() + 400
        while (performance.now() < until);
        await new Promise((resolve) => setTimeout(resolve, 1))
        seen.push(shed.retryAfterMs())
      }
      expect(seen).toContain(3_000)
      await expect.poll(() => shed.retryAfterMs(), { timeout: 10_000 }).toBeNull()
    } finally {
      shed.close()
    }
  })
})
