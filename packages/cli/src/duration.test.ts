import { describe, expect, test } from 'vitest'
import { parseCount, parseDuration, parseSecondsToMs } from './duration.ts'

describe('durations', () => {
  test.each([
    ['30s', 30],
    ['15m', 900],
    ['1h', 3_600],
    ['2d', 172_800],
    ['1w', 604_800],
    ['45', 45],
    ['4294967295', 0xffff_ffff],
  ])('%s is %i seconds', (text, seconds) => {
    expect(parseDuration(text)).toBe(seconds)
  })

  test.each(['', '0', '0s', '-1h', '1.5h', '1y', 'h', '1h30m', '4294967296', '99999999999999d', '1e3'])('"%s" is refused', (text) => {
    expect(() => parseDuration(text)).toThrow(/is not a duration/)
  })

  test('a count is a whole number of at least the least', () => {
    expect(parseCount('3', '--count', 1)).toBe(3)
    for (const text of ['0', '-1', '1.5', 'x', '']) expect(() => parseCount(text, '--count', 1)).toThrow(/--count/)
  })

  test('seconds may have fractions', () => {
    expect(parseSecondsToMs('0.25', '--idle-exit')).toBe(250)
    for (const text of ['-1', '', 'soon', '1e9']) expect(() => parseSecondsToMs(text, '--idle-exit')).toThrow(/--idle-exit/)
  })
})
