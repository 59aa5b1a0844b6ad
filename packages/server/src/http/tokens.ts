/**
 * Access tokens (RFC 9068, RFC 8725; why-crypto.md §6): JWTs of 10 minutes, `alg: Ed25519`, bound by `cnf.jkt` to the device's
 * signing key. The verifier knows its keys by `kid` from the local set alone; a key, URL or algorithm in the token counts for
 * nothing. A token says who asks; whether that device is still active is asked of the store on each request (R01).
 */
import { randomUUID } from 'node:crypto'
import { type Bytes, isUuid, LIMITS, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { type CryptoKey, calculateJwkThumbprint, decodeProtectedHeader, importJWK, jwtVerify, SignJWT } from 'jose'

export type TokenClaims = { user_id: string; device_id: string; scope: string; jkt: string }

export type Tokens = {
  issue(device: { user_id: string; device_id: string; sign_pub: Bytes }): Promise<{ access_token: string; expires_in: number }>
  /** Null for every token that is not in force; never throws. */
  verify(token: string): Promise<TokenClaims | null>
}

const ALG = 'Ed25519'
const TYP = 'at+jwt'
const AUDIENCE = 'sealpost:rest'
const SCOPE = 'device'
const TOKEN_BYTES_MAX = 4_096
const LEEWAY_S = 30

/** Ed25519 seeds: the first signs, all of them verify. `server_key` names the issuer; `now` in ms, the database's clock. */
export function createTokens(sign_seeds: readonly Bytes[], server_key: Bytes, now: () => number): Tokens {
  const issuer = `sealpost:${toBase64url(server_key)}`
  const [active] = sign_seeds
  if (active === undefined) throw new TypeError('there is no key to sign tokens with')
  const kid = kidOf(active)
  const signKey = once(() => importKey(active, true))
  const verifyKeys = new Map(sign_seeds.map((seed) => [kidOf(seed), once(() => importKey(seed, false))]))

  return {
    issue: async ({ user_id, device_id, sign_pub }) => {
      const iat = Math.floor(now() / 1_000)
      const access_token = await new SignJWT({ device_id, scope: SCOPE, cnf: { jkt: await thumbprint(sign_pub) } })
        .setProtectedHeader({ alg: ALG, typ: TYP, kid })
        .setIssuer(issuer)
        .setAudience(AUDIENCE)
        .setSubject(user_id)
        .setIssuedAt(iat)
        .setExpirationTime(iat + LIMITS.accessTokenSeconds)
        .setJti(randomUUID())
        .sign(await signKey())
      return { access_token, expires_in: LIMITS.accessTokenSeconds }
    },
    verify: async (token) => {
      if (token.length > TOKEN_BYTES_MAX) return null
      try {
        const key = verifyKeys.get(decodeProtectedHeader(token).kid ?? '')
        if (key === undefined) return null
        const { payload } = await jwtVerify(token, await key(), {
          algorithms: [ALG],
          typ: TYP,
          issuer,
          audience: AUDIENCE,
          currentDate: new Date(now()),
          clockTolerance: LEEWAY_S,
          maxTokenAge: LIMITS.accessTokenSeconds,
          requiredClaims: ['sub', 'device_id', 'scope', 'iat', 'exp', 'jti', 'cnf'],
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
  const { sub, device_id, scope, cnf, iat, exp } = payload
  const jkt = typeof cnf === 'object' && cnf !== null && 'jkt' in cnf ? cnf.jkt : undefined
  if (typeof sub !== 'string' || !/^[A-Za-z0-9_-]{43}$/.test(sub) || typeof device_id !== 'string' || !isUuid(device_id)) return null
  if (scope !== SCOPE || typeof jkt !== 'string') return null
  if (typeof iat !== 'number' || typeof exp !== 'number' || exp - iat > LIMITS.accessTokenSeconds) return null
  return { user_id: sub, device_id, scope, jkt }
}

/** Says which key it is and nothing else of it. */
function kidOf(sign_seed: Bytes): string {
  return toBase64url(nodeCrypto.sha256(nodeCrypto.ed25519Public(sign_seed))).slice(0, 16)
}

async function importKey(sign_seed: Bytes, isPrivate: boolean): Promise<CryptoKey> {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: toBase64url(nodeCrypto.ed25519Public(sign_seed)) }
  const key = await importJWK(isPrivate ? { ...jwk, d: toBase64url(sign_seed) } : jwk, ALG)
  if (key instanceof Uint8Array) throw new TypeError('an Ed25519 key is not symmetric')
  return key
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return () => (made ??= make())
}
