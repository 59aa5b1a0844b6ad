/** Forged tokens, made of one in force: what every verifier of ours has to refuse, whatever the token is for (RFC 8725). */
import { createHmac, generateKeyPairSync, sign as signWith } from 'node:crypto'
import { type Bytes, toBase64url, tuple, utf8 } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { CompactEncrypt } from 'jose'
import { kidOf } from '../../../server/src/http/auth/signing-keys.ts'

export type Json = Record<string, unknown>
/** A token in force, taken apart. */
export type Good = { token: string; header: Json; claims: Json; parts: [string, string, string] }
export type Forgery = readonly [says: string, make: () => string | Promise<string>]
export type Sign = (input: string) => Uint8Array | string

/** The keys that sign tokens, as the relay derives them. */
export function signingKey(secret: Bytes, purpose: string, generation: number): { seed: Bytes; public_key: Bytes; kid: string } {
  const seed = nodeCrypto.hkdf(secret, new Uint8Array(), tuple('access-token-key', purpose, generation))
  const public_key = nodeCrypto.ed25519Public(seed)
  return { seed, public_key, kid: kidOf(public_key) }
}

export const encode = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
export const decode = (part: string): Json => JSON.parse(Buffer.from(part, 'base64url').toString())

export function takeApart(token: string): Good {
  const parts = token.split('.') as Good['parts']
  return { token, header: decode(parts[0]), claims: decode(parts[1]), parts }
}

export const by =
  (seed: Uint8Array): Sign =>
  (input) =>
    nodeCrypto.ed25519Sign(seed, utf8(input))
export const mac =
  (hash: string, key: Uint8Array | string): Sign =>
  (input) =>
    createHmac(hash, key).update(input).digest()
const nothing: Sign = () => ''

/** What tests make only when they run. */
export type Original = { good(): Good; active(): { seed: Bytes; public_key: Bytes; kid: string } }

/** With these members in place of the right ones, signed by the active key unless said otherwise. Texts are taken as they are. */
export function createForge({ good, active }: Original) {
  return (header: Json | string, claims: Json | string = {}, sign?: Sign): string => {
    const merged = (given: Json | string, right: Json) => (typeof given === 'string' ? given : { ...right, ...given })
    const input = `${encode(merged(header, good().header))}.${encode(merged(claims, good().claims))}`
    return `${input}.${Buffer.from((sign ?? by(active().seed))(input)).toString('base64url')}`
  }
}

export const stranger = nodeCrypto.random(32)
const strangerJwk = { kty: 'OKP', crv: 'Ed25519', x: toBase64url(nodeCrypto.ed25519Public(stranger)) }

