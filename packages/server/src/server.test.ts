import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { decodeAcks } from '@sealpost/protocol'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readConfig } from './config/config.ts'
import { createLog } from './telemetry/log.ts'
import { type RunningServer, startServer } from './server.ts'
import { startEmbeddedPostgres } from './store/postgres/embedded-postgres.ts'
import { createStore, type PostgresStore } from './store/store.ts'
import { createAccount, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { query, useDatabase, withDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { connectRaw, type RawOptions } from '@sealpost/testing/clients/raw-client'
import { makeRecords } from '@sealpost/testing/relays/socket-relay'

const database = useDatabase()
const another = useDatabase()
const shared = useDatabase()
const stopped = useDatabase()
let folder: string
let keys: string
let running: RunningServer[] = []

beforeAll(async () => {
  keys = await mkdtemp(join(tmpdir(), 's-'))
})
afterAll(() => rm(keys, { recursive: true, force: true }))
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

  it('tells of a database that is away once and with its cause, counts what fails meanwhile, and tells when it is back', async () => {
    const data_dir = join(folder, 'away')
    const postgres = await startEmbeddedPostgres({ data_dir, test: true })
    const { host, user, database: name } = postgres.connection
    const url = `postgresql://${user}@localhost/${name}?host=${encodeURIComponent(host)}`
    const lines: string[] = []
    const logger = createLog('info', { write: (line) => void lines.push(line) })
    const config = readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: join(folder, 'relay'), DATABASE_URL: url })
    const server = await startServer(config, { logger, test: true })
    running.push(server)
    await postgres.stop()
    const ask = (): Promise<Response> => fetch(`${server.url}/api/pairing/${randomBytes(16).toString('base64url')}/offer`)
    const asked = 300
    for (let i = 0; i < asked; i += 30) {
      const answers = await Promise.all([fetch(`${server.url}/readyz`), ...Array.from({ length: 30 }, ask)])
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([503]))
    }
    const away = [...lines]
    const again = await startEmbeddedPostgres({ data_dir, test: true })
    try {
      const back = (): string | undefined => lines.find((line) => line.includes('the database is back'))
      await expect.poll(back, { timeout: 20_000 }).toBeDefined()
      // places that fail, each for the few reasons that follow each other
      expect(away.length).toBeLessThan(30)
      expect(away.join('').length).toBeLessThan(100_000)
      expect(away.some((line) => line.includes('a request failed') && line.includes('.s.PGSQL.5432'))).toBe(true)
      const { msg, unlogged } = JSON.parse(back()!) as { msg: string; unlogged: number }
      expect(unlogged).toBeGreaterThan(asked - away.length)
      expect(msg).toMatch(/^the database is back after [\d.]+ s; \d+ failures were not logged one by one$/)
    } finally {
      await server.stop()
      await again.stop()
    }
  }, 60_000)

  it('is degraded as long as a node lives whose hints do not arrive: two on one database, without Redis (R06)', async () => {
    const status = async ({ url }: RunningServer): Promise<unknown> => (await fetch(`${url}/readyz`)).json()
    const both = { DATABASE_URL: shared.url, SEALPOST_SECRETS_FILE: join(keys, 'both.json') }
    const [first, second] = [await start('first', both), await start('second', both)]
    const of = (one: string, two: string): unknown => [{ status: one }, { status: two }]
    await expect.poll(() => Promise.all([status(first), status(second)]), { timeout: 5_000 }).toEqual(of('degraded', 'degraded'))
    await second.stop()
    await expect.poll(() => status(first), { timeout: 10_000 }).toEqual({ status: 'ready' })
  })
})

