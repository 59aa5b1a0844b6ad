/**
 * What all processes of a relay on one machine stand on, opened by one of them: data folder → secrets → database → migrations. The lock
 * of the folder is held, and the embedded database runs, until it is closed. A start that fails closes what it had opened.
 */
import { SealpostError } from '@sealpost/protocol'
import { join } from 'node:path'
import type { ClientConfig } from 'pg'
import type { Config } from '../config/config.ts'
import { openDataFolder } from './data-folder.ts'
import type { Log } from '../telemetry/log.ts'
import { openSecrets, type Secrets } from './secrets.ts'
import { type Database, openEmbeddedDatabase, openExternalDatabase } from '../store/postgres/database.ts'
import { migrate } from '../store/postgres/migrate.ts'
import type { Pooler } from '../store/postgres/pooler.ts'

export type Foundation = { secrets: Secrets; connection: ClientConfig; pooler: Pooler }

export type FoundationOptions = { logger: Log; test?: boolean | undefined; signal?: AbortSignal | undefined }

type FoundationConfig = Pick<Config, 'data_dir' | 'secrets_file' | 'database_url' | 'database_wait_ms_max' | 'database_pooler' | 'workers'>

/** Between the steps of a start: throws `aborted` when nobody wants it any more. */
export function checkWanted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new SealpostError('aborted', 'the start was given up')
}

/** Throws `aborted` by the signal, and what its parts throw. */
export async function openFoundation(
  config: FoundationConfig,
  options: FoundationOptions,
): Promise<Foundation & { close(): Promise<void> }> {
  const { logger, signal } = options
  const folder = await openDataFolder(config.data_dir)
  let database: Database | undefined
  const close = async (): Promise<void> => {
    await database?.stop().catch((error: unknown) => logger.error({ err: error }, 'the database did not stop'))
    folder.close()
  }
  try {
    const secrets = await openSecrets(config.secrets_file ?? join(folder.path, 'secrets.json'))
    database =
      config.database_url === null
        ? await openEmbeddedDatabase({ data_dir: folder.path, logger, test: options.test, processes: config.workers })
        : await openExternalDatabase(config.database_url, logger, config.database_wait_ms_max, signal, config.database_pooler)
    checkWanted(signal)
    await migrate(database.connection)
    checkWanted(signal)
    const { connection, pooler } = database
    return { secrets, connection, pooler, close }
  } catch (error) {
    await close()
    throw error
  }
}
