import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Bytes, concat, fromHex, utf8 } from './bytes.ts'
import { SealpostError } from './errors.ts'
import {
  CLIENT_MESSAGES,
  decodeAcks,
  decodeClientMessage,
  decodeHello,
  decodeServerMessage,
  encodeAcks,
  SERVER_MESSAGES,
} from './messages.ts'
import { decodeRecords, scanRecords } from './record.ts'
import { objectsOf } from '@sealpost/testing/forgeries/shape-values'

const vectors = JSON.parse(readFileSync(new URL('../../../vectors/protocol.json', import.meta.url), 'utf8'))
const recordBodies: Bytes[] = [...vectors.records, ...vectors.invalid.slice(0, 4)].map(({ hex }: { hex: string }) => fromHex(hex))
recordBodies.push(concat(...recordBodies.slice(0, 4)))

/** Heads that fit their rows, two of each, as JSON. */
function validHeads(rows: Record<string, { head: Parameters<typeof objectsOf>[0] }>): string[] {
  return Object.entries(rows).flatMap(([type, row]) =>
    fc.sample(objectsOf(row.head), { numRuns: 2, seed: 7 }).map((fields) => JSON.stringify({ type, ...fields })),
  )
}
const clientHeads = validHeads(CLIENT_MESSAGES)
const serverHeads = validHeads(SERVER_MESSAGES)

const JUNK = [
  'null',
  '-1',
  '-0',
  '1e999',
  '0.5',
  '9007199254740992',
  '""',
  '"x"',
  '[]',
  '[[]]',
  '{}',
  '{"__proto__":1}',
  'true',
  '"\\ud800"',
  '',
  '}',
]

/** A head with one value replaced, one key doubled, or one character changed. */
function breakJson(json: string, how: number, at: number, value: number): string {
  if (how % 3 === 0) {
    const values = [...json.matchAll(/(?<=":)("[^"]*"|[^,{}[\]"]+)/g)]
    const hit = values[at % Math.max(1, values.length)]
    if (hit !== undefined) return json.slice(0, hit.index) + JUNK[value % JUNK.length] + json.slice(hit.index + hit[0].length)
  }
  if (how % 3 === 1) return `${json.slice(0, -1)},"${json.match(/"(\w+)"/g)?.[at % 3]?.slice(1, -1) ?? 'x'}":${JUNK[value % JUNK.length]}}`
  const i = at % json.length
  return json.slice(0, i) + String.fromCharCode(value) + json.slice(i + 1)
}

function breakBytes(bytes: Bytes, how: number, at: number, value: number): Bytes {
  const out = bytes.slice()
  if (out.length === 0) return out
  // lengths, flags and numbers are among the first bytes
  out[at % (how % 2 === 0 ? Math.min(out.length, 70) : out.length)] = value
  if (how % 5 === 0) return out.subarray(0, value % out.length)
  return how % 7 === 0 ? concat(out, out.subarray(at % out.length)) : out
}

function frameOf(json: string, how: number, value: number): Bytes {
  const head = utf8(json)
  const prefix = new Uint8Array(4)
  new DataView(prefix.buffer).setUint32(0, how % 11 === 0 ? value : head.length)
  return concat(prefix, head, new Uint8Array(how % 4 === 0 ? value : 0))
}

/** Runs over bytes made from `make` and over random bytes; every failure must be a SealpostError with one of two codes. */
function neverThrowsUntyped(
  runs: number,
  make: (how: number, at: number, value: number) => Bytes,
  ...decoders: ((bytes: Bytes) => unknown)[]
): void {
  const seen = { ok: 0, refused: 0 }
  const attempt = (bytes: Bytes): void => {
    for (const decode of decoders) {
      try {
        decode(bytes)
        seen.ok++
      } catch (error) {
        seen.refused++
        if (!(error instanceof SealpostError) || !['invalid_message', 'invalid_encoding'].includes(error.code)) throw error
      }
    }
  }
  const half = Math.ceil(runs / 2 / decoders.length)
  fc.assert(
    fc.property(fc.nat(0xffff), fc.nat(0xffff), fc.nat(255), (how, at, value) => attempt(make(how, at, value))),
    { numRuns: half },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 24 }), (bytes) => attempt(bytes)),
    { numRuns: half },
  )
  expect(seen.ok + seen.refused).toBeGreaterThanOrEqual(runs)
  expect(Math.min(seen.ok, seen.refused)).toBeGreaterThan(runs / 100)
}

describe('no bytes make a decoder throw untyped', () => {
  const pick = <T>(list: readonly T[], n: number): T => list[n % list.length]!

  it('event records, 90,000 runs', () => {
    neverThrowsUntyped(90_000, (how, at, value) => breakBytes(pick(recordBodies, at), how, at, value), decodeRecords, scanRecords)
  })

  it('messages of the client, 30,000 runs', () => {
    neverThrowsUntyped(
      30_000,
      (how, at, value) => frameOf(breakJson(pick(clientHeads, at), how, at, value), how, value),
      decodeClientMessage,
    )
  })

  it('messages of the server, 30,000 runs', () => {
    neverThrowsUntyped(
      30_000,
      (how, at, value) => frameOf(breakJson(pick(serverHeads, at), how, at, value), how, value),
      decodeServerMessage,
    )
  })

  it('hellos, 15,000 runs', () => {
    const heads = [vectors.handshake.client_hello as string, ...serverHeads.filter((head) => head.startsWith('{"type":"server_hello"'))]
    neverThrowsUntyped(
      15_000,
      (how, at, value) => utf8(breakJson(pick(heads, at), how, at, value)),
      (bytes) => decodeHello('client_hello', bytes),
      (bytes) => decodeHello('server_hello', bytes),
    )
  })

  it('ack rows, 10,000 runs', () => {
    const rows = encodeAcks([
      { device_seq: 1, position: 2, stream_seq: 3 },
      { device_seq: 2, position: 3, stream_seq: 1 },
    ])
    neverThrowsUntyped(10_000, (how, at, value) => breakBytes(rows, how, at, value), decodeAcks)
  })
})
