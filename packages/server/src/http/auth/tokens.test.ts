import { createHmac } from 'node:crypto'
import { toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { decodeJwt, decodeProtectedHeader, importJWK, SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { fixedKeys } from '@sealpost/testing/relays/fixed-keys'
import { thumbprint } from './jwt.ts'
import { createTokens } from './tokens.ts'

const fill = (byte: number) => new Uint8Array(32).fill(byte)
const serverKey = nodeCrypto.ed25519Public(fill(3))
const device = {
  user_id: toBase64url(nodeCrypto.ed25519Public(fill(1))),
  device_id: '7b1c2d3e-4f50-4162-8374-95a6b7c8d9ea',
  sign_pub: nodeCrypto.ed25519Public(fill(2)),
  token_version: 0,
}
const START = 1_764_000_000_000
let clock = START
const tokens = createTokens(fixedKeys([fill(9)]), serverKey, () => clock)
const issued = async () => {
  clock = START
  return (await tokens.issue(device)).access_token
}
const jwk = (seed: Uint8Array) => ({ kty: 'OKP', crv: 'Ed25519', x: toBase64url(nodeCrypto.ed25519Public(seed)), d: toBase64url(seed) })
const b64 = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** Signed by the issuer's own key, with these members in place of the right ones. */
async function forged(header: object, claims: Record<string, unknown>, seed = fill(9)): Promise<string> {
  const good = await issued()
  const key = await importJWK(jwk(seed), 'Ed25519')
  return new SignJWT({ ...decodeJwt(good), ...claims })
    .setProtectedHeader({ ...(decodeProtectedHeader(good) as { alg: string }), ...header })
    .sign(key)
}

describe('an access token (G23)', () => {
  it('says who, for how long, and is bound to the key of the device', async () => {
    clock = START
    const { access_token, expires_in } = await tokens.issue(device)
    expect(expires_in).toBe(600)
    expect(decodeProtectedHeader(access_token)).toEqual({ alg: 'Ed25519', typ: 'at+jwt', kid: expect.stringMatching(/^[\w-]{16}$/) })
    expect(decodeJwt(access_token)).toEqual({
      iss: `sealpost:${toBase64url(serverKey)}`,
      aud: 'sealpost:rest',
      sub: device.user_id,
      device_id: device.device_id,
      scope: 'device',
      token_version: 0,
      iat: START / 1_000,
      exp: START / 1_000 + 600,
      jti: expect.stringMatching(/^[0-9a-f-]{36}$/),
      cnf: { jkt: await thumbprint(device.sign_pub) },
    })
    expect(await tokens.verify(access_token)).toEqual({
      user_id: device.user_id,
      device_id: device.device_id,
      scope: 'device',
      jkt: await thumbprint(device.sign_pub),
      token_version: 0,
      expires_at: START + 600_000,
    })
  })

  it.each([
    [0, true],
    [600_000, true],
    [629_000, true],
    [631_000, false],
    [-29_000, true],
    [-31_000, false],
  ])('is in force for 10 minutes with 30 s of leeway: after %i ms %s', async (after, inForce) => {
    const token = await issued()
    clock = START + after
    expect((await tokens.verify(token)) !== null).toBe(inForce)
  })

  it('is known by all keys of the set and by no other one', async () => {
    const token = await issued()
    expect(await createTokens(fixedKeys([fill(10), fill(9)]), serverKey, () => START).verify(token)).not.toBeNull()
    expect(await createTokens(fixedKeys([fill(10)]), serverKey, () => START).verify(token)).toBeNull()
    expect(await createTokens(fixedKeys([fill(9)]), fill(4), () => START).verify(token)).toBeNull()
  })

  it.each<[string, () => Promise<string>]>([
    ['another type', () => forged({ typ: 'JWT' }, {})],
    ['no type', () => forged({ typ: undefined }, {})],
    ['an unknown kid', () => forged({ kid: 'other' }, {})],
    ['no kid', () => forged({ kid: undefined }, {})],
    ['a foreign key under the right kid', () => forged({}, {}, fill(10))],
    [
      'a foreign key that comes along as jwk',
      () => forged({ jwk: { kty: 'OKP', crv: 'Ed25519', x: toBase64url(nodeCrypto.ed25519Public(fill(10))) } }, {}, fill(10)),
    ],
    ['another issuer', () => forged({}, { iss: 'sealpost:other' })],
    ['another audience', () => forged({}, { aud: 'sealpost:admin' })],
    ['another scope', () => forged({}, { scope: 'admin' })],
    ['no subject', () => forged({}, { sub: undefined })],
    ['no device', () => forged({}, { device_id: undefined })],
    ['no key binding', () => forged({}, { cnf: undefined })],
    ['a key binding of another kind', () => forged({}, { cnf: { kid: 'x' } })],
    ['no jti', () => forged({}, { jti: undefined })],
    ['no expiry', () => forged({}, { exp: undefined })],
    ['a longer life', () => forged({}, { exp: START / 1_000 + 601 })],
    ['above 4 KB', () => forged({}, { pad: 'x'.repeat(4_096) })],
    ['an unknown critical header', () => forged({ crit: ['x'], x: 1 }, {}).catch(() => 'x.y.z')],
  ])('is refused with %s', async (_, make) => {
    expect(await tokens.verify(await make())).toBeNull()
  })

  it('is refused under another algorithm: none, EdDSA, HS256 with the public key', async () => {
    const good = await issued()
    const [, payload = '', signature = ''] = good.split('.')
    const { kid } = decodeProtectedHeader(good)
    expect(await tokens.verify(`${b64({ alg: 'none', typ: 'at+jwt', kid })}.${payload}.`)).toBeNull()
    const renamed = `${b64({ alg: 'EdDSA', typ: 'at+jwt', kid })}.${payload}`
    const resigned = Buffer.from(nodeCrypto.ed25519Sign(fill(9), Buffer.from(renamed))).toString('base64url')
    expect(await tokens.verify(`${renamed}.${resigned}`)).toBeNull()
    const hs = `${b64({ alg: 'HS256', typ: 'at+jwt', kid })}.${payload}`
    const mac = createHmac('sha256', nodeCrypto.ed25519Public(fill(9)))
      .update(hs)
      .digest('base64url')
    expect(await tokens.verify(`${hs}.${mac}`)).toBeNull()
    expect(
      await tokens.verify(
        `${good.split('.')[0]}.${b64({ ...decodeJwt(good), device_id: '00000000-0000-4000-8000-000000000000' })}.${signature}`,
      ),
    ).toBeNull()
  })

  it.each(['', '.', 'a.b.c', '..', 'x'.repeat(10_000), '\u0000'])('is never anything else: %j', async (text) => {
    expect(await tokens.verify(text)).toBeNull()
  })
})
