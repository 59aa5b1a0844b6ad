import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isLoggableName, isSafeDeviceName, NAME_UNITS_MAX, safeDeviceName } from './device-name.ts'

const graphemes = (text: string) => [...new Intl.Segmenter('und', { granularity: 'grapheme' }).segment(text)].length
const FAMILY = '👨‍👩‍👧‍👦'

describe('safe device names (G08)', () => {
  it.each<[string, string, string]>([
    ['an ordinary name stays', 'Ana’s laptop #2', 'Ana’s laptop #2'],
    ['other scripts stay', 'Телефон 電話 फ़ोन', 'Телефон 電話 फ़ोन'.normalize('NFC')],
    ['controls become one space', 'a\r\n\t\u0000b', 'a b'],
    ['escape sequences lose their escape', '\u001b[31mred', '[31mred'],
    ['line separators become a space', 'a\u2028\u2029b', 'a b'],
    ['bidi controls go', 'a\u202Eb\u2066c\u2069\u200Fd\u061C', 'abcd'],
    ['invisible characters go', 'a\u200Bb\u2060c\uFEFFd\u00ADe\u3164f\u115Fg\u034Fh\u2800i', 'abcdefghi'],
    ['tag characters go', 'a\u{E0041}\u{E0042}b', 'ab'],
    ['private use goes', 'a\uE000\u{F0000}b', 'ab'],
    ['an unpaired surrogate becomes U+FFFD', 'a\uD83Db', 'a\uFFFDb'],
    ['the text is in NFC', 'e\u0301', 'é'],
    ['blanks at both ends go, inside they are one', '  a  \u00A0 b\u3000', 'a b'],
    ['nothing left is "device"', '\u200B \u202E', 'device'],
    ['empty is "device"', '', 'device'],
    ['emoji keep what joins them', `${FAMILY} ❤️ 🧑🏽‍💻 🏳️‍🌈 🇨🇭 1️⃣`, `${FAMILY} ❤️ 🧑🏽‍💻 🏳️‍🌈 🇨🇭 1️⃣`],
    ['a joiner without emoji goes', 'a\u200Db👩\u200D', 'ab👩'],
    ['a variation selector without emoji goes', 'a\uFE0Fb\uFE0E', 'ab'],
  ])('%s', (_, raw, safe) => {
    expect(safeDeviceName(raw)).toBe(safe)
  })

  it('at most 50 graphemes, and none is cut', () => {
    expect(safeDeviceName('x'.repeat(51))).toBe('x'.repeat(50))
    expect(safeDeviceName(`${'x'.repeat(49)}${FAMILY}y`)).toBe(`${'x'.repeat(49)}${FAMILY}`)
    expect(safeDeviceName(`${'x'.repeat(50)}\u0301y`)).toBe(`${'x'.repeat(50)}\u0301`)
    expect(safeDeviceName(`${'x'.repeat(49)} y`)).toBe('x'.repeat(49))
  })

  it('a pile of marks has a bound too', () => {
    expect(safeDeviceName(`ab${'\u0301'.repeat(5_000)}`)).toBe('a')
    expect(safeDeviceName(`a${'\u0301'.repeat(5_000)}`)).toBe('device')
    expect(safeDeviceName(FAMILY.repeat(60)).length).toBeLessThanOrEqual(NAME_UNITS_MAX)
  })

  // units that make trouble, among any others
  const units = fc.array(
    fc.oneof(
      fc.constantFrom(
        '\u200D',
        '\uFE0F',
        '👩',
        '🏽',
        '💻',
        ' ',
        '\u0301',
        '\uD83D',
        '\uDC69',
        '\u202E',
        '\n',
        '\u1100',
        '\u1161',
        '1',
        '🇨',
        '\u094D',
        'क',
        '\u2126',
      ),
      fc.string({ unit: 'binary', maxLength: 3 }),
      fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)),
    ),
    { maxLength: 120 },
  )

  it('any string: safe, shown as one line, bounded, and safe names are left alone', () => {
    fc.assert(
      fc.property(units, (parts) => {
        const raw = parts.join('')
        const name = safeDeviceName(raw)
        expect(safeDeviceName(name)).toBe(name)
        expect(isSafeDeviceName(name)).toBe(true)
        expect(isLoggableName(name)).toBe(true)
        expect(name.isWellFormed()).toBe(true)
        expect(name).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u)
        expect(name.replaceAll('\u200D', '').replaceAll('\uFE0F', '')).not.toMatch(/[\p{Cf}\p{Default_Ignorable_Code_Point}]/u)
        expect(name.trim()).toBe(name)
        expect(graphemes(name)).toBeGreaterThan(0)
        expect(graphemes(name)).toBeLessThanOrEqual(50)
        expect(isSafeDeviceName(raw)).toBe(raw === name)
      }),
      { numRuns: 3_000 },
    )
  })

  it('any string: what is kept ends where a grapheme ends', () => {
    fc.assert(
      fc.property(units, fc.constantFrom('', 'x'.repeat(45), FAMILY.repeat(30)), (parts, start) => {
        const whole = safeDeviceName(start + parts.join(''))
        const longer = [...new Intl.Segmenter('und', { granularity: 'grapheme' }).segment(`${whole}x`)].map(({ segment }) => segment)
        expect(longer.slice(0, -1).join('')).toBe(whole)
      }),
      { numRuns: 500 },
    )
  })
})

describe('names in log entries', () => {
  it('are judged by a fixed table, which every version of Unicode reads alike', () => {
    for (const name of ['laptop', 'e\u0301', 'x'.repeat(NAME_UNITS_MAX), FAMILY]) expect(isLoggableName(name), name).toBe(true)
    for (const name of [
      '',
      'x'.repeat(NAME_UNITS_MAX + 1),
      'a\u0000',
      'a\u007F',
      'a\u0085',
      'a\n',
      'a\u2028',
      'a\u202A',
      'a\u2067',
      'a\u200E',
      'a\u061C',
      'a\uFEFF',
      '\uDC00',
    ])
      expect(isLoggableName(name), JSON.stringify(name)).toBe(false)
  })
})
