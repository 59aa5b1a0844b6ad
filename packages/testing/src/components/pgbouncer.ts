/**
 * A real pgbouncer before the PostgreSQL of a URL, on loopback, taking whoever comes. It refuses root as PostgreSQL does, so
 * it runs under the account that PostgreSQL runs under.
 */
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Client } from 'pg'
import { choosePostgresAccount, giveFolder, type PostgresAccount } from '../../../server/src/store/postgres/postgres-account.ts'
import { type Place, type Running, startComponent } from './start-component.ts'

const ADMIN = 'pgbouncer'
const ASK_MS_MAX = 2000

export type PgbouncerOptions = {
  /** Of PostgreSQL, over TCP or a Unix socket (`?host=/folder`). */
  database_url: string
  pool_mode?: 'transaction' | 'session' | 'statement'
  /** Lines of the section `[pgbouncer]`, after the ones here: the last one counts. */
  ini?: readonly string[]
  port?: number
  at?: Place
}

export type Pgbouncer = Running & {
  /** The database of `database_url` through pgbouncer; another name reaches that database. */
  readonly url: string
  /** One command of its console: `show pools`, `pause`, `resume`, `kill <database>`, `reload`. */
  ask(command: string): Promise<Record<string, unknown>[]>
}

export async function startPgbouncer(options: PgbouncerOptions): Promise<Pgbouncer> {
  const account = await choosePostgresAccount()
  const behind = new URL(options.database_url)
  const running = await startComponent({
    command: 'pgbouncer',
    at: options.at,
    port: options.port,
    account: prefixOf(account),
    async prepare({ folder, host, port }) {
      const file = join(folder, 'pgbouncer.ini')
      const settings = [
        `listen_addr = ${host}`,
        `listen_port = ${port}`,
        'unix_socket_dir =',
        'auth_type = any',
        `admin_users = ${ADMIN}`,
        `pool_mode = ${options.pool_mode ?? 'transaction'}`,
        'max_client_conn = 1000',
        'ignore_startup_parameters = extra_float_digits',
        ...(options.ini ?? []),
      ]
      await writeFile(file, ['[databases]', `* = ${targetOf(behind)}`, '[pgbouncer]', ...settings, ''].join('\n'))
      if (account.way === 'setuid') await chmod(folder, 0o711)
      await giveFolder(account, folder)
      return [file]
    },
    isReady: async ({ host, port }) => (await askConsole(host, port, 'show version')).length > 0,
  })
  const { host, port } = running
  const url = new URL(behind)
  url.searchParams.delete('host')
  url.host = `${host}:${port}`
  return Object.defineProperties(running as Pgbouncer, {
    url: { value: url.href, enumerable: true },
    ask: { value: (command: string) => askConsole(host, port, command), enumerable: true },
  })
}

/** PostgreSQL is asked to shut down when its parent dies; pgbouncer would wait for its clients, and is killed. */
function prefixOf({ way, prefix }: PostgresAccount): readonly string[] {
  if (way === 'setuid') return ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--pdeathsig', 'KILL']
  return prefix.map((part) => (part === 'SIGINT' ? 'KILL' : part))
}

function targetOf(url: URL): string {
  const parts = [
    `host=${url.searchParams.get('host') ?? url.hostname}`,
    `port=${url.port || 5432}`,
    `user=${decodeURIComponent(url.username)}`,
  ]
  if (url.password !== '') parts.push(`password='${decodeURIComponent(url.password).replaceAll("'", "''")}'`)
  return parts.join(' ')
}

async function askConsole(host: string, port: number, command: string): Promise<Record<string, unknown>[]> {
  const client = new Client({ host, port, user: ADMIN, database: 'pgbouncer', connectionTimeoutMillis: ASK_MS_MAX })
  // told by the command that waits
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(command)).rows
  } finally {
    await client.end()
  }
}
