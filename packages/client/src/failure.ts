/**
 * What a failure means to the engine: every thrown value as one error with a code, what ends a device for good, and the sentence
 * for each end. What a person can do about a code is not said here: the command line has it in its list of outcomes.
 */
import { CLOSE, ERROR, type ErrorCode, SealpostError } from '@sealpost/protocol'

export function toError(error: unknown): SealpostError {
  return error instanceof SealpostError ? error : new SealpostError('internal', 'a failure inside', { cause: error })
}

/** A failure of the engine's own work with one of these ends it: begun anew it would find the same. */
export const TERMINAL: ReadonlySet<ErrorCode> = new Set([
  'log_fork',
  'unknown_version',
  'invalid_entry',
  'device_revoked',
  'state_damaged',
  'state_diverged',
  'server_identity',
  'disk',
  'internal',
])

/** The connection stays away for good. */
export function stopError(code: ErrorCode): SealpostError {
  switch (code) {
    case 'unauthorized':
      return new SealpostError(code, 'the server does not accept this device')
    case 'superseded':
      return new SealpostError(code, 'another session of this device took over')
    case 'account_gone':
      return new SealpostError(code, 'this account was deleted on the server')
    case 'server_identity':
      return new SealpostError(code, "the server's key is not the one that this account knows; nothing was sent")
    case 'unsupported_version':
      return new SealpostError(code, 'this version and the server have no protocol version in common')
    case 'invalid_message':
      return new SealpostError(
        code,
        `the server closed the connection five times in a row as damaged (${CLOSE.bad_frame.code}); nothing more is tried`,
      )
    default:
      return new SealpostError(code, ERROR[code])
  }
}

/** A socket that ended by itself; 1006: it was never there, or is gone without a word. */
export function closeError(code: number, cause: unknown, server_url: string): SealpostError {
  if (code === CLOSE.suspended.code) return new SealpostError('suspended', ERROR.suspended, { cause })
  return code === 1006
    ? unreachableError(server_url, cause)
    : new SealpostError('unreachable', `the server closed the connection (${code})`, { cause })
}

/** A cause that says why, as that of the platform's transport, ends the sentence; its hint stays. */
export function unreachableError(server_url: string, cause?: unknown): SealpostError {
  const why = cause instanceof SealpostError && cause.code === 'unreachable' ? `: ${cause.message}` : ''
  return new SealpostError('unreachable', `the server at ${server_url} cannot be reached${why}`, { cause })
}

/** An answer that no relay gives: a sign-in page of a network, a proxy, another product. `found` says what came: "a page (text/html)". */
export function foreignAnswer(found: string, cause?: unknown): SealpostError {
  return new SealpostError('unreachable', `something else answered in place of the relay, with ${found}`, {
    cause,
    hint: 'open any page in a browser: a network that asks you to sign in answers so; then check the address, and the proxies before it',
  })
}

/** For `foreignAnswer`: the status, and the media type without its parameters. */
export function describeAnswer(status: number, content_type: string): string {
  const media = content_type.split(';')[0]?.trim() ?? ''
  return /^[\w.+-]+\/[\w.+-]+$/.test(media) ? `${status}, ${media}` : `${status}`
}
