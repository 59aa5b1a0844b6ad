/** Makes vectors/tokens.json on node:crypto alone: an access token, and tokens that must be refused. Run: `node vectors/make/tokens.ts` */
import { createHash, createHmac, createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { writeFileSync } from 'node:fs'

const b64 = (value: Uint8Array | string): string => Buffer.from(value).toString('base64url')
const seed = (byte: number): Buffer => Buffer.alloc(32, byte)
const privateKey = (bytes: Buffer) =>
  createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), bytes]), format: 'der', type: 'pkcs8' })
const publicKey = (bytes: Buffer): Buffer => createPublicKey(privateKey(bytes)).export({ type: 'spki', format: 'der' }).subarray(-32)
const sha256 = (bytes: Uint8Array | string): Buffer => createHash('sha256').update(bytes).digest()

const now_ms = 1_764_000_000_000
const iat = now_ms / 1_000
const kid = b64(sha256(publicKey(seed(9)))).slice(0, 16)
const device_id = '7b1c2d3e-4f50-4162-8374-95a6b7c8d9ea'
const jkt = b64(sha256(JSON.stringify({ crv: 'Ed25519', kty: 'OKP', x: b64(publicKey(seed(2))) })))
const header = { alg: 'Ed25519', typ: 'at+jwt', kid }
const claims = {
  device_id,
  scope: 'device',
  cnf: { jkt },
  token_version: 0,
  iss: `sealpost:${b64(publicKey(seed(3)))}`,
  aud: 'sealpost:rest',
  sub: b64(publicKey(seed(1))),
  iat,
  exp: iat + 600,
  jti: '0193a000-0000-4000-8000-000000000001',
}

function token(head: object, body: object, signer: (input: Buffer) => Buffer = (input) => sign(null, input, privateKey(seed(9)))): string {
  const input = `${b64(JSON.stringify(head))}.${b64(JSON.stringify(body))}`
  return `${input}.${b64(signer(Buffer.from(input)))}`
}

const valid = token(header, claims)
const [head = '', , sig = ''] = valid.split('.')
const invalid = [
  ['alg none, no signature', token({ ...header, alg: 'none' }, claims, () => Buffer.alloc(0))],
  ['HS256 with the public key as its secret', token({ ...header, alg: 'HS256' }, claims, (input) => createHmac('sha256', publicKey(seed(9))).update(input).digest())],
  ['another typ', token({ ...header, typ: 'JWT' }, claims)],
  ['an unknown kid', token({ ...header, kid: 'AAAAAAAAAAAAAAAA' }, claims)],
  ['a key of its own in the header', token({ alg: 'Ed25519', typ: 'at+jwt', jwk: { kty: 'OKP', crv: 'Ed25519', x: b64(publicKey(seed(8))) } }, claims, (input) => sign(null, input, privateKey(seed(8))))],
  ['signed by another key', token(header, claims, (input) => sign(null, input, privateKey(seed(8))))],
  ['another audience', token(header, { ...claims, aud: 'sealpost:admin' })],
  ['another issuer', token(header, { ...claims, iss: 'sealpost:other' })],
  ['expired', token(header, { ...claims, iat: iat - 700, exp: iat - 100 })],
  ['longer than ten minutes', token(header, { ...claims, exp: iat + 6_000 })],
  ['without the key of a device', token(header, { ...claims, cnf: undefined })],
  ['claims changed, signature kept', `${head}.${b64(JSON.stringify({ ...claims, device_id: '00000000-0000-4000-8000-000000000000' }))}.${sig}`],
].map(([name, text]) => ({ name, token: text, code: 'unauthorized' }))

const out = { note: 'seeds are repeated bytes; a relay answers each invalid one with code', now_ms, sign_seed: '09*32', server_seed: '03*32', kid, claims, valid, invalid }
writeFileSync(new URL('../tokens.json', import.meta.url), `${JSON.stringify(out, null, 1)}\n`)
