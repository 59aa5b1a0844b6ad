/**
 * What a route takes and gives (protocol.md §10): one contract per row of `routes.ts`. The router validates with it, the API
 * documents are made of it, and answers are checked against it in the tests; so none of the three can differ from the others.
 */
import type { Route } from '@sealpost/protocol'
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

/** `schema` describes JSON; other media have an `example` alone. */
export type AnswerContract = {
  status: 200 | 201 | 204
  media: Media
  /** Other media that the same route may answer with. */
  also?: readonly Media[]
  schema?: z.ZodType
  example?: unknown
  /** Headers of the answer beside those of every answer, and what each says. */
  headers?: Readonly<Record<string, string>>
}

/** Objects are strict: a member that is not named is refused. */
export type Contract = {
  params?: z.ZodObject
  query?: z.ZodObject
  /** Request headers that the route reads, in lower case; others are let through. */
  headers?: z.ZodObject
  body?: z.ZodObject
  answer: AnswerContract
  /** What this route may refuse with, beside `commonProblems`. */
  problems: readonly ProblemCode[]
  example?: { params?: Record<string, string>; query?: Record<string, string>; headers?: Record<string, string>; body?: unknown }
}

/** What every route of its kind may refuse with. */
export function commonProblems(row: Route, contract: Contract): ProblemCode[] {
  const codes = new Set<ProblemCode>(['internal', 'unavailable'])
  if (!row.unlimited) for (const code of ['rate_limited', 'overloaded'] as const) codes.add(code)
  if (contract.params ?? contract.query ?? contract.headers ?? contract.body ?? row.body === 'bytes') codes.add('invalid_request')
  if (row.body !== 'none') codes.add('too_large')
  if (row.auth !== 'none') codes.add('unauthorized')
  if (row.auth === 'assertion') codes.add('expired')
  return [...codes]
}

/** All that a route may refuse with, each once. */
export function problemsOf(row: Route, contract: Contract): ProblemCode[] {
  return [...new Set([...commonProblems(row, contract), ...contract.problems])]
}
