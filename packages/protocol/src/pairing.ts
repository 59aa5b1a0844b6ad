/**
 * Pairing (protocol.md §10): the existing device A shows a one-time code of 80 bits, the new device N types or scans it. Both
 * derive a mailbox and one key per direction from it; only public keys travel, sealed.
 *
 *   k = PBKDF2-HMAC-SHA256(code, tuple("pair"), 200,000)          box = iv || AES-256-GCM(k_dir, iv, aad = tuple("pair <slot>"), JSON)
 *   offer (A) → join (N) → reveal (A) → check phrase on both → done (A)
 *
 * Invariant: A's nonce is committed in `offer` before N's keys are seen and revealed after, so nobody in the middle can
 * search for keys that give the same phrase. Hashes are over the sealed bytes as stored.
 */
import { type Awaitable, type Bytes, concat, equalBytes, fromBase64url, parseJson, toBase64url, utf8 } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { EMOJI } from './emoji.ts'
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'
import { SHAPES } from './messages.ts'
import { check, type Of } from './schema.ts'
import { tuple } from './tuple.ts'

/** `mailbox_id` is 22 characters (16 bytes); keys of 32 bytes: from A to N and from N to A. */
export type PairingKeys = { mailbox_id: string; a2n: Bytes; n2a: Bytes }

const SLOTS = { offer: SHAPES.pair_offer, join: SHAPES.pair_join, reveal: SHAPES.pair_reveal, done: SHAPES.pair_done } as const

export type PairingSlot = keyof typeof SLOTS
export type PairingContent = { [S in PairingSlot]: Of<(typeof SLOTS)[S]> }
export const PAIRING_SLOTS = Object.keys(SLOTS) as readonly PairingSlot[]

export type CheckPhrase = { indices: number[]; emoji: string[]; names: string[] }

const SYMBOLS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const CODE_SYMBOLS = 16
const PBKDF2_ITERATIONS = 200_000
const IV_BYTES = 12
const TAG_BYTES = 16
const PHRASE_EMOJI = 4

/** A new code as people see it: `K7QM-3XWP-9RTB-D2FH`. */
export function createPairingCode(crypto: Crypto): string {
  // 32 symbols divide 256, so the low five bits of a random byte are uniform
  const code = Array.from(crypto.random(CODE_SYMBOLS), (byte) => SYMBOLS[byte & 31]).join('')
  return code.replace(/.{4}(?=.)/g, '$&-')
}

/** 16 upper-case symbols of what a person typed: case, spaces and dashes do not matter, O is 0, I and L are 1. Throws `invalid_code`. */
export function normalizePairingCode(text: string): string {
  const code = text.length > 64 ? '' : text.replace(/[\s-]/g, '').toUpperCase().replaceAll('O', '0').replace(/[IL]/g, '1')
  if (!/^[0-9A-HJKMNP-TV-Z]{16}$/.test(code))
    throw new SealpostError('invalid_code', 'a pairing code has 16 letters and digits, for example K7QM-3XWP-9RTB-D2FH')
  return code
}

export async function derivePairingKeys(crypto: Crypto, code: string): Promise<PairingKeys> {
  const k = await crypto.pbkdf2(utf8(normalizePairingCode(code)), tuple('pair'), PBKDF2_ITERATIONS)
  const [mailbox, a2n, n2a] = await Promise.all([derive('mailbox'), derive('a2n'), derive('n2a')])
  return { mailbox_id: toBase64url(mailbox.subarray(0, 16)), a2n, n2a }

  async function derive(what: string): Promise<Bytes> {
    return crypto.hkdf(k, new Uint8Array(0), tuple(`pair ${what}`))
  }
}

export async function sealSlot<S extends PairingSlot>(
  crypto: Crypto,
  keys: PairingKeys,
  slot: S,
  value: PairingContent[S],
): Promise<Bytes> {
  const iv = crypto.random(IV_BYTES)
  const box = concat(iv, await crypto.aesGcmSeal(keyOf(keys, slot), iv, tuple(`pair ${slot}`), utf8(JSON.stringify(value))))
  if (box.length > LIMITS.pairingSlotBytesMax) throw new SealpostError('too_large', 'a pairing slot holds 4 KiB')
  return box
}

/** Throws `invalid_box` (other code, other slot, other direction, damage) or `invalid_message`. */
export async function openSlot<S extends PairingSlot>(crypto: Crypto, keys: PairingKeys, slot: S, box: Bytes): Promise<PairingContent[S]> {
  if (box.length < IV_BYTES + TAG_BYTES || box.length > LIMITS.pairingSlotBytesMax)
    throw new SealpostError('invalid_box', 'the sealed slot has a wrong length')
  const json = await openBox(crypto, keyOf(keys, slot), slot, box)
  try {
    return check(SLOTS[slot], parseJson(json), `pair_${slot}`) as PairingContent[S]
  } catch (cause) {
    throw new SealpostError('invalid_message', `the content of the ${slot} is not valid`, { cause })
  }
}

/** What the offer commits to: `SHA256(tuple("pair-commit", nonce))`. */
export function commitNonce(crypto: Crypto, nonce: Bytes): Awaitable<Bytes> {
  return crypto.sha256(tuple('pair-commit', nonce))
}

/** A's check: the join was made for exactly this offer. */
export async function joinFitsOffer(crypto: Crypto, offer_box: Bytes, join: PairingContent['join']): Promise<boolean> {
  return equalBytes(await crypto.sha256(offer_box), fromBase64url(join.offer_hash, 32))
}

/** N's check: the nonce is the one that was committed before A saw N's keys. */
export async function revealFitsOffer(crypto: Crypto, offer: PairingContent['offer'], reveal: PairingContent['reveal']): Promise<boolean> {
  return equalBytes(await commitNonce(crypto, fromBase64url(reveal.nonce, 32)), fromBase64url(offer.commit, 32))
}

/** The four emoji that both devices show; 24 bits. */
export async function checkPhrase(crypto: Crypto, offer_box: Bytes, join_box: Bytes, nonce: Bytes): Promise<CheckPhrase> {
  const h = await crypto.sha256(tuple('sas', await crypto.sha256(offer_box), await crypto.sha256(join_box), nonce))
  const indices = Array.from(h.subarray(0, PHRASE_EMOJI), (byte) => byte & 63)
  const shown = indices.map((index) => EMOJI[index] ?? { emoji: '', name: '' })
  return { indices, emoji: shown.map((row) => row.emoji), names: shown.map((row) => row.name) }
}

function keyOf(keys: PairingKeys, slot: PairingSlot): Bytes {
  return slot === 'join' ? keys.n2a : keys.a2n
}

async function openBox(crypto: Crypto, key: Bytes, slot: PairingSlot, box: Bytes): Promise<Bytes> {
  try {
    return await crypto.aesGcmOpen(key, box.subarray(0, IV_BYTES), tuple(`pair ${slot}`), box.subarray(IV_BYTES))
  } catch (cause) {
    throw new SealpostError('invalid_box', 'the sealed slot does not open with this code', { cause })
  }
}
