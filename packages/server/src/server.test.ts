import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readConfig } from './config.ts'
import type { Log } from './log.ts'
import { type RunningServer, startServer } from './server.ts'
import { query, useDatabase, withDatabase } from './testing/database.ts'

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }
const database = useDatabase()
const another = useDatabase()
let folder: string
let running: RunningServer[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
})
afterEach(async () => {
  await Promise.all(running.map((server) => server.stop()))
  running = []
  await rm(folder, { recursive: true, force: true })
})

async function start(data: string, env: Record<string, string> = {}): Promise<RunningServer> {
  const config = readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: join(folder, data), ...env })
  const server = await startServer(config, { logger: silent, test: true })
  running.push(server)
  return server
}

describe('a running relay', () => {
  it('stays up while the database is away, says so, and is ready again when it is back (R06)', async () => {
    const server = await start('one', { DATABASE_URL: database.url })
    const status = (path: string): Promise<number> => fetch(server.url + path).then((answer) => answer.status)
    expect(await status('/readyz')).toBe(200)
    const name = new URL(database.url).pathname.slice(1)
    const admin = withDatabase(database.url, 'postgres')
    await query(admin, `alter database ${name} allow_connections false`)
    await query(admin, `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`)
    await expect.poll(() => status('/readyz'), { timeout: 10_000 }).toBe(503)
    expect(await status('/livez')).toBe(200)
    await query(admin, `alter database ${name} allow_connections true`)
    await expect.poll(() => status('/readyz'), { timeout: 10_000 }).toBe(200)
  })
})

describe('a start', () => {
  it('a relay with another key is turned away by the database, the same key is not', async () => {
    const DATABASE_URL = another.url
    const first = await start('one', { DATABASE_URL })
    const second = await start('two', { DATABASE_URL, SEALPOST_SECRETS_FILE: join(folder, 'one', 'secrets.json') })
    expect(second.server_key).toEqual(first.server_key)
    await expect(start('three', { DATABASE_URL })).rejects.toMatchObject({
      code: 'server_identity',
      message: expect.stringContaining('secrets.json'),
    })
  })

  it('a port or a data folder in use, and a database out of reach, each have their own code', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    try {
      await expect(start('taken', { SEALPOST_PORT: String(port) })).rejects.toMatchObject({
        code: 'port_in_use',
        message: expect.stringContaining(String(port)),
      })
    } finally {
      other.close()
    }
    await start('taken')
    await expect(start('taken')).rejects.toMatchObject({ code: 'data_in_use' })
    const down = { DATABASE_URL: 'postgresql://u:p@127.0.0.1:1/d', SEALPOST_DATABASE_WAIT_S: '0' }
    await expect(start('down', down)).rejects.toMatchObject({ code: 'unreachable' })
  }, 30_000)
})
