import spec from '@asyncapi/specs'
import { createConfig, lintFromString } from '@redocly/openapi-core'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { Ajv } from 'ajv'
import addFormats from 'ajv-formats'
import { CLIENT_MESSAGES, ROUTES, SERVER_MESSAGES } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { CONTRACTS } from '../http/contracts.ts'
import { makeAsyncApi } from './asyncapi.ts'
import { makeOpenApi } from './openapi.ts'

const openapi = makeOpenApi()
const operations = Object.values(openapi.paths).flatMap((path) => Object.values(path))

describe('G21: OpenAPI', () => {
  it('has every route, once, and nothing else', () => {
    expect(operations.map((operation) => operation.operationId).toSorted()).toEqual(Object.keys(ROUTES).toSorted())
    for (const [name, row] of Object.entries(ROUTES)) expect(openapi.paths[row.path]?.[row.method.toLowerCase()]?.operationId).toBe(name)
  })

  it('passes the linter', async () => {
    const config = await createConfig({ extends: ['recommended'], rules: { 'operation-4xx-response': 'off' } })
    const problems = await lintFromString({ source: JSON.stringify(openapi), config })
    expect(problems.map(({ message, ruleId, location }) => `${ruleId}: ${message} at ${location[0]?.pointer ?? ''}`)).toEqual([])
  })

  it.each(operations.map((operation) => [operation.operationId, operation] as const))(
    '%s: every body, parameter, answer and refusal has an example that its own schema takes',
    (_, operation) => {
      const ajv = new Ajv2020({ strict: false })
      addFormats.default(ajv)
      const check = (schema: object, example: unknown, at: string): void => {
        expect(example, `${at} has no example`).toBeDefined()
        expect(ajv.validate(schema, example), `${at}: ${ajv.errorsText()}`).toBe(true)
      }
      const json = operation.requestBody?.content['application/json']
      if (json !== undefined) check(json.schema, json.example, 'the body')
      for (const parameter of operation.parameters ?? []) {
        if (parameter.required || parameter.example !== undefined) check(parameter.schema, parameter.example, parameter.name)
      }
      for (const [status, response] of Object.entries(operation.responses))
        for (const [media, { schema, example, examples }] of Object.entries(response.content ?? {})) {
          if (media === 'application/problem+json') {
            const values = Object.values(examples ?? {}) as { value: { code: string; status: number } }[]
            expect(values.length).toBeGreaterThan(0)
            for (const { value } of values) {
              check(openapi.components.schemas['Problem']!, value, `${status} ${value.code}`)
              expect(String(value.status)).toBe(status)
            }
          } else if (media === 'application/json') check(schema!, example, `the answer ${status}`)
          else if (media !== 'application/octet-stream') expect(example, `the answer ${status} has no example`).toBeTypeOf('string')
        }
    },
  )

  it('each route that changes something says why it may be sent again', () => {
    for (const [name, row] of Object.entries(ROUTES)) if (row.method !== 'GET') expect('again' in row, name).toBe(true)
  })

  it('its examples are what the router takes', () => {
    for (const [name, contract] of Object.entries(CONTRACTS)) {
      const {
        body,
        query,
        params,
        example = {},
      } = contract as {
        body?: { parse(v: unknown): unknown }
        query?: { parse(v: unknown): unknown }
        params?: { parse(v: unknown): unknown }
        example?: { body?: unknown; query?: unknown; params?: unknown }
      }
      expect(() => body?.parse(example.body), `${name}: body`).not.toThrow()
      if (example.query !== undefined) expect(() => query?.parse(example.query), `${name}: query`).not.toThrow()
      expect(() => params?.parse(example.params), `${name}: params`).not.toThrow()
    }
  })
})

describe('G21: AsyncAPI', () => {
  const asyncapi = makeAsyncApi() as {
    components: { messages: Record<string, { name: string; payload: object; examples: { payload: unknown }[] }> }
  }

  it('is AsyncAPI 3.0.0 by its own schema', () => {
    const ajv = new Ajv({ strict: false, validateFormats: false, logger: false })
    const schema = structuredClone(spec.schemasWithoutId['3.0.0']) as object
    expect(ajv.validate(schema, asyncapi), ajv.errorsText()).toBe(true)
  })

  it('has every message of both directions, with an example that its own schema takes', () => {
    const ajv = new Ajv2020({ strict: false })
    const all = Object.values(asyncapi.components.messages)
    expect(all.map(({ name }) => name).toSorted()).toEqual([...Object.keys(CLIENT_MESSAGES), ...Object.keys(SERVER_MESSAGES)].toSorted())
    for (const { name, payload, examples } of all)
      expect(ajv.validate(payload, examples[0]?.payload), `${name}: ${ajv.errorsText()}`).toBe(true)
  })
})
