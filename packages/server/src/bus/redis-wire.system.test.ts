/** What happens to the bus while Redis fails; what it promises is in `bus.test.ts`. */
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { type RedisServer, startRedis } from '@sealpost/testing/components/redis'
import { listen } from '@sealpost/testing/components/listen'
import type { Reach } from '../ports/store.ts'
import { arrives, collect, isUp, log, openNode, seqOf, STANDALONE } from '@sealpost/testing/relays/bus-nodes'
import type { RedisConfig } from './redis-link.ts'

describeWith(['redis-server'], 'while Redis fails', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis?.stop())
  const config = (): RedisConfig => ({ ...STANDALONE, urls: [redis.url] })

  async function interrupted(fail: () => Promise<unknown>, heal: () => Promise<unknown>): Promise<void> {
    const [a, b] = [openNode(config()), openNode(config())]
    await isUp(a, b)
    const there = collect(b.bus, 7)
    await arrives(a.bus, there, 7)
    const told: Reach[] = []
    b.bus.onReach((reach) => told.push(reach))
    await fail()
    await expect.poll(() => told, { timeout: 5_000 }).toContain('down')
    const began = performance.now()
    for (let i = 0; i < 1_000; i++) a.bus.publish(7, log(i))
    // each would wait a second for its answer
    expect(performance.now() - began).toBeLessThan(3_000)
    const here = collect(b.bus, 8)
    await heal()
    await isUp(a, b)
    there.got.length = 0
    a.bus.publish(7, log(1))
    a.bus.publish(8, log(2))
    await expect.poll(() => [there.got.map(seqOf).at(-1), here.got.map(seqOf)]).toEqual([1, [2]])
    expect(told.at(-1)).toBe('up')
  }

  it('a server that is killed and comes back: nothing blocks, and all subscriptions are in force again', () =>
    interrupted(
      () => redis.kill(),
      () => redis.restart(),
    ))

  it('a server that is frozen, connections and all, is noticed', () =>
    interrupted(
      async () => redis.freeze(),
      async () => redis.thaw(),
    ))

  it('what it sent itself and was long on its way does not make it up: hints that are published then arrive', async () => {
    await using way = await startDetour(redis)
    const [far, near] = [openNode({ ...STANDALONE, urls: [way.url] }), openNode(config())]
    await isUp(far, near)
    const there = collect(near.bus, 12)
    await arrives(far.bus, there, 12)
    const told: Reach[] = []
    far.bus.onReach((reach) => {
      told.push(reach)
      if (reach === 'up') far.bus.publish(12, log(1))
    })
    // commands are published over one connection, and what is published comes over the other
    way.hold((said) => !said.includes('sealpost-bus'))
    const anew = once(far.link.subscriber, 'close').then(() => once(far.link.subscriber, 'ready'))
    await expect.poll(() => told, { timeout: 5_000 }).toEqual(['down'])
    await anew
    await expect.poll(async () => ((await redis.ask('pubsub', 'channels', '*:beat:*')) as string[]).length).toBe(2)
    await sleep(50)
    way.release()
    await expect.poll(() => there.got.map(seqOf), { timeout: 5_000 }).toEqual([1])
    expect(told).toEqual(['down', 'up'])
  })

  it('a start without Redis is one that is down, and up when Redis comes', async () => {
    await redis.kill()
    const node = openNode(config())
    const here = collect(node.bus, 9)
    node.bus.publish(9, log(1))
    expect([node.bus.reach(), here.got.map(seqOf)]).toEqual(['down', [1]])
    await redis.restart()
    await isUp(node)
  })
})

type Detour = { url: string; hold(which: (said: string) => boolean): void; release(): void; [Symbol.asyncDispose](): Promise<void> }

/** A way to a server on which what is said can be held up: on those connections that are there and are of these, by what they said so far. */
async function startDetour({ host, port }: RedisServer): Promise<Detour> {
  type Way = { said: string; held: (() => void)[] | null }
  const ways = new Set<Way>()
  const server = createServer({ allowHalfOpen: true }, (front) => {
    const way: Way = { said: '', held: null }
    const back = connect({ host, port, allowHalfOpen: true })
    const go = (step: () => void): void => void (way.held === null ? step() : way.held.push(step))
    ways.add(way)
    front.on('data', (data) => {
      way.said += data.toString('latin1')
      go(() => back.write(data))
    })
    front.on('end', () => go(() => back.end()))
    front.on('error', () => go(() => back.destroy())).on('close', () => go(() => back.end()))
    back.pipe(front)
    back.on('error', () => front.destroy())
  })
  const { port: own, end } = await listen(server)
  const release = (): void => {
    for (const way of ways) {
      const steps = way.held ?? []
      way.held = null
      for (const step of steps) step()
    }
  }
  return {
    url: `redis://127.0.0.1:${own}`,
    hold(which) {
      for (const way of ways) if (which(way.said)) way.held = []
    },
    release,
    [Symbol.asyncDispose]() {
      release()
      end()
      return Promise.resolve()
    },
  }
}
