import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { type RedisServer, startRedis } from '@sealpost/testing/components/redis'
import { openRedis, type RedisLink } from '../bus/redis-link.ts'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createRateLimits } from './rate-limits.ts'
import { createRedisCounter } from './redis-counter.ts'

describeWith(['redis-server'], 'R12: counts that nodes share in Redis', () => {
  let redis: RedisServer
  const links: RedisLink[] = []
  beforeAll(async () => {
    redis = await startRedis({ acl: true })
  })
  afterAll(async () => {
    for (const link of links) link.close()
    await redis?.stop()
  })

  async function open(relay = 'relay') {
    const link = openRedis({ mode: 'standalone', urls: [redis.url], master: '', sentinel_password: null }, silent)
    links.push(link)
    await expect.poll(() => link.commands.status).toBe('ready')
    return createRedisCounter(link, relay)
  }
  const limit = { name: 'genesis', points: 5, duration: 60 }

  it('two nodes let through together what one would, and say when there is more', async () => {
    const [a, b] = [await open(), await open()]
    const waits = await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? a : b).consume(limit, 'one', 1)))
    expect(waits.filter((wait) => wait === null)).toHaveLength(5)
    for (const wait of waits.filter((one) => one !== null)) {
      expect(wait).toBeGreaterThan(0)
      expect(wait).toBeLessThanOrEqual(60_000)
    }
    expect(await b.consume(limit, 'other', 5)).toBeNull()
  })

  it('what is given back can be taken again, and no more than that', async () => {
    const [a, b] = [await open(), await open()]
    for (let i = 0; i < 5; i++) expect(await a.consume(limit, 'two', 1)).toBeNull()
    await b.reward(limit, 'two', 1)
    await b.reward(limit, 'never counted', 3)
    expect(await b.consume(limit, 'two', 1)).toBeNull()
    expect(await a.consume(limit, 'two', 1)).not.toBeNull()
    expect(await a.consume(limit, 'never counted', 5)).toBeNull()
    expect(await a.consume(limit, 'never counted', 1)).not.toBeNull()
  })

  it('a limit that is set anew holds for keys that are being counted', async () => {
    const a = await open()
    for (let i = 0; i < 5; i++) expect(await a.consume(limit, 'three', 1)).toBeNull()
    expect(await a.consume({ ...limit, points: 8 }, 'three', 1)).toBeNull()
  })

  it('another relay on the same Redis counts for itself', async () => {
    const [a, other] = [await open(), await open('other')]
    expect(await a.consume(limit, 'four', 5)).toBeNull()
    expect(await other.consume(limit, 'four', 5)).toBeNull()
  })

  it('a key ends with its time', async () => {
    const a = await open()
    await a.consume({ ...limit, duration: 1 }, 'five', 5)
    await expect.poll(async () => (await redis.ask('keys', '*five*')) as string[], { timeout: 5_000 }).toEqual([])
  })

  it('the very first count may be asked for in the same turn as something else', async () => {
    const link = openRedis({ mode: 'standalone', urls: [redis.url], master: '', sentinel_password: null }, silent)
    links.push(link)
    await expect.poll(() => link.commands.status).toBe('ready')
    const counter = createRedisCounter(link, 'relay')
    // as the counter is made long before anybody asks
    await new Promise((resolve) => setImmediate(resolve))
    const other = link.commands.get('sealpost:relay:nothing')
    expect(await Promise.all([other, counter.consume(limit, 'seven', 5)])).toEqual([null, null])
    expect(await counter.consume(limit, 'seven', 1)).not.toBeNull()
  })

  it('while Redis is frozen a take is answered out of the counts of this node, after a second at most', async () => {
    const counter = await open()
    const limits = createRateLimits({ genesis: 6 }, { counter: () => counter, nodes: () => 2 })
    redis.freeze()
    try {
      const began = performance.now()
      const waits = await Promise.all(Array.from({ length: 5 }, () => limits.take('genesis', 'six')))
      expect(performance.now() - began).toBeLessThan(3_000)
      expect(waits.filter((wait) => wait === null)).toHaveLength(3)
    } finally {
      redis.thaw()
    }
  })
})
