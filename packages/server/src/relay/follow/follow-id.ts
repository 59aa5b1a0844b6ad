/**
 * The id of a server-sent event: all that a follower has to say to go on behind it. Opaque to clients; it is no secret and
 * proves nothing, the cursor in it is judged like any other.
 *
 *   base64url(u8 version 1 | u8 parts | u64 position | history_id 32 | [event_id 16 | u64 received_at] | [u32 log_seq])
 *
 * `parts`: 1 = the entry at `position` is named, 2 = the entries of the device log up to `log_seq` are known.
 */
import {
  bytesToUuid,
  type Cursor,
  fromBase64url,
  readU64,
  SealpostError,
  toBase64url,
  uuidToBytes,
  viewOf,
  writeU64,
} from '@sealpost/protocol'

export type FollowPlace = { cursor: Cursor; log_seq: number | null }

const VERSION = 1
const PART = { entry: 1, log: 2 } as const
const HEAD_BYTES = 42

export function encodeFollowId({ cursor, log_seq }: FollowPlace & { cursor: { history_id: string } }): string {
  const { position, history_id, event_id, received_at } = cursor
  const named = event_id !== null && received_at !== null
  const out = new Uint8Array(HEAD_BYTES + (named ? 24 : 0) + (log_seq === null ? 0 : 4))
  const view = viewOf(out)
  out[0] = VERSION
  out[1] = (named ? PART.entry : 0) | (log_seq === null ? 0 : PART.log)
  writeU64(view, 2, position)
  out.set(fromBase64url(history_id, 32), 10)
  if (named) {
    out.set(uuidToBytes(event_id), HEAD_BYTES)
    writeU64(view, HEAD_BYTES + 16, received_at)
  }
  if (log_seq !== null) view.setUint32(out.length - 4, log_seq)
  return toBase64url(out)
}

/** Null for any other text. */
export function decodeFollowId(text: string): FollowPlace | null {
  try {
    const bytes = fromBase64url(text)
    const view = viewOf(bytes)
    const parts = bytes[1] ?? 0
    const named = (parts & PART.entry) !== 0
    const log = (parts & PART.log) !== 0
    if (bytes.length !== HEAD_BYTES + (named ? 24 : 0) + (log ? 4 : 0) || bytes[0] !== VERSION || parts > 3) return null
    return {
      cursor: {
        position: readU64(view, 2),
        history_id: toBase64url(bytes.subarray(10, HEAD_BYTES)),
        event_id: named ? bytesToUuid(bytes, HEAD_BYTES) : null,
        received_at: named ? readU64(view, HEAD_BYTES + 16) : null,
      },
      log_seq: log ? view.getUint32(bytes.length - 4) : null,
    }
  } catch (error) {
    if (error instanceof SealpostError) return null
    throw error
  }
}
