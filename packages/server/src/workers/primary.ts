/**
 * The first of several processes of a relay on one machine: it opens what all stand on (`foundation.ts`), forks workers that share the
 * listening ports (node:cluster), and serves nothing itself. It carries hints between them, keeps their counts, starts one that ended
 * again, and ends after the last of them.
 *
 * Invariant: no worker outlives it. Bound: `config.workers` processes; one that does not stop in time is killed before the database ends.
 */
import cluster from 'node:cluster'
import { extname } from 'node:path'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { SealpostError } from '@sealpost/protocol'
import type { Config } from '../config/config.ts'
import { openFoundation } from '../data/foundation.ts'
import { createMemoryCounter } from '../limits/memory-counter.ts'
import { LEASE_MS } from '../relay/sessions/node-lease.ts'
import type { RunningServer, ServerOptions } from '../server.ts'
import { createChannel, LINE_FD, type Listening, type Setup, type ToPrimary, type ToWorker } from './channel.ts'
import { answerCount } from './ipc-counter.ts'
import { createWireHub } from './ipc-wire.ts'
import { createRestarts, SOON_MAX } from './restarts.ts'

const WORKER = fileURLToPath(new URL(`./worker${extname(import.meta.filename)}`, import.meta.url))

const LATE_HINT = 'nothing acknowledged is lost; raise SEALPOST_STOP_S where its stops need longer'
const ENDED_HINT = 'the log above says why; where it says nothing, look whether the system ended it (memory, limits of the service)'

/** The channel of the processes is the fourth, and the line of hints the one after. */
const STDIO = ['ignore', 'inherit', 'inherit', 'ipc', 'pipe']

type End = { code: number | null; signal: string | null; reason: SealpostError | null }

type WorkerProcess = {
  pid: number
  stop(): void
  kill(): void
  ended: Promise<End>
}

