import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bytes, concat, fromHex, toBase64url, toHex } from './bytes.ts'
import { SealpostError } from './errors.ts'
import { recordToJson } from './event-json.ts'
import { nodeCrypto } from './node.ts'
import {
  clientPartIds,
  decodeRecords,
  type EventRecord,
  encodeRecord,
  eventTimeMs,
  expiresAtMs,
  FLAG,
  recordBytes,
  scanRecords,
  toTombstone,
  writeRecord,
} from './record.ts'
import { entomb, fill, USER_ID } from '@sealpost/testing/clients/honest-events'
import { anyRecord } from '@sealpost/testing/forgeries/any-record'
import { webCrypto } from './web-crypto.ts'

const vectors = JSON.parse(readFileSync(new URL('../../../vectors/protocol.json', import.meta.url), 'utf8'))
const events = JSON.parse(readFileSync(new URL('../../../vectors/events.json', import.meta.url), 'utf8'))
const [sent, delivered, tombstone] = vectors.records.map((record: { hex: string }) => fromHex(record.hex)) as [Bytes, Bytes, Bytes]
const server = { position: 42, stream_seq: 7, received_at: 1_764_000_000_123 }

const codeOf = (run: () => unknown): string => {
  try {
    run()
    return 'ok'
  } catch (error) {
    if (error instanceof SealpostError) return error.code
    throw error
  }
}

describe('event records', () => {
  it('decode and encode as the vectors say', () => {
    for (const { name, hex, server: part } of vectors.records) {
      const [record] = decodeRecords(fromHex(hex))
      expect(record!.server, name).toEqual(part ?? null)
      expect(toHex(encodeRecord(record!)), name).toBe(hex)
    }
  })

  it('refuse what the vectors call invalid, in both readers', () => {
    const invalid = vectors.invalid.filter((one: { what: string }) => one.what === 'record')
    expect(invalid).toHaveLength(4)
    for (const { name, hex, code = 'invalid_message' } of [...invalid, ...events.encodings])
      for (const read of [decodeRecords, scanRecords])
        expect(
          codeOf(() => read(fromHex(hex))),
          name,
        ).toBe(code)
  })

  it('come back the same after any round trip, alone and in a body', () => {
    fc.assert(
      fc.property(fc.array(anyRecord, { maxLength: 4 }), (records) => {
        const body = concat(...records.map(encodeRecord))
        const back = decodeRecords(body)
        expect(back).toEqual(records)
        expect(toHex(concat(...back.map(encodeRecord)))).toBe(toHex(body))
      }),
      { numRuns: 500 },
    )
  })

  it('are at most as many as the reader asked for', () => {
    const body = concat(sent, sent, sent)
    expect([decodeRecords(body, 3).length, scanRecords(body, 3).length]).toEqual([3, 3])
    for (const read of [decodeRecords, scanRecords]) expect(codeOf(() => read(body, 2))).toBe('invalid_message')
    expect(decodeRecords(new Uint8Array(0))).toEqual([])
  })

  it('are cut nowhere without notice', () => {
    for (const whole of [sent, delivered, tombstone])
      for (let end = 1; end < whole.length; end++)
        for (const read of [decodeRecords, scanRecords])
          expect(
            codeOf(() => read(whole.subarray(0, end))),
            `${end}`,
          ).toBe('invalid_message')
  })

  it('with a field out of range are not encoded', () => {
    const [record] = decodeRecords(delivered) as [EventRecord]
    const wrong: Partial<EventRecord>[] = [
      { device_seq: 0 },
      { device_seq: 2 ** 53 },
      { epoch: 2 ** 32 },
      { epoch: -1 },
      { ttl: 0 },
      { ttl: 2 ** 32 },
      { ttl: 1.5 },
      { stream_id: '' },
      { stream_id: 'a b' },
      { type: 'x'.repeat(65) },
      { sig: fill(1, 63) },
      { prev_hash: fill(1, 31) },
      { payload: null },
      { payload_hash: fill(1) },
      { payload: null, payload_hash: fill(1, 33) },
      { server: { ...server, position: -1 } },
      { server: { ...server, received_at: Number.NaN } },
      { event_id: 'x' },
      { device_id: record.device_id.toUpperCase() },
    ]
    for (const edit of wrong)
      expect(
        codeOf(() => encodeRecord({ ...record, ...edit })),
        JSON.stringify(edit),
      ).toBe('invalid_encoding')
  })
})

