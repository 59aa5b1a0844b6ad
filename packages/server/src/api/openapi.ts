/**
 * OpenAPI 3.1 of the relay (G21): made of the rows of `routes.ts`, the contracts that validate, and the table of problems; so it
 * cannot say anything that the router does not do.
 */
import { ROUTES, type Route, type RouteName } from '@sealpost/protocol'
import { z } from 'zod'
import { EVERY_ANSWER, problemsOf } from '../http/contract.ts'
import { CONTRACTS } from '../http/contracts.ts'
import { count, key } from '../http/fields.ts'
import type { ProblemCode } from '../http/problems.ts'
import { VERSION } from '../version.ts'
import { type Operation, toOperation, toSchema } from './operations.ts'

export type OpenApi = {
  openapi: '3.1.0'
  info: object
  servers: object[]
  tags: { name: string; description: string }[]
  paths: Record<string, Record<string, Operation>>
  components: { securitySchemes: object; schemas: Record<string, object>; headers: Record<string, object> }
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

export function makeOpenApi(): OpenApi {
  const paths: OpenApi['paths'] = {}
  for (const [name, row] of Object.entries(ROUTES) as [RouteName, Route][]) {
    const path = (paths[row.path] ??= {})
    path[row.method.toLowerCase()] = toOperation(name, TAG_OF[name], row, CONTRACTS[name])
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Sealpost',
      version: VERSION,
      summary: 'End-to-end encrypted event relay.',
      description:
        'What a relay offers beside its socket (see `/asyncapi.json`). Times are milliseconds since 1970, binary in JSON is base64url without padding ' +
        'and with spare bits of zero, whole numbers in a query are digits without a leading zero, ' +
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
        ...Object.fromEntries(
          Object.entries(EVERY_ANSWER).map(([name, description]) => [name, { description, schema: { type: 'string' } }]),
        ),
        'retry-after': { description: 'Seconds to wait before the next try.', schema: { type: 'integer', minimum: 1 } },
        'www-authenticate': { description: 'The scheme of credentials.', schema: { type: 'string' } },
      },
    },
  }
}

const codes = new Set(Object.entries(ROUTES).flatMap(([name, row]) => problemsOf(row, CONTRACTS[name as RouteName])))

/** RFC 9457; a reader ignores members that it does not know. */
const problem = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.number().int(),
  code: z.enum([...codes] as [ProblemCode, ...ProblemCode[]]),
  detail: z.string().optional(),
  request_id: z.string(),
  retry_after_ms: z.number().int().min(1).optional(),
  log_seq: count.optional().describe('Of an entry that was not appended: where the device log stands.'),
  log_head: key.optional().describe('The same, as the hash of its newest entry.'),
})
