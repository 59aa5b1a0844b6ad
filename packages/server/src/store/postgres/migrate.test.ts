import { Client } from 'pg'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createAccount, makeRun, openSession } from '@sealpost/testing/clients/store-accounts'
import { createTestDatabase, type TestDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createStore } from '../store.ts'
import { migrate } from './migrate.ts'
import { hashSchema, readSchema, readVersion, type Schema, sha256 } from './schema-files.ts'

const SCHEMA = readSchema()
const NAMES = [...SCHEMA.tables, ...SCHEMA.functions].map(({ name }) => name)

let database: TestDatabase
let client: Client

beforeEach(async () => {
  database = await createTestDatabase()
  client = new Client(database.connection)
  await client.connect()
})
afterEach(async () => {
  await client.end()
  await database.drop()
})

async function rows<T>(text: string, values: unknown[] = []): Promise<T[]> {
  return (await client.query(text, values)).rows as T[]
}

const empty = (): Promise<unknown> => client.query('drop schema public cascade; create schema public')

/** A newer version of the schema: functions by their name, `null` takes one out. */
function newer(changes: Readonly<Record<string, string | null>>, tables: Schema['tables'] = []): Schema {
  const kept = SCHEMA.functions.filter(({ name }) => !(name in changes))
  const changed = Object.entries(changes).flatMap(([name, sql]) => (sql === null ? [] : [{ name, sql, sha256: sha256(sql) }]))
  return { version: SCHEMA.version + 1, tables: [...SCHEMA.tables, ...tables], functions: [...kept, ...changed] }
}

describe('the schema files', () => {
  it('no text changes without a new version: raise `version` in sql/version.json, with the hash that is expected here', () => {
    expect(readVersion()).toEqual({ version: SCHEMA.version, sha256: hashSchema(SCHEMA) })
  })

  it('a function has a file of its name, whole, and no table file holds one', () => {
    for (const { name, sql } of SCHEMA.functions)
      expect([name, [...sql.matchAll(/^create (?:or replace )?function (\w+)\(/gm)].map(([, found]) => found)]).toEqual([name, [name]])
    for (const { name, sql } of SCHEMA.tables) expect([name, /create (or replace )?function/.test(sql)]).toEqual([name, false])
  })

  it('a table file says by its number in which version it came', () => {
    const versions = SCHEMA.tables.map(({ version }) => version)
    expect(versions).toEqual([...new Set(versions)].toSorted((a, b) => a - b))
    expect(versions.every((version) => version >= 1 && version <= SCHEMA.version)).toBe(true)
  })
})

describe('migrate', () => {
  it('several nodes that start at once do it once', async () => {
    await empty()
    const applied = await Promise.all([1, 2, 3, 4].map(() => migrate(database.connection)))
    expect(applied.toSorted((a, b) => b.length - a.length)).toEqual([NAMES, [], [], []])
    // each row was written by one transaction, and it is the same for all
    const [written] = await rows<{ n: number }>(`select count(distinct x)::int4 as n from (
      select xmin::text as x from sealpost_migration union all select xmin::text from sealpost_function) w`)
    expect(written).toEqual({ n: 1 })
  })

  it('a start with nothing to do writes nothing', async () => {
    await empty()
    await migrate(database.connection)
    const readOnly = { ...database.connection, options: '-c default_transaction_read_only=on' }
    expect(await migrate(readOnly)).toEqual([])
    await client.query(`update sealpost_function set sha256 = 'other' where name = 'lp'`)
    await expect(migrate(readOnly)).rejects.toThrow()
  })

  it('an upgrade changes the functions and keeps the rows', async () => {
    const store = await createStore({ connection: database.connection, log: silent })
    const account = await createAccount(store)
    const run = makeRun(
      { user_no: account.user_no, device_no: 1, session_id: await openSession(store, account.user_no, 1), first_seq: 1, epoch: 0 },
      3,
    )
    expect(await store.ingest([run], true)).toMatchObject([{ is: 'stored' }])
    await store.close()
    const before = await rows<{ oid: number }>(`select 'clock_ms()'::regprocedure::oid as oid`)
    const upgrade = newer(
      {
        clock_ms: 'create or replace function clock_ms() returns int8 language sql as $f$ select 7::int8 $f$;',
        // another result, other parameters, a new one that calls another new one, and one that is gone
        end_session: 'create or replace function end_session(for_user int8) returns int4 language sql as $f$ select 1 $f$;',
        is_online: 'create or replace function is_online(a uuid, b int4, c int4) returns text language sql as $f$ select later() $f$;',
        later: `create or replace function later() returns text language sql as $f$ select 'yes' $f$;`,
        to_tombstone: null,
      },
      [{ version: SCHEMA.version + 1, name: '0002-more', sql: 'create table more (n int4)' }],
    )
    const applied = await Promise.all([1, 2].map(() => migrate(database.connection, upgrade)))
    expect(applied.flat()).toEqual(['0002-more', 'clock_ms', 'end_session', 'is_online', 'later'])
    expect(await rows(`select clock_ms()::int4 as now, end_session(1) as ended, is_online(null, 1, 1) as online`)).toEqual([
      { now: 7, ended: 1, online: 'yes' },
    ])
    // replaced in place: a node that runs goes on with it
    expect(await rows(`select 'clock_ms()'::regprocedure::oid as oid`)).toEqual(before)
    const names = await rows<{ f: string }>(
      `select proname as f from pg_proc where pronamespace = 'public'::regnamespace and proname in ('end_session', 'to_tombstone', 'is_online')`,
    )
    expect(names.map(({ f }) => f).toSorted()).toEqual(['end_session', 'is_online'])
    expect(await rows('select count(*)::int4 as n from event')).toEqual([{ n: 3 }])
    expect(await migrate(database.connection, upgrade)).toEqual([])
  })

  it.each([
    ['a table', `insert into sealpost_migration (version, name) values (9999, 'later')`],
    ['a function', `update sealpost_function set version = 9999 where name = 'ingest'`],
    ['a function that was dropped', `insert into sealpost_function (name, sha256, version) values ('gone', null, 9999)`],
  ])('an older version does not put its texts over those of a newer one: %s', async (_, change) => {
    await client.query(change)
    await expect(migrate(database.connection)).rejects.toMatchObject({ code: 'data_newer' })
  })

  it('what fails leaves nothing', async () => {
    await empty()
    const broken = newer({ ingest: 'create or replace function ingest() returns int4 language sql as $f$ select $f$ oops' })
    await expect(migrate(database.connection, broken)).rejects.toThrow()
    expect(await rows(`select 1 where to_regclass('sealpost_migration') is not null or to_regclass('account') is not null`)).toEqual([])
  })
})
