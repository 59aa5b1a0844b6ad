/**
 * Tokens as JWTs (RFC 9068, RFC 8725; protocol.md §10): `alg: Ed25519`, `typ: at+jwt`, one issuer, one audience, a short life, bound by
 * `cnf.jkt` to a key. The verifier knows its keys by `kid` from the local set alone; a key, URL or algorithm in the token counts for
 * nothing. What a token says is only who asks; what that is worth is asked of the store on each request.
 */
import { randomUUID } from 'node:crypto'
import { type Bytes, fromBase64url, toBase64url } from '@sealpost/protocol'
import { calculateJwkThumbprint, decodeJwt, decodeProtectedHeader, jwtVerify, SignJWT } from 'jose'
import { ALG, type KeySet } from './signing-keys.ts'

export type JwtOptions = {
  keys: Pick<KeySet, 'signing' | 'verifying'>
  /** Names the issuer. */
  server_key: Bytes
  audience: string
  lifetime_s: number
  /** ms, the database's clock. */
  now(): number
}

/** `expires_at` in ms. */
export type JwtClaims = { sub: string; jkt: string; expires_at: number; payload: Readonly<Record<string, unknown>> }

export type Jwts = {
  issue(sub: string, public_key: Bytes, claims: Record<string, unknown>): Promise<string>
  /** Null for every token that is not in force. Throws `unavailable` when its key cannot be asked for. */
  verify(token: string): Promise<JwtClaims | null>
}

const TYP = 'at+jwt'
const TOKEN_BYTES_MAX = 4_096
const LEEWAY_S = 30
const SIGNATURE_BYTES = 64
const KID = /^[\w-]{16}$/

export function createJwts({ keys, server_key, audience, lifetime_s, now }: JwtOptions): Jwts {
  const issuer = `sealpost:${toBase64url(server_key)}`
  return {
    async issue(sub, public_key, claims) {
      const { kid, key } = await keys.signing()
      const iat = Math.floor(now() / 1_000)
      return new SignJWT({ ...claims, cnf: { jkt: await thumbprint(public_key) } })
        .setProtectedHeader({ alg: ALG, typ: TYP, kid })
        .setIssuer(issuer)
        .setAudience(audience)
        .setSubject(sub)
        .setIssuedAt(iat)
        .setExpirationTime(iat + lifetime_s)
        .setJti(randomUUID())
        .sign(key)
    },
    async verify(token) {
      const kid = isCompact(token) ? kidIn(token) : null
      const key = kid === null ? null : await keys.verifying(kid)
      if (key === null) return null
      try {
        const { payload } = await jwtVerify(token, key, {
          algorithms: [ALG],
          typ: TYP,
          issuer,
          audience,
          currentDate: new Date(now()),
          clockTolerance: LEEWAY_S,
          maxTokenAge: lifetime_s,
          requiredClaims: ['sub', 'iat', 'exp', 'jti', 'cnf'],
        })
        return readClaims(payload, lifetime_s)
      } catch {
        return null
      }
    },
  }
}

/** RFC 7638 thumbprint of an Ed25519 public key. */
export function thumbprint(public_key: Bytes): Promise<string> {
  return calculateJwkThumbprint({ kty: 'OKP', crv: 'Ed25519', x: toBase64url(public_key) }, 'sha256')
}

/** The token of an `Authorization` header (RFC 6750 §2.1), if it is one by its form. */
export function bearerOf(authorization: string | undefined): string | undefined {
  return /^Bearer ([A-Za-z0-9._-]+)$/i.exec(authorization ?? '')?.[1]
}

/** Whether a header carries what says of itself that its time is over: whoever held a token, and nobody to be noted. */
export function isExpired(authorization: string, now_ms: number): boolean {
  try {
    const { exp } = decodeJwt(bearerOf(authorization) ?? '')
    return exp !== undefined && exp * 1_000 < now_ms
  } catch {
    return false
  }
}

function readClaims(payload: Record<string, unknown>, lifetime_s: number): JwtClaims | null {
  const { sub, cnf, iat, exp } = payload
  const jkt = typeof cnf === 'object' && cnf !== null && 'jkt' in cnf ? cnf.jkt : undefined
  if (typeof sub !== 'string' || typeof jkt !== 'string') return null
  if (typeof iat !== 'number' || typeof exp !== 'number' || exp - iat > lifetime_s) return null
  return { sub, jkt, expires_at: exp * 1_000, payload }
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
