/**
 * What the primary and its workers say to each other, over the channel of their processes. Messages are structured clones
 * (`serialization: 'advanced'`): bytes stay bytes, and nothing secret is in an argument or a variable.
 *
 * Invariant: a send never throws and never blocks. Bound: what has not left this process is counted, for whoever can do without.
 */
import type { ErrorCode } from '@sealpost/protocol'
import type { Config } from '../config.ts'
import type { Foundation } from '../foundation.ts'
import type { Limit } from '../limits/rate-limits.ts'
import type { LogLevel } from '../settings.ts'

/** A hint as the bus made it, for the users of a topic. */
export type Sent = readonly [topic: number, message: Uint8Array]

/** `worker`: the number of its place. */
export type Setup = { worker: number; config: Config; foundation: Foundation }
export type Listening = { url: string; admin_url: string | null; port: number }

export type Count = { id: number; limit: Limit; key: string; points: number }

export type ToWorker =
  | { is: 'start'; setup: Setup }
  | { is: 'stop' }
  | { is: 'hints'; hints: readonly Sent[] }
  /** The ms to wait; null: within the limit. */
  | { is: 'counted'; id: number; wait: number | null }

export type ToPrimary =
  | { is: 'listening'; listening: Listening }
  | { is: 'failed'; code: ErrorCode; message: string }
  | { is: 'log_level'; level: LogLevel }
  | { is: 'topics'; joined: readonly number[]; parted: readonly number[] }
  | { is: 'hints'; hints: readonly Sent[] }
  /** `nodes`: how many live, as far as the worker knows. */
  | ({ is: 'consume'; nodes: number } & Count)
  | ({ is: 'reward' } & Count)

export type Channel<Out, In> = {
  /** `sent` is called when it has left this process, or never will. */
  send(message: Out, bytes?: number, sent?: () => void): void
  /** Bytes that have not left this process, roughly. */
  waiting(): number
  receive(listener: (message: In) => void): void
}

/** What a process has in common with `ChildProcess`. */
export type Peer = {
  send?(message: unknown, handle: undefined, options: undefined, sent: (error: Error | null) => void): boolean
  on(event: 'message', listener: (message: unknown) => void): unknown
}

/** Of a message that says little. */
const SMALL_BYTES = 256

export function createChannel<Out, In>(peer: Peer): Channel<Out, In> {
  let waiting = 0
  return {
    send(message, bytes = 0, sent) {
      const size = bytes + SMALL_BYTES
      waiting += size
      // that a peer is gone is told elsewhere
      peer.send?.(message, undefined, undefined, () => {
        waiting -= size
        sent?.()
      })
    },
    waiting: () => waiting,
    receive: (listener) => void peer.on('message', (message) => listener(message as In)),
  }
}
