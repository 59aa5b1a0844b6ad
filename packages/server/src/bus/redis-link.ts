/**
 * The connections to Redis: one for commands and one for messages, or of a Cluster both to each of its masters. Standalone,
 * Sentinel or Cluster; TLS and an ACL user by the URL. They reconnect by themselves for ever, and keep nothing for later: what
 * cannot be asked now fails now.
 */
import { randomInt } from 'node:crypto'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import type { Log } from '../telemetry/log.ts'

export type RedisConfig = {
  mode: 'standalone' | 'sentinel' | 'cluster'
  /** `redis:` or `rediss:`; of a standalone one, else of the sentinels or of some masters. */
  urls: readonly string[]
  /** The name by which the sentinels know the master. */
  master: string
  sentinel_password: string | null
}

export type RedisLink = {
  readonly commands: Redis | Cluster
  /** The same as `commands` in a Cluster. */
  readonly subscriber: Redis | Cluster
  /** Begins anew with all connections. */
  reconnect(): void
  close(): void
}

const CONNECT_MS = 3_000
/** So long a command may take; who waits for it goes on without. */
const COMMAND_MS = 1_000
const RETRY_MS_MIN = 50
const RETRY_MS_MAX = 1_000

export function openRedis(config: RedisConfig, logger: Log): RedisLink {
  const note = (err: Error): void => logger.debug({ err }, 'redis')
  const open = (name: string): Redis => {
    const redis = new Redis(redisOptions(config, name))
    redis.on('error', note)
    return redis
  }
  if (config.mode !== 'cluster') {
    const [commands, subscriber] = [open('sealpost'), open('sealpost-bus')]
    return {
      commands,
      subscriber,
      reconnect() {
        for (const redis of [commands, subscriber]) redis.disconnect(true)
      },
      close() {
        for (const redis of [commands, subscriber]) redis.disconnect()
      },
    }
  }
  const nodes = config.urls.map((url) => new URL(url))
  const access = accessOf(nodes[0])
  const cluster = new Cluster(
    nodes.map(({ hostname, port }) => ({ host: bare(hostname), port: Number(port) || 6379 })),
    {
      shardedSubscribers: true,
      enableOfflineQueue: false,
      enableAutoPipelining: true,
      // they go to other connections than commands do
      autoPipeliningIgnoredCommands: ['ssubscribe', 'sunsubscribe'],
      slotsRefreshInterval: 5_000,
      slotsRefreshTimeout: COMMAND_MS,
      clusterRetryStrategy: retryAfter,
      redisOptions: { ...COMMON, connectionName: 'sealpost', ...access },
      // else the certificate would have to name the address behind the name
      ...(access.tls === undefined ? {} : { dnsLookup: (name, done) => done(null, name) }),
    },
  )
  cluster.on('error', note)
  cluster.on('nodeError', note)
  return {
    commands: cluster,
    subscriber: cluster,
    reconnect: () => cluster.disconnect(true),
    close: () => cluster.disconnect(),
  }
}

const COMMON = {
  connectTimeout: CONNECT_MS,
  commandTimeout: COMMAND_MS,
  keepAlive: 10_000,
  maxRetriesPerRequest: 0,
  autoResubscribe: false,
  autoResendUnfulfilledCommands: false,
  disableClientInfo: true,
} satisfies RedisOptions

function redisOptions(config: RedisConfig, connectionName: string): Omit<RedisOptions, 'replyMapping'> {
  const common = {
    ...COMMON,
    connectionName,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    autoPipeliningIgnoredCommands: ['publish'],
    retryStrategy: retryAfter,
  }
  const urls = config.urls.map((url) => new URL(url))
  const [first] = urls
  const access = accessOf(first)
  if (config.mode === 'standalone' || first === undefined) {
    const db = Number(first?.pathname.slice(1) ?? 0) || 0
    return { ...common, ...access, host: bare(first?.hostname ?? ''), port: Number(first?.port) || 6379, db }
  }
  const sentinels = urls.map(({ hostname, port }) => ({ host: bare(hostname), port: Number(port) || 26_379 }))
  const { sentinel_password: sentinelPassword } = config
  return {
    ...common,
    ...access,
    sentinels,
    name: config.master,
    sentinelRetryStrategy: retryAfter,
    ...(sentinelPassword === null ? {} : { sentinelPassword }),
    ...(access.tls === undefined ? {} : { enableTLSForSentinelMode: true, sentinelTLS: access.tls }),
  }
}

function accessOf(url: URL | undefined): Pick<RedisOptions, 'username' | 'password' | 'tls'> {
  if (url === undefined) return {}
  return {
    ...(url.username === '' ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === '' ? {} : { password: decodeURIComponent(url.password) }),
    ...(url.protocol === 'rediss:' ? { tls: {} } : {}),
  }
}

/** An IPv6 address without its brackets. */
function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '')
}

/** Jittered, so that the nodes do not come back at one moment. */
function retryAfter(times: number): number {
  const ms = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(times, 10))
  return randomInt(Math.ceil(ms / 2), ms + 1)
}
