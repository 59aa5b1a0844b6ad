/**
 * One open connection pair to a home's SQLite file: `durable` commits are on disk when they return (WAL, synchronous FULL);
 * `relaxed` commits survive the death of the process and ride on the next durable one (synchronous NORMAL).
 * Invariant: every failure leaves as a `SealpostError` with `disk`, `state_damaged` or `state_newer`.
 */
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { diskError, SealpostError } from '@sealpost/protocol'
import { createPrivateFile } from './home-folder.ts'
import { APPLICATION_ID, STATE_SCHEMA, STATE_STEPS, STATE_VERSION } from './state-schema.ts'

const RIGHTS = 'check the owner and the mode of the folder and its files (ls -l), and that the disk is mounted for writing'
/** How long a write waits for another process of the home. Transactions last milliseconds. */
const BUSY_MS = 10_000

export type Row = Record<string, SQLInputValue>

export type StateDatabase = {
  /** Runs one statement; a prepared form is kept per text. */
  run(sql: string, ...values: SQLInputValue[]): { changes: number }
  get(sql: string, ...values: SQLInputValue[]): Row | undefined
  all(sql: string, ...values: SQLInputValue[]): Row[]
  /** Rows as long as `take` returns true. */
  each(sql: string, values: SQLInputValue[], take: (row: Row) => boolean): void
  /** One durable transaction; nothing of it stays when `work` throws. */
  transaction<T>(work: () => T): T
  /** A write that may ride on the next durable one. */
  runRelaxed(sql: string, ...values: SQLInputValue[]): void
  /** Any work on the connection, with its errors translated. */
  guard<T>(work: () => T): T
  /** Overwrites what was deleted, as far as the file system allows. */
  scrub(): void
  close(): void
}

export function openStateDatabase(path: string): StateDatabase {
  return translate(path, () => {
    // SQLite gives -wal and -shm the mode of the main file.
    createPrivateFile(path)
    const durable = connect(path, 'full')
    let relaxed: DatabaseSync | undefined
    try {
      prepareSchema(durable, path)
      relaxed = connect(path, 'normal')
      return createStateDatabase(path, durable, relaxed)
    } catch (error) {
      relaxed?.close()
      durable.close()
      throw error
    }
  })
}

