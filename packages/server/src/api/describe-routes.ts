/**
 * OpenAPI 3.1 of a list of routes (G21): made of its rows, the contracts that validate, and the table of problems; so it cannot say
 * anything that the router does not do.
 */
import type { Route } from '@sealpost/protocol'
import { z } from 'zod'
import { type Contract, EVERY_ANSWER, problemsOf } from '../http/contract.ts'
import { count, key } from '../http/fields.ts'
import type { ProblemCode } from '../http/problems.ts'
import { VERSION } from '../telemetry/version.ts'
import { type Asks, type Operation, toOperation, toSchema } from './operations.ts'

export type OpenApi = {
  openapi: '3.1.0'
  info: object
  servers: object[]
  tags: { name: string; description: string }[]
  paths: Record<string, Record<string, Operation>>
  components: { securitySchemes: object; schemas: Record<string, object>; headers: Record<string, object> }
}

export type RoutesToDescribe<N extends string, T extends string> = {
  title: string
  summary: string
  description: string
  /** What the token is, and how one comes by it. */
  token: string
  tags: Readonly<Record<T, string>>
  tagOf: Readonly<Record<N, T>>
  routes: Readonly<Record<N, Route>>
  contracts: Readonly<Record<N, Contract>>
  asks: Asks
}

/** How values are written in all of REST. */
export const FORMS =
  'Times are milliseconds since 1970, binary in JSON is base64url without padding and with spare bits of zero, whole numbers in a query are ' +
  'digits without a leading zero, refusals are RFC 9457 problems with a stable `code`.'

export function describeRoutes<N extends string, T extends string>(of: RoutesToDescribe<N, T>): OpenApi {
  const paths: OpenApi['paths'] = {}
  const rows = Object.entries(of.routes) as [N, Route][]
  for (const [name, row] of rows) {
    const path = (paths[row.path] ??= {})
    path[row.method.toLowerCase()] = toOperation(name, of.tagOf[name], row, of.contracts[name], of.asks)
  }
  const codes = new Set(rows.flatMap(([name, row]) => problemsOf(row, of.contracts[name])))
  return {
    openapi: '3.1.0',
    info: {
      title: of.title,
      version: VERSION,
      summary: of.summary,
      description: of.description,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/', description: 'This relay.' }],
    tags: (Object.entries(of.tags) as [T, string][]).map(([name, description]) => ({ name, description })),
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: of.token } },
      schemas: { Problem: toSchema(problemWith([...codes] as [ProblemCode, ...ProblemCode[]]), 'output') },
      headers: {
        ...Object.fromEntries(
          Object.entries(EVERY_ANSWER).map(([name, description]) => [name, { description, schema: { type: 'string' } }]),
        ),
        'retry-after': { description: 'Seconds to wait before the next try.', schema: { type: 'integer', minimum: 1 } },
        'www-authenticate': { description: 'The scheme of credentials.', schema: { type: 'string' } },
      },
    },
  }
}

/** RFC 9457; a reader ignores members that it does not know. */
const problemWith = (codes: [ProblemCode, ...ProblemCode[]]) =>
  z.looseObject({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    code: z.enum(codes),
    detail: z.string().optional(),
    request_id: z.string(),
    retry_after_ms: z.number().int().min(1).optional(),
    log_seq: count.optional().describe('Of an entry that was not appended: where the device log stands.'),
    log_head: key.optional().describe('The same, as the hash of its newest entry.'),
  })
