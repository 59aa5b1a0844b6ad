/**
 * Turns: at most `width` at a time of those with the same key, the others in the order in which they came. They wait here, and not on
 * a connection that others could use.
 *
 * Bounds: who has waited for `wait_ms`, or finds `WAITING_MAX` before it, is told `unavailable`.
 */
import { SealpostError } from '@sealpost/protocol'

export type Turns = <T>(key: number, work: () => Promise<T>) => Promise<T>

type Line = { busy: number; waiting: Set<() => void> }

const WAITING_MAX = 1_000

export function createTurns({ width, wait_ms }: { width: number; wait_ms: number }): Turns {
  const lines = new Map<number, Line>()
  return async (key, work) => {
    const line = lines.get(key) ?? { busy: 0, waiting: new Set() }
    lines.set(key, line)
    if (line.busy < width) line.busy += 1
    else await waitIn(line, wait_ms)
    try {
      return await work()
    } finally {
      const [next] = line.waiting
      if (next !== undefined) {
        line.waiting.delete(next)
        next()
      } else {
        line.busy -= 1
        if (line.busy === 0) lines.delete(key)
      }
    }
  }
}

/** Resolves with the turn of somebody who is done. */
async function waitIn({ waiting }: Line, wait_ms: number): Promise<void> {
  if (waiting.size >= WAITING_MAX) throw tooLong()
  const turn = Promise.withResolvers<void>()
  const timer = setTimeout(() => {
    waiting.delete(turn.resolve)
    turn.reject(tooLong())
  }, wait_ms)
  waiting.add(turn.resolve)
  try {
    await turn.promise
  } finally {
    clearTimeout(timer)
  }
}

function tooLong(): SealpostError {
  return new SealpostError('unavailable', 'others are before this one; try again later')
}
