import { ROUTES, type RouteName, routePath, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PostgresStore } from '../../store/store.ts'
import { append, createAccount, makeDevice, type TestAccount, type TestDevice } from '@sealpost/testing/clients/store-accounts'
import { query } from '@sealpost/testing/components/test-database'
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
import { silent } from '@sealpost/testing/relays/silent-log'
import { useRest } from '@sealpost/testing/relays/injected-rest'
import { authenticate } from './routes.ts'
import type { Contract } from '../contract.ts'
import { CONTRACTS } from '../contracts.ts'
import { openSigningKeys } from './signing-keys.ts'
import { thumbprint } from './jwt.ts'
import { createTokens, type Tokens } from './tokens.ts'

const secret = nodeCrypto.random(32)
const rest = useRest({
  keys: { signing: () => keys.signing(), verifying: (kid) => keys.verifying(kid), jwks: () => keys.jwks() },
})
/** Every refresh moves the keys on: 1 and 2 are dropped, 3 is retired, 4 active, 5 next. */
const keyAt = (generation: number, purpose = 'rest') => signingKey(secret, purpose, generation)
const ACTIVE = 4

let store: PostgresStore
let keys: Awaited<ReturnType<typeof openSigningKeys>>
let tokens: Tokens
let account: TestAccount
let other: TestAccount
let suspended: TestAccount
let device: TestDevice
let revoked: TestDevice
/** A token in force, taken apart. */
let good: Good

beforeAll(async () => {
  store = rest.store
  account = await createAccount(store, 3)
  ;[device, , revoked] = account.devices as [TestDevice, TestDevice, TestDevice]
  await append(store, account, { type: 'revoke_device', revoked: [{ device_id: revoked.device_id }] })
  other = await createAccount(store, 1)
  suspended = await createAccount(store, 1)
  await query(rest.url, `update account set active = false where user_no = ${suspended.user_no}`)
  const rotate = await openSigningKeys(store, secret, silent, { schedule: { active_ms: 0, published_ms: 0, retired_ms: 600_000 } })
  await rotate.refresh()
  await rotate.refresh()
  await rotate.close()
  await query(rest.url, `update signing_key set retired_at = retired_at - 1300000 where generation < 3`)
  keys = await openSigningKeys(store, secret, silent)
  // 90 days later
  await query(rest.url, 'update signing_key set active_at = active_at - 7776000000, created_at = created_at - 7776000000')
  await keys.refresh()
  tokens = createTokens(keys, rest.server_key, () => store.now())
  const { access_token: token } = await tokens.issue({ user_id: account.user_id, ...device, token_version: 0 })
  good = takeApart(token)
})
afterAll(() => keys?.close())

const asDevice = (token: string) => authenticate({ tokens, store }, `Bearer ${token}`)
const original = { good: () => good, active: () => keyAt(ACTIVE) }
const forge = createForge(original)

const of = async (user_id: string, signer: TestDevice) => ({
  sub: user_id,
  device_id: signer.device_id,
  cnf: { jkt: await thumbprint(signer.sign_pub) },
})

const FORGERIES: Forgery[] = [
  ...forgeriesOf(original, { audience: 'sealpost:rest', life_s: 600 }),
  // ------------------------------------------------------------ which key
  ['a foreign key under the kid of the retired one', () => forge({ kid: keyAt(3).kid }, {}, by(stranger))],
  ['a foreign key under the kid of the next one', () => forge({ kid: keyAt(5).kid }, {}, by(stranger))],
  ['the next key under the kid of the active one', () => forge({}, {}, by(keyAt(5).seed))],
  ['the active key under the kid of the next one', () => forge({ kid: keyAt(5).kid })],
  ['the active key under the kid of the retired one', () => forge({ kid: keyAt(3).kid })],
  ['a key that was dropped', () => forge({ kid: keyAt(1).kid }, {}, by(keyAt(1).seed))],
  ['a key that is not made yet', () => forge({ kid: keyAt(6).kid }, {}, by(keyAt(6).seed))],
  ['a key for another purpose', () => forge({ kid: keyAt(ACTIVE, 'admin').kid }, {}, by(keyAt(ACTIVE, 'admin').seed))],
  ['a signature by another device than the relay', () => forge({}, {}, by(device.sign_seed))],
  // ------------------------------------------------------------ claims
  ...claimsOf(forge, {
    aud: ['sealpost:admin', ['sealpost:admin']],
    device_id: [undefined, null, 1, '', 'x', '00000000-0000-4000-8000-000000000000', ['x']],
    scope: ['admin', 'device admin', undefined, null, ['device']],
    token_version: [undefined, null, 1, -1, '0', 0.5, [0], true],
  }),
  // ------------------------------------------------------------ whose it is
  ['the subject of another account', () => forge({}, { sub: other.user_id })],
  ['the device of another account', () => forge({}, { device_id: other.devices[0]!.device_id })],
  ['subject and device of others, own key', () => forge({}, { sub: other.user_id, device_id: other.devices[0]!.device_id })],
  ['another device of the account, own key', () => forge({}, { device_id: account.devices[1]!.device_id })],
  ['the key of another device', async () => forge({}, { cnf: { jkt: await thumbprint(account.devices[1]!.sign_pub) } })],
  ['the root as device', () => forge({}, { device_id: 'root' })],
  ['a revoked device (R01)', async () => forge({}, await of(account.user_id, revoked))],
  ['a device that was never added', async () => forge({}, await of(account.user_id, makeDevice()))],
  ['an account that never was', async () => forge({}, await of(toBase64url(nodeCrypto.random(32)), device))],
  ['the refresh token in place of the access token', () => toBase64url(nodeCrypto.random(52))],
]