/** `audience`: of the token; `life_s`: how long it is good; `leeway` is half a minute. */
export function forgeriesOf(original: Original, { audience, life_s }: { audience: string; life_s: number }): Forgery[] {
  const { good, active } = original
  const forge = createForge(original)
  const now_s = (): number => Math.floor(Date.now() / 1_000)
  const pem = (): string =>
    `-----BEGIN PUBLIC KEY-----\n${Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), active().public_key]).toString('base64')}\n-----END PUBLIC KEY-----\n`
  return [
    // ------------------------------------------------------------ algorithms
    ...['none', 'None', 'NONE', 'nOnE'].flatMap((alg): Forgery[] => [
      [`alg ${alg} without a signature`, () => forge({ alg }, {}, nothing)],
      [`alg ${alg} with a signature`, () => forge({ alg })],
    ]),
    ['alg none in two parts', () => `${encode({ ...good().header, alg: 'none' })}.${good().parts[1]}`],
    ['no alg', () => forge({ alg: undefined })],
    ['alg null', () => forge({ alg: null })],
    ['an empty alg', () => forge({ alg: '' })],
    ['a list of algs', () => forge({ alg: ['Ed25519'] })],
    ['alg in lower case', () => forge({ alg: 'ed25519' })],
    ['EdDSA by the right key', () => forge({ alg: 'EdDSA' })],
    ['HS256 under the bytes of the public key', () => forge({ alg: 'HS256' }, {}, mac('sha256', active().public_key))],
    ['HS256 under the PEM of the public key', () => forge({ alg: 'HS256' }, {}, mac('sha256', pem()))],
    ['HS256 under the x of the JWKS', () => forge({ alg: 'HS256' }, {}, mac('sha256', toBase64url(active().public_key)))],
    ['HS256 under an empty secret', () => forge({ alg: 'HS256' }, {}, mac('sha256', ''))],
    ['HS384 under the public key', () => forge({ alg: 'HS384' }, {}, mac('sha384', active().public_key))],
    ['HS512 under the public key', () => forge({ alg: 'HS512' }, {}, mac('sha512', active().public_key))],
    ...(['RS256', 'PS256', 'ES256', 'ES384', 'Ed448'] as const).map(
      (alg): Forgery => [`${alg} by a key of its own`, () => asymmetric(forge, alg)],
    ),
    ['ES256 with r = s = 0', () => forge({ alg: 'ES256' }, {}, () => new Uint8Array(64))],
    ['Ed25519 with R = S = 0', () => forge({}, {}, () => new Uint8Array(64))],
    ['Ed25519 with R = identity, S = 0', () => forge({}, {}, () => new Uint8Array(64).fill(1, 0, 1))],
    [
      'a JWE',
      () =>
        new CompactEncrypt(utf8(JSON.stringify(good().claims)))
          .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid: active().kid, typ: 'at+jwt' })
          .encrypt(active().public_key),
    ],
    // ------------------------------------------------------------ which key
    ['a foreign key under the kid of the active one', () => forge({}, {}, by(stranger))],
    ['a key of other secrets', () => forge({ kid: kidOf(nodeCrypto.ed25519Public(stranger)) }, {}, by(stranger))],
    ['no kid', () => forge({ kid: undefined })],
    ['an empty kid', () => forge({ kid: '' })],
    ['a kid in a list', () => forge({ kid: [active().kid] })],
    ['a kid in an object', () => forge({ kid: { toString: active().kid } })],
    ['a number as kid', () => forge({ kid: 4 })],
    ['a kid with a blank', () => forge({ kid: `${active().kid} ` })],
    ['a kid with a NUL', () => forge({ kid: `${active().kid}\0` })],
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
    ['x5t', () => forge({ x5t: active().kid, kid: undefined }, {}, by(stranger))],
    // ------------------------------------------------------------ header
    ...(['JWT', 'at+jws', 'dpop+jwt', '', undefined, null, 7] as const).map((typ): Forgery => [`typ ${String(typ)}`, () => forge({ typ })]),
    ['an unknown critical member', () => forge({ crit: ['exp'], exp: 1 })],
    ['crit b64', () => forge({ crit: ['b64'], b64: false })],
    ['an empty crit', () => forge({ crit: [] })],
    ['crit that names what is not there', () => forge({ crit: ['sealpost'] })],
    ['a header that is a list', () => forge('[]')],
    ['a header that is null', () => forge('null')],
    ['a header that is no JSON', () => forge('{"alg":"Ed25519"')],
    // ------------------------------------------------------------ claims
    ...claimsOf(forge, {
      iss: ['sealpost:other', undefined, null, '', 7, []],
      aud: [undefined, null, '', [], ['sealpost:other'], `${audience} `, { 0: audience }],
      sub: [undefined, null, '', 7, 'x', 'A'.repeat(21), 'A'.repeat(23), 'A'.repeat(42), 'A'.repeat(44), '+'.repeat(43)],
      jti: [undefined],
      cnf: [undefined, null, 'x', {}, { jkt: 7 }, { jkt: '' }, { kid: 'x' }, { jwk: strangerJwk }],
      exp: [undefined, null, 'never', '9999999999', -1, 0, 1e15],
      iat: [undefined, null, 'now', 0, 1e15],
      nbf: ['now', 1e15],
    }),
    ['expired by more than the leeway', () => forge({}, { iat: now_s() - life_s - 31, exp: now_s() - 31 })],
    ['a life that is too long', () => forge({}, { iat: now_s(), exp: now_s() + life_s + 1 })],
    ['issued long ago and not expired', () => forge({}, { iat: now_s() - life_s - 60, exp: now_s() + 30 })],
    ['issued in the future', () => forge({}, { iat: now_s() + 60, exp: now_s() + life_s })],
    ['not yet valid', () => forge({}, { nbf: now_s() + 60 })],
    // ------------------------------------------------------------ shape
    ['claims changed, signature kept', () => [good().parts[0], encode({ ...good().claims, more: 1 }), good().parts[2]].join('.')],
    ['header changed, signature kept', () => [encode({ ...good().header, cty: 'x' }), good().parts[1], good().parts[2]].join('.')],
    [
      'a claim doubled, signature kept',
      () => [good().parts[0], encode(JSON.stringify(good().claims).replace('{', '{"sub":"x",')), good().parts[2]].join('.'),
    ],
    ['members through __proto__', () => forge({}, `{"__proto__":${JSON.stringify(good().claims)}}`)],
    ['claims that are a list', () => forge({}, '[]')],
    ['claims that are null', () => forge({}, 'null')],
    ['claims that are no JSON', () => forge({}, 'x')],
    ['claims within claims', () => forge({ cty: 'JWT' }, good().token)],
    ['a detached payload', () => `${good().parts[0]}..${good().parts[2]}`],
    ['S + L', () => malleated(good())],
    ['spare bits in the signature', () => spareBits(good())],
    ['a padded signature', () => `${good().token}==`],
    ['a blank in the signature', () => `${good().token.slice(0, -3)} ${good().token.slice(-3)}`],
    ['a line end after the signature', () => `${good().token}\n`],
    ['a NUL after the signature', () => `${good().token}\0`],
    ['no signature', () => `${good().parts[0]}.${good().parts[1]}.`],
    ['two parts', () => `${good().parts[0]}.${good().parts[1]}`],
    ['four parts', () => `${good().token}.${good().parts[2]}`],
    ['an empty fourth part', () => `${good().token}.`],
    ['an empty first part', () => `.${good().token}`],
    ['half a signature', () => good().token.slice(0, -43)],
    ['a signature with a byte more', () => forge({}, {}, (input) => Buffer.concat([by(active().seed)(input) as Buffer, Buffer.alloc(1)]))],
    ['two signatures in one', () => `${good().token}${good().parts[2]}`],
    ['two tokens', () => `${good().token},${good().token}`],
    ['more than 4 KB', () => forge({}, { pad: 'x'.repeat(4_096) })],
    ['a JWS in JSON', () => JSON.stringify({ protected: good().parts[0], payload: good().parts[1], signature: good().parts[2] })],
  ]
}

/** Each value in the place of each claim. */
export function claimsOf(forge: ReturnType<typeof createForge>, claims: Record<string, unknown[]>): Forgery[] {
  return Object.entries(claims).flatMap(([claim, values]) =>
    values.map((value): Forgery => [`${claim} ${JSON.stringify(value) ?? 'left out'}`, () => forge({}, { [claim]: value })]),
  )
}

function asymmetric(forge: ReturnType<typeof createForge>, alg: 'RS256' | 'PS256' | 'ES256' | 'ES384' | 'Ed448'): string {
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
function malleated({ parts }: Good): string {
  const signature = Buffer.from(parts[2], 'base64url')
  const order = 2n ** 252n + 27742317777372353535851937790883648493n
  const s = BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString('hex')}`) + order
  const high = Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse()
  return `${parts[0]}.${parts[1]}.${Buffer.concat([signature.subarray(0, 32), high]).toString('base64url')}`
}

/** The same bytes to a lenient decoder: the last character carries four spare bits. */
function spareBits({ token }: Good): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const last = alphabet.indexOf(token.at(-1) ?? '')
  return token.slice(0, -1) + alphabet[last + 1]
}
