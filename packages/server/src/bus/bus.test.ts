import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { type AddressInfo, connect, createServer as createNetServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createServer, getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Certificate, makeCertificate } from '../../../../test/support/certificate.ts'
import { describeWith } from '../../../../test/support/components.ts'
import { type Cluster, type RedisServer, startCluster, startRedis, startSentinel } from '../../../../test/support/components/redis.ts'
import { listen } from '../../../../test/support/listen.ts'
import type { Bus, Hint, Reach, StoredEvent } from '../ports.ts'
import { silent } from '../testing/log.ts'
import { createWireHub, openIpcWire } from '../workers/ipc-wire.ts'
import { createMemoryBus } from './memory-bus.ts'
import { openBus } from './open-bus.ts'
import { openRedis, type RedisConfig, type RedisLink } from './redis-link.ts'
import { openRedisWire } from './redis-wire.ts'

const KEY = randomBytes(32)
const HISTORY = randomBytes(32).toString('base64url')
const STANDALONE = { mode: 'standalone', master: '', sentinel_password: null } as const

const log = (log_seq: number): Hint => ({ is: 'log', history_id: HISTORY, log_seq, revoked: [] })
const seqOf = (hint: Hint): number => (hint.is === 'log' ? hint.log_seq : -1)

function event(position: number, size = 100): StoredEvent {
  const numbers = { position, stream_seq: position, received_at: 1_795_000_000_000, device_no: 2, device_seq: 2 ** 52 + 1, stream_no: 3 }
  return { ...numbers, flags: 2, client: randomBytes(size) }
}

const EVERY_HINT: Hint[] = [
  { is: 'committed', history_id: HISTORY, events: [event(2 ** 40 + 5), event(7, 0), event(1, 700_000)] },
  { is: 'log', history_id: HISTORY, log_seq: 7, revoked: ['a', 'b'] },
  { is: 'device', device_id: 'd' },
  { is: 'device', device_id: 'd', session_id: 's' },
  { is: 'presence', device_id: 'd', online: true, last_seen: 5 },
  { is: 'presence', device_id: 'd', online: false, last_seen: 5, suspended: true },
  { is: 'deleted' },
]

type Node = { bus: Bus; link: RedisLink; close(): Promise<void> }

/** Ended after the test. */
const open: Node[] = []

function openNode(config: RedisConfig, { relay = 'relay', key = KEY }: { relay?: string; key?: Uint8Array } = {}): Node {
  const link = openRedis(config, silent)
  const bus = openBus(openRedisWire(link, relay, silent), key, silent)
  const node = {
    bus,
    link,
    async close() {
      await bus.close()
      link.close()
    },
  }
  open.push(node)
  return node
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((node) => node.close()))
})

const isUp = (...nodes: Node[]): Promise<void> =>
  expect.poll(() => nodes.map((node) => node.bus.reach()), { timeout: 15_000 }).toEqual(nodes.map(() => 'up'))

function collect(bus: Bus, user_no: number): { got: Hint[]; leave(): void } {
  const got: Hint[] = []
  return { got, leave: bus.subscribe(user_no, (hint) => got.push(hint)) }
}

/** A subscription takes its way to the server: what is published from then on arrives. */
async function arrives(from: Bus, to: { got: Hint[] }, user_no: number): Promise<void> {
  await expect
    .poll(() => {
      from.publish(user_no, { is: 'device', device_id: 'here?' })
      return to.got.length
    })
    .toBeGreaterThan(0)
  let before = -1
  await expect
    .poll(() => {
      const still = to.got.length === before
      before = to.got.length
      return still
    })
    .toBe(true)
  to.got.length = 0
}

