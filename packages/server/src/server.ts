/**
 * The composition root of a relay: what is opened, in which order, and closed in reverse. Nothing else knows the parts
 * together.
 *
 * data folder → secrets → database → migrations (`foundation.ts`) → server key → store → Redis, bus → node → audit → settings → jobs → relay (ingest, sessions) →
 * http → gateway → listening → listener of admins. A stop is told to balancers first, then sessions are drained, before any of them closes.
 * A start that fails closes what it had opened.
 */
import { type Bytes, SealpostError, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { setTimeout as sleep } from 'node:timers/promises'
import { DatabaseError } from 'pg'
import { openBus } from './bus/open-bus.ts'
import { openRedis } from './bus/redis-link.ts'
import { openRedisWire } from './bus/redis-wire.ts'
import type { OpenWire } from './bus/wire.ts'
import type { Config } from './config/config.ts'
import { checkWanted, type Foundation, openFoundation } from './data/foundation.ts'
import { createGateway } from './gateway/gateway.ts'
import { createAdminHttp } from './admin/admin-http.ts'
import { makeAdminOpenApi } from './api/admin-openapi.ts'
import { makeAsyncApi } from './api/asyncapi.ts'
import { makeOpenApi } from './api/openapi.ts'
import { createAuditJobs } from './jobs/audit.ts'
import { auditedLimits } from './limits/audited-limits.ts'
import { createAudit } from './audit/recorder.ts'
import { createHttp } from './http/http.ts'
import type { LimitCounter } from './limits/counter.ts'
import { createRateLimits } from './limits/rate-limits.ts'
import { createRedisCounter } from './limits/redis-counter.ts'
import type { RateRule } from './limits/rules.ts'
import { openSigningKeys } from './http/auth/signing-keys.ts'
import { createRetentionJobs } from './jobs/retention.ts'
import { startJobs } from './jobs/schedule.ts'
import { adminPlaceOf, listen, placeOf } from './http/listening.ts'
import type { Log } from './telemetry/log.ts'
import { createNodeFigures } from './relay/node-figures.ts'
import { openNodeLease } from './relay/sessions/node-lease.ts'
import { createRelay, type Relay } from './relay/relay.ts'
import { type LogLevel, openSettings, settingsOf } from './config/settings.ts'
import { startRefused } from './store/postgres/refusals.ts'
import { createStore } from './store/store.ts'

const RELAY_NAME_CHARS = 16
const OTHER_KEY = 'the database belongs to a relay with another key'
const OTHER_KEY_HINT = 'put the secrets.json of that relay back, or name it with SEALPOST_SECRETS_FILE; or use another database'

export type RunningServer = {
  /** The URL by which this machine reaches it. */
  url: string
  /** The same of the listener of admins; null when there is none. */
  admin_url: string | null
  port: number
  /** Ed25519 public key, 32 bytes. */
  server_key: Uint8Array
  /** Is not ready, drains, closes everything; resolves when PostgreSQL has ended too. Later calls wait for the first. */
  stop(): Promise<void>
  /** Resolves after a stop. */
  stopped: Promise<void>
}

export type ServerOptions = {
  logger: Log
  /** The embedded PostgreSQL without fsync: for tests alone. */
  test?: boolean
  /** What is logged from now on. */
  setLogLevel?: (level: LogLevel) => void
  /** Gives up a start that is under way. */
  signal?: AbortSignal
  /** For one of several processes of this machine: what the first of them has opened, and how they reach each other. */
  among?: Among
}

/** `nodes`: how many live, wherever they are. */
export type Among = { foundation: Foundation; wire: OpenWire; counter(nodes: () => number): LimitCounter }

/** Throws `aborted` by the signal, and `data_in_use`, `data_newer`, `disk`, `insecure_permissions`, `unreachable`, `server_identity`, `port_in_use`, `invalid_config`, `internal`. */
export async function startServer(config: Config, { logger, test, setLogLevel, signal, among }: ServerOptions): Promise<RunningServer> {
  const open: (() => Promise<void> | void)[] = []
  const closeAll = async (): Promise<void> => {
    for (let close = open.pop(); close !== undefined; close = open.pop()) {
      await Promise.resolve(close()).catch((error: unknown) => logger.error({ err: error }, 'a part did not close'))
    }
  }
  try {
    return await openAll()
  } catch (error) {
    await closeAll()
    throw explained(error)
  }

  async function openOwnFoundation(): Promise<Foundation> {
    const foundation = await openFoundation(config, { logger, test, signal })
    open.push(() => foundation.close())
    return foundation
  }

  async function openAll(): Promise<RunningServer> {
    const { secrets, connection, pooler } = among?.foundation ?? (await openOwnFoundation())
    const { clock_skew_ms, quota_bytes, quota_devices: devices_max, quota_streams: streams_max } = config
    const store = await createStore({ connection, pooler, log: logger, clock_skew_ms, quota_bytes, devices_max, streams_max })
    open.push(() => store.close())
    if ((await store.claimServerKey(secrets.server_key)) === 'mismatch')
      throw new SealpostError('server_identity', OTHER_KEY, { hint: OTHER_KEY_HINT })
    const redis = config.redis === null ? null : openRedis(config.redis, logger)
    open.push(() => redis?.close())
    // relays that share one Redis do not hear of each other
    const name = toBase64url(secrets.server_key).slice(0, RELAY_NAME_CHARS)
    const wire = redis === null ? (among?.wire ?? null) : openRedisWire(redis, name, logger)
    const bus = openBus(wire, secrets.bus_key, logger)
    open.push(() => bus.close())
    let running: Relay | null = null
    let draining = false
    checkWanted(signal)
    const figures = createNodeFigures({ relay: () => running, bus, draining: () => draining })
    const node = await openNodeLease({ store, figures, changed: () => running?.sessions.lookNow(), logger })
    open.push(() => node.close())
    // without Redis hints come from the processes of this machine
    const degraded = (): boolean => bus.reach() === 'down' || (redis === null && node.live() > config.workers)
    const audit = createAudit(store, logger)
    open.push(() => audit.close())
    const counter = redis === null ? (among?.counter(node.live) ?? null) : createRedisCounter(redis, name)
    const rates = createRateLimits(config.rates, { counter: () => (bus.reach() === 'up' ? counter : null), nodes: node.live })
    const settings = await openSettings({
      store,
      configured: settingsOf(config),
      apply: (name, value) => {
        if (name === 'log_level') setLogLevel?.(value as LogLevel)
        else if (name !== 'signup') rates.set(name.slice('rate_'.length) as RateRule, Number(value))
      },
      logger,
    })
    open.push(() => settings.close())
    const sign = (bytes: Bytes): Bytes => nodeCrypto.ed25519Sign(secrets.server_sign_seed, bytes)
    const jobs = startJobs([...createRetentionJobs(store, config.retention), ...createAuditJobs(store, sign, config.audit_ms)], logger)
    open.push(() => jobs.close())

    const { limits } = config
    const relay = createRelay({ store, bus, node, token_key: secrets.token_key, rates: auditedLimits(rates, audit), limits, logger })
    running = relay
    open.push(() => relay.close())
    const rest = await openSigningKeys(store, secrets.jwt_sign_seed, logger, { audit })
    open.push(() => rest.close())
    const http = createHttp({
      store,
      bus,
      relay,
      keys: rest,
      secrets,
      config: {
        ...config,
        get signup() {
          return settings.get('signup').value
        },
      },
      documents: { openapi: makeOpenApi, asyncapi: makeAsyncApi },
      audit,
      draining: () => draining,
      degraded,
      logger,
    })
    open.push(() => http.close())
    const gateway = createGateway({ relay, secrets, config })
    open.push(() => gateway.close())
    gateway.attach(http.server)
    checkWanted(signal)
    const { url, port } = await listen(http, placeOf(config))
    const doors = [http]
    let admin_url: string | null = null
    if (config.admin !== null) {
      const admin = await openSigningKeys(store, secrets.jwt_sign_seed, logger, { purpose: 'admin', audit })
      open.push(() => admin.close())
      const keys = { rest, admin }
      const app = createAdminHttp({
        store,
        bus,
        relay,
        figures,
        keys,
        secrets,
        settings,
        jobs,
        documents: { openapi: makeAdminOpenApi },
        audit,
        config,
        draining: () => draining,
        degraded,
        logger,
      })
      open.push(() => app.close())
      doors.push(app)
      admin_url = (await listen(app, adminPlaceOf(config.admin, config))).url
    }

    const stopped = Promise.withResolvers<void>()
    let stopping: Promise<void> | undefined

    /** Not ready, and all goes on until that was seen; then sessions leave, and with nobody there the rest is closed. */
    async function leave(): Promise<void> {
      draining = true
      const { drain_notice_ms: notice_ms, stop_ms_max } = config
      const drained_ms = notice_ms + limits.drainSpreadMs + limits.drainMs
      const late = setTimeout(() => doors.forEach((door) => door.server.closeAllConnections()), (drained_ms + stop_ms_max) / 2)
      if (notice_ms > 0) await sleep(notice_ms)
      await relay.drain()
      await closeAll()
      clearTimeout(late)
    }

    return {
      url,
      admin_url,
      port,
      server_key: secrets.server_key,
      stop() {
        stopping ??= leave().finally(() => stopped.resolve())
        return stopping
      },
      stopped: stopped.promise,
    }
  }
}

/** What the database refused of a start says what to do about it. */
function explained(error: unknown): unknown {
  const cause = error instanceof SealpostError && (error.code === 'internal' || error.code === 'unavailable') ? error.cause : undefined
  return cause instanceof DatabaseError ? startRefused(cause, 'the database') : error
}
