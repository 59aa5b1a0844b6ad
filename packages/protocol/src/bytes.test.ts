import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  bytesToUuid,
  concat,
  equalBytes,
  fromBase64url,
  fromHex,
  isUuid,
  parseJson,
  readU64,
  toBase64url,
  toHex,
  utf8,
  utf8Decode,
  uuidToBytes,
  viewOf,
  writeU64,
} from './bytes.ts'
import { SealpostError } from './errors.ts'

const refused = (of: () => unknown) => expect(of).toThrow(expect.objectContaining({ code: 'invalid_encoding' }) as Error)
/** True for a value, false for the one typed refusal; anything else fails the property. */
const typed = (of: () => unknown): boolean => {
  try {
    of()
    return true
  } catch (error) {
    if (error instanceof SealpostError && error.code === 'invalid_encoding') return false
    throw error
  }
}

describe('base64url', () => {
  it.each([
    ['', ''],
    ['66', 'Zg'],
    ['666f', 'Zm8'],
    ['666f6f', 'Zm9v'],
    ['fbff', '-_8'],
  ])('%s is %s (RFC 4648)', (hex, text) => {
    expect(toBase64url(fromHex(hex))).toBe(text)
    expect(toHex(fromBase64url(text))).toBe(hex)
  })

  it('has one form alone: padding, spare bits, other alphabets, blanks and stray ends are refused', () => {
    for (const text of ['Zg==', 'Zg=', 'Zh', 'Zm9', '+_8', '/w', 'Z g', 'Zg\n', 'Z', 'Zm9vZ', 'é']) refused(() => fromBase64url(text))
  })

  it('of a fixed length refuses every other', () => {
    expect(fromBase64url('AAAA', 3)).toHaveLength(3)
    refused(() => fromBase64url('AAAA', 4))
    refused(() => fromBase64url('AAAA', 2))
    refused(() => fromBase64url('', 32))
  })

  it('comes back for all bytes, and agrees with Buffer', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const text = toBase64url(bytes)
        expect(text).toBe(Buffer.from(bytes).toString('base64url'))
        expect(toHex(fromBase64url(text))).toBe(toHex(bytes))
      }),
      { numRuns: 1_000 },
    )
    const large = new Uint8Array(100_000).map((_, i) => i * 7)
    expect(toHex(fromBase64url(toBase64url(large)))).toBe(toHex(large))
  })

  it('no text makes the decoder throw untyped, and what it takes is canonical', () => {
    const alphabet = fc.string({ unit: fc.constantFrom(...'ABCabc019-_=+/ \n'.split('')), maxLength: 12 })
    fc.assert(
      fc.property(fc.oneof(alphabet, fc.string({ unit: 'binary', maxLength: 12 })), (text) => {
        if (typed(() => fromBase64url(text))) expect(toBase64url(fromBase64url(text))).toBe(text)
      }),
      { numRuns: 20_000 },
    )
  })
})

describe('UUIDs and hexadecimal', () => {
  it('come back for all bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
        expect(toHex(uuidToBytes(bytesToUuid(bytes)))).toBe(toHex(bytes))
        expect(bytesToUuid(concat(new Uint8Array(3), bytes), 3)).toBe(bytesToUuid(bytes))
      }),
      { numRuns: 300 },
    )
  })

  it('are lower case and whole', () => {
    expect(isUuid('7b1c2d3e-4f50-4162-8374-95a6b7c8d9ea')).toBe(true)
    for (const text of [
      '7B1C2D3E-4F50-4162-8374-95A6B7C8D9EA',
      '7b1c2d3e4f504162837495a6b7c8d9ea',
      '7b1c2d3e-4f50-4162-8374-95a6b7c8d9e',
      '',
    ])
      refused(() => uuidToBytes(text))
    for (const text of ['0', 'AB', 'zz', '0x00']) refused(() => fromHex(text))
  })
})

describe('text and JSON', () => {
  it('refuses what is not UTF-8, and keeps a byte order mark', () => {
    for (const hex of ['ff', 'c0af', 'eda080', 'f4908080', 'c3']) refused(() => utf8Decode(fromHex(hex)))
    expect(utf8Decode(fromHex('efbbbf61'))).toBe('\uFEFFa')
  })

  it('of doubled keys the last counts', () => {
    expect(parseJson(utf8('{"a":1,"a":2}'))).toEqual({ a: 2 })
  })

  it('no bytes make the JSON decoder throw untyped', () => {
    const near = fc.json({ maxDepth: 2 }).chain((json) => fc.nat(json.length).map((cut) => utf8(json.slice(0, cut))))
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 24 }), near), (bytes) => void typed(() => parseJson(bytes))),
      { numRuns: 10_000 },
    )
  })
})

describe('big-endian integers', () => {
  it('come back up to 2^53-1, and above are refused', () => {
    const view = viewOf(new Uint8Array(12).subarray(2))
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        writeU64(view, 1, value)
        expect(readU64(view, 1)).toBe(value)
        expect(view.getBigUint64(1)).toBe(BigInt(value))
      }),
    )
    view.setBigUint64(0, 2n ** 53n - 1n)
    expect(readU64(view, 0)).toBe(Number.MAX_SAFE_INTEGER)
    view.setBigUint64(0, 2n ** 53n)
    refused(() => readU64(view, 0))
  })
})

it('bytes are equal when all of them are', () => {
  expect(equalBytes(fromHex('0102'), concat(fromHex('01'), fromHex('02')))).toBe(true)
  for (const other of ['', '01', '010200', '0103', '0202']) expect(equalBytes(fromHex('0102'), fromHex(other))).toBe(false)
})
