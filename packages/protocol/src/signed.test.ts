import { describe, expect, it } from 'vitest'
import { toBase64url, utf8, utf8Decode } from './bytes.ts'
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'
import { nodeCrypto } from './node.ts'
import { createAssertion, readAssertion, signObject, verifyAssertion, verifyObject } from './signed.ts'

const seed = new Uint8Array(32).fill(2)
const key = nodeCrypto.ed25519Public(seed)
const claims = { purpose: 'log-read', aud: toBase64url(new Uint8Array(32)), user_id: toBase64url(key), signer: 'root' } as const
const now = 1_764_000_000_000
const flip = (text: string) => (text.startsWith('A') ? `B${text.slice(1)}` : `A${text.slice(1)}`)

describe('a signed object', () => {
  it('is verified over its exact bytes, with label and context', async () => {
    const signed = await signObject(nodeCrypto, 'x', utf8('ctx'), seed, { b: 1, a: 'é' })
    expect(utf8Decode((await verifyObject(nodeCrypto, 'x', utf8('ctx'), key, signed))!)).toBe('{"b":1,"a":"é"}')
    expect(await verifyObject(nodeCrypto, 'y', utf8('ctx'), key, signed)).toBeNull()
    expect(await verifyObject(nodeCrypto, 'x', null, key, signed)).toBeNull()
    expect(await verifyObject(nodeCrypto, 'x', utf8('ctx'), new Uint8Array(32), signed)).toBeNull()
    expect(await verifyObject(nodeCrypto, 'x', utf8('ctx'), key, { ...signed, body: flip(signed.body) })).toBeNull()
    expect(await verifyObject(nodeCrypto, 'x', utf8('ctx'), key, { ...signed, sig: flip(signed.sig) })).toBeNull()
  })

  it('in another encoding is not verified', async () => {
    const signed = await signObject(nodeCrypto, 'x', null, seed, {})
    for (const change of [{ sig: '' }, { sig: '!' }, { sig: `${signed.sig}=` }, { body: '!' }, { body: `${signed.body}=` }])
      expect(await verifyObject(nodeCrypto, 'x', null, key, { ...signed, ...change })).toBeNull()
  })
})

describe('an assertion', () => {
  const expected = { purpose: 'log-read', aud: claims.aud, now_ms: now }

  it('is read before it is verified, and each has a jti of its own', async () => {
    const signed = await createAssertion(nodeCrypto, seed, { ...claims, from_log_seq: 7 }, now)
    const assertion = readAssertion(signed)
    expect(assertion).toMatchObject({ ...claims, from_log_seq: 7, iat: now })
    expect(readAssertion(await createAssertion(nodeCrypto, seed, claims, now)).jti).not.toBe(assertion.jti)
    expect(await verifyAssertion(nodeCrypto, key, signed, expected)).toEqual({ ok: true, assertion })
  })

  it.each([
    [-LIMITS.assertionIatMs - 1, false],
    [-LIMITS.assertionIatMs, true],
    [LIMITS.assertionIatMs, true],
    [LIMITS.assertionIatMs + 1, false],
  ])('made %i ms from now: accepted %s', async (offset, ok) => {
    expect(await verifyAssertion(nodeCrypto, key, await createAssertion(nodeCrypto, seed, claims, now + offset), expected)).toMatchObject({
      ok,
    })
  })

  it('that is no assertion throws invalid_message', async () => {
    const bodies = ['', '{', '[]', '{}', JSON.stringify({ ...claims, iat: -1, jti: 'x' }), '\u00ff']
    for (const body of bodies) {
      const signed = { body: toBase64url(utf8(body)), sig: toBase64url(new Uint8Array(64)) }
      expect(() => readAssertion(signed)).toThrow(expect.objectContaining({ code: 'invalid_message' }) as Error)
      expect(await verifyAssertion(nodeCrypto, key, signed, expected)).toEqual({ ok: false, code: 'invalid_message' })
    }
    expect(() => readAssertion({ body: '!', sig: '' })).toThrow(SealpostError)
  })
})
