/**
 * Relays as an operator runs them: one PostgreSQL with fsync, on it a database for each relay, nodes that are processes of their own,
 * Redis between them where asked for. All end with the bench, and with its process.
 */
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fromBase64url } from '@sealpost/protocol'
import { Client } from 'pg'
import { startEmbeddedPostgres } from '../../packages/server/src/store/postgres/embedded-postgres.ts'
import { findCommand } from '@sealpost/testing/components/available'
import { type RedisServer, startRedis } from '@sealpost/testing/components/redis'
import { type Program, ROOT, startProgram } from '@sealpost/testing/components/programs'
import { type Defer, NODE_FLAGS } from './run.ts'

export type Ground = {
  /** PostgreSQL, and all that it starts. */
  readonly pid: number
  /** A new database; its URL. */
  database(name: string): Promise<string>
  folder: string
}

export type Node = Pick<Program, 'pid' | 'kill' | 'ended'> & { readonly url: string }

export type Relay = {
  readonly name: string
  readonly nodes: readonly Node[]
  readonly redis: RedisServer | null
  readonly postgres: { readonly pid: number }
  /** base64url */
  readonly server_key: string
}

export type RelayOptions = {
  name: string
  nodes: number
  redis?: boolean
  /** Another tree of sources with its packages installed. */
  root?: string | undefined
  env?: NodeJS.ProcessEnv
  /** More arguments of `serve`. */
  args?: readonly string[]
  /** Of each node's Node. */
  flags?: readonly string[]
}

const CONNECTIONS = '300'
const READY_MS_MAX = 20_000
const POLL_MS = 50
const RUN_MS_MAX = 3_600_000

export async function openGround(defer: Defer, { fsync = true } = {}): Promise<Ground> {
  const folder = await mkdtemp(join(tmpdir(), 'sealpost-bench-'))
  defer(() => rm(folder, { recursive: true, force: true }))
  // a node that was just starting when the bench ended may have made it again
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const postgres = await startEmbeddedPostgres({ data_dir: folder, test: !fsync, settings: { max_connections: CONNECTIONS } })
  defer(() => postgres.stop())
  const { host, user, database } = postgres.connection
  return {
    pid: postgres.pid,
    folder,
    async database(name) {
      const client = new Client({ host, user, database })
      await client.connect()
      try {
        await client.query(`create database ${name}`)
      } finally {
        await client.end()
      }
      return `postgresql://${user}@localhost/${name}?host=${encodeURIComponent(host)}`
    },
  }
}

export async function openRelay(defer: Defer, ground: Ground, options: RelayOptions): Promise<Relay> {
  const { name, nodes: count } = options
  const database_url = await ground.database(name)
  const redis = options.redis === true ? await startRedis() : null
  if (redis !== null) defer(() => redis.stop())
  const env = {
    DATABASE_URL: database_url,
    ...(redis === null ? {} : { REDIS_URL: redis.url }),
    SEALPOST_ADMIN: 'off',
    SEALPOST_LOG_LEVEL: 'warn',
    SEALPOST_DRAIN_SPREAD_S: '0',
    ...options.env,
  }
  const folders = Array.from({ length: count }, (_, i) => join(ground.folder, `${name}-${i}`))
  const start = (folder: string, more: NodeJS.ProcessEnv = {}): Promise<Node & { server_key: string }> =>
    startNode(defer, folder, options, { ...env, ...more })
  // the first makes the secrets of all
  const first = await start(folders[0] ?? '')
  const secrets = { SEALPOST_SECRETS_FILE: join(folders[0] ?? '', 'secrets.json') }
  const nodes = [first, ...(await Promise.all(folders.slice(1).map((folder) => start(folder, secrets))))]
  await Promise.all(nodes.map(becomesReady))
  return { name, nodes, redis, postgres: { pid: ground.pid }, server_key: first.server_key }
}

async function startNode(
  defer: Defer,
  folder: string,
  options: RelayOptions,
  env: NodeJS.ProcessEnv,
): Promise<Node & { server_key: string }> {
  const { root = ROOT, args = [], flags = [] } = options
  const serve = [join(root, 'packages', 'cli', 'src', 'main.ts'), 'serve', '--port', '0', '--data', folder, ...args]
  const dying = findCommand('setpriv') === null ? [] : ['setpriv', '--pdeathsig', 'KILL']
  const [command = '', ...rest] = [...dying, process.execPath, ...flags, ...NODE_FLAGS, ...serve]
  const program = startProgram(command, rest, { cwd: root, env, ms_max: RUN_MS_MAX })
  defer(async () => {
    program.kill('SIGTERM')
    await program.ended
  })
  const [, url = '', server_key = ''] = await program.printed(/--server "(http:\/\/[^/]+)\/#([\w-]+)"/)
  fromBase64url(server_key, 32)
  return { url, server_key, pid: program.pid, kill: program.kill, ended: program.ended }
}

/** With Redis: once hints of the others arrive. */
async function becomesReady({ url }: Node): Promise<void> {
  for (const end = performance.now() + READY_MS_MAX; performance.now() < end; await sleep(POLL_MS)) {
    const answer = await fetch(`${url}/readyz`).catch(() => null)
    const { status } = (answer?.ok === true ? await answer.json() : {}) as { status?: string }
    if (status === 'ready') return
  }
  throw new Error(`${url} did not become ready within ${READY_MS_MAX} ms`)
}
