import { createHmac, generateKeyPairSync, sign as signWith } from 'node:crypto'
import { ROUTES, type RouteName, routePath, toBase64url, tuple, utf8 } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { CompactEncrypt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PostgresStore } from '../store/store.ts'
import { append, createAccount, makeDevice, type TestAccount, type TestDevice } from '../testing/accounts.ts'
import { query } from '../testing/database.ts'
import { silent } from '../testing/log.ts'
import { useRest } from '../testing/rest.ts'
import { authenticate } from './auth-routes.ts'
import type { Contract } from './contract.ts'
import { CONTRACTS } from './contracts.ts'
import { kidOf, openSigningKeys } from './signing-keys.ts'
import { thumbprint } from './jwt.ts'
import { createTokens, type Tokens } from './tokens.ts'

type Json = Record<string, unknown>

const secret = nodeCrypto.random(32)
const rest = useRest({
  keys: { signing: () => keys.signing(), verifying: (kid) => keys.verifying(kid), jwks: () => keys.jwks() },
})
/** Every refresh moves the keys on: 1 and 2 are dropped, 3 is retired, 4 active, 5 next. */
const seedOf = (generation: number, purpose = 'rest') =>
  nodeCrypto.hkdf(secret, new Uint8Array(), tuple('access-token-key', purpose, generation))
const publicOf = (generation: number, purpose = 'rest') => nodeCrypto.ed25519Public(seedOf(generation, purpose))
const kidAt = (generation: number, purpose = 'rest') => kidOf(publicOf(generation, purpose))
const ACTIVE = 4
const stranger = nodeCrypto.random(32)
const strangerJwk = { kty: 'OKP', crv: 'Ed25519', x: toBase64url(nodeCrypto.ed25519Public(stranger)) }

let store: PostgresStore
let keys: Awaited<ReturnType<typeof openSigningKeys>>
let tokens: Tokens
let account: TestAccount
let other: TestAccount
let suspended: TestAccount
let device: TestDevice
let revoked: TestDevice
/** A token in force, taken apart. */
let good: { token: string; header: Json; claims: Json; parts: [string, string, string] }

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
  const parts = token.split('.') as [string, string, string]
  const [header, claims] = [decode(parts[0]), decode(parts[1])]
  good = { token, header, claims, parts }
})
afterAll(() => keys?.close())

const decode = (part: string): Json => JSON.parse(Buffer.from(part, 'base64url').toString())
const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const asDevice = (token: string) => authenticate({ tokens, store }, `Bearer ${token}`)

type Sign = (input: string) => Uint8Array | string
const by =
  (seed: Uint8Array): Sign =>
  (input) =>
    nodeCrypto.ed25519Sign(seed, utf8(input))
const mac =
  (hash: string, key: Uint8Array | string): Sign =>
  (input) =>
    createHmac(hash, key).update(input).digest()
const nothing: Sign = () => ''

/** With these members in place of the right ones, signed by the active key unless said otherwise. Texts are taken as they are. */
function forge(header: Json | string, claims: Json | string = {}, sign: Sign = by(seedOf(ACTIVE))): string {
  const merged = (given: Json | string, right: Json) => (typeof given === 'string' ? given : { ...right, ...given })
  const input = `${encode(merged(header, good.header))}.${encode(merged(claims, good.claims))}`
  return `${input}.${Buffer.from(sign(input)).toString('base64url')}`
}
const now_s = () => Math.floor(store.now() / 1_000)
const pem = (generation: number) =>
  `-----BEGIN PUBLIC KEY-----\n${Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), publicOf(generation)]).toString('base64')}\n-----END PUBLIC KEY-----\n`

function asymmetric(alg: 'RS256' | 'PS256' | 'ES256' | 'ES384' | 'Ed448'): string {
  const pair =
    alg === 'ES256' || alg === 'ES384'
      ? generateKeyPairSync('ec', { namedCurve: alg === 'ES256' ? 'P-256' : 'P-384' })
      : alg === 'Ed448'
        ? generateKeyPairSync('ed448')
        : generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwk = pair.publicKey.export({ format: 'jwk' })
  const hash = alg === 'Ed448' ? null : alg === 'ES384' ? 'sha384' : 'sha256'
  const padding = alg === 'PS256' ? { padding: 6, saltLength: 32 } : {}
  return forge({ alg, jwk }, {}, (input) => signWith(hash, utf8(input), { key: pair.privateKey, dsaEncoding: 'ieee-p1363', ...padding }))
}

