import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DeviceKeys, type SignedObject, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { createLocalJWKSet, decodeJwt, jwtVerify } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readConfig } from '../../config/config.ts'
import type { Log } from '../../telemetry/log.ts'
import type { Hint } from '../../ports/store.ts'
import { type RunningServer, startServer } from '../../server.ts'
import { addTestDevice, assertAs, createTestAccount, extendAccount, type TestAccount } from '@sealpost/testing/clients/signing-account'
import { query, useDatabase } from '@sealpost/testing/components/test-database'
import { fixedKeys } from '@sealpost/testing/relays/fixed-keys'
import { silent } from '@sealpost/testing/relays/silent-log'
import { connectRaw } from '@sealpost/testing/clients/raw-client'
import { useRest } from '@sealpost/testing/relays/injected-rest'
import { wire } from '@sealpost/testing/clients/store-accounts'
import { AUTH_CONTRACTS } from './contracts.ts'
import { authenticate, REFRESH_GRACE_MS } from './routes.ts'
import { createRefreshTokens } from './refresh-tokens.ts'
import { createTokens } from './tokens.ts'

type Granted = { access_token: string; refresh_token: string; expires_in: number; refresh_expires_in: number; token_type: 'Bearer' }
type Signer = DeviceKeys | 'root'

const logged: { object: Record<string, unknown>; message: string }[] = []
const keep = (object: Record<string, unknown>, message: string) => void logged.push({ object, message })
const rest = useRest({ logger: { ...silent, warn: keep, error: keep } as Log })
beforeEach(() => {
  logged.length = 0
})

const assertion = (account: TestAccount, purpose: string, signer: Signer = account.device) =>
  assertAs(account, rest.server_key, purpose, { signer })
async function create(account: TestAccount, signer?: Signer): Promise<Granted> {
  const { status, body } = await rest.post('/api/auth/token', await assertion(account, 'token', signer))
  expect(status).toBe(200)
  return AUTH_CONTRACTS.create_token.answer.schema.parse(body)
}
const askRefresh = async (account: TestAccount, refresh_token: string, signer?: Signer, signed?: SignedObject) =>
  rest.post('/api/auth/refresh', { ...(signed ?? (await assertion(account, 'refresh', signer))), refresh_token })
async function refresh(account: TestAccount, refresh_token: string, signer?: Signer): Promise<Granted> {
  const { status, body } = await askRefresh(account, refresh_token, signer)
  expect(status).toBe(200)
  return AUTH_CONTRACTS.refresh_token.answer.schema.parse(body)
}
/** What a route that wants a token answers. */
const use = async (access_token: string) => (await rest.as(access_token, 'GET', '/api/devices')).status
const age = async (account: TestAccount, ms: number) => {
  const device = await rest.store.findDevice(account.user_id, account.device.device_id)
  await query(rest.url, `update refresh_family set rotated_at = rotated_at - ${ms} where user_no = ${device!.user_no}`)
}
async function withPhone(): Promise<{ account: TestAccount; phone: DeviceKeys }> {
  const account = await rest.registered()
  const { device: phone, built } = await addTestDevice(account, 'phone')
  expect((await rest.postEntry(account, built)).status).toBe(200)
  return { account, phone }
}
const revoke = async (account: TestAccount, device_id: string) => {
  const built = await extendAccount(account, { type: 'revoke_device', device_id, pins: null })
  expect((await rest.postEntry(account, built)).status).toBe(200)
}

