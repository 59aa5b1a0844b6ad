import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fromHex, toBase64url, toHex } from './bytes.ts'
import { SealpostError } from './errors.ts'
import { recordFromJson, recordToJson } from './event-json.ts'
import { decodeRecords, encodeRecord } from './record.ts'
import { fill, USER_ID } from '@sealpost/testing/clients/honest-events'
import { anyRecord } from '@sealpost/testing/forgeries/any-record'

const vectors = JSON.parse(readFileSync(new URL('../../../vectors/protocol.json', import.meta.url), 'utf8'))
const sent = fromHex(vectors.records[0].hex)

const codeOf = (run: () => unknown): string => {
  try {
    run()
    return 'ok'
  } catch (error) {
    if (error instanceof SealpostError) return error.code
    throw error
  }
}

describe('the JSON form', () => {
  it('is read back as the record that it was made of, byte for byte', () => {
    fc.assert(
      fc.property(anyRecord, (record) => {
        const json = JSON.parse(JSON.stringify(recordToJson(USER_ID, record)))
        expect(toHex(encodeRecord(recordFromJson(USER_ID, json)))).toBe(toHex(encodeRecord(record)))
      }),
      { numRuns: 500 },
    )
  })

  it('may leave out what only the server knows, and no part of it', () => {
    const [record] = decodeRecords(sent)
    const { position: _p, stream_seq: _s, received_at: _r, ...json } = recordToJson(USER_ID, record!)
    expect(toHex(encodeRecord(recordFromJson(USER_ID, json)))).toBe(toHex(sent))
    expect(codeOf(() => recordFromJson(USER_ID, { ...json, position: 1 }))).toBe('invalid_message')
    expect(codeOf(() => recordFromJson(USER_ID, { ...json, position: 1, stream_seq: null, received_at: 1 }))).toBe('invalid_message')
  })

  const [record] = decodeRecords(sent)
  const json = recordToJson(USER_ID, record!)
  it.each<[string, unknown]>([
    ['no object', null],
    ['a list', [json]],
    ['a text', 'event'],
    ['another user', { ...json, user_id: toBase64url(fill(9)) }],
    ['a member more', { ...json, admin: true }],
    ['an event_id in capitals', { ...json, event_id: json.event_id.toUpperCase() }],
    ['a number as text', { ...json, device_seq: '1' }],
    ['device_seq 0', { ...json, device_seq: 0 }],
    ['device_seq above 2^53', { ...json, device_seq: 2 ** 53 }],
    ['a fraction', { ...json, epoch: 0.5 }],
    ['an epoch of 33 bits', { ...json, epoch: 2 ** 32 }],
    ['minus zero', { ...json, epoch: -0 }],
    ['ttl 0', { ...json, ttl: 0 }],
    ['no ttl', { ...json, ttl: undefined }],
    ['a short signature', { ...json, sig: json.sig.slice(4) }],
    ['padded base64', { ...json, sig: `${json.sig}==` }],
    ['an empty stream', { ...json, stream_id: '' }],
    ['a stream of 65 characters', { ...json, stream_id: 's'.repeat(65) }],
    ['a type with a blank', { ...json, type: 'a b' }],
    ['a payload and its hash', { ...json, payload_hash: toBase64url(fill(1)) }],
    ['neither payload nor hash', { ...json, encrypted_payload: null }],
    ['a short prev_hash', { ...json, prev_hash: 'AAAA' }],
    ['an inherited member', Object.assign(Object.create({ ttl: null }), { ...json, ttl: undefined })],
  ])('refuses %s', (_, value) => {
    expect(['invalid_message', 'invalid_encoding']).toContain(codeOf(() => recordFromJson(USER_ID, value)))
  })

  it('R14: whatever value stands where, it is a record that can be encoded or a refusal, and nothing else', () => {
    const names = [...Object.keys(json), 'payload_hash', '__proto__', 'constructor']
    const anything = fc.oneof(fc.anything(), fc.constantFrom(null, -0, 1e21, '', 'AAAA', json.sig, json.event_id, {}, []), fc.string())
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(fc.constantFrom(...names), anything), { maxLength: 4, selector: ([name]) => name }),
        (changes) => {
          const changed: object = { ...json, ...Object.fromEntries(changes) }
          const code = codeOf(() => encodeRecord(recordFromJson(USER_ID, changed)))
          expect(['ok', 'invalid_message', 'invalid_encoding']).toContain(code)
          if (code !== 'ok') return
          const given = Object.fromEntries(Object.entries(changed).filter(([, value]) => value !== undefined))
          const numbers = { position: null, stream_seq: null, received_at: null }
          expect(recordToJson(USER_ID, recordFromJson(USER_ID, changed))).toEqual({ ...numbers, ...given })
        },
      ),
      { numRuns: 5_000 },
    )
  })
})