/** S + L in place of S: the same signature to whoever does not compare S with the order of the group. */
function malleated(): string {
  const signature = Buffer.from(good.parts[2], 'base64url')
  const order = 2n ** 252n + 27742317777372353535851937790883648493n
  const s = BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString('hex')}`) + order
  const high = Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse()
  return `${good.parts[0]}.${good.parts[1]}.${Buffer.concat([signature.subarray(0, 32), high]).toString('base64url')}`
}

/** The same bytes to a lenient decoder: the last character carries four spare bits. */
function spareBits(): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const last = alphabet.indexOf(good.token.at(-1) ?? '')
  return good.token.slice(0, -1) + alphabet[last + 1]
}

const of = async (user_id: string, signer: TestDevice) => ({
  sub: user_id,
  device_id: signer.device_id,
  cnf: { jkt: await thumbprint(signer.sign_pub) },
})

const FORGERIES: [string, () => string | Promise<string>][] = [
  // ------------------------------------------------------------ algorithms
  ...['none', 'None', 'NONE', 'nOnE'].flatMap((alg): [string, () => string][] => [
    [`alg ${alg} without a signature`, () => forge({ alg }, {}, nothing)],
    [`alg ${alg} with a signature`, () => forge({ alg })],
  ]),
  ['alg none in two parts', () => `${encode({ ...good.header, alg: 'none' })}.${good.parts[1]}`],
  ['no alg', () => forge({ alg: undefined })],
  ['alg null', () => forge({ alg: null })],
  ['an empty alg', () => forge({ alg: '' })],
  ['a list of algs', () => forge({ alg: ['Ed25519'] })],
  ['alg in lower case', () => forge({ alg: 'ed25519' })],
  ['EdDSA by the right key', () => forge({ alg: 'EdDSA' })],
  ['HS256 under the bytes of the public key', () => forge({ alg: 'HS256' }, {}, mac('sha256', publicOf(ACTIVE)))],
  ['HS256 under the PEM of the public key', () => forge({ alg: 'HS256' }, {}, mac('sha256', pem(ACTIVE)))],
  ['HS256 under the x of the JWKS', () => forge({ alg: 'HS256' }, {}, mac('sha256', toBase64url(publicOf(ACTIVE))))],
  ['HS256 under an empty secret', () => forge({ alg: 'HS256' }, {}, mac('sha256', ''))],
  ['HS384 under the public key', () => forge({ alg: 'HS384' }, {}, mac('sha384', publicOf(ACTIVE)))],
  ['HS512 under the public key', () => forge({ alg: 'HS512' }, {}, mac('sha512', publicOf(ACTIVE)))],
  ...(['RS256', 'PS256', 'ES256', 'ES384', 'Ed448'] as const).map((alg): [string, () => string] => [
    `${alg} by a key of its own`,
    () => asymmetric(alg),
  ]),
  ['ES256 with r = s = 0', () => forge({ alg: 'ES256' }, {}, () => new Uint8Array(64))],
  ['Ed25519 with R = S = 0', () => forge({}, {}, () => new Uint8Array(64))],
  ['Ed25519 with R = identity, S = 0', () => forge({}, {}, () => new Uint8Array(64).fill(1, 0, 1))],
  [
    'a JWE',
    () =>
      new CompactEncrypt(utf8(JSON.stringify(good.claims)))
        .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid: kidAt(ACTIVE), typ: 'at+jwt' })
        .encrypt(publicOf(ACTIVE)),
  ],
  // ------------------------------------------------------------ which key
  ['a foreign key under the kid of the active one', () => forge({}, {}, by(stranger))],
  ['a foreign key under the kid of the retired one', () => forge({ kid: kidAt(3) }, {}, by(stranger))],
  ['a foreign key under the kid of the next one', () => forge({ kid: kidAt(5) }, {}, by(stranger))],
  ['the next key under the kid of the active one', () => forge({}, {}, by(seedOf(5)))],
  ['the active key under the kid of the next one', () => forge({ kid: kidAt(5) })],
  ['the active key under the kid of the retired one', () => forge({ kid: kidAt(3) })],
  ['a key that was dropped', () => forge({ kid: kidAt(1) }, {}, by(seedOf(1)))],
  ['a key that is not made yet', () => forge({ kid: kidAt(6) }, {}, by(seedOf(6)))],
  ['a key for another purpose', () => forge({ kid: kidAt(ACTIVE, 'admin') }, {}, by(seedOf(ACTIVE, 'admin')))],
  ['a key of other secrets', () => forge({ kid: kidOf(nodeCrypto.ed25519Public(stranger)) }, {}, by(stranger))],
  ['no kid', () => forge({ kid: undefined })],
  ['an empty kid', () => forge({ kid: '' })],
  ['a kid in a list', () => forge({ kid: [kidAt(ACTIVE)] })],
  ['a kid in an object', () => forge({ kid: { toString: kidAt(ACTIVE) } })],
  ['a number as kid', () => forge({ kid: 4 })],
  ['a kid with a blank', () => forge({ kid: `${kidAt(ACTIVE)} ` })],
  ['a kid with a NUL', () => forge({ kid: `${kidAt(ACTIVE)}\0` })],
  ['a kid of 3 KB', () => forge({ kid: 'k'.repeat(3_000) })],
  ['a path as kid', () => forge({ kid: '../../dev/null' }, {}, mac('sha256', ''))],
  ['SQL as kid', () => forge({ kid: `x' or '1'='1` }, {}, by(stranger))],
  ['__proto__ as kid', () => forge({ kid: '__proto__' }, {}, by(stranger))],
  // ------------------------------------------------------------ keys and addresses of keys in the header
  ['jwk', () => forge({ jwk: strangerJwk }, {}, by(stranger))],
  ['jwk without kid', () => forge({ jwk: strangerJwk, kid: undefined }, {}, by(stranger))],
  ['jwk with the kid of its own', () => forge({ jwk: { ...strangerJwk, kid: 'mine' }, kid: 'mine' }, {}, by(stranger))],
  ['jku', () => forge({ jku: 'https://example.com/.well-known/jwks.json' }, {}, by(stranger))],
  ['x5u', () => forge({ x5u: 'https://example.com/key.pem' }, {}, by(stranger))],
  ['x5c', () => forge({ x5c: [Buffer.from(nodeCrypto.ed25519Public(stranger)).toString('base64')] }, {}, by(stranger))],
  ['x5t', () => forge({ x5t: kidAt(ACTIVE), kid: undefined }, {}, by(stranger))],
  // ------------------------------------------------------------ header
  ...(['JWT', 'at+jws', 'dpop+jwt', '', undefined, null, 7] as const).map((typ): [string, () => string] => [
    `typ ${String(typ)}`,
    () => forge({ typ }),
  ]),
  ['an unknown critical member', () => forge({ crit: ['exp'], exp: 1 })],
  ['crit b64', () => forge({ crit: ['b64'], b64: false })],
  ['an empty crit', () => forge({ crit: [] })],
  ['crit that names what is not there', () => forge({ crit: ['sealpost'] })],
  ['a header that is a list', () => forge('[]')],
  ['a header that is null', () => forge('null')],
  ['a header that is no JSON', () => forge('{"alg":"Ed25519"')],
  // ------------------------------------------------------------ claims
  ...(
    [
      ['iss', ['sealpost:other', undefined, null, '', 7, []]],
      ['aud', ['sealpost:admin', undefined, null, '', [], ['sealpost:admin'], 'sealpost:rest ', { 0: 'sealpost:rest' }]],
      ['sub', [undefined, null, '', 7, 'x', 'A'.repeat(42), 'A'.repeat(44), '+'.repeat(43)]],
      ['device_id', [undefined, null, 1, '', 'x', '00000000-0000-4000-8000-000000000000', ['x']]],
      ['scope', ['admin', 'device admin', undefined, null, ['device']]],
      ['jti', [undefined]],
      ['cnf', [undefined, null, 'x', {}, { jkt: 7 }, { jkt: '' }, { kid: 'x' }, { jwk: strangerJwk }]],
      ['token_version', [undefined, null, 1, -1, '0', 0.5, [0], true]],
      ['exp', [undefined, null, 'never', '9999999999', -1, 0, 1e15]],
      ['iat', [undefined, null, 'now', 0, 1e15]],
      ['nbf', ['now', 1e15]],
    ] as [string, unknown[]][]
  ).flatMap(([claim, values]) =>
    values.map((value): [string, () => string] => [`${claim} ${JSON.stringify(value) ?? 'left out'}`, () => forge({}, { [claim]: value })]),
  ),
  ['expired by more than the leeway', () => forge({}, { iat: now_s() - 631, exp: now_s() - 31 })],
  ['a life of more than ten minutes', () => forge({}, { iat: now_s(), exp: now_s() + 601 })],
  ['issued eleven minutes ago and not expired', () => forge({}, { iat: now_s() - 660, exp: now_s() + 30 })],
  ['issued in the future', () => forge({}, { iat: now_s() + 60, exp: now_s() + 600 })],
  ['not yet valid', () => forge({}, { nbf: now_s() + 60 })],
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
  // ------------------------------------------------------------ shape
  ['claims changed, signature kept', () => [good.parts[0], encode({ ...good.claims, token_version: 1 }), good.parts[2]].join('.')],
  ['header changed, signature kept', () => [encode({ ...good.header, cty: 'x' }), good.parts[1], good.parts[2]].join('.')],
  [
    'a claim doubled, signature kept',
    () => [good.parts[0], encode(JSON.stringify(good.claims).replace('{', `{"device_id":"${device.device_id}",`)), good.parts[2]].join('.'),
  ],
  ['members through __proto__', () => forge({}, `{"__proto__":${JSON.stringify(good.claims)}}`)],
  ['claims that are a list', () => forge({}, '[]')],
  ['claims that are null', () => forge({}, 'null')],
  ['claims that are no JSON', () => forge({}, 'x')],
  ['claims within claims', () => forge({ cty: 'JWT' }, good.token)],
  ['a detached payload', () => `${good.parts[0]}..${good.parts[2]}`],
  ['a signature by another device than the relay', () => forge({}, {}, by(device.sign_seed))],
  ['S + L', malleated],
  ['spare bits in the signature', spareBits],
  ['a padded signature', () => `${good.token}==`],
  ['a blank in the signature', () => `${good.token.slice(0, -3)} ${good.token.slice(-3)}`],
  ['a line end after the signature', () => `${good.token}\n`],
  ['a NUL after the signature', () => `${good.token}\0`],
  ['no signature', () => `${good.parts[0]}.${good.parts[1]}.`],
  ['two parts', () => `${good.parts[0]}.${good.parts[1]}`],
  ['four parts', () => `${good.token}.${good.parts[2]}`],
  ['an empty fourth part', () => `${good.token}.`],
  ['an empty first part', () => `.${good.token}`],
  ['half a signature', () => good.token.slice(0, -43)],
  ['a signature with a byte more', () => forge({}, {}, (input) => Buffer.concat([by(seedOf(ACTIVE))(input) as Buffer, Buffer.alloc(1)]))],
  ['two signatures in one', () => `${good.token}${good.parts[2]}`],
  ['two tokens', () => `${good.token},${good.token}`],
  ['more than 4 KB', () => forge({}, { pad: 'x'.repeat(4_096) })],
  ['a JWS in JSON', () => JSON.stringify({ protected: good.parts[0], payload: good.parts[1], signature: good.parts[2] })],
  ['the refresh token in place of the access token', () => toBase64url(nodeCrypto.random(52))],
]

describe('forged access tokens (G23, R01)', () => {
  it('the token that the forgeries are made of is in force, and so are those of the retired and the next key', async () => {
    const { user_no, user_id } = account
    const whoever = { user_no, device_no: 1, user_id, device_id: device.device_id }
    expect(await asDevice(good.token)).toMatchObject(whoever)
    expect(good.header['kid']).toBe(kidAt(ACTIVE))
    for (const generation of [3, ACTIVE, 5])
      expect(await asDevice(forge({ kid: kidAt(generation) }, {}, by(seedOf(generation))))).toMatchObject(whoever)
    expect((await keys.jwks()).keys.map(({ kid }) => kid)).toEqual([3, ACTIVE, 5].map((generation) => kidAt(generation)))
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
