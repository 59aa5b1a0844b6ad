/**
 * Failures as they leave over REST (RFC 9457, R02): a stable `code`, its sentence, the request id. One table gives the HTTP
 * status of each code that may leave; whatever is not in it leaves as `internal`, and only the log learns the rest.
 */
import { ERROR, type ErrorCode, SealpostError } from '@sealpost/protocol'

const STATUS = {
  invalid_encoding: 400,
  invalid_message: 400,
  invalid_request: 400,
  invalid_signature: 401,
  invalid_token: 401,
  unauthorized: 401,
  expired: 401,
  forbidden: 403,
  signup_closed: 403,
  device_revoked: 403,
  suspended: 403,
  not_found: 404,
  timeout: 408,
  slot_taken: 409,
  last_owner: 409,
  admin_exists: 409,
  log_conflict: 409,
  heads_stale: 409,
  name_taken: 409,
  superseded: 409,
  account_gone: 410,
  precondition_failed: 412,
  too_large: 413,
  invalid_entry: 422,
  unknown_version: 422,
  rate_limited: 429,
  headers_too_large: 431,
  internal: 500,
  overloaded: 503,
  unavailable: 503,
} as const satisfies Partial<Record<ErrorCode, number>>

export type ProblemCode = keyof typeof STATUS

/** What a route says when it refuses. `detail` is a sentence that is safe to show; `extra` are further members of the problem. */
export type Problem = { code: ProblemCode; detail?: string; retry_after_ms?: number; extra?: Record<string, string | number> }

export type ProblemResponse = { status: number; headers: Record<string, string>; body: Record<string, string | number> }

export const PROBLEM_TYPE = 'application/problem+json'

export function encodeProblem(problem: Problem, request_id: string): ProblemResponse {
  const status = STATUS[problem.code]
  const headers: Record<string, string> = { 'content-type': PROBLEM_TYPE }
  if (problem.retry_after_ms !== undefined) headers['retry-after'] = String(Math.max(1, Math.ceil(problem.retry_after_ms / 1_000)))
  if (status === 401) headers['www-authenticate'] = 'Bearer'
  return {
    status,
    headers,
    body: {
      type: `urn:sealpost:problem:${problem.code}`,
      title: ERROR[problem.code],
      status,
      code: problem.code,
      ...(problem.detail === undefined ? {} : { detail: problem.detail }),
      request_id,
      ...(problem.retry_after_ms === undefined ? {} : { retry_after_ms: Math.ceil(problem.retry_after_ms) }),
      ...problem.extra,
    },
  }
}

/** What may be told of an error: a known code with its safe sentence, or what the HTTP layer found wrong with the request, or `internal`. */
export function problemOf(error: unknown): Problem {
  if (error instanceof SealpostError)
    return isProblemCode(error.code) && error.code !== 'internal' ? { code: error.code, detail: error.message } : { code: 'internal' }
  const status = statusOf(error) ?? 500
  if (status === 404) return { code: 'not_found' }
  if (status === 413) return { code: 'too_large' }
  if (status === 503) return { code: 'unavailable' }
  // whatever else the HTTP layer finds wrong with a request: an address that is too long, a type that is not taken
  return status >= 400 && status < 500 ? { code: 'invalid_request' } : { code: 'internal' }
}

function isProblemCode(code: ErrorCode): code is ProblemCode {
  return Object.hasOwn(STATUS, code)
}

/** Fastify's own errors carry an `FST_` code and the status that it means; no other error's fields are trusted. */
function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('statusCode' in error) || !('code' in error)) return undefined
  return typeof error.code === 'string' && error.code.startsWith('FST_') && typeof error.statusCode === 'number'
    ? error.statusCode
    : undefined
}
