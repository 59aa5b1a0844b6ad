import { Aes256Gcm, CipherSuite, HkdfSha256 } from '@hpke/core'
import { XWing } from '@hpke/hybridkem-x-wing'
import { describe, expect, it } from 'vitest'
import { fromHex, toHex, utf8 } from './bytes.ts'
import { SealpostError } from './errors.ts'
import { hpkeOpen, hpkeSeal, KEM_PUB_BYTES, kemPublic } from './kem.ts'

const seed = fromHex('7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26')
const plaintext = new Uint8Array(32).fill(7)
const info = utf8('info')
const codeOf = (of: Promise<unknown>) =>
  of.then(() => 'ok').catch((error: unknown) => (error instanceof SealpostError ? error.code : error))

// a second implementation of the same suite
const kem = new XWing()
const other = new CipherSuite({ kem, kdf: new HkdfSha256(), aead: new Aes256Gcm() })
const bufferOf = (bytes: Uint8Array) => Uint8Array.from(bytes).buffer

describe('HPKE with X-Wing', () => {
  it('the public key of the first vector of draft-connolly-cfrg-xwing-kem', async () => {
    const key = await kemPublic(seed)
    expect(key).toHaveLength(KEM_PUB_BYTES)
    expect(toHex(key).slice(0, 64)).toBe('e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5')
  })

  it('the second implementation derives the same public key', async () => {
    const pair = await kem.generateKeyPairDerand(Uint8Array.from(seed))
    expect(new Uint8Array(await kem.serializePublicKey(pair.publicKey))).toEqual(new Uint8Array(await kemPublic(seed)))
  })

  it('opens what the second implementation sealed', async () => {
    const recipientPublicKey = await kem.deserializePublicKey(bufferOf(await kemPublic(seed)))
    const sender = await other.createSenderContext({ recipientPublicKey, info: bufferOf(info) })
    const sealed = await sender.seal(bufferOf(plaintext))
    expect(await hpkeOpen(seed, info, new Uint8Array([...new Uint8Array(sender.enc), ...new Uint8Array(sealed)]))).toEqual(plaintext)
  })

  it('the second implementation opens what it sealed', async () => {
    const box = await hpkeSeal(await kemPublic(seed), info, plaintext)
    expect(box).toHaveLength(1168)
    const recipientKey = await kem.deserializePrivateKey(bufferOf(seed))
    const recipient = await other.createRecipientContext({ recipientKey, enc: bufferOf(box.subarray(0, 1120)), info: bufferOf(info) })
    expect(new Uint8Array(await recipient.open(bufferOf(box.subarray(1120))))).toEqual(plaintext)
  })

  it('seals anew every time', async () => {
    const key = await kemPublic(seed)
    expect(toHex(await hpkeSeal(key, info, plaintext))).not.toBe(toHex(await hpkeSeal(key, info, plaintext)))
  })

  it('a box opens only whole, with its key and its info', async () => {
    const box = await hpkeSeal(await kemPublic(seed), info, plaintext)
    for (const at of [0, 1087, 1088, 1119, 1120, 1167])
      expect(
        await codeOf(
          hpkeOpen(
            seed,
            info,
            box.map((byte, i) => (i === at ? byte ^ 1 : byte)),
          ),
        ),
        `byte ${at}`,
      ).toBe('invalid_box')
    expect(
      await codeOf(
        hpkeOpen(
          seed.map((byte) => byte ^ 1),
          info,
          box,
        ),
      ),
    ).toBe('invalid_box')
    expect(await codeOf(hpkeOpen(seed, utf8('other'), box))).toBe('invalid_box')
    expect(await codeOf(hpkeOpen(seed, info, box.subarray(0, 1167)))).toBe('invalid_box')
    expect(await codeOf(hpkeOpen(seed, info, box.subarray(0, 1100)))).toBe('invalid_box')
    expect(await codeOf(hpkeOpen(seed.subarray(1), info, box))).toBe('invalid_box')
  })

  it('a public key that cannot be sealed to, and a seed of another length, are named', async () => {
    expect(await codeOf(hpkeSeal(new Uint8Array(KEM_PUB_BYTES).fill(0xff), info, plaintext))).toBe('invalid_encoding')
    expect(await codeOf(hpkeSeal(new Uint8Array(KEM_PUB_BYTES - 1), info, plaintext))).toBe('invalid_encoding')
    const lowOrder = Uint8Array.from(await kemPublic(seed)).fill(0, 1184)
    expect(await codeOf(hpkeSeal(lowOrder, info, plaintext))).toBe('invalid_encoding')
    expect(await codeOf(kemPublic(seed.subarray(1)))).toBe('invalid_encoding')
  })
})
