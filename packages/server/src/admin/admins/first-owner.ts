/**
 * The first owner of a relay (G24): written by whoever has its data folder or its database, for nobody else can. With a relay at work on
 * the folder its PostgreSQL is used, otherwise one is started for this. That it was done stands in the audit log.
 */
import { adminIdOf, type Bytes, diskError, SealpostError, systemCode } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ClientConfig } from 'pg'
import { adminName } from '../../audit/entry.ts'
import type { Config } from '../../config/config.ts'
import { openDataFolder } from '../../data/data-folder.ts'
import type { Log } from '../../telemetry/log.ts'
import { openEmbeddedDatabase, openExternalDatabase } from '../../store/postgres/database.ts'
import { findRunningPostgres } from '../../store/postgres/embedded-postgres.ts'
import { migrate } from '../../store/postgres/migrate.ts'
import { createStore } from '../../store/store.ts'
import type { Pooler } from '../../store/postgres/pooler.ts'
import { givenName } from './fields.ts'

export type FirstOwner = {
  name: string
  public_key: Bytes
  /** Also when there is an owner: for those who lost the keys of all. */
  another: boolean
}

type DatabaseConfig = Pick<Config, 'data_dir' | 'database_url' | 'database_wait_ms_max'> & Partial<Pick<Config, 'database_pooler'>>

/** SHA-256 of the server key, which pins the relay; null when it was never started. Throws `admin_exists`, and `invalid_config` for a name that is none. */
export async function writeFirstOwner(
  config: DatabaseConfig,
  owner: FirstOwner,
  logger: Log,
): Promise<{ admin_id: string; server_key_hash: Bytes | null }> {
  if (!givenName.safeParse(owner.name).success)
    throw new SealpostError('invalid_config', 'the name is not one for an admin', {
      hint: 'give 1 to 64 letters, digits, blanks and ._@- with --name',
    })
  return withDatabase(config, logger, async (connection, pooler) => {
    await migrate(connection)
    const store = await createStore({ connection, pooler, log: logger })
    try {
      const { name, public_key, another } = owner
      const admin_id = await adminIdOf(nodeCrypto, public_key)
      const trace = { actor: 'server', action: 'admin_created', target: adminName(admin_id), detail: { name, another } }
      await store.appendAudit([{ ...trace, outcome: 'begun' }])
      const added = await store.addAdmin({ admin_id, role: 'owner', name, public_key }, !another)
      await store.appendAudit([{ ...trace, outcome: added.is === 'ok' ? 'done' : 'refused' }])
      if (added.is === 'exists')
        throw another
          ? new SealpostError('admin_exists', 'there is an admin of that name or key already', { hint: 'give another name with --name' })
          : new SealpostError('admin_exists', 'this relay has an owner already', {
              hint: 'ask that owner for sealpost admin add; where the keys of all owners are lost: sealpost admin init --another',
            })
      return { admin_id, server_key_hash: await store.readServerKeyHash() }
    } finally {
      await store.close()
    }
  })
}

async function withDatabase<T>(
  config: DatabaseConfig,
  logger: Log,
  use: (connection: ClientConfig, pooler?: Pooler) => Promise<T>,
): Promise<T> {
  const { data_dir, database_url, database_wait_ms_max, database_pooler } = config
  if (database_url !== null) {
    const { connection, pooler } = await openExternalDatabase(database_url, logger, database_wait_ms_max, undefined, database_pooler)
    return use(connection, pooler)
  }
  // a folder that is not there would be made, and belong to no relay
  if (!(await isThere(join(data_dir, 'version'))))
    throw new SealpostError('invalid_config', `there is no relay in ${data_dir}`, {
      hint: 'start it once (sealpost serve), or name its folder with --data, or its database with DATABASE_URL',
    })
  const running = await findRunningPostgres(data_dir)
  if (running !== null) return use(running)
  const folder = await openDataFolder(data_dir)
  try {
    const database = await openEmbeddedDatabase({ data_dir: folder.path, logger })
    try {
      return await use(database.connection)
    } finally {
      await database.stop()
    }
  } finally {
    folder.close()
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(cause) ?? '')) return false
    throw diskError(`${path} cannot be read`, cause)
  }
}
