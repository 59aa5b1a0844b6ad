/**
 * Compares what sessions were told with the store, as no hint does it for sure (protocol.md §7): position, device log and whether a
 * session may go on every `headRoundMs`, who is online every `presenceRoundMs`, each in one query for all sessions of the
 * process. Jittered, so that nodes do not ask together; at once when hints may have been lost.
 *
 * Invariant: one question of a kind at a time; nothing begins after `close`.
 */
import type { SessionStanding, Store } from '../../ports/store.ts'
import type { RelayLimits } from '../limits.ts'
import type { SessionRun } from './session-run.ts'
import type { Work } from '../load/work.ts'

export type Rounds = {
  /** Both at once, or again when they are under way. */
  lookNow(): void
  close(): void
}

export type RoundsDeps = {
  store: Pick<Store, 'compareSessions' | 'readOnline' | 'history_id'>
  runs: Iterable<SessionRun>
  limits: Pick<RelayLimits, 'headRoundMs' | 'presenceRoundMs'>
  work: Pick<Work, 'track'>
  failed(error: unknown): void
  /** 0 ≤ x < 1. */
  random(): number
}

type Place = NonNullable<SessionRun['place']>

/** Of the time between two rounds, so much either way. */
const JITTER = 0.2

export function createRounds({ store, runs, limits, work, failed, random }: RoundsDeps): Rounds {
  const openRuns = (): { run: SessionRun; place: Place }[] =>
    [...runs].flatMap((run) => {
      const { place } = run
      return place === null ? [] : { run, place }
    })

  async function compareHeads(): Promise<void> {
    // what was sent before the question cannot be above the answer, unless the store lost it
    const before = openRuns()
    const standings = await store.compareSessions(before.map(({ place }) => place))
    for (const [i, { run, place }] of before.entries()) tell(run, place, standings[i] ?? { is: 'same' })
  }

  function tell(run: SessionRun, place: Place, standing: SessionStanding): void {
    if (standing.is === 'gone') return run.input({ is: 'hint', hint: { is: 'deleted' } })
    const { position, log_seq } = standing.is === 'same' ? place : standing
    const lost = position < place.position || log_seq < place.log_seq
    if (lost || place.history_id !== store.history_id) return run.input({ is: 'restored' })
    run.input({ is: 'head', position, log_seq, entitled: standing.is === 'same' || standing.entitled })
  }

  async function comparePresence(): Promise<void> {
    const before = openRuns()
    const online = await store.readOnline([...new Set(before.map(({ place }) => place.user_no))])
    for (const { run, place } of before) run.input({ is: 'online', device_ids: online.get(place.user_no) ?? [] })
  }

  const rounds = [repeat(compareHeads, () => limits.headRoundMs), repeat(comparePresence, () => limits.presenceRoundMs)]

  /** One after another, `ms` between them. */
  function repeat(round: () => Promise<void>, ms: () => number): Rounds {
    let timer: NodeJS.Timeout | undefined
    let running = false
    let again = false
    let closed = false

    function later(): void {
      timer = setTimeout(start, ms() * (1 - JITTER + 2 * JITTER * random()))
      timer.unref()
    }
    function start(): void {
      clearTimeout(timer)
      running = true
      work.track(
        round()
          .catch(failed)
          .finally(() => {
            running = false
            if (closed) return
            if (again) start()
            else later()
            again = false
          }),
      )
    }
    later()
    return {
      lookNow() {
        if (closed) return
        if (running) again = true
        else start()
      },
      close() {
        closed = true
        clearTimeout(timer)
      },
    }
  }

  return {
    lookNow() {
      for (const round of rounds) round.lookNow()
    },
    close() {
      for (const round of rounds) round.close()
    },
  }
}
