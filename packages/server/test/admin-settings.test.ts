/**
 * What an operator sets while the relay runs (G24): it holds at once, after a restart and on every node, and goes back to the configuration; what
 * cannot be understood changes nothing. Quotas of one account in place of the configuration; jobs on demand.
 */
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { LOG_LEVELS } from '../src/config/variables.ts'
import { append, makeDevice } from '@sealpost/testing/clients/store-accounts'
import { type AdminNode, useAdminServer } from '@sealpost/testing/relays/admin-server'
import { connectRaw, makeRecord } from '@sealpost/testing/clients/raw-client'

const CONFIGURED = { SEALPOST_LIMIT_OFFER: '7', SEALPOST_QUOTA_STREAMS: '3', SEALPOST_QUOTA_DEVICES: '3', SEALPOST_LOG_LEVEL: 'warn' }
const levels: string[] = []
const server = useAdminServer({ env: CONFIGURED, setLogLevel: (level) => void levels.push(level) })
let token = ''
beforeAll(async () => {
  token = await server.tokenOf('operator')
})
afterEach(() => server.sql('delete from setting'))

const limitOf = async (rule: string, node: AdminNode = server) => {
  const { body } = await node.ask('list_limits', { token })
  const { points, by } = body.limits.find((limit: { rule: string }) => limit.rule === rule)
  return { points, by }
}
const setLimit = (rule: string, points: number | null, node: AdminNode = server) =>
  node.ask('set_limit', { token, params: { rule }, json: { points } })
const setLevel = (log_level: string | null) => server.ask('set_log_level', { token, json: { log_level } })
const levelOf = async (node: AdminNode = server) => (await node.ask('read_log_level', { token })).body

describe('a setting', () => {
  it('of a rate holds for the next request, and null goes back to the configuration', async () => {
    const account = await server.account(1)
    const asks = () => server.door.ask('GET', '/api/user', { token: device })
    const device = await server.door.token(account)
    expect((await asks()).status).toBe(200)
    expect((await setLimit('rest_device', 3)).status).toBe(200)
    expect(await limitOf('rest_device')).toEqual({ points: 3, by: 'operator' })
    const answers = []
    for (let i = 0; i < 4; i++) answers.push((await asks()).status)
    expect(answers.at(-1)).toBe(429)
    await setLimit('rest_device', null)
    expect(await limitOf('rest_device')).toEqual({ points: 600, by: 'configuration' })
    expect((await asks()).status).toBe(200)
    expect(await limitOf('offer')).toEqual({ points: 7, by: 'configuration' })
  })

  it('of the log level is applied at once', async () => {
    expect(await levelOf()).toEqual({ log_level: 'warn', by: 'configuration' })
    for (const level of LOG_LEVELS.filter((one) => one !== 'warn')) {
      expect((await setLevel(level)).status).toBe(200)
      expect(levels.at(-1)).toBe(level)
      expect(await levelOf()).toEqual({ log_level: level, by: 'operator' })
    }
    await setLevel(null)
    expect(levels.at(-1)).toBe('warn')
  })

  it('survives a restart, and is followed by another node within 6 s, there and back', { timeout: 30_000 }, async () => {
    const seen: string[] = []
    const before = await server.node({ env: CONFIGURED, setLogLevel: (level) => void seen.push(level) })
    expect(await limitOf('offer', before)).toEqual({ points: 7, by: 'configuration' })
    await setLimit('offer', 99)
    await setLevel('debug')
    await server.ask('set_signup', { token, json: { signup: 'closed' } })
    const after = await server.node({ env: CONFIGURED })
    expect(await limitOf('offer', after)).toEqual({ points: 99, by: 'operator' })
    expect((await after.ask('read_signup', { token })).body).toEqual({ signup: 'closed', by: 'operator' })
    const soon = { timeout: 6_000, interval: 100 }
    await expect.poll(() => limitOf('offer', before), soon).toEqual({ points: 99, by: 'operator' })
    expect(seen.at(-1)).toBe('debug')
    expect((await before.ask('read_signup', { token })).body).toEqual({ signup: 'closed', by: 'operator' })
    // the last who set it rules, on whatever node
    await setLimit('offer', null, before)
    await expect.poll(() => limitOf('offer'), soon).toEqual({ points: 7, by: 'configuration' })
    await Promise.all([before.stop(), after.stop()])
  })

  it('that is set at the same time by many is one of theirs, everywhere', async () => {
    for (let round = 0; round < 10; round++) {
      const points = Array.from({ length: 20 }, (_, i) => i + 1)
      const answers = await Promise.all(points.map((one) => setLimit('genesis', one)))
      expect(answers.map(({ status }) => status)).toEqual(points.map(() => 200))
      const [{ value }] = await server.sql(`select value from setting where name = 'rate_genesis'`)
      expect(await limitOf('genesis')).toEqual({ points: Number(value), by: 'operator' })
    }
  })

  it('that nobody understands changes nothing', async () => {
    await setLimit('export', 5)
    const odd = [
      ['rate_genesis', '"many"'],
      ['rate_offer', '-1'],
      ['rate_repair', '0'],
      ['rate_mailbox', '1e400'],
      ['rate_rest_user', '1.5'],
      ['rate_admin', '9007199254740993'],
      ['rate_handshake_user', '{'],
      ['rate_nothing', '1'],
      ['signup', '"maybe"'],
      ['log_level', '["debug"]'],
      ['__proto__', '1'],
      ['toString', '1'],
    ]
    for (const [name, value] of odd)
      await server.sql('insert into setting (name, changed_at, value) values ($1, 0, $2) on conflict (name) do update set value = $2', [
        name,
        value,
      ])
    // a change reads them all
    expect((await setLimit('export', 6)).status).toBe(200)
    const { body } = await server.ask('list_limits', { token })
    for (const { rule, by } of body.limits) expect([rule, by]).toEqual([rule, rule === 'export' ? 'operator' : 'configuration'])
    expect((await server.ask('read_signup', { token })).body).toEqual({ signup: 'open', by: 'configuration' })
    expect(await levelOf()).toEqual({ log_level: 'warn', by: 'configuration' })
    const node = await server.node({ env: CONFIGURED })
    expect(await limitOf('offer', node)).toEqual({ points: 7, by: 'configuration' })
    await node.stop()
  })
})

