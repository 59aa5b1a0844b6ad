/**
 * Requests made of the API document: right ones, nearly right ones, and noise (G21, R02). None gives a 5xx, says anything of the inside, or
 * takes a second. The seed is in the message of a failure; `FUZZ_SEED` repeats it, `FUZZ_RUNS` goes on for longer.
 */
import { toBase64url } from '@sealpost/protocol'
import * as fc from 'fast-check'
import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { makeOpenApi } from '../src/api/openapi.ts'
import type { Operation } from '../src/api/operations.ts'
import { nodeCrypto } from '@sealpost/protocol/node'
import { createMemoryBus } from '../src/bus/memory-bus.ts'
import { createHttp } from '../src/http/http.ts'
import { createRateLimits } from '../src/limits/rate-limits.ts'
import { RATES, type RateRule } from '../src/limits/rules.ts'
import { createRelay, type Relay } from '../src/relay/relay.ts'
import { createStore, type PostgresStore } from '../src/store/store.ts'
import { createAccount, type TestAccount } from '../src/testing/accounts.ts'
import { assertOf } from '../src/testing/assertion.ts'
import { useDatabase } from '../src/testing/database.ts'
import { fixedKeys } from '../src/testing/keys.ts'
import { silent } from '../src/testing/log.ts'

const RUNS = Number(process.env['FUZZ_RUNS'] ?? 50_000)
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)
const AT_ONCE = 16
const SLOW_MS = 1_000
const INSIDE = /\bat .*\.[tj]s:|node_modules|\/src\/|duplicate key|syntax error|ECONN|pg_/i

const database = useDatabase()
const server_key = nodeCrypto.ed25519Public(nodeCrypto.random(32))
let store: PostgresStore
let relay: Relay
let app: FastifyInstance
let account: TestAccount
let token = ''

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
  const bus = createMemoryBus()
  const rates = Object.fromEntries(Object.keys(RATES).map((rule) => [rule, 1_000_000_000])) as Record<RateRule, number>
  relay = createRelay({ store, bus, token_key: nodeCrypto.random(32), logger: silent, rates: createRateLimits(rates) })
  app = createHttp({
    store,
    bus,
    relay,
    keys: fixedKeys([nodeCrypto.random(32)]),
    secrets: { server_key, jwt_sign_seed: nodeCrypto.random(32) },
    config: { signup: 'open', trusted_proxies: [], clock_skew_ms: 300_000, quota_bytes: null, docs: true },
    draining: () => false,
    logger: silent,
  })
  account = await createAccount(store, 2)
  const answer = await app.inject({ method: 'POST', url: '/api/auth/token', payload: await assertOf(account, server_key, 'token') })
  token = answer.json().access_token
})
afterAll(async () => {
  await app?.close()
  await relay?.close()
  await store?.close()
})

type Schema = { [keyword: string]: unknown }

/** Values that a schema takes, as far as it matters here; `weird` values now and then. */
function valueOf(schema: Schema, depth = 0): fc.Arbitrary<unknown> {
  const weird = fc.oneof(
    fc.constantFrom(null, true, -1, 2 ** 53, 1e308, '', '\u0000', '../..', "' or 1=1 --", '\ud800', '__proto__', 'A'.repeat(3_000)),
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.jsonValue({ maxDepth: 3 }),
  )
  return fc.oneof({ weight: 30, arbitrary: fitting(schema, depth) }, { weight: 1, arbitrary: weird })
}