/** What holds for every bus; `pair`: two nodes of one relay. */
function contract(pair: () => Promise<[Bus, Bus]>): void {
  const user_no = randomInt(2 ** 40)

  it('R10: a hint reaches every subscriber of its user on every node once, nobody else, and nobody after the end', async () => {
    const [a, b] = await pair()
    const [here, too, there, other] = [collect(a, user_no), collect(a, user_no), collect(b, user_no), collect(b, user_no + 1)]
    if (a !== b) await arrives(a, there, user_no)
    here.got.length = 0
    too.got.length = 0
    a.publish(user_no, log(1))
    expect([here.got, too.got].map((got) => got.map(seqOf))).toEqual([[1], [1]])
    await expect.poll(() => there.got.map(seqOf)).toEqual([1])
    here.leave()
    here.leave()
    b.publish(user_no, log(2))
    await expect.poll(() => too.got.map(seqOf)).toEqual([1, 2])
    expect([here, there, other].map(({ got }) => got.map(seqOf))).toEqual([[1], [1, 2], []])
  })

  it('keeps the order of a user from one node, whatever the hint is, to the last byte', async () => {
    const [a, b] = await pair()
    const there = collect(b, user_no)
    if (a !== b) await arrives(a, there, user_no)
    for (const hint of EVERY_HINT) a.publish(user_no, hint)
    for (let i = 0; i < 200; i++) a.publish(user_no, log(i))
    await expect.poll(() => there.got.length).toBe(EVERY_HINT.length + 200)
    expect(there.got.slice(0, EVERY_HINT.length)).toEqual(EVERY_HINT)
    expect(there.got.slice(EVERY_HINT.length).map(seqOf)).toEqual(Array.from({ length: 200 }, (_, i) => i))
  })

  it('goes on after a subscriber that throws, and keeps one order for hints that are published meanwhile', async () => {
    const [a] = await pair()
    const got: number[] = []
    a.subscribe(user_no, (hint) => {
      if (seqOf(hint) === 1) a.publish(user_no, log(2))
      throw new Error('no')
    })
    a.subscribe(user_no, (hint) => got.push(seqOf(hint)))
    a.publish(user_no, log(1))
    expect(got).toEqual([1, 2])
  })

  it('takes hints in silence after its end', async () => {
    const [a] = await pair()
    const here = collect(a, user_no)
    await a.close()
    a.publish(user_no, log(1))
    here.leave()
    expect([here.got, a.subscriptions()]).toEqual([[], 0])
  })
}

describe('in memory', () => {
  contract(async () => {
    const bus = createMemoryBus()
    return [bus, bus]
  })

  it('is alone', () => {
    expect(createMemoryBus().reach()).toBe('alone')
  })
})

describe('between workers of one machine', () => {
  contract(() => {
    const hub = createWireHub()
    const openWorker = (): Bus => {
      const [worker, primary] = duplexPair()
      hub.add(primary)
      return openBus(openIpcWire(worker), KEY, silent)
    }
    return Promise.resolve([openWorker(), openWorker()])
  })
})

