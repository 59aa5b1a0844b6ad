/**
 * Event records, byte for byte (protocol.md §3). Big-endian:
 *
 *   u32 length of what follows | u8 flags | [u64 position | u64 stream_seq | u64 received_at_ms] | client part
 *   client part = event_id 16 | device_id 16 | u64 device_seq | u32 epoch | [u32 ttl s] | [prev_hash 32]
 *               | u8 len, stream_id | u8 len, type | sig 64 | u32 len, payload
 *
 * A tombstone has SHA-256(payload), 32 bytes, in place of the payload and its length. The client part is stored and relayed
 * verbatim. One layout walk serves both readers (`decodeRecords`, `scanRecords`), so they accept exactly the same bytes.
 * Bound: `max` records, by default as many as fit into a frame; every length is checked before it is used. Arrays returned
 * by a reader are views into the body, not copies.
 */
import { type Awaitable, type Bytes, bytesToUuid, viewOf, writeU64 } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { SealpostError } from './errors.ts'
import { writeAscii, writeUuid } from './event-header.ts'
import { LIMITS } from './limits.ts'
import { LABEL } from './schema.ts'

export const FLAG = { ttl: 1, prev_hash: 2, server: 4, tombstone: 8 } as const

/** What the server adds; `received_at` in ms. */
export type ServerPart = { position: number; stream_seq: number; received_at: number }

/** A decoded record. `ttl` in seconds. `payload` is null and `payload_hash` set exactly when it is a tombstone. */
export type EventRecord = {
  server: ServerPart | null
  event_id: string
  device_id: string
  device_seq: number
  epoch: number
  ttl: number | null
  prev_hash: Bytes | null
  stream_id: string
  type: string
  sig: Bytes
  payload: Bytes | null
  payload_hash: Bytes | null
}

/**
 * The server's view: what it needs to number and check; `client` is the client part, verbatim. A tombstone has 0 `payload_bytes`.
 * Whether `flags` may hold `server` or `tombstone` depends on who sent the record; the caller decides.
 */
export type RecordView = {
  flags: number
  client: Bytes
  event_id: string
  device_id: string
  device_seq: number
  epoch: number
  ttl: number | null
  stream_id: string
  type: string
  payload_bytes: number
}

const LENGTH_BYTES = 4
const SERVER_BYTES = 24
const HASH_BYTES = 32
const SIG_BYTES = 64
/** length, flags, two ids, device_seq, epoch, two labels of one character, sig, empty payload. */
const RECORD_BYTES_MIN = LENGTH_BYTES + 1 + 44 + 4 + SIG_BYTES + 4
const RECORDS_MAX = Math.floor(LIMITS.frameBytesMax / RECORD_BYTES_MIN)

/** Encodes one record; throws `invalid_encoding` when a field is out of its range. */
export function encodeRecord(record: EventRecord): Bytes {
  const { server, ttl, prev_hash, payload, payload_hash } = record
  const rest = payload ?? payload_hash
  if (rest === null || (payload !== null && payload_hash !== null)) throw unfit('a record has a payload or the hash of one')
  checkFields(record)
  const flags =
    (ttl === null ? 0 : FLAG.ttl) |
    (prev_hash === null ? 0 : FLAG.prev_hash) |
    (server === null ? 0 : FLAG.server) |
    (payload === null ? FLAG.tombstone : 0)
  const labels = 2 + record.stream_id.length + record.type.length
  const optional = (ttl === null ? 0 : 4) + (prev_hash === null ? 0 : HASH_BYTES)
  const body = 1 + (server === null ? 0 : SERVER_BYTES) + 44 + optional + labels + SIG_BYTES + (payload === null ? 0 : 4) + rest.length
  const out = new Uint8Array(LENGTH_BYTES + body)
  const view = viewOf(out)
  view.setUint32(0, body)
  out[LENGTH_BYTES] = flags
  let at = LENGTH_BYTES + 1
  if (server !== null) at = writeServerPart(view, at, server)
  at = writeUuid(out, at, record.event_id)
  at = writeUuid(out, at, record.device_id)
  writeU64(view, at, record.device_seq)
  view.setUint32(at + 8, record.epoch)
  at += 12
  if (ttl !== null) {
    view.setUint32(at, ttl)
    at += 4
  }
  if (prev_hash !== null) {
    out.set(prev_hash, at)
    at += HASH_BYTES
  }
  for (const label of [record.stream_id, record.type]) {
    out[at] = label.length
    at = writeAscii(out, at + 1, label)
  }
  out.set(record.sig, at)
  at += SIG_BYTES
  if (payload !== null) {
    view.setUint32(at, payload.length)
    at += 4
  }
  out.set(rest, at)
  return out
}

