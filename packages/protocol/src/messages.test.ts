import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bytes, concat, EMPTY, fromHex, toHex, utf8 } from './bytes.ts'
import { SealpostError } from './errors.ts'
import {
  type AckRow,
  CLIENT_MESSAGES,
  type ClientHead,
  decodeAcks,
  decodeClientMessage,
  decodeHello,
  decodeServerMessage,
  encodeAcks,
  encodeMessage,
  SERVER_MESSAGES,
  type ServerHead,
} from './messages.ts'
import { objectsOf } from '@sealpost/testing/forgeries/shape-values'

const vectors = JSON.parse(readFileSync(new URL('../../../vectors/protocol.json', import.meta.url), 'utf8')).handshake
const key = 'BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU'

const raw = (json: string, body: Bytes = EMPTY, length = utf8(json).length): Bytes => {
  const prefix = new Uint8Array(4)
  new DataView(prefix.buffer).setUint32(0, length)
  return concat(prefix, utf8(json), body)
}
const codeOf = (run: () => unknown): string => {
  try {
    run()
    return 'ok'
  } catch (error) {
    if (error instanceof SealpostError) return error.code
    throw error
  }
}
const sides = [
  ['client', CLIENT_MESSAGES, decodeClientMessage],
  ['server', SERVER_MESSAGES, decodeServerMessage],
] as const

describe('messages', () => {
  it('decode as the vectors say, and encode to the same bytes', () => {
    const auth = decodeClientMessage(fromHex(vectors.message_client_auth))
    expect(auth.head.type).toBe('client_auth')
    expect(toHex(encodeMessage(auth.head))).toBe(vectors.message_client_auth)
    const established = decodeServerMessage(fromHex(vectors.message_session_established))
    expect(established.head).toMatchObject({ type: 'session_established', log_seq: 3, mode: 'live', limits: { batch_events: 256 } })
    expect(toHex(encodeMessage(established.head))).toBe(vectors.message_session_established)
  })

  for (const [from, rows, decode] of sides)
    it.each(Object.keys(rows))(`${from}: every %s that fits its row comes back the same`, (type) => {
      const row = (rows as Record<string, { head: Parameters<typeof objectsOf>[0]; body: string }>)[type]!
      fc.assert(
        fc.property(objectsOf(row.head), fc.uint8Array({ minLength: 1, maxLength: 50 }), (fields, bytes) => {
          const body = row.body === 'none' ? EMPTY : bytes
          const head = { type, ...fields } as ClientHead | ServerHead
          const decoded = decode(encodeMessage(head, body))
          expect(decoded.head).toEqual(head)
          expect(toHex(decoded.body)).toBe(toHex(body))
          expect(codeOf(() => decode(encodeMessage(head, bytes)))).toBe(row.body === 'none' ? 'invalid_message' : 'ok')
        }),
        { numRuns: 25 },
      )
    })

  it('of the other side, unknown, or without a type are refused', () => {
    for (const head of [
      '{"type":"nack"}',
      '{"type":"toString"}',
      '{"type":"__proto__"}',
      '{"type":1}',
      '{"type":["event"]}',
      '{}',
      '[]',
      'null',
      '"event"',
      '1',
    ])
      expect(
        codeOf(() => decodeClientMessage(raw(head))),
        head,
      ).toBe('invalid_message')
    expect(codeOf(() => decodeServerMessage(raw('{"type":"replay_request","id":1,"last_ack_device_seq":0}')))).toBe('invalid_message')
  })

  it('with a head that is cut, no JSON, no UTF-8, or longer than the message are refused', () => {
    expect(codeOf(() => decodeClientMessage(fromHex('000000')))).toBe('invalid_message')
    expect(codeOf(() => decodeClientMessage(fromHex('ffffffff')))).toBe('invalid_message')
    expect(codeOf(() => decodeClientMessage(raw('{"type":"ping","t":1}', EMPTY, 22)))).toBe('invalid_message')
    expect(codeOf(() => decodeClientMessage(raw('{"type":"ping","t":1}', EMPTY, 20)))).toBe('invalid_encoding')
    expect(codeOf(() => decodeClientMessage(raw('')))).toBe('invalid_encoding')
    expect(codeOf(() => decodeClientMessage(fromHex('00000001ff')))).toBe('invalid_encoding')
    expect(codeOf(() => decodeClientMessage(raw(`${'['.repeat(100_000)}${']'.repeat(100_000)}`)))).toMatch(/^invalid_/)
  })

  it('of doubled keys the last counts, and unknown fields are ignored', () => {
    expect(decodeClientMessage(raw('{"type":"nack","t":"x","type":"ping","t":2,"more":{"__proto__":1}}')).head).toEqual({
      type: 'ping',
      t: 2,
    })
    expect(codeOf(() => decodeClientMessage(raw('{"type":"ping","t":1,"t":-1}')))).toBe('invalid_message')
  })

  it('keep to their bounds', () => {
    const request = { type: 'replay_request', id: 1, last_ack_device_seq: 0, query: true } as const
    const streams = (n: number): ClientHead => ({ ...request, streams: Array.from({ length: n }, (_, i) => `s${i}`) })
    expect(codeOf(() => decodeClientMessage(encodeMessage(streams(256))))).toBe('ok')
    expect(codeOf(() => decodeClientMessage(encodeMessage(streams(257))))).toBe('invalid_message')
    const hello = { type: 'client_hello', client_eph: key, client_nonce: key } as const
    expect(codeOf(() => decodeClientMessage(encodeMessage({ ...hello, versions: Array(16).fill(1) })))).toBe('ok')
    expect(codeOf(() => decodeClientMessage(encodeMessage({ ...hello, versions: Array(17).fill(1) })))).toBe('invalid_message')
    expect(codeOf(() => decodeServerMessage(raw('{"type":"error","code":"internal","message":"x","id":4294967296}')))).toBe(
      'invalid_message',
    )
  })

  it('say null for a tip that retention took, and nothing where there is none', () => {
    const event = { type: 'event', after: 1, upto: 2 } as const
    expect(decodeServerMessage(encodeMessage({ ...event, tip: null })).head).toEqual({ ...event, tip: null })
    expect(Object.hasOwn(decodeServerMessage(encodeMessage(event)).head, 'tip')).toBe(false)
  })
})