function fitting(schema: Schema, depth: number): fc.Arbitrary<unknown> {
  if (Array.isArray(schema['anyOf'])) return fc.oneof(...(schema['anyOf'] as Schema[]).map((one) => valueOf(one, depth)))
  if (Array.isArray(schema['enum'])) return fc.constantFrom(...(schema['enum'] as unknown[]))
  if ('const' in schema) return fc.constant(schema['const'])
  switch (schema['type']) {
    case 'object': {
      const properties = (schema['properties'] ?? {}) as Record<string, Schema>
      const required = new Set((schema['required'] ?? []) as string[])
      const members = Object.entries(properties).map(([name, one]) =>
        fc.tuple(fc.constant(name), valueOf(one, depth + 1), fc.integer({ min: 0, max: 30 })).map(([key, value, luck]) => {
          const isThere = required.has(key) ? luck > 0 : luck > 12
          return isThere ? [[key, value]] : []
        }),
      )
      const extra = fc.oneof(
        { weight: 30, arbitrary: fc.constant([]) },
        { weight: 1, arbitrary: fc.tuple(fc.string(), fc.jsonValue()).map((pair) => [pair]) },
      )
      const records = 'additionalProperties' in schema && typeof schema['additionalProperties'] === 'object'
      const entries = records
        ? fc.array(
            fc.tuple(fc.constantFrom('root', account.devices[0]!.device_id), valueOf(schema['additionalProperties'] as Schema, depth + 1)),
            { maxLength: 3 },
          )
        : fc.tuple(...members, extra).map((all) => all.flat())
      return entries.map((pairs) => Object.fromEntries(pairs as [string, unknown][]))
    }
    case 'array':
      return fc.array(valueOf(schema['items'] as Schema, depth + 1), { maxLength: 3 })
    case 'integer':
    case 'number':
      return fc.oneof(fc.nat(10), fc.maxSafeNat(), fc.constantFrom(0, 1, 0xffff_ffff))
    case 'boolean':
      return fc.boolean()
    case 'null':
      return fc.constant(null)
    default:
      return textOf(schema)
  }
}

function textOf(schema: Schema): fc.Arbitrary<string> {
  const pattern = typeof schema['pattern'] === 'string' ? schema['pattern'] : null
  const length = pattern === null ? null : /^\^\[A-Za-z0-9_-\]\{(\d+)\}\$$/.exec(pattern)
  if (length !== null)
    return fc
      .uint8Array({ minLength: Math.floor((Number(length[1]) * 3) / 4), maxLength: Math.floor((Number(length[1]) * 3) / 4) })
      .map((of) => toBase64url(of))
  if (pattern?.includes('[0-9a-f]{8}-') === true)
    return fc.oneof(fc.uuid(), fc.constantFrom(...account.devices.map((device) => device.device_id)))
  if (pattern === '^[A-Za-z0-9_-]*$')
    return fc.oneof(
      fc.uint8Array({ maxLength: 200 }).map((of) => toBase64url(of)),
      fc.json().map((text) => Buffer.from(text).toString('base64url')),
    )
  if (pattern?.includes('\\d') === true || pattern?.startsWith('^(0|[1-9]') === true) return fc.maxSafeNat().map(String)
  return fc.oneof(fc.string({ maxLength: 30 }), fc.stringMatching(/^[a-zA-Z0-9._:-]{1,20}$/))
}

type Made = { operation: Operation; request: { method: 'GET'; url: string; headers: Record<string, string>; payload?: string | Buffer } }

