/**
 * A migrated database of its own for each test file, on the one PostgreSQL of the test run (`test/postgres-setup.ts`).
 * Copying the template costs some 50 ms.
 */
import { randomBytes } from 'node:crypto'
import { Client } from 'pg'
import { afterAll, beforeAll } from 'vitest'

/** The variable by which the global setup tells the workers where PostgreSQL is. */
export const TEST_POSTGRES = 'TEST_POSTGRES'

export type TestPostgres = { url: string; template: string }

export type TestDatabase = {
  /** For `new Client()` and `new pg.Pool()`. */
  connection: { connectionString: string }
  /** The same as a URL, for `DATABASE_URL` of a process. */
  url: string
  drop(): Promise<void>
}

export async function createTestDatabase(): Promise<TestDatabase> {
  const postgres = readTestPostgres()
  const name = `sealpost_test_${randomBytes(8).toString('hex')}`
  await query(postgres.url, `create database ${name} template ${postgres.template}`)
  const url = withDatabase(postgres.url, name)
  return { connection: { connectionString: url }, url, drop: () => query(postgres.url, `drop database if exists ${name} with (force)`) }
}

/** Makes the database before the tests of this file and drops it after them. Read its fields inside tests and hooks. */
export function useDatabase(): TestDatabase {
  let made: TestDatabase | undefined
  const get = (): TestDatabase => {
    if (made === undefined) throw new Error('the database is there from the first beforeAll on')
    return made
  }
  beforeAll(async () => {
    made = await createTestDatabase()
  })
  afterAll(() => made?.drop())
  return {
    get connection() {
      return get().connection
    },
    get url() {
      return get().url
    },
    drop: () => get().drop(),
  }
}

export function withDatabase(url: string, name: string): string {
  const parsed = new URL(url)
  parsed.pathname = `/${name}`
  return parsed.href
}

export async function query(url: string, text: string): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(text)
  } finally {
    await client.end()
  }
}

function readTestPostgres(): TestPostgres {
  const text = process.env[TEST_POSTGRES]
  if (text === undefined) throw new Error(`${TEST_POSTGRES} is not set: run the tests with vitest and vitest.config.ts`)
  return JSON.parse(text) as TestPostgres
}
