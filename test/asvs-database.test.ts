/**
 * The database of a relay (OWASP ASVS 5.0, V6, V8, V13; `docs/asvs.md`): a plain user of it is enough, nobody stands in it from the
 * start, every table is of one account, and the embedded one can be reached by its relay alone.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Sealpost } from '@sealpost/client'
import { openHome } from '@sealpost/client/node'
import { readConfig, startServer } from '@sealpost/server'
import { Client } from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { startEmbeddedPostgres } from '../packages/server/src/store/postgres/embedded-postgres.ts'
import { query, TEST_POSTGRES, useDatabase, withDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'

const database = useDatabase()
let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function rowsOf<R extends object>(url: string, text: string): Promise<R[]> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<R>(text)).rows
  } finally {
    await client.end()
  }
}

test('a user who owns one database and nothing else runs a relay: no superuser, no role, no other database (13.2.2)', {
  timeout: 60_000,
}, async () => {
  const { url: admin } = JSON.parse(process.env[TEST_POSTGRES] ?? '') as { url: string }
  const role = `sealpost_role_${randomBytes(6).toString('hex')}`
  const password = randomBytes(18).toString('base64url')
  await query(admin, `create role ${role} login nosuperuser nocreatedb nocreaterole noreplication nobypassrls password '${password}'`)
  await query(admin, `create database ${role} owner ${role} template template0`)
  const url = new URL(withDatabase(admin, role))
  url.username = role
  url.password = password
  try {
    const config = readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: join(folder, 'data'), DATABASE_URL: url.href })
    const server = await startServer(config, { logger: silent, test: true })
    try {
      // tables were made, an account, an event
      const { sealpost } = await Sealpost.create({
        home: await openHome(join(folder, 'home')),
        server: server.url,
        name: 'laptop',
        device_type: 'desktop',
      })
      const ids = await sealpost.stream('notes').enqueue([{ data: new TextEncoder().encode('x') }])
      await sealpost.stream('notes').outcome(ids, { signal: AbortSignal.timeout(10_000) })
      await sealpost.close()
    } finally {
      await server.stop()
    }
    expect(await rowsOf(url.href, 'select count(*)::int4 as events from event')).toEqual([{ events: 1 }])
    expect(await rowsOf(url.href, 'select rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolname = current_user')).toEqual([
      { rolsuper: false, rolcreatedb: false, rolcreaterole: false },
    ])
    // what would need more than that does not work
    await expect(rowsOf(url.href, `create role ${role}_more`)).rejects.toThrow(/permission denied/)
    await expect(rowsOf(url.href, "select pg_read_file('postgresql.conf')")).rejects.toThrow(/permission denied/)
  } finally {
    await query(admin, `drop database if exists ${role} with (force)`)
    await query(admin, `drop role if exists ${role}`)
  }
})

describe('a database that was just migrated', () => {
  test('holds no account, device, key or token: there is no default user (6.3.2, 13.2.3)', async () => {
    await migrate(database.connection)
    const tables = await rowsOf<{ name: string }>(
      database.url,
      "select table_name as name from information_schema.tables where table_schema = 'public'",
    )
    expect(tables.length).toBeGreaterThan(10)
    for (const { name } of tables.filter(
      (table) => !['sealpost_migration', 'sealpost_function', 'server_meta', 'audit_head'].includes(table.name),
    ))
      expect([name, await rowsOf(database.url, `select count(*)::int4 as rows from ${name}`)]).toEqual([name, [{ rows: 0 }]])
    // and the one row that there is says which server this is
    expect(await rowsOf(database.url, 'select count(*)::int4 as rows from server_meta where server_key_hash is null')).toEqual([
      { rows: 1 },
    ])
  })

  async function tablesOfAccounts(): Promise<Set<string>> {
    const rows = await rowsOf<{ name: string }>(
      database.url,
      "select table_name as name from information_schema.columns where table_schema = 'public' and column_name = 'user_no'",
    )
    return new Set(rows.map(({ name }) => name))
  }

  test('every table of accounts begins its primary key with the account, so that no row is found without it (8.4.1)', async () => {
    const keys = await rowsOf<{ name: string; first: string }>(
      database.url,
      `select c.relname as name, a.attname as first from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
       join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0] where i.indisprimary and n.nspname = 'public'`,
    )
    const of_accounts = await tablesOfAccounts()
    expect(of_accounts.size).toBeGreaterThan(8)
    // a mailbox is found by who knows its name, before there is an account
    for (const { name, first } of keys.filter((key) => of_accounts.has(key.name)))
      expect([name, first]).toEqual([name, name === 'pairing' ? 'mailbox_id' : 'user_no'])
  })

  test('each table is classified on the page of this assessment (14.1.1)', async () => {
    const page = readFileSync(new URL('../docs/asvs.md', import.meta.url), 'utf8')
    const [data = ''] = /## Data and its protection[\s\S]*?(?=\n## )/.exec(page) ?? []
    const tables = await rowsOf<{ name: string }>(database.url, "select tablename as name from pg_tables where schemaname = 'public'")
    expect(tables.length).toBeGreaterThan(15)
    for (const { name } of tables) expect([name, data.includes(`\`${name}\``)]).toEqual([name, true])
  })

  test('no function of it runs with the rights of its owner (13.2.2)', async () => {
    const functions = await rowsOf<{ name: string; definer: boolean }>(
      database.url,
      "select p.proname as name, p.prosecdef as definer from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'public'",
    )
    expect(functions.length).toBeGreaterThan(2)
    expect(functions.filter((one) => one.definer)).toEqual([])
  })
})

test('the embedded PostgreSQL has no address on a network and a socket of its user alone; it has no password that could be guessed (12.3.3, 13.2.1, 13.2.3)', {
  timeout: 60_000,
}, async () => {
  const postgres = await startEmbeddedPostgres({ data_dir: join(folder, 'data'), test: true })
  try {
    const { host } = postgres.connection
    expect((await stat(host)).mode & 0o077).toBe(0)
    expect((await stat(join(folder, 'data', 'postgres'))).mode & 0o077).toBe(0)
    const client = new Client(postgres.connection)
    await client.connect()
    const show = async (name: string): Promise<unknown> => (await client.query(`show ${name}`)).rows[0]?.[name]
    expect(await show('listen_addresses')).toBe('')
    expect(await show('unix_socket_permissions')).toBe('0700')
    expect(await show('log_parameter_max_length_on_error')).toBe('0')
    expect((await client.query('select count(*)::int4 as passwords from pg_authid where rolpassword is not null')).rows).toEqual([
      { passwords: 0 },
    ])
    await client.end()
  } finally {
    await postgres.stop()
  }
})