describeWith(['redis-server'], 'over Redis', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis?.stop())
  const config = (): RedisConfig => ({ ...STANDALONE, urls: [redis.url] })
  const channels = async (): Promise<string[]> => (await redis.ask('pubsub', 'channels', 'sealpost:*')) as string[]

  contract(async () => {
    const [a, b] = [openNode(config()), openNode(config())]
    await isUp(a, b)
    return [a.bus, b.bus]
  })

  it('G13: gives every subscription back, also of those that ended while Redis was away: none after 10,000', async () => {
    const node = openNode(config())
    await isUp(node)
    const beats = (await channels()).length
    for (let round = 0; round < 20; round++) {
      const users = Array.from({ length: 500 }, (_, i) => round * 500 + i)
      const leaves = users.map((user_no) => [node.bus.subscribe(user_no, () => {}), node.bus.subscribe(user_no, () => {})])
      expect(node.bus.subscriptions()).toBe(users.length)
      if (round % 4 === 2) await redis.ask('client', 'kill', 'type', 'pubsub')
      for (const leave of leaves.flat()) leave()
      expect(node.bus.subscriptions()).toBe(0)
    }
    await isUp(node)
    await expect.poll(async () => (await channels()).length, { timeout: 10_000 }).toBe(beats)
    await node.close()
    await expect.poll(channels, { timeout: 10_000 }).toEqual([])
  })

  it('has two connections, however many users there are', async () => {
    const node = openNode(config())
    await isUp(node)
    for (let user_no = 0; user_no < 1_000; user_no++) node.bus.subscribe(user_no, () => {})
    await expect.poll(async () => (await channels()).length).toBe(1_001)
    const clients = String(await redis.ask('client', 'list')).match(/name=sealpost/g)
    expect(clients).toHaveLength(2)
  })

  it('does not hear another relay on the same Redis, nor what nobody of the relay made', async () => {
    const [own, foreign, forger] = [
      openNode(config()),
      openNode(config(), { relay: 'other' }),
      openNode(config(), { key: randomBytes(32) }),
    ]
    await isUp(own, foreign, forger)
    const own2 = openNode(config())
    await isUp(own2)
    const here = collect(own.bus, 5)
    await arrives(own2.bus, here, 5)
    foreign.bus.publish(5, log(1))
    forger.bus.publish(5, log(2))
    const [channel] = (await channels()).filter((name) => name.endsWith(':5'))
    for (const junk of ['', 'x', randomBytes(200).toString('latin1')]) await redis.ask('publish', channel ?? '', junk)
    // what was made for one user is nothing for another
    const message = new Promise<Buffer>((resolve) => own2.link.subscriber.once('messageBuffer', (_: Buffer, body: Buffer) => resolve(body)))
    own2.bus.subscribe(6, () => {})
    await expect.poll(async () => (await channels()).some((name) => name.endsWith(':6'))).toBe(true)
    own.bus.publish(6, log(3))
    await redis.ask('publish', channel ?? '', (await message).toString('latin1'))
    own2.bus.publish(5, log(4))
    await expect.poll(() => here.got.map(seqOf)).toEqual([4])
  })
})

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

describeWith(['redis-server'], 'over TLS, as an ACL user', () => {
  let redis: RedisServer
  const before = getCACertificates('default')
  beforeAll(async () => {
    redis = await startRedis({ tls: true, acl: true })
  })
  afterAll(() => redis?.stop())
  afterEach(() => setDefaultCACertificates(before))

  it('may do what a relay does, and nothing goes without TLS', async () => {
    setDefaultCACertificates([...before, redis.ca ?? ''])
    expect(redis.url).toMatch(/^rediss:/)
    const plain = openNode({ ...STANDALONE, urls: [redis.url.replace('rediss:', 'redis:')] })
    const [a, b] = [openNode({ ...STANDALONE, urls: [redis.url] }), openNode({ ...STANDALONE, urls: [redis.url] })]
    await isUp(a, b)
    const there = collect(b.bus, 3)
    await arrives(a.bus, there, 3)
    a.bus.publish(3, log(1))
    await expect.poll(() => there.got.map(seqOf)).toEqual([1])
    expect(plain.bus.reach()).toBe('down')
    const clients = String(await redis.ask('client', 'list')).match(/name=sealpost/g)
    expect(clients).toHaveLength(4)
  })

  it('a server whose certificate nobody vouches for is never spoken to', async () => {
    const node = openNode({ ...STANDALONE, urls: [redis.url] })
    await sleep(1_000)
    expect(node.bus.reach()).toBe('down')
    // the user of `ask` is the default one
    expect(String(await redis.ask('acl', 'log'))).toBe('')
    expect(String(await redis.ask('client', 'list'))).not.toMatch(/name=sealpost|user=relay/)
    setDefaultCACertificates([...before, redis.ca ?? ''])
    await isUp(node)
  })

  it.each([
    ['of another authority', '127.0.0.1', false, 'never'],
    ['for another host', '127.0.0.2', true, 'never'],
    ['that is as it should be', '127.0.0.1', true, 'at once'],
  ])('a server with a certificate %s (%s, trusted: %s) is told the password %s', async (_, host, trusted, when) => {
    const certificate = makeCertificate(new Date(Date.now() - 60_000), new Date(Date.now() + 3_600_000))
    if (trusted) setDefaultCACertificates([...before, certificate.cert])
    await using stranger = await startStranger(certificate, host)
    const node = openNode({ ...STANDALONE, urls: [`rediss://relay:secret@${host}:${stranger.port}`] })
    await expect.poll(() => stranger.met()).toBeGreaterThan(3)
    if (when === 'never') expect(stranger.heard()).toBe('')
    else expect(stranger.heard()).toContain('secret')
    expect(node.bus.reach()).toBe('down')
  })

  it.each([
    ['localhost', 'told'],
    // a name that leads to the address in the certificate, and is not in it
    ['127.1', 'not told'],
  ])('of a Cluster the certificate has to name what the URL says, not the address behind it: %s is %s the password', async (host, is) => {
    const certificate = makeCertificate(new Date(Date.now() - 60_000), new Date(Date.now() + 3_600_000))
    setDefaultCACertificates([...before, certificate.cert])
    await using stranger = await startStranger(certificate, '127.0.0.1')
    openNode({ mode: 'cluster', urls: [`rediss://relay:secret@${host}:${stranger.port}`], master: '', sentinel_password: null })
    await expect.poll(() => stranger.met()).toBeGreaterThan(1)
    if (is === 'told') await expect.poll(() => stranger.heard()).toContain('secret')
    else expect(stranger.heard()).toBe('')
  })
})

