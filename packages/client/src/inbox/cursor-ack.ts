/**
 * Tells the server how far this device has read (`ack`, protocol.md §5). Bound: once in `ACK_EVERY_MS`, and only when the cursor
 * went on.
 */
import type { Clock } from '../ports.ts'

const ACK_EVERY_MS = 5_000

export type CursorAckPorts = {
  clock: Clock
  /** A session stands. */
  online(): boolean
  /** Of the stored cursor. */
  position(): number
  send(position: number): void
}

export type CursorAck = {
  /** The cursor may have moved. */
  schedule(): void
  /** The session is gone. */
  end(): void
}

/** `acked`: the position that counts as told. */
export function createCursorAck(ports: CursorAckPorts, acked: number): CursorAck {
  let acked_position = acked
  let cancel: (() => void) | null = null

  return {
    schedule() {
      if (cancel !== null || !ports.online() || ports.position() <= acked_position) return
      cancel = ports.clock.setTimer(
        ACK_EVERY_MS,
        () => {
          cancel = null
          acked_position = ports.position()
          ports.send(acked_position)
        },
        true,
      )
    },
    end() {
      cancel?.()
      cancel = null
    },
  }
}
