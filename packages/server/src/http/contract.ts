/**
 * What a route takes and gives (protocol.md §10): one contract per row of `routes.ts`. The router validates with it, the API
 * documents are made of it, and answers are checked against it in the tests; so none of the three can differ from the others.
 */
import { ROLES, type Route } from '@sealpost/protocol'
import type { z } from 'zod'
import type { ProblemCode } from './problems.ts'

export type Media =
  | 'application/json'
  | 'application/octet-stream'
  | 'application/x-ndjson'
  | 'text/event-stream'
  | 'text/html'
  | 'text/css'
  | 'text/javascript'

/** `schema` describes JSON; other media have an `example`, a text of one character per byte. */
export type AnswerContract = {
  status: 200 | 201 | 204
  media: Media
  /** Other media that the same route may answer with. */
  also?: readonly Media[]
  schema?: z.ZodType
  /** Of an answer that is bytes: how many, at least and at most. */
  bytes?: readonly [min: number, max: number]
  /** What comes piece by piece: each line of NDJSON, each message of an event stream with its `data` read. */
  item?: z.ZodType
  example?: unknown
  /** Headers of the answer beside those of every answer, and what each says. */
  headers?: Readonly<Record<string, string>>
  /** Whoever has it already, by `if-none-match`, is answered with 304. */
  conditional?: true
}

/** Headers of every answer, and what each says. */
export const EVERY_ANSWER = {
  'x-request-id': 'Names this request in the log of the server; the one that was sent, if it is well formed.',
  'cache-control': 'Whether and how long the answer may be kept; `no-store` where nothing else is said.',
  'x-content-type-options': 'Always `nosniff`.',
  'content-security-policy': 'What a browser may make of the answer: nothing, unless it is the page that shows the documents.',
} as const

/** Objects are strict: a member that is not named is refused. */
export type Contract = {
  params?: z.ZodObject
  query?: z.ZodObject
  /** Request headers that the route reads, in lower case; others are let through. */
  headers?: z.ZodObject
  body?: z.ZodObject
  /** Of a body that is bytes: how many at least. */
  bytesMin?: number
  answer: AnswerContract
  /** What this route may refuse with, beside `commonProblems`. */
  problems: readonly ProblemCode[]
  /** A body of bytes as a text of one character per byte. */
  example?: { params?: Record<string, string>; query?: Record<string, string | number>; headers?: Record<string, string>; body?: unknown }
}

/** What every route of its kind may refuse with. */
export function commonProblems(row: Route): ProblemCode[] {
  // a query that a route does not take is refused by all of them
  const codes = new Set<ProblemCode>(['internal', 'unavailable', 'invalid_request'])
  if (!row.unlimited) for (const code of ['rate_limited', 'overloaded'] as const) codes.add(code)
  // a body that is not asked for may still be sent
  if (row.method !== 'GET') codes.add('too_large')
  if (row.auth !== 'none') codes.add('unauthorized')
  if (row.auth === 'assertion') codes.add('expired')
  // a device is let in, or an operator shut it out; an admin is let in by its role, and has at least the least
  if (row.auth === 'token' && !('role' in row)) codes.add('suspended')
  if ('role' in row && row.role !== ROLES[0]) codes.add('forbidden')
  return [...codes]
}

/** All that a route may refuse with, each once. */
export function problemsOf(row: Route, contract: Contract): ProblemCode[] {
  return [...new Set([...commonProblems(row), ...contract.problems])]
}
