/**
 * How entries of the device log come in (protocol.md §2, §5): as they are told, or asked for, and held against what the server
 * announced when the session began.
 *
 * Invariant: what the server says it has is here 10 s later and hashes to the announced head; else it withholds entries
 * (`log_withheld`) or shows another log (`log_fork`).
 */
import { SealpostError, toBase64url, type WireEntry } from '@sealpost/protocol'
import type { AccountLog } from './account-log.ts'
import type { Clock } from '../ports.ts'
import type { AnswerOf, Requests } from '../connection/requests.ts'

const LOG_WAIT_MS = 10_000

export type LogReader = {
  /** A request is open: its answer must be read before what waits for it can go on. */
  readonly waiting: boolean
  /** Throws `log_fork`, `invalid_entry`, `unknown_version`. */
  apply(entries: readonly WireEntry[]): Promise<void>
  /** All entries from there on; throws `log_withheld` when they do not come within 10 s. */
  request(from_log_seq: number): Promise<void>
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
  let wanted: Promise<void> | null = null
  let announced: { log_seq: number; log_head: string } | null = null
  let cancelWait: (() => void) | null = null

  async function apply(entries: readonly WireEntry[]): Promise<void> {
    const { applied, missing } = await account.apply(entries)
    if (applied.length > 0) await ports.applied(applied.map((entry) => entry.log_seq))
    compare()
    if (missing !== null) void request(missing.from_log_seq).catch(ports.failed)
  }

  function request(from_log_seq: number): Promise<void> {
    wanted ??= readPages(from_log_seq).finally(() => {
      wanted = null
    })
    ports.asked()
    return wanted
  }

  async function readPages(from_log_seq: number): Promise<void> {
    for (let from = from_log_seq; ; ) {
      const { head } = await readPage(from)
      await apply(head.entries)
      from += head.entries.length
      if (!head.has_more || head.entries.length === 0) return
    }
  }

  async function readPage(from_log_seq: number): Promise<AnswerOf<'log_entries'>> {
    try {
      return await requests.ask('log_entries', (id) => ({ type: 'log_request', id, from_log_seq }), { ms: LOG_WAIT_MS })
    } catch (error) {
      if (error instanceof SealpostError && error.code === 'timeout') throw withheld(error)
      throw error
    }
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

  async function insist(): Promise<void> {
    cancelWait = null
    await request(account.log.log_seq + 1)
    if (announced !== null) throw withheld()
  }

  return {
    get waiting() {
      return wanted !== null
    },
    apply,
    request,
    announce(log_seq, log_head) {
      forget()
      announced = { log_seq, log_head }
      compare()
      if (announced !== null) cancelWait = clock.setTimer(LOG_WAIT_MS, () => void insist().catch(ports.failed), true)
    },
    end: forget,
  }
}

function withheld(cause?: unknown): SealpostError {
  return new SealpostError('log_withheld', 'the server withholds entries of the device log; nothing of it is handed over', { cause })
}
