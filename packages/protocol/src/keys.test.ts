import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isUuid, toHex } from './bytes.ts'
import { SealpostError } from './errors.ts'
import { createDeviceKeys, deriveRootKeys, introduceDevice, recoverySeedToWords, verifyIntroduction, wordsToRecoverySeed } from './keys.ts'
import { nodeCrypto } from './node.ts'
import { SHAPES } from './messages.ts'
import { check } from './schema.ts'

const codeOf = (of: Promise<unknown>) =>
  of.then(() => 'ok').catch((error: unknown) => (error instanceof SealpostError ? error.code : error))
const ABANDON = `${'abandon '.repeat(23)}art`

describe('recovery words', () => {
  it('are the BIP39 words of the entropy (the vectors of BIP39)', async () => {
    expect(await recoverySeedToWords(new Uint8Array(32))).toBe(ABANDON)
    expect(await recoverySeedToWords(new Uint8Array(32).fill(0xff))).toBe(`${'zoo '.repeat(23)}vote`)
  })

  it('give the seed back, for every seed', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 32, maxLength: 32 }), async (seed) => {
        expect(toHex(await wordsToRecoverySeed(await recoverySeedToWords(seed)))).toBe(toHex(seed))
      }),
      { numRuns: 50 },
    )
  })

  it('may be typed in any case and spacing', async () => {
    const typed = `  ${ABANDON.toUpperCase().replaceAll(' ', '\n\t ')}\r\n`
    expect(await wordsToRecoverySeed(typed)).toEqual(new Uint8Array(32))
  })

  it('with a wrong checksum, a strange word or another number of words are refused', async () => {
    expect(await codeOf(wordsToRecoverySeed(`${'abandon '.repeat(23)}abandon`))).toBe('invalid_words')
    await expect(wordsToRecoverySeed(ABANDON.replace('art', 'sealpost'))).rejects.toThrow('word 24 of the recovery phrase')
    expect(await codeOf(wordsToRecoverySeed(`${'abandon '.repeat(11)}about`))).toBe('invalid_words')
    expect(await codeOf(wordsToRecoverySeed(''))).toBe('invalid_words')
    expect(await codeOf(recoverySeedToWords(new Uint8Array(16)))).toBe('invalid_encoding')
    expect(await codeOf(deriveRootKeys(nodeCrypto, new Uint8Array(31)))).toBe('invalid_encoding')
  })
})

describe('a device', () => {
  it('has a UUID of version 4 and keys that nothing else has', async () => {
    const [a, b] = [await createDeviceKeys(nodeCrypto), await createDeviceKeys(nodeCrypto)]
    expect(isUuid(a.device_id)).toBe(true)
    expect(a.device_id).toMatch(/^.{14}4.{4}[89ab]/)
    for (const part of ['device_id', 'sign_seed', 'sign_pub', 'kem_seed', 'kem_pub'] as const) expect(a[part]).not.toEqual(b[part])
  })

  it('introduces itself to one account: any other part, and the introduction is refused (B02)', async () => {
    const { user_id } = await deriveRootKeys(nodeCrypto, new Uint8Array(32))
    const other = await deriveRootKeys(nodeCrypto, new Uint8Array(32).fill(1))
    const keys = await createDeviceKeys(nodeCrypto)
    const swapped = await introduceDevice(nodeCrypto, user_id, await createDeviceKeys(nodeCrypto), 'x', 'web')
    const device = await introduceDevice(nodeCrypto, user_id, keys, ' my\tphone\u202E ', 'mobile')
    expect(device.name).toBe('my phone')
    expect(check(SHAPES.device, device)).toEqual(device)
    expect(await verifyIntroduction(nodeCrypto, user_id, device)).toBe(true)

    expect(await verifyIntroduction(nodeCrypto, other.user_id, device)).toBe(false)
    for (const part of ['device_id', 'sign_pub', 'kem_pub', 'self_sig'] as const) {
      expect(await verifyIntroduction(nodeCrypto, user_id, { ...device, [part]: swapped[part] }), part).toBe(false)
      expect(await verifyIntroduction(nodeCrypto, user_id, { ...device, [part]: '!' }), part).toBe(false)
    }
    expect(await verifyIntroduction(nodeCrypto, user_id, { ...device, name: 'a\u202Eb' })).toBe(false)
  })
})