describe('the two text frames', () => {
  it('are the hello that was expected and nothing else', () => {
    expect(decodeHello('client_hello', utf8(vectors.client_hello))).toMatchObject({ type: 'client_hello', versions: [1] })
    const server = JSON.stringify({ type: 'server_hello', body: 'e30', sig: 'A'.repeat(86) })
    expect(decodeHello('server_hello', utf8(server)).body).toBe('e30')
    expect(codeOf(() => decodeHello('server_hello', utf8(vectors.client_hello)))).toBe('invalid_message')
    expect(codeOf(() => decodeHello('client_hello', utf8('{"type":"ping","t":1}')))).toBe('invalid_message')
  })
})

describe('ack rows', () => {
  it('come back the same, 24 bytes each', () => {
    const row: fc.Arbitrary<AckRow> = fc.record({ device_seq: fc.maxSafeNat(), position: fc.maxSafeNat(), stream_seq: fc.maxSafeNat() })
    fc.assert(
      fc.property(fc.array(row, { maxLength: 20 }), (rows) => {
        const body = encodeAcks(rows)
        expect(body).toHaveLength(24 * rows.length)
        expect(decodeAcks(body)).toEqual(rows)
      }),
    )
    expect(toHex(encodeAcks([{ device_seq: 1, position: 2 ** 53 - 1, stream_seq: 3 }]))).toBe(
      '0000000000000001001fffffffffffff0000000000000003',
    )
  })

  it('cut, or above 2^53-1, are refused', () => {
    expect(codeOf(() => decodeAcks(new Uint8Array(23)))).toBe('invalid_message')
    expect(codeOf(() => decodeAcks(fromHex(`0020${'00'.repeat(22)}`)))).toBe('invalid_encoding')
  })
})