/** Decodes a body of records, whole; throws `invalid_message`. */
export function decodeRecords(body: Bytes, max = RECORDS_MAX): EventRecord[] {
  const out: EventRecord[] = []
  const view = viewOf(body)
  const names = new Names(body)
  for (let at = 0; at < body.length; ) {
    const l = recordLayout(body, view, at, out.length, max)
    const rest = body.subarray(l.rest, l.end)
    const tombstone = (l.flags & FLAG.tombstone) !== 0
    out.push({
      server:
        l.server < 0
          ? null
          : { position: safeU64(view, l.server), stream_seq: safeU64(view, l.server + 8), received_at: safeU64(view, l.server + 16) },
      event_id: bytesToUuid(body, l.client),
      device_id: names.device(l.client + 16),
      device_seq: safeU64(view, l.client + 32),
      epoch: view.getUint32(l.client + 40),
      ttl: l.ttl < 0 ? null : view.getUint32(l.ttl),
      prev_hash: l.prev < 0 ? null : body.subarray(l.prev, l.prev + HASH_BYTES),
      stream_id: names.label('stream', l.stream, l.type - 1),
      type: names.label('type', l.type, l.sig),
      sig: body.subarray(l.sig, l.sig + SIG_BYTES),
      payload: tombstone ? null : rest,
      payload_hash: tombstone ? rest : null,
    })
    at = l.end
  }
  return out
}

/** Reads a body of records without taking the client parts apart; throws `invalid_message`. */
export function scanRecords(body: Bytes, max = RECORDS_MAX): RecordView[] {
  const out: RecordView[] = []
  const view = viewOf(body)
  const names = new Names(body)
  for (let at = 0; at < body.length; ) {
    const l = recordLayout(body, view, at, out.length, max)
    out.push({
      flags: l.flags,
      client: body.subarray(l.client, l.end),
      event_id: bytesToUuid(body, l.client),
      device_id: names.device(l.client + 16),
      device_seq: safeU64(view, l.client + 32),
      epoch: view.getUint32(l.client + 40),
      ttl: l.ttl < 0 ? null : view.getUint32(l.ttl),
      stream_id: names.label('stream', l.stream, l.type - 1),
      type: names.label('type', l.type, l.sig),
      payload_bytes: (l.flags & FLAG.tombstone) === 0 ? l.end - l.rest : 0,
    })
    at = l.end
  }
  return out
}

/** Bytes of a record with a server part. */
export function recordBytes(_flags: number, client: Bytes, _server: ServerPart): number {
  return LENGTH_BYTES + 1 + SERVER_BYTES + client.length
}

/** Writes a record with a server part around a stored client part; returns the offset behind it. */
export function writeRecord(out: Bytes, at: number, flags: number, client: Bytes, server: ServerPart): number {
  const view = viewOf(out)
  view.setUint32(at, 1 + SERVER_BYTES + client.length)
  out[at + LENGTH_BYTES] = flags | FLAG.server
  const next = writeServerPart(view, at + LENGTH_BYTES + 1, server)
  out.set(client, next)
  return next + client.length
}

/** What tells a duplicate from a conflict, and the time of the event (ms); throws `invalid_message`. */
export function clientPartIds(flags: number, client: Bytes): { event_id: string; sig: Bytes; event_ms: number } {
  const l = clientLayout(client, viewOf(client), flags & ~FLAG.server, 0, client.length)
  return { event_id: bytesToUuid(client), sig: client.subarray(l.sig, l.sig + SIG_BYTES), event_ms: uuidMs(viewOf(client), 0) }
}

/** The longest a client part is up to its signature: fixed fields 44, ttl 4, prev_hash 32, two labels of 65, sig 64. */
export const CLIENT_HEAD_BYTES_MAX = 44 + 4 + HASH_BYTES + 2 * 65 + SIG_BYTES

