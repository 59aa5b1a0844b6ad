/**
 * JSON as REST takes it: UTF-8 and nothing else, no key twice, numbers that are safe integers and written as such. What two parsers could read in two ways is refused (RFC 8259 §4, §6, §8.1), and so is `__proto__`.
 *
 * The parser is the language's own. What it does not tell is found in the text, known to be JSON by then: without its strings, each
 * `:` is a member, and each digit is of a number. Bounds: `VALUES_MAX`, so that no body keeps the process for long, and `DEPTH_MAX`.
 */
import { SealpostError } from '@sealpost/protocol'

/** The largest body, a batch of events, has some 4,000. */
const VALUES_MAX = 16_384
/** Before each value but the first stands one of these. */
const COMMA = 0x2c
const BRACKET = 0x5b
const BRACE = 0x7b
const DEPTH_MAX = 16
const STRING = /"(?:[^"\\]|\\.)*"/g
const NUMBER = /-?\d[\d.eE+-]*/g
const INTEGER = /^(0|-?[1-9]\d{0,15})$/

/** Undefined when there is no body. Throws `invalid_request`. */
export function parseJsonBody(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return undefined
  try {
    if (hasManyValues(bytes)) throw new SyntaxError('too many values')
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    const value: unknown = JSON.parse(text)
    const bare = text.replace(STRING, '')
    for (const [number] of bare.matchAll(NUMBER))
      if (!INTEGER.test(number) || !Number.isSafeInteger(Number(number))) throw new SyntaxError('not a safe integer')
    if (countMembers(value, 0) !== bare.split(':').length - 1) throw new SyntaxError('a key stands twice')
    return value
  } catch (cause) {
    throw new SealpostError('invalid_request', 'the body is not the JSON that is taken here', { cause })
  }
}

/** Also counts what stands in strings: those of our bodies hold none of these signs, but for a name. */
function hasManyValues(bytes: Uint8Array): boolean {
  let count = 0
  for (const byte of bytes) if ((byte === COMMA || byte === BRACKET || byte === BRACE) && ++count > VALUES_MAX) return true
  return false
}

function countMembers(value: unknown, depth: number): number {
  if (typeof value !== 'object' || value === null) return 0
  if (depth === DEPTH_MAX) throw new SyntaxError('too deep')
  const keys = Array.isArray(value) ? [] : Object.keys(value)
  if (keys.includes('__proto__')) throw new SyntaxError('a key that no body has')
  let members = keys.length
  for (const inner of Object.values(value)) members += countMembers(inner, depth + 1)
  return members
}
