import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { arithmeticTable } from '../simulation/arithmetic.ts'
import { runHerds, runTraffic } from '../simulation/fan-out.ts'
import { HERD, type HerdOptions, simulateHerd } from '../simulation/herd.ts'
import { createRandom } from '../simulation/random.ts'
import { simulateTraffic, TRAFFIC, type TrafficReport } from '../simulation/traffic.ts'
import { makeWorld, nodeByUser, type Placement, shareOf, usersOf } from '../simulation/world.ts'

const SMALL = { devices: 6_000, nodes: 6, seed: 7, seconds: 2, events: 2_000 }

function run(placement: Placement, online = 1): TrafficReport {
  const random = createRandom(SMALL.seed)
  const world = makeWorld({ ...SMALL, placement, online }, random)
  return simulateTraffic(world, { ...TRAFFIC, seconds: SMALL.seconds, events_per_second: SMALL.events }, random)
}

describe('simulation of fan-out', () => {
  it('the same seed gives the same figures, another one others', () => {
    expect(runTraffic(SMALL)).toEqual(runTraffic(SMALL))
    expect(runHerds(SMALL)).toEqual(runHerds(SMALL))
    expect(runTraffic({ ...SMALL, seed: 8 })).not.toEqual(runTraffic(SMALL))
  })

  it('users have 1 to 20 devices, 3 on the average; all shares are 1 together', () => {
    const world = makeWorld({ devices: 60_000, nodes: 6, placement: 'random' }, createRandom(1))
    const sizes = Array.from({ length: usersOf(world) }, (_, user) => (world.firstDevice[user + 1] ?? 0) - (world.firstDevice[user] ?? 0))
    expect(Math.min(...sizes)).toBe(1)
    expect(Math.max(...sizes)).toBeLessThanOrEqual(20)
    expect(60_000 / sizes.length).toBeCloseTo(3, 1)
    expect(sizes.reduce((sum, _, user) => sum + shareOf(world, user), 0)).toBeCloseTo(1, 9)
  })

  it.each<[Placement, number]>([
    ['random', 1],
    ['random', 1 / 3],
    ['by_user', 1],
  ])('%s, %d online: every delivery is local or remote, every hint is an echo and goes to others or to nobody', (placement, online) => {
    const { deliveries, hints, copies, echoes, unheard, commits, events } = run(placement, online)
    expect(deliveries.local + deliveries.remote).toBe(deliveries.expected)
    expect(deliveries.expected).toBeGreaterThan(0)
    expect(echoes).toBe(hints)
    expect(copies - echoes).toBeGreaterThanOrEqual(hints - unheard)
    expect(commits).toBeLessThanOrEqual(hints)
    expect(events / SMALL.seconds / SMALL.events).toBeCloseTo(1, 0)
  })

  it('with the devices of a user on one node nothing is remote, and no hint is heard elsewhere; spread, most is remote', () => {
    const kept = run('by_user')
    expect(kept.deliveries.remote).toBe(0)
    expect([kept.copies, kept.unheard]).toEqual([kept.hints, kept.hints])
    const spread = run('random')
    expect(spread.deliveries.remote / spread.deliveries.expected).toBeCloseTo(5 / 6, 1)
  })

  it('a lost node moves its own users alone', () => {
    for (let user = 0; user < 500; user++) {
      const before = nodeByUser(user, 6)
      const after = nodeByUser(user, 6, (node) => node !== 0)
      if (before !== 0) expect(after).toBe(before)
    }
  })
})

describe('simulation of the herd', () => {
  const world = makeWorld({ devices: 6_000, nodes: 6, placement: 'random' }, createRandom(3))
  const herd = (options: Partial<HerdOptions>) =>
    simulateHerd(world, { ...HERD, dead: 1, failover: 'random', notice: 'reset', admitted_per_second: 100, ...options }, createRandom(3))

  it.each<Partial<HerdOptions>>([
    {},
    { failover: 'by_user' },
    { failover: 'next_node' },
    { notice: 'silence' },
    { dead: 3 },
    { pause: 'told' },
  ])('all are back, once each, and no node lets in more than its rate: %o', (options) => {
    const dead = options.dead ?? 1
    const { devices, attempts, refused, peak_per_node, seconds } = herd(options)
    expect(devices).toBe(world.nodeOf.filter((node) => node < dead).length)
    expect(attempts - refused).toBe(devices)
    // its rate, and the burst that was saved up
    expect(peak_per_node.admitted).toBeLessThanOrEqual(100 * 2 + 2)
    expect(seconds.all).toBeGreaterThanOrEqual(seconds.most)
  })

  it('one node for all takes as long as its rate says', () => {
    const { devices, seconds } = herd({ failover: 'next_node' })
    expect(seconds.all).toBeGreaterThan(devices / 100 - 2)
  })
})

it('the arithmetic on docs/operations/scale.md is that of simulation/arithmetic.ts', () => {
  expect(readFileSync(new URL('../docs/operations/scale.md', import.meta.url), 'utf8')).toContain(arithmeticTable())
})
