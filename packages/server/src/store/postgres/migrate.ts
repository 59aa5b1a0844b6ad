/**
 * Brings a database to the schema of this version: each migration once, in order, in a transaction of its own with its
 * row in `sealpost_migration`, under an advisory lock of that transaction, so that nodes that start together do it one after another.
 * Nothing is asked of the connection between two of them: behind a pooler each may be on another one.
 */
import { SealpostError } from '@sealpost/protocol'
import { Client, type ClientConfig, DatabaseError } from 'pg'
import { MIGRATIONS } from '../migrations/index.ts'
import { toSealpostError } from './pool.ts'
import { type Names, namesOf, startRefused } from './refusals.ts'

/** Of PostgreSQL, the major versions. */
export const POSTGRES_VERSIONS = { min: 14, max: 18 } as const

/** To whoever has a database in another encoding. */
export const MAKE_UTF8 = "make one with: create database sealpost encoding 'UTF8' template template0; and name it with DATABASE_URL"

/** Any number that no other application uses: "sealpost" in ASCII would not fit, its first seven bytes do. */
const LOCK = 0x7365616c706f73n
const CONNECT_MS = 5_000

/**
 * Returns the versions that were applied now. Throws `data_newer` when a newer version of Sealpost has migrated the
 * database, `invalid_config` for a PostgreSQL outside 14 to 18, and what `refusals.ts` has for what it refuses.
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
    throw error instanceof SealpostError ? error : await refusal(client, config, error)
  } finally {
    // rolls back what is open; a server that is gone has nothing to be told
    await client.end().catch(() => {})
  }
}

/** What the server refused, with the names that it has for what is missing. */
async function refusal(client: Client, config: ClientConfig, error: unknown): Promise<SealpostError> {
  const external = config.connectionString !== undefined
  // one of our own that does not answer was just started, or just died
  if (!external && !(error instanceof DatabaseError)) return toSealpostError(error)
  const asked = error instanceof DatabaseError ? await askNames(client).catch(() => null) : null
  const database = external ? 'the database of DATABASE_URL' : 'the database'
  return startRefused(error, database, asked ?? namesOf(config), asked?.creating)
}

async function askNames(client: Client): Promise<Names & { creating: boolean }> {
  await client.query('rollback')
  const { rows } = await client.query<Names & { creating: boolean }>(
    `select current_user as role, current_database() as database, coalesce(current_schema(), 'public') as schema,
      not coalesce(has_schema_privilege(current_schema(), 'create'), false)
        and coalesce(has_table_privilege(to_regclass('sealpost_migration'), 'select'), true) as creating`,
  )
  if (rows[0] === undefined) throw new TypeError('the statement answers one row')
  return rows[0]
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
      { hint: 'name another server with DATABASE_URL, or update this one' },
    )
  if (encoding !== 'UTF8')
    throw new SealpostError('invalid_config', `the database must be in UTF8, this one is in ${encoding}`, {
      hint: MAKE_UTF8,
    })
}

/** The version that was applied; null when none is missing. */
async function applyNext(client: Client): Promise<number | null> {
  await client.query(`begin isolation level read committed; set local synchronous_commit = on; select pg_advisory_xact_lock(${LOCK})`)
  // statements of their own, after the lock: whoever had it before has committed
  const { rows: tables } = await client.query(`select where to_regclass('sealpost_migration') is not null`)
  // who may make no table may still use those that are there
  if (tables.length === 0)
    await client.query(`create table sealpost_migration (
      version int4 primary key, name text not null, applied_at timestamptz not null default now())`)
  const { rows } = await client.query<{ version: number }>('select version from sealpost_migration')
  const known = new Set(rows.map((row) => row.version))
  if (Math.max(0, ...known) > (MIGRATIONS.at(-1)?.version ?? 0))
    throw new SealpostError('data_newer', 'the database was migrated by a newer version of Sealpost; nothing was changed', {
      hint: 'start that version, or name another database',
    })
  const next = MIGRATIONS.find(({ version }) => !known.has(version))
  if (next !== undefined) {
    await client.query(next.sql)
    await client.query('insert into sealpost_migration (version, name) values ($1, $2)', [next.version, next.name])
  }
  await client.query('commit')
  return next?.version ?? null
}