function connect(path: string, synchronous: 'full' | 'normal'): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: BUSY_MS, enableForeignKeyConstraints: true })
  try {
    database.exec(`pragma journal_mode = wal; pragma synchronous = ${synchronous}; pragma secure_delete = fast; pragma cache_size = -16000`)
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

function prepareSchema(database: DatabaseSync, path: string): void {
  const fact = (pragma: string): unknown => Object.values(database.prepare(`pragma ${pragma}`).get() ?? {})[0]
  if (fact('application_id') === 0)
    alone(database, () => {
      // Another process may have been first.
      if (fact('application_id') !== 0) return
      if (database.prepare('select 1 from sqlite_schema limit 1').get() !== undefined) throw damaged(path, 'it is not a state of Sealpost')
      database.exec(`${STATE_SCHEMA} pragma application_id = ${APPLICATION_ID}; pragma user_version = 1;`)
    })
  if (fact('application_id') !== APPLICATION_ID) throw damaged(path, 'it is not a state of Sealpost')
  const version = fact('user_version')
  if (typeof version !== 'number' || version > STATE_VERSION)
    throw new SealpostError('state_newer', `${path} was written by a newer version of Sealpost`)
  if (version < 1) throw damaged(path, 'it does not say its version')
  if (version < STATE_VERSION)
    alone(database, () => {
      for (const step of STATE_STEPS.slice(Number(fact('user_version')) - 1)) database.exec(step)
      database.exec(`pragma user_version = ${STATE_VERSION}`)
    })
  if (database.prepare('select one from state').get() === undefined) throw damaged(path, 'a part of it is missing')
}

/** One transaction that no other process reads or writes beside. */
function alone(database: DatabaseSync, work: () => void): void {
  database.exec('begin exclusive')
  try {
    work()
    database.exec('commit')
  } catch (error) {
    if (database.isTransaction) database.exec('rollback')
    throw error
  }
}

function createStateDatabase(path: string, durable: DatabaseSync, relaxed: DatabaseSync): StateDatabase {
  const statements = new Map<string, StatementSync>()
  const relaxedStatements = new Map<string, StatementSync>()
  const prepared = (sql: string): StatementSync => remember(statements, durable, sql)
  const guard = <T>(work: () => T): T => translate(path, work)

  return {
    guard,
    run: (sql, ...values) => ({ changes: Number(prepared(sql).run(...values).changes) }),
    get: (sql, ...values) => prepared(sql).get(...values),
    all: (sql, ...values) => prepared(sql).all(...values),
    each(sql, values, take) {
      for (const row of prepared(sql).iterate(...values)) if (!take(row)) break
    },
    transaction: (work) =>
      guard(() => {
        prepared('begin immediate').run()
        try {
          const result = work()
          prepared('commit').run()
          return result
        } catch (error) {
          if (durable.isTransaction) durable.exec('rollback')
          throw error
        }
      }),
    runRelaxed(sql, ...values) {
      guard(() => remember(relaxedStatements, relaxed, sql).run(...values))
    },
    scrub() {
      try {
        durable.exec('pragma secure_delete = on; vacuum; pragma wal_checkpoint(truncate); pragma secure_delete = fast')
      } catch {
        // A reader in another process may hold the old pages; they go with the next checkpoint.
      }
    },
    close() {
      relaxed.close()
      durable.close()
    },
  }
}

function remember(statements: Map<string, StatementSync>, database: DatabaseSync, sql: string): StatementSync {
  let statement = statements.get(sql)
  if (statement === undefined) {
    statement = database.prepare(sql)
    statements.set(sql, statement)
  }
  return statement
}

export function damaged(path: string, why: string, cause?: unknown): SealpostError {
  return new SealpostError('state_damaged', `the state in ${path} is damaged (${why}); nothing was changed`, {
    cause,
    hint: 'restore the folder from a backup, or pair this device again with a new --home',
  })
}

/** SQLite's primary result codes (sqlite.org/rescode.html). */
const SQLITE = {
  BUSY: 5,
  LOCKED: 6,
  READONLY: 8,
  IOERR: 10,
  CORRUPT: 11,
  FULL: 13,
  CANTOPEN: 14,
  NOTADB: 26,
  CONSTRAINT: 19,
  ERROR: 1,
} as const

function translate<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw translated(path, error)
  }
}

function translated(path: string, error: unknown): unknown {
  if (error instanceof SealpostError) return error
  const code = error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' ? error.errcode & 0xff : undefined
  switch (code) {
    case SQLITE.CORRUPT:
    case SQLITE.NOTADB:
      return damaged(path, 'SQLite cannot read it', error)
    case SQLITE.ERROR:
      // All statements are fixed text: a missing table or column is the file's fault.
      return damaged(path, 'a part of it is missing', error)
    case SQLITE.FULL:
      return new SealpostError('disk', `the disk is full; ${path} was not changed`, {
        cause: error,
        hint: 'free some space, then try again',
      })
    case SQLITE.READONLY:
      return new SealpostError('disk', `${path} may not be written by this user, or is on a read-only disk`, { cause: error, hint: RIGHTS })
    case SQLITE.CANTOPEN:
      return new SealpostError('disk', `${path}, or a file beside it, cannot be opened`, { cause: error, hint: RIGHTS })
    case SQLITE.IOERR:
      return new SealpostError('disk', `the disk reports an error at ${path}`, {
        cause: error,
        hint: 'check the disk and the room on it, then try again',
      })
    case SQLITE.BUSY:
    case SQLITE.LOCKED:
      return new SealpostError('disk', `another process has held ${path} for ${BUSY_MS / 1000} s`, {
        cause: error,
        hint: 'end that process, or wait until it is done, then try again',
      })
    default:
      if (error instanceof Error && 'syscall' in error) return diskError(`${path} cannot be opened`, error)
      return error
  }
}
