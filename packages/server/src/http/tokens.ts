/**
 * Access tokens (RFC 9068, RFC 8725; why-crypto.md §6): JWTs of 10 minutes, `alg: Ed25519`, bound by `cnf.jkt` to the device's
 * signing key. The verifier knows its keys by `kid` from the local set alone; a key, URL or algorithm in the token counts for
 * nothing. A token says who asks; whether that device is still active is asked of the store on each request (R01).
 */
import { randomUUID } from 'node:crypto'
import { type Bytes, fromBase64url, isUuid, LIMITS, toBase64url } from '@sealpost/protocol'
import { calculateJwkThumbprint, decodeProtectedHeader, jwtVerify, SignJWT } from 'jose'
import { ALG, type KeySet } from './signing-keys.ts'

/** `expires_at` in ms. */
export type TokenClaims = { user_id: string; device_id: string; scope: string; jkt: string; token_version: number; expires_at: number }

export type Tokens = {
  issue(device: {
    user_id: string
    device_id: string
    sign_pub: Bytes
    token_version: number
  }): Promise<{ access_token: string; expires_in: number }>
  /** Null for every token that is not in force. Throws `unavailable` when its key cannot be asked for. */
  verify(token: string): Promise<TokenClaims | null>
}

const TYP = 'at+jwt'
const AUDIENCE = 'sealpost:rest'
const SCOPE = 'device'
const TOKEN_BYTES_MAX = 4_096
const LEEWAY_S = 30
const SIGNATURE_BYTES = 64
const KID = /^[\w-]{16}$/

/** `server_key` names the issuer; `now` in ms, the database's clock. */
export function createTokens(keys: Pick<KeySet, 'signing' | 'verifying'>, server_key: Bytes, now: () => number): Tokens {
  const issuer = `sealpost:${toBase64url(server_key)}`
  return {
    issue: async ({ user_id, device_id, sign_pub, token_version }) => {
      const { kid, key } = await keys.signing()
      const iat = Math.floor(now() / 1_000)
      const access_token = await new SignJWT({ device_id, scope: SCOPE, token_version, cnf: { jkt: await thumbprint(sign_pub) } })
        .setProtectedHeader({ alg: ALG, typ: TYP, kid })
        .setIssuer(issuer)
        .setAudience(AUDIENCE)
        .setSubject(user_id)
        .setIssuedAt(iat)
        .setExpirationTime(iat + LIMITS.accessTokenSeconds)
        .setJti(randomUUID())
        .sign(key)
      return { access_token, expires_in: LIMITS.accessTokenSeconds }
    },
    verify: async (token) => {
      const kid = isCompact(token) ? kidIn(token) : null
      const key = kid === null ? null : await keys.verifying(kid)
      if (key === null) return null
      try {
        const { payload } = await jwtVerify(token, key, {
          algorithms: [ALG],
          typ: TYP,
          issuer,
          audience: AUDIENCE,
          currentDate: new Date(now()),
          clockTolerance: LEEWAY_S,
          maxTokenAge: LIMITS.accessTokenSeconds,
          requiredClaims: ['sub', 'device_id', 'scope', 'iat', 'exp', 'jti', 'cnf', 'token_version'],
        })
        return readClaims(payload)
      } catch {
        return null
      }
    },
  }
}

/** RFC 7638 thumbprint of a device's signing key. */
export function thumbprint(sign_pub: Bytes): Promise<string> {
  return calculateJwkThumbprint({ kty: 'OKP', crv: 'Ed25519', x: toBase64url(sign_pub) }, 'sha256')
}

function readClaims(payload: Record<string, unknown>): TokenClaims | null {
  const { sub, device_id, scope, token_version, cnf, iat, exp } = payload
  const jkt = typeof cnf === 'object' && cnf !== null && 'jkt' in cnf ? cnf.jkt : undefined
  if (typeof sub !== 'string' || !/^[A-Za-z0-9_-]{43}$/.test(sub) || typeof device_id !== 'string' || !isUuid(device_id)) return null
  if (scope !== SCOPE || typeof jkt !== 'string' || typeof token_version !== 'number') return null
  if (typeof iat !== 'number' || typeof exp !== 'number' || exp - iat > LIMITS.accessTokenSeconds) return null
  return { user_id: sub, device_id, scope, jkt, token_version, expires_at: exp * 1_000 }
}

/** In the one form that it was issued in: no spare bits, padding or blanks that a lenient decoder would let through. */
function isCompact(token: string): boolean {
  if (token.length > TOKEN_BYTES_MAX) return false
  const parts = token.split('.')
  try {
    const [, , signature] = parts.map((part) => fromBase64url(part))
    return parts.length === 3 && signature?.length === SIGNATURE_BYTES
  } catch {
    return false
  }
}

function kidIn(token: string): string | null {
  try {
    const { kid } = decodeProtectedHeader(token)
    return typeof kid === 'string' && KID.test(kid) ? kid : null
  } catch {
    return null
  }
}
