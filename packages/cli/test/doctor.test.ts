/** `sealpost doctor` against real relays, databases, ports and proxies: right ones, and ones with one thing wrong. */
import { once } from 'node:events'
import { chmod, cp, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { createServer as createHttp } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTls, type TlsOptions } from 'node:tls'
import { CHECKS, diagnose, type DoctorOptions, type Finding, readConfig, type RunningServer, startServer } from '@sealpost/server'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../server/src/store/postgres/embedded-postgres.ts'
import { migrate } from '../../server/src/store/postgres/migrate.ts'
import { createTestDatabase, query, type TestDatabase, withDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { type Certificate, makeCertificate } from '@sealpost/testing/components/certificate'
import { listen as listenOn } from '@sealpost/testing/components/listen'
import { run } from '@sealpost/testing/clients/cli-world'

const PASSWORD = 'canary-password'
const DAY_MS = 86_400_000

let folder: string
/** A relay as it should be: an embedded PostgreSQL with fsync. */
let relay: RunningServer
/** A PostgreSQL without a relay, set up as badly as it gets. */
let postgres: EmbeddedPostgres
let database: TestDatabase
const ends: (() => void)[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
  const settings = { autovacuum: 'off', wal_level: 'minimal', max_wal_senders: '0', idle_session_timeout: '30s' }
  const bad = startEmbeddedPostgres({ data_dir: join(folder, 'bad'), test: true, settings })
  const config = readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: join(folder, 'good') })
  relay = await startServer(config, { logger: silent })
  postgres = await bad
  database = await createTestDatabase()
  await migrate(postgres.connection)
})
afterAll(async () => {
  for (const end of ends) end()
  await Promise.all([relay.stop(), postgres.stop(), database.drop()])
  await rm(folder, { recursive: true, force: true })
})

const good = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  SEALPOST_DATA: join(folder, 'good'),
  SEALPOST_PORT: String(relay.port),
  SEALPOST_ADMIN: 'off',
  ...more,
})

type Findings = Record<string, Omit<Finding, 'name'>>

/** What is found, by name; never anything that is secret. */
async function look(options: DoctorOptions): Promise<Findings> {
  const findings = await diagnose(options)
  expect(findings.map(({ name }) => name)).toEqual(CHECKS.map(({ name }) => name))
  await expectNoSecret(JSON.stringify(findings))
  return Object.fromEntries(findings.map(({ name, ...finding }) => [name, finding]))
}

async function expectNoSecret(text: string): Promise<void> {
  const { v: _, ...secrets } = JSON.parse(await readFile(join(folder, 'good', 'secrets.json'), 'utf8')) as Record<string, string>
  for (const secret of [PASSWORD, ...Object.values(secrets)]) expect(text).not.toContain(secret)
}

function namesOf(findings: Findings, is: Finding['is']): string[] {
  return Object.entries(findings).flatMap(([name, finding]) => (finding.is === is ? [name] : []))
}

async function listen(server: Server): Promise<number> {
  const { port, end } = await listenOn(server)
  ends.push(end)
  return port
}

