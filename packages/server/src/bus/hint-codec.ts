/**
 * Hints as bytes between processes. Big-endian:
 *
 *   message   = sender 8 | u32 count | mac 16 | u64 user_no | hint
 *   mac       = the tag of AES-256-GCM(bus key, iv = sender | count, aad = user_no | hint) over no plaintext (GMAC, NIST SP 800-38D §3)
 *   hint      = u8 1 | history_id 32 | event …    or    u8 0 | JSON
 *   event     = u32 device_no | u32 stream_no | u64 position | u64 stream_seq | u64 received_at | u64 device_seq | u8 flags | u32 len, client part
 *
 * `sender` is random, one for each process and 2^32 messages: no iv comes twice.
 *
 * Invariant: only a process that has the secrets of the relay makes a message that is read, and only for the user it was made for.
 * What is not so is nothing, never an error. Client parts of a read hint are views into the message.
 */
import { type Bytes, EMPTY, equalBytes, fromBase64url, parseJson, readU64, toBase64url, viewOf, writeU64 } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { z } from 'zod'
import type { Hint, StoredEvent } from '../ports/store.ts'

export type HintCodec = {
  /** The buffer is used again: what is returned is good until the next call. */
  encode(user_no: number, hint: Hint): Bytes
  /** `own`: it came from this process. Null: it is no message of this relay for this user. */
  decode(user_no: number, message: Bytes): Hint | 'own' | null
}

const SENDER_BYTES = 8
const IV_BYTES = SENDER_BYTES + 4
const AAD_AT = IV_BYTES + 16
const HEAD_BYTES = AAD_AT + 8
const COUNT_MAX = 2 ** 32
const HISTORY_BYTES = 32
const EVENT_BYTES = 4 + 4 + 4 * 8 + 1 + 4
const KIND = { json: 0, committed: 1 } as const
const SCRATCH_BYTES = 65_536

const whole = z.int().nonnegative()
const JSON_HINT = z.discriminatedUnion('is', [
  z.strictObject({ is: z.literal('log'), history_id: z.string(), log_seq: whole, revoked: z.array(z.string()) }),
  z.strictObject({ is: z.literal('device'), device_id: z.string(), session_id: z.string().exactOptional() }),
  z.strictObject({
    is: z.literal('presence'),
    device_id: z.string(),
    online: z.boolean(),
    last_seen: whole,
    suspended: z.boolean().exactOptional(),
  }),
  z.strictObject({ is: z.literal('deleted') }),
])

/** `key`: 32 bytes that all processes of the relay have. */
export function createHintCodec(key: Bytes): HintCodec {
  const secret = nodeCrypto.aesGcmKey(key)
  let own = nodeCrypto.random(SENDER_BYTES)
  let count = 0
  let scratch = Buffer.alloc(SCRATCH_BYTES)

  function room(bytes: number): Buffer {
    if (scratch.length < bytes) scratch = Buffer.alloc(bytes)
    return scratch.subarray(0, bytes)
  }

  return {
    encode(user_no, hint) {
      if (count === COUNT_MAX) {
        own = nodeCrypto.random(SENDER_BYTES)
        count = 0
      }
      const message = hint.is === 'committed' ? encodeCommitted(hint.history_id, hint.events, room) : encodeJson(hint, room)
      message.set(own)
      message.writeUInt32BE(count++, SENDER_BYTES)
      writeU64(viewOf(message), AAD_AT, user_no)
      message.set(secret.seal(message.subarray(0, IV_BYTES), message.subarray(AAD_AT), EMPTY), IV_BYTES)
      return message
    },
    decode(user_no, message) {
      if (message.length <= HEAD_BYTES) return null
      if (equalBytes(own, message.subarray(0, SENDER_BYTES))) return 'own'
      try {
        secret.open(message.subarray(0, IV_BYTES), message.subarray(AAD_AT), message.subarray(IV_BYTES, AAD_AT))
        return readU64(viewOf(message), AAD_AT) === user_no ? decodeHint(message.subarray(HEAD_BYTES)) : null
      } catch {
        return null
      }
    },
  }
}

type Room = (bytes: number) => Buffer

function encodeJson(hint: Hint, room: Room): Buffer {
  const json = Buffer.from(JSON.stringify(hint))
  const out = room(HEAD_BYTES + 1 + json.length)
  out[HEAD_BYTES] = KIND.json
  out.set(json, HEAD_BYTES + 1)
  return out
}

/** Another version of the relay may say what this one does not know. */
function decodeHint(hint: Bytes): Hint | null {
  if (hint[0] === KIND.committed) return decodeCommitted(hint)
  return hint[0] === KIND.json ? (JSON_HINT.safeParse(parseJson(hint.subarray(1))).data ?? null) : null
}

function encodeCommitted(history_id: string, events: readonly StoredEvent[], room: Room): Buffer {
  let size = HEAD_BYTES + 1 + HISTORY_BYTES
  for (const event of events) size += EVENT_BYTES + event.client.length
  const out = room(size)
  const view = viewOf(out)
  out[HEAD_BYTES] = KIND.committed
  out.set(fromBase64url(history_id, HISTORY_BYTES), HEAD_BYTES + 1)
  let at = HEAD_BYTES + 1 + HISTORY_BYTES
  for (const { device_no, stream_no, position, stream_seq, received_at, device_seq, flags, client } of events) {
    view.setUint32(at, device_no)
    view.setUint32(at + 4, stream_no)
    writeU64(view, at + 8, position)
    writeU64(view, at + 16, stream_seq)
    writeU64(view, at + 24, received_at)
    writeU64(view, at + 32, device_seq)
    view.setUint8(at + 40, flags)
    view.setUint32(at + 41, client.length)
    out.set(client, at + EVENT_BYTES)
    at += EVENT_BYTES + client.length
  }
  return out
}

function decodeCommitted(hint: Bytes): Hint | null {
  const view = viewOf(hint)
  const events: StoredEvent[] = []
  let at = 1 + HISTORY_BYTES
  if (hint.length <= at) return null
  const history_id = toBase64url(hint.subarray(1, at))
  while (at < hint.length) {
    const from = at + EVENT_BYTES
    if (from > hint.length) return null
    const end = from + view.getUint32(at + 41)
    if (end > hint.length) return null
    // fields in the order of those that are committed here: who delivers both meets one kind of object
    events.push({
      position: readU64(view, at + 8),
      stream_seq: readU64(view, at + 16),
      received_at: readU64(view, at + 24),
      device_no: view.getUint32(at),
      device_seq: readU64(view, at + 32),
      stream_no: view.getUint32(at + 4),
      flags: view.getUint8(at + 40),
      client: hint.subarray(from, end),
    })
    at = end
  }
  return { is: 'committed', history_id, events }
}
