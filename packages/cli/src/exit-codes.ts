/**
 * THE list of exit codes, and of what each error code means at the command line: how the process ends and what the person
 * can do. The compiler refuses an `ErrorCode` without a row.
 */
import { diskError, type ErrorCode, SealpostError, systemCode } from '@sealpost/protocol'

export const EXIT = {
  ok: { code: 0, says: 'done' },
  internal: { code: 1, says: 'a failure inside Sealpost' },
  usage: { code: 2, says: 'the command line is wrong' },
  refused: { code: 3, says: 'the server or a rule refused it' },
  not_paired: { code: 4, says: 'this home holds no device, or its device was revoked' },
  server_identity: { code: 5, says: 'the server is not the one that this account knows' },
  integrity: { code: 6, says: 'integrity alarm: something did not verify' },
  unhealthy: { code: 7, says: 'doctor found something that endangers a promise' },
  unreachable: { code: 69, says: 'the server cannot be reached' },
  disk: { code: 74, says: 'the disk refused, or the stored state cannot be used' },
  queued: { code: 75, says: 'kept in the outbox; the next command sends it' },
} as const
export type Exit = keyof typeof EXIT

type Row = { exit: Exit; hint: string }

const BUG = 'try again; if it comes back, report it with the sentence above'
const AGAIN = 'try again in a moment'
const UPDATE = 'update sealpost on this device'
const REJOIN = 'pair this device again: sealpost pair on another device, then sealpost join here'
const REPAIR = `${REJOIN} with a new --home`
/** Of an event that was refused for its own sake. */
const ASIDE = 'sealpost outbox shows it, to send it again or drop it'
const REMAINS = 'nothing is lost: it stays in the outbox and the next command sends it'

export const OUTCOMES = {
  invalid_encoding: { exit: 'integrity', hint: BUG },
  invalid_message: { exit: 'integrity', hint: 'check that both ends run the same version of sealpost' },
  invalid_request: { exit: 'refused', hint: 'check the options: sealpost <command> --help' },
  invalid_signature: { exit: 'integrity', hint: 'do not trust this connection; check the address of the server' },
  invalid_token: { exit: 'refused', hint: AGAIN },
  invalid_box: { exit: 'integrity', hint: 'check the code and start the pairing again; if it comes back, do not trust the server' },
  invalid_code: { exit: 'refused', hint: 'type the code as sealpost pair shows it, or start sealpost pair again for a new one' },
  invalid_words: { exit: 'refused', hint: 'check the 24 words and their order' },
  decrypt_failed: { exit: 'integrity', hint: 'do not trust this connection; check the address of the server' },
  unknown_version: { exit: 'refused', hint: UPDATE },
  unauthorized: { exit: 'not_paired', hint: REPAIR },
  forbidden: { exit: 'refused', hint: 'use a device that is allowed to do this' },
  not_found: { exit: 'refused', hint: 'check what you named, and the address of the server' },
  slot_taken: { exit: 'refused', hint: 'this code was used already; start sealpost pair again for a new one' },
  precondition_failed: { exit: 'refused', hint: 'it was changed meanwhile; look at it, then try again' },
  overloaded: { exit: 'unreachable', hint: AGAIN },
  expired: { exit: 'refused', hint: 'start sealpost pair again for a new code' },
  too_large: { exit: 'refused', hint: 'send it in smaller parts, for example one line each with --lines' },
  headers_too_large: { exit: 'refused', hint: BUG },
  signup_closed: { exit: 'refused', hint: 'ask who runs the server, or run your own: sealpost serve' },
  account_gone: {
    exit: 'not_paired',
    hint: 'to empty this home: sealpost delete-account; a new account in a new home: sealpost init --home DIR',
  },
  device_revoked: { exit: 'not_paired', hint: REJOIN },
  suspended: { exit: 'refused', hint: 'ask who runs the server; what was not sent stays in the outbox' },
  not_admin: { exit: 'not_paired', hint: 'make a key with sealpost admin key and have an owner add it, or name the right one with --key' },
  last_owner: { exit: 'refused', hint: 'make another admin an owner first' },
  admin_exists: { exit: 'refused', hint: 'sealpost admin list shows who is there' },
  server_identity: { exit: 'server_identity', hint: 'nothing was sent; check the address, and ask who runs the server before you go on' },
  superseded: {
    exit: 'refused',
    hint: `this home runs in two places; use it in one of them and pair the other as a device of its own; ${REMAINS}`,
  },
  unsupported_version: { exit: 'refused', hint: UPDATE },
  log_fork: { exit: 'integrity', hint: `sending has stopped; compare sealpost status on your devices, then ${REPAIR}` },
  log_withheld: {
    exit: 'integrity',
    hint: 'try again; if it comes back, compare sealpost status on your devices and do not trust the server',
  },
  epoch_unreadable: { exit: 'integrity', hint: 'try again; if it comes back, pair this device again' },
  state_diverged: { exit: 'refused', hint: `was this home copied or restored from a backup? ${REPAIR}` },
  state_damaged: { exit: 'disk', hint: 'keep the folder, restore it from a backup, or pair this device again with a new --home' },
  state_newer: { exit: 'disk', hint: UPDATE },
  not_paired: {
    exit: 'not_paired',
    hint: 'create an account with sealpost init, or join one with sealpost join; --home DIR names another home',
  },
  already_paired: { exit: 'refused', hint: 'use another home: --home DIR' },
  insecure_permissions: { exit: 'refused', hint: 'make the folder yours alone: chmod -R go-rwx DIR' },
  unreachable: { exit: 'unreachable', hint: 'check the network and the address, and that the server runs' },
  timeout: { exit: 'unreachable', hint: AGAIN },
  aborted: { exit: 'refused', hint: 'run the command again when you are ready' },
  disk: { exit: 'disk', hint: 'check the path, its owner and the room on the disk, then try again' },
  queued: { exit: 'queued', hint: REMAINS },
  check_phrase_mismatch: {
    exit: 'refused',
    hint: 'nothing was paired; start sealpost pair again, and make sure that both devices are yours',
  },
  data_newer: { exit: 'disk', hint: 'update sealpost, or use another folder: --data DIR' },
  data_in_use: { exit: 'refused', hint: 'end what uses it, or use another folder: --data DIR' },
  port_in_use: { exit: 'refused', hint: 'use another port (--port 0 takes a free one), or stop what listens there' },
  invalid_config: { exit: 'usage', hint: 'correct the options or variables named above' },
  internal: { exit: 'internal', hint: BUG },
  stale_epoch: { exit: 'queued', hint: REMAINS },
  sequence_gap: { exit: 'queued', hint: REMAINS },
  sequence_conflict: { exit: 'queued', hint: REMAINS },
  event_expired: { exit: 'refused', hint: `it was not sent in time; ${ASIDE}` },
  clock_skew: { exit: 'refused', hint: 'set the clock of this device, then try again' },
  payload_too_large: { exit: 'refused', hint: 'send it in smaller parts, for example one line each with --lines' },
  too_many_streams: { exit: 'refused', hint: `use a stream that is there, or ask who runs the server; ${ASIDE}` },
  invalid_event: { exit: 'refused', hint: `${UPDATE}; ${ASIDE}` },
  quota_exceeded: { exit: 'refused', hint: 'ask who runs the server; it stays in the outbox' },
  rate_limited: { exit: 'refused', hint: 'wait a minute, then try again' },
  unavailable: { exit: 'unreachable', hint: AGAIN },
  log_conflict: { exit: 'refused', hint: AGAIN },
  heads_stale: { exit: 'refused', hint: AGAIN },
  name_taken: { exit: 'refused', hint: 'choose another name' },
  invalid_entry: { exit: 'refused', hint: 'check that both ends run the same version of sealpost' },
} as const satisfies Record<ErrorCode, Row>

