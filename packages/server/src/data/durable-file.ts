/** Writes a small file so that after a crash either the old or the new content is there, whole. */
import { randomBytes } from 'node:crypto'
import { link, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { diskError } from '@sealpost/protocol'

/**
 * Temporary file beside it, fsync, then its name, fsync of the folder. Throws `disk`. With `keep` an existing file wins:
 * of two processes that make it at the same time one does, and both read the same.
 */
export async function writeDurably(path: string, text: string, mode: number, options: { keep?: boolean } = {}): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.new`)
  try {
    const file = await open(temporary, 'wx', mode)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    if (options.keep === true) {
      await link(temporary, path).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      })
      await rm(temporary)
    } else {
      await rename(temporary, path)
    }
    const folder = await open(dirname(path), 'r')
    try {
      await folder.sync()
    } finally {
      await folder.close()
    }
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {})
    throw diskError(`${path} cannot be written`, cause)
  }
}

/** Takes away what writes left that were cut short. Nobody else may write in the folder meanwhile. */
export async function removeUnfinished(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => /^\..+\.[0-9a-f]{12}\.new$/.test(name))
  for (const name of names) await rm(join(folder, name), { force: true })
}
