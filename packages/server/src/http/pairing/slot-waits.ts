/**
 * Who waits for a pairing slot on this node. A put here wakes at once; for one on another node the waiter looks again by itself.
 * Bound: `pairingWaitersMax` at a time; above it nobody waits and each is answered with what is there.
 */
import { LIMITS } from '@sealpost/protocol'

export type SlotWaits = {
  /** Ends when the slot was filled here, after `ms`, or with the signal. Register it before the slot is read. Null when too many wait. */
  wait(slot: string, ms: number, signal: AbortSignal): { over: Promise<void>; cancel(): void } | null
  wake(slot: string): void
  /** Ends every wait and lets no new one begin. */
  close(): void
}

export function createSlotWaits(waitersMax: number = LIMITS.pairingWaitersMax): SlotWaits {
  const waiting = new Map<string, Set<() => void>>()
  let count = 0
  let closed = false

  return {
    wait: (slot, ms, signal) => {
      if (closed || count >= waitersMax || signal.aborted) return null
      const { promise: over, resolve } = Promise.withResolvers<void>()
      const same = waiting.get(slot) ?? new Set()
      waiting.set(slot, same)
      count++
      const timer = setTimeout(end, ms)
      function end(): void {
        if (!same.delete(end)) return
        count--
        if (same.size === 0) waiting.delete(slot)
        clearTimeout(timer)
        signal.removeEventListener('abort', end)
        resolve()
      }
      same.add(end)
      signal.addEventListener('abort', end)
      return { over, cancel: end }
    },
    wake: (slot) => {
      for (const end of waiting.get(slot) ?? []) end()
    },
    close: () => {
      closed = true
      for (const same of waiting.values()) for (const end of same) end()
    },
  }
}
