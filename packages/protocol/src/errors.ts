/**
 * The one error class of Sealpost. An expected failure carries a stable `code` from `codes.ts`; the sentence is safe to
 * show to a person; whatever is internal stays in `cause`.
 */
import type { ErrorCode } from './codes.ts'

export class SealpostError extends Error {
  override readonly name = 'SealpostError'
  readonly code: ErrorCode
  /** What the server said of when to try again, also through errors that were made of that one. */
  readonly retry_after_ms: number | undefined
  /** What a person can do, where the cause tells more than the code; also through errors of the same code that were made of it. */
  readonly hint: string | undefined

  constructor(
    code: ErrorCode,
    message: string,
    options?: { cause?: unknown; retry_after_ms?: number | undefined; hint?: string | undefined },
  ) {
    super(message, options)
    const cause = options?.cause
    this.code = code
    this.hint = options?.hint ?? (cause instanceof SealpostError && cause.code === code ? cause.hint : undefined)
    this.retry_after_ms = options?.retry_after_ms ?? (cause instanceof SealpostError ? cause.retry_after_ms : undefined)
  }
}

/**
 * ms of a `Retry-After` in seconds (RFC 9110 §10.2.3), a day at most: nobody waits longer by the word of a server. Undefined
 * for what is none, and for a date, which a relay never sends.
 */
export function retryAfterMs(value: string | null | undefined): number | undefined {
  return /^\d{1,9}$/.test(value ?? '') ? Math.min(Number(value) * 1000, 86_400_000) : undefined
}

/** Reached only through a bug: the compiler proves that no value gets here. */
export function unreachable(value: never): never {
  throw new TypeError(`unreachable: ${JSON.stringify(value)}`)
}
