import { afterEach, describe, expect, it, vi } from 'vitest'
import { createLoadShed, type Load } from './load.ts'
import { createMemoryCounter, KEYS_MAX } from './memory-counter.ts'
import type { Limit, LimitCounter } from './counter.ts'
import { createRateLimits, type RateLimits, type Rates } from './rate-limits.ts'
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
    const counter = createMemoryCounter()
    const shared: LimitCounter = {
      consume: (...args) => (down ? Promise.reject(new Error('gone')) : counter.consume(...args)),
      reward: () => Promise.reject(new Error('gone')),
    }
    const limits = createRateLimits({ genesis: 5 }, { counter: () => shared, nodes: () => 1 })
    expect(await limits.take('genesis', 'a')).toBeNull()
    await limits.giveBack('genesis', 'a')
    down = true
    for (let i = 0; i < 5; i++) expect(await limits.take('genesis', 'a')).toBeNull()
    expect(await limits.take('genesis', 'a')).not.toBeNull()
  })

  it('without a shared counter each node has its part of the rate, and one at least', async () => {
    let nodes = 3
    const limits = createRateLimits({ genesis: 10, export: 2 }, { counter: () => null, nodes: () => nodes })
    for (let i = 0; i < 3; i++) expect(await limits.take('genesis', 'a')).toBeNull()
    expect(await limits.take('genesis', 'a')).not.toBeNull()
    expect([await limits.take('export', 'a'), await limits.take('export', 'a')]).toEqual([null, expect.any(Number)])
    nodes = 1
    for (let i = 0; i < 6; i++) expect(await limits.take('genesis', 'a')).toBeNull()
    expect(await limits.take('genesis', 'a')).not.toBeNull()
  })

  it('an exempt key is never counted', async () => {
    const limits = createRateLimits()
    for (let i = 0; i < 50; i++) expect(await limits.take('genesis', null)).toBeNull()
  })
})

describe('R12: an IPv6 owner has many addresses, and neither many times the rate nor the rate of others', () => {
  /** How many takes are let through, from so many addresses each of so many networks. */
  async function takeAll(limits: RateLimits, networks: number, addresses: number, networkOf: (i: number) => string): Promise<number> {
    let taken = 0
    for (let i = 0; i < networks; i++)
      for (let j = 0; j < addresses; j++) if ((await limits.take('genesis', `${networkOf(i)}:${j.toString(16)}::/64`)) === null) taken++
    return taken
  }

  it('a /48 has 16 times the rate of an address, a /32 has 256 times', async () => {
    const limits = createRateLimits({ genesis: 2 })
    expect(await takeAll(limits, 1, 100, () => '2001:db8:1')).toBe(32)
    expect(await takeAll(limits, 100, 32, (i) => `2001:db8:a${i}`)).toBe(512 - 32)
    expect(await takeAll(limits, 1, 100, () => '2001:db9:1')).toBe(32)
  })

  it('10 accounts from each of 8,192 addresses of a /48 are 160, and close sign-up to nobody else', async () => {
    const limits = createRateLimits()
    let taken = 0
    for (let i = 0; i < 8_192; i++)
      for (let j = 0; j < 10; j++) if ((await limits.take('genesis', `2001:db8:1:${i.toString(16)}::/64`)) === null) taken++
    expect(taken).toBe(160)
    expect(await limits.take('genesis', '2001:db8:1:abcd::/64')).toBeLessThanOrEqual(3_600_000)
    let refused = 0
    for (let i = 0; i < 20_000; i++) if ((await limits.take('genesis', `198.${i >> 8}.${i & 255}.1`)) !== null) refused++
    expect(refused).toBe(0)
  })

  it('what one address is refused is not counted for its neighbours', async () => {
    const limits = createRateLimits({ rest_address: 2 })
    for (let i = 0; i < 100; i++) await limits.take('rest_address', '2001:db8:1:1::/64')
    for (let i = 0; i < 15; i++) expect(await limits.take('rest_address', `2001:db8:1:a${i}::/64`, 2)).toBeNull()
    expect(await limits.take('rest_address', '2001:db8:1:b::/64')).not.toBeNull()
  })

  it('what is given back is given back to the networks too', async () => {
    const limits = createRateLimits({ mailbox_miss: 1 })
    for (let i = 0; i < 300; i++) {
      expect(await limits.take('mailbox_miss', '2001:db8:1:1::/64')).toBeNull()
      await limits.giveBack('mailbox_miss', '2001:db8:1:1::/64')
    }
    for (let i = 0; i < 16; i++) expect(await limits.take('mailbox_miss', `2001:db8:1:${i}::/64`)).toBeNull()
  })
})

