/** A database on another machine is reached over TLS, or somebody said that it need not be; one that lets nobody in is waited for. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readConfig } from '../src/config/config.ts'
import { startServer } from '../src/server.ts'
import { query, useDatabase, withDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'

const database = useDatabase()

describe('the URL of a database on another machine (ASVS 12.3.1)', () => {
  it.each(['', '?sslmode=prefer', '?sslmode=allow', '?sslmode=no-verify', '?ssl=true'])(
    'with "%s" is a mistake that says what to write',
    (end) => {
      for (const host of ['db.example', '10.0.0.5:5432', '[2001:db8::5]'])
        expect(() => readConfig({ DATABASE_URL: `postgresql://u:canary@${host}/x${end}` })).toThrow(
          expect.objectContaining({ code: 'invalid_config', message: expect.stringMatching(/^(?!.*canary).*sslmode=verify-full/s) }),
        )
    },
  )

  it.each([
    'postgresql://u:p@db.example/x?sslmode=verify-full',
    'postgresql://u:p@db.example/x?sslmode=disable',
    'postgresql://u:p@localhost/x',
    'postgresql://u:p@127.0.0.1:5432/x',
    'postgresql://u:p@[::1]/x',
    'postgresql:///x?host=/run/postgresql',
  ])('%s is taken', (url) => {
    expect(readConfig({ DATABASE_URL: url }).database_url).toBe(url)
  })
})

it('a database that takes no connections now is unavailable (503) and no fault of ours (ASVS 16.5.2)', async () => {
  const folder = await mkdtemp(join(tmpdir(), 's-'))
  const config = readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: folder, DATABASE_URL: database.url, SEALPOST_ADMIN: 'off' })
  const server = await startServer(config, { logger: silent, test: true })
  const name = new URL(database.url).pathname.slice(1)
  const maintenance = withDatabase(database.url, 'postgres')
  try {
    await query(maintenance, `alter database ${name} allow_connections false`)
    await query(maintenance, `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`)
    const ask = () => fetch(`${server.url}/api/pairing/${'A'.repeat(22)}/offer`)
    // the first may still meet the connection that was ended
    await ask()
    const answer = await ask()
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([503, 'unavailable'])
  } finally {
    await query(maintenance, `alter database ${name} allow_connections true`)
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
})
