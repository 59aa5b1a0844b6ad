/**
 * What is in the folder of the embedded database before anything is made or started there: nothing, a database of the PostgreSQL that npm
 * brought, or something that this version cannot use. It reads and changes nothing.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { diskError, SealpostError, systemCode } from '@sealpost/protocol'

const CHANGED = 'nothing was changed'

/** False when there is no database yet. `major`: the one that is brought. Throws `disk`, `data_newer` or `state_damaged`. */
export async function hasCluster(cluster: string, major: number): Promise<boolean> {
  const [names, text] = await Promise.all([readFolder(cluster), readVersion(cluster)])
  if (names.length === 0) return false
  if (text === null)
    throw new SealpostError('state_damaged', `${cluster} holds files and no PG_VERSION: it is no whole database; ${CHANGED}`, {
      hint: 'put a backup in its place; or move the folder away, and the next start makes an empty database',
    })
  const found = Number(text.trim())
  // before 10 the major version had two parts
  if (!Number.isFinite(found) || found < 1)
    throw new SealpostError('state_damaged', `PG_VERSION in ${cluster} is damaged or was never written; ${CHANGED}`, {
      hint: 'put a backup in its place; where no relay ever started here, move the folder away and start again',
    })
  if (found === major) return true
  const sentence = `the database in ${cluster} is of PostgreSQL ${text.trim()}, and this version brings PostgreSQL ${major}; ${CHANGED}`
  if (found > major) throw new SealpostError('data_newer', sentence)
  throw new SealpostError('disk', sentence, {
    hint: `start the version of sealpost that made it; or run pg_upgrade to ${major}; or run a PostgreSQL ${text.trim()} on it and set DATABASE_URL`,
  })
}

async function readFolder(cluster: string): Promise<string[]> {
  return readdir(cluster).catch((cause: unknown) => {
    if (systemCode(cause) === 'ENOENT') return []
    throw diskError(`the folder of the database ${cluster} cannot be read`, cause)
  })
}

async function readVersion(cluster: string): Promise<string | null> {
  const file = join(cluster, 'PG_VERSION')
  return readFile(file, 'utf8').catch((cause: unknown) => {
    const code = systemCode(cause)
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    throw diskError(`${file} cannot be read`, cause)
  })
}
