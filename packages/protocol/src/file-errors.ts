/**
 * What an error of the file system means to a person: the cause in words, and what to do. THE list for devices and relays. It makes no
 * call of the system: what it is given is what a call has thrown.
 */
import { SealpostError } from './errors.ts'

type Row = { says: string; hint: string }

const RIGHTS = 'give the user that runs sealpost the right to it (chown, chmod)'
const FILE_ERRORS: Readonly<Record<string, Row>> = {
  EACCES: { says: 'this user has no right to it', hint: RIGHTS },
  EPERM: { says: 'the system does not let this user do it', hint: RIGHTS },
  EROFS: { says: 'the file system is read-only', hint: 'mount it for writing' },
  ENOENT: { says: 'there is no such file or folder', hint: 'check the path, and make the folder that it is in' },
  ENOTDIR: { says: 'a part of the path is a file, not a folder', hint: 'check the path, or move that file away' },
  EEXIST: { says: 'there is a file in its place', hint: 'check the path, or move that file away' },
  EISDIR: { says: 'it is a folder, not a file', hint: 'check the path: name a file' },
  ENOTEMPTY: { says: 'the folder in its place is not empty', hint: 'look what is in it, then move it away' },
  ELOOP: { says: 'its symbolic links lead back to themselves', hint: 'check the path with ls -l, and mend the links' },
  ENAMETOOLONG: { says: 'the path is too long', hint: 'name a shorter path' },
  ENOSPC: { says: 'the disk is full', hint: 'free some space or inodes on that disk, then try again' },
  EDQUOT: { says: 'the disk quota of this user is used up', hint: 'free some space, or have the quota raised' },
  EFBIG: { says: 'the file would be larger than this process may write', hint: 'raise the limit (ulimit -f), then try again' },
  EIO: { says: 'the disk reports an error', hint: 'check the disk and the log of the system, then try again' },
  ESTALE: { says: 'the network file system has lost it', hint: 'mount the file system again, then try again' },
  EMFILE: { says: 'this process has too many files open', hint: 'raise the limit of open files (ulimit -n), then try again' },
  ENFILE: { says: 'the system has too many files open', hint: 'raise fs.file-max, or stop something, then try again' },
}

/** The code of a call of the system that failed; null for every other error. */
export function systemCode(error: unknown): string | null {
  if (!(error instanceof Error && 'syscall' in error && 'code' in error)) return null
  return typeof error.code === 'string' ? error.code : null
}

/** The cause in words, those of SQLite for its own errors; the code itself where there are none. */
export function fileCause(error: unknown): string {
  const code = systemCode(error)
  const words = code === null ? undefined : FILE_ERRORS[code]?.says
  if (words !== undefined) return words
  if (error instanceof Error && 'errstr' in error) return String(error.errstr)
  return code ?? (error instanceof Error && 'code' in error ? String(error.code) : 'the cause is not known')
}

/** `what` is what could not be done, as a sentence. `instead` is another way out, behind the one of the list. */
export function diskError(what: string, cause: unknown, instead?: string): SealpostError {
  const { hint } = FILE_ERRORS[systemCode(cause) ?? ''] ?? { hint: 'check the path, its owner and the disk, then try again' }
  return new SealpostError('disk', `${what}: ${fileCause(cause)}`, { cause, hint: instead === undefined ? hint : `${hint}, ${instead}` })
}

/** A path as a shell takes it. */
export function quotePath(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