describe('forged access tokens (G23, R01)', () => {
  it('the token that the forgeries are made of is in force, and so are those of the retired and the next key', async () => {
    const { user_no, user_id } = account
    const whoever = { user_no, device_no: 1, user_id, device_id: device.device_id }
    expect(await asDevice(good.token)).toMatchObject(whoever)
    expect(good.header['kid']).toBe(keyAt(ACTIVE).kid)
    for (const generation of [3, ACTIVE, 5])
      expect(await asDevice(forge({ kid: keyAt(generation).kid }, {}, by(keyAt(generation).seed)))).toMatchObject(whoever)
    expect((await keys.jwks()).keys.map(({ kid }) => kid)).toEqual([3, ACTIVE, 5].map((generation) => keyAt(generation).kid))
  })

  it('are 60 and more, each of its own', async () => {
    const made = await Promise.all(FORGERIES.map(async ([, make]) => make()))
    expect(made.filter((token, i) => made.indexOf(token) !== i)).toEqual([])
    expect(made).not.toContain(good.token)
    expect(FORGERIES.length).toBeGreaterThanOrEqual(60)
  })

  it.each(FORGERIES)('nobody is behind: %s', async (_, make) => {
    expect(await asDevice(await make())).toBeNull()
  })

  it.each([
    ['no header', () => undefined],
    ['no scheme', () => good.token],
    ['another scheme', () => `Basic ${good.token}`],
    ['DPoP', () => `DPoP ${good.token}`],
    ['two blanks', () => `Bearer  ${good.token}`],
    ['two tokens', () => `Bearer ${good.token} ${good.token}`],
    ['nothing behind the scheme', () => 'Bearer '],
  ])('nobody is behind an Authorization with %s', async (_, make) => {
    expect(await authenticate({ tokens, store }, make())).toBeNull()
  })

  it('a device of a suspended account is told so, and nobody', async () => {
    expect(await asDevice(forge({}, await of(suspended.user_id, suspended.devices[0]!)))).toBe('suspended')
  })

  it('over HTTP each is 401 on every route that asks for a token, the same for all, and ends nothing', async () => {
    const ask = async (name: RouteName, token: string): Promise<{ statusCode: number; body: string }> => {
      const { example = {} }: Contract = CONTRACTS[name]
      const headers = { authorization: `Bearer ${token}`, 'x-request-id': 'the-same' }
      return rest.app.inject({ method: ROUTES[name].method, url: routePath(name, example.params), headers })
    }
    const made = await Promise.all(FORGERIES.map(async ([what, make]): Promise<[string, string]> => [what, await make()]))
    // no header can hold the others
    const sendable = made.filter(([, token]) => /^[\x20-\x7e]*$/.test(token))
    expect(sendable.length).toBeGreaterThanOrEqual(60)
    const refused = (await ask('logout', '')).body
    expect(refused).toContain('"code":"unauthorized"')
    const routes = (Object.keys(ROUTES) as RouteName[]).filter((name) => ROUTES[name].auth === 'token')
    for (const name of routes) {
      const answers = await Promise.all(sendable.map(async ([what, token]) => ({ what, ...(await ask(name, token)) })))
      const others = answers.filter(({ statusCode, body }) => statusCode !== 401 || body !== refused)
      expect(others.map(({ what, statusCode, body }) => `${name}, ${what}: ${statusCode} ${body}`)).toEqual([])
    }
    expect((await ask('logout', good.token)).statusCode).toBe(204)
    expect((await ask('logout', good.token)).statusCode).toBe(401)
  })
})
