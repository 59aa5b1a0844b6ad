/**
 * The connections to PostgreSQL, in two pools: `ingest` (one statement per batch) and `main` (all else), so that neither
 * waits for the other. Every new connection is made fit for the store before it is used: durable commits, bounded waits,
 * generic plans (a custom plan costs 2.2 times a batch of one), never a server in recovery (C7).
 *
 * Behind a pooler that lends a server for one transaction (docs/operations/pooler.md) nothing is true of a connection. There every use
 * is one transaction: its first round trip makes the server fit until the end of it and asks who it is, and no statement has a name.
 *
 * Rules: a transaction uses the one connection it has, and none begins within another; a connection whose statement failed in an
 * unknown way is closed, not given back. Bounds: `main_max` and `ingest_max` connections, statements 5 s, locks 2 s, one connection for the row of one account.
 */
import { LIMITS, SealpostError } from '@sealpost/protocol'
import { type ClientBase, type ClientConfig, DatabaseError, Pool, type PoolClient } from 'pg'
import type { Log } from '../../telemetry/log.ts'
import { COLUMN_TYPES } from './column-types.ts'
import type { Pooler } from './pooler.ts'
import { historyId, incarnationOf, PLACE_SQL, type PlaceRow, SERVER_SQL, type ServerRow } from './history.ts'
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
  /** What is between the relay and PostgreSQL; nothing if nothing else is said. */
  pooler?: Pooler | undefined
  main_max?: number | undefined
  ingest_max?: number | undefined
  /** An idle connection broke: the server behind the next one may be another. */
  broken?: (() => void) | undefined
}

const MAIN_MAX = 8
/** The lanes of the inbox, and the two patient batches beside them that may stand behind a lock. */
const INGEST_MAX = 4
/** What pg says to who waited for a connection that others had. */
const ALL_LENT = 'timeout exceeded when trying to connect'
/** Of one relay, if nothing else is said. */
export const POOLED_CONNECTIONS = MAIN_MAX + INGEST_MAX
const CONNECT_MS = 5_000
/** A transaction that stands still keeps dead row versions alive for every batch. */
const IDLE_IN_TRANSACTION_MS = 10_000
/** The server ends a statement after 5 s; who has not answered by then is gone. */
const QUERY_MS = LIMITS.statementTimeoutMs + 5_000

const SETTINGS = `
set synchronous_commit = on;
set plan_cache_mode = force_generic_plan;
set lock_timeout = ${LIMITS.lockTimeoutMs};
set statement_timeout = ${LIMITS.statementTimeoutMs};
set idle_in_transaction_session_timeout = ${IDLE_IN_TRANSACTION_MS};`
const OF_SESSION = `set default_transaction_isolation = 'read committed';${SETTINGS}${SERVER_SQL}`
const OF_TRANSACTION = SETTINGS.replaceAll('set ', 'set local ') + PLACE_SQL
const BEGIN = {
  'read committed': 'begin isolation level read committed;',
  'repeatable read': 'begin isolation level repeatable read;',
} as const
const RENEW = `commit;${BEGIN['read committed']}${OF_TRANSACTION}`
/** Of servers: there is one, and after it was replaced another. */
const REMEMBERED_MAX = 16

type Isolation = keyof typeof BEGIN
type Answer = { command: string; rows: unknown[] }
type Server = { history_id: string; incarnation: string }
type Pooling = {
  /** Makes one transaction fit for the store. */
  begin(client: ClientBase, isolation: Isolation): Promise<void>
  /** Throws when what was done is of another history than that of who answered last: nothing of it is passed on. */
  checkLatest(client: ClientBase): void
}
/** Of each pool: what follows when somebody got in, and when nobody did. */
const doors = new WeakMap<Pool, { opened(): void; refused(): void }>()
/** Of the pools behind a pooler. */
const poolings = new WeakMap<Pool, Pooling>()
/** Of their connections: ends the transaction and begins the next. */
const renewals = new WeakMap<ClientBase, () => Promise<void>>()

