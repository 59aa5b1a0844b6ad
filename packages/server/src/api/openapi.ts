/**
 * OpenAPI 3.1 of the relay (G21): made of the rows of `routes.ts`, the contracts that validate, and the table of problems; so it
 * cannot say anything that the router does not do.
 */
import { type ErrorCode, ERROR, ROUTES, type Route, type RouteName } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from '../http/contract.ts'
import { problemsOf } from '../http/contract.ts'
import { CONTRACTS } from '../http/contracts.ts'
import { encodeProblem, PROBLEM_TYPE, type ProblemCode } from '../http/problems.ts'
import { VERSION } from '../version.ts'

export type OpenApi = {
  openapi: '3.1.0'
  info: object
  servers: object[]
  tags: { name: string; description: string }[]
  paths: Record<string, Record<string, Operation>>
  components: { securitySchemes: object; schemas: Record<string, object>; headers: Record<string, object> }
}

export type Operation = {
  operationId: RouteName
  tags: string[]
  summary: string
  description: string
  security: object[]
  parameters?: Parameter[]
  requestBody?: { required: true; content: Record<string, { schema: object; example?: unknown }> }
  responses: Record<string, Response>
}
type Parameter = {
  name: string
  in: 'path' | 'query' | 'header'
  required: boolean
  schema: object
  description?: string
  example?: unknown
}
type Response = {
  description: string
  headers: object
  content?: Record<string, { schema?: object; example?: unknown; examples?: object }>
}

const TAGS = {
  Server: 'What the server is and how it is.',
  Tokens: 'Who asks: assertions in, tokens out.',
  'Device log': 'The signed list of devices.',
  Devices: 'The devices of the account, and who is connected.',
  Account: 'Figures, export and end of the account.',
  Events: 'Reading, sending and following events without a socket.',
  Pairing: 'The mailbox through which a new device comes in.',
  Documents: 'This document and its companions.',
} as const

const TAG_OF: Record<RouteName, keyof typeof TAGS> = {
  read_server: 'Server',
  read_jwks: 'Tokens',
  append_log: 'Device log',
  read_log: 'Device log',
  create_token: 'Tokens',
  refresh_token: 'Tokens',
  logout: 'Tokens',
  list_devices: 'Devices',
  read_device: 'Devices',
  rename_device: 'Devices',
  revoke_device: 'Devices',
  read_connection_status: 'Devices',
  read_user: 'Account',
  delete_user: 'Account',
  export_user: 'Account',
  read_events: 'Events',
  append_events: 'Events',
  take_session: 'Events',
  follow_events: 'Events',
  put_offer: 'Pairing',
  put_join: 'Pairing',
  put_reveal: 'Pairing',
  put_done: 'Pairing',
  read_slot: 'Pairing',
  live: 'Server',
  ready: 'Server',
  read_openapi: 'Documents',
  read_asyncapi: 'Documents',
  read_docs: 'Documents',
  read_docs_file: 'Documents',
}

const AUTH = {
  none: 'Open to all.',
  assertion: 'The signature in the body says who asks: a device assertion, good for one request.',
  token: 'Asks for an access token of an active device.',
} as const

const REQUEST_ID = '3f1c1d0a-7f0e-4f5e-9a55-0c7d3f6f4f3b'
const RETRY_MS = 1_500

export function makeOpenApi(): OpenApi {
  const paths: OpenApi['paths'] = {}
  for (const [name, row] of Object.entries(ROUTES) as [RouteName, Route][]) {
    const path = (paths[row.path] ??= {})
    path[row.method.toLowerCase()] = toOperation(name, row, CONTRACTS[name])
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Sealpost',
      version: VERSION,
      summary: 'End-to-end encrypted event relay.',
      description:
        'What a relay offers beside its socket (see `/asyncapi.json`). Times are milliseconds since 1970, binary is base64url without padding, ' +
        'refusals are RFC 9457 problems with a stable `code`. The server never sees a payload in clear.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/', description: 'This relay.' }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    paths,
    components: {
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'An access token of `create_token`, for 10 minutes.' },
      },
      schemas: { Problem: toSchema(problem, 'output') },
      headers: {
        'x-request-id': {
          description: 'Names this request in the log of the server; the one that was sent, if it is well formed.',
          schema: { type: 'string', pattern: '^[A-Za-z0-9._-]{8,128}$' },
        },
        'retry-after': { description: 'Seconds to wait before the next try.', schema: { type: 'integer', minimum: 1 } },
        'www-authenticate': { description: 'The scheme of credentials.', schema: { type: 'string' } },
      },
    },
  }
}