describe('beside a running relay', () => {
  test('ends with 0 when nothing fails; a line for each check, what to do below, and a summary', async () => {
    const { code, stdout } = await run(['doctor', '--data', join(folder, 'good')], { env: good({ SEALPOST_DATA: '' }) })
    const text = stdout.toString()
    await expectNoSecret(text)
    expect(text).not.toMatch(/^✗/m)
    expect(code).toBe(0)
    for (const { name } of CHECKS) expect(text).toMatch(new RegExp(`^[✓!-]  ${name} +\\S`, 'm'))
    expect(text).toMatch(/^✓ {2}fsync +on$/m)
    expect(text).toMatch(/^! {2}admin-owner +there is none\n {4}make the first owner: sealpost admin init$/m)
    expect(text).toMatch(/\n\n\d+ fine, \d+ to look at, 0 failed, 8 skipped\n$/)
  })

  test('finds the database, the port and the keys in order', async () => {
    const findings = await look({ env: good() })
    expect(namesOf(findings, 'fail')).toEqual([])
    expect(findings).toMatchObject({ database: { is: 'ok' }, port: { is: 'ok' }, 'relay-key': { is: 'ok' }, 'server-key': { is: 'ok' } })
  })

  test('finds secrets that others can read', async () => {
    const path = join(folder, 'good', 'secrets.json')
    await chmod(path, 0o644)
    const { code, stdout } = await run(['doctor', '--json'], { env: good() })
    await chmod(path, 0o600)
    expect(code).toBe(7)
    const lines = stdout
      .toString()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Finding & { summary?: object })
    expect(lines.slice(0, -1).map(({ name }) => name)).toEqual(CHECKS.map(({ name }) => name))
    expect(lines.filter(({ is }) => is === 'fail')).toEqual([
      {
        name: 'secrets',
        is: 'fail',
        found: expect.stringContaining('others can read'),
        advice: expect.stringContaining(`chmod 600 ${path}`),
      },
    ])
    expect(lines.at(-1)?.summary).toMatchObject({ fail: 1 })
  })

  test('finds the secrets of another relay', async () => {
    await relayless('other')
    const findings = await look({ env: good({ SEALPOST_SECRETS_FILE: join(folder, 'other', 'secrets.json') }) })
    expect(namesOf(findings, 'fail')).toEqual(['server-key', 'relay-key'])
  })

  test('finds a folder that others may write to', async () => {
    await chmod(join(folder, 'good'), 0o777)
    const findings = await look({ env: good() })
    await chmod(join(folder, 'good'), 0o700)
    expect(namesOf(findings, 'fail')).toEqual(['data-folder'])
  })

  test('finds a clock that is off', async () => {
    const ahead = await look({ env: good(), now: () => Date.now() + 600_000 })
    expect(ahead.clock).toMatchObject({ is: 'fail', found: expect.stringMatching(/^10 min ahead/) })
    const behind = await look({ env: good(), now: () => Date.now() - 5_000 })
    expect(behind.clock).toMatchObject({ is: 'warn', found: expect.stringMatching(/^5\.0 s behind/) })
  })

  test('finds who else has the port, or that nobody has', async () => {
    const port = await listen(createHttp((_, response) => response.writeHead(404).end()))
    expect((await look({ env: good({ SEALPOST_PORT: String(port) }) })).port).toMatchObject({
      is: 'fail',
      found: expect.stringContaining('404'),
    })
    const rude = await listen(createServer((socket) => socket.end('220 mail\r\n')))
    expect((await look({ env: good({ SEALPOST_PORT: String(rude) }) })).port).toMatchObject({ is: 'fail' })
    expect((await look({ env: good({ SEALPOST_PORT: '1' }) })).port).toMatchObject({ is: 'warn' })
    expect((await look({ env: good({ SEALPOST_HOST: '203.0.113.77' }) })).port).toMatchObject({ is: 'fail' })
  })

  test('finds a relay that has lost its database', async () => {
    const data = join(folder, 'lost')
    const server = await startServer(readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: data, DATABASE_URL: database.url }), {
      logger: silent,
    })
    const [admin, name] = [withDatabase(database.url, 'postgres'), new URL(database.url).pathname.slice(1)]
    await query(admin, `alter database ${name} allow_connections false`)
    await query(admin, `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`)
    const findings = await look({ env: { SEALPOST_DATA: data, SEALPOST_PORT: String(server.port), DATABASE_URL: database.url } })
    await query(admin, `alter database ${name} allow_connections true`)
    await server.stop()
    expect(findings.port).toMatchObject({ is: 'fail', found: expect.stringContaining('not ready') })
    expect(findings.database).toMatchObject({ is: 'fail' })
  })
})

