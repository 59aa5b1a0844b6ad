/**
 * Several nodes over one database and one Redis: hints bring what one node commits to the sessions of the others at once. What holds
 * without Redis is in `nodes-without-bus.test.ts`.
 */
import { decodeRecords } from '@sealpost/protocol'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { waitUntil } from '@sealpost/testing/components/start-component'
import { type RedisServer, startRedis } from '@sealpost/testing/components/redis'
import { type makeEntry, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { type AdminNode, useAdminServer } from '@sealpost/testing/relays/admin-server'
import { freshAddress } from '@sealpost/testing/relays/configured-relays'
import { connectRaw, makeRecord, type RawClient } from '@sealpost/testing/clients/raw-client'

/** What it takes at most on a machine of one's own (QUIET), and among other tests: below the 2 s of the rounds that need no hint. */
const QUIET_MS = 200
const BUSY_MS = 1_200

let redis: RedisServer
let [a, b]: [AdminNode?, AdminNode?] = []
const relay = useAdminServer()
const there = (node: AdminNode | undefined): AdminNode => {
  if (node === undefined) throw new Error('there from the first beforeAll on')
  return node
}
const nodes = { a: () => there(a), b: () => there(b) }
const open = new Set<RawClient>()

const start = (): Promise<AdminNode> => relay.node({ env: { REDIS_URL: redis.url } })
const statusOf = async (node: AdminNode): Promise<string> => (await node.door.ask('GET', '/readyz')).body.status
const bothUp = (): Promise<void> =>
  waitUntil(
    'both nodes hear of each other',
    async () => (await Promise.all([nodes.a(), nodes.b()].map(statusOf))).every((is) => is === 'ready'),
    15_000,
  )

async function connect(node: AdminNode, account: TestAccount, device = 0): Promise<Awaited<ReturnType<typeof connectRaw>>> {
  const client = await connectRaw(node.door.raw(account, device))
  open.add(client)
  void client.closed.then(() => open.delete(client))
  return client
}

const percentile = (values: readonly number[], part: number): number =>
  values.toSorted((x, y) => x - y)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? Number.NaN

describeWith(['redis-server'], 'nodes over Redis', () => {
  beforeAll(async () => {
    redis = await startRedis({ acl: true })
    ;[a, b] = await Promise.all([start(), start()])
    await bothUp()
  })
  afterEach(async () => {
    await Promise.all([...open].map((client) => client.close()))
  })
  afterAll(async () => {
    await Promise.all([a?.stop(), b?.stop()])
    await redis?.stop()
  })

  it('what is sent at one node arrives at the other, in order, each once, at once', async () => {
    const account = await relay.account(2)
    const [laptop, phone] = [await connect(nodes.a(), account), await connect(nodes.b(), account, 1)]
    const waits: number[] = []
    for (let i = 1; i <= 50; i++) {
      const began = performance.now()
      laptop.sendRecords(makeRecord(account.devices[0]!.device_id, i, { epoch: account.log_seq }))
      const { head, body } = await phone.next('event')
      expect([head.after, head.upto, decodeRecords(body).length]).toEqual([i - 1, i, 1])
      waits.push(performance.now() - began)
    }
    // the rounds that compare with the store take two seconds
    expect(percentile(waits, 0.5)).toBeLessThan(BUSY_MS)
  })

  it('R01: what is decided at one node holds at the other at once, over 1,000 rounds', async () => {
    const waits = new Map<string, number[]>()
    async function closes(what: string, client: RawClient, code: number, act: () => Promise<unknown>): Promise<void> {
      const began = performance.now()
      const [closed] = await Promise.all([client.closed.then((end) => ({ end, ms: performance.now() - began })), act()])
      expect([what, closed.end.code]).toEqual([what, code])
      waits.set(what, [...(waits.get(what) ?? []), closed.ms])
    }
    async function post(account: TestAccount, change: Parameters<typeof makeEntry>[1]): Promise<void> {
      expect(await nodes.a().door.postEntry(account, change)).toMatchObject({ status: 200 })
    }
    const operator = await nodes.a().token(await relay.admin('operator'))
    const suspend = (user_id: string) => nodes.a().ask('suspend_user', { token: operator, params: { user_id }, json: {} })

    /** 21 rounds: 10 of a newer session, 5 entries, 4 revocations, a suspension, a deletion. */
    async function rounds(): Promise<void> {
      const account = await relay.account(6)
      let phone = await connect(nodes.b(), account, 1)
      for (let i = 0; i < 10; i++) {
        const [from, to] = i % 2 === 0 ? [phone, nodes.a()] : [phone, nodes.b()]
        await closes('superseded', from, 4409, async () => (phone = await connect(to, account, 1)))
      }
      await phone.close()
      phone = await connect(nodes.b(), account, 1)
      for (let i = 0; i < 5; i++) {
        const began = performance.now()
        await post(account, { type: 'rotate_keys' })
        await phone.next('log_entry')
        waits.set('entry', [...(waits.get('entry') ?? []), performance.now() - began])
      }
      for (const last of [5, 4, 3, 2]) {
        const client = await connect(nodes.b(), account, last)
        const { device_id } = account.devices[last]!
        await closes('revoked', client, 4403, () => post(account, { type: 'revoke_device', revoked: [{ device_id }] }))
        account.devices.pop()
      }
      await closes('suspended', phone, 4457, () => suspend(account.user_id))
      const other = await relay.account()
      const laptop = await connect(nodes.b(), other)
      await closes('deleted', laptop, 4410, async () => {
        const confirmed = await nodes.a().door.assertion(other, 0, 'delete-account')
        expect((await nodes.a().door.ask('DELETE', '/api/user', { json: confirmed })).status).toBe(200)
      })
    }
    for (let done = 0; done < 48; done += 4) await Promise.all([rounds(), rounds(), rounds(), rounds()])
    const all = [...waits.values()].flat()
    expect(all.length).toBeGreaterThanOrEqual(1_000)
    expect(percentile(all, 0.5)).toBeLessThan(process.env['QUIET'] === undefined ? BUSY_MS : QUIET_MS)
    expect(percentile(all, 0.99)).toBeLessThan(process.env['QUIET'] === undefined ? BUSY_MS : QUIET_MS)
  }, 120_000)

  it('presence is of all nodes, and follows a device from one to the other', async () => {
    const account = await relay.account(2)
    const laptop = await connect(nodes.a(), account)
    await laptop.next('presence')
    const phone = await connect(nodes.b(), account, 1)
    const { device_id } = account.devices[1]!
    expect((await laptop.next('presence')).head).toMatchObject({ devices: [{ device_id, online: true }] })
    const listed = await nodes.a().door.ask('GET', '/api/connection-status', { token: await nodes.a().door.token(account) })
    expect(listed.body).toMatchObject({ online: 2 })
    // the one that it takes the place of says nothing of an end
    const again = await connect(nodes.a(), account, 1)
    expect((await phone.closed).code).toBe(4409)
    expect((await laptop.next('presence')).head).toMatchObject({ devices: [{ device_id, online: true }] })
    await again.close()
    expect((await laptop.next('presence')).head).toMatchObject({ devices: [{ device_id, online: false }] })
  })

  it('R12: a limit holds for all nodes together; without Redis each has its part of it', async () => {
    const ask = async (node: AdminNode, from: string): Promise<number> => {
      const account = await relay.account()
      const claims = { from, json: await node.door.assertion(account, 0, 'token') }
      return (await node.door.ask('POST', '/api/auth/token', claims)).status
    }
    const take = async (from: string, limit: number): Promise<number> => {
      let taken = 0
      for (let i = 0; i < limit + 2; i++) {
        const answers = await Promise.all([nodes.a(), nodes.b()].map((node) => node.door.ask('GET', '/.well-known/jwks.json', { from })))
        taken += answers.filter((answer) => answer.status === 200).length
        if (answers.every((answer) => answer.status === 429)) break
      }
      return taken
    }
    expect(await ask(nodes.a(), freshAddress())).toBe(200)
    const owner = await nodes.a().token(await relay.admin('owner'))
    await nodes.a().ask('set_limit', { token: owner, params: { rule: 'rest_address' }, json: { points: 40 } })
    await expect
      .poll(async () => (await nodes.b().ask('list_limits', { token: await nodes.b().token(await relay.admin('viewer')) })).body.limits, {
        timeout: 8_000,
      })
      .toContainEqual(expect.objectContaining({ rule: 'rest_address', points: 40 }))
    expect(await take(freshAddress(), 40)).toBe(40)
    redis.freeze()
    try {
      await expect
        .poll(async () => [await statusOf(nodes.a()), await statusOf(nodes.b())], { timeout: 8_000 })
        .toEqual(['degraded', 'degraded'])
      const alone = await take(freshAddress(), 40)
      // three nodes live: this file has one without Redis
      expect(alone).toBeGreaterThan(0)
      expect(alone).toBeLessThanOrEqual(40)
    } finally {
      redis.thaw()
      await nodes.a().ask('set_limit', { token: owner, params: { rule: 'rest_address' }, json: { points: null } })
    }
    await bothUp()
  }, 60_000)

  it('a Redis that dies is told by readiness, and changes nothing but the time; when it is back hints are', async () => {
    const account = await relay.account(2)
    const [laptop, phone] = [await connect(nodes.a(), account), await connect(nodes.b(), account, 1)]
    const send = (seq: number): void => laptop.sendRecords(makeRecord(account.devices[0]!.device_id, seq, { epoch: account.log_seq }))
    await redis.kill()
    send(1)
    const began = performance.now()
    expect((await phone.next('event')).head).toMatchObject({ upto: 1 })
    expect(performance.now() - began).toBeLessThan(5_000)
    await expect.poll(() => statusOf(nodes.a()), { timeout: 8_000 }).toBe('degraded')
    await redis.restart()
    await bothUp()
    send(2)
    const then = performance.now()
    expect((await phone.next('event')).head).toMatchObject({ upto: 2 })
    expect(performance.now() - then).toBeLessThan(1_000)
  })

  it('nodes are listed with what they do, and are gone when they end', async () => {
    const third = await start()
    const token = await nodes.a().token(await relay.admin('viewer'))
    const account = await relay.account()
    await connect(third, account)
    const list = async () =>
      (await nodes.a().ask('list_nodes', { token })).body.nodes as { live: boolean; figures: { reach: string; sessions: number } }[]
    await expect
      .poll(async () => (await list()).filter(({ live }) => live).map(({ figures }) => figures.reach), { timeout: 8_000 })
      .toEqual(['alone', 'up', 'up', 'up'])
    await expect.poll(async () => (await list()).map(({ figures }) => figures.sessions), { timeout: 8_000 }).toEqual([0, 0, 0, 1])
    await third.stop()
    expect((await list()).length).toBe(3)
  })
})
