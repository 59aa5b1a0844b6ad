import {
  type NewEntry,
  openEpochKey,
  ROUTES,
  routePath,
  type SignedObject,
  toBase64url,
  toHex,
  type WireEntry,
  fromBase64url,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import * as fc from 'fast-check'
import type { FastifyInstance, InjectOptions } from 'fastify'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createMemoryBus } from '../bus/memory-bus.ts'
import type { Hint, Store } from '../ports/store.ts'
import type { Relay } from '../relay/relay.ts'
import { createStore } from '../store/store.ts'
import { addTestDevice, assertAs, createTestAccount, extendAccount, type TestAccount } from '@sealpost/testing/clients/signing-account'
import { wire } from '@sealpost/testing/clients/store-accounts'
import { createTestDatabase, query, type TestDatabase } from '@sealpost/testing/components/test-database'
import { createHttp, type HttpDeps } from './http.ts'
import { unaudited } from '@sealpost/testing/relays/silent-log'
import { documents } from '@sealpost/testing/relays/documents'
import { fixedKeys } from '@sealpost/testing/relays/fixed-keys'
import { createTokens } from './auth/tokens.ts'
import { openRelay } from '@sealpost/testing/relays/leased-relay'

const seed = nodeCrypto.random(32)
const server_key = nodeCrypto.ed25519Public(seed)
const secrets = { server_key, jwt_sign_seed: nodeCrypto.random(32) }
const quiet = { debug() {}, info() {}, warn() {}, error() {} }

let database: TestDatabase
let store: Store
let relay: Relay
let app: FastifyInstance
let draining = false
const hints: { user_no: number; hint: Hint }[] = []
const logged: { object: unknown; message: unknown }[] = []

function start(over: Partial<HttpDeps> = {}): FastifyInstance {
  return createHttp({
    documents,
    audit: unaudited,
    store,
    bus: { publish: (user_no, hint) => void hints.push({ user_no, hint }) },
    relay,
    keys: fixedKeys([secrets.jwt_sign_seed]),
    secrets,
    config: { signup: 'open', trusted_proxies: [], clock_skew_ms: 300_000, quota_bytes: null, docs: true },
    draining: () => draining,
    degraded: () => false,
    logger: quiet,
    ...over,
  })
}

beforeAll(async () => {
  database = await createTestDatabase()
  store = await createStore({ connection: database.connection, log: quiet })
  relay = await openRelay({ store, bus: createMemoryBus(), token_key: nodeCrypto.random(32), logger: quiet })
  app = start()
})
afterAll(async () => {
  await app?.close()
  await relay?.close()
  await store?.close()
  await database?.drop()
})

async function ask(options: InjectOptions, on = app) {
  const response = await on.inject(options)
  const isJson = response.headers['content-type']?.includes('json') === true
  return { status: response.statusCode, body: isJson ? response.json() : undefined, raw: response.rawPayload, headers: response.headers }
}
const post = (url: string, payload: object, on = app, more: InjectOptions = {}) => ask({ method: 'POST', url, payload, ...more }, on)

async function postEntry(account: TestAccount, built: NewEntry, proof?: SignedObject | null, on = app, more: InjectOptions = {}) {
  return post('/api/log', { ...wire(built), proof: proof ?? (await assertAs(account, server_key, 'log')) }, on, more)
}
async function registered(name?: string): Promise<TestAccount> {
  const account = await createTestAccount(name)
  expect(await postEntry(account, account.entries[0]!)).toMatchObject({ status: 200, body: { log_seq: 0 } })
  return account
}
async function tokenOf(account: TestAccount, signer = account.device): Promise<string> {
  const { status, body } = await post('/api/auth/token', await assertAs(account, server_key, 'token', { signer }))
  expect(status).toBe(200)
  return body.access_token
}
const readLog = async (account: TestAccount, options: Parameters<typeof assertAs>[3] = {}) =>
  post('/api/log/read', await assertAs(account, server_key, 'log-read', options))

