/** Every bound in the OpenAPI document is the one that the router keeps: at it a request is taken, one beyond it is refused (G21). */
import { type Route, type RouteName, ROUTES } from '@sealpost/protocol'
import { beforeAll, describe, expect, it } from 'vitest'
import { useEventServer } from '@sealpost/testing/relays/event-server'
import { makeOpenApi } from './openapi.ts'
import type { Operation, Parameter } from './operations.ts'

type Schema = { [keyword: string]: unknown }
/** A value with a number at a bound or one beyond it. */
type Edge = { value: unknown; fits: boolean; says: string }
type Place = { in: Parameter['in'] | 'body' | 'bytes'; path: (string | number)[]; edge: Edge }

/** What is said of bytes that are too few, and of numbers that are too large for every body. */
const SEALED = 'a slot holds sealed bytes, sent as application/octet-stream'
const NO_JSON = 'the body is not the JSON that is taken here'
const server = useEventServer()
const openapi = makeOpenApi()
const operations = Object.values(openapi.paths).flatMap((methods) => Object.values(methods))
let token = ''

beforeAll(async () => {
  const account = await server.account(1)
  token = await server.token(account)
  // a slot that is filled is answered at once, however long one would wait
  const mailbox = String(exampleOf(operations.find(({ operationId }) => operationId === 'read_slot')!, 'mailbox_id'))
  const body = new Uint8Array(40)
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/octet-stream' }
  const put = await fetch(`${server.url}/api/pairing/${mailbox}/offer`, { method: 'PUT', headers, body })
  expect(put.status).toBe(204)
})

function exampleOf(operation: Operation, name: string): unknown {
  return operation.parameters?.find((one) => one.name === name)?.example
}

/** At each bound of this schema itself, and one beyond. `of` makes a value of a size. */
function edges(schema: Schema, low: string, high: string, of: (size: number) => unknown): Edge[] {
  const edge = (size: number, fits: boolean, keyword: string): Edge => ({
    value: of(size),
    fits,
    says: `${keyword} ${String(schema[keyword])}: ${size}`,
  })
  const [min, max] = [schema[low], schema[high]]
  return [
    ...(typeof min === 'number' ? [edge(min, true, low), ...(min > 0 || low === 'minimum' ? [edge(min - 1, false, low)] : [])] : []),
    ...(typeof max === 'number' ? [edge(max, true, high), edge(max + 1, false, high)] : []),
  ]
}

function edgesOf(schema: Schema, example: unknown): Edge[] {
  const some = (size: number): string => 'a'.repeat(size)
  switch (schema['type']) {
    case 'integer':
      return edges(schema, 'minimum', 'maximum', (size) => size)
    case 'string': {
      const repeated = /^\^\[[^\]]+\]\{(\d+)(?:,(\d+))?\}\$$/.exec(String(schema['pattern']))
      const counts = repeated === null ? {} : { minLength: Number(repeated[1]), maxLength: Number(repeated[2] ?? repeated[1]) }
      return edges({ ...schema, ...counts }, 'minLength', 'maxLength', some)
    }
    case 'array':
      return edges(schema, 'minItems', 'maxItems', (size) => Array.from({ length: size }, () => (example as unknown[])[0]))
    default:
      return edges(schema, 'minProperties', 'maxProperties', (size) =>
        Object.fromEntries(
          Array.from({ length: size }, (_, i) => [
            `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`,
            Object.values(example as object)[0],
          ]),
        ),
      )
  }
}

/** The edges of a schema and of all within it. */
function* walk(schema: Schema, example: unknown, path: (string | number)[]): Iterable<{ path: (string | number)[]; edge: Edge }> {
  for (const alternative of (schema['anyOf'] ?? []) as Schema[]) yield* walk(alternative, example, path)
  for (const edge of edgesOf(schema, example)) yield { path, edge }
  for (const [name, inner] of Object.entries((schema['properties'] ?? {}) as Record<string, Schema>))
    yield* walk(inner, (example as Record<string, unknown> | undefined)?.[name], [...path, name])
  if (schema['type'] === 'array') yield* walk(schema['items'] as Schema, (example as unknown[])[0], [...path, 0])
}

