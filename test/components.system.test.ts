/** The real components that other tests stand on: they answer, come back, and leave nothing behind. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import { Client } from 'pg'
import { describe, expect, test } from 'vitest'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { commandOf } from '@sealpost/testing/components/available'
import { isListening, waitUntil } from '@sealpost/testing/components/start-component'
import { startPgbouncer } from '@sealpost/testing/components/pgbouncer'
import { type ProxyConfig, startHaproxy, startNginx } from '@sealpost/testing/components/proxies'
import { startCluster, startRedis, startSentinel } from '@sealpost/testing/components/redis'
import { isFree } from '@sealpost/testing/components/free-port'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { createNet } from '@sealpost/testing/components/network-namespaces'
import { startProgram } from '@sealpost/testing/components/programs'

/** No process, no port, no folder. */
async function expectGone({ pid, port, folder }: { pid: number; port: number; folder: string }): Promise<void> {
  expect(existsSync(`/proc/${pid}`)).toBe(false)
  expect(existsSync(folder)).toBe(false)
  expect(await isFree(port)).toBe(true)
}

/** One that is a zombie is dead: whoever took it in has yet to look. */
function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

/** Also of links that are not up yet, which Node leaves out. */
function addressesHere(): string[] {
  return [...execFileSync(commandOf('ip'), ['-o', '-4', 'address', 'show'], { encoding: 'utf8' }).matchAll(/inet ([\d.]+)/g)].map(
    ([, address = '']) => address,
  )
}

type Backend = { port: number; asked: Promise<void>; answer(): void; end(): void }

/** Answers its name: at once, and on `/slow` when told to. */
async function startBackend(name: string, host = '127.0.0.1'): Promise<Backend> {
  const [asked, answered] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const server = createServer((request, response) => {
    if (request.url === '/slow') {
      asked.resolve()
      void answered.promise.then(() => response.end(name))
    } else response.end(name)
  })
  server.listen(0, host)
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    asked: asked.promise,
    answer: answered.resolve,
    end() {
      server.close()
      server.closeAllConnections()
    },
  }
}

async function read(url: string): Promise<string> {
  const response = await fetch(url, { headers: { connection: 'close' } })
  return response.text()
}

const haproxyFor =
  (backend: number): ProxyConfig =>
  ({ host, port }) =>
    `
global
  log stderr format raw local0 notice
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
listen relay
  bind ${host}:${port}
  server one 127.0.0.1:${backend}
`

const nginxFor =
  (backend: number): ProxyConfig =>
  ({ host, port }) =>
    `
worker_processes 1;
events { worker_connections 64; }
http {
  server {
    listen ${host}:${port};
    location / { proxy_pass http://127.0.0.1:${backend}; }
  }
}
`

const PROXIES = [
  ['haproxy', startHaproxy, haproxyFor],
  ['nginx', startNginx, nginxFor],
] as const

/** What a URL answers within a moment. */
const REACH = `fetch(process.argv[1], { signal: AbortSignal.timeout(3000) })
  .then((answer) => answer.text(), () => 'unreachable')
  .then((text) => process.stdout.write(text, () => process.exit()))`

