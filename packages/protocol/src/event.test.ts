import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fromBase64url, fromHex, toHex, utf8, uuidToBytes } from './bytes.ts'
import { eventHeader, eventKey, padData, padded, sealEvent, unpadData } from './event.ts'
import { nodeCrypto } from './node.ts'
import { decodeRecords, encodeRecord } from './record.ts'
import { fill, USER_ID } from '@sealpost/testing/clients/honest-events'
import { scriptedCrypto } from '@sealpost/testing/forgeries/scripted-crypto'
import { tuple } from './tuple.ts'
import { webCrypto } from './web-crypto.ts'

const vectors = JSON.parse(readFileSync(new URL('../../../vectors/protocol.json', import.meta.url), 'utf8'))
const vector = vectors.event
const input = { ...vector.json, sign_seed: fill(2), event_key: fromHex(vector.event_key), data: utf8('hello') }

describe('sealing an event', () => {
  it('derives the key of a device and epoch as the vectors say', async () => {
    for (const crypto of [nodeCrypto, webCrypto])
      expect(toHex(await eventKey(crypto, fill(4), fill(5), vector.json.device_id))).toBe(vector.event_key)
  })

  it('writes the header as the tuple of its fields', () => {
    expect(toHex(eventHeader(vector.json.user_id, vector.json))).toBe(vector.header)
    const fields = fc.record({
      event_id: fc.uuid(),
      device_id: fc.uuid(),
      device_seq: fc.maxSafeNat(),
      stream_id: fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/),
      type: fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/),
      ttl: fc.option(fc.integer({ min: 1, max: 0xffff_ffff })),
      epoch: fc.integer({ min: 0, max: 0xffff_ffff }),
      prev_hash: fc.option(fc.uint8Array({ minLength: 32, maxLength: 32 })),
    })
    fc.assert(
      fc.property(fields, (e) => {
        const ids = [uuidToBytes(e.device_id), uuidToBytes(e.event_id)] as const
        const expected = tuple('event', fromBase64url(USER_ID), ...ids, e.device_seq, e.stream_id, e.type, e.ttl, e.epoch, e.prev_hash)
        expect(toHex(eventHeader(USER_ID, e))).toBe(toHex(expected))
      }),
      { numRuns: 300 },
    )
  })

  it('refuses header fields that have no encoding', () => {
    const wrong = [
      { event_id: 'x' },
      { device_id: `${'0'.repeat(8)}x0000-4000-8000-000000000000` },
      { stream_id: 'é' },
      { device_seq: -1 },
      { epoch: 0.5 },
    ]
    for (const field of wrong)
      expect(() => eventHeader(USER_ID, { ...vector.json, ...field }), JSON.stringify(field)).toThrow(
        expect.objectContaining({ code: 'invalid_encoding' }),
      )
    for (const uuid of ['0000000G', '0000000é', '0000000A'].map((first) => `${first}-0000-4000-8000-000000000000`))
      expect(() => eventHeader(USER_ID, { ...vector.json, device_id: uuid })).toThrow(expect.objectContaining({ code: 'invalid_encoding' }))
  })

  it('makes the payload, hash, signature and record of the vectors', async () => {
    const sealed = await sealEvent(scriptedCrypto(fill(6, 12)), input)
    expect(toHex(sealed.event_hash)).toBe(vector.event_hash)
    expect(toHex(sealed.record)).toBe(vectors.records[0].hex)
    const [record] = decodeRecords(sealed.record)
    expect([toHex(record!.payload!), toHex(record!.sig)]).toEqual([vector.encrypted_payload, vector.sig])
    expect(toHex(encodeRecord(record!))).toBe(vectors.records[0].hex)
  })

  it('makes the same with WebCrypto', async () => {
    const sealed = await sealEvent({ ...webCrypto, random: (length) => fill(6, length) }, input)
    expect(toHex(sealed.record)).toBe(vectors.records[0].hex)
  })

  it('takes a fresh iv each time', async () => {
    const [one, two] = await Promise.all([sealEvent(nodeCrypto, input), sealEvent(nodeCrypto, input)])
    expect(toHex(one.event_hash)).not.toBe(toHex(two.event_hash))
  })

  it('takes 262,140 bytes of data and refuses one more', async () => {
    const { record } = await sealEvent(nodeCrypto, { ...input, data: new Uint8Array(262_140) })
    expect(decodeRecords(record)[0]!.payload).toHaveLength(12 + 262_144 + 16)
    const refused = sealEvent(nodeCrypto, { ...input, data: new Uint8Array(262_141) })
    await expect(refused).rejects.toMatchObject({ code: 'payload_too_large', message: expect.stringContaining('262140') })
  })

  it('refuses a prev_hash of another length and a ttl below one second', async () => {
    await expect(sealEvent(nodeCrypto, { ...input, prev_hash: fill(1, 31) })).rejects.toMatchObject({ code: 'invalid_encoding' })
    await expect(sealEvent(nodeCrypto, { ...input, ttl: 0 })).rejects.toMatchObject({ code: 'invalid_encoding' })
  })
})

describe('padding', () => {
  it('is Padmé of length prefix and data, at least 32 bytes', () => {
    for (const [plain, expected] of vectors.padme) if (plain >= 4) expect(padded(plain - 4), `${plain}`).toBe(expected)
    expect(padded(0)).toBe(32)
  })

  it('never costs more than 12 % above 32 bytes and never shrinks as data grows', () => {
    for (let length = 28, last = 32; length < 70_000; length += 7) {
      const now = padded(length)
      expect(now).toBeGreaterThanOrEqual(Math.max(last, 4 + length))
      expect(now).toBeLessThanOrEqual((4 + length) * 1.12 + 4)
      last = now
    }
  })

  it('opens to the same data, and to nothing when one byte of it is off', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (data, at, value) => {
        const plain = padData(data)
        expect(toHex(unpadData(plain)!)).toBe(toHex(data))
        expect(unpadData(plain.subarray(0, -1))).toBeNull()
        expect(unpadData(new Uint8Array([...plain, 0]))).toBeNull()
        const padding = plain.length - 4 - data.length
        if (padding === 0) return
        plain[4 + data.length + (at % padding)] = value
        expect(unpadData(plain)).toBeNull()
      }),
      { numRuns: 500 },
    )
    for (const length of [0, 3, 31]) expect(unpadData(new Uint8Array(length))).toBeNull()
    expect(unpadData(padData(new Uint8Array(262_140)))).toHaveLength(262_140)
    expect(unpadData(padData(new Uint8Array(262_141)))).toBeNull()
    expect(unpadData(fill(0xff, 32))).toBeNull()
  })
})
