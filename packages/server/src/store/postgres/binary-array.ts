/**
 * PostgreSQL's binary array format (array_recv in the server's `arrayfuncs.c`): one dimension, lower bound 1, no nulls.
 * `pg` sends a Buffer parameter in binary; text arrays cost 2.5 times as much at 4 KiB per element.
 *
 *   i32 dimensions | i32 has nulls | u32 element type | i32 length | i32 lower bound | per element: i32 bytes | bytes
 */
import { type Bytes, isUuid, SealpostError } from '@sealpost/protocol'

const OID = { bytea: 17, int8: 20, int2: 21, int4: 23, uuid: 2950 } as const
const HEADER_BYTES = 20
const EMPTY_BYTES = 12

export function int8Array(values: readonly number[]): Buffer {
  return fixedArray(OID.int8, 8, values, (out, at, value) => {
    out.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at)
    out.writeUInt32BE(value % 0x1_0000_0000, at + 4)
  })
}

export function int4Array(values: readonly number[]): Buffer {
  return fixedArray(OID.int4, 4, values, (out, at, value) => out.writeInt32BE(value, at))
}

export function int2Array(values: readonly number[]): Buffer {
  return fixedArray(OID.int2, 2, values, (out, at, value) => out.writeInt16BE(value, at))
}

export function uuidArray(values: readonly string[]): Buffer {
  return fixedArray(OID.uuid, 16, values, (out, at, value) => writeUuid(out, at, value))
}

export function byteaArray(values: readonly Bytes[]): Buffer {
  if (values.length === 0) return emptyArray(OID.bytea)
  let length = HEADER_BYTES
  for (const value of values) length += 4 + value.length
  const out = Buffer.allocUnsafe(length)
  let at = writeHeader(out, OID.bytea, values.length)
  for (const value of values) {
    out.writeInt32BE(value.length, at)
    out.set(value, at + 4)
    at += 4 + value.length
  }
  return out
}

/** Integers ≥ 0 below 2^53 (int8) or within the type; the caller holds to it. */
function fixedArray<T>(oid: number, size: number, values: readonly T[], write: (out: Buffer, at: number, value: T) => void): Buffer {
  if (values.length === 0) return emptyArray(oid)
  const out = Buffer.allocUnsafe(HEADER_BYTES + values.length * (4 + size))
  let at = writeHeader(out, oid, values.length)
  for (const value of values) {
    out.writeInt32BE(size, at)
    write(out, at + 4, value)
    at += 4 + size
  }
  return out
}

function writeUuid(out: Buffer, at: number, value: string): void {
  if (!isUuid(value)) throw new SealpostError('invalid_encoding', 'not a lower-case UUID')
  out.write(value.replaceAll('-', ''), at, 'hex')
}

function emptyArray(oid: number): Buffer {
  const out = Buffer.alloc(EMPTY_BYTES)
  out.writeUInt32BE(oid, 8)
  return out
}

function writeHeader(out: Buffer, oid: number, length: number): number {
  out.writeInt32BE(1, 0)
  out.writeInt32BE(0, 4)
  out.writeUInt32BE(oid, 8)
  out.writeInt32BE(length, 12)
  out.writeInt32BE(1, 16)
  return HEADER_BYTES
}
