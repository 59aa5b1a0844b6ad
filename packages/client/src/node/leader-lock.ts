/**
 * The lock of the one leading process: an exclusive transaction, never committed, on an empty SQLite file. The operating
 * system holds it for the process and drops it with the process, however that ends, so neither kill -9 nor a process id
 * used again can fool it. SQLite also keeps two connections of one process apart, which bare fcntl locks do not.
 */
import { closeSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { SealpostError } from '@sealpost/protocol'

export type LeaderLock = { release(): void }

const SQLITE_BUSY = 5

/** The lock, or null when another process has it. Throws `disk`. */
export function takeLeaderLock(path: string): LeaderLock | null {
  let database: DatabaseSync | undefined
  try {
    closeSync(openSync(path, 'a', 0o600))
    database = new DatabaseSync(path, { timeout: 0 })
    database.exec('begin exclusive')
    const held = database
    return {
      release() {
        if (held.isOpen) held.close()
      },
    }
  } catch (cause) {
    database?.close()
    if (cause instanceof Error && 'errcode' in cause && cause.errcode === SQLITE_BUSY) return null
    throw new SealpostError('disk', `${path} cannot be locked`, { cause })
  }
}
