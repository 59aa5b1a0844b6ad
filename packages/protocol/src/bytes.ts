/**
 * Bytes and their text forms (protocol.md §1): base64url without padding, canonical; UUIDs in lower case; big-endian
 * integers. Every decoder throws `SealpostError('invalid_encoding')` and nothing else.
 */
import { SealpostError } from './errors.ts'

export type Bytes = Uint8Array

/** A value, or a promise of it: the Node adapter of the crypto port answers at once, the WebCrypto one does not. */
export type Awaitable<T> = T | Promise<T>

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export const EMPTY: Bytes = new Uint8Array(0)

export function utf8(text: string): Bytes {
  return encoder.encode(text)
}

export function utf8Decode(bytes: Bytes): string {
  try {
    return decoder.decode(bytes)
  } catch (cause) {
    throw new SealpostError('invalid_encoding', 'not valid UTF-8', { cause })
  }
}

/** Parses UTF-8 JSON. Of doubled keys the last counts, as in ECMA-262 §25.5.1. */
export function parseJson(bytes: Bytes): unknown {
  const text = utf8Decode(bytes)
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new SealpostError('invalid_encoding', 'not valid JSON', { cause })
  }
}

export function concat(...parts: readonly Bytes[]): Bytes {
  let length = 0
  for (const part of parts) length += part.length
  const out = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

/** Equality of public values. Secrets and tags are compared by the primitives that own them. */
export function equalBytes(a: Bytes, b: Bytes): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

export function viewOf(bytes: Bytes): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
const CODES = encoder.encode(BASE64URL)
/** By character code: its six bits, or 255. */
const SEXTETS = new Uint8Array(128).fill(255)
for (let i = 0; i < 64; i++) SEXTETS[BASE64URL.charCodeAt(i)] = i

export function toBase64url(bytes: Bytes): string {
  const codes = new Uint8Array(Math.ceil((bytes.length * 4) / 3))
  let bits = 0
  let held = 0
  let at = 0
  for (const byte of bytes) {
    bits = ((bits << 8) | byte) & 0xffff
    held += 8
    while (held >= 6) {
      held -= 6
      codes[at++] = CODES[(bits >> held) & 63] ?? 0
    }
  }
  if (held > 0) codes[at] = CODES[(bits << (6 - held)) & 63] ?? 0
  return decoder.decode(codes)
}

/** Decodes canonical base64url (RFC 4648 §5, no padding, no spare bits); `length` in bytes when it is fixed. */
export function fromBase64url(text: string, length?: number): Bytes {
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4))
  let bits = 0
  let held = 0
  let at = 0
  for (let i = 0; i < text.length; i++) {
    const sextet = SEXTETS[text.charCodeAt(i)] ?? 255
    if (sextet === 255) throw new SealpostError('invalid_encoding', 'not base64url')
    bits = ((bits << 6) | sextet) & 0xfff
    held += 6
    if (held < 8) continue
    held -= 8
    bytes[at++] = bits >> held
  }
  // a stray last character, or spare bits that are set: a second form of the same bytes
  if (held === 6 || (bits & ((1 << held) - 1)) !== 0) throw new SealpostError('invalid_encoding', 'base64url is not canonical')
  if (length !== undefined && bytes.length !== length)
    throw new SealpostError('invalid_encoding', `expected ${length} bytes, got ${bytes.length}`)
  return bytes
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

export function isUuid(text: string): boolean {
  return UUID.test(text)
}

export function uuidToBytes(uuid: string): Bytes {
  if (!isUuid(uuid)) throw new SealpostError('invalid_encoding', 'not a lower-case UUID')
  return fromHex(uuid.replaceAll('-', ''))
}

const HEX: readonly string[] = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, '0'))

export function bytesToUuid(bytes: Bytes, at = 0): string {
  let out = ''
  for (let i = 0; i < 16; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) out += '-'
    out += HEX[bytes[at + i] ?? 0]
  }
  return out
}

export function toHex(bytes: Bytes): string {
  let out = ''
  for (const byte of bytes) out += HEX[byte]
  return out
}

export function fromHex(hex: string): Bytes {
  if (!/^([0-9a-f]{2})*$/.test(hex)) throw new SealpostError('invalid_encoding', 'not lower-case hexadecimal')
  const out = new Uint8Array(hex.length / 2)
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16)
  return out
}

/** Reads a u64 that must be a JSON safe integer. */
export function readU64(view: DataView, at: number): number {
  const high = view.getUint32(at)
  if (high > 0x1f_ffff) throw new SealpostError('invalid_encoding', 'integer above 2^53-1')
  return high * 0x1_0000_0000 + view.getUint32(at + 4)
}

export function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 0x1_0000_0000))
  view.setUint32(at + 4, value % 0x1_0000_0000)
}
