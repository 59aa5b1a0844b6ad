import { concat, utf8 } from '@sealpost/protocol'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createLineSplitter } from './line-splitter.ts'

function split(chunks: readonly Uint8Array[], bytesMax = 1_000): string[] {
  const splitter = createLineSplitter(bytesMax)
  const lines = chunks.flatMap((chunk) => [...splitter.push(chunk)])
  return [...lines, ...splitter.end()].map((line) => Buffer.from(line).toString('latin1'))
}

describe('createLineSplitter', () => {
  test('a line keeps its terminator, CRLF is not touched, the rest is a line', () => {
    expect(split([utf8('a\nb\r\n\n\rc')])).toEqual(['a\n', 'b\r\n', '\n', '\rc'])
  })

  test('nothing gives no line', () => {
    expect(split([])).toEqual([])
    expect(split([new Uint8Array(0)])).toEqual([])
  })

  test('however the bytes are cut, the lines joined are the bytes, and each but the last ends in a line feed', () => {
    const byte = fc.oneof(fc.constant(10), fc.constant(13), fc.integer({ min: 0, max: 255 }))
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 40 }).chain(() => fc.array(byte, { maxLength: 40 }))), (parts) => {
        const chunks = parts.map((part) => Uint8Array.from(part))
        const lines = split(chunks)
        expect(lines.join('')).toBe(Buffer.from(concat(...chunks)).toString('latin1'))
        for (const [i, line] of lines.entries()) {
          expect(line.indexOf('\n') === -1 || line.indexOf('\n') === line.length - 1).toBe(true)
          if (i < lines.length - 1) expect(line.endsWith('\n')).toBe(true)
        }
      }),
    )
  })

  test("does not keep the caller's buffer", () => {
    const chunk = utf8('abc')
    const splitter = createLineSplitter(10)
    expect([...splitter.push(chunk)]).toEqual([])
    chunk.fill(0)
    expect([...splitter.push(utf8('d\n'))].map((line) => Buffer.from(line).toString())).toEqual(['abcd\n'])
  })

  test('a line above the limit is too_large, after the lines before it', () => {
    const splitter = createLineSplitter(4)
    const lines: string[] = []
    expect(() => {
      for (const line of splitter.push(utf8('abc\nabcd\nx\n'))) lines.push(Buffer.from(line).toString())
    }).toThrow(/line 2 is longer than the limit of 4 bytes/)
    expect(lines).toEqual(['abc\n'])
    expect(() => [...createLineSplitter(4).push(utf8('abcde'))]).toThrow(/too_large|longer/)
    expect(split([utf8('abcd')], 4)).toEqual(['abcd'])
  })
})
