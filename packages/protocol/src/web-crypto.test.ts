import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Awaitable, type Bytes, fromHex, toHex, utf8 } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { nodeCrypto } from './node.ts'
import { fill } from '@sealpost/testing/clients/honest-events'
import { webCrypto } from './web-crypto.ts'

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const some = fc.uint8Array({ maxLength: 100 })
const both = [nodeCrypto, webCrypto] as const

/** Both adapters give these bytes the same answer. */
async function agree<T extends unknown[]>(
  args: { [K in keyof T]: fc.Arbitrary<T[K]> },
  run: (crypto: Crypto, ...args: T) => Awaitable<Bytes | boolean>,
): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.tuple(...args) as fc.Arbitrary<T>, async (values) => {
      const node = await run(nodeCrypto, ...values)
      const web = await run(webCrypto, ...values)
      expect(web instanceof Uint8Array ? toHex(web) : web).toEqual(node instanceof Uint8Array ? toHex(node) : node)
    }),
    { numRuns: 25 },
  )
}

describe('the WebCrypto adapter agrees with node:crypto on', () => {
  it('sha256', () => agree([some], (c, data) => c.sha256(data)))
  it('hkdf of 32 bytes', () => agree([some, some, some], (c, ikm, salt, info) => c.hkdf(ikm, salt, info)))
  it('hkdf of any length', () =>
    agree([bytes(32), some, fc.integer({ min: 1, max: 200 })], (c, ikm, info, length) => c.hkdf(ikm, fill(0, 0), info, length)))
  it('pbkdf2', () =>
    agree([some, some, fc.integer({ min: 1, max: 50 })], (c, password, salt, iterations) => c.pbkdf2(password, salt, iterations)))
  it('ed25519Public', () => agree([bytes(32)], (c, seed) => c.ed25519Public(seed)))
  it('ed25519Sign', () => agree([bytes(32), some], (c, seed, message) => c.ed25519Sign(seed, message)))
  it('x25519Public', () => agree([bytes(32)], (c, seed) => c.x25519Public(seed)))
  it('x25519', () => agree([bytes(32), bytes(32)], (c, a, b) => c.x25519(a, nodeCrypto.x25519Public(b))))
  it('aesGcmSeal', () => agree([bytes(32), bytes(12), some, some], (c, key, iv, aad, plaintext) => c.aesGcmSeal(key, iv, aad, plaintext)))
  it('aesGcmOpen', () =>
    agree([bytes(32), bytes(12), some, some], (c, key, iv, aad, plaintext) =>
      c.aesGcmOpen(key, iv, aad, nodeCrypto.aesGcmSeal(key, iv, aad, plaintext)),
    ))

  it('aesGcmKey, used many times', async () => {
    const [node, web] = both.map((crypto) => crypto.aesGcmKey(fill(1)))
    for (let i = 0; i < 5; i++) {
      const sealed = await web!.seal(fill(i, 12), utf8('aad'), fill(i, 40 * i))
      expect(toHex(sealed)).toBe(toHex(await node!.seal(fill(i, 12), utf8('aad'), fill(i, 40 * i))))
      expect(toHex(await web!.open(fill(i, 12), utf8('aad'), sealed))).toBe(toHex(fill(i, 40 * i)))
    }
  })

  it('ed25519Verify, of right and of altered signatures, messages and keys', () =>
    agree([bytes(32), some, fc.nat(2), fc.nat(), fc.nat(7)], async (c, seed, message, what, at, bit) => {
      const parts = [nodeCrypto.ed25519Public(seed), utf8(toHex(message)), nodeCrypto.ed25519Sign(seed, utf8(toHex(message)))] as [
        Bytes,
        Bytes,
        Bytes,
      ]
      expect(await c.ed25519Verify(...parts)).toBe(true)
      const part = parts[what]!.slice()
      if (part.length === 0) return false
      part[at % part.length]! ^= 1 << bit
      parts[what] = part
      const holds = await c.ed25519Verify(...parts)
      expect(holds).toBe(false)
      return holds
    }))
})

describe.each([
  ['node:crypto', nodeCrypto],
  ['WebCrypto', webCrypto],
] as const)('%s', (_, crypto: Crypto) => {
  it('answers false for a malformed key or signature', async () => {
    const sig = nodeCrypto.ed25519Sign(fill(1), fill(2))
    for (const key of [fill(0, 0), fill(1, 31), fill(1, 33), fill(0xff)]) expect(await crypto.ed25519Verify(key, fill(2), sig)).toBe(false)
    for (const wrong of [fill(0, 0), sig.subarray(1), fill(0, 64), fill(0xff, 64)])
      expect(await crypto.ed25519Verify(nodeCrypto.ed25519Public(fill(1)), fill(2), wrong)).toBe(false)
  })

  it('refuses a public key of low order and one of another length (invalid_message)', async () => {
    const low = [
      '00'.repeat(32),
      `01${'00'.repeat(31)}`,
      'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
      `ecff${'ff'.repeat(29)}7f`,
    ]
    for (const key of [...low.map(fromHex), fill(9, 31)])
      await expect((async () => crypto.x25519(fill(7), key))(), toHex(key)).rejects.toMatchObject({ code: 'invalid_message' })
  })

  it('refuses seeds of another length', async () => {
    for (const run of [crypto.ed25519Public, crypto.x25519Public, (seed: Bytes) => crypto.ed25519Sign(seed, fill(1))])
      await expect((async () => run(fill(1, 31)))()).rejects.toMatchObject({ code: 'invalid_encoding' })
    await expect((async () => crypto.x25519(fill(1, 31), fill(9)))()).rejects.toMatchObject({ code: 'invalid_message' })
  })

  it('opens nothing under another key, iv, aad, or with a bit changed or cut (decrypt_failed)', async () => {
    const sealed = nodeCrypto.aesGcmSeal(fill(1), fill(2, 12), fill(3), fill(4))
    const flipped = sealed.map((byte, i) => (i === 3 ? byte ^ 1 : byte))
    const wrong: [Bytes, Bytes, Bytes, Bytes][] = [
      [fill(9), fill(2, 12), fill(3), sealed],
      [fill(1), fill(9, 12), fill(3), sealed],
      [fill(1), fill(2, 12), fill(9), sealed],
      [fill(1), fill(2, 12), fill(3), flipped],
      [fill(1), fill(2, 12), fill(3), sealed.subarray(1)],
      [fill(1), fill(2, 12), fill(3), sealed.subarray(0, 15)],
    ]
    for (const args of wrong) await expect((async () => crypto.aesGcmOpen(...args))()).rejects.toMatchObject({ code: 'decrypt_failed' })
  })

  it('gives as many random bytes as asked, also above 65,536, never the same', () => {
    for (const length of [0, 1, 65_536, 65_537, 200_000]) expect(crypto.random(length)).toHaveLength(length)
    expect(toHex(crypto.random(32))).not.toBe(toHex(crypto.random(32)))
    expect(
      crypto
        .random(200_000)
        .subarray(-1000)
        .some((byte) => byte !== 0),
    ).toBe(true)
  })
})
