/**
 * Brings a database to the schema of this version: each migration once, in order, in a transaction of its own with its
 * row in `sealpost_migration`, under an advisory lock of that transaction, so that nodes that start together do it one after another.
 * Nothing is asked of the connection between two of them: behind a pooler each may be on another one.
 */
import { SealpostError } from '@sealpost/protocol'
import { Client, type ClientConfig } from 'pg'
import { MIGRATIONS } from './migrations/index.ts'
import { toSealpostError } from './pool.ts'

/** Of PostgreSQL, the major versions. */
export const POSTGRES_VERSIONS = { min: 14, max: 18 } as const

/** Any number that no other application uses: "sealpost" in ASCII would not fit, its first seven bytes do. */
const LOCK = 0x7365616c706f73n
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
    const applied: number[] = []
    for (let next = await applyNext(client); next !== null; next = await applyNext(client)) applied.push(next)
    return applied
  } catch (error) {
    throw toSealpostError(error)
  } finally {
    // rolls back what is open; a server that is gone has nothing to be told
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

/** The version that was applied; null when none is missing. */
async function applyNext(client: Client): Promise<number | null> {
  await client.query(`begin isolation level read committed; set local synchronous_commit = on; select pg_advisory_xact_lock(${LOCK})`)
  // statements of their own, after the lock: whoever had it before has committed
  await client.query(`create table if not exists sealpost_migration (
    version int4 primary key, name text not null, applied_at timestamptz not null default now())`)
  const { rows } = await client.query<{ version: number }>('select version from sealpost_migration')
  const known = new Set(rows.map((row) => row.version))
  if (Math.max(0, ...known) > (MIGRATIONS.at(-1)?.version ?? 0))
    throw new SealpostError('data_newer', 'the database was migrated by a newer version of Sealpost; start that version')
  const next = MIGRATIONS.find(({ version }) => !known.has(version))
  if (next !== undefined) {
    await client.query(next.sql)
    await client.query('insert into sealpost_migration (version, name) values ($1, $2)', [next.version, next.name])
  }
  await client.query('commit')
  return next?.version ?? null
}