/** RFC 9457; further members depend on the code. */
const problem = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.number().int(),
  code: z.string().regex(/^[a-z_]{1,64}$/),
  detail: z.string().optional(),
  request_id: z.string(),
  retry_after_ms: z.number().int().min(1).optional(),
})

function toOperation(name: RouteName, row: Route, contract: Contract): Operation {
  const parameters = [
    ...toParameters('path', contract.params, contract.example?.params),
    ...toParameters('query', contract.query, contract.example?.query),
    ...toParameters('header', contract.headers, contract.example?.headers),
  ]
  const bound = row.body === 'none' ? '' : ` The body has at most ${row.bodyBytesMax} bytes.`
  const again = row.again === undefined ? '' : ` When the answer was lost: ${row.again}`
  return {
    operationId: name,
    tags: [TAG_OF[name]],
    summary: row.says,
    description: `${AUTH[row.auth]}${bound}${again}`,
    security: row.auth === 'token' ? [{ token: [] }] : [],
    ...(parameters.length === 0 ? {} : { parameters }),
    ...toRequestBody(row, contract),
    responses: { [contract.answer.status]: toAnswer(contract), ...toProblems(problemsOf(row, contract)) },
  }
}

function toRequestBody(row: Route, contract: Contract): Pick<Operation, 'requestBody'> {
  if (row.body === 'bytes')
    return { requestBody: { required: true, content: { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } } } }
  if (contract.body === undefined) return {}
  return {
    requestBody: {
      required: true,
      content: { 'application/json': { schema: toSchema(contract.body, 'input'), example: contract.example?.body } },
    },
  }
}

function toParameters(place: Parameter['in'], schema: z.ZodObject | undefined, example: Record<string, string> | undefined): Parameter[] {
  if (schema === undefined) return []
  const { properties = {}, required = [] } = toSchema(schema, 'input') as {
    properties?: Record<string, { description?: string }>
    required?: string[]
  }
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    name,
    in: place,
    required: place === 'path' || required.includes(name),
    schema: rest,
    ...(description === undefined ? {} : { description }),
    ...(example?.[name] === undefined ? {} : { example: example[name] }),
  }))
}

function toAnswer({ answer }: Contract): Response {
  const headers = Object.fromEntries(
    Object.entries(answer.headers ?? {}).map(([name, description]) => [name, { description, schema: { type: 'string' } }]),
  )
  const known = { headers: { 'x-request-id': { $ref: '#/components/headers/x-request-id' }, ...headers } }
  if (answer.status === 204) return { description: 'Done.', ...known }
  const content =
    answer.schema === undefined
      ? { schema: { type: 'string', ...(answer.media === 'application/octet-stream' ? { format: 'binary' } : {}) } }
      : { schema: toSchema(answer.schema, 'output') }
  const example = answer.example === undefined ? {} : { example: answer.example }
  return {
    description: 'The answer.',
    ...known,
    content: Object.fromEntries([answer.media, ...(answer.also ?? [])].map((media) => [media, { ...content, ...example }])),
  }
}

/** Codes that share a status are examples of one response. */
function toProblems(codes: readonly ProblemCode[]): Record<string, Response> {
  const responses: Record<string, Response> = {}
  const byStatus = new Map<number, ProblemCode[]>()
  for (const code of codes) {
    const { status } = encodeProblem({ code }, REQUEST_ID)
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  for (const [status, same] of [...byStatus].sort(([a], [b]) => a - b)) {
    const examples = Object.fromEntries(
      same.map((code) => [code, { summary: ERROR[code satisfies ErrorCode], value: encodeProblem(exampleOf(code), REQUEST_ID).body }]),
    )
    const named = ['x-request-id', ...(same.some(waits) ? ['retry-after'] : []), ...(status === 401 ? ['www-authenticate'] : [])]
    responses[status] = {
      description: same.map((code) => `\`${code}\`: ${ERROR[code]}`).join(' '),
      headers: Object.fromEntries(named.map((header) => [header, { $ref: `#/components/headers/${header}` }])),
      content: { [PROBLEM_TYPE]: { schema: { $ref: '#/components/schemas/Problem' }, examples } },
    }
  }
  return responses
}

function waits(code: ProblemCode): boolean {
  return code === 'rate_limited' || code === 'overloaded'
}

function exampleOf(code: ProblemCode): { code: ProblemCode; retry_after_ms?: number } {
  return waits(code) ? { code, retry_after_ms: RETRY_MS } : { code }
}

function toSchema(schema: z.ZodType, io: 'input' | 'output'): object {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { target: 'draft-2020-12', io, unrepresentable: 'any' })
  return json
}
