import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bytes, fromBase64url, fromHex, toBase64url, toHex, utf8 } from './bytes.ts'
import { EMOJI } from './emoji.ts'
import { SealpostError } from './errors.ts'
import { nodeCrypto } from './node.ts'
import {
  checkPhrase,
  commitNonce,
  createPairingCode,
  derivePairingKeys,
  joinFitsOffer,
  normalizePairingCode,
  openSlot,
  PAIRING_SLOTS,
  type PairingContent,
  type PairingKeys,
  type PairingSlot,
  revealFitsOffer,
  sealSlot,
} from './pairing.ts'
import { scriptedCrypto } from '@sealpost/testing/forgeries/scripted-crypto'

const read = (name: string) => JSON.parse(readFileSync(new URL(`../../../vectors/${name}.json`, import.meta.url), 'utf8'))
const protocol = read('protocol')
const vectors = read('handshake')
const slots = vectors.pairing.slots as Record<PairingSlot, { json: string; iv: string; box: string }>
const keys: PairingKeys = {
  mailbox_id: vectors.pairing.mailbox_id,
  a2n: fromHex(vectors.pairing.key_a2n),
  n2a: fromHex(vectors.pairing.key_n2a),
}
const content = <S extends PairingSlot>(slot: S): PairingContent[S] => JSON.parse(slots[slot].json)
const box = (slot: PairingSlot): Bytes => fromHex(slots[slot].box)
const codeOf = (of: Promise<unknown>) =>
  of.then(() => 'ok').catch((error: unknown) => (error instanceof SealpostError ? error.code : error))

describe('vectors', () => {
  it('derives the mailbox and the two keys from the code', async () => {
    const { pairing } = protocol
    const derived = await derivePairingKeys(nodeCrypto, pairing.code)
    expect({ ...derived, a2n: toHex(derived.a2n), n2a: toHex(derived.n2a) }).toEqual({
      mailbox_id: pairing.mailbox_id,
      a2n: pairing.key_a2n,
      n2a: pairing.key_n2a,
    })
    const other = await derivePairingKeys(nodeCrypto, vectors.pairing.code.toLowerCase().replaceAll('-', ' '))
    expect({ ...other, a2n: toHex(other.a2n), n2a: toHex(other.n2a) }).toEqual({
      mailbox_id: keys.mailbox_id,
      a2n: toHex(keys.a2n),
      n2a: toHex(keys.n2a),
    })
  })

  it.each(PAIRING_SLOTS)('seals and opens the recorded %s', async (slot) => {
    expect(await openSlot(nodeCrypto, keys, slot, box(slot))).toEqual(content(slot))
    expect(toHex(await sealSlot(scriptedCrypto(fromHex(slots[slot].iv)), keys, slot, content(slot)))).toBe(slots[slot].box)
  })

  it('shows the recorded check phrases', async () => {
    const nonce = fromHex(vectors.pairing.nonce)
    expect(await checkPhrase(nodeCrypto, box('offer'), box('join'), nonce)).toEqual({
      indices: vectors.pairing.indices,
      emoji: vectors.pairing.emoji,
      names: vectors.pairing.names,
    })
    expect((await checkPhrase(nodeCrypto, utf8('offer'), utf8('join'), nonce)).indices).toEqual(protocol.sas.indices)
  })

  it('the emoji are those of vectors/emoji.json, all different', () => {
    expect(EMOJI).toEqual(read('emoji'))
    expect(EMOJI).toHaveLength(64)
    expect(new Set(EMOJI.map((row) => row.emoji)).size).toBe(64)
    expect(new Set(EMOJI.map((row) => row.name)).size).toBe(64)
  })

  it.each(vectors.invalid.pairing as { name: string; slot: PairingSlot; box: string; code: string }[])(
    'a slot is refused: $name',
    async ({ slot, box, code }) => {
      expect(await codeOf(openSlot(nodeCrypto, keys, slot, fromHex(box)))).toBe(code)
    },
  )
})

