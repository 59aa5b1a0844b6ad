/**
 * A worker: a relay without a foundation of its own, forked by `primary.ts`, which tells it what to serve and when to stop. With the end
 * of the primary it ends at once (so does every process of a cluster), as one process that is killed does.
 *
 * Signals are the primary's: a Ctrl-C reaches all processes of a terminal, and is one stop. To SIGUSR1 Node would open its inspector.
 */
import { once } from 'node:events'
import { Socket } from 'node:net'
import { SealpostError } from '@sealpost/protocol'
import { createLog, type LeveledLog } from '../telemetry/log.ts'
import { startServer } from '../server.ts'
import { createChannel, LINE_FD, type Setup, type ToPrimary, type ToWorker } from './channel.ts'
import { createWorkerCounter } from './ipc-counter.ts'
import { openIpcWire } from './ipc-wire.ts'

for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'] as const) process.on(name, () => {})

const channel = createChannel<ToPrimary, ToWorker>(process)
const counts = createWorkerCounter(channel)
const ending = new AbortController()

channel.receive((message) => {
  switch (message.is) {
    case 'start':
      return void run(message.setup)
    case 'stop':
      return ending.abort()
    case 'counted':
      return counts.counted(message.id, message.wait)
    default:
      return message satisfies never
  }
})

async function run({ worker, config, foundation }: Setup): Promise<void> {
  const logger = createLog(config.log_level, undefined, { worker })
  try {
    await serve(config, foundation, logger)
    logger.close()
    process.exit(0)
  } catch (error) {
    if (!(error instanceof SealpostError)) logger.error({ err: error }, 'a worker failed')
    logger.close()
    const { code, message, hint } = error instanceof SealpostError ? error : new SealpostError('internal', 'a worker failed')
    channel.send({ is: 'failed', code, message, hint }, () => process.exit(1))
  }
}

async function serve(config: Setup['config'], foundation: Setup['foundation'], logger: LeveledLog): Promise<void> {
  const server = await startServer(config, {
    logger,
    setLogLevel(level) {
      logger.level = level
      channel.send({ is: 'log_level', level })
    },
    signal: ending.signal,
    among: { foundation, wire: openIpcWire(new Socket({ fd: LINE_FD })), counter: counts.counter },
  })
  const { url, admin_url, port } = server
  channel.send({ is: 'listening', listening: { url, admin_url, port } })
  if (!ending.signal.aborted) await once(ending.signal, 'abort')
  await server.stop()
}