describe('a stop', () => {
  it('under load acks what it stored, closes 1001, ends PostgreSQL; the next start holds every acked event (R07, B06)', async () => {
    const server = await start('busy')
    const store = await openStore('busy')
    const account = await createAccount(store)
    await store.close()
    const client = await connectRaw(optionsOf(account, server))
    for (let i = 0; i < 20; i++) client.sendRecords(...makeRecords(client, 1 + i * 50, 50, { epoch: account.log_seq }))
    await client.next('ack')
    const began = Date.now()
    await server.stop()
    expect(Date.now() - began).toBeLessThan(10_000)
    expect(await client.closed).toMatchObject({ code: 1001 })
    await expect(fetch(`${server.url}/livez`)).rejects.toThrow('fetch failed')
    expect(existsSync(join(folder, 'busy/postgres/postmaster.pid'))).toBe(false)
    const acks = client.received.flatMap((message) => (message.head.type === 'ack' ? decodeAcks(message.body) : []))
    const acked = Math.max(0, ...acks.map((row) => row.device_seq))
    const again = await connectRaw(optionsOf(account, await start('busy')))
    expect(again.established.last_device_seq).toBeGreaterThanOrEqual(acked)
    expect(again.established.head_position).toBe(again.established.last_device_seq)
    await again.close()
  }, 60_000)

  it('begins with being not ready, and all goes on until balancers had their time to see it (R07)', async () => {
    const server = await start('noticed', { ...external(), SEALPOST_DRAIN_NOTICE_S: '2' })
    const account = await makeAccount()
    const status = (path: string): Promise<number> => fetch(server.url + path).then((answer) => answer.status)
    const early = await connectRaw(optionsOf(account, server))
    const gone = early.closed.then(({ code }) => ({ code, at: performance.now() }))
    const began = performance.now()
    const stop = server.stop()
    expect(await status('/readyz')).toBe(503)
    expect(await status('/livez')).toBe(200)
    early.sendRecords(...makeRecords(early, 1, 1, { epoch: account.log_seq }))
    await early.next('ack')
    const late = await connectRaw(optionsOf(await makeAccount(), server))
    expect(performance.now() - began).toBeLessThan(1_900)
    const { code, at } = await gone
    expect(code).toBe(1001)
    expect(at - began).toBeGreaterThan(1_900)
    expect(await late.closed).toMatchObject({ code: 1001 })
    await stop
    expect(performance.now() - began).toBeLessThan(4_000)
  })

  it('ends in its time whoever holds it up: a socket that answers no close, a request that is never whole', async () => {
    const server = await start('held', { ...external(), SEALPOST_STOP_S: '4' })
    const deaf = await connectRaw(optionsOf(await makeAccount(), server))
    deaf.socket.ws.pause()
    const silent_peer = connect(server.port, '127.0.0.1').on('error', () => {})
    silent_peer.write('POST /api/log HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{')
    await once(silent_peer, 'connect')
    const began = performance.now()
    await server.stop()
    expect(performance.now() - began).toBeLessThan(4_000)
    deaf.socket.ws.terminate()
    silent_peer.destroy()
  })

  it('with nobody there is over at once', async () => {
    const server = await start('alone', external())
    const began = performance.now()
    await server.stop()
    expect(performance.now() - began).toBeLessThan(1_000)
  })

  /** One database and one key for relays that follow each other. */
  function external(): Record<string, string> {
    return { DATABASE_URL: stopped.url, SEALPOST_SECRETS_FILE: join(keys, 'secrets.json') }
  }

  async function makeAccount(): Promise<TestAccount> {
    const store = await createStore({ connection: stopped.connection, log: silent })
    try {
      return await createAccount(store)
    } finally {
      await store.close()
    }
  }

  function openStore(data: string): Promise<PostgresStore> {
    const connection = { host: join(folder, data, 'run'), user: 'sealpost', database: 'sealpost' }
    return createStore({ connection, log: silent })
  }

  function optionsOf(account: TestAccount, { url, server_key }: RunningServer): RawOptions {
    const { device_id, sign_seed } = account.devices[0]!
    const log_head = Buffer.from(account.log_head!).toString('base64url')
    return { url, server_key, identity: { user_id: account.user_id, device_id, sign_seed }, auth: { log_seq: account.log_seq, log_head } }
  }
})

describe('a start', () => {
  it('a relay with another key is turned away by the database, the same key is not', async () => {
    const DATABASE_URL = another.url
    const first = await start('one', { DATABASE_URL })
    const second = await start('two', { DATABASE_URL, SEALPOST_SECRETS_FILE: join(folder, 'one', 'secrets.json') })
    expect(second.server_key).toEqual(first.server_key)
    await expect(start('three', { DATABASE_URL })).rejects.toMatchObject({
      code: 'server_identity',
      hint: expect.stringContaining('secrets.json'),
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
