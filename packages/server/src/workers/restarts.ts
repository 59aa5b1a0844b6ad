/**
 * When a worker that ended is started again: after pauses that grow while it ends soon. Bound: `SOON_MAX` such ends in a row, after which
 * another start would be no better.
 */
export type Restarts = {
  /** ms to wait before the next start; null: no more. `counts`: not when it ended for something that passes by itself. */
  next(lived_ms: number, counts: boolean): number | null
}

const SOON_MS = 10_000
export const SOON_MAX = 5
const PAUSES_MS = [0, 100, 500, 1_000, 2_000] as const
const PASSING_MS = 2_000

export function createRestarts(): Restarts {
  let soon = 0
  return {
    next(lived_ms, counts) {
      if (!counts) return PASSING_MS
      soon = lived_ms < SOON_MS ? soon + 1 : 0
      return soon >= SOON_MAX ? null : (PAUSES_MS[soon] ?? 0)
    },
  }
}
