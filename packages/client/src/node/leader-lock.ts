/**
 * The lock of the one leading process: an exclusive transaction, never committed, on an empty SQLite file. The operating
 * system holds it for the process and drops it with the process, however that ends, so neither kill -9 nor a process id
 * used again can fool it. SQLite also keeps two connections of one process apart, which bare fcntl locks do not.
 */
import { truncateSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { diskError } from '@sealpost/protocol'
import { createPrivateFile } from './home-folder.ts'

export type LeaderLock = { release(): void }

/** SQLite's primary result codes (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5
const SQLITE_NOTADB = 26

/** The lock, or null when another process has it. Throws `disk`. */
export function takeLeaderLock(path: string): LeaderLock | null {
  try {
    createPrivateFile(path)
    return lockFile(path)
  } catch (cause) {
    switch (resultOf(cause)) {
      case SQLITE_BUSY:
        return null
      case SQLITE_NOTADB:
        return takeDamagedLock(path)
      default:
        throw diskError(`the lock ${path} cannot be taken`, cause)
    }
  }
}

/** The file never holds anything: whatever is in it was put there by something else. Who reads it as damaged knows that nobody holds it. */
function takeDamagedLock(path: string): LeaderLock | null {
  try {
    truncateSync(path)
    return lockFile(path)
  } catch (cause) {
    if (resultOf(cause) === SQLITE_BUSY) return null
    throw diskError(`the lock ${path} is damaged, and cannot be emptied`, cause)
  }
}

function lockFile(path: string): LeaderLock {
  const database = new DatabaseSync(path, { timeout: 0 })
  try {
    database.exec('begin exclusive')
  } catch (error) {
    database.close()
    throw error
  }
  return {
    release() {
      if (database.isOpen) database.close()
    },
  }
}

function resultOf(cause: unknown): number | null {
  return cause instanceof Error && 'errcode' in cause && typeof cause.errcode === 'number' ? cause.errcode & 0xff : null
}
