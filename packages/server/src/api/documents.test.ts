import spec from '@asyncapi/specs'
import { createConfig, lintFromString } from '@redocly/openapi-core'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { Ajv } from 'ajv'
import addFormats from 'ajv-formats'
import {
  ADMIN_ROUTES,
  CLIENT_MESSAGES,
  decodeAcks,
  decodeClientMessage,
  decodeRecords,
  decodeServerMessage,
  type Route,
  ROUTES,
  SERVER_MESSAGES,
} from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { CONTRACTS as ADMIN_CONTRACTS } from '../admin/contracts.ts'
import type { Contract } from '../http/contract.ts'
import { CONTRACTS } from '../http/contracts.ts'
import { itemsOf } from '@sealpost/testing/contracts/rest-contract'
import { makeAdminOpenApi } from './admin-openapi.ts'
import { makeAsyncApi } from './asyncapi.ts'
import { makeOpenApi } from './openapi.ts'
import type { Content } from './operations.ts'

const APIS = [
  { of: 'devices', openapi: makeOpenApi(), routes: ROUTES, contracts: CONTRACTS },
  { of: 'admins', openapi: makeAdminOpenApi(), routes: ADMIN_ROUTES, contracts: ADMIN_CONTRACTS },
] as const satisfies { routes: Record<string, Route>; contracts: Record<string, Contract>; [other: string]: unknown }[]

async function lint(document: object, rules: object): Promise<string[]> {
  const config = await createConfig({ extends: ['recommended-strict'], rules: rules as Record<string, 'error'> })
  const problems = await lintFromString({ source: JSON.stringify(document), config })
  return problems.map(({ message, ruleId, location }) => `${ruleId}: ${message} at ${location[0]?.pointer ?? ''}`)
}

describe.each(APIS)('G21, G24: OpenAPI of what $of reach', ({ openapi, ...api }) => {
  const operations = Object.values(openapi.paths).flatMap((path) => Object.values(path))
  const routes = Object.entries<Route>(api.routes)
  const contracts = Object.entries<Contract>(api.contracts)

  it('has every route, once, and nothing else', () => {
    expect(operations.map((operation) => operation.operationId).toSorted()).toEqual(routes.map(([name]) => name).toSorted())
    for (const [name, row] of routes) expect(openapi.paths[row.path]?.[row.method.toLowerCase()]?.operationId).toBe(name)
  })

  it('passes the linter', async () => {
    expect(await lint(openapi, { 'parameter-description': 'error' })).toEqual([])
  })

  const ajv = new Ajv2020({ strict: false })
  addFormats.default(ajv)
  ajv.addSchema(openapi.components.schemas['Problem']!, '#/components/schemas/Problem')
  const check = (schema: object, example: unknown, at: string): void => {
    expect(example, `${at} has no example`).toBeDefined()
    expect(ajv.validate(schema, example), `${at}: ${ajv.errorsText()}`).toBe(true)
  }

  function checkContent({ schema, example, examples = {}, ...content }: Content, at: string): void {
    const values = Object.values(examples).map(({ value }: { value: unknown }) => value)
    const all = example === undefined ? values : [example, ...values]
    expect(all.length, `${at} has no example`).toBeGreaterThan(0)
    for (const one of all) check(schema, one, at)
    const item: { anyOf?: object[]; oneOf?: object[] } | undefined = content['x-item-schema']
    if (item === undefined) return
    const items = itemsOf(at, String(example))
    for (const one of items) check(item, one, `${at}: ${JSON.stringify(one)}`)
    for (const kind of item.anyOf ?? item.oneOf ?? [])
      expect(
        items.some((one) => ajv.validate(kind, one)),
        `${at} shows no ${JSON.stringify(kind).slice(0, 200)}`,
      ).toBe(true)
  }

  it.each(operations.map((operation) => [operation.operationId, operation] as const))(
    '%s: every body, parameter, answer and refusal has an example that its own schema takes',
    (_, operation) => {
      for (const [media, content] of Object.entries(operation.requestBody?.content ?? {})) checkContent(content, media)
      for (const { name, schema, example } of operation.parameters ?? []) check(schema, example, name)
      for (const [status, response] of Object.entries(operation.responses))
        for (const [media, content] of Object.entries(response.content ?? {})) {
          checkContent(content, media)
          if (media !== 'application/problem+json') continue
          const refusals = Object.entries(content.examples ?? {}) as [string, { value: { code: string; status: number } }][]
          for (const [code, { value }] of refusals) expect([value.code, String(value.status)]).toEqual([code, status])
        }
    },
  )

  it('each route that changes something says why it may be sent again', () => {
    for (const [name, row] of routes) if (row.method !== 'GET') expect('again' in row, name).toBe(true)
  })

  it('its examples are what the router takes', () => {
    for (const [name, { body, query, params, headers, example = {} }] of contracts) {
      const asText = Object.fromEntries(Object.entries(example.query ?? {}).map(([member, value]) => [member, String(value)]))
      expect(() => body?.parse(example.body), `${name}: body`).not.toThrow()
      expect(() => query?.parse(asText), `${name}: query`).not.toThrow()
      expect(() => params?.parse(example.params), `${name}: params`).not.toThrow()
      expect(() => headers?.parse(example.headers), `${name}: headers`).not.toThrow()
    }
  })
})

