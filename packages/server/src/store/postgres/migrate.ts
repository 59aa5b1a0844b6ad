/**
 * Brings a database to the schema of this version (`schema-files.ts`): tables that are missing, then functions whose text is another
 * than the one that was applied. All of it is one transaction under an advisory lock, so nodes that start together do it once, and a
 * start that finds nothing to do writes nothing. A pooler may lend the connection for this one transaction.
 */
import { SealpostError } from '@sealpost/protocol'
import { Client, type ClientConfig, DatabaseError } from 'pg'
import { toSealpostError } from './pool.ts'
import { type Names, namesOf, startRefused } from './refusals.ts'
import { type FunctionFile, readSchema, type Schema } from './schema-files.ts'

/** Of PostgreSQL, the major versions. */
export const POSTGRES_VERSIONS = { min: 14, max: 18 } as const

/** To whoever has a database in another encoding. */
export const MAKE_UTF8 = "make one with: create database sealpost encoding 'UTF8' template template0; and name it with DATABASE_URL"

/** Any number that no other application uses: "sealpost" in ASCII would not fit, its first seven bytes do. */
const LOCK = 0x7365616c706f73n
const CONNECT_MS = 5_000

/**
 * Returns the names of the tables and functions that were applied now. Throws `data_newer` when a newer version of Sealpost has migrated
 * the database, `invalid_config` for a PostgreSQL outside 14 to 18, and what `refusals.ts` has for what it refuses.
 */
export async function migrate(config: ClientConfig, schema: Schema = readSchema()): Promise<string[]> {
  const client = new Client({ connectionTimeoutMillis: CONNECT_MS, ...config })
  // what breaks is reported by the statement that waits for it
  client.on('error', () => {})
  try {
    await client.connect()
    await checkServer(client)
    return await apply(client, schema)
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

/** What the database has of a schema: versions of tables, and hashes of functions (`null`: it was dropped). */
type Applied = { tables: readonly number[]; functions: ReadonlyMap<string, string | null> }

async function apply(client: Client, schema: Schema): Promise<string[]> {
  await client.query(`begin isolation level read committed; set local synchronous_commit = on; select pg_advisory_xact_lock(${LOCK})`)
  // statements of their own, after the lock: whoever had it before has committed
  const applied = await readApplied(client, schema)
  const tables = schema.tables.filter(({ version }) => !applied.tables.includes(version))
  const functions = schema.functions.filter(({ name, sha256 }) => applied.functions.get(name) !== sha256)
  const gone = [...applied.functions].filter(([name, hash]) => hash !== null && !schema.functions.some((file) => file.name === name))
  for (const { version, name, sql } of tables) {
    await client.query(sql)
    await client.query('insert into sealpost_migration (version, name) values ($1, $2)', [version, name])
  }
  // functions may call each other, whatever their order
  if (functions.length > 0) await client.query('set local check_function_bodies = off')
  for (const file of functions) await replaceFunction(client, file)
  for (const [name] of gone) await dropFunctions(client, await findFunctions(client, name))
  const rows = [...functions.map(({ name, sha256 }) => [name, sha256] as const), ...gone.map(([name]) => [name, null] as const)]
  for (const [name, sha256] of rows)
    await client.query(
      `insert into sealpost_function (name, sha256, version) values ($1, $2, $3)
       on conflict (name) do update set sha256 = excluded.sha256, version = excluded.version, applied_at = now()`,
      [name, sha256, schema.version],
    )
  await client.query('commit')
  return [...tables, ...functions].map(({ name }) => name)
}

async function readApplied(client: Client, schema: Schema): Promise<Applied> {
  const { rows: known } = await client.query(`select where to_regclass('sealpost_migration') is not null`)
  // a user who may make no table may still use those that are there
  if (known.length === 0) await client.query(RECORDS)
  const { rows: tables } = await client.query<{ version: number }>('select version from sealpost_migration')
  const { rows: functions } = await client.query<{ name: string; sha256: string | null; version: number }>(
    'select name, sha256, version from sealpost_function',
  )
  if (Math.max(0, ...[...tables, ...functions].map(({ version }) => version)) > schema.version)
    throw new SealpostError('data_newer', 'the database was migrated by a newer version of Sealpost; nothing was changed', {
      hint: 'start that version, or name another database',
    })
  return { tables: tables.map(({ version }) => version), functions: new Map(functions.map(({ name, sha256 }) => [name, sha256])) }
}

const RECORDS = `
create table sealpost_migration (
  version int4 primary key, name text not null, applied_at timestamptz not null default now());
create table sealpost_function (
  name text primary key, sha256 text, version int4 not null, applied_at timestamptz not null default now())`

/** PostgreSQL refuses to replace a function by one with another result. */
const OTHER_RESULT = '42P13'

/** A function of the same parameters is replaced in place, so that running nodes go on with it. Every other one of its name goes. */
async function replaceFunction(client: Client, { name, sql }: FunctionFile): Promise<void> {
  const before = await findFunctions(client, name)
  await client.query('savepoint replaced')
  try {
    await client.query(sql)
  } catch (error) {
    if (!(error instanceof DatabaseError && error.code === OTHER_RESULT)) throw error
    await client.query('rollback to savepoint replaced')
    await dropFunctions(client, before)
    await client.query(sql)
  }
  await client.query('release savepoint replaced')
  const after = await findFunctions(client, name)
  if (after.length > 1) await dropFunctions(client, before)
}

/** Signatures, as PostgreSQL writes them: `lp(bytea)`. */
async function findFunctions(client: Client, name: string): Promise<string[]> {
  const { rows } = await client.query<{ signature: string }>(
    `select p.oid::regprocedure::text as signature from pg_proc p where p.proname = $1 and p.pronamespace = current_schema()::regnamespace`,
    [name],
  )
  return rows.map(({ signature }) => signature)
}

/** A signature comes from the catalogue of PostgreSQL, which quotes it. */
async function dropFunctions(client: Client, signatures: readonly string[]): Promise<void> {
  for (const signature of signatures) await client.query(`drop function ${signature}`)
}
