/**
 * Signed JSON objects and device assertions (protocol.md §1, §10): `{body, sig}` with
 * `sig = Ed25519(key, tuple(label, ctx, body bytes))`. The body is kept as bytes and never canonicalised.
 */
import { type Bytes, fromBase64url, parseJson, toBase64url, utf8 } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'
import { SHAPES } from './messages.ts'
import { check, type Of } from './schema.ts'
import { tuple } from './tuple.ts'

/** base64url, as on the wire. */
export type SignedObject = { body: string; sig: string }

/** `iat` in milliseconds; `aud` is the server's key; `jti` is used once. */
export type Assertion = Of<typeof SHAPES.assertion>

const ASSERTION = 'assertion'
const ASSERTION_BYTES_MAX = 4_096

export async function signObject(crypto: Crypto, label: string, ctx: Bytes | null, seed: Bytes, value: object): Promise<SignedObject> {
  const body = utf8(JSON.stringify(value))
  return { body: toBase64url(body), sig: toBase64url(await crypto.ed25519Sign(seed, tuple(label, ctx, body))) }
}

/** The exact body bytes when the signature holds, else null. */
export async function verifyObject(
  crypto: Crypto,
  label: string,
  ctx: Bytes | null,
  publicKey: Bytes,
  signed: SignedObject,
): Promise<Bytes | null> {
  const decoded = decodeSigned(signed)
  if (decoded === null) return null
  return (await crypto.ed25519Verify(publicKey, tuple(label, ctx, decoded.body), decoded.sig)) ? decoded.body : null
}

/** Proves a device (or the root) to a server without a socket. */
export async function createAssertion(
  crypto: Crypto,
  seed: Bytes,
  claims: Omit<Assertion, 'iat' | 'jti'>,
  now_ms: number,
): Promise<SignedObject> {
  return signObject(crypto, ASSERTION, null, seed, { ...claims, iat: now_ms, jti: toBase64url(crypto.random(16)) })
}

/** Parses without verifying, to find the key to verify with; throws `invalid_message`. */
export function readAssertion(signed: SignedObject): Assertion {
  const decoded = decodeSigned(signed)
  if (decoded === null || decoded.body.length > ASSERTION_BYTES_MAX) throw new SealpostError('invalid_message', 'not an assertion')
  let value: unknown
  try {
    value = parseJson(decoded.body)
  } catch (cause) {
    throw new SealpostError('invalid_message', 'not an assertion', { cause })
  }
  return check(SHAPES.assertion, value, ASSERTION)
}

export type AssertionCheck =
  | { ok: true; assertion: Assertion }
  | { ok: false; code: 'invalid_message' | 'invalid_signature' | 'unauthorized' | 'expired' }

/**
 * All checks of an assertion but the single use of its `jti`, which needs a memory: shape, signature, that it is meant for
 * this purpose and server, and `|iat − now| ≤ skew_ms`, by default 300 s.
 */
export async function verifyAssertion(
  crypto: Crypto,
  publicKey: Bytes,
  signed: SignedObject,
  expected: { purpose: string; aud: string; now_ms: number; skew_ms?: number },
): Promise<AssertionCheck> {
  let assertion: Assertion
  try {
    assertion = readAssertion(signed)
  } catch (error) {
    if (error instanceof SealpostError) return { ok: false, code: 'invalid_message' }
    throw error
  }
  if ((await verifyObject(crypto, ASSERTION, null, publicKey, signed)) === null) return { ok: false, code: 'invalid_signature' }
  if (assertion.purpose !== expected.purpose || assertion.aud !== expected.aud) return { ok: false, code: 'unauthorized' }
  if (Math.abs(assertion.iat - expected.now_ms) > (expected.skew_ms ?? LIMITS.assertionIatMs)) return { ok: false, code: 'expired' }
  return { ok: true, assertion }
}

/** Null when it is not base64url of a body and a signature. */
export function decodeSigned(signed: SignedObject): { body: Bytes; sig: Bytes } | null {
  try {
    return { body: fromBase64url(signed.body), sig: fromBase64url(signed.sig, 64) }
  } catch (error) {
    if (error instanceof SealpostError) return null
    throw error
  }
}