describe('quotas of one account', () => {
  const setQuota = (user_id: string, quota: { bytes?: number | null; streams?: number | null; devices?: number | null }) =>
    server.ask('set_user_quota', { token, params: { user_id }, json: { bytes: null, streams: null, devices: null, ...quota } })

  it('of bytes and streams hold for the next event, and go back to the configuration', async () => {
    const account = await server.account(1)
    const client = await connectRaw(server.door.raw(account))
    const { device_id } = account.devices[0]!
    let seq = 0
    const send = async (stream_id: string): Promise<string> => {
      client.sendRecords(makeRecord(device_id, seq + 1, { epoch: account.log_seq, stream_id }))
      await expect.poll(() => client.received.some(({ head }) => head.type === 'ack' || head.type === 'nack')).toBe(true)
      const { head } = client.received.splice(
        client.received.findIndex((message) => ['ack', 'nack'].includes(message.head.type)),
        1,
      )[0]!
      if (head.type === 'ack') seq += 1
      return head.type === 'nack' ? head.code : head.type
    }
    for (const stream of ['a', 'b', 'c']) expect(await send(stream)).toBe('ack')
    expect(await send('d')).toBe('too_many_streams')
    expect((await setQuota(account.user_id, { streams: 4 })).status).toBe(200)
    expect(await send('d')).toBe('ack')
    expect(await send('e')).toBe('too_many_streams')
    await setQuota(account.user_id, { bytes: 10 })
    // the account sees what it may
    const own = await server.door.ask('GET', '/api/user', { token: await server.door.token(account) })
    expect(own.body.quota_bytes).toBe(10)
    expect(await send('a')).toBe('quota_exceeded')
    await setQuota(account.user_id, {})
    expect(await send('a')).toBe('ack')
    await setQuota(account.user_id, { streams: 2 })
    // what is there stays
    expect(await send('d')).toBe('ack')
    const { body } = await server.ask('read_user', { token, params: { user_id: account.user_id } })
    expect(body).toMatchObject({ quota: { bytes: null, streams: 2, devices: null }, events: 6 })
    await client.close()
  })

  it('of devices hold for the next device, and nobody of another account notices', async () => {
    const [account, other] = [await server.account(3), await server.account(3)]
    const add = (to: typeof account) => server.door.postEntry(to, { type: 'add_device', device: makeDevice() })
    expect((await add(account)).body.code).toBe('invalid_entry')
    await setQuota(account.user_id, { devices: 4 })
    expect((await add(account)).status).toBe(200)
    expect((await add(account)).body.code).toBe('invalid_entry')
    expect((await add(other)).body.code).toBe('invalid_entry')
    // fewer than there are: they stay, and do all but add another
    await setQuota(account.user_id, { devices: 1 })
    await append(server.store, account, { type: 'rename_device', rename: { device_id: account.devices[1]!.device_id, name: 'still here' } })
    expect((await add(account)).body.code).toBe('invalid_entry')
  })
})

describe('jobs', () => {
  const runOf = async (job: string) => {
    const { body } = await server.ask('list_jobs', { token })
    return body.jobs.find((one: { job: string }) => one.job === job).last_run
  }

  it('are listed, and run when an operator says so', async () => {
    const { body } = await server.ask('list_jobs', { token })
    expect(body.jobs.map(({ job }: { job: string }) => job)).toEqual(expect.arrayContaining(['expired_events', 'audit_checkpoint']))
    expect(await runOf('audit_checkpoint')).toBeNull()
    const began = Date.now()
    expect((await server.ask('run_job', { token, params: { job: 'audit_checkpoint' }, json: {} })).status).toBe(200)
    await expect.poll(() => runOf('audit_checkpoint')).toMatchObject({ ended: 'done', rows: 1 })
    expect((await runOf('audit_checkpoint')).began_at).toBeGreaterThanOrEqual(began - 1)
    const { body: head } = await server.ask('read_audit_head', { token })
    expect(head.checkpoints).toHaveLength(1)
    for (const { job } of body.jobs) expect((await server.ask('run_job', { token, params: { job }, json: {} })).status).toBe(200)
    for (const { job } of body.jobs) await expect.poll(() => runOf(job), { timeout: 5_000 }).not.toBeNull()
  })
})
