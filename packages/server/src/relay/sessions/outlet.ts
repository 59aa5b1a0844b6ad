/**
 * What a session asks of what it is open over (protocol.md §7): a WebSocket (`gateway/connection.ts`) or an answer that does not
 * end (`follower.ts`).
 */
import type { Bytes, CloseName, ServerHead } from '@sealpost/protocol'
import type { Input, Timer } from '../../core/state.ts'
import type { StoredEvent } from '../../ports/store.ts'

/** The session behind an outlet. */
export type Listener = {
  /** Whether the next frame may be handed over. */
  isReading(): boolean
  /** Whether what waits is more than the client may send. */
  isOverdrawn(): boolean
  input(input: Input): void
  /** The peer is there. */
  alive(): void
}

/** Tells its listener `gone` once, when nothing of it is left. */
export type Outlet = {
  /** The session is open, told of the device log up to `log_seq`: the bounds of strangers no longer hold. */
  authenticated(opened: { history_id: string; log_seq: number }): void
  send(head: ServerHead, body?: Bytes): void
  /** `whole`: the events are a batch as it was committed, so that its bytes can be shared. */
  sendEvents(head: ServerHead, events: readonly StoredEvent[], whole: boolean): void
  arm(timer: Timer, ms: number): void
  disarm(timer: Timer): void
  /** Reads nothing for this long: the device is over its rate. */
  hold(ms: number): void
  /** Hands over what waits, after the session changed. */
  pump(): void
  close(name: CloseName): void
  /** Takes it away within a second, closed or not. */
  cutOff(): void
  terminate(): void
  /** Clocks; `now` in ms, monotonic. */
  tick(now: number): void
}

/** So much of the second within which nothing more reaches a revoked device is left to the socket (C4). */
export const CUT_OFF_MS = 750

/** Ends that leave a peer no longer than `CUT_OFF_MS` to answer. */
export const AT_ONCE: ReadonlySet<CloseName> = new Set(['device_revoked', 'account_gone', 'reauthenticate'])

export type Timers = {
  arm(timer: Timer, ms: number): void
  disarm(timer: Timer): void
  /** An armed one is due later. */
  delay(timer: Timer, ms: number): void
  /** Tells of those that are due. */
  tick(now: number): void
}

export function createTimers(listener: Pick<Listener, 'input'>): Timers {
  const due = new Map<Timer, number>()
  return {
    arm: (timer, ms) => void due.set(timer, performance.now() + ms),
    disarm: (timer) => void due.delete(timer),
    delay(timer, ms) {
      const at = due.get(timer)
      if (at !== undefined) due.set(timer, at + ms)
    },
    tick(now) {
      for (const [timer, at] of due) {
        if (now < at) continue
        due.delete(timer)
        listener.input({ is: 'timer', timer })
      }
    },
  }
}
