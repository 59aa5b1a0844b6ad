/**
 * The sessions that are open in this process, whatever they are open over: their clock every `tickMs`, the round of heads every
 * 2 s (protocol.md §7), and how they end together.
 *
 * Invariant: after `close` no clock goes on and no session is left.
 */
import type { Store } from '../ports.ts'
import { drainSessions } from './drain.ts'
import type { RelayLimits } from './limits.ts'
import type { Presence } from './presence.ts'
import type { SessionRun, SessionSummary } from './session-run.ts'
import type { Work } from './work.ts'

export type Sessions = {
  add(run: SessionRun): void
  /** Nothing of the session goes on. */
  remove(run: SessionRun): void
  size(): number
  /** Those that are open. */
  list(): SessionSummary[]
  isDraining(): boolean
  /** Tells all to go elsewhere (`drain.ts`), and waits until they and the work for them are gone, or the time is over. */
  drain(): Promise<void>
  /** Ends what is left. */
  close(): Promise<void>
}

export type SessionsDeps = {
  store: Pick<Store, 'readHeads' | 'history_id'>
  presence: Pick<Presence, 'user_nos'>
  limits: Pick<RelayLimits, 'tickMs' | 'headRoundMs' | 'drainMs' | 'drainSpreadMs' | 'drainRetryMs'>
  work: Pick<Work, 'track' | 'idle'>
  failed(error: unknown): void
  /** 0 ≤ x < 1. */
  random(): number
}

export function createSessions(deps: SessionsDeps): Sessions {
  const { store, presence, limits, work, failed } = deps
  const runs = new Set<SessionRun>()
  const emptied: (() => void)[] = []
  let draining = false
  let rounding = false

  const clocks = [
    setInterval(() => {
      const at = performance.now()
      for (const run of runs) run.tick(at)
    }, limits.tickMs),
    setInterval(() => work.track(headRound()), limits.headRoundMs),
  ]
  for (const clock of clocks) clock.unref()

  /** Compares what sessions know with the store: a hint may have been lost, or the store been restored to an earlier day. */
  async function headRound(): Promise<void> {
    const user_nos = presence.user_nos()
    if (rounding || user_nos.length === 0) return
    rounding = true
    try {
      const before = new Map([...runs].map((run) => [run, run.place]))
      const heads = await store.readHeads(user_nos)
      for (const [run, place] of before) {
        if (place === null) continue
        const head = heads.get(place.user_no)
        if (head === undefined) {
          run.input({ is: 'hint', hint: { is: 'deleted' } })
          continue
        }
        // what was sent before the question cannot be above the answer, unless the store lost it
        const lost = head.position < place.position || head.log_seq < place.log_seq
        run.input(lost || place.history_id !== store.history_id ? { is: 'restored' } : { is: 'head', ...head })
      }
    } catch (error) {
      failed(error)
    } finally {
      rounding = false
    }
  }

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
    async drain() {
      draining = true
      await drainSessions({ sessions: runs, left: () => gone().then(() => work.idle()), limits, random: deps.random })
    },
    async close() {
      draining = true
      const left = gone()
      for (const run of runs) run.terminate()
      await left
      for (const clock of clocks) clearInterval(clock)
    },
  }
}