describe('POST /api/log', () => {
  it('takes a genesis, and when it is posted again says it and tells the sessions again', async () => {
    const account = await createTestAccount()
    hints.length = 0
    const first = await postEntry(account, account.entries[0]!)
    expect(first).toMatchObject({ status: 200, body: { log_seq: 0, log_head: toBase64url(account.log.log_head) } })
    expect(await postEntry(account, account.entries[0]!)).toMatchObject({ status: 200, body: first.body })
    const hint: Hint = { is: 'log', history_id: store.history_id, log_seq: 0, revoked: [] }
    expect(hints.map((told) => told.hint)).toEqual([hint, hint])
  })

  it('takes the proof of the introduced device, of the signer, and of nobody else', async () => {
    const account = await createTestAccount()
    const stranger = await createTestAccount()
    const built = account.entries[0]!
    const as = (signer: TestAccount['device'] | 'root') => assertAs(account, server_key, 'log', { signer })
    expect(await postEntry(account, built, await as(stranger.device))).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
    for (const signer of [stranger.device, 'root'] as const)
      expect(await postEntry(account, built, await assertAs(stranger, server_key, 'log', { signer }))).toMatchObject({ status: 401 })
    const forged = { ...(await as('root')), sig: (await as(account.device)).sig }
    expect(await postEntry(account, built, forged)).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
    expect(await postEntry(account, built, await as('root'))).toMatchObject({ status: 200 })

    const { device, built: added } = await addTestDevice(account, 'phone')
    expect(await postEntry(account, added, await as('root'))).toMatchObject({ status: 401 })
    expect(await postEntry(account, added, await as(device))).toMatchObject({ status: 200, body: { log_seq: 1 } })
  })

  it.each<[string, (account: TestAccount) => Promise<SignedObject>]>([
    ['for another purpose', (account) => assertAs(account, server_key, 'token')],
    ['for another server', (account) => assertAs(account, nodeCrypto.random(32), 'log')],
  ])('refuses a proof %s', async (_, make) => {
    const account = await createTestAccount()
    expect(await postEntry(account, account.entries[0]!, await make(account))).toMatchObject({
      status: 401,
      body: { code: 'unauthorized' },
    })
  })

  it('takes a proof within 5 minutes of the clock and none beyond (G07)', async () => {
    const account = await registered()
    const at = (offset: number) => assertAs(account, server_key, 'log', { now_ms: store.now() + offset })
    for (const offset of [-298_000, 298_000])
      expect(await postEntry(account, account.entries[0]!, await at(offset))).toMatchObject({ status: 200 })
    for (const offset of [-301_000, 302_000])
      expect(await postEntry(account, account.entries[0]!, await at(offset))).toMatchObject({ status: 401, body: { code: 'expired' } })
  })

  it('takes a proof once', async () => {
    const account = await registered()
    const proof = await assertAs(account, server_key, 'log')
    expect(await postEntry(account, account.entries[0]!, proof)).toMatchObject({ status: 200 })
    expect(await postEntry(account, account.entries[0]!, proof)).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
  })

  it.each(['closed', 'invite'] as const)(
    'takes no new account when sign-up is %s, with an invitation or a repair neither',
    async (signup) => {
      const account = await createTestAccount()
      const on = start({ config: { signup, trusted_proxies: [], clock_skew_ms: 300_000, quota_bytes: null, docs: true } })
      for (const extra of [{}, { invite: 'please' }, { repair: true }]) {
        const proof = await assertAs(account, server_key, 'log')
        expect(await post('/api/log', { ...wire(account.entries[0]!), proof, ...extra }, on)).toMatchObject({
          status: 403,
          body: { code: 'signup_closed' },
        })
      }
      await on.close()
    },
  )

  it('takes 10 genesis entries per address and hour; loopback is exempt unless it forwards (R12)', async () => {
    const on = start()
    const from = async (more: InjectOptions) => {
      const account = await createTestAccount()
      return postEntry(account, account.entries[0]!, null, on, more)
    }
    for (let i = 0; i < 10; i++) expect(await from({ remoteAddress: '203.0.113.9' })).toMatchObject({ status: 200 })
    const refused = await from({ remoteAddress: '203.0.113.9' })
    expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(3_000)
    expect(await from({ remoteAddress: '203.0.113.10' })).toMatchObject({ status: 200 })
    for (let i = 0; i < 12; i++) expect(await from({})).toMatchObject({ status: 200 })
    for (let i = 0; i < 10; i++) expect(await from({ headers: { 'x-forwarded-for': '1.2.3.4' } })).toMatchObject({ status: 200 })
    expect(await from({ headers: { 'x-forwarded-for': '1.2.3.5' } })).toMatchObject({ status: 429 })
    await on.close()
  })

  it('behind a trusted proxy it counts for whom the proxy forwards (R12)', async () => {
    const on = start({ config: { signup: 'open', trusted_proxies: ['127.0.0.1'], clock_skew_ms: 300_000, quota_bytes: null, docs: true } })
    const from = async (client: string) => {
      const account = await createTestAccount()
      return postEntry(account, account.entries[0]!, null, on, { headers: { 'x-forwarded-for': `6.6.6.6, ${client}` } })
    }
    for (let i = 0; i < 10; i++) expect(await from('203.0.113.29')).toMatchObject({ status: 200 })
    expect(await from('203.0.113.29')).toMatchObject({ status: 429 })
    expect(await from('203.0.113.30')).toMatchObject({ status: 200 })
    await on.close()
  })

  it('adds and revokes devices and names the revoked ones to the sessions', async () => {
    const account = await registered()
    const { device, built } = await addTestDevice(account, 'phone')
    expect(await postEntry(account, built)).toMatchObject({
      status: 200,
      body: { log_seq: 1, log_head: toBase64url(account.log.log_head) },
    })
    hints.length = 0
    const revoked = await extendAccount(account, { type: 'revoke_device', device_id: device.device_id, pins: null })
    expect(await postEntry(account, revoked)).toMatchObject({ status: 200, body: { log_seq: 2 } })
    const { history_id } = store
    expect(hints.map(({ hint }) => hint)).toEqual([{ is: 'log', history_id, log_seq: 2, revoked: [device.device_id] }])
  })

  it('a loser of the race is told where the log stands', async () => {
    const account = await registered()
    const before = { ...account, entries: [...account.entries] }
    const winner = await extendAccount(account, { type: 'rotate_keys' })
    const loser = await extendAccount(before, { type: 'rotate_keys' })
    expect(await postEntry(account, winner)).toMatchObject({ status: 200 })
    expect(await postEntry(before, loser)).toMatchObject({
      status: 409,
      body: { code: 'log_conflict', log_seq: 1, log_head: toBase64url(account.log.log_head) },
    })
  })

  it('a name that another device has is refused', async () => {
    const account = await registered('laptop')
    const { built } = await addTestDevice(account, 'laptop')
    expect(await postEntry(account, built)).toMatchObject({ status: 409, body: { code: 'name_taken', log_seq: 0 } })
  })

  it('an entry with a broken signature or foreign boxes is refused', async () => {
    const account = await createTestAccount()
    const proof = () => assertAs(account, server_key, 'log')
    const good = wire(account.entries[0]!)
    const sig = toBase64url(nodeCrypto.ed25519Sign(account.device.sign_seed, new Uint8Array(3)))
    expect(await post('/api/log', { ...good, sig, proof: await proof() })).toMatchObject({ status: 422, body: { code: 'invalid_entry' } })
    const [first] = Object.keys(good.boxes)
    const boxes = { ...good.boxes, [first!]: Object.values(good.boxes)[1] }
    expect(await post('/api/log', { ...good, boxes, proof: await proof() })).toMatchObject({ status: 422, body: { code: 'invalid_entry' } })
  })

  it('an account that is not there takes no entry but a genesis', async () => {
    const account = await createTestAccount()
    const { device, built } = await addTestDevice(account, 'phone')
    const proof = await assertAs(account, server_key, 'log', { signer: device })
    expect(await postEntry(account, built, proof)).toMatchObject({ status: 404, body: { code: 'not_found' } })
  })

  it('a repair brings back the entries of a restored server, posted by any device that knows them', async () => {
    const account = await createTestAccount()
    const { device, built } = await addTestDevice(account, 'phone')
    const repairBy = async (entry: NewEntry) => {
      const boxes = device.device_id in entry.boxes ? { [device.device_id]: entry.boxes[device.device_id] } : {}
      const proof = await assertAs(account, server_key, 'log', { signer: device })
      return post('/api/log', { ...wire(entry), boxes, proof, repair: true })
    }
    expect(await repairBy(account.entries[0]!)).toMatchObject({ status: 200, body: { log_seq: 0 } })
    expect(await repairBy(built)).toMatchObject({ status: 200, body: { log_seq: 1 } })
    expect(await repairBy(built)).toMatchObject({ status: 200, body: { log_seq: 1 } })
    expect((await readLog(account, { signer: device })).body.entries).toHaveLength(2)
    const forged = { ...(await assertAs(account, server_key, 'log', { signer: device })), sig: toBase64url(new Uint8Array(64)) }
    expect(await post('/api/log', { ...wire(built), proof: forged, repair: true })).toMatchObject({ status: 401 })
  })
})

