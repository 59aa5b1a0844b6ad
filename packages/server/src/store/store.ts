/**
 * The store on PostgreSQL 14 to 18: composes its parts over two pools. The database is migrated before (`migrate`).
 * Every write path is read committed and takes the account row first (sql/tables/0001-baseline.sql).
 */
import { type Bytes, LIMITS } from '@sealpost/protocol'
import type { ClientConfig, Pool } from 'pg'
import type { Log } from '../telemetry/log.ts'
import type { Store } from '../ports/store.ts'
import type { Pooler } from './postgres/pooler.ts'
import { createAccountStore } from './accounts/account-store.ts'
import { createAuditStore } from './operators/audit-store.ts'
import { createAdminStore } from './operators/admin-store.ts'
import { createAssertionStore } from './accounts/assertion-store.ts'
import { createClock } from './postgres/clock.ts'
import { createExportStore } from './accounts/export-store.ts'
import { createIngestStore } from './events/ingest-store.ts'
import { createLogStore } from './log/log-store.ts'
import { createNodeStore } from './operators/node-store.ts'
import { createOperatedStore } from './operators/operated-store.ts'
import { createPageStore } from './events/page-store.ts'
import { createPairingStore } from './accounts/pairing-store.ts'
import { createPools, type Pools, withClient } from './postgres/pool.ts'
import { createRetentionStore } from './events/retention-store.ts'
import { claimServerKey, readServerKeyHash } from './operators/server-meta.ts'
import { createSessionStore } from './accounts/session-store.ts'
import { createSigningKeyStore } from './accounts/signing-key-store.ts'
import { createTokenStore } from './accounts/token-store.ts'

export type StoreOptions = {
  connection: ClientConfig
  log: Log
  /** What is between the relay and PostgreSQL; nothing if nothing else is said. */
  pooler?: Pooler | undefined
  /** Tolerance for the clocks of devices: of the ttl rule and of assertions (G07). */
  clock_skew_ms?: number | undefined
  /** Active devices of a user, above which none is added. */
  devices_max?: number | undefined
  streams_max?: number | undefined
  /** Stored bytes of a user from which nothing more is taken; null = no quota. */
  quota_bytes?: number | null | undefined
  main_connections_max?: number | undefined
  ingest_connections_max?: number | undefined
}

export type PostgresStore = Store & {
  /** The first server key claims the database; a node with another one must not start. */
  claimServerKey(server_key: Bytes): Promise<'ok' | 'mismatch'>
  /** SHA-256 of the key that claimed it; null before. */
  readServerKeyHash(): Promise<Bytes | null>
  /** For gauges. */
  pools: { main: Pool; ingest: Pool }
}

const CLOCK_MS = 10_000
/** After a connection broke or a question failed: who answers next may be another server, with another history. */
const ASK_AGAIN_MS = 500
const CLOCK = { name: 'clock', text: 'select clock_ms() as now' }

/** Opens the store; throws `unavailable` when the database does not answer. */
export async function createStore(options: StoreOptions): Promise<PostgresStore> {
  const { connection, log, pooler, main_connections_max: main_max, ingest_connections_max: ingest_max } = options
  const pools = createPools({ connection, log, pooler, main_max, ingest_max, broken: () => askIn(ASK_AGAIN_MS) })
  const clock = createClock()
  const ping = async (): Promise<void> => {
    await withClient(pools.main, async (client) => {
      const began = performance.now()
      const { rows } = await client.query<{ now: number }>(CLOCK)
      if (rows[0] !== undefined) clock.sample(rows[0].now, began, performance.now())
    })
  }
  let closed = false
  let timer: NodeJS.Timeout | undefined
  const askIn = (ms: number): void => {
    clearTimeout(timer)
    if (closed) return
    // a failure shows wherever the database is needed; the estimate only grows older
    timer = setTimeout(() => {
      ping().then(
        () => askIn(CLOCK_MS),
        () => askIn(ASK_AGAIN_MS),
      )
    }, ms)
    timer.unref()
  }
  const close = async (): Promise<void> => {
    closed = true
    clearTimeout(timer)
    await pools.close()
  }
  try {
    await ping()
  } catch (error) {
    await close()
    throw error
  }
  askIn(CLOCK_MS)

  return {
    ...composeStore(pools, options),
    get history_id() {
      return pools.history_id()
    },
    ping,
    now: clock.now,
    claimServerKey: (server_key) => claimServerKey(pools.main, server_key),
    readServerKeyHash: () => readServerKeyHash(pools.main),
    pools: { main: pools.main, ingest: pools.ingest },
    close,
  }
}

function composeStore(pools: Pools, options: StoreOptions) {
  const clock_skew_ms = options.clock_skew_ms ?? LIMITS.clockSkewMs
  const pages = createPageStore(pools.main)
  return {
    ...createAccountStore(pools.main),
    ...createExportStore(pools.main, pages),
    ...createIngestStore({
      pools,
      clock_skew_ms,
      streams_max: options.streams_max ?? LIMITS.streamsPerUserMax,
      quota_bytes: options.quota_bytes ?? null,
    }),
    ...pages,
    ...createSessionStore(pools, options.log),
    ...createLogStore(pools.main, options.devices_max ?? LIMITS.devicesPerUserMax),
    ...createPairingStore(pools.main),
    ...createAssertionStore(pools.main, clock_skew_ms),
    ...createTokenStore(pools.main),
    ...createNodeStore(pools.main),
    ...createSigningKeyStore(pools.main),
    ...createRetentionStore(pools.main, clock_skew_ms),
    ...createAuditStore(pools.main),
    ...createAdminStore(pools.main),
    ...createOperatedStore(pools.main),
  }
}