/** A mistake at the command line. The message says what is wrong, the hint what to type. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  readonly hint: string

  constructor(message: string, hint: string) {
    super(message)
    this.hint = hint
  }
}

/** What a failure means in one place, where the table says too little. */
export type Advice = Partial<Row>

const advice = new WeakMap<SealpostError, Advice>()

/** The same error, with what it means here. What was said first, nearest to the failure, stays. */
export function advised(error: SealpostError, said: Advice): SealpostError {
  if (!advice.has(error)) advice.set(error, said)
  return error
}

/** For `catch`: throws on what was thrown, with the advice for its code, if there is one. */
export function advise(byCode: Partial<Record<ErrorCode, Advice>>): (error: unknown) => never {
  return (error) => {
    const said = error instanceof SealpostError ? byCode[error.code] : undefined
    throw error instanceof SealpostError && said !== undefined ? advised(error, said) : error
  }
}

export type Failure = { exit: Exit; message: string; hint: string; code: string }

/** What a thrown value means for the person at the terminal. Text of unexpected errors stays inside. */
export function failureOf(error: unknown): Failure {
  if (error instanceof UsageError) return { exit: 'usage', message: error.message, hint: error.hint, code: 'usage' }
  if (error instanceof SealpostError) {
    const { code, message, retry_after_ms, hint } = error
    const when = retry_after_ms === undefined ? {} : { hint: `try again in ${waitOf(retry_after_ms)}` }
    // the cause knows most, then the command, then what the server said, then the table
    const known = hint === undefined ? {} : { hint }
    return { ...OUTCOMES[code], ...when, ...advice.get(error), ...known, message, code }
  }
  if (systemCode(error) !== null) return failureOf(ofSystem(error as NodeJS.ErrnoException))
  const name = error instanceof Error ? error.name : typeof error
  return {
    exit: 'internal',
    message: `unexpected failure (${name})`,
    hint: 'set SEALPOST_DEBUG=1 to see where, and report it',
    code: 'internal',
  }
}

/** Rounded up: who waits as long as it says comes late enough. */
function waitOf(ms: number): string {
  const seconds = Math.max(1, Math.ceil(ms / 1_000))
  const [count, unit] =
    seconds < 120 ? [seconds, 'second'] : seconds < 7_200 ? [Math.ceil(seconds / 60), 'minute'] : [Math.ceil(seconds / 3_600), 'hour']
  return `${count} ${unit}${count === 1 ? '' : 's'}`
}

/** A call of the system that no command foresaw: what it was about, if that is known, and its cause. */
function ofSystem(error: NodeJS.ErrnoException): SealpostError {
  const { syscall = '', path } = error
  const what = path ?? (syscall === 'write' ? 'the output' : `the call ${syscall} of the system`)
  return diskError(`${what} failed`, error)
}

/** The table for `--help` and the documents. */
export function describeExits(): string {
  const rows = Object.values(EXIT).map(({ code, says }) => `  ${String(code).padStart(2)}  ${says}`)
  return `Exit codes:\n${rows.join('\n')}`
}
