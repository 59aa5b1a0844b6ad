/**
 * Runs a relay in the foreground, from its configuration to a clean end: what `sealpost serve` does. With several workers this is the
 * primary of them (`workers/`).
 *
 * It ends by SIGINT, SIGTERM or SIGHUP, by the caller's signal, or when the process that started it through a channel is
 * gone. A terminal and a wrapper may both deliver the same Ctrl-C: signals within `SAME_SIGNAL_MS` are one; a later one
 * ends the process at once (PostgreSQL follows by itself, and recovers at the next start).
 */
import { readFileSync } from 'node:fs'
import { SealpostError, serverKeyFingerprint } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { announce } from './config/announcement.ts'
import { type Config, readConfig } from './config/config.ts'
import type { ConfigFlags } from './config/variables.ts'
import { createLog, type LeveledLog } from './telemetry/log.ts'
import { type RunningServer, startServer } from './server.ts'
import { startWorkers } from './workers/primary.ts'

const SAME_SIGNAL_MS = 1000
const LATE_HINT = 'nothing acknowledged is lost; raise SEALPOST_STOP_S where its stops need longer'
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export type ServeOptions = {
  flags?: ConfigFlags
  env?: NodeJS.ProcessEnv
  write?: (text: string) => void
  signal?: AbortSignal
}

/** Resolves after a clean stop. Throws a `SealpostError` whose code says why the relay did not start or had to end. */
export async function serve(options: ServeOptions = {}): Promise<void> {
  const write = options.write ?? ((text: string) => void process.stdout.write(text))
  const config = readConfig(options.env ?? process.env, options.flags, (path) => readFileSync(path, 'utf8'))
  const logger = createLog(config.log_level)
  const ending = listenForEnd(options.signal)
  try {
    const starting = start(config, logger, ending.signal)
    await Promise.race([starting, ending.asked])
    const server = await (ending.signal.aborted ? inTime(starting, config) : starting)
    if (server === null) return
    if (!ending.signal.aborted) write(announce(config, server, await serverKeyFingerprint(nodeCrypto, server.server_key)))
    await Promise.race([ending.asked, server.stopped])
    logger.info('stopping')
    await inTime(server.stop(), config)
    logger.info('stopped')
    // When it ended by itself, this tells why.
    await server.stopped
  } finally {
    ending.close()
    logger.close()
  }
}

/** Null when the signal came before there was anything to stop. */
async function start(config: Config, logger: LeveledLog, signal: AbortSignal): Promise<RunningServer | null> {
  try {
    const run = config.workers > 1 ? startWorkers : startServer
    return await run(config, { logger, setLogLevel: (level) => void (logger.level = level), signal })
  } catch (error) {
    if (signal.aborted && error instanceof SealpostError && error.code === 'aborted') return null
    throw error
  }
}

async function inTime<T>(work: Promise<T>, { stop_ms_max }: Config): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const error = new SealpostError('internal', `the relay did not stop within ${stop_ms_max / 1000} s, and was ended`, { hint: LATE_HINT })
    timer = setTimeout(() => reject(error), stop_ms_max)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

type Ending = { asked: Promise<void>; signal: AbortSignal; close(): void }

function listenForEnd(signal: AbortSignal | undefined): Ending {
  let first: number | null = null
  const ending = new AbortController()
  const asked = new Promise<void>((resolve) => {
    ending.signal.addEventListener('abort', () => resolve())
  })
  const end = (): void => {
    first ??= Date.now()
    if (Date.now() - first > SAME_SIGNAL_MS) process.exit(130)
    ending.abort()
  }
  const gone = (): void => {
    first ??= Date.now()
    ending.abort()
  }
  for (const name of SIGNALS) process.on(name, end)
  if (process.connected) process.on('disconnect', gone)
  signal?.addEventListener('abort', gone)
  if (signal?.aborted === true) gone()
  return {
    asked,
    signal: ending.signal,
    close() {
      for (const name of SIGNALS) process.off(name, end)
      process.off('disconnect', gone)
      signal?.removeEventListener('abort', gone)
    },
  }
}
