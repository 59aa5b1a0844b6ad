/**
 * The data folder of a relay: `version`, `relay.lock`, `secrets.json`, `postgres/`, `run/`.
 *
 * Owns the folder's lock and its version. At most one relay holds the lock; the kernel gives it back when the process
 * ends, however it ends. It is an SQLite lock, because Node has no other lock with that property.
 */
import { access, chmod, constants, mkdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { diskError, SealpostError, systemCode } from '@sealpost/protocol'
import { removeUnfinished, writeDurably } from './durable-file.ts'

/** Raised when an older version could no longer use the folder. */
const DATA_VERSION = 1
/** A relay that was told to end and one that starts may overlap by this long. */
const LOCK_MS_MAX = 2_000
/** https://www.sqlite.org/rescode.html */
const SQLITE_BUSY = 5
const SQLITE_NOTADB = 26

export type DataFolder = { path: string; close(): void }

/** Makes the folder (0700) when it is missing. Throws `data_in_use`, `data_newer` or `disk`. */
export async function openDataFolder(dir: string): Promise<DataFolder> {
  const path = await makeFolder(dir)
  const lock = await takeLock(path)
  try {
    await checkVersion(path)
    await removeUnfinished(path)
  } catch (error) {
    lock.close()
    throw error
  }
  return { path, close: () => lock.close() }
}

async function makeFolder(dir: string): Promise<string> {
  try {
    const path = resolve(dir)
    const made = await mkdir(path, { recursive: true, mode: 0o700 })
    if (made !== undefined) await chmod(path, 0o700)
    await access(path, constants.R_OK | constants.W_OK | constants.X_OK)
    return path
  } catch (cause) {
    throw diskError(`the data folder ${dir} cannot be used`, cause, 'or name another folder with --data or SEALPOST_DATA')
  }
}

/** One that is ending still holds it for a moment. */
async function takeLock(path: string): Promise<DatabaseSync> {
  const deadline = Date.now() + LOCK_MS_MAX
  for (;;) {
    try {
      return lockFolder(path)
    } catch (error) {
      if (!(error instanceof SealpostError && error.code === 'data_in_use') || Date.now() > deadline) throw error
      await sleep(50)
    }
  }
}

function lockFolder(path: string): DatabaseSync {
  let lock: DatabaseSync | undefined
  try {
    lock = new DatabaseSync(join(path, 'relay.lock'), { timeout: 0 })
    lock.exec('pragma locking_mode = exclusive; begin exclusive')
    return lock
  } catch (cause) {
    lock?.close()
    const { errcode } = cause as { errcode?: number }
    if (errcode === SQLITE_BUSY) throw new SealpostError('data_in_use', `another relay uses the data folder ${path}`, { cause })
    if (errcode === SQLITE_NOTADB)
      throw new SealpostError('disk', `${path}/relay.lock is damaged: it should be empty; remove it while no relay runs on the folder`, {
        cause,
      })
    throw new SealpostError('disk', `the data folder ${path} cannot be used; check its owner and that the disk has room`, { cause })
  }
}

async function checkVersion(path: string): Promise<void> {
  const file = join(path, 'version')
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return null
    throw diskError(`${file} cannot be read`, error)
  })
  if (text === null) {
    await writeDurably(file, `${DATA_VERSION}\n`, 0o600)
    return
  }
  const version = Number(text.trim())
  if (!/^\d{1,6}\s*$/.test(text))
    throw new SealpostError('state_damaged', `${file} is damaged: it should hold one number; nothing was changed`, {
      hint: `put it back from a backup; the number of this version of sealpost is ${DATA_VERSION}`,
    })
  if (version <= DATA_VERSION) return
  const sentence = `the data folder ${path} was written by a newer version (format ${version}, this one knows ${DATA_VERSION})`
  throw new SealpostError('data_newer', sentence)
}