function placesOf({ parameters = [], requestBody }: Operation): Place[] {
  const ofParameters = parameters.flatMap(({ name, in: place, schema, example }) =>
    [...walk(schema as Schema, example, [name])].map(({ path, edge }): Place => ({ in: place, path, edge })),
  )
  const { 'application/json': json, 'application/octet-stream': bytes } = requestBody?.content ?? {}
  const ofJson =
    json === undefined
      ? []
      : [...walk(json.schema as Schema, json.example, [])].map(({ path, edge }): Place => ({ in: 'body', path, edge }))
  const ofBytes = bytes === undefined ? [] : edgesOf(bytes.schema as Schema, '').map((edge): Place => ({ in: 'bytes', path: [], edge }))
  return [...ofParameters, ...ofJson, ...ofBytes]
}

function withValue(value: unknown, [first, ...rest]: readonly (string | number)[], member: unknown): unknown {
  if (first === undefined) return member
  if (Array.isArray(value)) return value.map((one, i) => (i === first ? withValue(one, rest, member) : one))
  return { ...(value as object), [first]: withValue((value as Record<string, unknown>)[first], rest, member) }
}

type Answer = { status: number; code?: string; detail?: string }

/** The example of an operation, but for the one place. */
async function send(operation: Operation, { in: where, path, edge: { value } }: Place): Promise<Answer> {
  const row: Route = ROUTES[operation.operationId as RouteName]
  const name = String(path[0])
  const valueOf = (key: string): string => String(where === 'path' && key === name ? value : exampleOf(operation, key))
  const url = row.path.replace(/\{(\w+)\}/g, (_, key: string) => encodeURIComponent(valueOf(key)))
  const leaving = new AbortController()
  const headers: Record<string, string> = { authorization: `Bearer ${token}`, ...(where === 'header' ? { [name]: String(value) } : {}) }
  if (row.body !== 'none') headers['content-type'] = row.body === 'json' ? 'application/json' : 'application/octet-stream'
  const response = await fetch(`${server.url}${url}${where === 'query' ? `?${name}=${String(value)}` : ''}`, {
    method: row.method,
    headers,
    ...(row.body === 'none' ? {} : { body: bodyOf(operation, where, path, value) }),
    signal: leaving.signal,
  })
  const problem = response.headers.get('content-type')?.includes('problem') === true ? ((await response.json()) as object) : {}
  leaving.abort()
  return { status: response.status, ...problem }
}

function bodyOf({ requestBody }: Operation, where: Place['in'], path: Place['path'], value: unknown): string {
  const json = requestBody?.content['application/json']
  if (json === undefined) return where === 'bytes' ? String(value) : 'a'.repeat(40)
  return JSON.stringify(where === 'body' ? withValue(json.example, path, value) : json.example)
}

const bounded = operations.map((operation) => ({ operation, places: placesOf(operation) })).filter(({ places }) => places.length > 0)

describe('bounds of the document', () => {
  it('are found: those of queries, headers, paths, members of bodies, their boxes and their bytes', () => {
    const found = bounded.flatMap(({ operation, places }) =>
      places.map(({ path, edge }) => `${operation.operationId} ${path.join('.')} ${edge.says}`),
    )
    for (const one of [
      'read_events limit maximum 1000: 1001',
      'read_slot wait maximum 25: 26',
      'append_log boxes maxProperties 64: 65',
      'append_events events maxItems 256: 257',
      'append_events events.0.ttl minimum 1: 0',
      'follow_events last-event-id maxLength 256: 257',
      'put_join  minLength 28: 27',
      'put_join  maxLength 4096: 4097',
    ])
      expect(found).toContain(one)
  })

  it.each(bounded.map(({ operation, places }) => [operation.operationId, operation, places] as const))(
    '%s',
    async (_, operation, places) => {
      for (const place of places) {
        const answer = await send(operation, place)
        const what = `${place.in} ${place.path.join('.')} ${place.edge.says} → ${JSON.stringify(answer)}`
        // what is taken may still be refused for what it says
        const shapes = [undefined, 'the request is not valid', `${place.path.join('.')} is missing or not valid`, SEALED, NO_JSON]
        const isRefused = answer.code === 'too_large' || (answer.code === 'invalid_request' && shapes.includes(answer.detail))
        expect(isRefused, what).toBe(!place.edge.fits)
      }
    },
  )

  it('256 streams may be named, and no more', async () => {
    const ask = async (count: number): Promise<number> => {
      const streams = Array.from({ length: count }, (_, i) => `s${i}`).join(',')
      return (await fetch(`${server.url}/api/events?streams=${streams}`, { headers: { authorization: `Bearer ${token}` } })).status
    }
    expect([await ask(256), await ask(257)]).toEqual([200, 400])
  })
})
