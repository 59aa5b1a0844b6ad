import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { deviceListFingerprint, serverKeyFingerprint } from './fingerprint.ts'
import { nodeCrypto } from './node.ts'
import { webCrypto } from './web-crypto.ts'

const key = new Uint8Array(32).map((_byte, i) => i)

test('the fingerprint of a server key is the first 64 bits of its SHA-256, in four groups', async () => {
  const digits = createHash('sha256').update(key).digest('hex').slice(0, 16)
  const shown = await serverKeyFingerprint(nodeCrypto, key)
  expect(shown.replaceAll(' ', '')).toBe(digits)
  expect(shown).toMatch(/^([0-9a-f]{4} ){3}[0-9a-f]{4}$/)
  expect(await serverKeyFingerprint(webCrypto, key)).toBe(shown)
})

test('the fingerprint of a device list is the first 80 bits of its head', () => {
  expect(deviceListFingerprint(key)).toBe('0001 0203 0405 0607 0809')
})
