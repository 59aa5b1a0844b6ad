/**
 * Links that are cut (docs/operations/nodes.md, "When something fails"): two nodes over one database and one Redis, of which one is in a
 * network of its own: devices reach it over one link, it reaches Redis over another and the database over a third. Each part has its own
 * such node. PostgreSQL listens on a Unix socket, which no network cuts, so pgbouncer is before it.
 */
import { decodeAcks, decodeRecords } from '@sealpost/protocol'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, type ExpectStatic, it } from 'vitest'
import type { TestAccount } from '@sealpost/testing/clients/store-accounts'
import { type AdminNode, useAdminServer } from '@sealpost/testing/relays/admin-server'
import { freshAddress } from '@sealpost/testing/relays/configured-relays'
import { connectRaw, makeRecord, type RawClient } from '@sealpost/testing/clients/raw-client'
import { waitUntil } from '@sealpost/testing/components/start-component'
import { type Pgbouncer, startPgbouncer } from '@sealpost/testing/components/pgbouncer'
import { type RedisServer, startRedis } from '@sealpost/testing/components/redis'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { createNet, type Cut, type Net } from '@sealpost/testing/components/network-namespaces'
import { SEALPOST } from '@sealpost/testing/components/programs'

const PARTS = 4
const [DEVICES, REDIS, DATABASE] = [0, 1, 2]
/** Without hints all that a node has to hear is in the store, and found there within this. */
const STALE_MS = 5_000
const PORT = 8787

type Beyond = { net: Net; url: string }
type Pair = { here: RawClient; there: RawClient; account: TestAccount }