describe('POST /api/log/read', () => {
  it('gives each signer the entries with its own boxes, which open', async () => {
    const account = await registered()
    const { device, built } = await addTestDevice(account, 'phone')
    await postEntry(account, built)
    const { status, body } = await readLog(account, { signer: device })
    expect(status).toBe(200)
    expect(body.has_more).toBe(false)
    expect(body.entries.map((entry: WireEntry) => entry.body)).toEqual(account.entries.map((entry) => toBase64url(entry.entry.body)))
    expect(body.entries[0].box).toBeNull()
    const opened = await openEpochKey(nodeCrypto, account.log, 1, device.device_id, device.kem_seed, fromBase64url(body.entries[1].box))
    expect(toHex(opened)).toBe(toHex(account.epoch_key))
    expect((await readLog(account, { signer: 'root' })).body.entries[1].box).toBe(built.boxes['root'])
    expect((await readLog(account, { from_log_seq: 1 })).body.entries).toHaveLength(1)
    expect((await readLog(account, { from_log_seq: 9 })).body).toEqual({ entries: [], has_more: false })
  })

  it('a revoked device reads up to the entry that revoked it and no further (R10, B03)', async () => {
    const account = await registered()
    const { device, built } = await addTestDevice(account, 'phone')
    await postEntry(account, built)
    await postEntry(account, await extendAccount(account, { type: 'revoke_device', device_id: device.device_id, pins: null }))
    await postEntry(account, await extendAccount(account, { type: 'rotate_keys' }))
    const { status, body } = await readLog(account, { signer: device })
    expect(status).toBe(200)
    expect(body).toMatchObject({ has_more: false })
    expect(body.entries).toHaveLength(3)
    expect((await readLog(account)).body.entries).toHaveLength(4)
  })

  it('pages have 50 entries, and a revoked device is told of no page that it may not read', async () => {
    const account = await createTestAccount()
    const { device } = await addTestDevice(account, 'phone')
    await extendAccount(account, { type: 'revoke_device', device_id: device.device_id, pins: null })
    while (account.log.log_seq < 51)
      await extendAccount(account, { type: 'rename_device', device_id: account.device.device_id, name: `n${account.log.log_seq}` })
    for (const built of account.entries) {
      const proof = await assertAs(account, server_key, 'log')
      expect(
        await post('/api/log', {
          ...wire(built),
          boxes: { [account.device.device_id]: built.boxes[account.device.device_id] },
          proof,
          repair: true,
        }),
      ).toMatchObject({ status: 200 })
    }
    const first = await readLog(account)
    expect({ has_more: first.body.has_more, length: first.body.entries.length }).toEqual({ has_more: true, length: 50 })
    const rest = await readLog(account, { from_log_seq: 50 })
    expect({ has_more: rest.body.has_more, length: rest.body.entries.length }).toEqual({ has_more: false, length: 2 })
    const own = await readLog(account, { signer: device })
    expect({ has_more: own.body.has_more, length: own.body.entries.length }).toEqual({ has_more: false, length: 3 })
  })

  it('nobody of a suspended account reads its log or gets a token', async () => {
    const account = await registered()
    const { device, built } = await addTestDevice(account, 'phone')
    await postEntry(account, built)
    await postEntry(account, await extendAccount(account, { type: 'revoke_device', device_id: device.device_id, pins: null }))
    await query(database.url, `update account set active = false where user_id = decode('${toHex(account.root.sign_pub)}', 'hex')`)
    for (const signer of [account.device, device, 'root'] as const)
      expect(await readLog(account, { signer })).toMatchObject({ status: 403, body: { code: 'suspended' } })
    for (const signer of [account.device, device])
      expect(await post('/api/auth/token', await assertAs(account, server_key, 'token', { signer }))).toMatchObject({
        status: 403,
        body: { code: 'suspended' },
      })
  })

  it('nobody reads the log of another account, and an unknown signer is told no more than a wrong one', async () => {
    const account = await registered()
    const other = await registered()
    const mixed = { ...account, device: other.device }
    const unknown = await createTestAccount()
    const answers = [
      await readLog(mixed),
      await readLog(unknown),
      await readLog({ ...account, device: { ...account.device, sign_seed: other.device.sign_seed } }),
    ]
    for (const { status, body } of answers) {
      expect(status).toBe(401)
      expect({ ...body, request_id: '' }).toEqual({ ...answers[0]!.body, request_id: '' })
    }
    expect(await readLog(unknown, { signer: 'root' })).toMatchObject({ status: 404, body: { code: 'not_found' } })
  })
})

