/**
 * Sheds load before the process collapses (R12): while the event loop is late, the heap is nearly full or the queues are, new work
 * is sent away with a time to come back, and what is under way goes on. It ends a while after the figures are good again, so that a
 * burst does not flap.
 *
 * Bound: one look at the figures every `LOOK_MS`; what is asked per request is one comparison.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { getHeapStatistics } from 'node:v8'

/** What is looked at. `loop_ms`: how late half of the turns of the event loop were since the last look: one long pause is
 * no overload. `heap`, `queues`: parts of 1. */
export type Load = { loop_ms: number; heap: number; queues: number }

export type LoadShed = {
  /** Null: there is room. Else ms to stay away, jittered. */
  retryAfterMs(): number | null
  /** The last look. */
  load(): Load
  close(): void
}

export type LoadShedOptions = {
  /** How full the queues are, 0 to 1. */
  queues(): number
  /** 0 ≤ x < 1. */
  random(): number
  /** The figures, for tests. */
  read?(): Omit<Load, 'queues'>
  now?(): number
}

const LOOK_MS = 500
/** From here on new work is sent away. */
const HIGH: Load = { loop_ms: 250, heap: 0.9, queues: 0.9 }
/** It comes in again when all are below for `CALM_MS`. */
const LOW: Load = { loop_ms: 100, heap: 0.8, queues: 0.7 }
const CALM_MS = 1_000
/** A loop that was late once, at a start or in one long pause, is not overloaded. */
const LATE_MS = 1_500
const RETRY_MS = 2_000

export function createLoadShed({ queues, random, ...options }: LoadShedOptions): LoadShed & { look(): void } {
  const now = options.now ?? (() => performance.now())
  const histogram = options.read === undefined ? monitorEventLoopDelay({ resolution: 20 }) : null
  histogram?.enable()
  const read =
    options.read ??
    (() => {
      const loop_ms = (histogram?.percentile(50) ?? 0) / 1e6
      histogram?.reset()
      const { used_heap_size, heap_size_limit } = getHeapStatistics()
      return { loop_ms, heap: used_heap_size / heap_size_limit }
    })
  let last: Load = { loop_ms: 0, heap: 0, queues: 0 }
  let shedding = false
  let calm_since: number | null = null
  let late_since: number | null = null

  function look(): void {
    last = { ...read(), queues: queues() }
    const full = (mark: Load): boolean => last.heap >= mark.heap || last.queues >= mark.queues
    if (last.loop_ms < HIGH.loop_ms) late_since = null
    else late_since ??= now()
    if (full(HIGH) || (late_since !== null && now() - late_since >= LATE_MS)) shedding = true
    if (full(LOW) || last.loop_ms >= LOW.loop_ms) calm_since = null
    else calm_since ??= now()
    if (shedding && calm_since !== null && now() - calm_since >= CALM_MS) shedding = false
  }
  const timer = setInterval(look, LOOK_MS)
  timer.unref()

  return {
    look,
    retryAfterMs: () => (shedding ? Math.ceil(RETRY_MS * (1 + random())) : null),
    load: () => last,
    close() {
      clearInterval(timer)
      histogram?.disable()
    },
  }
}
