/** A file for the recovery words: new, 0600, on disk (its name too) before `write` resolves. An existing file is never touched. */
import { type FileHandle, open, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { diskError, SealpostError } from '@sealpost/protocol'

export type RecoveryFile = { path: string; write(words: string): Promise<void>; discard(): Promise<void> }

/** Makes the file before the account exists, so that a bad path costs nothing. Throws `invalid_request` (it exists), `disk`. */
export async function createRecoveryFile(name: string): Promise<RecoveryFile> {
  const path = resolve(name)
  let file: FileHandle
  try {
    file = await open(path, 'wx', 0o600)
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EEXIST')
      throw new SealpostError('invalid_request', `${path} exists already and is not overwritten`, {
        cause,
        hint: 'name another file with --recovery-file',
      })
    throw diskError(`the recovery file ${path} cannot be made`, cause)
  }
  return {
    path,
    async write(words) {
      try {
        await file.chmod(0o600)
        await file.writeFile(`${words}\n`)
        await file.sync()
        await syncFolder(dirname(path))
      } catch (cause) {
        throw diskError(`the recovery file ${path} cannot be written`, cause)
      } finally {
        await file.close()
      }
    },
    async discard() {
      await file.close().catch(() => {})
      await rm(path, { force: true })
    },
  }
}

async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
