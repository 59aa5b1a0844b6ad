/**
 * What is queued on the way to one peer (protocol.md §7, §9): nothing more is taken from the store above `outboundHighBytes`,
 * until it is below `outboundLowBytes` again; a peer that takes nothing for `stalledMs` is stalled. The process as a whole has
 * a bound too, which everyone feels who has something queued.
 */
import type { Socket } from 'node:net'
import type { RelayLimits } from '../limits.ts'

export type OutflowDeps = {
  /** Bytes that wait in this process. */
  buffered(): number
  socket: Pick<Socket, 'bytesWritten' | 'writableLength'>
  limits: Pick<RelayLimits, 'outboundHighBytes' | 'outboundLowBytes' | 'queueBytesMax' | 'stalledMs'>
  /** What is queued in the whole process. */
  outbound: { bytes: number }
  changed(full: boolean): void
}

export type Outflow = {
  /** After a write and when the socket took something; `now` in ms, monotonic. */
  check(now: number): void
  isStalled(now: number): boolean
  /** As of the last check. */
  bytes(): number
  /** The peer is gone: nothing is queued for it any more. */
  release(): void
}

export function createOutflow({ buffered, socket, limits, outbound, changed }: OutflowDeps): Outflow {
  let counted = 0
  let full = false
  let progressAt = 0
  let flushed = { total: -1, queue: -1 }

  /** Whether the peer has taken anything since the last look. */
  function hasMoved(): boolean {
    const total = socket.bytesWritten - socket.writableLength
    const queue = (socket as { _handle?: { writeQueueSize?: number } | null })._handle?.writeQueueSize ?? 0
    const moved = total !== flushed.total || queue !== flushed.queue
    flushed = { total, queue }
    return moved
  }

  return {
    check(now) {
      const size = buffered()
      outbound.bytes += size - counted
      counted = size
      const high = size > limits.outboundHighBytes || (size > 0 && outbound.bytes > limits.queueBytesMax)
      if (!full && high) {
        full = true
        progressAt = now
        changed(true)
      } else if (full && size < limits.outboundLowBytes && outbound.bytes <= limits.queueBytesMax) {
        full = false
        changed(false)
      }
    },
    isStalled(now) {
      if (counted === 0) return false
      if (hasMoved()) progressAt = now
      return now - progressAt >= limits.stalledMs
    },
    bytes: () => counted,
    release() {
      outbound.bytes -= counted
      counted = 0
    },
  }
}
