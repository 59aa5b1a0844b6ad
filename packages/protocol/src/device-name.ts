/**
 * Device names that are safe to show anywhere (G08): in NFC, well formed, one line, without control, bidi or invisible
 * characters, at most 50 graphemes, never cut inside one, never empty.
 *
 * Two rules, because graphemes and character classes change with every version of Unicode and all devices must agree
 * for ever on which log entries are valid: whoever *writes* a name or lets it in (device, pairing, server) asks
 * `isSafeDeviceName`; the verifier of the log asks `isLoggableName`, a fixed table.
 */
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'

/** Bound in UTF-16 units: a grapheme may carry any number of marks, and a name has to fit a mailbox slot. */
export const NAME_UNITS_MAX = 512

const FALLBACK = 'device'
const BLANKS = /[\p{Z}\p{Cc}]+/gu
/** Format characters, other ignorables and private use; U+2800 is a blank with a visible class. */
const INVISIBLE = /[\p{Cf}\p{Co}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\u2800]/gu
/** The two invisible characters that belong to emoji stay where they do. */
const JOINER_BEFORE = /[\p{Extended_Pictographic}]\uFE0F?\p{Emoji_Modifier}?$/u
const JOINER_AFTER = /^\p{Extended_Pictographic}/u
const SELECTOR_BEFORE = /[\p{Emoji}\p{Extended_Pictographic}]$/u

/** Makes any string a safe name; a safe name is returned as it is. */
export function safeDeviceName(raw: string): string {
  return shown(raw) || FALLBACK
}

/** The safe form of a name that a person gives. Throws `invalid_request` when nothing is left of it. */
export function givenDeviceName(raw: string): string {
  const name = shown(raw)
  if (name === '') throw new SealpostError('invalid_request', 'nothing of this name can be shown')
  return name
}

function shown(raw: string): string {
  // far more than any name needs; keeps what follows linear on hostile input
  const text = raw.slice(0, NAME_UNITS_MAX * 8).toWellFormed()
  const visible = text.replace(INVISIBLE, (char, at: number) => (belongsToEmoji(text, char, at) ? char : ''))
  return cutGraphemes(visible.normalize('NFC').replace(BLANKS, ' ').trim()).trim()
}

export function isSafeDeviceName(name: string): boolean {
  return name.length <= NAME_UNITS_MAX && safeDeviceName(name) === name
}

/** Controls, line separators, bidi controls, the byte order mark. */
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const UNLOGGABLE = /[\u0000-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uFEFF]/

/** The verifier's rule: the same answer on every device, whatever version of Unicode it knows. */
export function isLoggableName(name: string): boolean {
  return name.length > 0 && name.length <= NAME_UNITS_MAX && name.isWellFormed() && !UNLOGGABLE.test(name)
}

function belongsToEmoji(text: string, char: string, at: number): boolean {
  if (char === '\uFE0F') return SELECTOR_BEFORE.test(text.slice(Math.max(0, at - 2), at))
  if (char === '\u200D') return JOINER_BEFORE.test(text.slice(Math.max(0, at - 5), at)) && JOINER_AFTER.test(text.slice(at + 1, at + 3))
  return false
}

function cutGraphemes(text: string): string {
  let out = ''
  let count = 0
  for (const { segment } of new Intl.Segmenter('und', { granularity: 'grapheme' }).segment(text)) {
    if (count === LIMITS.nameGraphemesMax || out.length + segment.length > NAME_UNITS_MAX) break
    out += segment
    count++
  }
  return out
}
