/**
 * The crypto port. Two adapters: node:crypto (`node.ts`, answers synchronously) and WebCrypto (`web-crypto.ts`). Callers
 * `await` every answer; a whole page of events is handed over in one `Promise.all`, so that WebCrypto works in parallel
 * and node:crypto costs no thread-pool round trip. Primitives only; no rule of the protocol lives in an adapter.
 */
import type { Awaitable, Bytes } from './bytes.ts'

/** A private key. `seed` (32 bytes, RFC 8032 / RFC 7748) is the portable form; adapters may cache a key object for it. */
export type Seed = Bytes

export interface Crypto {
  /** `length` bytes of a CSPRNG. */
  random(length: number): Bytes
  sha256(data: Bytes): Awaitable<Bytes>
  /** HKDF-SHA256 (RFC 5869), 32 bytes unless `length` says otherwise. */
  hkdf(ikm: Bytes, salt: Bytes, info: Bytes, length?: number): Awaitable<Bytes>
  /** PBKDF2-HMAC-SHA256 (RFC 8018), 32 bytes. */
  pbkdf2(password: Bytes, salt: Bytes, iterations: number): Awaitable<Bytes>
  ed25519Public(seed: Seed): Awaitable<Bytes>
  ed25519Sign(seed: Seed, message: Bytes): Awaitable<Bytes>
  /** False for a wrong signature and for a malformed key; never throws. */
  ed25519Verify(publicKey: Bytes, message: Bytes, signature: Bytes): Awaitable<boolean>
  x25519Public(seed: Seed): Awaitable<Bytes>
  /** Throws `invalid_message` when the peer's key is of low order (all-zero result). */
  x25519(seed: Seed, publicKey: Bytes): Awaitable<Bytes>
  /** AES-256-GCM with a 12-byte iv; returns ciphertext || tag 16. */
  aesGcmSeal(key: Bytes, iv: Bytes, aad: Bytes, plaintext: Bytes): Awaitable<Bytes>
  /** Throws `decrypt_failed`. */
  aesGcmOpen(key: Bytes, iv: Bytes, aad: Bytes, sealed: Bytes): Awaitable<Bytes>
  /** One direction of a record layer: the key object is made once, the counter belongs to the caller. */
  aesGcmKey(key: Bytes): AesGcmKey
}

/** A key used many times. Same semantics as `aesGcmSeal` and `aesGcmOpen`. */
export interface AesGcmKey {
  /** What comes out begins with `head`, as it is: head || ciphertext || tag 16. */
  seal(iv: Bytes, aad: Bytes, plaintext: Bytes, head?: Bytes): Awaitable<Bytes>
  open(iv: Bytes, aad: Bytes, sealed: Bytes): Awaitable<Bytes>
}
