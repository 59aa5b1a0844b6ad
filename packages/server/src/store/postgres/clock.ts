/**
 * The database's clock, estimated between round trips: every ttl is judged by it, and clients are told it. The estimate
 * follows the monotonic clock, so that a step of this machine's wall clock does not move it.
 */
export type Clock = {
  /** ms */
  now(): number
  /** Takes an answer of the database: `at_ms` was read between `began` and `ended` (both `performance.now()`). */
  sample(at_ms: number, began: number, ended: number): void
}

/** An older estimate gives way even to one of a slower round trip. */
const SAMPLE_AGE_MS = 30_000

export function createClock(monotonic: () => number = () => performance.now()): Clock {
  let offset = Date.now() - monotonic()
  let best = { round_trip: Number.POSITIVE_INFINITY, at: Number.NEGATIVE_INFINITY }
  return {
    now: () => Math.round(monotonic() + offset),
    sample: (at_ms, began, ended) => {
      const round_trip = ended - began
      if (round_trip > best.round_trip && ended - best.at < SAMPLE_AGE_MS) return
      best = { round_trip, at: ended }
      offset = at_ms - (began + ended) / 2
    },
  }
}
