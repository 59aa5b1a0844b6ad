/**
 * REST over which many requests go: no rate stands in the way, and whatever comes back is checked for what holds of every answer. A
 * part of the requests goes over a real socket, the others do without.
 */
import type { FastifyInstance, InjectOptions } from 'fastify'
import { afterAll, beforeAll } from 'vitest'
import { makeOpenApi } from '../../../server/src/api/openapi.ts'
import type { Operation } from '../../../server/src/api/operations.ts'
import { createRateLimits } from '../../../server/src/limits/rate-limits.ts'
import { RATES, type RateRule } from '../../../server/src/limits/rules.ts'
import type { PostgresStore } from '../../../server/src/store/store.ts'
import { useRest } from '../relays/injected-rest.ts'
import type { FuzzRequest } from './schema-values.ts'

/** A request when its turn comes: what is signed holds the time. */
export type Recipe = { operation: Operation; make(): Promise<FuzzRequest>; overSocket: boolean }
export type FuzzAnswer = { status: number; text: string; headers: Record<string, unknown>; code: string | null }

const SLOW_MS = 1_000
/** Nothing of it is said to anybody. */
const INSIDE = /\bat .*\.[tj]s:|node_modules|\/src\/|duplicate key|syntax error|ECONN|pg_/i

export type Fuzz = {
  readonly store: PostgresStore
  readonly server_key: Uint8Array
  readonly operations: readonly { path: string; method: string; operation: Operation }[]
  /** How many of each outcome; the codes of refusals are told apart. */
  readonly outcomes: Map<string, number>
  /** Sends, and throws for an answer that none may give; `seed` repeats it. */
  send(recipe: Recipe, seed: number): Promise<FuzzAnswer>
  /** What took long among others and on a busy machine, asked by itself. */
  askSlowOnes(seed: number): Promise<void>
}

export function useFuzz(): Fuzz {
  const rates = Object.fromEntries(Object.keys(RATES).map((rule) => [rule, 1_000_000_000])) as Record<RateRule, number>
  const limits = { followersPerDeviceMax: 100_000, socketsPerAddressMax: 100_000 }
  const rest = useRest({}, { rates: createRateLimits(rates), limits })
  const outcomes = new Map<string, number>()
  const slow: Recipe[] = []
  let url = ''

  beforeAll(async () => {
    url = await rest.app.listen({ host: '127.0.0.1', port: 0 })
  })
  // streams that were left end with it
  afterAll(() => rest.relay.drain())

  async function ask({ operation, overSocket }: Recipe, request: FuzzRequest): Promise<FuzzAnswer> {
    const answer =
      overSocket || operation.operationId === 'follow_events' ? await askSocket(url, request) : await askHere(rest.app, request)
    const isProblem = String(answer.headers['content-type']).startsWith('application/problem+json')
    return { ...answer, code: isProblem ? (JSON.parse(answer.text) as { code: string }).code : null }
  }

  async function measure(recipe: Recipe, seed: number): Promise<{ answer: FuzzAnswer; ms: number }> {
    const request = await recipe.make()
    const began = performance.now()
    const answer = await ask(recipe, request)
    const ms = performance.now() - began
    const fault = faultOf(recipe.operation, answer)
    if (fault === null) return { answer, ms }
    const sent = JSON.stringify(request).slice(0, 1_500)
    throw new Error(`FUZZ_SEED=${seed}: ${fault}: ${recipe.operation.operationId}: ${sent} → ${answer.status} ${answer.text.slice(0, 500)}`)
  }

  return {
    get store() {
      return rest.store
    },
    server_key: rest.server_key,
    operations: Object.entries(makeOpenApi().paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
    ),
    outcomes,
    async send(recipe, seed) {
      const { answer, ms } = await measure(recipe, seed)
      if (ms > SLOW_MS) slow.push(recipe)
      const outcome = answer.code ?? String(answer.status)
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      return answer
    },
    async askSlowOnes(seed) {
      for (const recipe of slow) {
        const { ms } = await measure(recipe, seed)
        if (ms > SLOW_MS) throw new Error(`FUZZ_SEED=${seed}: ${recipe.operation.operationId} took ${Math.round(ms)} ms`)
      }
    },
  }
}

/** What no answer to this operation may be; null when there is nothing. */
function faultOf(operation: Operation, { status, text, headers, code }: FuzzAnswer): string | null {
  if (status >= 500) return 'a failure of the server'
  // hashes and ids may hold any letters
  if (status >= 400 && INSIDE.test(text.replace(/"[\w-]{22,}"/g, '""'))) return 'something of the inside'
  if (headers['x-content-type-options'] !== 'nosniff' || headers['x-request-id'] === undefined) return 'headers'
  // an address that is of no route any more
  if (code === 'not_found') return null
  const examples = operation.responses[status]?.content?.['application/problem+json']?.examples
  const isKnown = code === null ? Object.hasOwn(operation.responses, status) : Object.hasOwn(examples ?? {}, code)
  return isKnown ? null : 'not in the document'
}

async function askHere(app: FastifyInstance, request: FuzzRequest): Promise<Omit<FuzzAnswer, 'code'>> {
  const { statusCode, payload, headers } = await app.inject(request as InjectOptions)
  return { status: statusCode, text: payload, headers }
}

/** A stream is left after its first bytes: it does not end by itself. */
async function askSocket(url: string, { url: path, payload, method, headers }: FuzzRequest): Promise<Omit<FuzzAnswer, 'code'>> {
  const leaving = new AbortController()
  const body = payload === undefined ? {} : { body: payload as string }
  const response = await fetch(`${url}${path}`, { method, headers, ...body, signal: leaving.signal })
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') === true
  const text = isStream ? await firstOf(response) : await response.text()
  leaving.abort()
  return { status: response.status, text, headers: Object.fromEntries(response.headers) }
}

async function firstOf({ body }: Response): Promise<string> {
  const { value } = (await body?.getReader().read()) ?? {}
  return new TextDecoder().decode(value)
}
