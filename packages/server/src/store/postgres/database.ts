/**
 * The PostgreSQL of a relay, wherever it runs: the embedded one, which is started again when it dies, or the one of
 * DATABASE_URL, which is waited for at the start. Both keep their connection parameters for the life of the relay, so a
 * pool reconnects by itself when the database comes back.
 */
import { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { diskError, SealpostError, systemCode } from '@sealpost/protocol'
import { Client, type ClientConfig } from 'pg'
import type { Log } from '../../telemetry/log.ts'
import type { Pooler } from './pooler.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts'
import { isPooled, POOLED_CONNECTIONS } from './pool.ts'
import { explainRefusal, namesOf, startRefused } from './refusals.ts'

const CONNECT_MS_MAX = 5_000
/** Pauses between attempts; the last one repeats. */
const RESTART_PAUSES_MS = [0, 200, 1000, 2000, 5000] as const
const RETRY_MS = 500
const CONNECTIONS_MIN = 60
/** Migrations, doctor, a backup, a person, and those of a process that was killed and started again. */
const CONNECTIONS_SPARE = 24
const POOLED =
  'DATABASE_URL leads to a pooler: set SEALPOST_DATABASE_POOLER to transaction, or to session if it lends a connection for as long as a client is connected'
const LENT = 'the pooler of DATABASE_URL lends a connection for one transaction alone: set SEALPOST_DATABASE_POOLER to transaction'

export type Database = { connection: ClientConfig; pooler: Pooler; stop(): Promise<void> }

export type EmbeddedOptions = {
  data_dir: string
  logger: Log
  test?: boolean | undefined
  /** Of the relay, each with pools of its own; one if nothing else is said. */
  processes?: number
}

/** The caller holds the lock of the data folder. */
export async function openEmbeddedDatabase({ data_dir, logger, test, processes = 1 }: EmbeddedOptions): Promise<Database> {
  const settings = { max_connections: String(Math.max(CONNECTIONS_MIN, processes * POOLED_CONNECTIONS + CONNECTIONS_SPARE)) }
  let postgres = await startEmbeddedPostgres({ data_dir, logger, test, settings }).catch((error: unknown) => {
    throw systemCode(error) === null ? error : diskError(`the embedded database in ${data_dir} cannot be prepared`, error)
  })
  const { connection } = postgres
  const stopping = new AbortController()
  const supervised = supervise()

  async function supervise(): Promise<void> {
    for (;;) {
      const { code, signal } = await postgres.exited
      if (stopping.signal.aborted) return
      logger.error({ code: 'postgres_ended', exit: code, signal }, 'PostgreSQL ended; starting it again')
      const next = await restart()
      if (next === null) return
      postgres = next
      // The stop came while this one was starting and knew only the one before.
      if (stopping.signal.aborted) return await postgres.stop()
      logger.info({ over: 'postgres_ended' }, 'PostgreSQL is back')
    }
  }

  async function restart(): Promise<EmbeddedPostgres | null> {
    for (let attempt = 0; !stopping.signal.aborted; attempt++) {
      const pause = RESTART_PAUSES_MS[Math.min(attempt, RESTART_PAUSES_MS.length - 1)]
      await sleep(pause, undefined, { signal: stopping.signal }).catch(() => {})
      if (stopping.signal.aborted) break
      try {
        return await startEmbeddedPostgres({ data_dir, logger, test, settings, again: { sockets: connection.host } })
      } catch (error) {
        logger.error({ err: error }, 'PostgreSQL did not start')
      }
    }
    return null
  }

  return {
    connection,
    pooler: 'off',
    async stop() {
      stopping.abort()
      await postgres.stop()
      await supervised
    },
  }
}

/**
 * Waits for the database for a bounded time; a replica is refused, and a pooler other than the one that is said. Throws `unreachable`,
 * `invalid_config`, or `aborted` by the signal.
 */
export async function openExternalDatabase(
  url: string,
  logger: Log,
  wait_ms_max: number,
  signal?: AbortSignal,
  pooler: Pooler = 'off',
): Promise<Database> {
  const connection: ClientConfig = { connectionString: url, connectionTimeoutMillis: CONNECT_MS_MAX }
  const deadline = Date.now() + wait_ms_max
  let told = ''
  for (;;) {
    try {
      await checkDatabase(connection, pooler, signal)
      return { connection, pooler, stop: async () => {} }
    } catch (cause) {
      if (cause instanceof SealpostError) throw cause
      if (signal?.aborted === true) throw abandoned(cause)
      if (Date.now() >= deadline) throw startRefused(cause, 'the database of DATABASE_URL', namesOf(connection))
      const { says, advice } = explainRefusal(cause, namesOf(connection))
      if (says !== told) logger.warn({ reason: says, advice }, `the database cannot be used yet; trying for ${wait_ms_max / 1000} s`)
      told = says
    }
    await sleep(RETRY_MS, undefined, { signal }).catch((cause: unknown) => {
      throw abandoned(cause)
    })
  }
}

function abandoned(cause: unknown): SealpostError {
  return new SealpostError('aborted', 'the database was not waited for any longer', { cause })
}

async function checkDatabase(connection: ClientConfig, pooler: Pooler, signal: AbortSignal | undefined): Promise<void> {
  await withOwnClient(connection, signal, async (client) => {
    const { replica, pid } = await look(client)
    if (replica) throw new SealpostError('invalid_config', 'DATABASE_URL is a replica; give the primary')
    if (pooler === 'off' && isPooled(client, pid)) throw new SealpostError('invalid_config', POOLED)
    if (pooler !== 'session') return
    // of two that are connected at once each has a server of its own, and keeps it
    const other = await withOwnClient(connection, signal, look)
    if (other.pid === pid || (await look(client)).pid !== pid) throw new SealpostError('invalid_config', LENT)
  })
}

async function look(client: Client): Promise<{ replica: boolean; pid: number }> {
  const { rows } = await client.query<{ replica: boolean; pid: number }>('select pg_is_in_recovery() as replica, pg_backend_pid() as pid')
  if (rows[0] === undefined) throw new TypeError('the statement answers one row')
  return rows[0]
}

async function withOwnClient<T>(
  connection: ClientConfig,
  signal: AbortSignal | undefined,
  use: (client: Client) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted()
  // a socket of our own: the driver cannot give up an attempt to connect
  const socket = new Socket()
  const abort = (): void => void socket.destroy(new Error('aborted'))
  signal?.addEventListener('abort', abort)
  const client = new Client({ ...connection, stream: () => socket })
  client.on('error', () => {})
  try {
    await client.connect()
    return await use(client)
  } finally {
    signal?.removeEventListener('abort', abort)
    await client.end().catch(() => {})
  }
}
