import { createHash } from 'node:crypto'
import { toBase64url } from '@sealpost/protocol'
import { fingerprintOf as fingerprintOfRelay } from '@sealpost/server'
import { expect, test } from 'vitest'
import { fingerprintOf } from './fingerprint.ts'

test('the fingerprint is the one that the relay prints', () => {
  const key = new Uint8Array(createHash('sha256').update('a key').digest())
  expect(fingerprintOf(key)).toMatch(/^([0-9a-f]{4} ){3}[0-9a-f]{4}$/)
  expect(fingerprintOf(toBase64url(key))).toBe(fingerprintOf(key))
  expect(fingerprintOf(key)).toBe(fingerprintOfRelay(key))
})