describe('POST /api/auth/token and /api/auth/refresh (G23)', () => {
  it('a device gets an access token of 10 minutes and a refresh token, and by it the next ones', async () => {
    const account = await rest.registered()
    const first = await create(account)
    expect(first).toMatchObject({ token_type: 'Bearer', expires_in: 600, refresh_expires_in: 30 * 86_400 })
    const second = await refresh(account, first.refresh_token)
    const third = await refresh(account, second.refresh_token)
    expect(new Set([first, second, third].map((granted) => granted.refresh_token)).size).toBe(3)
    for (const { access_token } of [first, second, third]) expect(await use(access_token)).toBe(200)
    expect(logged).toEqual([])
  })

  it('when the answer was lost, the same token gives the same refresh token again for 30 s', async () => {
    const account = await rest.registered()
    const { refresh_token } = await create(account)
    const lost = await refresh(account, refresh_token)
    await age(account, REFRESH_GRACE_MS - 2_000)
    for (let i = 0; i < 3; i++) {
      const again = await refresh(account, refresh_token)
      expect(again.refresh_token).toBe(lost.refresh_token)
      expect(await use(again.access_token)).toBe(200)
    }
    await refresh(account, lost.refresh_token)
    expect(logged).toEqual([])
  })

  it('a refresh by two at once is one: both are given the same refresh token', async () => {
    const account = await rest.registered()
    let { refresh_token } = await create(account)
    for (let round = 0; round < 20; round++) {
      const given = await Promise.all([refresh(account, refresh_token), refresh(account, refresh_token)])
      expect(new Set(given.map((granted) => granted.refresh_token)).size).toBe(1)
      expect(given[0].refresh_token).not.toBe(refresh_token)
      ;({ refresh_token } = given[0])
    }
    expect(logged).toEqual([])
  })

  it('a new family takes the place of the old one, whose access tokens stay and whose refresh token is only refused, and audited', async () => {
    const account = await rest.registered()
    const before = await create(account)
    const after = await create(account)
    for (let i = 0; i < 2; i++)
      expect(await askRefresh(account, before.refresh_token)).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
    const audit = { audit: 'refresh_token_replaced', user_id: account.user_id, device_id: account.device.device_id }
    expect(logged.map(({ object }) => object)).toMatchObject([audit, audit])
    expect(JSON.stringify(logged)).not.toContain(before.refresh_token)
    for (const { access_token } of [before, after]) expect(await use(access_token)).toBe(200)
    await refresh(account, after.refresh_token)
    expect(logged).toHaveLength(2)
  })
})

