/** What a route sees of a request and gives back: HTTP itself stays in `router.ts`. */
import { type Bytes, type Route, type ROUTES, type RouteName, SealpostError } from '@sealpost/protocol'
import type { ServerResponse } from 'node:http'
import type { ZodType, z } from 'zod'
import type { Contract, Media } from './contract.ts'
import type { Problem } from './problems.ts'

/**
 * An active device, proved by its token; `token_expires_at` in ms. What goes on after the answer looks again whether `token_version` is the
 * current one.
 */
export type Caller = {
  user_no: number
  device_no: number
  user_id: string
  device_id: string
  token_version: number
  token_expires_at: number
}

/** A request for a row of a list of routes, parsed and checked by its contract. */
export type CallOf<R extends Route, C extends Contract, Who> = {
  params: Part<C, 'params'>
  query: Part<C, 'query'>
  headers: Part<C, 'headers'>
  body: R['body'] extends 'bytes' ? Bytes : Part<C, 'body'>
  /** Whoever the token proved, on routes with auth `token`; null on others. */
  caller: R['auth'] extends 'token' ? Who : null
  /** The address that limits count for; null = exempt. */
  address: string | null
  request_id: string
  /** Aborted when nobody waits for the answer any more. */
  gone: AbortSignal
}

type Part<C extends Contract, P extends 'params' | 'query' | 'headers' | 'body'> = C extends { [K in P]: infer S extends ZodType }
  ? z.output<S>
  : undefined

/** What a resource takes and gives: a contract for each of its routes. */
export type Contracts = Readonly<Record<string, Contract>>

/** A request for a route of devices, as one of these contracts has it. */
export type RouteCall<C extends Contracts, N extends keyof C & RouteName> = CallOf<(typeof ROUTES)[N], C[N], Caller>
/** An answer for each of these contracts. */
export type RouteAnswers<C extends Contracts> = {
  readonly [N in keyof C & RouteName]: (call: RouteCall<C, N>) => Promise<Answer>
}

export type Answer =
  | { json: object; etag?: string; headers?: Record<string, string> }
  | { bytes: Bytes; media?: Media; headers?: Record<string, string> }
  | { empty: true }
  /** The route writes the response itself; headers of every answer are set already. */
  | { take_over(response: ServerResponse): void }
  | { problem: Problem }

/** One of any list of routes: what its call holds, its contract says. */
export type AnyAnswer = (call: never) => Promise<Answer>
export type AnyAnswers = Readonly<Record<string, AnyAnswer>>

/** The value as its schema says. Throws `invalid_request` that names the member. */
export function parseInput<T>(schema: ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const keys = issue?.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : []
  const path = [...(issue?.path ?? []), ...keys].map(String).join('.')
  // a path may hold a key that the client chose
  if (!/^[a-z_.0-9-]{1,64}$/.test(path)) throw new SealpostError('invalid_request', 'the request is not valid')
  throw new SealpostError('invalid_request', keys.length > 0 ? `${path} is not known here` : `${path} is missing or not valid`)
}
