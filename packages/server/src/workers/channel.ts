/**
 * What the primary and its workers say to each other, over the channel of their processes, hints apart (`ipc-wire.ts`). Messages are
 * structured clones (`serialization: 'advanced'`): bytes stay bytes, and nothing secret is in an argument or a variable.
 *
 * Invariant: a send never throws and never blocks. Bound: whoever sends often bounds it (`ipc-counter.ts`).
 */
import type { ErrorCode } from '@sealpost/protocol'
import type { Config } from '../config/config.ts'
import type { Foundation } from '../data/foundation.ts'
import type { Limit } from '../limits/counter.ts'
import type { LogLevel } from '../config/settings.ts'

/** `worker`: the number of its place. */
export type Setup = { worker: number; config: Config; foundation: Foundation }
export type Listening = { url: string; admin_url: string | null; port: number }

export type Count = { id: number; limit: Limit; key: string; points: number }

export type ToWorker =
  | { is: 'start'; setup: Setup }
  | { is: 'stop' }
  /** The ms to wait; null: within the limit. */
  | { is: 'counted'; id: number; wait: number | null }

export type ToPrimary =
  | { is: 'listening'; listening: Listening }
  | { is: 'failed'; code: ErrorCode; message: string; hint: string | undefined }
  | { is: 'log_level'; level: LogLevel }
  /** `nodes`: how many live, as far as the worker knows. */
  | ({ is: 'consume'; nodes: number } & Count)
  | ({ is: 'reward' } & Count)

/** Of a worker: the pipe for hints. */
export const LINE_FD = 4

export type Channel<Out, In> = {
  /** `sent` is called when it has left this process, or never will. */
  send(message: Out, sent?: () => void): void
  receive(listener: (message: In) => void): void
}

/** What a process has in common with `ChildProcess`. */
export type Peer = {
  send?(message: unknown, handle: undefined, options: undefined, sent: (error: Error | null) => void): boolean
  on(event: 'message', listener: (message: unknown) => void): unknown
}

export function createChannel<Out, In>(peer: Peer): Channel<Out, In> {
  return {
    // that a peer is gone is told elsewhere
    send: (message, sent) => void peer.send?.(message, undefined, undefined, () => sent?.()),
    receive: (listener) => void peer.on('message', (message) => listener(message as In)),
  }
}