describe('POST /api/auth/token', () => {
  it('an active device gets a token; the root and a stranger do not', async () => {
    const account = await registered()
    const { status, body } = await post('/api/auth/token', await assertAs(account, server_key, 'token'))
    expect({ status, expires_in: body.expires_in }).toEqual({ status: 200, expires_in: 600 })
    expect(await post('/api/auth/token', await assertAs(account, server_key, 'token', { signer: 'root' }))).toMatchObject({ status: 401 })
    const stranger = await createTestAccount()
    expect(await post('/api/auth/token', await assertAs(stranger, server_key, 'token'))).toMatchObject({
      status: 401,
      body: { code: 'unauthorized' },
    })
  })

  it('a revoked device gets none, and the one it has dies at once (R01)', async () => {
    const account = await registered()
    const { device, built } = await addTestDevice(account, 'phone')
    await postEntry(account, built)
    const token = await tokenOf(account, device)
    const put = () => putSlot(mailbox(), 'offer', token)
    expect((await put()).status).toBe(204)
    await postEntry(account, await extendAccount(account, { type: 'revoke_device', device_id: device.device_id, pins: null }))
    expect(await put()).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
    expect(await post('/api/auth/token', await assertAs(account, server_key, 'token', { signer: device }))).toMatchObject({
      status: 403,
      body: { code: 'device_revoked' },
    })
  })
})

