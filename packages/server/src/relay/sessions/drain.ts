/**
 * How sessions leave a relay that stops (protocol.md §4, R07): slice by slice, each told when to come again. What a session has in
 * flight is acked before its socket is closed; so says the session machine.
 *
 * Invariant: a session that was not told yet is served as ever. Bound: one slice every `SLICE_MS`, the last when `drainSpreadMs` have
 * passed; `drainMs` later it is over, whoever is left.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Input } from '../../core/state.ts'

export type DrainDeps = {
  /** Those that are there; they leave it by themselves, and one may come late. */
  sessions: ReadonlySet<{ input(input: Extract<Input, { is: 'drain' }>): void }>
  /** Resolves when the last has left and nothing goes on for anyone. */
  left(): Promise<void>
  limits: { drainSpreadMs: number; drainRetryMs: number; drainMs: number }
  /** 0 ≤ x < 1. */
  random(): number
}

const SLICE_MS = 100
/** So many at once are no herd. */
const SLICE_LEAST = 10

export async function drainSessions({ sessions, left, limits, random }: DrainDeps): Promise<void> {
  const lastAt = performance.now() + limits.drainSpreadMs
  const told = new WeakSet<object>()
  const leaving = left().then(() => 'gone')
  for (let state = 'there'; state !== 'gone' && performance.now() < lastAt + limits.drainMs; ) {
    const untold = [...sessions].filter((session) => !told.has(session))
    for (const session of untold.slice(0, sliceSize(untold.length, lastAt - performance.now()))) {
      told.add(session)
      session.input({ is: 'drain', retry_after_ms: Math.floor(random() * limits.drainRetryMs) })
    }
    state = await Promise.race([leaving, sleep(SLICE_MS, 'there')])
  }
}

/** So many that the last are told in `left_ms`. */
function sliceSize(untold: number, left_ms: number): number {
  const slices = Math.max(0, Math.floor(left_ms / SLICE_MS)) + 1
  return Math.max(SLICE_LEAST, Math.ceil(untold / slices))
}
