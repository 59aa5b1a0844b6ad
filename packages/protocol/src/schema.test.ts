import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseJson, toBase64url, utf8 } from './bytes.ts'
import { SealpostError } from './errors.ts'
import { SHAPES } from './messages.ts'
import { check, type Field, type Shape } from './schema.ts'
import { objectsOf } from '@sealpost/testing/forgeries/shape-values'

const accepts = (field: Field, value: unknown): boolean => {
  try {
    expect(check({ field }, { field: value })).toEqual({ field: value })
    return true
  } catch (error) {
    if (error instanceof SealpostError && error.code === 'invalid_message') return false
    throw error
  }
}
const b64 = (length: number, byte = 1): string => toBase64url(new Uint8Array(length).fill(byte))
const uuid = '7b1c2d3e-4f50-4162-8374-95a6b7c8d9ea'
const never = [undefined, Number.NaN, Number.POSITIVE_INFINITY, {}, [], [1], () => 1, 1n, Symbol('x')]

const kinds: [Field, unknown[], unknown[]][] = [
  ['bool', [true, false], [0, 1, 'true', null]],
  ['int', [0, 1, 2 ** 53 - 1], [-1, -0, 1.5, 2 ** 53, '1', null, true]],
  ['u32', [0, 2 ** 32 - 1], [-1, -0, 0.5, 2 ** 32, '1', null]],
  ['uuid', [uuid], [uuid.toUpperCase(), uuid.replaceAll('-', ''), `${uuid} `, `{${uuid}}`, '', 1, null]],
  ['signer', ['root', uuid], ['Root', '', 'roots', 1, null]],
  ['label', ['a', 'A.b_c:d-9', 'x'.repeat(64)], ['', 'a b', 'é', 'a\n', 'x'.repeat(65), 'a/b', 1, null]],
  ['opaque', ['x', ' ', 'x'.repeat(1024)], ['', 'x'.repeat(1025), 1, null]],
  ['text', ['', 'é\u{1f600}', 'x'.repeat(1024)], ['x'.repeat(1025), 1, null]],
  ['code', ['a', 'rate_limited', 'x'.repeat(64)], ['', 'A', 'a-b', 'a1', 'x'.repeat(65), 1, null]],
  ['key', [b64(32)], [b64(31), b64(33), `${b64(32)}=`, '', 1, null]],
  ['sig', [b64(64)], [b64(63), b64(65), 1, null]],
  ['kem_pub', [b64(1216)], [b64(1215), b64(1217), 1, null]],
  ['box', [b64(1168)], [b64(1167), b64(1169), 1, null]],
  ['prev_box', [b64(48)], [b64(47), b64(49), 1, null]],
  ['b64', ['', b64(1), b64(72_000), b64(73_728)], ['a', 'ab+/', 'AB', 'a b', b64(73_729), 1, null]],
  ['uuid|null', [uuid, null], ['', 'x', 1]],
  ['int|null', [0, null], [-1, '0']],
  ['u32?', [1], [null, -1, '1']],
  ['=hello', ['hello'], ['hell', 'hello?', '=hello', null, 1]],
  ['=hello?', ['hello?'], ['hello', null]],
  [{ oneOf: ['a', 1] }, ['a', 1], ['1', 'b', 0, null, true]],
  [{ list: 'u32', max: 2 }, [[], [1], [1, 2]], [[1, 2, 3], ['1'], [null], { 0: 1, length: 1 }, 'ab', null]],
  [
    { map: 'u32', max: 2 },
    [{}, { root: 1, [uuid]: 2 }],
    [{ x: 1 }, { root: -1 }, { root: 1, [uuid]: 2, [uuid.replace('7', '8')]: 3 }, null, 'x'],
  ],
  [{ object: { a: 'u32' } }, [{ a: 1 }], [{}, { a: '1' }, null, 'x', 1]],
  [{ object: { a: 'u32' }, nullable: true }, [{ a: 1 }, null], [{}, { a: null }]],
]

describe('the kinds of fields', () => {
  it.each(kinds)('%o takes what its rule says and nothing else', (field, good, bad) => {
    for (const value of good) expect(accepts(field, value), JSON.stringify(value)).toBe(true)
    const isScalar = typeof field === 'string' && !field.endsWith('?')
    for (const value of isScalar ? [...bad, ...never] : bad) expect(accepts(field, value), String(value)).toBe(false)
  })

  it('what is optional may be absent and is then not there; what is not must be', () => {
    const shape = {
      a: 'u32?',
      b: { list: 'u32', max: 1, optional: true },
      c: { oneOf: ['x'], optional: true },
      d: { object: {}, optional: true },
    } as const
    expect(Object.keys(check(shape, {}))).toEqual([])
    expect(check(shape, { a: undefined, b: [1], c: 'x', d: {} })).toEqual({ b: [1], c: 'x', d: {} })
    expect(() => check({ '=a': 'u32' }, {})).toThrow(SealpostError)
  })

  it('names the field that is wrong and says nothing of its value', () => {
    const shape: Shape = { rows: { list: { object: { id: 'uuid' } }, max: 5 } }
    expect(() => check(shape, { rows: [{ id: uuid }, { id: 'hunter2' }] }, 'page')).toThrow(
      expect.objectContaining({ code: 'invalid_message', message: 'page.rows[1].id is missing or not valid' }),
    )
    expect(() => check({ m: { map: 'u32', max: 1 } }, { m: { root: 'x' } })).toThrow('message.m.root')
  })

  it('takes an object only', () => {
    for (const value of [null, undefined, 1, 'x', [], [{}], true]) expect(() => check({}, value)).toThrow(SealpostError)
  })
})

describe('what comes from JSON', () => {
  const shape = { a: 'u32', inner: { object: { b: 'u32' }, optional: true } } as const

  it('unknown fields are ignored, at every depth', () => {
    expect(check(shape, parseJson(utf8('{"a":1,"x":2,"inner":{"b":3,"y":[4]}}')))).toEqual({ a: 1, inner: { b: 3 } })
  })

  it('of doubled keys the last counts', () => {
    expect(check(shape, parseJson(utf8('{"a":"no","a":1}')))).toEqual({ a: 1 })
    expect(() => check(shape, parseJson(utf8('{"a":1,"a":"no"}')))).toThrow(SealpostError)
  })

  it('__proto__ and inherited names give no field and change no prototype', () => {
    const value = parseJson(utf8('{"__proto__":{"a":1,"polluted":true}}'))
    expect(() => check(shape, value)).toThrow(SealpostError)
    const checked = check(shape, parseJson(utf8('{"a":1,"__proto__":{"inner":{"b":1}},"constructor":{}}')))
    expect(checked).toEqual({ a: 1 })
    expect(Object.getPrototypeOf(checked)).toBe(Object.prototype)
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
    for (const name of ['toString', 'constructor', 'hasOwnProperty']) expect(() => check({ [name]: 'text' }, {})).toThrow(SealpostError)
    expect(() => check({ m: { map: 'u32', max: 5 } }, parseJson(utf8('{"m":{"__proto__":1}}')))).toThrow(SealpostError)
  })

  it('whatever fits a shape of the protocol comes back the same', () => {
    for (const shape of Object.values(SHAPES))
      fc.assert(
        fc.property(objectsOf(shape), (value) => {
          expect(check(shape, parseJson(utf8(JSON.stringify(value))))).toEqual(value)
        }),
        { numRuns: 40 },
      )
  })
})
