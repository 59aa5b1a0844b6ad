import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { type Cluster, type RedisServer, startCluster, startRedis } from '@sealpost/testing/components/redis'
import {
  arrives,
  busContract,
  type BusNode,
  closeNodes,
  collect,
  isUp,
  log,
  openNode,
  seqOf,
  STANDALONE,
} from '@sealpost/testing/relays/bus-nodes'
import type { RedisConfig } from './redis-link.ts'

describeWith(['redis-server'], 'over Redis', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis?.stop())
  const config = (): RedisConfig => ({ ...STANDALONE, urls: [redis.url] })
  const channels = async (): Promise<string[]> => (await redis.ask('pubsub', 'channels', 'sealpost:*')) as string[]

  busContract(async () => {
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

describeWith(['redis-server', 'redis-cli'], 'over a Cluster with TLS, as an ACL user', () => {
  const before = getCACertificates('default')
  afterEach(() => setDefaultCACertificates(before))

  it('hints of every master arrive', async () => {
    await using cluster = await startCluster({ tls: true, acl: true })
    setDefaultCACertificates([...before, cluster.nodes[0]?.ca ?? ''])
    expect(cluster.urls.every((url) => url.startsWith('rediss://relay:'))).toBe(true)
    await carry(cluster, 30)
    await closeNodes()
  })
})

describeWith(['redis-server', 'redis-cli'], 'over a Cluster of three masters', () => {
  let cluster: Cluster
  beforeAll(async () => {
    cluster = await startCluster({ full_coverage: false })
  })
  afterAll(() => cluster?.stop())

  busContract(async () => {
    const [a, b] = await openTwo(cluster)
    return [a.bus, b.bus]
  })

  it('every master carries the hints of its users, over two connections of a node', async () => {
    const leave = await carry(cluster, 300)
    for (const master of cluster.nodes) {
      expect(await userChannels(master)).toBeGreaterThan(50)
      expect(String(await master.ask('client', 'list')).match(/name=\S*sealpost/g)?.length).toBeLessThanOrEqual(4)
    }
    leave()
    await expect.poll(() => userChannelsOf(cluster)).toBe(0)
  })

  it('a master that is killed and comes back: all subscriptions are in force again', async () => {
    const [a, b] = await openTwo(cluster)
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
    const node = openNode(configOf(cluster))
    await expect.poll(() => node.link.commands.status).toBe('ready')
    // some beats
    await sleep(1_200)
    expect(node.bus.reach()).toBe('down')
    await cluster.nodes[0]?.ask('cluster', 'addslotsrange', ...slots)
    await isUp(node)
  })
})

const configOf = ({ urls }: Cluster): RedisConfig => ({ mode: 'cluster', urls, master: '', sentinel_password: null })

async function openTwo(cluster: Cluster): Promise<[BusNode, BusNode]> {
  const [a, b] = [openNode(configOf(cluster)), openNode(configOf(cluster))]
  await isUp(a, b)
  return [a, b]
}

/** A hint of each of so many users goes from one node to another. */
async function carry(cluster: Cluster, count: number): Promise<() => void> {
  const [a, b] = await openTwo(cluster)
  const users = Array.from({ length: count }, (_, i) => i)
  const there = users.map((user_no) => collect(b.bus, user_no))
  await expect.poll(() => userChannelsOf(cluster)).toBe(count)
  for (const user_no of users) a.bus.publish(user_no, log(user_no))
  await expect.poll(() => there.map(({ got }) => got.map(seqOf))).toEqual(users.map((user_no) => [user_no]))
  return () => there.forEach(({ leave }) => leave())
}

/** Of all masters. */
async function userChannelsOf({ nodes }: Cluster): Promise<number> {
  return (await Promise.all(nodes.map(userChannels))).reduce((sum, count) => sum + count)
}

async function userChannels(master: RedisServer): Promise<number> {
  const channels = (await master.ask('pubsub', 'shardchannels', 'sealpost:*')) as string[]
  return channels.filter((name) => !name.includes(':beat:')).length
}
