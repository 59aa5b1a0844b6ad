/** What a route sees of a request and gives back: HTTP itself stays in `router.ts`. */
import { type Bytes, type RouteName, SealpostError } from '@sealpost/protocol'
import type { ZodType } from 'zod'
import type { Problem } from './problems.ts'

/** An active device, proved by its token. */
export type Caller = { user_no: number; device_no: number; user_id: string; device_id: string }

export type Call = {
  params: Readonly<Record<string, string>>
  query: unknown
  /** Parsed JSON, bytes, or undefined: as the route's row says. */
  body: unknown
  /** Set on routes with auth `token`. */
  caller: Caller | null
  /** The address that limits count for; null = exempt. */
  address: string | null
  request_id: string
  /** Aborted when nobody waits for the answer any more. */
  gone: AbortSignal
}

export type Answer = { json: object } | { bytes: Bytes } | { empty: true } | { problem: Problem }

export type Answerer = (call: Call) => Promise<Answer>
export type Answers<N extends RouteName = RouteName> = { readonly [K in N]: Answerer }

/** The body or query as its schema says; unknown members are dropped. Throws `invalid_request` that names the member. */
export function parseInput<T>(schema: ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const path = parsed.error.issues[0]?.path.map(String).join('.') ?? ''
  // a path may hold a key that the client chose
  throw new SealpostError(
    'invalid_request',
    /^[a-z_.0-9]{1,64}$/.test(path) ? `${path} is missing or not valid` : 'the request is not valid',
  )
}