/** Starts one of each and says which processes these are. */
const STARTER = `
import { startPgbouncer } from '${import.meta.resolve('@sealpost/testing/components/pgbouncer')}'
import { startHaproxy, startNginx } from '${import.meta.resolve('@sealpost/testing/components/proxies')}'
import { startRedis } from '${import.meta.resolve('@sealpost/testing/components/redis')}'
import { createNet } from '${import.meta.resolve('@sealpost/testing/components/network-namespaces')}'
const haproxy = ({ host, port }) => \`defaults
  mode http
  timeout connect 1s
  timeout client 1s
  timeout server 1s
listen relay
  bind \${host}:\${port}
\`
const nginx = ({ host, port }) => \`events {} http { server { listen \${host}:\${port}; } }\`
const net = await createNet()
const started = await Promise.all([
  startRedis({ at: net }),
  startPgbouncer({ database_url: 'postgresql://nobody@127.0.0.1/none' }),
  startHaproxy({ config: haproxy }),
  startNginx({ config: nginx }),
])
const inside = net.run('sh', ['-c', 'echo up && exec sleep 100'])
await inside.printed(/up/)
console.log('pids', [...started, inside].map(({ pid }) => pid).join(), 'at', net.links[0].outside)
`

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
      const answer = redis.ask('ping')
      expect(await Promise.race([answer, sleep(200, 'silence')])).toBe('silence')
      redis.thaw()
      expect(await answer).toBe('PONG')
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

  describeWith(['pgbouncer'], 'pgbouncer', () => {
    const database = useDatabase()

    test('passes queries to the PostgreSQL of the run, with a server connection for each transaction', async () => {
      await using pgbouncer = await startPgbouncer({ database_url: database.url, ini: ['default_pool_size = 1'] })
      const [one, other] = [new Client({ connectionString: pgbouncer.url }), new Client({ connectionString: pgbouncer.url })]
      await Promise.all([one.connect(), other.connect()])
      try {
        const backend = async (client: Client): Promise<unknown> => (await client.query('select pg_backend_pid() as pid')).rows
        expect(await backend(one)).toEqual(await backend(other))
        await one.query('begin')
        const waiting = other.query('select count(*)::int as accounts from account')
        await waitUntil('the other waits', async () => (await pgbouncer.ask('show pools')).some((pool) => Number(pool['cl_waiting']) > 0))
        await one.query('commit')
        expect((await waiting).rows).toEqual([{ accounts: 0 }])
      } finally {
        await Promise.all([one.end(), other.end()])
      }
      await pgbouncer.restart()
      expect(await pgbouncer.ask('show version')).toHaveLength(1)
      const last = { pid: pgbouncer.pid, port: pgbouncer.port, folder: pgbouncer.folder }
      await pgbouncer.stop()
      await expectGone(last)
    })
  })

  for (const [command, start, configFor] of PROXIES) {
    describeWith([command], command, () => {
      test('takes another configuration while a request of the old one goes on, refuses a bad one, comes back on its port', async () => {
        const [old, fresh] = [await startBackend('old'), await startBackend('fresh')]
        await using proxy = await start({ config: configFor(old.port) })
        try {
          const url = `http://127.0.0.1:${proxy.port}`
          expect(await read(`${url}/`)).toBe('old')
          const slow = read(`${url}/slow`)
          await old.asked
          await proxy.reload(configFor(fresh.port))
          expect(await read(`${url}/`)).toBe('fresh')
          old.answer()
          expect(await slow).toBe('old')
          await expect(proxy.reload(() => 'nonsense on;\n')).rejects.toThrow(/nonsense/)
          expect(await read(`${url}/`)).toBe('fresh')
          await proxy.restart()
          expect(await read(`${url}/`)).toBe('fresh')
          const last = { pid: proxy.pid, port: proxy.port, folder: proxy.folder }
          await proxy.stop()
          await expectGone(last)
        } finally {
          old.end()
          fresh.end()
        }
      })
    })
  }

  describeWith(['network namespaces', 'redis-server'], 'a private network', () => {
    test('a cut link stops traffic, a healed one lets it go on', async () => {
      await using net = await createNet()
      await using redis = await startRedis({ at: net })
      const client = new Redis({ host: net.host, port: redis.port, retryStrategy: () => null })
      client.on('error', () => {})
      try {
        expect(await client.incr('n')).toBe(1)
        for (const way of ['both', 'in', 'out'] as const) {
          await net.cut({ way })
          const late = client.incr('n')
          expect(await Promise.race([late, sleep(150, 'silence')])).toBe('silence')
          await net.heal()
          expect(await late).toBeGreaterThan(1)
        }
        await net.cut({ how: 'reject', port: redis.port })
        await expect(client.incr('n')).rejects.toThrow()
        expect(await isListening(redis.port, net.host)).toBe(false)
        await net.heal()
        expect(await redis.ask('get', 'n')).toBe('4')
      } finally {
        client.disconnect()
      }
    })

    test('each link is cut for itself, and a program inside reaches this machine over any of them', async () => {
      await using net = await createNet({ links: 2 })
      const server = await startBackend('outside', '0.0.0.0')
      try {
        const reach = async (link: number): Promise<string> => {
          const url = `http://${net.links[link]?.outside}:${server.port}/`
          return (await net.run(process.execPath, ['-e', REACH, url]).ended).stdout.toString()
        }
        await net.cut({ link: 0 })
        expect(await Promise.all([reach(0), reach(1)])).toEqual(['unreachable', 'outside'])
        await net.heal()
        await net.cut({ link: 1, way: 'out', how: 'reject' })
        expect(await Promise.all([reach(0), reach(1)])).toEqual(['outside', 'unreachable'])
      } finally {
        server.end()
      }
    })

    test('leaves neither link nor process when it is disposed', async () => {
      const net = await createNet()
      const { outside } = net.links[0] ?? { outside: '' }
      const inside = net.run('sleep', ['100'])
      expect(addressesHere()).toContain(outside)
      await net.dispose()
      expect((await inside.ended).signal).toBe('SIGKILL')
      expect(addressesHere()).not.toContain(outside)
      await net.dispose()
    })
  })

  describeWith(['redis-server', 'pgbouncer', 'haproxy', 'nginx', 'network namespaces'], 'all of them', () => {
    test('die with the process that started them, however that ends', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'sealpost-starter-'))
      const args = ['--conditions=development', '--input-type=module', '--eval', STARTER]
      try {
        using starter = startProgram(process.execPath, args, { env: { TMPDIR: folder } })
        const [, pids = '', outside = ''] = await starter.printed(/pids (\S+) at (\S+)/)
        const all = pids.split(',').map(Number)
        expect(all).toHaveLength(5)
        expect(all.every(isAlive)).toBe(true)
        process.kill(starter.pid, 'SIGKILL')
        await starter.ended
        await waitUntil('all are gone', async () => !all.some(isAlive) && !addressesHere().includes(outside), 5000)
      } finally {
        await rm(folder, { recursive: true, force: true })
      }
    })
  })
})