it('a token of the right device under another key of it is worth nothing', async () => {
  const account = await registered()
  const tokens = createTokens(fixedKeys([secrets.jwt_sign_seed]), server_key, () => store.now())
  const claims = { user_id: account.user_id, device_id: account.device.device_id }
  const issue = async (sign_pub: Uint8Array) => (await tokens.issue({ ...claims, sign_pub, token_version: 0 })).access_token
  expect((await putSlot(mailbox(), 'offer', await issue(account.device.sign_pub))).status).toBe(204)
  expect((await putSlot(mailbox(), 'offer', await issue(account.root.sign_pub))).status).toBe(401)
})

const mailbox = () => toBase64url(nodeCrypto.random(16))
const sealed = (byte = 7, length = 64) => Buffer.alloc(length, byte)
function putSlot(mailbox_id: string, slot: string, token?: string, payload = sealed()) {
  const headers = { 'content-type': 'application/octet-stream', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }
  return ask({ method: 'PUT', url: routePath('read_slot', { mailbox_id, slot }), payload, headers })
}
const getSlot = (mailbox_id: string, slot: string, wait = 0) =>
  ask({ method: 'GET', url: `${routePath('read_slot', { mailbox_id, slot })}?wait=${wait}` })

describe('the pairing mailbox (B02)', () => {
  it('carries the four slots between two who know its id, and a waiting reader is woken at once', async () => {
    const account = await registered()
    const token = await tokenOf(account)
    const id = mailbox()
    expect((await putSlot(id, 'offer', token, sealed(1))).status).toBe(204)
    expect((await getSlot(id, 'offer')).raw).toEqual(sealed(1))
    const began = performance.now()
    const waiting = getSlot(id, 'join', 25)
    setTimeout(() => void putSlot(id, 'join', undefined, sealed(2)), 100)
    const join = await waiting
    expect(join).toMatchObject({ status: 200, raw: sealed(2) })
    expect(join.headers['content-type']).toBe('application/octet-stream')
    expect(performance.now() - began).toBeLessThan(1_500)
    expect((await putSlot(id, 'reveal', token, sealed(3))).status).toBe(204)
    expect((await putSlot(id, 'done', token, sealed(4))).status).toBe(204)
    expect((await getSlot(id, 'done', 25)).raw).toEqual(sealed(4))
  })

  it('a slot is filled once, also by its creator; the same bytes again are a success', async () => {
    const account = await registered()
    const token = await tokenOf(account)
    const id = mailbox()
    for (const [slot, by] of [
      ['offer', token],
      ['join', undefined],
    ] as const) {
      for (let i = 0; i < 2; i++) expect((await putSlot(id, slot, by, sealed(1))).status).toBe(204)
      expect(await putSlot(id, slot, by, sealed(2))).toMatchObject({ status: 409, body: { code: 'slot_taken' } })
      expect((await getSlot(id, slot)).raw).toEqual(sealed(1))
    }
  })

  it('only its creator fills offer, reveal and done (R10)', async () => {
    const account = await registered()
    const { device, built } = await addTestDevice(account, 'phone')
    await postEntry(account, built)
    const others = [await tokenOf(account, device), await tokenOf(await registered())]
    const id = mailbox()
    for (const slot of ['offer', 'reveal', 'done'])
      expect(await putSlot(id, slot)).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
    await putSlot(id, 'offer', await tokenOf(account))
    for (const token of others)
      for (const slot of ['reveal', 'done'])
        expect(await putSlot(id, slot, token)).toMatchObject({ status: 404, body: { code: 'not_found' } })
    expect(await putSlot(id, 'reveal', `${others[0]}x`)).toMatchObject({ status: 401 })
  })

  it('an empty slot and an unknown mailbox are not found, after the wait; a slot that no mailbox has is no request', async () => {
    const account = await registered()
    const token = await tokenOf(account)
    const id = mailbox()
    await putSlot(id, 'offer', token)
    const began = performance.now()
    expect(await getSlot(id, 'join', 1)).toMatchObject({ status: 404, body: { code: 'not_found' } })
    expect(performance.now() - began).toBeGreaterThan(900)
    expect(await getSlot(mailbox(), 'offer')).toMatchObject({ status: 404 })
    expect(await getSlot(id, 'other')).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(await putSlot(mailbox(), 'join')).toMatchObject({ status: 404, body: { code: 'not_found' } })
    expect(await putSlot(mailbox(), 'reveal', token)).toMatchObject({ status: 404, body: { code: 'not_found' } })
  })

  it('bad ids, waits, types and sizes are refused', async () => {
    const account = await registered()
    const token = await tokenOf(account)
    const id = mailbox()
    expect(await putSlot('short', 'offer', token)).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(await putSlot(id, 'offer', token, sealed(1, 27))).toMatchObject({ status: 400 })
    expect(await putSlot(id, 'offer', token, sealed(1, 4_097))).toMatchObject({ status: 413, body: { code: 'too_large' } })
    expect((await putSlot(id, 'offer', token, sealed(1, 4_096))).status).toBe(204)
    for (const wait of [26, -1, 'x', 1.5]) expect(await getSlot(id, 'offer', wait as number)).toMatchObject({ status: 400 })
    const json = { method: 'PUT', url: `/api/pairing/${id}/join`, payload: { a: 1 } } as const
    expect(await ask(json)).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
  })

  it('60 gets a minute per mailbox (R12)', async () => {
    const id = mailbox()
    for (let i = 0; i < 60; i++) expect((await getSlot(id, 'offer')).status).toBe(404)
    expect(await getSlot(id, 'offer')).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
    expect((await getSlot(mailbox(), 'offer')).status).toBe(404)
  })

  it('a closing server answers those who wait', async () => {
    const on = start()
    const waiting = ask({ method: 'GET', url: `${routePath('read_slot', { mailbox_id: mailbox(), slot: 'join' })}?wait=25` }, on)
    await new Promise((resolve) => setTimeout(resolve, 50))
    const began = performance.now()
    await on.close()
    expect((await waiting).status).toBe(404)
    expect(performance.now() - began).toBeLessThan(1_000)
  })
})