type Stranger = { port: number; met(): number; heard(): string; [Symbol.asyncDispose](): Promise<void> }

/** Speaks TLS, and answers nothing to what it is told. */
async function startStranger({ key, cert }: Certificate, host: string): Promise<Stranger> {
  const sockets = new Set<Socket>()
  let met = 0
  let heard = ''
  const server = createServer({ key, cert })
  server.on('connection', (socket: Socket) => {
    met += 1
    sockets.add(socket.on('error', () => {}))
  })
  server.on('tlsClientError', () => {})
  server.on('secureConnection', (socket) => {
    socket.on('error', () => {})
    socket.on('data', (data) => {
      heard += data.toString()
      socket.destroy()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  return {
    port: (server.address() as AddressInfo).port,
    met: () => met,
    heard: () => heard,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

type Detour = { url: string; hold(which: (said: string) => boolean): void; release(): void; [Symbol.asyncDispose](): Promise<void> }

/** A way to a server on which what is said can be held up: on those connections that are there and are of these, by what they said so far. */
async function startDetour({ host, port }: RedisServer): Promise<Detour> {
  type Way = { said: string; held: (() => void)[] | null }
  const ways = new Set<Way>()
  const server = createNetServer({ allowHalfOpen: true }, (front) => {
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

describeWith(['redis-server', 'redis-sentinel'], 'over Sentinel', () => {
  const before = getCACertificates('default')
  afterEach(() => setDefaultCACertificates(before))

  it.each([
    ['', false],
    [' over TLS, as an ACL user, past sentinels with a password of their own', true],
  ])('goes on with the new master%s', async (_, secured) => {
    await using group = await startSentinel({ secured })
    const { ca, url } = group.servers[0]
    if (ca !== null) setDefaultCACertificates([...before, ca])
    expect(url).toMatch(secured ? /^rediss:\/\/relay:/ : /^redis:\/\/127/)
    const urls = group.addresses.map((address) => Object.assign(new URL(url), { port: address.port }).href)
    const config: RedisConfig = { mode: 'sentinel', urls, master: group.name, sentinel_password: group.sentinel_password }
    const [a, b] = [openNode(config), openNode(config)]
    await isUp(a, b)
    const there = collect(b.bus, 4)
    await arrives(a.bus, there, 4)
    await group.failOver()
    await isUp(a, b)
    await arrives(a.bus, there, 4)
    a.bus.publish(4, log(1))
    await expect.poll(() => there.got.map(seqOf)).toEqual([1])
    await Promise.all(open.splice(0).map((node) => node.close()))
  })
})

describeWith(['redis-server', 'redis-cli'], 'over a Cluster with TLS, as an ACL user', () => {
  const before = getCACertificates('default')
  afterEach(() => setDefaultCACertificates(before))

  it('hints of every master arrive', async () => {
    await using cluster = await startCluster({ tls: true, acl: true })
    setDefaultCACertificates([...before, cluster.nodes[0]?.ca ?? ''])
    expect(cluster.urls.every((url) => url.startsWith('rediss://relay:'))).toBe(true)
    const config: RedisConfig = { mode: 'cluster', urls: cluster.urls, master: '', sentinel_password: null }
    const [a, b] = [openNode(config), openNode(config)]
    await isUp(a, b)
    const users = Array.from({ length: 30 }, (_, i) => i)
    const there = users.map((user_no) => collect(b.bus, user_no))
    await expect.poll(async () => userChannelsOf(cluster)).toBe(30)
    for (const user_no of users) a.bus.publish(user_no, log(user_no))
    await expect.poll(() => there.map(({ got }) => got.map(seqOf))).toEqual(users.map((user_no) => [user_no]))
    await Promise.all(open.splice(0).map((node) => node.close()))
  })
})

describeWith(['redis-server', 'redis-cli'], 'over a Cluster of three masters', () => {
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await startCluster({ full_coverage: false })
  })
  afterAll(() => cluster?.stop())
  const config = (): RedisConfig => ({ mode: 'cluster', urls: cluster.urls, master: '', sentinel_password: null })

  contract(async () => {
    const [a, b] = [openNode(config()), openNode(config())]
    await isUp(a, b)
    return [a.bus, b.bus]
  })

  it('every master carries the hints of its users, over two connections of a node', async () => {
    const [a, b] = [openNode(config()), openNode(config())]
    await isUp(a, b)
    const users = Array.from({ length: 300 }, (_, i) => i)
    const there = users.map((user_no) => collect(b.bus, user_no))
    await expect.poll(async () => userChannelsOf(cluster)).toBe(300)
    for (const user_no of users) a.bus.publish(user_no, log(user_no))
    await expect.poll(() => there.map(({ got }) => got.map(seqOf))).toEqual(users.map((user_no) => [user_no]))
    for (const master of cluster.nodes) {
      expect(await userChannels(master)).toBeGreaterThan(50)
      expect(String(await master.ask('client', 'list')).match(/name=\S*sealpost/g)?.length).toBeLessThanOrEqual(4)
    }
    for (const { leave } of there) leave()
    await expect.poll(async () => userChannelsOf(cluster)).toBe(0)
  })

  it('a master that is killed and comes back: all subscriptions are in force again', async () => {
    const [a, b] = [openNode(config()), openNode(config())]
    await isUp(a, b)
    const users = Array.from({ length: 30 }, (_, i) => i)
    const there = users.map((user_no) => collect(b.bus, user_no))
    const [first] = cluster.nodes
    await first?.kill()
    await expect.poll(() => b.bus.reach(), { timeout: 10_000 }).toBe('down')
    await first?.restart()
    await isUp(a, b)
    for (const user_no of users) a.bus.publish(user_no, log(user_no))
    await expect.poll(() => there.map(({ got }) => got.map(seqOf).at(-1))).toEqual(users)
  })

  it('a start while some slots have no master throws nothing, and is up when they have one', async () => {
    const slots = [0, 5_460] as const
    await Promise.all(cluster.nodes.map((master) => master.ask('cluster', 'delslotsrange', ...slots)))
    const node = openNode(config())
    await expect.poll(() => node.link.commands.status).toBe('ready')
    // some beats
    await sleep(1_200)
    expect(node.bus.reach()).toBe('down')
    await cluster.nodes[0]?.ask('cluster', 'addslotsrange', ...slots)
    await isUp(node)
  })
})

/** Of all masters. */
async function userChannelsOf({ nodes }: Cluster): Promise<number> {
  return (await Promise.all(nodes.map(userChannels))).reduce((sum, count) => sum + count)
}

async function userChannels(master: RedisServer): Promise<number> {
  const channels = (await master.ask('pubsub', 'shardchannels', 'sealpost:*')) as string[]
  return channels.filter((name) => !name.includes(':beat:')).length
}