/** Opens no connection yet. Throws nothing; the first query tells whether the database answers. */
export function createPools(options: PoolOptions): Pools {
  const { pooler = 'off' } = options
  const servers = new WeakMap<ClientBase, Server>()
  const places = new Map<string, Server>()
  let latest = ''
  let away = false
  const door = {
    refused: () => void (away = true),
    opened() {
      if (away) options.log.info({ over: 'unavailable' }, 'the database is back')
      away = false
    },
  }

  async function prepare(client: ClientBase): Promise<void> {
    const { row } = await runAll(client, OF_SESSION)
    const server = primaryOf(row as ServerRow | undefined)
    if (pooler === 'off' && isPooled(client, server.pid))
      throw new SealpostError('unavailable', 'a pooler is before the store, and none is configured')
    take(client, toServer(server))
  }

  async function begin(client: ClientBase, isolation: Isolation): Promise<void> {
    const { row } = await runAll(client, BEGIN[isolation] + OF_TRANSACTION)
    take(client, await serverAt(client, row as PlaceRow | undefined))
  }

  async function renew(client: ClientBase): Promise<void> {
    const { incarnation } = serverOf(client)
    const { command, row } = await runAll(client, RENEW)
    checkCommitted(command)
    const server = await serverAt(client, row as PlaceRow | undefined)
    take(client, server)
    if (server.incarnation !== incarnation) throw anotherServer()
  }

  function checkLatest(client: ClientBase): void {
    if (serverOf(client).history_id !== latest) throw anotherServer()
  }

  async function serverAt(client: ClientBase, answered: PlaceRow | undefined): Promise<Server> {
    const { place } = primaryOf(answered)
    const known = places.get(place)
    if (known !== undefined) return known
    const server = toServer(primaryOf((await runAll(client, SERVER_SQL)).row as ServerRow | undefined))
    if (places.size >= REMEMBERED_MAX) places.clear()
    places.set(place, server)
    return server
  }

  function take(client: ClientBase, server: Server): void {
    latest = server.history_id
    servers.set(client, server)
  }

  function unname(client: ClientBase): void {
    const query = client.query.bind(client) as (config: unknown, ...rest: unknown[]) => unknown
    const unnamed = (config: unknown, ...rest: unknown[]): unknown =>
      query(typeof config === 'object' && config !== null && 'name' in config ? { ...config, name: undefined } : config, ...rest)
    client.query = unnamed as typeof client.query
    renewals.set(client, () => renew(client))
  }

  function serverOf(client: ClientBase): Server {
    const server = servers.get(client)
    if (server === undefined) throw new SealpostError('internal', 'the connection was not prepared')
    return server
  }

  function open(max: number, application_name: string): Pool {
    const pool = new Pool({
      ...options.connection,
      max,
      types: COLUMN_TYPES,
      // a pooler tells the server each time that it is another one
      application_name: pooler === 'transaction' ? 'sealpost' : application_name,
      connectionTimeoutMillis: CONNECT_MS,
      query_timeout: options.connection.query_timeout ?? QUERY_MS,
      keepAlive: true,
      // oxlint-disable-next-line typescript/no-misused-promises -- pg awaits the answer, though its types do not say so
      onConnect: pooler === 'transaction' ? unname : prepare,
    })
    if (pooler === 'transaction') poolings.set(pool, { begin, checkLatest })
    doors.set(pool, door)
    // an idle connection that breaks is replaced at the next query
    pool.on('error', (err) => {
      if (pool.ending) return
      options.log.warn({ err: toSealpostError(err) }, 'a connection to the database broke')
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

/** Runs statements in one round trip: what the first one did, and the one row of the last. */
async function runAll(client: ClientBase, text: string): Promise<{ command: string | undefined; row: unknown }> {
  // pg answers several statements in one text with a list
  const answer = (await client.query(text)) as unknown as Answer | Answer[]
  const results = Array.isArray(answer) ? answer : [answer]
  return { command: results[0]?.command, row: results.at(-1)?.rows[0] }
}

function primaryOf<R extends { standby: boolean }>(row: R | undefined): R {
  if (row === undefined) throw new SealpostError('internal', 'the database has no identity: it was not migrated')
  if (row.standby) throw new SealpostError('unavailable', 'the store is a standby')
  return row
}

function anotherServer(): SealpostError {
  return new SealpostError('unavailable', 'another server took over the store')
}

function toServer(row: ServerRow): Server {
  return { history_id: historyId(row), incarnation: incarnationOf(row) }
}

/** PostgreSQL names its process when a connection opens; a pooler makes a number up. `pid`: as the server has it. */
export function isPooled(client: ClientBase, pid: number): boolean {
  return (client as ClientBase & { processID?: number | null }).processID !== pid
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

/**
 * Lends a connection. One whose use failed is closed, unless the server itself refused the statement and lives on. Each statement is
 * a transaction of its own; behind a pooler that lends servers for transactions, all of them are one.
 */
export async function withClient<T>(pool: Pool, use: (client: PoolClient) => Promise<T>): Promise<T> {
  return poolings.has(pool) ? withTransaction(pool, use) : lend(pool, use)
}

async function lend<T>(pool: Pool, use: (client: PoolClient) => Promise<T>): Promise<T> {
  let client: PoolClient
  try {
    client = await pool.connect()
    doors.get(pool)?.opened()
  } catch (error) {
    if ((error as Error).message !== ALL_LENT) doors.get(pool)?.refused()
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

/** One transaction on one connection; rolled back when `work` throws. */
export async function withTransaction<T>(
  pool: Pool,
  work: (client: PoolClient) => Promise<T>,
  isolation: Isolation = 'read committed',
): Promise<T> {
  const pooling = poolings.get(pool)
  return lend(pool, async (client) => {
    let result: T
    try {
      await (pooling === undefined ? client.query(BEGIN[isolation]) : pooling.begin(client, isolation))
      result = await work(client)
    } catch (error) {
      // any other error closes the connection, which rolls back as well
      if (error instanceof SealpostError) await client.query('rollback')
      throw error
    }
    checkCommitted((await client.query('commit')).command)
    pooling?.checkLatest(client)
    return result
  })
}

/**
 * In `withClient`, for what has to be committed before the rest: nothing where it is, and behind a pooler a new transaction on the same
 * server.
 */
export async function commitSoFar(client: ClientBase): Promise<void> {
  await renewals.get(client)?.()
}

/** Of a transaction in which a statement failed, PostgreSQL answers a commit with a rollback, and no error. */
function checkCommitted(command: string | undefined): void {
  if (command !== 'COMMIT') throw new Error('the transaction was not committed')
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
