/**
 * Continuation tokens (protocol.md §7): opaque to the client, bound to user, device, history and filter, good for an hour.
 *
 *   token = base64url(u64 position | u64 expires_at_ms | HMAC-SHA256(key, tuple("continuation", …)) 32)
 *
 * Any other text, length, key, owner, filter or time gives null: there is one way to be wrong.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { type Bytes, fromBase64url, readU64, SealpostError, toBase64url, tuple, uuidToBytes, viewOf, writeU64 } from '@sealpost/protocol'

/** What a token is bound to. */
export type PageOwner = { user_id: string; device_id: string; history_id: string }
export type PageFilter = { query: boolean; streams: readonly string[] | null }

export type Continuations = {
  create(owner: PageOwner, filter: PageFilter, position: number, now_ms: number): string
  /** The position, or null. */
  read(token: string, owner: PageOwner, filter: PageFilter, now_ms: number): number | null
}

const HEAD_BYTES = 16
const MAC_BYTES = 32

export function createContinuations(key: Bytes, lifetime_ms: number): Continuations {
  function mac(owner: PageOwner, filter: PageFilter, position: number, expires_at: number): Buffer {
    const streams = filter.streams === null ? null : filter.streams.toSorted().join('\n')
    const fields = [fromBase64url(owner.user_id), uuidToBytes(owner.device_id), owner.history_id, filter.query ? 1 : 0] as const
    return createHmac('sha256', key)
      .update(tuple('continuation', ...fields, filter.streams === null ? 0 : 1, streams, position, expires_at))
      .digest()
  }

  return {
    create(owner, filter, position, now_ms) {
      const expires_at = Math.floor(now_ms) + lifetime_ms
      const out = new Uint8Array(HEAD_BYTES + MAC_BYTES)
      writeU64(viewOf(out), 0, position)
      writeU64(viewOf(out), 8, expires_at)
      out.set(mac(owner, filter, position, expires_at), HEAD_BYTES)
      return toBase64url(out)
    },
    read(token, owner, filter, now_ms) {
      try {
        const bytes = fromBase64url(token, HEAD_BYTES + MAC_BYTES)
        const position = readU64(viewOf(bytes), 0)
        const expires_at = readU64(viewOf(bytes), 8)
        if (!timingSafeEqual(bytes.subarray(HEAD_BYTES), mac(owner, filter, position, expires_at))) return null
        return now_ms <= expires_at ? position : null
      } catch (error) {
        if (error instanceof SealpostError) return null
        throw error
      }
    },
  }
}
