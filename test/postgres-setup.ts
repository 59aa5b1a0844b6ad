/**
 * One PostgreSQL for the test run: that of DATABASE_URL, or the embedded one in a temporary folder (without fsync), with
 * a migrated template database. Tests take theirs from `createTestDatabase()`.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedPostgres } from '../packages/server/src/store/postgres/embedded-postgres.ts'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { query, TEST_POSTGRES, type TestPostgres, withDatabase } from '@sealpost/testing/components/test-database'

export async function setup(): Promise<() => Promise<void>> {
  const server = await startServer()
  const template = `sealpost_template_${randomBytes(6).toString('hex')}`
  await query(server.url, `create database ${template}`)
  await migrate({ connectionString: withDatabase(server.url, template) })
  process.env[TEST_POSTGRES] = JSON.stringify({ url: server.url, template } satisfies TestPostgres)
  return async () => {
    await query(server.url, `drop database if exists ${template} with (force)`)
    await server.stop()
  }
}

async function startServer(): Promise<{ url: string; stop(): Promise<void> }> {
  const external = process.env['DATABASE_URL']
  if (external !== undefined && external !== '') return { url: external, stop: async () => {} }
  const data_dir = await mkdtemp(join(tmpdir(), 'sealpost-test-'))
  const postgres = await startEmbeddedPostgres({ data_dir, test: true, settings: { max_connections: '300' } }).catch(
    async (error: unknown) => {
      await rm(data_dir, { recursive: true, force: true })
      throw error
    },
  )
  const { host, user, database } = postgres.connection
  return {
    url: `postgresql://${user}@localhost/${database}?host=${encodeURIComponent(host)}`,
    stop: async () => {
      await postgres.stop()
      await rm(data_dir, { recursive: true, force: true })
    },
  }
}
