/**
 * The WebCrypto adapter of the crypto port: browsers, and every runtime that has `globalThis.crypto.subtle` with Ed25519 and X25519.
 * Every answer is a promise. Seeds are imported as PKCS #8 (RFC 8410 §7), public keys as raw bytes.
 */
import { type Bytes, concat, fromBase64url, fromHex } from './bytes.ts'
import type { AesGcmKey, Crypto } from './crypto.ts'
import { SealpostError } from './errors.ts'

type Curve = 'Ed25519' | 'X25519'
type Usage = 'sign' | 'verify' | 'deriveBits'

const PKCS8: Record<Curve, Bytes> = {
  Ed25519: fromHex('302e020100300506032b657004220420'),
  X25519: fromHex('302e020100300506032b656e04220420'),
}
const KEY_BYTES = 32
/** `getRandomValues` gives no more at once (W3C WebCrypto §10.1). */
const RANDOM_BYTES_MAX = 65_536

export const webCrypto: Crypto = {
  random: (length) => {
    const out = new Uint8Array(length)
    for (let at = 0; at < length; at += RANDOM_BYTES_MAX) globalThis.crypto.getRandomValues(out.subarray(at, at + RANDOM_BYTES_MAX))
    return out
  },
  sha256: async (data) => new Uint8Array(await subtle().digest('SHA-256', source(data))),
  hkdf: async (ikm, salt, info, length = 32) => {
    const key = await subtle().importKey('raw', source(ikm), 'HKDF', false, ['deriveBits'])
    return bits({ name: 'HKDF', hash: 'SHA-256', salt: source(salt), info: source(info) }, key, length)
  },
  pbkdf2: async (password, salt, iterations) => {
    const key = await subtle().importKey('raw', source(password), 'PBKDF2', false, ['deriveBits'])
    return bits({ name: 'PBKDF2', hash: 'SHA-256', salt: source(salt), iterations }, key, 32)
  },
  ed25519Public: (seed) => publicOf('Ed25519', seed, 'sign'),
  ed25519Sign: async (seed, message) =>
    new Uint8Array(await subtle().sign('Ed25519', await importSeed('Ed25519', seed, 'sign'), source(message))),
  ed25519Verify: async (publicKey, message, signature) => {
    try {
      return await subtle().verify('Ed25519', await importPublic('Ed25519', publicKey, ['verify']), source(signature), source(message))
    } catch {
      return false
    }
  },
  x25519Public: (seed) => publicOf('X25519', seed, 'deriveBits'),
  x25519: async (seed, publicKey) => {
    let shared: Bytes
    try {
      const own = await importSeed('X25519', seed, 'deriveBits')
      shared = await bits({ name: 'X25519', public: await importPublic('X25519', publicKey, []) }, own, 32)
    } catch (cause) {
      throw new SealpostError('invalid_message', 'the key exchange failed', { cause })
    }
    if (shared.every((byte) => byte === 0)) throw new SealpostError('invalid_message', 'the key exchange failed')
    return shared
  },
  aesGcmSeal: (key, iv, aad, plaintext) => aesGcmKey(key).seal(iv, aad, plaintext),
  aesGcmOpen: (key, iv, aad, sealed) => aesGcmKey(key).open(iv, aad, sealed),
  aesGcmKey,
}

/** The key is imported at its first use, once. */
function aesGcmKey(key: Bytes): AesGcmKey {
  type Key = Awaited<ReturnType<typeof importAesGcm>>
  let imported: Promise<Key> | undefined
  const object = (): Promise<Key> => (imported ??= importAesGcm(key))
  return {
    seal: async (iv, aad, plaintext, head) => {
      const sealed = new Uint8Array(
        await subtle().encrypt({ name: 'AES-GCM', iv: source(iv), additionalData: source(aad) }, await object(), source(plaintext)),
      )
      return head === undefined ? sealed : concat(head, sealed)
    },
    open: async (iv, aad, sealed) => {
      const handle = await object()
      try {
        return new Uint8Array(
          await subtle().decrypt({ name: 'AES-GCM', iv: source(iv), additionalData: source(aad) }, handle, source(sealed)),
        )
      } catch (cause) {
        if (cause instanceof Error && cause.name === 'OperationError')
          throw new SealpostError('decrypt_failed', 'the ciphertext does not open', { cause })
        throw cause
      }
    },
  }
}

function importAesGcm(key: Bytes) {
  return subtle().importKey('raw', source(key), 'AES-GCM', false, ['encrypt', 'decrypt'])
}

async function publicOf(curve: Curve, seed: Bytes, usage: Usage): Promise<Bytes> {
  const jwk = await subtle().exportKey('jwk', await importSeed(curve, seed, usage, true))
  return fromBase64url(jwk.x ?? '', KEY_BYTES)
}

function importSeed(curve: Curve, seed: Bytes, usage: Usage, extractable = false) {
  if (seed.length !== KEY_BYTES) throw new SealpostError('invalid_encoding', 'a private key has 32 bytes')
  return subtle().importKey('pkcs8', source(concat(PKCS8[curve], seed)), curve, extractable, [usage])
}

function importPublic(curve: Curve, key: Bytes, usages: Usage[]) {
  return subtle().importKey('raw', source(key), curve, false, usages)
}

async function bits(
  algorithm: Parameters<ReturnType<typeof subtle>['deriveBits']>[0],
  key: Parameters<ReturnType<typeof subtle>['deriveBits']>[1],
  length: number,
): Promise<Bytes> {
  return new Uint8Array(await subtle().deriveBits(algorithm, key, length * 8))
}

function subtle() {
  return globalThis.crypto.subtle
}

/** WebCrypto's types refuse shared memory, which nothing here is. */
function source(bytes: Bytes): Uint8Array<ArrayBuffer> {
  return bytes as Uint8Array<ArrayBuffer>
}
