/**
 * How entries of the device log come in (protocol.md §2, §5): as they are told, or asked for, and held against what the server
 * announced when the session began. Whatever decides by the log asks first (`read`): an entry may be stored and not be told yet.
 *
 * Invariant: what the server says it has is here 10 s later and hashes to the announced head; else it withholds entries
 * (`log_withheld`) or shows another log (`log_fork`).
 */
import { SealpostError, toBase64url, type WireEntry } from '@sealpost/protocol'
import type { AccountLog, Applied } from './account-log.ts'
import { createShared } from '../mutex.ts'
import type { Clock } from '../ports.ts'
import type { AnswerOf, Requests } from '../connection/requests.ts'

const LOG_WAIT_MS = 10_000

export type LogReader = {
  /** A request is open: its answer must be read before what waits for it can go on. */
  readonly waiting: boolean
  /** The server announced entries that are not here yet. */
  readonly behind: boolean
  /** Throws `log_fork`, `invalid_entry`, `unknown_version`. */
  apply(entries: readonly WireEntry[]): Promise<void>
  /** The log is as new as the server's at the time of the call. Throws `unreachable`, `timeout`, `log_withheld`, and what `apply` throws. */
  read(): Promise<void>
  /** `read` for entries that the server must have: no answer within 10 s is `log_withheld`. */
  request(): Promise<void>
  /** Throws `log_fork` when the head is not the one of an entry that is known. */
  announce(log_seq: number, log_head: string): void
  /** The session is gone, and what it announced with it. */
  end(): void
}

export type LogReaderPorts = {
  clock: Clock
  account: AccountLog
  requests: Requests
  /** Entries were verified and stored. */
  applied(log_seqs: readonly number[]): Promise<void>
  /** A request begins. */
  asked(): void
  failed(error: unknown): void
}

export function createLogReader(ports: LogReaderPorts): LogReader {
  const { clock, account, requests } = ports
  let waiting = false
  let announced: { log_seq: number; log_head: string } | null = null
  let cancelWait: (() => void) | null = null

  async function take(entries: readonly WireEntry[]): Promise<Applied> {
    const taken = await account.apply(entries)
    if (taken.applied.length > 0) await ports.applied(taken.applied.map((entry) => entry.log_seq))
    compare()
    return taken
  }

  async function apply(entries: readonly WireEntry[]): Promise<void> {
    const { missing } = await take(entries)
    if (missing) void request().catch(ports.failed)
  }

  const read = createShared(async () => {
    waiting = true
    ports.asked()
    try {
      await readPages()
    } finally {
      waiting = false
    }
    if (isBehind()) throw withheld()
  })

  const request = (): Promise<void> => read().catch(lateIsWithheld)

  async function readPages(): Promise<void> {
    for (let from = account.log.log_seq + 1; ; ) {
      const { head } = await readPage(from)
      await take(head.entries)
      from += head.entries.length
      // a page that leaves entries out, or shows old ones, would be asked for without end
      if (account.log.log_seq < from - 1) throw withheld()
      if (!head.has_more || head.entries.length === 0) return
    }
  }

  function readPage(from_log_seq: number): Promise<AnswerOf<'log_entries'>> {
    return requests.ask('log_entries', (id) => ({ type: 'log_request', id, from_log_seq }), { ms: LOG_WAIT_MS })
  }

  function isBehind(): boolean {
    return announced !== null && account.log.log_seq < announced.log_seq
  }

  function forget(): void {
    announced = null
    cancelWait?.()
    cancelWait = null
  }

  function compare(): void {
    const known = announced === null ? undefined : account.log.epochs[announced.log_seq]
    if (announced === null || known === undefined) return
    const { log_head } = announced
    forget()
    if (toBase64url(known.entry_hash) !== log_head)
      throw new SealpostError('log_fork', 'the server has another device log than this device; nothing more is sent')
  }

  return {
    get waiting() {
      return waiting
    },
    get behind() {
      return isBehind()
    },
    apply,
    read,
    request,
    announce(log_seq, log_head) {
      forget()
      announced = { log_seq, log_head }
      compare()
      if (announced !== null) cancelWait = clock.setTimer(LOG_WAIT_MS, () => void request().catch(ports.failed), true)
    },
    end: forget,
  }
}

/** For `catch`, where the server must have the entries that were asked for. */
export function lateIsWithheld(error: unknown): never {
  throw error instanceof SealpostError && error.code === 'timeout' ? withheld(error) : error
}

export function withheld(cause?: unknown): SealpostError {
  return new SealpostError('log_withheld', 'the server withholds entries of the device log; nothing of it is handed over', { cause })
}