/** How long a stored client part is up to its signature. `head` may be cut after `CLIENT_HEAD_BYTES_MAX`. Throws `invalid_message`. */
export function clientHeadBytes(flags: number, head: Bytes): number {
  const stream = 44 + ((flags & FLAG.ttl) === 0 ? 0 : 4) + ((flags & FLAG.prev_hash) === 0 ? 0 : HASH_BYTES)
  const length = labelEnd(head, viewOf(head), labelEnd(head, viewOf(head), stream, head.length), head.length) + SIG_BYTES
  if (length > head.length) throw wrong('a record is cut')
  return length
}

/** The client part without its payload: header, hash, link and signature still verify. Throws `invalid_message`. */
export function toTombstone(crypto: Crypto, flags: number, client: Bytes): Awaitable<{ flags: number; client: Bytes }> {
  if ((flags & FLAG.tombstone) !== 0) return { flags, client }
  const l = clientLayout(client, viewOf(client), flags & ~FLAG.server, 0, client.length)
  const kept = l.sig + SIG_BYTES
  const build = (payload_hash: Bytes): { flags: number; client: Bytes } => {
    const out = new Uint8Array(kept + HASH_BYTES)
    out.set(client.subarray(0, kept))
    out.set(payload_hash, kept)
    return { flags: flags | FLAG.tombstone, client: out }
  }
  const hash = crypto.sha256(client.subarray(l.rest))
  return hash instanceof Promise ? hash.then(build) : build(hash)
}

/** The time inside a UUIDv7 (RFC 9562 §5.7), in ms. */
export function eventTimeMs(event_id: string): number {
  return Number.parseInt(event_id.slice(0, 8), 16) * 0x1_0000 + Number.parseInt(event_id.slice(9, 13), 16)
}

/** When the event ends, in ms; null without a ttl. */
export function expiresAtMs(event: { event_id: string; ttl: number | null }): number | null {
  return event.ttl === null ? null : eventTimeMs(event.event_id) + event.ttl * 1000
}

/** Offsets of one record; -1 for what is absent. Labels end where the next part begins. */
type Layout = {
  flags: number
  server: number
  client: number
  ttl: number
  prev: number
  stream: number
  type: number
  sig: number
  /** The payload, or the hash of a tombstone. */
  rest: number
  end: number
}

function recordLayout(body: Bytes, view: DataView, at: number, count: number, max: number): Layout {
  if (count >= max) throw wrong('too many records')
  if (body.length - at < RECORD_BYTES_MIN) throw wrong('a record is cut')
  const end = at + LENGTH_BYTES + view.getUint32(at)
  if (end > body.length) throw wrong('a record is longer than the body')
  const flags = view.getUint8(at + LENGTH_BYTES)
  if (flags > 15) throw wrong('unknown flags')
  const first = at + LENGTH_BYTES + 1
  if ((flags & FLAG.server) === 0) return clientLayout(body, view, flags, first, end)
  if (first + SERVER_BYTES > end) throw wrong('a record is cut')
  for (let i = 0; i < SERVER_BYTES; i += 8) safeU64(view, first + i)
  const layout = clientLayout(body, view, flags, first + SERVER_BYTES, end)
  layout.server = first
  return layout
}

function clientLayout(body: Bytes, view: DataView, flags: number, client: number, end: number): Layout {
  let at = client + 44
  const ttl = (flags & FLAG.ttl) === 0 ? -1 : at
  if (ttl >= 0) at += 4
  const prev = (flags & FLAG.prev_hash) === 0 ? -1 : at
  if (prev >= 0) at += HASH_BYTES
  if (at >= end) throw wrong('a record is cut')
  if (safeU64(view, client + 32) === 0) throw wrong('device_seq begins at 1')
  if (ttl >= 0 && view.getUint32(ttl) < LIMITS.ttlSecondsMin) throw wrong('a ttl is at least one second')
  const stream = at + 1
  const type = labelEnd(body, view, at, end) + 1
  const sig = labelEnd(body, view, type - 1, end)
  const last = sig + SIG_BYTES
  const tombstone = (flags & FLAG.tombstone) !== 0
  if (last + (tombstone ? HASH_BYTES : 4) > end) throw wrong('a record is cut')
  const rest = tombstone ? last : last + 4
  const length = tombstone ? HASH_BYTES : view.getUint32(last)
  if (rest + length !== end) throw wrong('the lengths of a record do not agree')
  return { flags, server: -1, client, ttl, prev, stream, type, sig, rest, end }
}

