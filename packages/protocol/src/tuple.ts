/**
 * The one injective encoding of all that is hashed, signed, MACed, or used as AAD or HKDF info (protocol.md §1):
 *
 *   tuple(label, f1..fn) = LP("sealpost/1 " || label) || LP(f1) || …      LP(x) = u32be(len) || x
 *
 * string → UTF-8 · integer → u64be · bytes → themselves · absent (null) → empty.
 */
import { type Bytes, utf8, viewOf, writeU64 } from './bytes.ts'
import { SealpostError } from './errors.ts'

export type TupleField = string | number | Bytes | null

export function tuple(label: string, ...fields: readonly TupleField[]): Bytes {
  const parts: Bytes[] = [utf8(`sealpost/1 ${label}`)]
  for (const field of fields) parts.push(fieldToBytes(field))
  let length = 0
  for (const part of parts) length += 4 + part.length
  const out = new Uint8Array(length)
  const view = viewOf(out)
  let at = 0
  for (const part of parts) {
    view.setUint32(at, part.length)
    out.set(part, at + 4)
    at += 4 + part.length
  }
  return out
}

function fieldToBytes(field: TupleField): Bytes {
  if (field === null) return new Uint8Array(0)
  if (typeof field === 'string') return utf8(field)
  if (typeof field === 'number') {
    if (!Number.isSafeInteger(field) || field < 0) throw new SealpostError('invalid_encoding', 'integer out of range')
    const out = new Uint8Array(8)
    writeU64(viewOf(out), 0, field)
    return out
  }
  return field
}
