/**
 * The folder of a home: 0700, files 0600. A home that others can read is refused, not repaired: whoever could read it
 * may have read it, and the person has to know.
 */
import { lstatSync, mkdirSync, readdirSync, realpathSync, type Stats } from 'node:fs'
import { join, resolve } from 'node:path'
import { SealpostError } from '@sealpost/protocol'

export const FILES = { state: 'sealpost.sqlite', lock: 'leader.lock', socket: 'leader.sock' } as const

const OTHERS = 0o077

/** Makes the folder or checks it and its files; returns its absolute path. Throws `insecure_permissions`, `disk`. */
export function openHomeFolder(dir: string): string {
  let path = resolve(dir)
  let stats = statOf(path)
  if (stats?.isSymbolicLink() === true) {
    path = realpathSync(path)
    stats = statOf(path)
  }
  if (stats === undefined) {
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 })
    } catch (cause) {
      throw new SealpostError('disk', `the folder ${path} cannot be made`, { cause })
    }
    stats = statOf(path)
  }
  if (stats?.isDirectory() !== true) throw new SealpostError('disk', `${path} is not a folder`)
  // Windows has no such modes; there the folder's inherited access list rules.
  if (process.platform === 'win32') return path
  checkPrivate(path, stats, '700')
  for (const name of namesIn(path)) {
    if (!name.startsWith(FILES.state) && name !== FILES.lock) continue
    const file = join(path, name)
    const fileStats = statOf(file)
    // SQLite removes -wal and -shm when the last process closes.
    if (fileStats === undefined) continue
    if (!fileStats.isFile()) throw new SealpostError('insecure_permissions', `${file} is not a plain file; remove it or use another home`)
    checkPrivate(file, fileStats, '600')
  }
  return path
}

function checkPrivate(path: string, stats: Stats, mode: string): void {
  if ((stats.mode & OTHERS) !== 0)
    throw new SealpostError(
      'insecure_permissions',
      `others can read ${path}, which holds private keys; make it yours alone: chmod ${mode} ${quote(path)}`,
    )
  const uid = process.getuid?.()
  if (uid !== undefined && uid !== 0 && stats.uid !== uid)
    throw new SealpostError('insecure_permissions', `${path} belongs to another user; use a home of your own`)
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch (cause) {
    throw new SealpostError('disk', `${path} cannot be read`, { cause })
  }
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path)
  } catch (cause) {
    throw new SealpostError('disk', `the folder ${path} cannot be read`, { cause })
  }
}

function quote(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