describe('a stolen refresh token (G23)', () => {
  it('is worth nothing without the key of its device, and is not used up by trying', async () => {
    const { account, phone } = await withPhone()
    const thief = await rest.registered()
    const { refresh_token } = await create(account)
    const claims = { device_id: account.device.device_id, kem_seed: account.device.kem_seed }
    const impostor = { ...thief.device, ...claims }
    const used = await assertion(account, 'refresh')
    const spent = await askRefresh(account, 'A'.repeat(70), undefined, used)
    expect(spent).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
    const late = await assertAs(account, rest.server_key, 'refresh', { now_ms: Date.now() - 302_000 })
    const early = await assertAs(account, rest.server_key, 'refresh', { now_ms: Date.now() + 302_000 })
    const good = await assertion(account, 'refresh')
    const tries: [string, SignedObject][] = [
      ['another account', await assertion(thief, 'refresh')],
      ['another device of the account', await assertion(account, 'refresh', phone)],
      ['the root of the account', await assertion(account, 'refresh', 'root')],
      ['a foreign key in the name of the device', await assertion(account, 'refresh', impostor)],
      ['a foreign account in the name of the device', await assertion({ ...thief, device: account.device }, 'refresh')],
      ['for another purpose', await assertion(account, 'token')],
      ['for reading the log', await assertion(account, 'log-read')],
      ['for another server', await assertAs(account, nodeCrypto.random(32), 'refresh')],
      ['replayed', used],
      ['too old', late],
      ['from the future', early],
      ['without a signature', { ...good, sig: toBase64url(new Uint8Array(64)) }],
      ['the signature of another assertion', { ...good, sig: used.sig }],
    ]
    for (const [who, signed] of tries) {
      const { status, body } = await askRefresh(account, refresh_token, undefined, signed)
      expect([who, status]).toEqual([who, 401])
      expect(JSON.stringify(body)).not.toContain('access_token')
    }
    expect(await rest.post('/api/auth/refresh', { refresh_token })).toMatchObject({ status: 400 })
    const own = await refresh(account, refresh_token)
    expect(decodeJwt(own.access_token)['token_version']).toBe(0)
    expect(logged).toEqual([])
  })

  it('an assertion is taken once, also when it comes ten times at the same moment', async () => {
    const account = await rest.registered()
    const { refresh_token } = await create(account)
    const signed = await assertion(account, 'refresh')
    const statuses = (answered: { status: number }[]) => answered.map(({ status }) => status).toSorted((a, b) => a - b)
    const oneOfTen = [200, ...Array.from({ length: 9 }, () => 401)]
    const answers = await Promise.all(Array.from({ length: 10 }, () => askRefresh(account, refresh_token, undefined, signed)))
    expect(statuses(answers)).toEqual(oneOfTen)
    const first = await assertion(account, 'token')
    const created = await Promise.all(Array.from({ length: 10 }, () => rest.post('/api/auth/token', first)))
    expect(statuses(created)).toEqual(oneOfTen)
  })

  it('no text but the one that was given out is taken, and none of the others ends the family', async () => {
    const { account, phone } = await withPhone()
    const first = await create(account)
    const { refresh_token } = await refresh(account, (await refresh(account, first.refresh_token)).refresh_token)
    // of one that is in force, and of one that would set off the alarm
    const flips = [refresh_token, first.refresh_token].flatMap((token) => {
      const bytes = Buffer.from(token, 'base64url')
      return Array.from(bytes, (_, i) => toBase64url(bytes.map((byte, at) => (at === i ? byte ^ 1 : byte))))
    })
    const forged = [
      ...flips,
      (await create(account, phone)).refresh_token,
      (await create(await rest.registered())).refresh_token,
      createRefreshTokens(nodeCrypto.random(32)).create({ user_id: account.user_id, device_id: account.device.device_id }, UUID, 0),
      `${refresh_token}A`,
      refresh_token.slice(0, -1),
      toBase64url(nodeCrypto.random(52)),
    ]
    for (const token of forged) expect(await askRefresh(account, token)).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
    for (const token of ['', `${refresh_token}=`, ` ${refresh_token}`, 'x'.repeat(300), 7, null, [refresh_token]])
      expect(await askRefresh(account, token as string)).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    await refresh(account, refresh_token)
    expect(logged).toEqual([])
  })

  it.each(['user_id', 'device_id', 'signer', 'scope', 'generation', 'token_version', 'proof'])(
    'nothing beside it is read from the body: %s is refused',
    async (member) => {
      const account = await rest.registered()
      for (const [url, purpose] of [
        ['/api/auth/token', 'token'],
        ['/api/auth/refresh', 'refresh'],
      ] as const)
        expect(await rest.post(url, { ...(await assertion(account, purpose)), [member]: 'x' })).toMatchObject({ status: 400 })
    },
  )
})

const UUID = '0193a000-0000-4000-8000-000000000001'

describe('a refresh token that comes again (G23)', () => {
  it.each([
    ['31 s after it was used up', 1, REFRESH_GRACE_MS + 1_000],
    ['after the one that followed it was used up too', 2, 0],
  ])('%s ends the family, all access tokens and the session of its device, and is audited', async (_, uses, ms) => {
    const { account, phone } = await withPhone()
    const other = await create(account, phone)
    const granted = [await create(account)]
    for (let i = 0; i < uses; i++) granted.push(await refresh(account, granted.at(-1)!.refresh_token))
    const [stolen] = granted
    await age(account, ms)
    const { user_no } = (await rest.store.findDevice(account.user_id, account.device.device_id))!
    const hints: Hint[] = []
    const unsubscribe = rest.bus.subscribe(user_no, (hint) => hints.push(hint))
    const answer = await askRefresh(account, stolen!.refresh_token)
    unsubscribe()
    expect(answer).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
    expect(hints).toEqual([{ is: 'device', device_id: account.device.device_id }])
    expect(logged).toHaveLength(1)
    expect(logged[0]).toMatchObject({
      object: {
        audit: 'refresh_token_reused',
        user_id: account.user_id,
        device_id: account.device.device_id,
        request_id: answer.body.request_id,
      },
    })
    for (const { access_token, refresh_token } of granted) {
      expect(JSON.stringify(logged)).not.toContain(refresh_token)
      expect(await use(access_token)).toBe(401)
      expect(await askRefresh(account, refresh_token)).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
    }
    expect(logged).toHaveLength(1)
    // the device itself goes on by its key; another device was never touched
    expect(await use((await create(account)).access_token)).toBe(200)
    for (const { access_token } of granted) expect(await use(access_token)).toBe(401)
    expect(await use(other.access_token)).toBe(200)
    await refresh(account, other.refresh_token, phone)
  })
})