describe("the server's view", () => {
  it('accepts exactly the bytes that decodeRecords accepts, and reads the same from them', () => {
    const body = fc.array(anyRecord, { minLength: 1, maxLength: 3 }).map((records) => concat(...records.map(encodeRecord)))
    const edit = fc.record({ at: fc.nat(), value: fc.nat(255), cut: fc.nat(3), low: fc.boolean() })
    let accepted = 0
    let refused = 0
    fc.assert(
      fc.property(body, edit, (whole, { at, value, cut, low }) => {
        const edited = whole.slice(0, whole.length - (cut === 3 ? 1 : 0))
        // half of the edits hit the first bytes, where lengths, flags and numbers are
        edited[at % (low ? Math.min(64, edited.length) : edited.length)] = value
        const outcome = codeOf(() => decodeRecords(edited))
        expect(codeOf(() => scanRecords(edited))).toBe(outcome)
        if (outcome !== 'ok') refused++
        else {
          accepted++
          const records = decodeRecords(edited)
          for (const [i, view] of scanRecords(edited).entries()) {
            const { event_id, device_id, device_seq, epoch, ttl, stream_id, type, payload } = records[i]!
            expect(view).toMatchObject({
              event_id,
              device_id,
              device_seq,
              epoch,
              ttl,
              stream_id,
              type,
              payload_bytes: payload?.length ?? 0,
            })
          }
        }
      }),
      { numRuns: 4_000 },
    )
    expect(Math.min(accepted, refused)).toBeGreaterThan(200)
  })

  it('keeps the client part verbatim and writes the server part around it', () => {
    const [view] = scanRecords(sent)
    const out = new Uint8Array(3 + recordBytes(view!.flags, view!.client, server) + 2)
    expect(writeRecord(out, 3, view!.flags, view!.client, server)).toBe(out.length - 2)
    expect(toHex(out.subarray(3, -2))).toBe(toHex(delivered))
    expect(toHex(scanRecords(delivered)[0]!.client)).toBe(toHex(view!.client))
  })

  it('names event_id, signature and time for the duplicate check', () => {
    for (const whole of [sent, delivered, tombstone]) {
      const [view] = scanRecords(whole)
      const ids = clientPartIds(view!.flags, view!.client)
      expect({ ...ids, sig: toHex(ids.sig) }).toEqual({
        event_id: vectors.event.json.event_id,
        sig: vectors.event.sig,
        event_ms: 0x01934d7c8f2a,
      })
    }
    expect(codeOf(() => clientPartIds(1, sent.subarray(5, -1)))).toBe('invalid_message')
  })

  it('turns a record into its tombstone, once', async () => {
    const [view] = scanRecords(delivered)
    for (const crypto of [nodeCrypto, webCrypto]) {
      const swept = await toTombstone(crypto, view!.flags, view!.client)
      expect(swept.flags & FLAG.tombstone).toBe(FLAG.tombstone)
      const out = new Uint8Array(recordBytes(swept.flags, swept.client, server))
      writeRecord(out, 0, swept.flags, swept.client, server)
      expect(toHex(out)).toBe(toHex(tombstone))
      expect(await toTombstone(crypto, swept.flags, swept.client)).toEqual(swept)
    }
  })
})

describe('times and the JSON form', () => {
  it('the time of an event is in its id, its end a ttl later', () => {
    expect(eventTimeMs('01934d7c-8f2a-7c3e-9b4d-5e6f7a8b9c0d')).toBe(0x01934d7c8f2a)
    expect(expiresAtMs({ event_id: '01934d7c-8f2a-7c3e-9b4d-5e6f7a8b9c0d', ttl: 60 })).toBe(0x01934d7c8f2a + 60_000)
    expect(expiresAtMs({ event_id: '01934d7c-8f2a-7c3e-9b4d-5e6f7a8b9c0d', ttl: null })).toBeNull()
  })

  it('has the fields of the vectors', () => {
    const [record] = decodeRecords(sent) as [EventRecord]
    expect(recordToJson(USER_ID, record)).toEqual({ ...vectors.event.json, stream_seq: null, position: null, received_at: null })
    expect(recordToJson(USER_ID, { ...record, server, prev_hash: fill(14) })).toEqual({
      ...vectors.event.json,
      ...server,
      prev_hash: toBase64url(fill(14)),
    })
    const dead = recordToJson(USER_ID, entomb(record))
    expect([dead.encrypted_payload, dead.payload_hash]).toEqual([null, toBase64url(nodeCrypto.sha256(record.payload!))])
  })
})
