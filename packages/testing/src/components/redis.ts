/**
 * Real Redis servers, without persistence: alone (password, ACL user, TLS), with Sentinel over a master and a replica, and
 * a Cluster of three masters.
 *
 * Bound: each of their checks ends within `ASK_MS_MAX`; a starter that fails leaves nothing behind.
 */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import { type Certificate, makeCertificate } from './certificate.ts'
import { commandOf } from './available.ts'
import { type Place, type Running, startComponent, waitUntil } from './start-component.ts'

const run = promisify(execFile)

const ASK_MS_MAX = 2000
const DAY_MS = 86_400_000
/** A node of a cluster listens there too, for the others. */
const CLUSTER_BUS_DISTANCE = 10_000
const CLUSTER_NODE_TIMEOUT_MS = 1000
const DOWN_AFTER_MS = 500
const FAILOVER_MS_MAX = 1500
/** They look and talk each second or ten, and after a vote that nobody won wait for long: here all of that is short. */
const PACE = Object.entries({
  'info-period': 200,
  'ask-period': 100,
  'publish-period': 200,
  'election-timeout': 1000,
  'tilt-period': 1000,
}).flat()
const CREATE_MS_MAX = 20_000
const CERTIFICATE = 'cert.pem'

/** What a relay does in Redis and nothing else: hints and shared counts under its own prefix; and what ioredis asks at each connect. */
export const RELAY_ACL = [
  '~sealpost:* &sealpost:*',
  '-@all +@connection +@pubsub +@read +@write +@scripting +multi +exec -@dangerous',
  '+info +cluster|info +cluster|slots +cluster|shards +cluster|nodes',
].join(' ')

export type RedisOptions = {
  /** Lines of redis.conf. */
  config?: readonly string[]
  port?: number
  password?: string
  /** Rules of the user in `url`, who then is not the default one; true: `RELAY_ACL`. */
  acl?: string | true
  /** TLS alone, on loopback alone; with this certificate, or one of its own. */
  tls?: boolean | Certificate | undefined
  at?: Place
}

export type RedisServer = Running & {
  /** For a relay: with the password, the ACL user and `rediss:` where asked for. */
  readonly url: string
  /** The certificate to trust, in PEM; null without TLS. */
  readonly ca: string | null
  /** One command with every right, over a connection of its own. */
  ask(command: string, ...args: (string | number)[]): Promise<unknown>
}

export function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  return startServer('redis-server', options, 0)
}

async function startServer(command: 'redis-server' | 'redis-sentinel', options: RedisOptions, also_at: number): Promise<RedisServer> {
  // with an ACL user, who has the same password, the default one is who `ask` goes as
  const password = options.password ?? (options.acl === undefined ? undefined : randomBytes(12).toString('hex'))
  const certificate = options.tls === true ? certificateOfToday() : options.tls || null
  const ask = (host: string, port: number, name: string, args: (string | number)[]): Promise<unknown> =>
    askRedis({ host, port, password, ca: certificate?.cert }, name, args)
  const running = await startComponent({
    command,
    at: options.at,
    port: options.port,
    also_at,
    async prepare({ folder, host, port }) {
      const file = join(folder, 'redis.conf')
      const lines = [`dir ${folder}`, `bind ${host}`, 'protected-mode no', 'appendonly no', 'save ""']
      if (certificate === null) lines.push(`port ${port}`)
      else {
        const [cert, key] = [join(folder, CERTIFICATE), join(folder, 'key.pem')]
        await writeFile(cert, certificate.cert)
        await writeFile(key, certificate.key, { mode: 0o600 })
        lines.push('port 0', `tls-port ${port}`, `tls-cert-file ${cert}`, `tls-key-file ${key}`, `tls-ca-cert-file ${cert}`)
        lines.push('tls-auth-clients no')
      }
      if (password !== undefined) lines.push(`requirepass ${password}`)
      if (options.acl !== undefined) lines.push(`user relay on >${password} ${options.acl === true ? RELAY_ACL : options.acl}`)
      await writeFile(file, [...lines, ...(options.config ?? []), ''].join('\n'))
      return [file]
    },
    isReady: async ({ host, port }) => (await ask(host, port, 'ping', [])) === 'PONG',
  })
  const { host, port } = running
  const user = password === undefined ? '' : `${options.acl === undefined ? '' : 'relay'}:${password}@`
  return Object.defineProperties(running as RedisServer, {
    url: { value: `${certificate === null ? 'redis' : 'rediss'}://${user}${host}:${port}`, enumerable: true },
    ca: { value: certificate?.cert ?? null, enumerable: true },
    ask: { value: (name: string, ...args: (string | number)[]) => ask(host, port, name, args), enumerable: true },
  })
}

