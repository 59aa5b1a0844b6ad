/**
 * Root and device keys (protocol.md §2). The recovery seed is the BIP39 *entropy* of 24 words; the root keys follow from
 * it; a device makes its own keys, which never leave it. Seeds are 32 bytes.
 */
import { type Bytes, bytesToUuid, EMPTY, fromBase64url, toBase64url, uuidToBytes } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { isSafeDeviceName, safeDeviceName } from './device-name.ts'
import { SealpostError } from './errors.ts'
import { kemPublic } from './kem.ts'
import type { DeviceType, SHAPES } from './messages.ts'
import type { Of } from './schema.ts'
import { tuple } from './tuple.ts'

/** `user_id` is `sign_pub` as base64url. */
export type RootKeys = { sign_seed: Bytes; user_id: string; sign_pub: Bytes; kem_seed: Bytes; kem_pub: Bytes }

export type DeviceKeys = { device_id: string; sign_seed: Bytes; sign_pub: Bytes; kem_seed: Bytes; kem_pub: Bytes }

/** How a device presents itself in pairing and in the log; keys and signature as base64url. */
export type DeviceIntroduction = Of<typeof SHAPES.device>

/** Derives the keys that sign `genesis` and `recover`; the caller wipes them afterwards. */
export async function deriveRootKeys(crypto: Crypto, recovery_seed: Bytes): Promise<RootKeys> {
  if (recovery_seed.length !== 32) throw new SealpostError('invalid_encoding', 'a recovery seed has 32 bytes')
  const sign_seed = await crypto.hkdf(recovery_seed, EMPTY, tuple('root-sign'))
  const kem_seed = await crypto.hkdf(recovery_seed, EMPTY, tuple('root-kem'))
  const sign_pub = await crypto.ed25519Public(sign_seed)
  return { sign_seed, user_id: toBase64url(sign_pub), sign_pub, kem_seed, kem_pub: await kemPublic(kem_seed) }
}

/** The 24 English words of a recovery seed. */
export async function recoverySeedToWords(seed: Bytes): Promise<string> {
  if (seed.length !== 32) throw new SealpostError('invalid_encoding', 'a recovery seed has 32 bytes')
  const { bip39, english } = await loadWords()
  return bip39.entropyToMnemonic(seed, english)
}

/** The seed of 24 words, in any case and spacing; throws `invalid_words` when a word or the checksum is wrong. */
export async function wordsToRecoverySeed(words: string): Promise<Bytes> {
  const { bip39, english } = await loadWords()
  const list = words.normalize('NFKD').toLowerCase().trim().split(/\s+/)
  if (list.length !== 24) throw new SealpostError('invalid_words', `the recovery phrase has 24 words, these are ${list.length}`)
  const strange = list.findIndex((word) => !english.includes(word))
  if (strange >= 0) throw new SealpostError('invalid_words', `word ${strange + 1} of the recovery phrase is not on the word list`)
  try {
    return bip39.mnemonicToEntropy(list.join(' '), english)
  } catch (cause) {
    throw new SealpostError('invalid_words', 'the recovery phrase does not add up: a word is wrong or out of place', { cause })
  }
}

/** New keys of a device, with a random UUIDv4. */
export async function createDeviceKeys(crypto: Crypto): Promise<DeviceKeys> {
  const id = crypto.random(16)
  id[6] = ((id[6] ?? 0) & 0x0f) | 0x40
  id[8] = ((id[8] ?? 0) & 0x3f) | 0x80
  const sign_seed = crypto.random(32)
  const kem_seed = crypto.random(32)
  const sign_pub = await crypto.ed25519Public(sign_seed)
  return { device_id: bytesToUuid(id), sign_seed, sign_pub, kem_seed, kem_pub: await kemPublic(kem_seed) }
}

/** Presents `keys` to the account `user_id`; the name is made safe. */
export async function introduceDevice(
  crypto: Crypto,
  user_id: string,
  keys: DeviceKeys,
  name: string,
  device_type: DeviceType,
): Promise<DeviceIntroduction> {
  const signed = introductionBytes(user_id, keys.device_id, keys.sign_pub, keys.kem_pub)
  return {
    device_id: keys.device_id,
    sign_pub: toBase64url(keys.sign_pub),
    kem_pub: toBase64url(keys.kem_pub),
    self_sig: toBase64url(await crypto.ed25519Sign(keys.sign_seed, signed)),
    name: safeDeviceName(name),
    device_type,
  }
}

/** Does the introduced device hold its signing key, and mean this account? Its name must be a safe one too. */
export async function verifyIntroduction(crypto: Crypto, user_id: string, device: DeviceIntroduction): Promise<boolean> {
  if (!isSafeDeviceName(device.name)) return false
  try {
    const sign_pub = fromBase64url(device.sign_pub, 32)
    const signed = introductionBytes(user_id, device.device_id, sign_pub, fromBase64url(device.kem_pub, 1216))
    return await crypto.ed25519Verify(sign_pub, signed, fromBase64url(device.self_sig, 64))
  } catch (error) {
    if (error instanceof SealpostError) return false
    throw error
  }
}

/** What `self_sig` signs. */
export function introductionBytes(user_id: string, device_id: string, sign_pub: Bytes, kem_pub: Bytes): Bytes {
  return tuple('device', fromBase64url(user_id, 32), uuidToBytes(device_id), sign_pub, kem_pub)
}

async function loadWords() {
  const [bip39, { wordlist: english }] = await Promise.all([import('@scure/bip39'), import('@scure/bip39/wordlists/english.js')])
  return { bip39, english }
}
