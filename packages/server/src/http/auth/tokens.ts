/** Access tokens of devices: good for 10 minutes, of the version that is in force for the device (protocol.md §10, R01). */
import { type Bytes, isUuid, LIMITS } from '@sealpost/protocol'
import { createJwts, type JwtOptions } from './jwt.ts'
import type { KeySet } from './signing-keys.ts'

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

const AUDIENCE = 'sealpost:rest'
const SCOPE = 'device'
const USER_ID = /^[A-Za-z0-9_-]{43}$/

/** `server_key` names the issuer; `now` in ms, the database's clock. */
export function createTokens(keys: Pick<KeySet, 'signing' | 'verifying'>, server_key: Bytes, now: JwtOptions['now']): Tokens {
  const lifetime_s = LIMITS.accessTokenSeconds
  const jwts = createJwts({ keys, server_key, audience: AUDIENCE, lifetime_s, now })
  return {
    issue: async ({ user_id, device_id, sign_pub, token_version }) => ({
      access_token: await jwts.issue(user_id, sign_pub, { device_id, scope: SCOPE, token_version }),
      expires_in: lifetime_s,
    }),
    async verify(token) {
      const claims = await jwts.verify(token)
      if (claims === null) return null
      const { device_id, scope, token_version } = claims.payload
      if (!USER_ID.test(claims.sub) || typeof device_id !== 'string' || !isUuid(device_id)) return null
      if (scope !== SCOPE || typeof token_version !== 'number') return null
      return { user_id: claims.sub, device_id, scope, token_version, jkt: claims.jkt, expires_at: claims.expires_at }
    },
  }
}
