/**
 * The connections to PostgreSQL, in two pools: `ingest` (one statement per batch) and `main` (all else), so that neither
 * waits for the other. Every new connection is made fit for the store before it is used: durable commits, bounded waits,
 * generic plans (a custom plan costs 2.2 times a batch of one), never a server in recovery (C7).
 *
 * Rules: a transaction uses the one connection it has; a connection whose statement failed in an unknown way is closed,
 * not given back. Bounds: `main_max` and `ingest_max` connections, statements 5 s, locks 2 s, one connection for the row of one account.
 */
import { LIMITS, SealpostError } from '@sealpost/protocol'
import { type ClientBase, type ClientConfig, DatabaseError, Pool, type PoolClient } from 'pg'
import type { Log } from '../log.ts'
import { COLUMN_TYPES } from './column-types.ts'
import { HISTORY_SQL, type HistoryRow, historyId, incarnationOf } from './history.ts'
import { createTurns, type Turns } from './turns.ts'

export type Pools = {
  main: Pool
  ingest: Pool
  /** Of the server that answered last. */
  history_id(): string
  /** Of the server behind this connection. */
  historyOf(client: ClientBase): string
  /** Which run of which server is behind this connection. What is remembered of the store is good for one only. */
  incarnationOf(client: ClientBase): string
  close(): Promise<void>
}

export type PoolOptions = {
  connection: ClientConfig
  log: Log
  main_max?: number | undefined
  ingest_max?: number | undefined
  /** An idle connection broke: the server behind the next one may be another. */
  broken?: (() => void) | undefined
}

const MAIN_MAX = 8
/** Two lanes of the inbox, and the two patient batches beside them that may stand behind a lock. */
const INGEST_MAX = 4
/** Of one relay, if nothing else is said. */
export const POOLED_CONNECTIONS = MAIN_MAX + INGEST_MAX
const CONNECT_MS = 5_000
/** A transaction that stands still keeps dead row versions alive for every batch. */
const IDLE_IN_TRANSACTION_MS = 10_000
/** The server ends a statement after 5 s; who has not answered by then is gone. */
const QUERY_MS = LIMITS.statementTimeoutMs + 5_000

const SETTINGS = `
set synchronous_commit = on;
set default_transaction_isolation = 'read committed';
set plan_cache_mode = force_generic_plan;
set lock_timeout = ${LIMITS.lockTimeoutMs};
set statement_timeout = ${LIMITS.statementTimeoutMs};
set idle_in_transaction_session_timeout = ${IDLE_IN_TRANSACTION_MS};
select pg_is_in_recovery() as standby`

/** Opens no connection yet. Throws nothing; the first query tells whether the database answers. */
export function createPools(options: PoolOptions): Pools {
  const servers = new WeakMap<ClientBase, { history_id: string; incarnation: string }>()
  let latest = ''
  const prepare = async (client: ClientBase): Promise<void> => {
    // pg answers several statements in one text with a list
    const results = (await client.query(SETTINGS)) as unknown as { rows: { standby?: boolean }[] }[]
    if (results.at(-1)?.rows[0]?.standby !== false) throw new SealpostError('unavailable', 'the store is a standby')
    const { rows } = await client.query<HistoryRow & { incarnation: string }>(HISTORY_SQL)
    if (rows[0] === undefined) throw new SealpostError('internal', 'the database has no identity: it was not migrated')
    latest = historyId(rows[0])
    servers.set(client, { history_id: latest, incarnation: incarnationOf(rows[0]) })
  }
  const serverOf = (client: ClientBase): { history_id: string; incarnation: string } => {
    const server = servers.get(client)
    if (server === undefined) throw new SealpostError('internal', 'the connection was not prepared')
    return server
  }
  const open = (max: number, application_name: string): Pool => {
    const pool = new Pool({
      ...options.connection,
      max,
      types: COLUMN_TYPES,
      application_name,
      connectionTimeoutMillis: CONNECT_MS,
      query_timeout: options.connection.query_timeout ?? QUERY_MS,
      keepAlive: true,
      // oxlint-disable-next-line typescript/no-misused-promises -- pg awaits the answer, though its types do not say so
      onConnect: prepare,
    })
    // an idle connection that breaks is replaced at the next query
    pool.on('error', (err) => {
      if (pool.ending) return
      options.log.warn({ err }, 'a connection to the database broke')
      options.broken?.()
    })
    return pool
  }
  const main = open(options.main_max ?? MAIN_MAX, 'sealpost')
  const ingest = open(options.ingest_max ?? INGEST_MAX, 'sealpost ingest')
  return {
    main,
    ingest,
    history_id: () => latest,
    historyOf: (client) => serverOf(client).history_id,
    incarnationOf: (client) => serverOf(client).incarnation,
    close: async () => {
      await Promise.all([main.end(), ingest.end()])
    },
  }
}

const turns = new WeakMap<Pool, Turns>()

/**
 * For who takes the row of an account: one at a time per account, for that row lets no second one on. As long as somebody else holds
 * it, of this account one connection waits for it and all others are free.
 */
export function inTurn<T>(pool: Pool, user_no: number, work: () => Promise<T>): Promise<T> {
  const ofPool = turns.get(pool) ?? createTurns({ width: 1, wait_ms: LIMITS.lockTimeoutMs })
  turns.set(pool, ofPool)
  return ofPool(user_no, work)
}

/** Lends a connection. One whose use failed is closed, unless the server itself refused the statement and lives on. */
export async function withClient<T>(pool: Pool, use: (client: PoolClient) => Promise<T>): Promise<T> {
  let client: PoolClient
  try {
    client = await pool.connect()
  } catch (error) {
    // whatever a server says that lets nobody in, later it may
    throw error instanceof SealpostError ? error : new SealpostError('unavailable', 'the store lets nobody in', { cause: error })
  }
  // without a listener an error between two statements ends the process; the next statement reports it
  const ignore = (): void => {}
  client.on('error', ignore)
  let failure: Error | undefined
  try {
    return await use(client)
  } catch (error) {
    failure = error instanceof Error ? error : new Error('unknown failure', { cause: error })
    throw toSealpostError(error)
  } finally {
    client.off('error', ignore)
    client.release(failure !== undefined && !(failure instanceof SealpostError) ? failure : undefined)
  }
}

/** One transaction on one connection, read committed; rolled back when `work` throws. */
export async function withTransaction<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  return withClient(pool, async (client) => {
    await client.query('begin isolation level read committed')
    let result: T
    try {
      result = await work(client)
    } catch (error) {
      // any other error closes the connection, which rolls back as well
      if (error instanceof SealpostError) await client.query('rollback')
      throw error
    }
    await client.query('commit')
    return result
  })
}

/** Out of reach, busy, or ended in the middle: `unavailable`, try again. Anything else is a fault: `internal`. */
export function toSealpostError(error: unknown): SealpostError {
  if (error instanceof SealpostError) return error
  const code = error instanceof DatabaseError ? (error.code ?? '') : ''
  // 08 connection · 25006 read only · 40 rolled back · 53 resources · 55P03 lock timeout · 57 cancelled, shut down · 58 system
  const transient = code === '' || /^(08|40|53|57|58)/.test(code) || code === '55P03' || code === '25006'
  return transient
    ? new SealpostError('unavailable', 'the database did not answer', { cause: error })
    : new SealpostError('internal', 'the database refused a statement', { cause: error })
}
