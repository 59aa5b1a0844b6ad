/**
 * Sealing of events (protocol.md §3): key, padding, payload, hash and signature. Opening is `receiver.ts`.
 *
 *   plaintext  = u32be(len) || data || zeros up to Padmé(4 + len), at least 32 bytes
 *   payload    = iv 12 || AES-256-GCM(event key, iv, aad = header, plaintext)
 *   event_hash = SHA256(tuple("event-hash", header, SHA256(payload)))
 *   sig        = Ed25519(device_sign, tuple("event-sig", event_hash))
 *
 * Bound: 262,140 bytes of data.
 */
import { type Awaitable, type Bytes, fromBase64url, uuidToBytes, viewOf } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { SealpostError } from './errors.ts'
import { type EventFields, HEADER_AT, headerBytes, hashInputBytes, writeHashInput } from './event-header.ts'
import { LIMITS } from './limits.ts'
import { encodeRecord } from './record.ts'
import { tuple } from './tuple.ts'

export { eventHeader } from './event-header.ts'

export const IV_BYTES = 12
export const TAG_BYTES = 16
const PADDED_BYTES_MIN = 32
const HASH_BYTES = 32

/** `ttl` in seconds; `prev_hash` is the event_hash of this device's previous event in this stream. */
export type SealInput = EventFields & { user_id: string; sign_seed: Bytes; event_key: Bytes; data: Bytes }

/** Bytes of the padded plaintext of `length` bytes of data: Padmé(4 + length), at least 32. */
export function padded(length: number): number {
  const plain = 4 + length
  if (plain <= PADDED_BYTES_MIN) return PADDED_BYTES_MIN
  const exponent = 31 - Math.clz32(plain)
  const mantissaBits = 32 - Math.clz32(exponent)
  const unit = 2 ** (exponent - mantissaBits)
  return Math.ceil(plain / unit) * unit
}

/** The key under which one device seals its events of one epoch. */
export function eventKey(crypto: Crypto, epoch_key: Bytes, entry_hash: Bytes, device_id: string): Awaitable<Bytes> {
  return crypto.hkdf(epoch_key, entry_hash, tuple('event-key', uuidToBytes(device_id)))
}

/** What the device signs. */
export function signedEventHash(event_hash: Bytes): Bytes {
  return tuple('event-sig', event_hash)
}

/** Seals one event into a record without a server part. Throws `payload_too_large` and `invalid_encoding`. */
export async function sealEvent(crypto: Crypto, input: SealInput): Promise<{ record: Bytes; event_hash: Bytes }> {
  const { data, prev_hash } = input
  if (data.length > LIMITS.payloadDataBytesMax)
    throw new SealpostError('payload_too_large', `the payload has ${data.length} bytes, the limit is ${LIMITS.payloadDataBytesMax}`)
  if (prev_hash !== null && prev_hash.length !== HASH_BYTES) throw new SealpostError('invalid_encoding', 'a hash has 32 bytes')
  const hashed = new Uint8Array(hashInputBytes(input))
  writeHashInput(hashed, viewOf(hashed), 0, fromBase64url(input.user_id, 32), input)
  const header = hashed.subarray(HEADER_AT, HEADER_AT + headerBytes(input))
  const iv = crypto.random(IV_BYTES)
  const sealed = await crypto.aesGcmSeal(input.event_key, iv, header, padData(data))
  const payload = new Uint8Array(IV_BYTES + sealed.length)
  payload.set(iv)
  payload.set(sealed, IV_BYTES)
  hashed.set(await crypto.sha256(payload), hashed.length - HASH_BYTES)
  const event_hash = await crypto.sha256(hashed)
  const sig = await crypto.ed25519Sign(input.sign_seed, signedEventHash(event_hash))
  const { event_id, device_id, device_seq, epoch, ttl, stream_id, type } = input
  const record = encodeRecord({
    server: null,
    event_id,
    device_id,
    device_seq,
    epoch,
    ttl,
    prev_hash,
    stream_id,
    type,
    sig,
    payload,
    payload_hash: null,
  })
  return { record, event_hash }
}

export function padData(data: Bytes): Bytes {
  const out = new Uint8Array(padded(data.length))
  viewOf(out).setUint32(0, data.length)
  out.set(data, 4)
  return out
}

/** The data inside a padded plaintext, as a view; null when length or padding is not exactly as `padData` makes it. */
export function unpadData(plaintext: Bytes): Bytes | null {
  if (plaintext.length < PADDED_BYTES_MIN) return null
  const length = viewOf(plaintext).getUint32(0)
  if (length > LIMITS.payloadDataBytesMax || padded(length) !== plaintext.length) return null
  for (let i = 4 + length; i < plaintext.length; i++) if (plaintext[i] !== 0) return null
  // a plain Uint8Array also where the adapter answers with a Buffer, whose slice() and toJSON() differ
  return new Uint8Array(plaintext.buffer, plaintext.byteOffset + 4, length)
}