/** Throws what `startServer` throws. */
export async function startWorkers(config: Config, options: ServerOptions): Promise<RunningServer> {
  const { logger, signal } = options
  const foundation = await openFoundation(config, options)
  const hub = createWireHub()
  const counter = createMemoryCounter()
  const living = new Set<WorkerProcess>()
  /** When workers ended whose leases may still run. */
  const ends: number[] = []
  const ending = new AbortController()
  const stopped = Promise.withResolvers<void>()
  stopped.promise.catch(() => {})
  let listening: Listening | null = null
  let ports = { port: config.port, admin_port: config.admin?.port ?? 0 }
  let stopping: Promise<void> | null = null
  /** Why it ended by itself. */
  let failure: unknown = null

  cluster.setupPrimary({
    exec: WORKER,
    args: [],
    serialization: 'advanced',
    stdio: STDIO,
    windowsHide: true,
  })
  process.on('exit', killAll)
  const places = Array.from({ length: config.workers }, (_, i) => openPlace(i + 1))
  const abort = (): void => void stop().catch(() => {})
  signal?.addEventListener('abort', abort)
  try {
    if (signal?.aborted === true) abort()
    const [first] = await Promise.all(places.map((place) => place.first))
    if (first === undefined) throw new TypeError('there is at least one worker')
    return { ...first, server_key: foundation.secrets.server_key, stop, stopped: stopped.promise }
  } catch (error) {
    await stop().catch((err: unknown) => logger.error({ err }, 'the workers did not stop'))
    throw error
  } finally {
    signal?.removeEventListener('abort', abort)
  }

  // ---------------------------------------------------------------- one worker

  function startWorker(worker: number, listens: (listening: Listening) => void): WorkerProcess {
    const forked = cluster.fork()
    const channel = createChannel<ToWorker, ToPrimary>(forked.process)
    const line = forked.process.stdio[LINE_FD] as Duplex | null | undefined
    if (line !== null && line !== undefined) hub.add(line)
    const ended = Promise.withResolvers<End>()
    let reason: SealpostError | null = null
    let listened = false
    const self: WorkerProcess = {
      pid: forked.process.pid ?? 0,
      stop: () => channel.send({ is: 'stop' }),
      kill: () => void forked.process.kill('SIGKILL'),
      ended: ended.promise,
    }

    channel.receive((message) => {
      switch (message.is) {
        case 'listening':
          listened = true
          return listens(message.listening)
        case 'failed':
          reason = new SealpostError(message.code, message.message, { hint: message.hint })
          return
        case 'log_level':
          return options.setLogLevel?.(message.level)
        case 'consume':
        case 'reward':
          // without an answer the worker counts for itself
          return void answerCount(counter, nodesHere(), message).then(channel.send, (err: unknown) =>
            logger.error({ err }, 'a count failed'),
          )
        default:
          return message satisfies never
      }
    })
    const gone = (code: number | null, name: string | null): void => {
      if (!living.delete(self)) return
      if (listened) ends.push(performance.now())
      ended.resolve({ code, signal: name, reason })
    }
    // behind all that it said, why it could not start among it
    forked.process.once('close', gone)
    forked.on('error', (err: unknown) => {
      logger.warn({ err, worker }, 'a worker was not forked, or not reached')
      if (forked.process.pid === undefined) gone(null, null)
    })
    const setup = setupFor(worker)
    living.add(self)
    channel.send({ is: 'start', setup })
    return self
  }

  /** A port that was free is that of all workers as long as one of them has it, and is asked for by its number when none has. */
  function setupFor(worker: number): Setup {
    if (listening !== null && living.size === 0) ports = { port: listening.port, admin_port: portOf(listening.admin_url) }
    const admin = config.admin === null ? null : { ...config.admin, port: ports.admin_port }
    const { secrets, connection, pooler } = foundation
    return { worker, config: { ...config, port: ports.port, admin }, foundation: { secrets, connection, pooler } }
  }

  /** Also of those that are taken to live until their leases run out. */
  function nodesHere(): number {
    while (ends[0] !== undefined && performance.now() - ends[0] > LEASE_MS) ends.shift()
    return living.size + ends.length
  }

  // ---------------------------------------------------------------- one place, in which there is always a worker

  function openPlace(worker: number): { first: Promise<Listening>; over: Promise<void> } {
    const first = Promise.withResolvers<Listening>()
    first.promise.catch(() => {})
    const over = keep(worker, first).catch((why: unknown) => {
      first.reject(why)
      giveUp(why)
    })
    return { first: first.promise, over }
  }

  async function keep(worker: number, first: PromiseWithResolvers<Listening>): Promise<void> {
    const restarts = createRestarts()
    let started = false
    while (!ending.signal.aborted) {
      const began = performance.now()
      let elsewhere = false
      const running = startWorker(worker, (told) => {
        listening ??= told
        // the last one that had the port ended while this one started
        elsewhere = told.url !== listening.url || told.admin_url !== listening.admin_url
        if (elsewhere) {
          // after `stop` it ends by itself, and gives back what it holds
          if (!ending.signal.aborted) running.kill()
          return
        }
        started = true
        first.resolve(told)
      })
      const end = await running.ended
      const { code, signal: name, reason } = end
      const ended = { worker, pid: running.pid, code, signal: name, reason: reason?.message }
      if (ending.signal.aborted) {
        if (code !== 0 && failureOf(end).code !== 'aborted') logger.error(ended, 'a worker did not stop in good order')
        break
      }
      if (!started) return first.reject(failureOf(end))
      const pause = restarts.next(performance.now() - began, !elsewhere && reason?.code !== 'unavailable')
      logger.error(ended, 'a worker ended')
      if (pause === null) throw failureOf(end, `${SOON_MAX} times in a row, soon after its start`)
      await sleep(pause, undefined, { signal: ending.signal }).catch(() => {})
    }
    first.reject(new SealpostError('aborted', 'the start was given up'))
  }

  function giveUp(why: unknown): void {
    logger.error({ err: why }, 'no worker can be kept; the relay stops')
    failure ??= why
    stop().catch(() => {})
  }

  // ---------------------------------------------------------------- the end

  function stop(): Promise<void> {
    stopping ??= leave().finally(() => (failure === null ? stopped.resolve() : stopped.reject(failure)))
    return stopping
  }

  async function leave(): Promise<void> {
    ending.abort()
    let late = false
    const timer = setTimeout(() => {
      late = living.size > 0
      killAll()
    }, patienceOf(config))
    for (const worker of living) worker.stop()
    await Promise.all(places.map((place) => place.over))
    clearTimeout(timer)
    process.off('exit', killAll)
    await foundation.close()
    if (late) throw new SealpostError('internal', 'a worker did not stop in time, and was killed', { hint: LATE_HINT })
  }

  function killAll(): void {
    for (const worker of living) worker.kill()
  }
}

function failureOf({ code, signal, reason }: End, how = 'while it started'): SealpostError {
  // one that is not yet deaf to them: the same signal is on its way to the primary
  const asked = signal === 'SIGINT' || signal === 'SIGTERM' || signal === 'SIGHUP'
  if (reason !== null) return reason
  return new SealpostError(asked ? 'aborted' : 'internal', `a worker ended ${how} (${signal ?? code ?? 'not forked'})`, {
    hint: ENDED_HINT,
  })
}

/** What a worker may take for its stop; the database has the rest of the time. */
function patienceOf({ drain_notice_ms, limits, stop_ms_max }: Config): number {
  return (drain_notice_ms + limits.drainSpreadMs + limits.drainMs + 3 * stop_ms_max) / 4
}

function portOf(url: string | null): number {
  return url === null ? 0 : Number(new URL(url).port)
}