describe('what ends tokens (G23, R01)', () => {
  const logout = (access_token: string) => rest.as(access_token, 'POST', '/api/auth/logout')

  it('logout ends all tokens of the device at once, and of no other one', async () => {
    const { account, phone } = await withPhone()
    const other = await create(account, phone)
    const before = await create(account)
    const last = await refresh(account, before.refresh_token)
    expect(await logout(last.access_token)).toMatchObject({ status: 204, text: '' })
    for (const { access_token } of [before, last]) expect(await use(access_token)).toBe(401)
    for (const { refresh_token } of [before, last])
      expect(await askRefresh(account, refresh_token)).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
    expect(await logout(last.access_token)).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
    expect(await use(other.access_token)).toBe(200)
    expect(await use((await create(account)).access_token)).toBe(200)
    expect(logged).toEqual([])
  })

  it('a revoked device has no tokens from that moment on and gets none', async () => {
    const { account, phone } = await withPhone()
    const { access_token, refresh_token } = await create(account, phone)
    await revoke(account, phone.device_id)
    expect(await use(access_token)).toBe(401)
    expect(await askRefresh(account, refresh_token, phone)).toMatchObject({ status: 403, body: { code: 'device_revoked' } })
    const asked = await rest.post('/api/auth/token', await assertion(account, 'token', phone))
    expect(asked).toMatchObject({ status: 403, body: { code: 'device_revoked' } })
  })

  it('a suspended and a deleted account have none either', async () => {
    const account = await rest.registered()
    const { access_token, refresh_token } = await create(account)
    const { user_no } = (await rest.store.findDevice(account.user_id, account.device.device_id))!
    const refused = async (status: number, code: string) => {
      expect(await use(access_token)).toBe(status)
      expect(await askRefresh(account, refresh_token)).toMatchObject({ status, body: { code } })
      expect(await rest.post('/api/auth/token', await assertion(account, 'token'))).toMatchObject({ status, body: { code } })
    }
    await query(rest.url, `update account set active = false where user_no = ${user_no}`)
    // whoever proves to be of it is told
    await refused(403, 'suspended')
    await query(rest.url, `update account set active = true where user_no = ${user_no}`)
    expect(await use(access_token)).toBe(200)
    expect(await rest.store.deleteAccount(account.user_id, account.device.device_id)).toMatchObject({ counts: { account: 1 } })
    await refused(401, 'unauthorized')
  })

  it('who cannot be asked for lets nobody in: a store that does not answer is a failure and no caller', async () => {
    const keys = fixedKeys([nodeCrypto.random(32)])
    const tokens = createTokens(keys, rest.server_key, () => Date.now())
    const sign_pub = nodeCrypto.random(32)
    const { access_token } = await tokens.issue({ user_id: toBase64url(sign_pub), device_id: UUID, sign_pub, token_version: 0 })
    const deps = { tokens, store: { findDevice: async () => Promise.reject(new Error('down')) } }
    await expect(authenticate(deps, `Bearer ${access_token}`)).rejects.toThrow('down')
  })

  it('identity is read from a verified token alone: no header, cookie or query takes its place', async () => {
    const account = await rest.registered()
    const { access_token } = await create(account)
    const of = { user: account.user_id, device: account.device.device_id }
    const headers: Record<string, string>[] = [
      { 'x-user-id': of.user, 'x-device-id': of.device },
      { 'x-forwarded-user': of.user, 'x-remote-user': of.user, 'x-authenticated': 'true' },
      { cookie: `access_token=${access_token}; authorization=Bearer ${access_token}` },
      { 'x-access-token': access_token, 'proxy-authorization': `Bearer ${access_token}` },
    ]
    for (const given of headers) expect((await rest.ask({ method: 'GET', url: '/api/devices', headers: given })).status).toBe(401)
    for (const name of ['access_token', 'token', 'authorization'])
      expect((await rest.ask({ method: 'GET', url: `/api/devices?${name}=${access_token}` })).status).toBe(401)
    const foreign = await rest.registered()
    const mixed = await rest.as(access_token, 'GET', '/api/user', undefined, { 'x-user-id': foreign.user_id })
    expect(mixed).toMatchObject({ status: 200, body: { user_id: account.user_id } })
  })
})

