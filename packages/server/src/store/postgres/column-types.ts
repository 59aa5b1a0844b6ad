/**
 * How columns become values: int8 is a number, guarded to 2^53-1 (a number beyond it is a fault of the store, never
 * rounded); arrays of integers are arrays of numbers; bytea is a Buffer. Everything else as `pg` does it.
 */
import { SealpostError } from '@sealpost/protocol'
import { type CustomTypesConfig, types } from 'pg'

const INT8 = 20
const INT4_ARRAY = 1007
const INT8_ARRAY = 1016

const PARSERS: Record<number, (text: string) => unknown> = {
  [INT8]: parseInteger,
  [INT4_ARRAY]: parseIntegers,
  [INT8_ARRAY]: parseIntegers,
}

// types.getTypeParser is typed for the oids that pg knows by name
const parserOf = types.getTypeParser as (oid: number, format?: 'text' | 'binary') => (text: string) => unknown

export const COLUMN_TYPES: CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    (format === 'binary' ? undefined : PARSERS[oid]) ?? parserOf(oid, format)) as CustomTypesConfig['getTypeParser'],
}

function parseInteger(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new SealpostError('internal', 'a number of the store is above 2^53-1')
  return value
}

function parseIntegers(text: string): number[] {
  return text === '{}' ? [] : text.slice(1, -1).split(',').map(parseInteger)
}