describe('a database', () => {
  const external = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => good({ DATABASE_URL: database.url, ...more })
  const name = (): string => new URL(database.url).pathname.slice(1)

  test('without fsync, and with all else that can be set wrong', async () => {
    const findings = await look({ env: good({ SEALPOST_DATA: join(folder, 'bad') }) })
    expect(findings).toMatchObject({ fsync: { is: 'fail' }, 'full-page-writes': { is: 'fail' }, 'synchronous-commit': { is: 'ok' } })
    expect(findings).toMatchObject({ autovacuum: { is: 'warn' }, 'wal-level': { is: 'warn' }, timeouts: { is: 'warn' } })
  })

  test('whose commits do not wait for the disk', async () => {
    await query(database.url, `alter database ${name()} set synchronous_commit = off`)
    const findings = await look({ env: external() })
    await query(database.url, `alter database ${name()} reset synchronous_commit`)
    expect(findings['synchronous-commit']).toMatchObject({ is: 'fail', found: expect.stringMatching(/^off \(by database\)/) })
    expect((await look({ env: external() }))['synchronous-commit']).toMatchObject({ is: 'ok' })
  })

  test('that a newer version has migrated, or none', async () => {
    await query(database.url, `insert into sealpost_migration (version, name) values (9999, 'later')`)
    const newer = await look({ env: external() })
    await query(database.url, 'delete from sealpost_migration where version = 9999')
    expect(newer.migrations).toMatchObject({ is: 'fail', found: expect.stringContaining('9999') })
    const none = await look({ env: external({ DATABASE_URL: withDatabase(database.url, 'template1') }) })
    expect(none).toMatchObject({ migrations: { is: 'warn' }, 'server-key': { is: 'ok' }, 'admin-owner': { is: 'skipped' } })
  })

  test('whose user may do nothing, or everything', async () => {
    await query(database.url, `create role ${name()} login connection limit 3`)
    const url = new URL(database.url)
    url.username = name()
    const findings = await look({ env: external({ DATABASE_URL: url.href }) })
    await query(database.url, `drop role ${name()}`)
    expect(findings).toMatchObject({ 'database-user': { is: 'fail' }, connections: { is: 'fail' }, migrations: { is: 'skipped' } })
    expect((await look({ env: external() }))['database-user']).toMatchObject({ is: 'warn', found: expect.stringContaining('superuser') })
  })

  test('whose audit log was cut', async () => {
    await query(database.url, `select append_audit('server', 'x', 'done', null, null, null, null, null) from generate_series(1, 3)`)
    expect((await look({ env: external() }))['audit-log']).toMatchObject({ is: 'ok' })
    await query(database.url, 'alter table audit disable trigger all; delete from audit where seq = 3')
    expect((await look({ env: external() }))['audit-log']).toMatchObject({ is: 'fail' })
  })

  test('that has an owner, and another rule for sign-up than the configuration', async () => {
    await query(
      database.url,
      `insert into admin (admin_id, created_at, role, name, public_key) values (repeat('a', 22), 0, 'owner', 'grace', sha256('a'));
       insert into setting (name, changed_at, value) values ('signup', 0, '"closed"')`,
    )
    const findings = await look({ env: external({ SEALPOST_HOST: '0.0.0.0' }) })
    expect(findings).toMatchObject({ 'admin-owner': { is: 'ok' }, 'sign-up': { is: 'ok', found: 'closed' } })
  })

  test('that is not there, or says nothing, within a bounded time and without a word of its URL', async () => {
    const silence = await listen(createServer(() => {}))
    const plain = await listen(createServer((socket) => socket.once('data', () => socket.write('N'))))
    const rude = await listen(createServer((socket) => socket.destroy()))
    const began = Date.now()
    const foundAt = async (port: number): Promise<Findings> =>
      look({
        env: good({ DATABASE_URL: `postgresql://u:${PASSWORD}@127.0.0.1:${port}/d?sslmode=verify-full`, SEALPOST_PORT: String(silence) }),
      })
    const [nobody, silent_, plain_, rude_] = await Promise.all([1, silence, plain, rude].map(foundAt))
    expect(Date.now() - began).toBeLessThan(8_000)
    expect(nobody).toMatchObject({ database: { is: 'fail', found: 'not reached: connection refused' }, port: { is: 'fail' } })
    expect(silent_).toMatchObject({ database: { is: 'fail', found: 'not reached: no answer within 5 s' }, fsync: { is: 'skipped' } })
    expect(plain_).toMatchObject({ database: { is: 'fail', found: 'not reached: it has no TLS' } })
    expect(rude_).toMatchObject({ database: { is: 'fail', found: 'not reached: it hung up' } })
  })
})

