/**
 * The folder of a home: 0700, files 0600. A home that others can read is refused, not repaired: whoever could read it
 * may have read it, and the person has to know.
 */
import { closeSync, lstatSync, mkdirSync, openSync, readdirSync, realpathSync, type Stats } from 'node:fs'
import { join, resolve } from 'node:path'
import { diskError, quotePath, SealpostError, systemCode } from '@sealpost/protocol'

export const FILES = { state: 'sealpost.sqlite', lock: 'leader.lock', socket: 'leader.sock' } as const

const OTHERS = 0o077
const OTHER_HOME = 'or name another home with --home DIR'

/** Makes the folder or checks it and its files; returns its absolute path. Throws `insecure_permissions`, `disk`. */
export function openHomeFolder(dir: string): string {
  let path = resolve(dir)
  let stats = statOf(path)
  if (stats?.isSymbolicLink() === true) {
    path = realPath(path)
    stats = statOf(path)
  }
  if (stats === undefined) {
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 })
    } catch (cause) {
      throw diskError(`the folder ${path} cannot be made`, cause, OTHER_HOME)
    }
    stats = statOf(path)
  }
  if (stats?.isDirectory() !== true) throw new SealpostError('disk', `${path} is not a folder`, { hint: `check the path, ${OTHER_HOME}` })
  // Windows has no such modes; there the folder's inherited access list rules.
  if (process.platform === 'win32') return path
  checkPrivate(path, stats, '700')
  for (const name of namesIn(path)) {
    if (!name.startsWith(FILES.state) && name !== FILES.lock) continue
    const file = join(path, name)
    const fileStats = statOf(file)
    // SQLite removes -wal and -shm when the last process closes.
    if (fileStats === undefined) continue
    if (!fileStats.isFile())
      throw new SealpostError('insecure_permissions', `${file} is not a plain file`, { hint: `move it away, ${OTHER_HOME}` })
    checkPrivate(file, fileStats, '600')
  }
  return path
}

/**
 * An empty file of mode 0600, where there is none. One that is there is not opened: to close it would take back every lock that this process
 * has on it (fcntl(2)).
 */
export function createPrivateFile(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
  } catch (cause) {
    if (systemCode(cause) !== 'EEXIST') throw cause
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch (cause) {
    throw diskError(`${path} cannot be read`, cause, OTHER_HOME)
  }
}

function checkPrivate(path: string, stats: Stats, mode: string): void {
  if ((stats.mode & OTHERS) !== 0)
    throw new SealpostError('insecure_permissions', `others can read ${path}, which holds private keys`, {
      hint: `make it yours alone: chmod ${mode} ${quotePath(path)}`,
    })
  const uid = process.getuid?.()
  if (uid !== undefined && uid !== 0 && stats.uid !== uid)
    throw new SealpostError('insecure_permissions', `${path} belongs to another user`, { hint: `run this as its owner, ${OTHER_HOME}` })
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch (cause) {
    throw diskError(`${path} cannot be read`, cause, OTHER_HOME)
  }
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path)
  } catch (cause) {
    throw diskError(`the folder ${path} cannot be read`, cause, OTHER_HOME)
  }
}
