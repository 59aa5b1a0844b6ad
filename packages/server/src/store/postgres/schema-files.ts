/**
 * The schema of this version, as files in `packages/server/sql` (docs/decisions/0027-sql-files.md): tables, each file applied once and
 * never changed after a release, and functions, one whole file each, applied again when their text changes.
 *
 * Invariant: `version.json` names the version and the hash of all texts, so that no text changes without a new version.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'

/** `version`: of the schema in which the file came. */
export type TableFile = { version: number; name: string; sql: string }
/** `sha256`: of the text, in hexadecimal. */
export type FunctionFile = { name: string; sql: string; sha256: string }
export type Schema = { version: number; tables: readonly TableFile[]; functions: readonly FunctionFile[] }

/** Beside `src` and `dist`: the same place from both. */
const FOLDER = new URL('../../../sql/', import.meta.url)

/** Reads the files. `0003-name.sql` in `tables/` came with version 3. */
export function readSchema(): Schema {
  const tables = readFolder('tables').map(({ name, sql }) => ({ version: Number.parseInt(name, 10), name, sql }))
  const functions = readFolder('functions').map(({ name, sql }) => ({ name, sql, sha256: sha256(sql) }))
  return { version: readVersion().version, tables, functions }
}

/** As `version.json` says. */
export function readVersion(): { version: number; sha256: string } {
  return JSON.parse(readFileSync(new URL('version.json', FOLDER), 'utf8')) as { version: number; sha256: string }
}

/** Of all texts of a schema, in hexadecimal. */
export function hashSchema({ tables, functions }: Schema): string {
  return sha256([...tables, ...functions].map(({ name, sql }) => `${name}\n${sql}`).join('\n'))
}

function readFolder(folder: string): { name: string; sql: string }[] {
  const files = readdirSync(new URL(`${folder}/`, FOLDER)).filter((file) => file.endsWith('.sql'))
  return files
    .sort()
    .map((file) => ({ name: file.slice(0, -'.sql'.length), sql: readFileSync(new URL(`${folder}/${file}`, FOLDER), 'utf8') }))
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
