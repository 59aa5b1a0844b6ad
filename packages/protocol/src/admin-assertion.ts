/**
 * How an admin proves itself (docs/operations/admin.md): a signed object of its own kind, `{purpose, aud, admin_key, iat, jti}` under the
 * label `admin assertion`. What a device signs is never one, whatever its key; nor the other way round.
 */
import { type Bytes, parseJson, toBase64url } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'
import { check, type Of, type Shape } from './schema.ts'
import { decodeSigned, type SignedObject, signObject, verifyObject } from './signed.ts'
import { tuple } from './tuple.ts'

const LABEL = 'admin assertion'
const BYTES_MAX = 4_096
const PURPOSE = 'admin-token'
const ADMIN_ID_CHARS = 22

const shape = { purpose: `=${PURPOSE}`, aud: 'key', admin_key: 'key', iat: 'int', jti: 'opaque' } as const satisfies Shape

/** `aud`: the server's key; `admin_key`: the public key that signed; `iat` in ms; `jti` is used once. */
export type AdminAssertion = Of<typeof shape>

export async function createAdminAssertion(crypto: Crypto, seed: Bytes, server_key: Bytes, now_ms: number): Promise<SignedObject> {
  const admin_key = toBase64url(await crypto.ed25519Public(seed))
  const jti = toBase64url(crypto.random(16))
  return signObject(crypto, LABEL, null, seed, { purpose: PURPOSE, aud: toBase64url(server_key), admin_key, iat: now_ms, jti })
}

/** Parses without verifying, to find the key to verify with. Throws `invalid_message`. */
export function readAdminAssertion(signed: SignedObject): AdminAssertion {
  const decoded = decodeSigned(signed)
  if (decoded === null || decoded.body.length > BYTES_MAX) throw new SealpostError('invalid_message', 'not an assertion of an admin')
  try {
    return check(shape, parseJson(decoded.body), LABEL)
  } catch (cause) {
    throw new SealpostError('invalid_message', 'not an assertion of an admin', { cause })
  }
}

/** All but the single use of its `jti`: shape, signature, that it is meant for this server, and its time. */
export async function verifyAdminAssertion(
  crypto: Crypto,
  admin_key: Bytes,
  signed: SignedObject,
  expected: { server_key: Bytes; now_ms: number; skew_ms?: number },
): Promise<'ok' | 'unauthorized' | 'expired'> {
  const claimed = readAdminAssertion(signed)
  if ((await verifyObject(crypto, LABEL, null, admin_key, signed)) === null) return 'unauthorized'
  if (claimed.admin_key !== toBase64url(admin_key) || claimed.aud !== toBase64url(expected.server_key)) return 'unauthorized'
  return Math.abs(claimed.iat - expected.now_ms) > (expected.skew_ms ?? LIMITS.assertionIatMs) ? 'expired' : 'ok'
}

/** The name of a key: what its admin and everybody else can work out from it. 22 characters. */
export async function adminIdOf(crypto: Pick<Crypto, 'sha256'>, admin_key: Bytes): Promise<string> {
  return toBase64url(await crypto.sha256(tuple('admin-id', admin_key))).slice(0, ADMIN_ID_CHARS)
}