describe('G21: AsyncAPI', () => {
  type Message = {
    name: string
    payload: { properties: Record<string, { enum?: string[] }> }
    examples: { payload: { [member: string]: unknown } }[]
    'x-message'?: string
    'x-body'?: { $ref: string }
  }
  const asyncapi = makeAsyncApi() as { components: { messages: Record<string, Message>; schemas: Record<string, { examples: string[] }> } }
  const all = Object.entries(asyncapi.components.messages)

  it('is AsyncAPI 3.0.0 by its own schema', () => {
    const ajv = new Ajv({ strict: false, validateFormats: false, logger: false })
    const schema = structuredClone(spec.schemasWithoutId['3.0.0']) as object
    expect(ajv.validate(schema, asyncapi), ajv.errorsText()).toBe(true)
  })

  it('passes the linter', async () => {
    expect(await lint(asyncapi, {})).toEqual([])
  })

  it('has every message of both directions, with examples that its own schema takes', () => {
    const ajv = new Ajv2020({ strict: false })
    expect(all.map(([, { name }]) => name).toSorted()).toEqual(
      [...Object.keys(CLIENT_MESSAGES), ...Object.keys(SERVER_MESSAGES)].toSorted(),
    )
    for (const [name, { payload, examples }] of all) {
      expect(examples.length).toBeGreaterThan(0)
      for (const example of examples) expect(ajv.validate(payload, example.payload), `${name}: ${ajv.errorsText()}`).toBe(true)
    }
  })

  it.each(
    Object.entries(SERVER_MESSAGES).flatMap(([type, row]) =>
      'values' in row
        ? Object.entries(row.values).map(([field, values]): [string, string, string[]] => [type, field, Object.keys(values)])
        : [],
    ),
  )('%s shows each %s', (type, field, values) => {
    const { payload, examples } = asyncapi.components.messages[`server_${type}`]!
    expect(payload.properties[field]?.enum).toEqual(values)
    expect(examples.map((example) => example.payload[field]).filter((value) => value !== undefined)).toEqual(values)
  })

  it('no field of a code is without its list', () => {
    for (const [name, { head, ...row }] of Object.entries(SERVER_MESSAGES))
      for (const [field, kind] of Object.entries(head))
        if (typeof kind === 'string' && /^code\b/.test(kind)) expect('values' in row && field in row.values, `${name}.${field}`).toBe(true)
  })

  it('bodies are shown as bytes that the decoders take', () => {
    const shown = new Set<string>()
    for (const [name, { 'x-message': text, 'x-body': body, examples }] of all) {
      const rows: Record<string, { body: string }> = name.startsWith('client_') ? CLIENT_MESSAGES : SERVER_MESSAGES
      const { body: kind } = rows[asyncapi.components.messages[name]!.name]!
      expect(body === undefined, name).toBe(kind === 'none')
      if (text === undefined) continue
      const bytes = Buffer.from(text, 'base64')
      const decoded = name.startsWith('client_') ? decodeClientMessage(bytes) : decodeServerMessage(bytes)
      expect(decoded.head).toEqual(examples[0]?.payload)
      expect(body?.$ref).toBe(`#/components/schemas/${kind}`)
      expect(kind === 'acks' ? decodeAcks(decoded.body) : decodeRecords(decoded.body)).toHaveLength(1)
      shown.add(Buffer.from(decoded.body).toString('base64'))
    }
    expect([...shown].toSorted()).toEqual(
      Object.values(asyncapi.components.schemas)
        .flatMap(({ examples }) => examples)
        .toSorted(),
    )
  })
})
