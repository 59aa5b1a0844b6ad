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

export function toBase64url(bytes: Bytes): string {
  let binary = ''
  for (let i = 0; i < bytes.length; i += 0x8000) binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000))
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

/** Decodes canonical base64url (RFC 4648 §5, no padding, no spare bits); `length` in bytes when it is fixed. */
export function fromBase64url(text: string, length?: number): Bytes {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new SealpostError('invalid_encoding', 'not base64url')
  let binary: string
  try {
    binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'))
  } catch (cause) {
    throw new SealpostError('invalid_encoding', 'not base64url', { cause })
  }
  const bytes = Uint8Array.from(binary, (c) => c.charCodeAt(0))
  if (length !== undefined && bytes.length !== length)
    throw new SealpostError('invalid_encoding', `expected ${length} bytes, got ${bytes.length}`)
  if (toBase64url(bytes) !== text) throw new SealpostError('invalid_encoding', 'base64url is not canonical')
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
