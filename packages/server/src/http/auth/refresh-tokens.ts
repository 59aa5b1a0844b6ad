/**
 * Refresh tokens (protocol.md §10): opaque to the client, derived and not drawn, so that the same one can be made again when its
 * answer was lost, while the store keeps hashes alone.
 *
 *   token = base64url(family_id 16 | u32 generation | HMAC-SHA256(key, tuple("refresh-token", user_id, device_id, family_id, generation)) 32)
 *
 * Any other text is null: there is one way to be wrong.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { type Bytes, bytesToUuid, fromBase64url, SealpostError, toBase64url, tuple, uuidToBytes, viewOf } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'

/** Whose token it is. */
export type FamilyOwner = { user_id: string; device_id: string }

export type RefreshTokens = {
  create(owner: FamilyOwner, family_id: string, generation: number): string
  read(token: string, owner: FamilyOwner): { family_id: string; generation: number } | null
}

const HEAD_BYTES = 20
const MAC_BYTES = 32

export function createRefreshTokens(secret: Bytes): RefreshTokens {
  const key = nodeCrypto.hkdf(secret, new Uint8Array(), tuple('refresh-token'))
  const mac = ({ user_id, device_id }: FamilyOwner, family_id: string, generation: number): Buffer =>
    createHmac('sha256', key)
      .update(tuple('refresh-token', fromBase64url(user_id, 32), uuidToBytes(device_id), uuidToBytes(family_id), generation))
      .digest()

  return {
    create(owner, family_id, generation) {
      const out = new Uint8Array(HEAD_BYTES + MAC_BYTES)
      out.set(uuidToBytes(family_id))
      viewOf(out).setUint32(16, generation)
      out.set(mac(owner, family_id, generation), HEAD_BYTES)
      return toBase64url(out)
    },
    read(token, owner) {
      try {
        const bytes = fromBase64url(token, HEAD_BYTES + MAC_BYTES)
        const family_id = bytesToUuid(bytes)
        const generation = viewOf(bytes).getUint32(16)
        return timingSafeEqual(bytes.subarray(HEAD_BYTES), mac(owner, family_id, generation)) ? { family_id, generation } : null
      } catch (error) {
        if (error instanceof SealpostError) return null
        throw error
      }
    },
  }
}

/** What the store keeps of a token. */
export function hashToken(token: string): Bytes {
  return nodeCrypto.sha256(new TextEncoder().encode(token))
}
