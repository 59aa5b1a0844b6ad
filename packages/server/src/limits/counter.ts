/** What a limit is, and what counts for it: memory, Redis, or the primary of the workers. */

/** So many points in so many seconds. `name`: its keys are its own. */
export type Limit = { name: string; points: number; duration: number }

/** Counts `points` for a key; null within the limit, else the ms until it may be tried again. */
export interface LimitCounter {
  consume(limit: Limit, key: string, points: number): Promise<number | null>
  reward(limit: Limit, key: string, points: number): Promise<void>
}
