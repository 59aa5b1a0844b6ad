/** Writes a small file so that after a crash either the old or the new content is there, whole. */
import { open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { SealpostError } from '@sealpost/protocol'

/** Temporary file beside it, fsync, rename, fsync of the folder. Throws `disk`. */
export async function writeDurably(path: string, text: string, mode: number): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.new`)
  try {
    await rm(temporary, { force: true })
    const file = await open(temporary, 'wx', mode)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
    const folder = await open(dirname(path), 'r')
    try {
      await folder.sync()
    } finally {
      await folder.close()
    }
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {})
    throw new SealpostError('disk', `${path} cannot be written (${(cause as NodeJS.ErrnoException).code ?? 'unknown'})`, { cause })
  }
}