function requestOf(path: string, method: string, operation: Operation): fc.Arbitrary<Made> {
  const parameters = operation.parameters ?? []
  const values = fc.tuple(...parameters.map((one) => valueOf(one.schema as Schema)))
  const json = operation.requestBody?.content['application/json']?.schema as Schema | undefined
  const body =
    json !== undefined
      ? valueOf(json).map((value) => JSON.stringify(value) ?? '')
      : operation.requestBody === undefined
        ? fc.constant(null)
        : fc.uint8Array({ maxLength: 5_000 }).map((of) => Buffer.from(of))
  const damage = fc.oneof(
    { weight: 20, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: fc.tuple(fc.nat(2_000), fc.string({ unit: 'binary', maxLength: 3 })) },
  )
  const auth = fc.oneof(
    { weight: 20, arbitrary: fc.constant('good') },
    { weight: 1, arbitrary: fc.constantFrom('', 'Bearer x', 'Basic YTpi') },
  )
  const type = fc.oneof(
    { weight: 40, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: fc.constantFrom('text/plain', 'application/json; charset=latin1', 'x') },
  )
  return fc.tuple(values, body, damage, auth, type).map(([given, payload, damaged, authorization, contentType]) => {
    const headers: Record<string, string> = { authorization: authorization === 'good' ? `Bearer ${token}` : authorization }
    const query = new URLSearchParams()
    let url = path
    for (const [i, { name, in: place, required }] of parameters.entries()) {
      const value = typeof given[i] === 'string' ? given[i] : (JSON.stringify(given[i]) ?? '')
      if (place === 'path') url = url.replace(`{${name}}`, encodeURIComponent(value.toWellFormed()) || '%20')
      else if (place === 'query') {
        if (required || value.length % 3 > 0) query.set(name, value)
      } else if (/^[\x20-\x7e]{1,200}$/.test(value)) headers[name] = value
    }
    const text = [...query].length === 0 ? '' : `?${query.toString()}`
    const broken =
      typeof payload === 'string' && damaged !== null ? payload.slice(0, damaged[0]) + damaged[1] + payload.slice(damaged[0] + 1) : payload
    if (broken !== null)
      headers['content-type'] = contentType ?? (typeof broken === 'string' ? 'application/json' : 'application/octet-stream')
    return {
      operation,
      request: { method: method.toUpperCase() as 'GET', url: `${url}${text}`, headers, ...(broken === null ? {} : { payload: broken }) },
    }
  })
}

it(`${RUNS.toLocaleString('en')} requests of the document: no 5xx, nothing of the inside, none slower than a second`, {
  timeout: 600_000,
}, async () => {
  // a stream that is followed does not end by itself; a long poll waits on purpose
  const operations = Object.entries(makeOpenApi().paths).flatMap(([path, methods]) =>
    Object.entries(methods)
      .filter(([, { operationId }]) => operationId !== 'follow_events' && operationId !== 'read_docs_file')
      .map(([method, operation]) => requestOf(path, method, operation)),
  )
  const per = Math.ceil(RUNS / operations.length)
  const statuses = new Map<number, number>()
  let sent = 0
  for (const [index, arbitrary] of operations.entries()) {
    const all = fc.sample(arbitrary, { numRuns: per, seed: SEED + index })
    for (let at = 0; at < all.length; at += AT_ONCE)
      await Promise.all(
        all.slice(at, at + AT_ONCE).map(async ({ operation, request }) => {
          const url = request.url.replace(/([?&])wait=\d+/, '$1wait=0')
          const began = performance.now()
          const response = await app.inject({ ...request, url })
          const ms = performance.now() - began
          const what = `FUZZ_SEED=${SEED}: ${operation.operationId}: ${JSON.stringify({ ...request, url }).slice(0, 1_500)} → ${response.statusCode} ${response.payload.slice(0, 500)}`
          if (response.statusCode >= 500 || ms > SLOW_MS || (response.statusCode >= 400 && INSIDE.test(response.payload)))
            throw new Error(`${Math.round(ms)} ms ${what}`)
          if (!Object.hasOwn(operation.responses, response.statusCode) && response.statusCode !== 404)
            throw new Error(`not in the document: ${what}`)
          if (response.headers['x-content-type-options'] !== 'nosniff' || response.headers['x-request-id'] === undefined)
            throw new Error(`headers: ${what}`)
          statuses.set(response.statusCode, (statuses.get(response.statusCode) ?? 0) + 1)
          sent++
        }),
      )
  }
  expect(sent).toBeGreaterThanOrEqual(RUNS)
  // the requests were not all noise: many came through
  expect(statuses.get(200) ?? 0).toBeGreaterThan(RUNS / 10)
  if (process.env['FIGURES'] !== undefined) process.stdout.write(`${sent} requests: ${JSON.stringify(Object.fromEntries(statuses))}\n`)
})
