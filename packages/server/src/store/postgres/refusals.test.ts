/** A real PostgreSQL refuses what it can refuse a relay at its start; `doctor` says the same as the start. */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { TLSSocket } from 'node:tls'
import { type ErrorCode, SealpostError } from '@sealpost/protocol'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { makeCertificate } from '@sealpost/testing/components/certificate'
import { type Config, readConfig } from '../../config/config.ts'
import { lookAtDatabase } from '../../doctor/look-database.ts'
import { startServer } from '../../server.ts'
import { query } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts'

const PASSWORD = 'hunter2'
/** A method for each user; who is in no line gets in from nowhere. */
const HBA = `
local all sealpost trust
local all wrong,bare scram-sha-256
local all asleep,maker,reader,writer,late,capped,missing trust
local shut,nobody,latin,readonly,full all trust
`
const ROLES = `
create role wrong login password '${PASSWORD}'; create role bare login password '${PASSWORD}'; create role outside login;
create role asleep nologin; create role maker login; create role reader login; create role writer login; create role late login;
create role capped login connection limit 0; alter role late set statement_timeout = 1;
alter role reader set default_transaction_read_only = on`

let folder = ''
let postgres: EmbeddedPostgres
let root = ''
const doors: Server[] = []
const sockets = new Set<Socket>()

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
  const options = { data_dir: join(folder, 'pg'), test: true }
  await (await startEmbeddedPostgres(options)).stop()
  await writeFile(join(folder, 'pg/postgres/pg_hba.conf'), HBA)
  postgres = await startEmbeddedPostgres(options)
  root = urlOf({ user: postgres.connection.user, database: postgres.connection.database })
  for (const statement of ROLES.split(';')) await query(root, statement)
  for (const name of ['empty', 'taken', 'owned', 'shut', 'closed']) await query(root, `create database ${name}`)
  await query(root, `create database latin encoding 'LATIN1' template template0`)
  await query(root, 'alter database closed allow_connections false')
  await query(root, 'revoke connect on database shut from public')
  for (const name of ['reader', 'writer', 'late']) await query(root, `create database of_${name} owner ${name}`)
}, 60_000)
afterEach(() => {
  for (const socket of sockets) socket.destroy()
  for (const door of doors.splice(0)) door.close()
})
afterAll(async () => {
  await postgres.stop()
  await rm(folder, { recursive: true, force: true })
})

function urlOf({ user, password, database }: { user: string; password?: string; database: string }, query_ = ''): string {
  const secret = password === undefined ? '' : `:${password}`
  return `postgresql://${user}${secret}@localhost/${database}?host=${encodeURIComponent(postgres.connection.host)}${query_}`
}

/** A URL that is there when the test runs. */
function of(user: string, database = 'empty', password?: string): () => string {
  return () => urlOf({ user, database, ...(password === undefined ? {} : { password }) })
}

function configOf(url: string): Config {
  const env = {
    SEALPOST_PORT: '0',
    SEALPOST_ADMIN: 'off',
    SEALPOST_DATA: join(folder, 'data'),
    DATABASE_URL: url,
    SEALPOST_DATABASE_WAIT_S: '0',
  }
  return readConfig(env, {}, (path) => readFileSync(path, 'utf8'))
}

async function refused(url: string): Promise<SealpostError> {
  const error = await startServer(configOf(url), { logger: silent, test: true }).then(
    (server) => server.stop(),
    (error: unknown) => error,
  )
  if (!(error instanceof SealpostError)) throw new Error('it started', { cause: error })
  expect(error.message).not.toContain(PASSWORD)
  expect(error.message).not.toContain(url)
  return error
}

async function diagnosed(url: string): Promise<string> {
  const found = await lookAtDatabase(configOf(url), Date.now, AbortSignal.timeout(5_000))
  if (found.is !== 'unreachable') return found.is
  expect(`${found.reason} ${found.advice}`).not.toContain(PASSWORD)
  return `${found.reason}; ${found.advice}`
}

/** A TLS of its own before PostgreSQL, as it would have it: the first message asks for it. */
async function startTls(from: Date, to: Date, tls = true): Promise<{ port: number; cert: string }> {
  const certificate = makeCertificate(from, to)
  const target = join(postgres.connection.host, '.s.PGSQL.5432')
  const door = createServer((front) => {
    sockets.add(front)
    front.on('error', () => {})
    front.once('data', () => {
      front.write(tls ? 'S' : 'N')
      if (!tls) return
      const secure = new TLSSocket(front, { isServer: true, ...certificate })
      const back = connect(target)
      for (const [one, other] of [
        [secure, back],
        [back, secure],
      ] as const) {
        sockets.add(one)
        one.on('error', () => other.destroy()).on('close', () => other.destroy())
        one.pipe(other)
      }
    })
  }).listen(0)
  doors.push(door)
  await once(door, 'listening')
  return { port: (door.address() as { port: number }).port, cert: certificate.cert }
}