describe('the code', () => {
  it('has 80 random bits in 16 symbols that cannot be mistaken for one another', () => {
    const seen = new Set<string>()
    for (let i = 0; i < 200; i++) {
      const code = createPairingCode(nodeCrypto)
      expect(code).toMatch(/^([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}$/)
      for (const symbol of code.replaceAll('-', '')) seen.add(symbol)
    }
    expect(seen.size).toBe(32)
  })

  it('forgives case, dashes, blanks, O for 0 and I or L for 1', () => {
    expect(normalizePairingCode(' k7qm 3xwp-9rtb--d2fh\n')).toBe('K7QM3XWP9RTBD2FH')
    expect(normalizePairingCode('oOiI lL00 1100 0000')).toBe('0011110011000000')
  })

  it.each([
    '',
    'K7QM',
    'K7QM-3XWP-9RTB-D2F',
    'K7QM-3XWP-9RTB-D2FHH',
    'U7QM-3XWP-9RTB-D2FH',
    'K7QM_3XWP_9RTB_D2FH',
    'Ķ7QM-3XWP-9RTB-D2FH',
    '-'.repeat(10_000),
  ])('refuses %s', (text) => {
    expect(() => normalizePairingCode(text)).toThrow(expect.objectContaining({ code: 'invalid_code' }))
  })

  it('every code that is shown is read back, however it is typed (1,000 runs)', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.boolean(), fc.constantFrom('', ' ', '-'), (bytes, lower, between) => {
        const shown = createPairingCode(scriptedCrypto(bytes))
        const typed = shown.split('-').join(between)
        expect(normalizePairingCode(lower ? typed.toLowerCase() : typed)).toBe(shown.replaceAll('-', ''))
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('every step (B02)', () => {
  it('a wrong code opens nothing and leads to another mailbox', async () => {
    const wrong = await derivePairingKeys(nodeCrypto, 'K7QM-3XWP-9RTB-D2FJ')
    expect(wrong.mailbox_id).not.toBe(keys.mailbox_id)
    for (const slot of PAIRING_SLOTS) expect(await codeOf(openSlot(nodeCrypto, wrong, slot, box(slot)))).toBe('invalid_box')
  })

  it('a box opens in its own slot only: not reflected, not under the label of another', async () => {
    for (const from of PAIRING_SLOTS)
      for (const to of PAIRING_SLOTS)
        expect(await codeOf(openSlot(nodeCrypto, keys, to, box(from)))).toBe(from === to ? 'ok' : 'invalid_box')
  })

  it('every flipped bit of a slot is noticed', async () => {
    const sealed = box('done')
    for (let bit = 0; bit < sealed.length * 8; bit += 3) {
      const edited = Uint8Array.from(sealed)
      edited[bit >> 3] = edited[bit >> 3]! ^ (1 << (bit & 7))
      expect(await codeOf(openSlot(nodeCrypto, keys, 'done', edited))).toBe('invalid_box')
    }
  })

  it('a join made for another offer is not taken', async () => {
    const join = content('join')
    expect(await joinFitsOffer(nodeCrypto, box('offer'), join)).toBe(true)
    const other = await sealSlot(nodeCrypto, keys, 'offer', content('offer'))
    expect(await joinFitsOffer(nodeCrypto, other, join)).toBe(false)
    expect(await joinFitsOffer(nodeCrypto, box('offer'), { ...join, offer_hash: toBase64url(new Uint8Array(32)) })).toBe(false)
  })

  it('a nonce that was not committed to is not taken', async () => {
    const offer = content('offer')
    expect(toBase64url(await commitNonce(nodeCrypto, fromHex(vectors.pairing.nonce)))).toBe(offer.commit)
    expect(await revealFitsOffer(nodeCrypto, offer, content('reveal'))).toBe(true)
    expect(await revealFitsOffer(nodeCrypto, offer, { nonce: toBase64url(new Uint8Array(32).fill(0x0c)) })).toBe(false)
    expect(await revealFitsOffer(nodeCrypto, { ...offer, commit: content('reveal').nonce }, content('reveal'))).toBe(false)
  })

  it('a swapped join, offer or nonce changes the phrase', async () => {
    const nonce = fromBase64url(content('reveal').nonce, 32)
    const join = content('join')
    const swapped = await sealSlot(nodeCrypto, keys, 'join', { ...join, device: { ...join.device, name: 'other' } })
    const right = (await checkPhrase(nodeCrypto, box('offer'), box('join'), nonce)).indices
    expect((await checkPhrase(nodeCrypto, box('offer'), swapped, nonce)).indices).not.toEqual(right)
    expect((await checkPhrase(nodeCrypto, box('join'), box('offer'), nonce)).indices).not.toEqual(right)
    expect((await checkPhrase(nodeCrypto, box('offer'), box('join'), new Uint8Array(32))).indices).not.toEqual(right)
  })

  it('the same content sealed twice gives different boxes, and 4 KiB are the limit', async () => {
    const [one, two] = await Promise.all([
      sealSlot(nodeCrypto, keys, 'reveal', content('reveal')),
      sealSlot(nodeCrypto, keys, 'reveal', content('reveal')),
    ])
    expect(toHex(one)).not.toBe(toHex(two))
    const join = content('join')
    expect(await codeOf(sealSlot(nodeCrypto, keys, 'join', { ...join, device: { ...join.device, name: 'x'.repeat(4_096) } }))).toBe(
      'too_large',
    )
  })
})

describe('bad input', () => {
  it('no bytes make the slot opener throw untyped (8,000 runs)', async () => {
    const sealed = box('offer')
    const mutated = fc
      .tuple(fc.nat(sealed.length - 1), fc.nat(255))
      .map(([at, put]) => Uint8Array.from(sealed, (byte, i) => (i === at ? put : byte)))
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 120 }), mutated), fc.constantFrom(...PAIRING_SLOTS), async (bytes, slot) => {
        expect(['ok', 'invalid_box', 'invalid_message']).toContain(await codeOf(openSlot(nodeCrypto, keys, slot, bytes)))
      }),
      { numRuns: 8_000 },
    )
  })

  it('no content, well sealed, makes the slot opener throw untyped (2,000 runs)', async () => {
    const tupleLabel = { offer: keys.a2n, join: keys.n2a, reveal: keys.a2n, done: keys.a2n }
    const { tuple } = await import('./tuple.ts')
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.json(), fc.string()), fc.constantFrom(...PAIRING_SLOTS), async (json, slot) => {
        const iv = new Uint8Array(12)
        const sealed = Uint8Array.of(...iv, ...nodeCrypto.aesGcmSeal(tupleLabel[slot], iv, tuple(`pair ${slot}`), utf8(json)))
        expect(['invalid_message', 'invalid_box']).toContain(await codeOf(openSlot(nodeCrypto, keys, slot, sealed)))
      }),
      { numRuns: 2_000 },
    )
  })
})