describeWith(['network namespaces', 'redis-server', 'pgbouncer'], 'a node whose links are cut', () => {
  const relay = useAdminServer()
  const beyond: Beyond[] = []
  const nets: Net[] = []
  let redis: RedisServer
  let pooler: Pgbouncer
  let near: AdminNode
  let folder = ''

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 's-'))
    for (const made of await Promise.allSettled(Array.from({ length: PARTS }, () => createNet({ links: 3 })))) {
      if (made.status === 'rejected') throw made.reason
      nets.push(made.value)
    }
    const addresses = (link: number): string[] => ['127.0.0.1', ...nets.map(({ links }) => links[link]?.outside ?? '')]
    ;[redis, pooler] = await Promise.all([
      startRedis({ config: [`bind ${addresses(REDIS).join(' ')}`] }),
      startPgbouncer({
        database_url: relay.database.url,
        pool_mode: 'session',
        ini: [`listen_addr = ${addresses(DATABASE).join(',')}`, 'default_pool_size = 100'],
      }),
    ])
    const starting = Promise.all(nets.map(startBeyond))
    near = await relay.node({ env: { REDIS_URL: redis.url } })
    beyond.push(...(await starting))
    await Promise.all(beyond.map((node) => becomes(node, 'ready')))
  })
  afterAll(async () => {
    await Promise.all(nets.map((net) => net.dispose()))
    await Promise.all([near?.stop(), redis?.stop(), pooler?.stop()])
    await rm(folder, { recursive: true, force: true })
  })

  async function startBeyond(net: Net, part: number): Promise<Beyond> {
    const outside = (link: number): string => net.links[link]?.outside ?? ''
    const database = new URL(pooler.url)
    database.hostname = outside(DATABASE)
    database.searchParams.set('sslmode', 'disable')
    const env = {
      DATABASE_URL: database.href,
      REDIS_URL: `redis://${outside(REDIS)}:${redis.port}?tls=disable`,
      SEALPOST_DATABASE_POOLER: 'session',
      SEALPOST_SECRETS_FILE: relay.secrets_file,
      SEALPOST_TRUSTED_PROXIES: outside(DEVICES),
      SEALPOST_ADMIN: 'off',
    }
    const args = ['serve', '--host', net.host, '--port', `${PORT}`, '--data', join(folder, `${part}`)]
    const program = net.run(process.execPath, [...SEALPOST, ...args], { env, ms_max: 300_000 })
    const [, url = ''] = await program.printed(/listening on (\S+)/)
    return { net, url }
  }

  async function statusOf({ url }: Beyond): Promise<string> {
    const answer = await fetch(`${url}/readyz`, { headers: { 'x-forwarded-for': freshAddress() } })
    return answer.ok ? ((await answer.json()) as { status: string }).status : `${answer.status}`
  }
  const becomes = (node: Beyond, status: string, ms = 15_000): Promise<void> =>
    waitUntil(`the node is ${status}`, async () => (await statusOf(node)) === status, ms)

  /** Two devices of a new account, one at each node. */
  async function pair({ url }: Beyond): Promise<Pair> {
    const account = await relay.account(2)
    const here = await connectRaw({ ...near.door.raw(account, 0), patience: 30_000 })
    const there = await connectRaw({ ...near.door.raw(account, 1), url, patience: 30_000 })
    return { here, there, account }
  }

  /** ms until the next event of one device is at the other. */
  async function deliver(from: RawClient, to: RawClient, { log_seq }: TestAccount, seq: number): Promise<number> {
    const began = performance.now()
    from.sendRecords(makeRecord(from.identity.device_id, seq, { epoch: log_seq }))
    await to.next('event', ({ body }) => decodeRecords(body).some(({ device_seq }) => device_seq === seq))
    return performance.now() - began
  }

  /** ms until what is sent at each node is at the other. Of two accounts: within one, what comes next would show what is missing. */
  async function cross([one, other]: readonly [Pair, Pair], seq: number): Promise<number> {
    const times = [deliver(one.here, one.there, one.account, seq), deliver(other.there, other.here, other.account, seq)]
    return Math.max(...(await Promise.all(times)))
  }

  async function close(...pairs: Pair[]): Promise<void> {
    await Promise.all(pairs.flatMap(({ here, there }) => [here.close(), there.close()]))
  }

  /** ms until a device that is revoked at one node is closed at the other, with one of these codes. */
  async function revoke(expect: ExpectStatic, { there, account }: Pair, codes = [4403]): Promise<number> {
    const began = performance.now()
    const { device_id } = there.identity
    expect((await near.door.postEntry(account, { type: 'revoke_device', revoked: [{ device_id }] })).status).toBe(200)
    expect(codes).toContain((await there.closed).code)
    return performance.now() - began
  }

  /** Hints do not come through: what holds then, and that they come through again. */
  async function withoutHints(expect: ExpectStatic, node: Beyond, cut: Cut): Promise<void> {
    const talking = [await pair(node), await pair(node)] as const
    const doomed = await pair(node)
    expect(await cross(talking, 1)).toBeLessThan(STALE_MS)
    await node.net.cut({ ...cut, link: REDIS })
    const [crossed, revoked] = await Promise.all([cross(talking, 2), revoke(expect, doomed), becomes(node, 'degraded', STALE_MS)])
    expect(Math.max(crossed, revoked)).toBeLessThan(STALE_MS)
    expect(await cross(talking, 3)).toBeLessThan(STALE_MS)
    expect((await near.door.ask('GET', '/readyz')).body.status).toBe('ready')
    await node.net.heal()
    await becomes(node, 'ready')
    expect(await cross(talking, 4)).toBeLessThan(1_000)
    await close(doomed, ...talking)
  }

  describe.concurrent('each in a network of its own', () => {
    it('from Redis, in silence and by resets: all works within 5 s, and at once when it is healed', async ({ expect }) => {
      for (const how of ['drop', 'reject'] as const) await withoutHints(expect, beyond[0]!, { how })
    })

    it('from Redis, in one direction: one that hears nothing, and one that nobody hears', async ({ expect }) => {
      for (const way of ['in', 'out'] as const) await withoutHints(expect, beyond[1]!, { way })
    })

    it('from the database: it is not ready and acks nothing that is not stored; what waited is stored once, and others go on', async ({
      expect,
    }) => {
      const node = beyond[2]!
      const [{ here, there, account }, doomed] = [await pair(node), await pair(node)]
      const records: Uint8Array[] = []
      const acked = new Set<number>()
      const refused = new Set<string>()
      const sending = setInterval(() => {
        if (records.length - acked.size >= 100) return
        const record = makeRecord(there.identity.device_id, records.length + 1, { epoch: account.log_seq })
        records.push(record)
        there.sendRecords(record)
      }, 10)
      const acks = (async () => {
        for (;;) for (const { device_seq } of decodeAcks((await there.next('ack')).body)) acked.add(device_seq)
      })().catch(() => {})
      const nacks = (async () => {
        for (;;) {
          const { head } = await there.next('nack')
          refused.add(head.code)
          await sleep(head.retry_after_ms ?? 0)
          for (const record of records.slice(head.expected_device_seq - 1)) there.sendRecords(record)
        }
      })().catch(() => {})
      const stored = async (device_no: number): Promise<number[]> =>
        (
          await relay.sql('select device_seq from event where user_no = $1 and device_no = $2 order by position', [
            account.user_no,
            device_no,
          ])
        ).map((row) => Number(row.device_seq))

      await expect.poll(() => acked.size, { timeout: 15_000 }).toBeGreaterThan(20)
      await node.net.cut({ link: DATABASE })
      const cut_at = performance.now()
      await becomes(node, '503', STALE_MS)
      // the hint says who; the entry that says why cannot be read
      expect(await revoke(expect, doomed, [1006])).toBeLessThan(STALE_MS)
      for (let i = 1; performance.now() - cut_at < 11_000; i++) {
        const began = performance.now()
        here.sendRecords(makeRecord(here.identity.device_id, i, { epoch: account.log_seq }))
        await here.next('ack')
        expect(performance.now() - began).toBeLessThan(STALE_MS)
        await sleep(500)
      }
      const before = new Set(await stored(2))
      expect([...acked].filter((seq) => !before.has(seq))).toEqual([])
      await node.net.heal()
      clearInterval(sending)
      await becomes(node, 'ready')
      await expect.poll(() => acked.size, { timeout: 20_000 }).toBe(records.length)
      expect([...refused].filter((code) => code !== 'unavailable')).toEqual([])
      const all = records.map((_, i) => i + 1)
      expect(await stored(2)).toEqual(all)
      const arrived: number[] = []
      while (arrived.length < all.length)
        arrived.push(...decodeRecords((await here.next('event')).body).map(({ device_seq }) => device_seq))
      expect(arrived).toEqual(all)
      await close({ here, there, account }, doomed)
      await Promise.all([acks, nacks])
    })

    it('from both, for longer than its lease: its devices are offline for the others, and online again when it is healed', async ({
      expect,
    }) => {
      const node = beyond[3]!
      const talking = [await pair(node), await pair(node)] as const
      const { here, there } = talking[0]
      const { device_id } = there.identity
      const told = (online: boolean): Promise<unknown> =>
        here.next('presence', ({ head }) => head.devices.some((device) => device.device_id === device_id && device.online === online))
      await told(true)
      await cross(talking, 1)
      // it was offline once, before it came
      here.received.splice(0)
      await Promise.all([REDIS, DATABASE].map((link) => node.net.cut({ link })))
      const cut_at = performance.now()
      await told(false)
      const offline = performance.now() - cut_at
      expect(offline).toBeGreaterThan(5_000)
      expect(offline).toBeLessThan(17_000)
      expect(await statusOf(node)).toBe('503')
      await node.net.heal()
      await told(true)
      await becomes(node, 'ready')
      await cross(talking, 2)
      expect(await cross(talking, 3)).toBeLessThan(1_000)
      await close(...talking)
    })
  })
})
