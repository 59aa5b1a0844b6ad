/**
 * JSON as REST takes it: UTF-8 and nothing else, no key with two values, numbers that are safe integers. What two parsers could read in two
 * ways is refused (RFC 8259 §4, §6, §8.1), and so is `__proto__`.
 */
import { SealpostError } from '@sealpost/protocol'
import { parse } from 'lossless-json'

/** Undefined when there is no body. Throws `invalid_request`. */
export function parseJsonBody(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return undefined
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return parse(text, refusePrototype, { parseNumber, onDuplicateKey })
  } catch (cause) {
    // also a RangeError: nested deeper than any body of ours
    throw new SealpostError('invalid_request', 'the body is not the JSON that is taken here', { cause })
  }
}

function refusePrototype(key: string, value: unknown): unknown {
  if (key === '__proto__') throw new SyntaxError('a key that no body has')
  return value
}

function parseNumber(text: string): number {
  const value = Number(text)
  // digits alone: a parser of integers refuses 1.0e5, one of floats takes it
  if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(value) || Object.is(value, -0)) throw new SyntaxError('not a safe integer')
  return value
}

function onDuplicateKey(): never {
  throw new SyntaxError('a key has two values')
}
