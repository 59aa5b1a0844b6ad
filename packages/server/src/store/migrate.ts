/**
 * Brings a database to the schema of this version: each migration once, in order, in a transaction of its own with its
 * row in `sealpost_migration`, under an advisory lock, so that nodes that start together do it one after another.
 */
import { SealpostError } from '@sealpost/protocol'
import { Client, type ClientConfig } from 'pg'
import { MIGRATIONS } from './migrations/index.ts'
import { toSealpostError } from './pool.ts'

/** Of PostgreSQL, the major versions. */
export const POSTGRES_VERSIONS = { min: 14, max: 18 } as const

/** Any number that no other application uses: "sealpost" in ASCII would not fit, its first seven bytes do. */
const LOCK = '0x7365616c706f73'
const CONNECT_MS = 5_000

/**
 * Returns the versions that were applied now. Throws `data_newer` when a newer version of Sealpost has migrated the
 * database, `invalid_config` for a PostgreSQL outside 14 to 18, `unavailable` when it does not answer.
 */
export async function migrate(config: ClientConfig): Promise<number[]> {
  const client = new Client({ connectionTimeoutMillis: CONNECT_MS, ...config })
  // what breaks is reported by the statement that waits for it
  client.on('error', () => {})
  try {
    await client.connect()
    await checkServer(client)
    await client.query('select pg_advisory_lock($1)', [BigInt(LOCK).toString()])
    return await applyMissing(client)
  } catch (error) {
    throw toSealpostError(error)
  } finally {
    // ends the session and with it the lock; a server that is gone has nothing to be told
    await client.end().catch(() => {})
  }
}

async function checkServer(client: Client): Promise<void> {
  const { rows } = await client.query<{ version: number; encoding: string }>(
    `select current_setting('server_version_num')::int4 / 10000 as version, current_setting('server_encoding') as encoding`,
  )
  const { version = 0, encoding = '' } = rows[0] ?? {}
  if (version < POSTGRES_VERSIONS.min || version > POSTGRES_VERSIONS.max)
    throw new SealpostError(
      'invalid_config',
      `PostgreSQL ${POSTGRES_VERSIONS.min} to ${POSTGRES_VERSIONS.max} is needed, this is ${version}`,
    )
  if (encoding !== 'UTF8') throw new SealpostError('invalid_config', `the database must be in UTF8, this one is in ${encoding}`)
}

async function applyMissing(client: Client): Promise<number[]> {
  await client.query(`create table if not exists sealpost_migration (
    version int4 primary key, name text not null, applied_at timestamptz not null default now())`)
  const { rows } = await client.query<{ version: number }>('select version from sealpost_migration')
  const known = new Set(rows.map((row) => row.version))
  const newest = Math.max(0, ...known)
  if (newest > (MIGRATIONS.at(-1)?.version ?? 0))
    throw new SealpostError('data_newer', 'the database was migrated by a newer version of Sealpost; start that version')
  const applied: number[] = []
  for (const { version, name, sql } of MIGRATIONS) {
    if (known.has(version)) continue
    await client.query('begin')
    await client.query(sql)
    await client.query('insert into sealpost_migration (version, name) values ($1, $2)', [version, name])
    await client.query('commit')
    applied.push(version)
  }
  return applied
}