describe('GET /.well-known/jwks.json (G23)', () => {
  it('gives the public keys to anyone, for a while, and they verify what the server signs', async () => {
    const { status, body, headers } = await rest.ask({ method: 'GET', url: '/.well-known/jwks.json' })
    expect([status, headers['cache-control'], headers['content-type']]).toEqual([
      200,
      'public, max-age=300',
      'application/json; charset=utf-8',
    ])
    expect(AUTH_CONTRACTS.read_jwks.answer.schema.parse(body)).toEqual(body)
    const account = await rest.registered()
    const { payload } = await jwtVerify((await create(account)).access_token, createLocalJWKSet(body), { algorithms: ['Ed25519'] })
    expect(payload.sub).toBe(account.user_id)
  })
})

describe('on a running relay (G23)', () => {
  const database = useDatabase()
  let folder: string
  let server: RunningServer
  const start = () =>
    startServer(readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: join(folder, 'data'), DATABASE_URL: database.url }), { logger: silent })

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 's-'))
    server = await start()
  })
  afterAll(async () => {
    await server?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  async function post(path: string, json: object, token?: string) {
    const headers = { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }
    const answer = await fetch(server.url + path, { method: 'POST', headers, body: JSON.stringify(json) })
    return { status: answer.status, body: (await answer.json()) as Granted }
  }
  async function register(): Promise<{ account: TestAccount; phone: DeviceKeys }> {
    const account = await createTestAccount()
    const { device: phone } = await addTestDevice(account, 'phone')
    for (const built of account.entries)
      expect((await post('/api/log', { ...wire(built), proof: await assertAs(account, server.server_key, 'log') })).status).toBe(200)
    return { account, phone }
  }
  const connect = ({ user_id, log }: TestAccount, { device_id, sign_seed }: DeviceKeys) =>
    connectRaw({
      url: server.url,
      server_key: server.server_key,
      identity: { user_id, device_id, sign_seed },
      auth: { log_seq: log.log_seq, log_head: toBase64url(log.log_head) },
    })
  const refreshAt = async (account: TestAccount, refresh_token: string) =>
    post('/api/auth/refresh', { ...(await assertAs(account, server.server_key, 'refresh')), refresh_token })

  it('a reuse closes the live session of the device with 4456 and no other one; the device comes back by its key', async () => {
    const { account, phone } = await register()
    const [session, other] = [await connect(account, account.device), await connect(account, phone)]
    const first = (await post('/api/auth/token', await assertAs(account, server.server_key, 'token'))).body
    const second = (await refreshAt(account, first.refresh_token)).body
    await refreshAt(account, second.refresh_token)
    expect((await refreshAt(account, first.refresh_token)).status).toBe(401)
    expect(await session.closed).toMatchObject({ code: 4456 })
    const back = await connect(account, account.device)
    back.send({ type: 'ping', t: 1 })
    await back.next('pong')
    other.send({ type: 'ping', t: 2 })
    await other.next('pong')
    await Promise.all([back.close(), other.close()])
  })

  it('a restart keeps the keys and the families: tokens from before are in force after it', async () => {
    const { account } = await register()
    const before = (await post('/api/auth/token', await assertAs(account, server.server_key, 'token'))).body
    const jwks = async () => (await fetch(`${server.url}/.well-known/jwks.json`)).json()
    const keys = await jwks()
    await server.stop()
    server = await start()
    expect(await jwks()).toEqual(keys)
    const read = await fetch(`${server.url}/api/devices`, { headers: { authorization: `Bearer ${before.access_token}` } })
    expect(read.status).toBe(200)
    expect((await refreshAt(account, before.refresh_token)).status).toBe(200)
  })
})