describe('every route', () => {
  it('the server names its key', async () => {
    expect(await ask({ method: 'GET', url: '/.well-known/sealpost.json' })).toMatchObject({
      status: 200,
      body: { server_key: toBase64url(server_key), chain: [] },
    })
  })

  it('a request id comes back when it is well formed, and is made when not (R05)', async () => {
    const idOf = async (given?: string) => {
      const { headers, body } = await ask({
        method: 'POST',
        url: '/api/log',
        payload: {},
        headers: given === undefined ? {} : { 'x-request-id': given },
      })
      expect(body.request_id).toBe(headers['x-request-id'])
      return headers['x-request-id']
    }
    expect(await idOf('abc.DEF-12345')).toBe('abc.DEF-12345')
    for (const bad of [undefined, 'short', 'x'.repeat(129), 'with blank here', 'a\tb\tc\td\te', '{"json":1}'])
      expect(await idOf(bad)).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('each log line of a request carries its id, the pattern of the route, and no mailbox id', async () => {
    const keep = (object: unknown, message?: unknown) => void logged.push({ object, message })
    const on = start({ logger: { debug: keep, info: keep, warn: keep, error: keep } as HttpDeps['logger'] })
    const id = mailbox()
    await ask({ method: 'GET', url: `/api/pairing/${id}/join`, headers: { 'x-request-id': 'request-1' } }, on)
    await on.close()
    expect(logged.map(({ object }) => object)).toContainEqual(
      expect.objectContaining({ request_id: 'request-1', route: '/api/pairing/:mailbox_id/:slot', status: 404 }),
    )
    expect(JSON.stringify(logged)).not.toContain(id)
  })

  it.each(Object.entries(ROUTES).filter(([, route]) => route.auth === 'token'))(
    '%s takes no other credential than a token',
    async (_, route) => {
      const url = route.path.replace('{mailbox_id}', mailbox())
      for (const headers of [{}, { authorization: 'Bearer a.b.c' }, { authorization: 'Basic eDp5' }, { 'x-user-id': '1' }]) {
        const body = route.bodyBytesMax === 0 ? {} : { payload: sealed() }
        expect(
          await ask({ method: route.method, url, ...body, headers: { 'content-type': 'application/octet-stream', ...headers } }),
        ).toMatchObject({
          status: 401,
          body: { code: 'unauthorized' },
          headers: { 'www-authenticate': 'Bearer' },
        })
      }
    },
  )

  it('what does not exist, other methods and broken requests are problems with a code (R02)', async () => {
    const expectProblem = async (options: InjectOptions, status: number, code: string) => {
      const answer = await ask(options)
      expect(answer).toMatchObject({ status, body: { code, status } })
      expect(answer.headers['content-type']).toContain('application/problem+json')
    }
    await expectProblem({ method: 'GET', url: '/nothing' }, 404, 'not_found')
    await expectProblem({ method: 'DELETE', url: '/api/log' }, 404, 'not_found')
    await expectProblem({ method: 'GET', url: '/%zz' }, 400, 'invalid_request')
    await expectProblem(
      { method: 'POST', url: '/api/log', payload: '{', headers: { 'content-type': 'application/json' } },
      400,
      'invalid_request',
    )
    await expectProblem(
      { method: 'POST', url: '/api/log', payload: '{"__proto__":{"a":1}}', headers: { 'content-type': 'application/json' } },
      400,
      'invalid_request',
    )
    await expectProblem({ method: 'POST', url: '/api/log', payload: 'x', headers: { 'content-type': 'text/xml' } }, 400, 'invalid_request')
    await expectProblem({ method: 'POST', url: '/api/auth/token', payload: { body: 'x'.repeat(20_000), sig: '' } }, 413, 'too_large')
    await expectProblem({ method: 'POST', url: '/api/log' }, 400, 'invalid_request')
  })

  it('no body makes a route fail inside (600 runs)', async () => {
    const on = start({ logger: { ...quiet, error: (object: unknown) => expect(object).toBeUndefined() } as HttpDeps['logger'] })
    const account = await createTestAccount()
    const good = { ...wire(account.entries[0]!), proof: await assertAs(account, server_key, 'log') }
    const b64 = fc.uint8Array({ maxLength: 200 }).map(toBase64url)
    const signed = fc.record({
      body: fc.oneof(
        b64,
        fc.json().map((text) => Buffer.from(text).toString('base64url')),
      ),
      sig: fc.constant(good.sig),
    })
    const mutated = fc
      .tuple(fc.constantFrom('body', 'sig', 'boxes', 'proof'), fc.jsonValue())
      .map(([key, value]) => ({ ...good, [key]: value }))
    const shaped = fc.record({
      body: fc.oneof(signed.map((object) => object.body)),
      sig: fc.constant(good.sig),
      boxes: fc.dictionary(fc.string(), b64),
      proof: signed,
    })
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('/api/log', '/api/log/read', '/api/auth/token'),
        fc.oneof(fc.jsonValue(), signed, mutated, shaped),
        async (url, payload) => {
          const { status } = await ask(
            { method: 'POST', url, payload: JSON.stringify(payload), headers: { 'content-type': 'application/json' } },
            on,
          )
          expect(status).toBeGreaterThanOrEqual(400)
          expect(status).toBeLessThan(500)
        },
      ),
      { numRuns: 600 },
    )
    await on.close()
  })

  it('600 requests a minute per address, refused before the body is read (R12)', async () => {
    const on = start()
    const knock = () => ask({ method: 'GET', url: '/.well-known/sealpost.json', remoteAddress: '2001:db8::1' }, on)
    for (let i = 0; i < 600; i++) expect((await knock()).status).toBe(200)
    expect(await knock()).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
    expect((await ask({ method: 'GET', url: '/livez', remoteAddress: '2001:db8::1' }, on)).status).toBe(200)
    await on.close()
  })
})

