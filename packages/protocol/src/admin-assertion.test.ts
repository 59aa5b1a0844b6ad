import { describe, expect, it } from 'vitest'
import { adminIdOf, createAdminAssertion, readAdminAssertion, verifyAdminAssertion } from './admin-assertion.ts'
import { toBase64url, utf8 } from './bytes.ts'
import { LIMITS } from './limits.ts'
import { nodeCrypto } from './node.ts'
import { createAssertion, readAssertion, type SignedObject, signObject, verifyAssertion } from './signed.ts'
import { tuple } from './tuple.ts'

const NOW = 1_790_000_000_000
const seed = nodeCrypto.random(32)
const admin_key = nodeCrypto.ed25519Public(seed)
const server_key = nodeCrypto.ed25519Public(nodeCrypto.random(32))
const verify = (signed: SignedObject, over: { server_key?: Uint8Array; now_ms?: number; skew_ms?: number; key?: Uint8Array } = {}) =>
  verifyAdminAssertion(nodeCrypto, over.key ?? admin_key, signed, { server_key, now_ms: NOW, ...over })
const right = { purpose: 'admin-token', aud: toBase64url(server_key), admin_key: toBase64url(admin_key), iat: NOW, jti: 'AAAA' }
const sign = (body: object, label = 'admin assertion', by = seed) => signObject(nodeCrypto, label, null, by, body)

describe('an assertion of an admin', () => {
  it('holds for the server and the time that it was made for, and each has a jti of its own', async () => {
    const signed = await createAdminAssertion(nodeCrypto, seed, server_key, NOW)
    expect(await verify(signed)).toBe('ok')
    expect(readAdminAssertion(signed)).toMatchObject({ ...right, jti: expect.stringMatching(/^[\w-]{22}$/) })
    const again = await createAdminAssertion(nodeCrypto, seed, server_key, NOW)
    expect(readAdminAssertion(again).jti).not.toBe(readAdminAssertion(signed).jti)
    expect(await verify(await sign(right))).toBe('ok')
  })

  it.each([
    ['for another server', { aud: toBase64url(nodeCrypto.random(32)) }],
    ['of another key than the one that signed', { admin_key: toBase64url(nodeCrypto.ed25519Public(nodeCrypto.random(32))) }],
  ])('%s is none', async (_, over) => {
    expect(await verify(await sign({ ...right, ...over }))).toBe('unauthorized')
  })

  it('a role in it is not looked at', async () => {
    const signed = await sign({ ...right, role: 'owner' })
    expect(await verify(signed)).toBe('ok')
    expect(readAdminAssertion(signed)).not.toHaveProperty('role')
  })

  it('by another key, or changed, is none', async () => {
    const signed = await sign(right)
    const other = nodeCrypto.random(32)
    expect(await verify(await sign(right, 'admin assertion', other))).toBe('unauthorized')
    expect(await verify(signed, { key: nodeCrypto.ed25519Public(other) })).toBe('unauthorized')
    const changed = toBase64url(utf8(JSON.stringify({ ...right, jti: 'BBBB' })))
    expect(await verify({ ...signed, body: changed })).toBe('unauthorized')
    expect(await verify({ ...signed, sig: (await sign({ ...right, jti: 'BBBB' })).sig })).toBe('unauthorized')
    // neither the server's own key in the admin's place
    expect(await verify(signed, { server_key: admin_key })).toBe('unauthorized')
  })

  it('is fresh for as long as clocks may differ, in both directions', async () => {
    const signed = await sign(right)
    const { assertionIatMs: max } = LIMITS
    for (const off of [max, -max]) expect(await verify(signed, { now_ms: NOW + off })).toBe('ok')
    for (const off of [max + 1, -max - 1, 1e13]) expect(await verify(signed, { now_ms: NOW + off })).toBe('expired')
    expect(await verify(signed, { now_ms: NOW + 1_001, skew_ms: 1_000 })).toBe('expired')
    // of what does not hold the time is not told
    expect(await verify(await sign(right, 'admin assertion', nodeCrypto.random(32)), { now_ms: NOW + max + 1 })).toBe('unauthorized')
  })

  it.each<[string, SignedObject | Promise<SignedObject>]>([
    ['a purpose that is another', sign({ ...right, purpose: 'token' })],
    ['a member less', sign({ purpose: right.purpose, aud: right.aud, admin_key: right.admin_key, iat: NOW })],
    ['a time that is no number', sign({ ...right, iat: String(NOW) })],
    ['a time that is no whole number', sign({ ...right, iat: 0.5 })],
    ['a key that is too short', sign({ ...right, admin_key: 'AAAA' })],
    ['a list', sign([right])],
    ['more than 4 KiB', sign({ ...right, jti: 'A'.repeat(4_096) })],
    [
      'no JSON',
      { body: toBase64url(utf8('{')), sig: toBase64url(nodeCrypto.ed25519Sign(seed, tuple('admin assertion', null, utf8('{')))) },
    ],
    ['no base64url', { body: '!', sig: '!' }],
    ['no signature', { body: toBase64url(utf8(JSON.stringify(right))), sig: '' }],
  ])('%s is refused before anything is verified', async (_, signed) => {
    const given = await signed
    expect(() => readAdminAssertion(given)).toThrow(expect.objectContaining({ code: 'invalid_message' }) as Error)
    await expect(verify(given)).rejects.toMatchObject({ code: 'invalid_message' })
  })
})

describe('what a device and an admin sign is never the same, though the key is', () => {
  const device = {
    purpose: 'token',
    aud: right.aud,
    user_id: toBase64url(nodeCrypto.random(32)),
    signer: '018f0000-0000-7000-8000-000000000000',
  }

  it('neither reads as the other', async () => {
    const ofDevice = await createAssertion(nodeCrypto, seed, device, NOW)
    const ofAdmin = await createAdminAssertion(nodeCrypto, seed, server_key, NOW)
    expect(() => readAdminAssertion(ofDevice)).toThrow()
    expect(() => readAssertion(ofAdmin)).toThrow()
    expect(await verifyAssertion(nodeCrypto, admin_key, ofDevice, { purpose: 'token', aud: right.aud, now_ms: NOW })).toMatchObject({
      ok: true,
    })
  })

  it('a body of one kind under the label of the other does not hold', async () => {
    for (const label of ['assertion', 'log', 'device', 'event', 'client auth'])
      expect(await verify(await sign(right, label))).toBe('unauthorized')
    const ofDevice = { ...device, iat: NOW, jti: 'AAAA' }
    const expected = { purpose: 'token', aud: right.aud, now_ms: NOW }
    expect(await verifyAssertion(nodeCrypto, admin_key, await sign(ofDevice), expected)).toMatchObject({
      ok: false,
      code: 'invalid_signature',
    })
    expect(await verifyAssertion(nodeCrypto, admin_key, await sign(ofDevice, 'assertion'), expected)).toMatchObject({ ok: true })
  })
})

it('the name of a key is 22 characters of a hash of it, and of nothing else', async () => {
  const id = await adminIdOf(nodeCrypto, admin_key)
  expect(id).toMatch(/^[\w-]{22}$/)
  expect(await adminIdOf(nodeCrypto, Uint8Array.from(admin_key))).toBe(id)
  expect(await adminIdOf(nodeCrypto, server_key)).not.toBe(id)
  // kept, as what is stored stands under it
  expect(await adminIdOf(nodeCrypto, new Uint8Array(32))).toBe('vkRmktj5CTmg2R3rmpA4yK')
})
