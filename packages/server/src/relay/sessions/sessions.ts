/**
 * The sessions that are open in this process, whatever they are open over: their clock every `tickMs`, the rounds that compare them
 * with the store (`rounds.ts`), and how they end together.
 *
 * Invariant: after `close` no clock goes on and no session is left.
 */
import { drainSessions } from './drain.ts'
import type { RelayLimits } from '../limits.ts'
import { createRounds, type RoundsDeps } from './rounds.ts'
import type { SessionRun, SessionSummary } from './session-run.ts'
import type { Work } from '../load/work.ts'

export type Sessions = {
  add(run: SessionRun): void
  /** Nothing of the session goes on. */
  remove(run: SessionRun): void
  size(): number
  /** Those that are open. */
  list(): SessionSummary[]
  isDraining(): boolean
  /** Compares all with the store at once: hints may have been lost. */
  lookNow(): void
  /** Tells all to go elsewhere (`drain.ts`), and waits until they and the work for them are gone, or the time is over. */
  drain(): Promise<void>
  /** Ends what is left. */
  close(): Promise<void>
}

export type SessionsDeps = {
  store: RoundsDeps['store']
  limits: RoundsDeps['limits'] & Pick<RelayLimits, 'tickMs' | 'drainMs' | 'drainSpreadMs' | 'drainRetryMs'>
  work: Pick<Work, 'track' | 'idle'>
  failed(error: unknown): void
  /** 0 ≤ x < 1. */
  random(): number
}

export function createSessions(deps: SessionsDeps): Sessions {
  const { store, limits, work, failed } = deps
  const runs = new Set<SessionRun>()
  const emptied: (() => void)[] = []
  let draining = false

  const clock = setInterval(() => {
    const at = performance.now()
    for (const run of runs) run.tick(at)
  }, limits.tickMs)
  clock.unref()
  const rounds = createRounds({ store, runs, limits, work, failed, random: deps.random })

  function gone(): Promise<void> {
    return runs.size === 0 ? Promise.resolve() : new Promise((resolve) => emptied.push(resolve))
  }

  return {
    add: (run) => void runs.add(run),
    remove(run) {
      runs.delete(run)
      if (runs.size === 0) for (const wake of emptied.splice(0)) wake()
    },
    size: () => runs.size,
    list: () => [...runs].flatMap((run) => run.summary ?? []),
    isDraining: () => draining,
    lookNow: rounds.lookNow,
    async drain() {
      draining = true
      await drainSessions({ sessions: runs, left: () => gone().then(() => work.idle()), limits, random: deps.random })
    },
    async close() {
      draining = true
      const left = gone()
      for (const run of runs) run.terminate()
      await left
      clearInterval(clock)
      rounds.close()
    },
  }
}