describe('health (R06)', () => {
  it('is live and ready; while draining it is live only', async () => {
    expect(await ask({ method: 'GET', url: '/livez' })).toMatchObject({ status: 200, body: { status: 'live' } })
    expect(await ask({ method: 'GET', url: '/readyz' })).toMatchObject({ status: 200, body: { status: 'ready' } })
    draining = true
    expect(await ask({ method: 'GET', url: '/readyz' })).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    expect(await ask({ method: 'GET', url: '/livez' })).toMatchObject({ status: 200 })
    draining = false
  })

  it('with the database gone it is live, not ready, refuses with a code and says nothing of the inside (R02)', async () => {
    const own = await createTestDatabase()
    const gone = await createStore({ connection: own.connection, log: quiet })
    const on = start({ store: gone })
    await own.drop()
    const ready = await ask({ method: 'GET', url: '/readyz' }, on)
    expect(ready).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    const account = await createTestAccount()
    const answers = [
      ready,
      await post('/api/log', { ...wire(account.entries[0]!), proof: await assertAs(account, server_key, 'log') }, on),
      await post('/api/auth/token', await assertAs(account, server_key, 'token'), on),
      await ask({ method: 'GET', url: `/api/pairing/${mailbox()}/join` }, on),
    ]
    for (const { status, body } of answers) {
      expect([500, 503]).toContain(status)
      expect(['internal', 'unavailable']).toContain(body.code)
      expect(JSON.stringify(body)).not.toMatch(/database|relation|select|insert|\/|postgres/i)
    }
    expect((await ask({ method: 'GET', url: '/livez' }, on)).status).toBe(200)
    await on.close()
    await gone.close()
  })
})
