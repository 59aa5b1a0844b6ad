/** Typed reads of a SQLite row. STRICT tables hold the types; a value of another type means that the file is damaged. */
import { type Bytes, SealpostError } from '@sealpost/protocol'
import type { Row } from './state-database.ts'

export function integer(row: Row | undefined, name: string): number {
  const value = row?.[name]
  return typeof value === 'number' ? value : wrong(name)
}

export function integerOrNull(row: Row, name: string): number | null {
  return row[name] === null ? null : integer(row, name)
}

export function text(row: Row, name: string): string {
  const value = row[name]
  return typeof value === 'string' ? value : wrong(name)
}

export function textOrNull(row: Row, name: string): string | null {
  return row[name] === null ? null : text(row, name)
}

export function blob(row: Row, name: string): Bytes {
  const value = row[name]
  return value instanceof Uint8Array ? value : wrong(name)
}

export function blobOrNull(row: Row, name: string): Bytes | null {
  return row[name] === null ? null : blob(row, name)
}

function wrong(name: string): never {
  throw new SealpostError(
    'state_damaged',
    `the stored state is damaged (${name}); restore the folder from a backup, or pair this device again in a new home`,
  )
}
