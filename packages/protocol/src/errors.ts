/**
 * The one error class of Sealpost. An expected failure carries a stable `code` from `codes.ts`; the sentence is safe to
 * show to a person; whatever is internal stays in `cause`.
 */
import type { ErrorCode } from './codes.ts'

export class SealpostError extends Error {
  override readonly name = 'SealpostError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}

/** Reached only through a bug: the compiler proves that no value gets here. */
export function unreachable(value: never): never {
  throw new TypeError(`unreachable: ${JSON.stringify(value)}`)
}
