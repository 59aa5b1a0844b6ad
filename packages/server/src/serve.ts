/**
 * Runs a relay in the foreground, from its configuration to a clean end: what `sealpost serve` does.
 *
 * It ends by SIGINT, SIGTERM or SIGHUP, by the caller's signal, or when the process that started it through a channel is
 * gone. A terminal and a wrapper may both deliver the same Ctrl-C: signals within `SAME_SIGNAL_MS` are one; a later one
 * ends the process at once (PostgreSQL follows by itself, and recovers at the next start).
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { SealpostError, toBase64url } from '@sealpost/protocol'
import { type Config, type ConfigFlags, readConfig } from './config.ts'
import { createLog, type Log } from './log.ts'
import { type RunningServer, startServer } from './server.ts'

const SAME_SIGNAL_MS = 1000
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
    const starting = startServer(config, { logger })
    await Promise.race([starting, ending.asked])
    const server = await starting
    if (!ending.isAsked()) write(describe(config, server))
    await Promise.race([ending.asked, server.stopped])
    await stopInTime(server, config, logger)
  } finally {
    ending.close()
  }
}

/** 64 bits of SHA-256 of a server key, in a form that people compare. */
export function fingerprintOf(server_key: Uint8Array): string {
  const digits = createHash('sha256').update(server_key).digest('hex').slice(0, 16)
  return digits.match(/.{4}/g)?.join(' ') ?? digits
}

function describe(config: Config, server: RunningServer): string {
  return `listening on ${server.url}
server key fingerprint: ${fingerprintOf(server.server_key)}
next, on the first device:
  npx sealpost init --name laptop --server ${config.public_url ?? server.url}/#${toBase64url(server.server_key)}
`
}

async function stopInTime(server: RunningServer, config: Config, logger: Log): Promise<void> {
  logger.info('stopping')
  const late = Symbol('late')
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<typeof late>((resolve) => {
    timer = setTimeout(() => resolve(late), config.stop_ms_max)
  })
  const outcome = await Promise.race([server.stop(), deadline])
  clearTimeout(timer)
  if (outcome === late) throw new SealpostError('internal', `the relay did not stop within ${config.stop_ms_max / 1000} s`)
  logger.info('stopped')
  // When it ended by itself, this tells why.
  await server.stopped
}

type Ending = { asked: Promise<void>; isAsked(): boolean; close(): void }

function listenForEnd(signal: AbortSignal | undefined): Ending {
  let first: number | null = null
  let ask = (): void => {}
  const asked = new Promise<void>((resolve) => {
    ask = resolve
  })
  const end = (): void => {
    first ??= Date.now()
    if (Date.now() - first > SAME_SIGNAL_MS) process.exit(130)
    ask()
  }
  const gone = (): void => {
    first ??= Date.now()
    ask()
  }
  for (const name of SIGNALS) process.on(name, end)
  if (process.connected) process.on('disconnect', gone)
  signal?.addEventListener('abort', gone)
  if (signal?.aborted === true) gone()
  return {
    asked,
    isAsked: () => first !== null,
    close() {
      for (const name of SIGNALS) process.off(name, end)
      process.off('disconnect', gone)
      signal?.removeEventListener('abort', gone)
    },
  }
}