describe('R12: keys are counted by themselves, in bounded memory', () => {
  const limit: Limit = { name: 'x', points: 1, duration: 60 }
  afterEach(() => {
    vi.useRealTimers()
  })

  it('only what is above the bound shares buckets; what was counted before does not', async () => {
    const counter = createMemoryCounter()
    for (let i = 0; i < KEYS_MAX; i++) expect(await counter.consume(limit, `key ${i}`, 1)).toBeNull()
    let shared = 0
    for (let i = 0; i < 10_000; i++) if ((await counter.consume(limit, `more ${i}`, 1)) !== null) shared++
    expect(shared).toBeGreaterThan(0)
    for (let i = 0; i < KEYS_MAX; i += 1_000) {
      await counter.reward(limit, `key ${i}`, 1)
      expect(await counter.consume(limit, `key ${i}`, 1)).toBeNull()
      expect(await counter.consume(limit, `key ${i}`, 1)).not.toBeNull()
    }
    expect(await counter.consume({ ...limit, name: 'y' }, 'more 1', 1)).toBeNull()
  })

  it('a limit that is set anew holds for what was counted', async () => {
    const rates: Rates = { export: 3 }
    const limits = createRateLimits(rates)
    for (let i = 0; i < 3; i++) expect(await limits.take('export', 'a')).toBeNull()
    expect(await limits.take('export', 'a')).not.toBeNull()
    limits.set('export', 5)
    expect(await limits.take('export', 'a')).toBeNull()
    limits.set('export', 1)
    expect(await limits.take('export', 'a')).not.toBeNull()
  })

  it('there is room again when counts are over', async () => {
    vi.useFakeTimers({ now: 1_000_000, toFake: ['Date'] })
    const counter = createMemoryCounter()
    let refused = 0
    for (let i = 0; i < 2 * KEYS_MAX; i++) if ((await counter.consume(limit, `key ${i}`, 1)) !== null) refused++
    expect(refused).toBeGreaterThan(0)
    vi.setSystemTime(1_060_001)
    for (let i = 0; i < KEYS_MAX; i++) expect(await counter.consume(limit, `new ${i}`, 1)).toBeNull()
    // of a count that is over there is nothing to give back
    vi.setSystemTime(1_120_002)
    await counter.reward(limit, 'new 1', 1)
    expect(await counter.consume(limit, 'new 1', 1)).toBeNull()
    expect(await counter.consume(limit, 'new 1', 1)).not.toBeNull()
  })

  it('600,000 keys cost no more than the bound', async () => {
    const counter = createMemoryCounter()
    const sample = (): number => process.memoryUsage().heapUsed
    const before = sample()
    let most = 0
    for (let i = 0; i < 600_000; i++) {
      await counter.consume({ ...limit, points: 1_000 }, `key ${i}`, 1)
      if (i % 20_000 === 0) most = Math.max(most, sample() - before)
    }
    // one that keeps them all has 200 MiB and more
    expect(most).toBeLessThan(120 * 1_048_576)
    expect(await counter.consume({ ...limit, points: 1_000 }, 'key 1', 1)).toBeNull()
  }, 60_000)
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