function certificateOfToday(): Certificate {
  return makeCertificate(new Date(Date.now() - DAY_MS), new Date(Date.now() + DAY_MS))
}

type Target = { host: string; port: number; password?: string | undefined; ca?: string | undefined }

async function askRedis({ host, port, password, ca }: Target, command: string, args: (string | number)[]): Promise<unknown> {
  const client = new Redis({
    host,
    port,
    ...(password === undefined ? {} : { password }),
    ...(ca === undefined ? {} : { tls: { ca } }),
    lazyConnect: true,
    enableReadyCheck: false,
    disableClientInfo: true,
    connectTimeout: ASK_MS_MAX,
    commandTimeout: ASK_MS_MAX,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
  })
  // told by the command that waits
  client.on('error', () => {})
  try {
    await client.connect()
    return await client.call(command, ...args)
  } finally {
    client.disconnect()
  }
}

/** Replies of `INFO` and `CLUSTER INFO`: one `name:value` a line. */
function fieldOf(text: unknown, name: string): string | undefined {
  return new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(String(text))?.[1]
}

// ---------------------------------------------------------------- Sentinel

export type Sentinels = {
  /** The name that the sentinels know the master by. */
  readonly name: string
  readonly sentinels: readonly RedisServer[]
  /** Of the sentinels themselves. */
  readonly sentinel_password: string | null
  readonly servers: readonly [RedisServer, RedisServer]
  /** Addresses of the sentinels, as a client wants them. */
  readonly addresses: readonly { host: string; port: number }[]
  /** The server that the sentinels call master now. */
  master(): Promise<RedisServer>
  /** Kills the master; resolves with the new one when it takes writes, and with the killed one. */
  failOver(): Promise<{ killed: RedisServer; master: RedisServer; ms: number }>
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export type SentinelOptions = {
  sentinels?: 1 | 3
  at?: Place
  /** TLS alone, between all of them too, with one certificate; an ACL user at the servers, and another password at the sentinels. */
  secured?: boolean
}

/** A master, its replica and sentinels (1 or 3) that know both and each other. */
export async function startSentinel({ sentinels: count = 1, at, secured = false }: SentinelOptions = {}): Promise<Sentinels> {
  const name = 'sealpost'
  const [password, sentinel_password] = [randomBytes(12).toString('hex'), randomBytes(12).toString('hex')]
  const tls = secured ? certificateOfToday() : undefined
  const common = { ...(at === undefined ? {} : { at }), tls }
  const replication = secured ? ['tls-replication yes'] : []
  const started: RedisServer[] = []
  const stop = async (): Promise<void> => void (await Promise.all(started.map((server) => server.stop())))
  const start = async (...args: Parameters<typeof startServer>): Promise<RedisServer> => {
    const server = await startServer(...args)
    started.push(server)
    return server
  }
  const startOne = (...lines: string[]): Promise<RedisServer> => {
    const config = ['repl-diskless-sync-delay 0', ...replication, ...(secured ? [`masterauth ${password}`] : []), ...lines]
    return start('redis-server', { ...common, ...(secured ? { password, acl: true } : {}), config }, 0)
  }
  try {
    const first = await startOne()
    const second = await startOne(`replicaof ${first.host} ${first.port}`)
    // a sentinel learns of the replica when it asks the master first, and then not for ten seconds
    await waitUntil('the replica follows', () => isFollowing(second))
    const config = [
      `sentinel monitor ${name} ${first.host} ${first.port} ${count === 1 ? 1 : 2}`,
      `sentinel down-after-milliseconds ${name} ${DOWN_AFTER_MS}`,
      `sentinel failover-timeout ${name} ${FAILOVER_MS_MAX}`,
      ...(secured ? [`sentinel auth-pass ${name} ${password}`] : []),
      ...replication,
    ]
    const options = { ...common, ...(secured ? { password: sentinel_password } : {}), config }
    const sentinels = await Promise.all(Array.from({ length: count }, () => start('redis-sentinel', options, 0)))
    await Promise.all(sentinels.map((sentinel) => sentinel.ask('sentinel', 'debug', ...PACE).catch(ignoreUnknown)))
    await Promise.all(sentinels.map((sentinel) => waitUntil('sentinels know all', () => knowsAll(sentinel, name, count - 1))))
    return createSentinels({ name, sentinels, sentinel_password: secured ? sentinel_password : null, servers: [first, second], stop })
  } catch (error) {
    await stop()
    throw error
  }
}

type Group = Pick<Sentinels, 'name' | 'sentinels' | 'sentinel_password' | 'servers' | 'stop'>

function createSentinels({ name, sentinels, sentinel_password, servers, stop }: Group): Sentinels {
  const master = async (): Promise<RedisServer> => {
    const [first] = sentinels
    if (first === undefined) throw new Error('no sentinel')
    const [, port] = (await first.ask('sentinel', 'get-master-addr-by-name', name)) as [string, string]
    const found = servers.find((server) => server.port === Number(port))
    if (found === undefined) throw new Error(`the master has a port of nobody: ${port}`)
    return found
  }
  return {
    name,
    sentinels,
    sentinel_password,
    servers,
    addresses: sentinels.map(({ host, port }) => ({ host, port })),
    master,
    async failOver() {
      const killed = await master()
      const began = performance.now()
      await killed.kill()
      const other = servers.find((server) => server !== killed) ?? servers[0]
      await waitUntil('the replica is the master', async () => (await master()) === other && (await isMaster(other)))
      return { killed, master: other, ms: performance.now() - began }
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

/** Before Redis 7 they go at their own pace. */
function ignoreUnknown(error: unknown): void {
  if (!/unknown|DEBUG/i.test(String(error))) throw error
}

async function isFollowing(replica: RedisServer): Promise<boolean> {
  return fieldOf(await replica.ask('info', 'replication'), 'master_link_status') === 'up'
}

async function isMaster(server: RedisServer): Promise<boolean> {
  return fieldOf(await server.ask('info', 'replication'), 'role') === 'master'
}

/** A replica that has told nothing yet is none to a failover. */
async function knowsAll(sentinel: RedisServer, name: string, others: number): Promise<boolean> {
  const master = (await sentinel.ask('sentinel', 'master', name)) as string[]
  const [replica = []] = (await sentinel.ask('sentinel', 'replicas', name)) as string[][]
  const value = (reply: string[], field: string): string | undefined => reply[reply.indexOf(field) + 1]
  if (value(master, 'flags') !== 'master' || value(master, 'num-other-sentinels') !== String(others)) return false
  return value(replica, 'flags') === 'slave' && value(replica, 'master-link-status') === 'ok'
}

// ---------------------------------------------------------------- Cluster

export type Cluster = {
  /** Three masters, each with a third of the slots, in their order. */
  readonly nodes: readonly RedisServer[]
  readonly addresses: readonly { host: string; port: number }[]
  readonly urls: readonly string[]
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const MASTERS = 3

export type ClusterOptions = Pick<RedisOptions, 'password' | 'acl' | 'at'> & {
  /** TLS alone, between the masters too, with one certificate. */
  tls?: boolean
  /** False lets the rest of the cluster go on without a dead master. */
  full_coverage?: boolean
}

export async function startCluster({ full_coverage = true, tls = false, ...rest }: ClusterOptions = {}): Promise<Cluster> {
  const password = rest.password ?? randomBytes(12).toString('hex')
  const certificate = tls ? certificateOfToday() : undefined
  const config = [
    'cluster-enabled yes',
    'cluster-config-file nodes.conf',
    `cluster-node-timeout ${CLUSTER_NODE_TIMEOUT_MS}`,
    `cluster-require-full-coverage ${full_coverage ? 'yes' : 'no'}`,
    ...(tls ? ['tls-cluster yes'] : []),
  ]
  const options = { ...rest, tls: certificate, config, ...(rest.acl === undefined ? {} : { password }) }
  const starts = await Promise.allSettled(Array.from({ length: MASTERS }, () => startServer('redis-server', options, CLUSTER_BUS_DISTANCE)))
  const nodes = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []))
  const stop = async (): Promise<void> => void (await Promise.all(nodes.map((node) => node.stop())))
  try {
    const failed = starts.find((start) => start.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    const addresses = nodes.map(({ host, port }) => ({ host, port }))
    const secured = certificate === undefined ? [] : ['--tls', '--cacert', join(nodes[0]?.folder ?? '', CERTIFICATE)]
    const create = [...secured, '--cluster', 'create', ...addresses.map(({ host, port }) => `${host}:${port}`), '--cluster-yes']
    const [command = '', ...args] = [...(rest.at?.prefix ?? []), commandOf('redis-cli'), ...create]
    const auth = options.password === undefined ? {} : { REDISCLI_AUTH: options.password }
    await run(command, args, { timeout: CREATE_MS_MAX, env: { ...process.env, ...auth } })
    // a master takes no part for its first two seconds
    await Promise.all(nodes.map((node) => waitUntil('cluster_state:ok', () => isClusterOk(node))))
    return { nodes, addresses, urls: nodes.map((node) => node.url), stop, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function isClusterOk(node: RedisServer): Promise<boolean> {
  const info = await node.ask('cluster', 'info')
  return fieldOf(info, 'cluster_state') === 'ok' && fieldOf(info, 'cluster_known_nodes') === String(MASTERS)
}
