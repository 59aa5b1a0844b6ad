/**
 * Hints as bytes between processes. Big-endian:
 *
 *   message   = sender 8 | mac 16 | hint        mac = the first 16 bytes of HMAC-SHA256(bus key, u64 user_no | sender | hint)
 *   hint      = u8 1 | history_id 32 | event …    or    u8 0 | JSON
 *   event     = u32 device_no | u32 stream_no | u64 position | u64 stream_seq | u64 received_at | u64 device_seq | u8 flags | u32 len, client part
 *
 * Invariant: only a process that has the secrets of the relay makes a message that is read, and only for the user it was made for.
 * What is not so is nothing, never an error. Client parts of a read hint are views into the message.
 */
import { createHmac, createSecretKey, timingSafeEqual } from 'node:crypto'
import { type Bytes, equalBytes, fromBase64url, toBase64url, viewOf, writeU64 } from '@sealpost/protocol'
import { z } from 'zod'
import type { Hint, StoredEvent } from '../ports.ts'

export type HintCodec = {
  /** The buffer is used again: what is returned is good until the next call. */
  encode(user_no: number, hint: Hint): Buffer
  /** `own`: it came from this process. Null: it is no message of this relay for this user. */
  decode(user_no: number, message: Bytes): Hint | 'own' | null
}

export const SENDER_BYTES = 8
const MAC_BYTES = 16
const HEAD_BYTES = SENDER_BYTES + MAC_BYTES
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

/** `key`: 32 bytes that all processes of the relay have; `sender`: 8 bytes that no other process has. */
export function createHintCodec(key: Bytes, sender: Bytes): HintCodec {
  const secret = createSecretKey(key)
  const own = Buffer.from(sender)
  let scratch = Buffer.alloc(SCRATCH_BYTES)

  function room(bytes: number): Buffer {
    if (scratch.length < bytes) scratch = Buffer.alloc(bytes)
    return scratch.subarray(0, bytes)
  }

  function mac(user_no: number, from: Bytes, hint: Bytes): Buffer {
    const topic = Buffer.alloc(8)
    topic.writeBigUInt64BE(BigInt(user_no))
    return createHmac('sha256', secret).update(topic).update(from).update(hint).digest().subarray(0, MAC_BYTES)
  }

  return {
    encode(user_no, hint) {
      const body = hint.is === 'committed' ? encodeCommitted(hint.history_id, hint.events, room) : encodeJson(hint, room)
      body.set(own)
      body.set(mac(user_no, own, body.subarray(HEAD_BYTES)), SENDER_BYTES)
      return body
    },
    decode(user_no, message) {
      if (message.length <= HEAD_BYTES) return null
      const from = message.subarray(0, SENDER_BYTES)
      if (equalBytes(own, from)) return 'own'
      const hint = message.subarray(HEAD_BYTES)
      if (!timingSafeEqual(mac(user_no, from, hint), message.subarray(SENDER_BYTES, HEAD_BYTES))) return null
      // another version of the relay may say what this one does not know
      if (hint[0] === KIND.committed) return decodeCommitted(hint)
      return hint[0] === KIND.json ? decodeJson(hint.subarray(1)) : null
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

function decodeJson(json: Bytes): Hint | null {
  try {
    return JSON_HINT.safeParse(JSON.parse(Buffer.from(json).toString())).data ?? null
  } catch {
    return null
  }
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
  const u64 = (from: number): number => view.getUint32(from) * 2 ** 32 + view.getUint32(from + 4)
  while (at < hint.length) {
    const from = at + EVENT_BYTES
    if (from > hint.length) return null
    const end = from + view.getUint32(at + 41)
    if (end > hint.length) return null
    // fields in the order of those that are committed here: who delivers both meets one kind of object
    events.push({
      position: u64(at + 8),
      stream_seq: u64(at + 16),
      received_at: u64(at + 24),
      device_no: view.getUint32(at),
      device_seq: u64(at + 32),
      stream_no: view.getUint32(at + 4),
      flags: view.getUint8(at + 40),
      client: hint.subarray(from, end),
    })
    at = end
  }
  return { is: 'committed', history_id, events }
}