const LABEL_BYTES = Uint8Array.from({ length: 256 }, (_, code) => (LABEL.test(String.fromCharCode(code)) ? 1 : 0))
const LABEL_LENGTH_MAX = 64

function labelEnd(body: Bytes, view: DataView, at: number, end: number): number {
  if (at >= end) throw wrong('a record is cut')
  const length = view.getUint8(at)
  const stop = at + 1 + length
  if (length === 0 || length > LABEL_LENGTH_MAX || stop > end) throw wrong('a label is not valid')
  for (let i = at + 1; i < stop; i++) if (LABEL_BYTES[body[i] ?? 0] !== 1) throw wrong('a label is not valid')
  return stop
}

/** Texts that repeat from record to record are made once: the device_id, the stream_id and the type before. */
class Names {
  readonly #body: Bytes
  #device = { at: -1, text: '' }
  #stream = { at: -1, end: -1, text: '' }
  #type = { at: -1, end: -1, text: '' }

  constructor(body: Bytes) {
    this.#body = body
  }

  device(at: number): string {
    const known = this.#device
    if (known.at >= 0 && this.#same(known.at, at, 16)) return known.text
    known.at = at
    known.text = bytesToUuid(this.#body, at)
    return known.text
  }

  label(which: 'stream' | 'type', at: number, end: number): string {
    const known = which === 'stream' ? this.#stream : this.#type
    if (known.end - known.at === end - at && known.at >= 0 && this.#same(known.at, at, end - at)) return known.text
    known.at = at
    known.end = end
    known.text = String.fromCharCode(...this.#body.subarray(at, end))
    return known.text
  }

  #same(a: number, b: number, length: number): boolean {
    for (let i = 0; i < length; i++) if (this.#body[a + i] !== this.#body[b + i]) return false
    return true
  }
}

function writeServerPart(view: DataView, at: number, server: ServerPart): number {
  writeU64(view, at, server.position)
  writeU64(view, at + 8, server.stream_seq)
  writeU64(view, at + 16, server.received_at)
  return at + SERVER_BYTES
}

/** Throws `invalid_encoding` when a field is out of its range. */
export function checkFields({ server, device_seq, epoch, ttl, prev_hash, stream_id, type, sig, payload, payload_hash }: EventRecord): void {
  const numbers = server === null ? [device_seq] : [device_seq, server.position, server.stream_seq, server.received_at]
  if (device_seq < 1 || !numbers.every((n) => Number.isSafeInteger(n) && n >= 0)) throw unfit('a number of a record is out of range')
  if (!isU32(epoch) || (ttl !== null && (!isU32(ttl) || ttl < LIMITS.ttlSecondsMin))) throw unfit('epoch or ttl is out of range')
  if (!LABEL.test(stream_id) || !LABEL.test(type)) throw unfit('a label is not valid')
  if (sig.length !== SIG_BYTES) throw unfit('a signature has 64 bytes')
  for (const hash of [prev_hash, payload_hash]) if (hash !== null && hash.length !== HASH_BYTES) throw unfit('a hash has 32 bytes')
  if (payload !== null && payload.length > 0xffff_ffff - 1024) throw unfit('a payload is too long')
}

function isU32(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff
}

function uuidMs(view: DataView, at: number): number {
  return view.getUint32(at) * 0x1_0000 + view.getUint16(at + 4)
}

function safeU64(view: DataView, at: number): number {
  const high = view.getUint32(at)
  if (high > 0x1f_ffff) throw wrong('an integer is above 2^53-1')
  return high * 0x1_0000_0000 + view.getUint32(at + 4)
}

function wrong(what: string): SealpostError {
  return new SealpostError('invalid_message', what)
}

function unfit(what: string): SealpostError {
  return new SealpostError('invalid_encoding', what)
}
