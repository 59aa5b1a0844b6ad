/** The real components that other tests stand on: they answer, come back, and leave nothing behind. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { Cluster, Redis } from 'ioredis'
import { describe, expect, test } from 'vitest'
import { isFree } from './support/components/lifecycle.ts'
import { startCluster, startRedis, startSentinel } from './support/components/redis.ts'
import { describeWith } from './support/components.ts'

/** No process, no port, no folder. */
async function expectGone({ pid, port, folder }: { pid: number; port: number; folder: string }): Promise<void> {
  expect(existsSync(`/proc/${pid}`)).toBe(false)
  expect(existsSync(folder)).toBe(false)
  expect(await isFree(port)).toBe(true)
}

describe.concurrent('components', () => {
  describeWith(['redis-server'], 'Redis', () => {
    test('comes back on its port, empty, and is gone after stop', async () => {
      await using redis = await startRedis()
      const before = { pid: redis.pid, port: redis.port }
      expect(await redis.ask('set', 'sealpost:a', '1')).toBe('OK')
      await redis.kill()
      expect(await isFree(redis.port)).toBe(true)
      await redis.restart()
      expect(redis.port).toBe(before.port)
      expect(redis.pid).not.toBe(before.pid)
      expect(await redis.ask('get', 'sealpost:a')).toBeNull()
      const last = { ...redis, pid: redis.pid }
      await redis.stop()
      await expectGone(last)
      await expect(redis.restart()).rejects.toThrow('stopped')
    })

    test('is silent while frozen and answers again when thawed', async () => {
      await using redis = await startRedis()
      redis.freeze()
      await expect(redis.ask('ping')).rejects.toThrow()
      redis.thaw()
      expect(await redis.ask('ping')).toBe('PONG')
    })

    test('says what it has against its configuration', async () => {
      await expect(startRedis({ config: ['no-such-setting yes'] })).rejects.toThrow('no-such-setting')
    })

    test('takes the ACL user over TLS, for what a relay needs and no more', async () => {
      await using redis = await startRedis({ acl: true, tls: true })
      const client = new Redis(redis.url, { tls: { ca: redis.ca ?? '' }, lazyConnect: true })
      try {
        await client.connect()
        const heard = once(client, 'message')
        const other = client.duplicate()
        await client.subscribe('sealpost:u:1')
        await other.publish('sealpost:u:1', 'hint')
        expect(await heard).toEqual(['sealpost:u:1', 'hint'])
        expect(await other.eval('return redis.call("incr", KEYS[1])', 1, 'sealpost:n')).toBe(1)
        await expect(other.get('another')).rejects.toThrow('NOPERM')
        await expect(other.flushall()).rejects.toThrow('NOPERM')
        other.disconnect()
      } finally {
        client.disconnect()
      }
    })
  })

  describeWith(['redis-server', 'redis-sentinel'], 'Sentinel', () => {
    test.each([1, 3] as const)('%i of them give the master role to the replica of a killed master', async (sentinels) => {
      await using redis = await startSentinel({ sentinels })
      const client = new Redis({ sentinels: [...redis.addresses], name: redis.name })
      client.on('error', () => {})
      try {
        await client.set('a', '1')
        const { killed, master, ms } = await redis.failOver()
        expect(master).not.toBe(killed)
        expect(ms).toBeLessThan(10_000)
        expect(await client.set('a', '2')).toBe('OK')
        expect(await master.ask('get', 'a')).toBe('2')
      } finally {
        client.disconnect()
      }
    })
  })

  describeWith(['redis-server', 'redis-cli'], 'Cluster', () => {
    test('takes a key in the slots of each master, and carries sharded messages', async () => {
      await using cluster = await startCluster({ acl: true })
      const { username, password } = new URL(cluster.urls[0] ?? '')
      const client = new Cluster([...cluster.addresses], { redisOptions: { username, password }, shardedSubscribers: true })
      try {
        for (let i = 0; i < 60; i++) await client.set(`sealpost:${i}`, 'x')
        const sizes = await Promise.all(cluster.nodes.map((node) => node.ask('dbsize') as Promise<number>))
        expect(Math.min(...sizes)).toBeGreaterThan(0)
        expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(60)

        const channels = Array.from({ length: 12 }, (_, i) => `sealpost:u:${i}`)
        const heard = new Set<string>()
        const all = new Promise<void>((resolve) => {
          client.on('smessage', (channel: string) => {
            if (heard.add(channel).size === channels.length) resolve()
          })
        })
        for (const channel of channels) await client.ssubscribe(channel)
        for (const channel of channels) await client.spublish(channel, 'hint')
        await all
      } finally {
        client.disconnect()
      }
      const nodes = cluster.nodes.map((node) => ({ pid: node.pid, port: node.port, folder: node.folder }))
      await cluster.stop()
      for (const node of nodes) await expectGone(node)
    })
  })
})