describe('what lets nobody in is told by its cause, with what to do, by serve and by doctor', { timeout: 30_000 }, () => {
  it.each<[string, () => string, ErrorCode, RegExp]>([
    ['a wrong password', of('wrong', 'empty', 'no'), 'invalid_config', /wrong user or password/],
    ['no password', of('bare'), 'invalid_config', /DATABASE_URL has none/],
    ['no line in pg_hba.conf', of('outside'), 'invalid_config', /pg_hba\.conf.*add a line/],
    ['a user who may not log in', of('asleep'), 'invalid_config', /may not log in.*LOGIN/],
    ['a user who is not there', of('missing'), 'invalid_config', /no such user/],
    ['a database that is not there', of('maker', 'nobody'), 'invalid_config', /no such database/],
    ['a database that the user may not connect to', of('maker', 'shut'), 'invalid_config', /GRANT CONNECT ON DATABASE/],
    ['a database that takes no connections', of('maker', 'closed'), 'unreachable', /ALLOW_CONNECTIONS/],
    ['a user with too many connections', of('capped'), 'unavailable', /too many connections; raise/],
    ['nothing at the port', () => `postgresql://u:${PASSWORD}@127.0.0.1:1/d`, 'unreachable', /connection refused.*host and port/],
    ['no socket', () => `postgresql://u:${PASSWORD}@localhost/d?host=/nowhere`, 'unreachable', /no such socket/],
    [
      'a host without an address',
      () => `postgresql://u:${PASSWORD}@nowhere.invalid/d?sslmode=disable`,
      'unreachable',
      /host not found|name server/,
    ],
    ['a socket without TLS', () => urlOf({ user: 'maker', database: 'empty' }, '&sslmode=verify-full'), 'invalid_config', /it has no TLS/],
  ])('%s', async (_, url, code, says) => {
    const error = await refused(url())
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(says)])
    expect(await diagnosed(url())).toMatch(says)
  })

  const HOUR = 3_600_000
  const until = (ms: number): Date => new Date(Date.now() + ms)
  const VERIFIED = 'sslmode=verify-full'
  it.each([
    ['an unknown authority', -HOUR, HOUR, 'localhost', false, /signed by itself.*sslrootcert/],
    ['a certificate for another host', -HOUR, HOUR, '127.0.0.2', true, /for another host/],
    ['a certificate that has expired', -2 * HOUR, -HOUR, 'localhost', true, /has expired/],
    ['a certificate of tomorrow', HOUR, 2 * HOUR, 'localhost', true, /not valid yet/],
  ] as const)('%s', async (_, from, to, host, trusted, says) => {
    const { port, cert } = await startTls(until(from), until(to))
    await writeFile(join(folder, 'ca.pem'), cert)
    const url = `postgresql://maker:${PASSWORD}@${host}:${port}/empty?${VERIFIED}${trusted ? `&sslrootcert=${join(folder, 'ca.pem')}` : ''}`
    expect(await refused(url)).toMatchObject({ code: 'invalid_config', message: expect.stringMatching(says) })
    expect(await diagnosed(url)).toMatch(says)
  })
})

describe('what a start needs and may not do', { timeout: 30_000 }, () => {
  it('no right to make tables: the statement to run, with user and schema; then it starts', async () => {
    const url = urlOf({ user: 'maker', database: 'taken' })
    const error = await refused(url)
    expect(error.code).toBe('invalid_config')
    const statement = /GRANT USAGE, CREATE ON SCHEMA "public" TO "maker"/.exec(error.message)?.[0]
    const taken = urlOf({ user: 'sealpost', database: 'taken' })
    await query(taken, statement ?? '')
    await (await startServer(configOf(url), { logger: silent, test: true })).stop()
    // all is there: it may make nothing more, and starts
    await query(taken, 'revoke create on schema public from maker')
    await rm(join(folder, 'data'), { recursive: true })
    const again = await refused(url)
    expect(again.code).toBe('server_identity')
  })

  it('no schema at all', async () => {
    await query(urlOf({ user: 'sealpost', database: 'owned' }), 'drop schema public')
    expect((await refused(urlOf({ user: 'writer', database: 'owned' }))).message).toMatch(
      /GRANT USAGE, CREATE ON SCHEMA "public" TO "writer"/,
    )
  })

  it('tables of another user', async () => {
    const url = urlOf({ user: 'sealpost', database: 'empty' })
    await (await startServer(configOf(url), { logger: silent, test: true })).stop()
    const error = await refused(urlOf({ user: 'writer', database: 'empty' }))
    expect([error.code, error.message]).toEqual(['invalid_config', expect.stringMatching(/REASSIGN OWNED BY .* TO "writer"/)])
  })

  it('no writes, a timeout that cuts a migration off, an encoding', async () => {
    expect((await refused(urlOf({ user: 'reader', database: 'of_reader' }))).message).toMatch(/takes no writes.*ALTER ROLE "reader" RESET/)
    expect((await refused(urlOf({ user: 'late', database: 'of_late' }))).message).toMatch(/cut a statement off.*ALTER ROLE "late" RESET/)
    const latin = await refused(urlOf({ user: 'maker', database: 'latin' }))
    expect([latin.message, latin.hint]).toEqual([expect.stringMatching(/LATIN1$/), expect.stringMatching(/create database/)])
  })
})
