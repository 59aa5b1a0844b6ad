/**
 * What a session has to know of stored events before it sends them, found once per batch and shared by all its receivers.
 * Bound: one pass over the events; the facts live as long as the array does.
 */
import { bytesToUuid, recordBytes, type Tip } from '@sealpost/protocol'
import type { StoredEvent } from '../ports/store.ts'

export type BatchFacts = {
  /** Encoded, in bytes. */
  bytes: number
  /** The highest epoch of the events. */
  epoch: number
  device_nos: readonly number[]
  /** Positions without a hole, in order. */
  contiguous: boolean
}

const known = new WeakMap<readonly StoredEvent[], BatchFacts>()

export function factsOf(events: readonly StoredEvent[]): BatchFacts {
  const facts = known.get(events)
  if (facts !== undefined) return facts
  const found = findFacts(events)
  known.set(events, found)
  return found
}

/** The epoch of a client part: u32be at 40 (protocol.md §3). */
export function epochOf(event: StoredEvent): number {
  const at = event.client
  return (((at[40] ?? 0) << 24) | ((at[41] ?? 0) << 16) | ((at[42] ?? 0) << 8) | (at[43] ?? 0)) >>> 0
}

export function tipOf(event: StoredEvent): Tip {
  return { event_id: bytesToUuid(event.client), received_at: event.received_at }
}

function findFacts(events: readonly StoredEvent[]): BatchFacts {
  let bytes = 0
  let epoch = 0
  let contiguous = events.length > 0
  let next = events[0]?.position ?? 0
  const device_nos: number[] = []
  for (const event of events) {
    bytes += recordBytes(event.flags, event.client, event)
    epoch = Math.max(epoch, epochOf(event))
    if (!device_nos.includes(event.device_no)) device_nos.push(event.device_no)
    if (event.position !== next) contiguous = false
    next = event.position + 1
  }
  return { bytes, epoch, device_nos, contiguous }
}
