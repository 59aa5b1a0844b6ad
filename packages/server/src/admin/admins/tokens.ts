/**
 * Tokens of admins (G24): good for 5 minutes, of their own audience and keys. A token names its admin and no role: who it is now is
 * asked of the database on each request, so that one who was removed or given another role has no token that says otherwise.
 */
import { type Bytes, LIMITS } from '@sealpost/protocol'
import { createJwts, type JwtOptions } from '../../http/auth/jwt.ts'
import type { KeySet } from '../../http/auth/signing-keys.ts'

export type AdminTokens = {
  issue(admin: { admin_id: string; public_key: Bytes }): Promise<{ access_token: string; expires_in: number }>
  /** Null for every token that is not in force. */
  verify(token: string): Promise<{ admin_id: string; jkt: string } | null>
}

const AUDIENCE = 'sealpost:admin'
const SCOPE = 'admin'
const ADMIN_ID = /^[A-Za-z0-9_-]{22}$/

export function createAdminTokens(keys: Pick<KeySet, 'signing' | 'verifying'>, server_key: Bytes, now: JwtOptions['now']): AdminTokens {
  const lifetime_s = LIMITS.adminTokenSeconds
  const jwts = createJwts({ keys, server_key, audience: AUDIENCE, lifetime_s, now })
  return {
    issue: async ({ admin_id, public_key }) => ({
      access_token: await jwts.issue(admin_id, public_key, { scope: SCOPE }),
      expires_in: lifetime_s,
    }),
    async verify(token) {
      const claims = await jwts.verify(token)
      if (claims === null || claims.payload.scope !== SCOPE || !ADMIN_ID.test(claims.sub)) return null
      return { admin_id: claims.sub, jkt: claims.jkt }
    },
  }
}
