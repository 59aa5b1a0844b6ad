/** One route as an operation of OpenAPI: its row, its contract and its refusals, with an example of each. */
import { ERROR, type ErrorCode, LOG_RESULT, type Route } from '@sealpost/protocol'
import { z } from 'zod'
import { type Contract, EVERY_ANSWER, problemsOf } from '../http/contract.ts'
import { LOG_HEAD } from '../http/examples.ts'
import { encodeProblem, PROBLEM_TYPE, type Problem, type ProblemCode } from '../http/problems.ts'

export type Operation = {
  operationId: string
  tags: string[]
  summary: string
  description: string
  security: object[]
  parameters?: Parameter[]
  requestBody?: { required: true; content: Record<string, Content> }
  responses: Record<string, Response>
}

/** `x-item-schema`: of what comes piece by piece, as `itemSchema` of later versions of OpenAPI. */
export type Content = { schema: object; 'x-item-schema'?: object; example?: unknown; examples?: object }
export type Parameter = {
  name: string
  in: 'path' | 'query' | 'header'
  required: boolean
  schema: object
  description?: string
  example?: unknown
}
type Response = { description: string; headers: object; content?: Record<string, Content> }

/** What the credentials of a list of routes are called. */
export type Asks = { assertion: string; token: string }

function describeAuth(row: Route, asks: Asks): string {
  if (row.auth === 'none') return 'Open to all.'
  if (row.auth === 'assertion') return `The signature in the body says who asks: ${asks.assertion}, good for one request.`
  const role = 'role' in row && typeof row.role === 'string' ? ` in the role ${row.role} or above` : ''
  return `Asks for ${asks.token}${role}.`
}

const REQUEST_ID = '3f1c1d0a-7f0e-4f5e-9a55-0c7d3f6f4f3b'
const RETRY_MS = 1_500

export function toOperation(name: string, tag: string, row: Route, contract: Contract, asks: Asks): Operation {
  const parameters = [
    ...toParameters('path', contract.params, contract.example?.params),
    ...toParameters('query', contract.query, contract.example?.query),
    ...toParameters('header', contract.headers, contract.example?.headers),
  ]
  const bound = row.body === 'none' ? '' : ` The body has at most ${row.bodyBytesMax} bytes.`
  const again = row.again === undefined ? '' : ` When the answer was lost: ${row.again}`
  return {
    operationId: name,
    tags: [tag],
    summary: row.says,
    description: `${describeAuth(row, asks)}${bound}${again}`,
    security: row.auth === 'token' ? [{ token: [] }] : [],
    ...(parameters.length === 0 ? {} : { parameters }),
    ...toRequestBody(row, contract),
    responses: { ...toAnswers(contract), ...toProblems(problemsOf(row, contract)) },
  }
}

export function toSchema(schema: z.ZodType, io: 'input' | 'output'): object {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { target: 'draft-2020-12', io, unrepresentable: 'any' })
  return json
}

function toRequestBody(row: Route, { body, bytesMin = 0, example }: Contract): Pick<Operation, 'requestBody'> {
  if (row.body === 'bytes') return { requestBody: { required: true, content: binary(bytesMin, row.bodyBytesMax, example?.body) } }
  if (body === undefined) return {}
  return { requestBody: { required: true, content: { 'application/json': { schema: toSchema(body, 'input'), example: example?.body } } } }
}

function binary(minLength: number, maxLength: number, example: unknown): Record<string, Content> {
  const summary = 'One character stands for each byte.'
  return {
    'application/octet-stream': {
      schema: { type: 'string', format: 'binary', minLength, maxLength },
      examples: { bytes: { summary, value: example } },
    },
  }
}

function toParameters(
  place: Parameter['in'],
  schema: z.ZodObject | undefined,
  example: Readonly<Record<string, unknown>> = {},
): Parameter[] {
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
    example: example[name],
  }))
}

function toAnswers({ answer }: Contract): Record<string, Response> {
  const own = Object.fromEntries(
    Object.entries(answer.headers ?? {}).map(([name, description]) => [name, { description, schema: { type: 'string' } }]),
  )
  const headers = { ...headerLinks(Object.keys(EVERY_ANSWER)), ...own }
  const unchanged = answer.conditional === true ? { 304: { description: 'The caller has it already.', headers } } : {}
  if (answer.status === 204) return { 204: { description: 'Done.', headers } }
  return { [answer.status]: { description: 'The answer.', headers, content: toContent(answer) }, ...unchanged }
}

function toContent({ media, also = [], schema, bytes, item, example }: Contract['answer']): Record<string, Content> {
  if (bytes !== undefined) return binary(...bytes, example)
  const content: Content = {
    schema: schema === undefined ? { type: 'string' } : toSchema(schema, 'output'),
    ...(item === undefined ? {} : { 'x-item-schema': toSchema(item, 'output') }),
    example,
  }
  return Object.fromEntries([media, ...also].map((one) => [one, content]))
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
    const named = [...(same.some(waits) ? ['retry-after'] : []), ...(status === 401 ? ['www-authenticate'] : [])]
    responses[status] = {
      description: same.map((code) => `\`${code}\`: ${ERROR[code]}`).join(' '),
      headers: headerLinks([...Object.keys(EVERY_ANSWER), ...named]),
      content: { [PROBLEM_TYPE]: { schema: { $ref: '#/components/schemas/Problem' }, examples } },
    }
  }
  return responses
}

function headerLinks(names: readonly string[]): object {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))
}

function waits(code: ProblemCode): boolean {
  return code === 'rate_limited' || code === 'overloaded'
}

/** A refused entry tells where the log stands. */
function exampleOf(code: ProblemCode): Problem {
  if (waits(code)) return { code, retry_after_ms: RETRY_MS }
  return Object.hasOwn(LOG_RESULT, code) ? { code, extra: { log_seq: 2, log_head: LOG_HEAD } } : { code }
}
