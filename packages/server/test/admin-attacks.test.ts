/**
 * Who is no admin, or not any more (G24): credentials of one audience at the other, forged tokens, roles and admins that were taken away under
 * a live token, and assertions that come again.
 */
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import {
  type AdminRouteName,
  createAdminAssertion,
  createAssertion,
  fromBase64url,
  LIMITS,
  signObject,
  toBase64url,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { decodeJwt, SignJWT } from 'jose'
import { beforeAll, describe, expect, it } from 'vitest'
import { importKey, publicJwk } from '../src/http/auth/signing-keys.ts'
import { thumbprint } from '../src/http/auth/jwt.ts'
import { makeAccount, makeDevice, makeEntry, type TestAccount, type TestDevice } from '@sealpost/testing/clients/store-accounts'
import { type TestAdmin, useAdminServer } from '@sealpost/testing/relays/admin-server'
import {
  by,
  claimsOf,
  createForge,
  type Forgery,
  forgeriesOf,
  type Good,
  signingKey,
  stranger,
  takeApart,
} from '@sealpost/testing/forgeries/forged-tokens'
import { connectRaw } from '@sealpost/testing/clients/raw-client'

const server = useAdminServer()
let secret: Uint8Array
let owner: TestAdmin
let token = ''
beforeAll(async () => {
  const stored = JSON.parse(await readFile(server.secrets_file, 'utf8')) as { jwt_sign_seed: string }
  secret = fromBase64url(stored.jwt_sign_seed, 32)
  owner = await server.admin('owner')
  token = await server.token(owner)
  good = takeApart(token)
  other = await server.admin('owner')
  account = await server.account(1)
  device_token = await server.door.token(account)
})

let good: Good
let other: TestAdmin
let account: TestAccount
let device_token = ''
const refusedAs = async (bearer: string, name: AdminRouteName = 'list_users') => {
  const { status, body } = await server.ask(name, { token: bearer })
  return [status, body.code]
}
const UNAUTHORIZED = [401, 'unauthorized']

// ---------------------------------------------------------------- forged tokens

const active = () => signingKey(secret, 'admin', 1)
const rest = () => signingKey(secret, 'rest', 1)
const original = { good: () => good, active }
const forge = createForge(original)
const FORGERIES: Forgery[] = [
  ...forgeriesOf(original, { audience: 'sealpost:admin', life_s: LIMITS.adminTokenSeconds }),
  // ------------------------------------------------------------ the other audience
  ['the key of the other audience, its audience', () => forge({ kid: rest().kid }, { aud: 'sealpost:rest' }, by(rest().seed))],
  ['the key of the other audience, this audience', () => forge({ kid: rest().kid }, {}, by(rest().seed))],
  ['the key of the other audience under the kid of this one', () => forge({}, {}, by(rest().seed))],
  ['this key, the audience of devices', () => forge({}, { aud: 'sealpost:rest' })],
  ['this key, both audiences', () => forge({}, { aud: ['sealpost:rest'] })],
  ['the token of a device', () => device_token],
  [
    'the token of a device, said to be for admins',
    () => {
      const { header, claims } = takeApart(device_token)
      return forge(header, { ...claims, aud: 'sealpost:admin' }, by(rest().seed))
    },
  ],
  ['a key that is not made yet', () => forge({ kid: signingKey(secret, 'admin', 9).kid }, {}, by(signingKey(secret, 'admin', 9).seed))],
  ['the key of the server', () => forge({}, {}, by(secret))],
  // ------------------------------------------------------------ claims
  ...claimsOf(forge, { scope: ['device', 'admin owner', undefined, null, ['admin'], 'owner'] }),
  // ------------------------------------------------------------ whose it is
  ['another admin, own key', () => forge({}, { sub: other.admin_id })],
  ['the key of another admin', async () => forge({}, { cnf: { jkt: await thumbprint(other.public_key) } })],
  ['an admin that never was', async () => forge({}, { sub: toBase64url(nodeCrypto.random(32)).slice(0, 22) })],
  ['the account of a device as admin', () => forge({}, { sub: account.user_id })],
  ['the name of an admin', () => forge({}, { sub: owner.name })],
  ['a signature by the admin itself', () => forge({}, {}, by(owner.sign_seed))],
]

describe('forged tokens', () => {
  it('the token that they are made of is in force, and so is one of the next key', async () => {
    expect(good.header['kid']).toBe(active().kid)
    expect(await refusedAs(token)).toEqual([200, undefined])
    const next = signingKey(secret, 'admin', 2)
    expect(await refusedAs(forge({ kid: next.kid }, {}, by(next.seed)))).toEqual([200, undefined])
    expect(good.claims).toMatchObject({ sub: owner.admin_id, aud: 'sealpost:admin', scope: 'admin' })
    expect(Number(good.claims['exp']) - Number(good.claims['iat'])).toBe(300)
  })

  it('are 60 and more, each of its own, and each is 401 in the same words', { timeout: 30_000 }, async () => {
    const made = await Promise.all(FORGERIES.map(async ([says, make]) => [says, await make()] as const))
    expect(new Set(made.map(([, forged]) => forged)).size).toBe(made.length)
    const sendable = made.filter(([, forged]) => /^[\x20-\x7e]*$/.test(forged))
    expect(sendable.length).toBeGreaterThanOrEqual(60)
    for (const [says, forged] of sendable) {
      const answer = await server.ask('list_users', { token: forged, headers: { 'x-request-id': 'the-same' } })
      const plain = {
        type: 'urn:sealpost:problem:unauthorized',
        title: 'No valid credentials.',
        status: 401,
        code: 'unauthorized',
        request_id: 'the-same',
      }
      expect([says, answer.body]).toEqual([says, plain])
    }
    expect(await refusedAs(token)).toEqual([200, undefined])
  })

  it('what a header says of who asks counts for nothing', async () => {
    const { status, body } = await server.ask('list_users', {
      headers: {
        cookie: `token=${token}`,
        'x-admin-id': owner.admin_id,
        'x-role': 'owner',
        'x-forwarded-user': owner.name,
        'x-auth-request-user': owner.name,
        authorization: `Basic ${Buffer.from(`${owner.admin_id}:${token}`).toString('base64')}`,
      },
    })
    expect([status, body.code]).toEqual(UNAUTHORIZED)
    expect((await server.ask('list_users', { query: { access_token: token } })).status).toBe(401)
  })
})

// ---------------------------------------------------------------- the two audiences

describe('nothing of devices is worth anything to the listener of admins, nor the other way round', () => {
  it('a token of a device here, a token of an admin there: REST, and streams that are followed', async () => {
    expect(await refusedAs(device_token)).toEqual(UNAUTHORIZED)
    for (const [method, path] of [
      ['GET', '/api/user'],
      ['GET', '/api/devices'],
      ['GET', '/api/events'],
      ['GET', '/api/events/live'],
      ['GET', '/api/user/export'],
      ['POST', '/api/auth/logout'],
    ] as const) {
      const { status, body } = await server.door.ask(method, path, { token })
      expect([path, status, body.code]).toEqual([path, ...UNAUTHORIZED])
    }
  })

  it('keys of one purpose sign nothing for the other, whatever the audience says', async () => {
    // a token of this device in every member, signed by the keys of admins
    const { header, claims } = takeApart(device_token)
    const key = await importKey({ ...publicJwk(active().public_key), d: toBase64url(active().seed) })
    for (const kid of [active().kid, header['kid'] as string]) {
      const forged = await new SignJWT(claims).setProtectedHeader({ ...header, alg: 'Ed25519', kid }).sign(key)
      expect(decodeJwt(forged)).toEqual(decodeJwt(device_token))
      expect((await server.door.ask('GET', '/api/user', { token: forged })).status).toBe(401)
    }
    const { body } = await server.door.ask('GET', '/.well-known/jwks.json')
    const kids = body.keys.map(({ kid }: { kid: string }) => kid)
    expect(kids).toContain(header['kid'])
    expect(kids).not.toContain(active().kid)
  })

  it('assertions of one are none for the other, also by one and the same key', async () => {
    // the seed of an admin is that of a device, too
    const twin = await server.admin('owner')
    const double: TestDevice = { ...makeDevice(), sign_seed: twin.sign_seed, sign_pub: twin.public_key }
    const theirs = makeAccount()
    const genesis = makeEntry(theirs, { type: 'genesis', device: double })
    expect(await server.store.appendEntry(genesis)).toMatchObject({ ok: true })
    theirs.devices = [double]
    const aud = toBase64url(server.server_key)
    const ofDevice = (purpose: string) =>
      createAssertion(nodeCrypto, twin.sign_seed, { purpose, aud, user_id: theirs.user_id, signer: double.device_id }, Date.now())
    const ofAdmin = () => server.assertion(twin)

    // each is good where it belongs
    expect((await server.ask('create_admin_token', { json: await ofAdmin() })).status).toBe(200)
    expect((await server.door.ask('POST', '/api/auth/token', { json: await ofDevice('token') })).status).toBe(200)

    for (const purpose of ['token', 'session', 'log', 'admin-token']) {
      const { status } = await server.ask('create_admin_token', { json: await ofDevice(purpose) })
      expect([purpose, status]).toEqual([purpose, 400])
    }
    const { body, sig } = genesis.entry
    const there = async (path: string, more: object = {}) => {
      const answer = await server.door.ask('POST', path, { json: { ...(await ofAdmin()), ...more } })
      return [path, answer.status, answer.body.code]
    }
    for (const path of ['/api/auth/token', '/api/log/read', '/api/events/session']) {
      const answer = await there(path)
      expect(answer[1]).toBeGreaterThanOrEqual(400)
      expect(answer[1]).toBeLessThan(402)
    }
    expect((await there('/api/auth/refresh', { refresh_token: 'AAAA' }))[1]).toBeGreaterThanOrEqual(400)
    const entry = { body: toBase64url(body), sig: toBase64url(sig), boxes: genesis.boxes, proof: await ofAdmin() }
    expect((await server.door.ask('POST', '/api/log', { json: entry })).status).toBeGreaterThanOrEqual(400)
    expect((await server.door.ask('DELETE', '/api/user', { json: await ofAdmin() })).status).toBeGreaterThanOrEqual(400)
    expect((await server.store.readOperatedUser(theirs.user_id))?.log_seq).toBe(0)

    // bodies of one kind under the label of the other, and members of both at once
    const members = {
      purpose: 'admin-token',
      aud,
      admin_key: toBase64url(twin.public_key),
      iat: Date.now(),
      jti: randomUUID().replaceAll('-', ''),
    }
    const both = { ...members, user_id: theirs.user_id, signer: double.device_id }
    for (const label of ['assertion', 'log', 'client auth', 'checkpoint', 'device']) {
      const signed = await signObject(nodeCrypto, label, null, twin.sign_seed, both)
      expect([label, (await server.ask('create_admin_token', { json: signed })).status]).toEqual([label, 401])
    }
    const hybrid = await signObject(nodeCrypto, 'admin assertion', null, twin.sign_seed, { ...both, purpose: 'token' })
    expect((await server.door.ask('POST', '/api/auth/token', { json: hybrid })).status).toBe(401)
  })

  it('a socket is no place for a key of an admin that is no device', async () => {
    const { devices, user_id, log_seq, log_head } = account
    const raw = {
      ...server.door.raw({ ...account, log_seq, log_head }),
      identity: { user_id, device_id: devices[0]!.device_id, sign_seed: owner.sign_seed },
    }
    await expect(connectRaw(raw)).rejects.toThrow('4401')
    const asAdmin = { ...raw, identity: { user_id: toBase64url(owner.public_key), device_id: randomUUID(), sign_seed: owner.sign_seed } }
    await expect(connectRaw(asAdmin)).rejects.toThrow('4401')
  })

  it('routes of one are not there on the other', async () => {
    for (const path of ['/api/admin/users', '/api/admin/token', '/api/admin/self', '/api/admin/audit'])
      expect([path, (await server.door.ask(path.endsWith('token') ? 'POST' : 'GET', path, { token })).status]).toEqual([path, 404])
    for (const path of ['/api/user', '/api/devices', '/api/events', '/api/auth/token', '/api/log', '/api/socket', '/.well-known/jwks.json'])
      for (const method of ['GET', 'POST']) {
        const { status } = await fetch(`${server.admin_url}${path}`, { method, headers: { authorization: `Bearer ${token}` } })
        expect([path, status]).toEqual([path, 404])
      }
  })
})

// ---------------------------------------------------------------- what was true when the token was made

describe('a live token', () => {
  it('of an owner that is made a viewer is that of a viewer at once, and of one who is made an owner that of an owner', async () => {
    const admin = await server.admin('owner')
    const live = await server.token(admin)
    const { user_id } = await server.account(1)
    const may = (name: AdminRouteName, params = {}, json?: object) =>
      server.ask(name, { token: live, params, ...(json === undefined ? {} : { json }) })
    expect((await may('suspend_user', { user_id }, {})).status).toBe(200)
    await server.as('owner', 'set_admin_role', { params: { admin_id: admin.admin_id }, json: { role: 'viewer' } })
    expect((await may('resume_user', { user_id }, {})).body.code).toBe('forbidden')
    expect((await may('delete_user', { user_id })).body.code).toBe('forbidden')
    expect((await may('set_admin_role', { admin_id: admin.admin_id }, { role: 'owner' })).body.code).toBe('forbidden')
    expect(
      (await may('add_admin', {}, { name: 'second me', role: 'owner', public_key: toBase64url(nodeCrypto.random(32)) })).body.code,
    ).toBe('forbidden')
    expect((await may('read_self')).body.role).toBe('viewer')
    await server.as('owner', 'set_admin_role', { params: { admin_id: admin.admin_id }, json: { role: 'operator' } })
    expect((await may('resume_user', { user_id }, {})).status).toBe(200)
    expect((await may('delete_user', { user_id })).body.code).toBe('forbidden')
  })

  it('of an admin that is removed is worth nothing at once, and no new one is given out', async () => {
    const admin = await server.admin('owner')
    const live = await server.token(admin)
    expect(await refusedAs(live)).toEqual([200, undefined])
    await server.as('owner', 'remove_admin', { params: { admin_id: admin.admin_id } })
    expect(await refusedAs(live)).toEqual(UNAUTHORIZED)
    expect(
      (
        await server.ask('add_admin', {
          token: live,
          json: { name: 'again', role: 'owner', public_key: toBase64url(nodeCrypto.random(32)) },
        })
      ).status,
    ).toBe(401)
    expect((await server.ask('create_admin_token', { json: await server.assertion(admin) })).status).toBe(401)
    // nor when the clock of the machine is off: who was removed is not told so
    expect((await server.ask('create_admin_token', { json: await server.assertion(admin, 400_000) })).body.code).toBe('unauthorized')
    const { body } = await server.as('viewer', 'list_audit', { query: { action: 'admin_token_refused', order: 'newest' } })
    expect(body.rows.length).toBeGreaterThan(0)
  })

  it('ends 5 minutes after it was made', async () => {
    const now = Math.floor(Date.now() / 1_000)
    expect(await refusedAs(forge({}, { iat: now - 290, exp: now + 10 }))).toEqual([200, undefined])
    expect(await refusedAs(forge({}, { iat: now - 332, exp: now - 32 }))).toEqual(UNAUTHORIZED)
    expect(await refusedAs(forge({}, { iat: now - 332, exp: now + 10 }))).toEqual(UNAUTHORIZED)
    expect(await refusedAs(forge({}, { iat: now, exp: now + 301 }))).toEqual(UNAUTHORIZED)
  })

  it('a role that a request, a header or a token brings along counts for nothing', async () => {
    const viewer = await server.admin('viewer')
    const live = await server.token(viewer)
    const mine = takeApart(live)
    const raised = createForge({ good: () => mine, active })({}, { role: 'owner', roles: ['owner'], scope: 'admin' })
    const { user_id } = await server.account(1)
    const headers = { 'x-role': 'owner', 'x-admin-role': 'owner', role: 'owner' }
    expect((await server.ask('read_self', { token: raised })).body.role).toBe('viewer')
    for (const bearer of [live, raised])
      for (const json of [{}, { role: 'owner' }, { reason: 'owner', admin_role: 'owner' }]) {
        const { body } = await server.ask('suspend_user', { token: bearer, params: { user_id }, json, headers })
        expect(body.code).toBe('forbidden')
      }
    const signed = await signObject(nodeCrypto, 'admin assertion', null, viewer.sign_seed, {
      purpose: 'admin-token',
      aud: toBase64url(server.server_key),
      admin_key: toBase64url(viewer.public_key),
      iat: Date.now(),
      jti: 'A'.repeat(22),
      role: 'owner',
    })
    expect((await server.ask('create_admin_token', { json: signed })).body.role).toBe('viewer')
    expect((await server.store.readOperatedUser(user_id))?.suspended_at).toBeNull()
  })
})

describe('assertions', () => {
  it('are good once, also when they come at the same time', async () => {
    const signed = await server.assertion(owner)
    const answers = await Promise.all(Array.from({ length: 10 }, () => server.ask('create_admin_token', { json: signed })))
    expect(answers.map(({ status }) => status).toSorted((x, y) => x - y)).toEqual([200, ...Array.from({ length: 9 }, () => 401)])
    expect((await server.ask('create_admin_token', { json: signed })).status).toBe(401)
    // a node more knows it, too
    const node = await server.node()
    expect((await node.ask('create_admin_token', { json: signed })).status).toBe(401)
    expect((await node.ask('create_admin_token', { json: await server.assertion(owner) })).status).toBe(200)
    await node.stop()
  })

  it('for another server, another time, or by another key give no token', async () => {
    const tell = async (json: object) => (await server.ask('create_admin_token', { json })).body.code
    const make = (seed: Uint8Array, key = server.server_key, now = Date.now()) => createAdminAssertion(nodeCrypto, seed, key, now)
    expect(await tell(await make(owner.sign_seed, nodeCrypto.random(32)))).toBe('unauthorized')
    expect(await tell(await make(owner.sign_seed, owner.public_key))).toBe('unauthorized')
    for (const off of [301_000, -301_000, 1e12])
      expect(await tell(await make(owner.sign_seed, server.server_key, Date.now() + off))).toBe('expired')
    // the time is told to nobody else
    expect(await tell(await make(nodeCrypto.random(32), server.server_key, Date.now() - 301_000))).toBe('unauthorized')
    expect(await tell(await make(stranger))).toBe('unauthorized')
    const [mine, theirs] = [await make(owner.sign_seed), await make(other.sign_seed)]
    expect(await tell({ ...mine, sig: theirs.sig })).toBe('unauthorized')
    expect(await tell({ ...mine, sig: toBase64url(new Uint8Array(64)) })).toBe('unauthorized')
  })
})
