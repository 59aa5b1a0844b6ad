/** The node:crypto adapter of the crypto port: every answer is synchronous. */
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  hash,
  hkdfSync,
  type KeyObject,
  pbkdf2Sync,
  randomBytes,
  sign,
  verify,
} from 'node:crypto'
import { type Bytes, concat, EMPTY } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { SealpostError } from './errors.ts'

/** The same port with its promises taken out: what the server's record layer and handshake run on. */
export type SyncCrypto = {
  [K in Exclude<keyof Crypto, 'aesGcmKey'>]: (...args: Parameters<Crypto[K]>) => Awaited<ReturnType<Crypto[K]>>
} & { aesGcmKey(key: Bytes): SyncAesGcmKey }

export interface SyncAesGcmKey {
  seal(iv: Bytes, aad: Bytes, plaintext: Bytes, head?: Bytes): Bytes
  open(iv: Bytes, aad: Bytes, sealed: Bytes): Bytes
}

const TAG_BYTES = 16
const KEY_CACHE_MAX = 4_096
const PKCS8 = {
  ed25519: Buffer.from('302e020100300506032b657004220420', 'hex'),
  x25519: Buffer.from('302e020100300506032b656e04220420', 'hex'),
}
const SPKI = { ed25519: Buffer.from('302a300506032b6570032100', 'hex'), x25519: Buffer.from('302a300506032b656e032100', 'hex') }

export const nodeCrypto: SyncCrypto = {
  random: (length) => new Uint8Array(randomBytes(length)),
  sha256: (data) => hash('sha256', data, 'buffer'),
  hkdf: (ikm, salt, info, length = 32) => new Uint8Array(hkdfSync('sha256', ikm, salt, info, length)),
  pbkdf2: (password, salt, iterations) => new Uint8Array(pbkdf2Sync(password, salt, iterations, 32, 'sha256')),
  ed25519Public: (seed) => rawPublic(privateKey('ed25519', seed)),
  ed25519Sign: (seed, message) => new Uint8Array(sign(null, message, privateKey('ed25519', seed))),
  ed25519Verify: (publicKey, message, signature) => {
    try {
      return verify(null, message, verifyKey(publicKey), signature)
    } catch {
      return false
    }
  },
  x25519Public: (seed) => rawPublic(privateKey('x25519', seed)),
  x25519: (seed, publicKey) => {
    let shared: Buffer
    try {
      shared = diffieHellman({ privateKey: privateKey('x25519', seed), publicKey: publicKeyObject('x25519', publicKey) })
    } catch (cause) {
      throw new SealpostError('invalid_message', 'the key exchange failed', { cause })
    }
    if (shared.every((byte) => byte === 0)) throw new SealpostError('invalid_message', 'the key exchange failed')
    return new Uint8Array(shared)
  },
  aesGcmSeal: (key, iv, aad, plaintext) => seal(createSecretKey(key), iv, aad, plaintext),
  aesGcmOpen: (key, iv, aad, sealed) => open(createSecretKey(key), iv, aad, sealed),
  aesGcmKey: (key) => {
    // a key object made once per key: a raw key costs 16-23 us a call on Node 24, the object 4-9 (performance.md, fact 5)
    const object = createSecretKey(key)
    return {
      seal: (iv, aad, plaintext, head) => seal(object, iv, aad, plaintext, head),
      open: (iv, aad, sealed) => open(object, iv, aad, sealed),
    }
  },
}

function seal(key: KeyObject, iv: Bytes, aad: Bytes, plaintext: Bytes, head: Bytes = EMPTY): Bytes {
  const cipher = createCipheriv('aes-256-gcm', key, iv)
  cipher.setAAD(aad)
  const ciphertext = cipher.update(plaintext)
  cipher.final()
  return concat(head, ciphertext, cipher.getAuthTag())
}

function open(key: KeyObject, iv: Bytes, aad: Bytes, sealed: Bytes): Bytes {
  if (sealed.length < TAG_BYTES) throw new SealpostError('decrypt_failed', 'the ciphertext is too short')
  const at = sealed.length - TAG_BYTES
  const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
  decipher.setAAD(aad)
  decipher.setAuthTag(sealed.subarray(at))
  const out = decipher.update(sealed.subarray(0, at))
  try {
    decipher.final()
  } catch (cause) {
    throw new SealpostError('decrypt_failed', 'the ciphertext does not open', { cause })
  }
  return out
}

function rawPublic(key: KeyObject): Bytes {
  const der = createPublicKey(key).export({ type: 'spki', format: 'der' })
  return new Uint8Array(der.subarray(der.length - 32))
}

type Curve = 'ed25519' | 'x25519'

// the key object lives as long as the seed's array does: a long-lived key is parsed once, an ephemeral one is not kept
const privateKeys = { ed25519: new WeakMap<Bytes, KeyObject>(), x25519: new WeakMap<Bytes, KeyObject>() }

function privateKey(curve: Curve, seed: Bytes): KeyObject {
  if (seed.length !== 32) throw new SealpostError('invalid_encoding', 'a private key has 32 bytes')
  const known = privateKeys[curve].get(seed)
  if (known !== undefined) return known
  const object = createPrivateKey({ key: Buffer.concat([PKCS8[curve], seed]), format: 'der', type: 'pkcs8' })
  privateKeys[curve].set(seed, object)
  return object
}

// parsing a public key costs about a quarter of a verification; devices send many signatures, and come back all at once
const verifyKeys = new Map<string, KeyObject>()

function verifyKey(key: Bytes): KeyObject {
  const cacheKey = Buffer.from(key).toString('latin1')
  const known = verifyKeys.get(cacheKey)
  if (known !== undefined) return known
  const object = publicKeyObject('ed25519', key)
  const oldest = verifyKeys.size >= KEY_CACHE_MAX ? verifyKeys.keys().next().value : undefined
  if (oldest !== undefined) verifyKeys.delete(oldest)
  verifyKeys.set(cacheKey, object)
  return object
}

function publicKeyObject(curve: Curve, key: Bytes): KeyObject {
  if (key.length !== 32) throw new SealpostError('invalid_encoding', 'a public key has 32 bytes')
  return createPublicKey({ key: Buffer.concat([SPKI[curve], key]), format: 'der', type: 'spki' })
}
