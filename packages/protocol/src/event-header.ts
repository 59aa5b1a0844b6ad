/**
 * The bytes of an event that are authenticated (protocol.md §3), written straight into one buffer:
 *
 *   header     = tuple("event", user_id, device_id, event_id, device_seq, stream_id, type, ttl, epoch, prev_hash)
 *   hash input = tuple("event-hash", header, SHA256(payload))
 *
 * The header lies inside the hash input, so a page of events needs one allocation for both.
 */
import { type Bytes, fromBase64url, viewOf, writeU64 } from './bytes.ts'
import { SealpostError } from './errors.ts'
import { tuple } from './tuple.ts'

/** What the header binds, beside the user. `ttl` in seconds. */
export type EventFields = {
  event_id: string
  device_id: string
  device_seq: number
  stream_id: string
  type: string
  ttl: number | null
  epoch: number
  prev_hash: Bytes | null
}

const HEADER_LABEL = tuple('event')
const HASH_LABEL = tuple('event-hash')
const USER_BYTES = 32
const HASH_BYTES = 32
/** Seven length prefixes with ids and numbers of a fixed size, and the prefixes of the four fields that vary. */
const FIXED_BYTES = HEADER_LABEL.length + (4 + USER_BYTES) + 2 * (4 + 16) + 2 * (4 + 8) + 4 * 4
/** Where the header begins inside its hash input. */
export const HEADER_AT: number = HASH_LABEL.length + 4

/** The header on its own: the AAD of the payload. */
export function eventHeader(user_id: string, event: EventFields): Bytes {
  const out = new Uint8Array(headerBytes(event))
  writeHeader(out, viewOf(out), 0, fromBase64url(user_id, USER_BYTES), event)
  return out
}

export function headerBytes(event: EventFields): number {
  const optional = (event.ttl === null ? 0 : 8) + (event.prev_hash === null ? 0 : HASH_BYTES)
  return FIXED_BYTES + event.stream_id.length + event.type.length + optional
}

export function hashInputBytes(event: EventFields): number {
  return HEADER_AT + headerBytes(event) + 4 + HASH_BYTES
}

/** Writes the hash input at `at`, with room for SHA256(payload) in its last 32 bytes; returns the offset behind it. `user` has 32 bytes. */
export function writeHashInput(out: Bytes, view: DataView, at: number, user: Bytes, event: EventFields): number {
  out.set(HASH_LABEL, at)
  view.setUint32(at + HASH_LABEL.length, headerBytes(event))
  const next = writeHeader(out, view, at + HEADER_AT, user, event)
  view.setUint32(next, HASH_BYTES)
  return next + 4 + HASH_BYTES
}

function writeHeader(out: Bytes, view: DataView, start: number, user: Bytes, event: EventFields): number {
  out.set(HEADER_LABEL, start)
  let at = start + HEADER_LABEL.length
  at = writeBytes(out, view, at, user)
  view.setUint32(at, 16)
  at = writeUuid(out, at + 4, event.device_id)
  view.setUint32(at, 16)
  at = writeUuid(out, at + 4, event.event_id)
  at = writeInteger(view, at, event.device_seq)
  view.setUint32(at, event.stream_id.length)
  at = writeAscii(out, at + 4, event.stream_id)
  view.setUint32(at, event.type.length)
  at = writeAscii(out, at + 4, event.type)
  if (event.ttl !== null) at = writeInteger(view, at, event.ttl)
  else {
    view.setUint32(at, 0)
    at += 4
  }
  at = writeInteger(view, at, event.epoch)
  if (event.prev_hash !== null) return writeBytes(out, view, at, event.prev_hash)
  view.setUint32(at, 0)
  return at + 4
}

function writeBytes(out: Bytes, view: DataView, at: number, bytes: Bytes): number {
  view.setUint32(at, bytes.length)
  out.set(bytes, at + 4)
  return at + 4 + bytes.length
}

function writeInteger(view: DataView, at: number, value: number): number {
  if (!Number.isSafeInteger(value) || value < 0) throw new SealpostError('invalid_encoding', 'integer out of range')
  view.setUint32(at, 8)
  writeU64(view, at + 4, value)
  return at + 12
}

/** Writes a text of ASCII characters; returns the offset behind it. Throws `invalid_encoding`. */
export function writeAscii(out: Bytes, at: number, text: string): number {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code > 0x7f) throw new SealpostError('invalid_encoding', 'a label is ASCII')
    out[at + i] = code
  }
  return at + text.length
}

/** Value of a lower-case hexadecimal digit by character code; 0xff for every other character. */
const HEX_VALUE = Uint8Array.from({ length: 128 }, (_, code) => {
  const value = '0123456789abcdef'.indexOf(String.fromCharCode(code))
  return value < 0 ? 0xff : value
})

/** Writes the 16 bytes of a lower-case UUID; returns the offset behind them. Throws `invalid_encoding`. */
export function writeUuid(out: Bytes, at: number, uuid: string): number {
  let wrong = uuid.length === 36 ? 0 : 0xff
  let next = at
  for (let i = 0; i < 36; i += 2) {
    if (i === 8 || i === 13 || i === 18 || i === 23) {
      if (uuid.charCodeAt(i) !== 0x2d) wrong = 0xff
      i++
    }
    const high = HEX_VALUE[uuid.charCodeAt(i)] ?? 0xff
    const low = HEX_VALUE[uuid.charCodeAt(i + 1)] ?? 0xff
    wrong |= high | low
    out[next++] = (high << 4) | low
  }
  if (wrong > 0xf) throw new SealpostError('invalid_encoding', 'not a lower-case UUID')
  return next
}
