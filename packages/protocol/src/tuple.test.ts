import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { toHex, utf8 } from './bytes.ts'
import { type TupleField, tuple } from './tuple.ts'

const bytes = fc.uint8Array({ maxLength: 12 })
const fields = fc.array(bytes, { maxLength: 5 })
// short labels and fields, so that near collisions are common
const label = fc.string({ maxLength: 3 })

it('is injective: different labels or fields never give the same bytes', () => {
  fc.assert(
    fc.property(label, fields, label, fields, (labelA, a, labelB, b) => {
      const same = labelA === labelB && a.length === b.length && a.every((field, i) => toHex(field) === toHex(b[i]!))
      expect(toHex(tuple(labelA, ...a)) === toHex(tuple(labelB, ...b))).toBe(same)
    }),
    { numRuns: 2_000 },
  )
})

it('is injective where the same bytes are divided otherwise', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 12 }), fc.nat(12), fc.nat(12), (all, x, y) => {
      const [i, j] = [x % (all.length + 1), y % (all.length + 1)]
      const divided = (at: number) => toHex(tuple('t', all.subarray(0, at), all.subarray(at)))
      expect(divided(i) === divided(j)).toBe(i === j)
      expect(divided(i)).not.toBe(toHex(tuple('t', all)))
    }),
    { numRuns: 2_000 },
  )
})

it('can be taken apart again, field by field', () => {
  fc.assert(
    fc.property(label, fields, (name, list) => {
      const encoded = tuple(name, ...list)
      const view = new DataView(encoded.buffer)
      const out: string[] = []
      for (let at = 0; at < encoded.length; ) {
        const length = view.getUint32(at)
        out.push(toHex(encoded.subarray(at + 4, at + 4 + length)))
        at += 4 + length
      }
      expect(out).toEqual([utf8(`sealpost/1 ${name}`), ...list].map(toHex))
    }),
    { numRuns: 500 },
  )
})

it('writes strings as UTF-8, integers as u64, absent as empty', () => {
  expect(toHex(tuple('x', 'é'))).toBe(toHex(tuple('x', new Uint8Array([0xc3, 0xa9]))))
  expect(toHex(tuple('x', 2 ** 53 - 1))).toBe(toHex(tuple('x', new Uint8Array([0, 0x1f, 255, 255, 255, 255, 255, 255]))))
  expect(toHex(tuple('x', null))).toBe(toHex(tuple('x', new Uint8Array(0))))
  expect(toHex(tuple('x', null))).not.toBe(toHex(tuple('x')))
})

it.each<TupleField>([-1, 1.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY])('refuses the integer %d', (field) => {
  expect(() => tuple('x', field)).toThrow(expect.objectContaining({ code: 'invalid_encoding' }) as Error)
})
