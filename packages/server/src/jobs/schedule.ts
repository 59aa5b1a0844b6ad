/**
 * Work that comes back: one job at a time, each as often as it says, in batches with a rest as long as the batch before,
 * so that at most half of the time of one connection goes into it. A job that fails is tried again when its time comes.
 * Bound: one job, one batch; the last run of each is remembered.
 */
import { setTimeout as wait } from 'node:timers/promises'
import type { Log } from '../telemetry/log.ts'

/** What a run came to. `taken`: another node was at it. `held`: rows of accounts that others hold are left for the next run. */
export type JobResult = { rows: number; bytes?: number; left?: 'taken' | 'held' }

export type JobTurn = {
  /** False when the node stops: begin nothing more. */
  readonly wanted: () => boolean
  /** Does one batch, and rests. */
  batch<T>(work: () => Promise<T>): Promise<T>
}

export type Job = { name: string; every_ms: number; run(turn: JobTurn): Promise<JobResult> }

export type LastRun = {
  name: string
  began_at: number
  ms: number
  rows: number
  bytes: number
  ended: 'done' | 'taken' | 'held' | 'failed'
}

export type Jobs = {
  /** The last run of each job that has run, in their order; `began_at` in ms of this machine's clock. */
  lastRuns(): LastRun[]
  list(): { name: string; every_ms: number }[]
  /** Runs it as soon as the one at work has ended. False: there is none of that name. */
  runSoon(name: string): boolean
  /** Waits for the batch that is under way. */
  close(): Promise<void>
}

const REST_MS_MAX = 1_000
/** What was held is tried again after this. */
const SOON_MS = 5_000
/** A relay that is often started again runs them all the same. */
const FIRST_MS = 30_000

export function startJobs(jobs: readonly Job[], logger: Log): Jobs {
  const ending = new AbortController()
  const lastRuns = new Map<string, LastRun>()
  const due = new Map(jobs.map((job) => [job, performance.now() + Math.min(job.every_ms, FIRST_MS)]))
  let wake = (): void => {}
  const turn: JobTurn = {
    wanted: () => !ending.signal.aborted,
    async batch(work) {
      const began = performance.now()
      const result = await work()
      await rest(Math.min(performance.now() - began, REST_MS_MAX))
      return result
    },
  }

  /** Ends early when the node stops. */
  async function rest(ms: number): Promise<void> {
    await wait(ms, undefined, { ref: false, signal: ending.signal }).catch(() => {})
  }

  /** Or until a job is to run sooner. */
  async function restUntilWoken(ms: number): Promise<void> {
    const woken = new AbortController()
    wake = () => woken.abort()
    await wait(ms, undefined, { ref: false, signal: AbortSignal.any([ending.signal, woken.signal]) }).catch(() => {})
  }

  async function runAll(): Promise<void> {
    while (turn.wanted()) {
      const next = [...due].reduce((a, b) => (b[1] < a[1] ? b : a))
      const ms = next[1] - performance.now()
      if (ms > 0) {
        await restUntilWoken(ms)
        continue
      }
      due.set(next[0], Infinity)
      const last = await runOne(next[0])
      const again = performance.now() + (last.ended === 'held' ? Math.min(SOON_MS, next[0].every_ms) : next[0].every_ms)
      // whoever asked for it while it ran gets a run of its own
      due.set(next[0], Math.min(again, due.get(next[0]) ?? again))
    }
  }

  async function runOne(job: Job): Promise<LastRun> {
    const began = performance.now()
    const last: LastRun = { name: job.name, began_at: Date.now(), ms: 0, rows: 0, bytes: 0, ended: 'done' }
    try {
      const { rows, bytes = 0, left = 'done' } = await job.run(turn)
      Object.assign(last, { rows, bytes, ended: left })
    } catch (error) {
      last.ended = 'failed'
      logger.warn({ err: error, job: job.name }, 'a job failed; it is tried again')
    }
    last.ms = Math.round(performance.now() - began)
    lastRuns.set(job.name, last)
    const { name, rows, bytes, ms, ended } = last
    logger[rows > 0 ? 'info' : 'debug']({ job: name, rows, bytes, ms, ended }, 'a job ran')
    return last
  }

  const running = jobs.length === 0 ? Promise.resolve() : runAll()
  return {
    lastRuns: () => jobs.flatMap((job) => lastRuns.get(job.name) ?? []),
    list: () => jobs.map(({ name, every_ms }) => ({ name, every_ms })),
    runSoon(name) {
      const job = jobs.find((one) => one.name === name)
      if (job === undefined) return false
      due.set(job, performance.now())
      wake()
      return true
    },
    async close() {
      ending.abort()
      await running
    },
  }
}
