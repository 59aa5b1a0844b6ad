import { randomUUID } from 'node:crypto'
import { toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createContinuations } from './continuation.ts'

const HOUR = 3_600_000
const tokens = createContinuations(nodeCrypto.random(32), HOUR)
const owner = { user_id: toBase64url(nodeCrypto.random(32)), device_id: randomUUID(), history_id: toBase64url(nodeCrypto.random(32)) }
const filter = { query: true, streams: ['a', 'b'] }
const token = tokens.create(owner, filter, 77, 1_000)

it('says the position to its owner, for an hour, whatever the order of the streams', () => {
  expect(tokens.read(token, owner, filter, 1_000)).toBe(77)
  expect(tokens.read(token, owner, { query: true, streams: ['b', 'a'] }, 1_000 + HOUR)).toBe(77)
  expect(tokens.read(token, owner, filter, 1_001 + HOUR)).toBe(null)
})

it('G02: is nothing to another user, device, history, filter or key', () => {
  const others = [
    { ...owner, user_id: toBase64url(nodeCrypto.random(32)) },
    { ...owner, device_id: randomUUID() },
    { ...owner, history_id: 'h' },
  ]
  for (const other of others) expect(tokens.read(token, other, filter, 1_000)).toBe(null)
  for (const other of [
    { query: false, streams: ['a', 'b'] },
    { query: true, streams: ['a'] },
    { query: true, streams: null },
    { query: true, streams: [] },
  ])
    expect(tokens.read(token, owner, other, 1_000)).toBe(null)
  expect(createContinuations(nodeCrypto.random(32), HOUR).read(token, owner, filter, 1_000)).toBe(null)
})

it('G02: no change of a token, and no other text, is accepted', () => {
  const bytes = Buffer.from(token, 'base64url')
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ flip
      return tokens.read(changed.toString('base64url'), owner, filter, 1_000) === null
    }),
    { numRuns: 3_000 },
  )
  fc.assert(fc.property(fc.string({ maxLength: 90 }), (text) => tokens.read(text, owner, filter, 1_000) === null))
  for (let cut = 0; cut < token.length; cut++) expect(tokens.read(token.slice(0, cut), owner, filter, 1_000)).toBe(null)
})
