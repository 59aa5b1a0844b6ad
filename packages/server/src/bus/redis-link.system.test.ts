/** Who is spoken to, and how: TLS, ACL users, certificates, Sentinel. What a Cluster carries is in `bus.test.ts`. */
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createServer, getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { type Certificate, makeCertificate } from '@sealpost/testing/components/certificate'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { type RedisServer, startRedis, startSentinel } from '@sealpost/testing/components/redis'
import { arrives, closeNodes, collect, isUp, log, openNode, seqOf, STANDALONE } from '@sealpost/testing/relays/bus-nodes'
import type { RedisConfig } from './redis-link.ts'

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
    await closeNodes()
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