describe('the URL of the devices', () => {
  /** A proxy that ends TLS and passes the bytes on. */
  async function startProxy(options: Certificate & TlsOptions): Promise<string> {
    const server = createTls(options, (socket) => {
      const back = connect(relay.port, '127.0.0.1').on('error', () => socket.destroy())
      socket
        .on('error', () => back.destroy())
        .pipe(back)
        .pipe(socket)
    })
    return `https://127.0.0.1:${await listen(server)}`
  }
  const certificate = (days: number): Certificate =>
    makeCertificate(new Date(Date.now() - 400 * DAY_MS), new Date(Date.now() + (days + 0.5) * DAY_MS))
  const trusting = (url: string, ca: string): Promise<Findings> => look({ env: good({ SEALPOST_SIGNUP: 'closed' }), url, ca })

  test('is fine with a certificate that is trusted, TLS of today, and sockets', async () => {
    const identity = certificate(60)
    const url = await startProxy(identity)
    const findings = await trusting(url, identity.cert)
    expect(findings).toMatchObject({
      'public-url': { is: 'ok', found: `${url} leads to this relay` },
      certificate: { is: 'ok', found: expect.stringMatching(/^60 days left/) },
      'tls-version': { is: 'ok', found: 'TLSv1.3' },
      websocket: { is: 'ok' },
    })
    expect((await look({ env: good({ SEALPOST_PUBLIC_URL: url }) })).certificate).toMatchObject({
      is: 'fail',
      found: expect.stringContaining('DEPTH_ZERO_SELF_SIGNED_CERT'),
    })
  })

  test('has a certificate that ended, or soon will', async () => {
    const [old, short] = [certificate(-10), certificate(5)]
    expect((await trusting(await startProxy(old), old.cert)).certificate).toMatchObject({
      is: 'fail',
      found: expect.stringMatching(/^it ended/),
    })
    expect((await trusting(await startProxy(short), short.cert)).certificate).toMatchObject({
      is: 'warn',
      found: expect.stringMatching(/^5 days/),
    })
  })

  test('takes old TLS', async () => {
    const identity = certificate(60)
    const url = await startProxy({ ...identity, minVersion: 'TLSv1', ciphers: 'DEFAULT:@SECLEVEL=0' })
    expect((await trusting(url, identity.cert))['tls-version']).toMatchObject({ is: 'fail', found: expect.stringContaining('TLSv1.1') })
  })

  test('has a proxy that passes no sockets', async () => {
    const identity = certificate(60)
    const server = createHttps(identity, (request, response) => {
      void fetch(`${relay.url}${request.url}`).then(async (answer) => response.writeHead(answer.status).end(await answer.text()))
    })
    server.on('upgrade', (_, socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const findings = await trusting(`https://127.0.0.1:${await listen(server)}`, identity.cert)
    expect(findings).toMatchObject({ 'public-url': { is: 'ok' }, websocket: { is: 'fail', found: expect.stringContaining('400') } })
  })

  test('leads nowhere, or elsewhere', async () => {
    const identity = certificate(60)
    const elsewhere = await listen(createHttps(identity, (_, response) => response.end('{}')))
    expect((await trusting(`https://127.0.0.1:${elsewhere}`, identity.cert))['public-url']).toMatchObject({ is: 'fail' })
    const findings = await trusting('https://127.0.0.1:1', identity.cert)
    expect(findings).toMatchObject({ 'public-url': { is: 'fail' }, certificate: { is: 'skipped' }, websocket: { is: 'fail' } })
    expect((await look({ env: good(), url: relay.url }))['public-url']).toMatchObject({ is: 'ok' })
  })
})

describe('the door of the operators', () => {
  test('is found where others can reach it', async () => {
    const server = createServer().listen(0)
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const findings = await look({ env: good({ SEALPOST_ADMIN: 'on', SEALPOST_ADMIN_PORT: String(port) }) })
    server.close()
    // a machine without a network has no other address
    expect(findings['admin-port']?.is).toMatch(/^(fail|ok)$/)
    if (findings['admin-port']?.is === 'fail') expect(findings['admin-port'].found).toContain(String(port))
  })
})

describe('it changes nothing', () => {
  test('of a folder that no relay uses, and starts nothing on it', async () => {
    const data = await relayless('asleep')
    await cp(join(folder, 'bad', 'postgres', 'PG_VERSION'), join(data, 'postgres', 'PG_VERSION'), { recursive: true })
    const before = await filesOf(data)
    const findings = await look({ env: { SEALPOST_DATA: data, SEALPOST_PORT: '1' } })
    expect(findings).toMatchObject({
      database: { is: 'skipped', advice: expect.stringContaining('running relay') },
      fsync: { is: 'skipped' },
    })
    expect(namesOf(findings, 'fail')).toEqual([])
    expect(await filesOf(data)).toEqual(before)
    const nowhere = await look({ env: { SEALPOST_DATA: join(folder, 'nowhere'), SEALPOST_PORT: '1' } })
    expect(namesOf(nowhere, 'fail')).toEqual(['data-folder', 'secrets'])
    await expect(stat(join(folder, 'nowhere'))).rejects.toThrow('ENOENT')
  })

  test('of a database where to read is to write', async () => {
    await query(
      database.url,
      `alter table setting rename to was_setting; create table written (n int4);
       create function write() returns text language sql volatile as 'insert into written values (1) returning ''x''::text';
       create view setting as select 'signup'::text as name, write() as value`,
    )
    const findings = await look({ env: good({ DATABASE_URL: database.url }) })
    // read_only_sql_transaction
    expect(findings.migrations).toMatchObject({ is: 'skipped', found: expect.stringContaining('25006') })
    await query(database.url, `do $$ begin assert (select count(*) = 0 from written); end $$`)
  })

  test('of a database: no row, no transaction number, no byte of its log', async () => {
    const client = new Client(postgres.connection)
    await client.connect()
    // what a reader would tidy up on its way is tidy
    for (const sql of ['vacuum freeze', 'checkpoint']) await client.query(sql)
    const state = async (): Promise<unknown> => {
      const sql = `select pg_snapshot_xmax(pg_current_snapshot())::text as next, pg_current_wal_insert_lsn()::text as log,
        (select array[tup_inserted, tup_updated, tup_deleted]::text from pg_stat_database where datname = current_database()) as rows`
      await client.query('select pg_stat_force_next_flush()')
      return (await client.query(sql)).rows
    }
    const [before, files] = [await state(), await filesOf(join(folder, 'bad'))]
    const findings = await look({ env: good({ SEALPOST_DATA: join(folder, 'bad') }) })
    expect(findings.database).toMatchObject({ is: 'ok' })
    expect(await state()).toEqual(before)
    expect(await filesOf(join(folder, 'bad'))).toEqual(files)
    await client.end()
  })
})

describe('the command line', () => {
  test('that is wrong ends with 2, and repeats no URL', async () => {
    const wrong = [['--nonsense'], ['--url', 'relay.example'], ['--database-url', `mysql://u:${PASSWORD}@h/d`]]
    for (const { code, stdout, stderr } of await Promise.all(wrong.map((args) => run(['doctor', ...args])))) {
      expect([code, stdout.toString()]).toEqual([2, ''])
      expect(stderr).toMatch(/\n {2}\w/)
      expect(stderr).not.toContain(PASSWORD)
    }
  })

  test('with variables that are not understood is a failed check (7); no text from elsewhere begins a line or steers the terminal', async () => {
    const [wrong, steered] = await Promise.all([
      run(['doctor'], { env: { SEALPOST_SIGNUP: 'opne', DATABASE_URL: `mysql://u:${PASSWORD}@h/d` } }),
      run(['doctor', '--data', `${folder}/x\n✓  fsync  on\u001b[2J`], { env: good({ SEALPOST_DATA: '' }) }),
    ])
    expect(wrong.code).toBe(7)
    expect(wrong.stdout.toString()).toMatch(/^✗ {2}configuration +mistakes: 2; .*\n {4}DATABASE_URL: .*\n {4}SEALPOST_SIGNUP: /)
    await expectNoSecret(wrong.stdout.toString())
    expect(steered.stdout.toString()).toMatch(/^✗ {2}data-folder +there is no folder \S+x ✓ fsync on/m)
    expect(steered.stdout.toString()).not.toMatch(/^✓ {2}fsync/m)
    expect(steered.stdout.toString()).not.toContain('\u001b')
  })
})

/** A data folder with secrets of its own, and no relay. */
async function relayless(name: string): Promise<string> {
  const data = join(folder, name)
  const server = await startServer(readConfig({ SEALPOST_PORT: '0', SEALPOST_DATA: data, DATABASE_URL: await spare() }), { logger: silent })
  await server.stop()
  return data
}

async function spare(): Promise<string> {
  const made = await createTestDatabase()
  ends.push(() => void made.drop())
  return made.url
}

/** Everything but the inside of the cluster, which PostgreSQL itself writes to. */
async function filesOf(path: string): Promise<unknown[]> {
  const names = (await readdir(path, { recursive: true })).filter((name) => !name.startsWith('postgres/')).sort()
  return Promise.all(
    names.map(async (name) => {
      const { mode, size, mtimeMs, uid } = await stat(join(path, name))
      return { name, mode, size, mtimeMs, uid }
    }),
  )
}
