/**
 * The contract of REST, held against what a running server answers (G21): status, headers, media, body and every piece of a stream
 * have to be in the OpenAPI document. What was seen is kept, so that a test can ask what was not.
 */
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { expect } from 'vitest'
import type { OpenApi } from '../../../server/src/api/describe-routes.ts'
import { makeOpenApi } from '../../../server/src/api/openapi.ts'
import type { Content, Operation } from '../../../server/src/api/operations.ts'

export type Ask = {
  token?: string
  params?: Record<string, string>
  query?: string
  headers?: Record<string, string>
  json?: unknown
  bytes?: Uint8Array
  /** Of a stream that does not end by itself: it is left after its first message of this kind. */
  until?: string
  /** Told of each of its messages as it comes. */
  heard?: (item: Item) => void
}
// oxlint-disable-next-line typescript/no-explicit-any -- what an answer holds is what the tests look at
export type Answered = { status: number; body: any; text: string; headers: Headers; items: Item[]; outcome: string }
/** A line of NDJSON, or a message of an event stream with its data read. */
export type Item = { readonly kind?: string; readonly event?: string; readonly [member: string]: unknown }

/** What HTTP itself puts on an answer. */
const TRANSPORT = new Set(['connection', 'content-length', 'content-type', 'date', 'keep-alive', 'transfer-encoding'])

/** Of REST, or of another list of routes. */
export function createContract(openapi: OpenApi = makeOpenApi()) {
  const operations = new Map<string, { path: string; method: string; operation: Operation }>(
    Object.entries(openapi.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => [operation.operationId, { path, method, operation }]),
    ),
  )
  const ajv = new Ajv2020({ strict: false })
  addFormats.default(ajv)
  ajv.addSchema(openapi.components.schemas['Problem']!, '#/components/schemas/Problem')
  /** `operation outcome`: the status of a success, the code of a refusal, or the kind of a piece. */
  const seen = new Set<string>()

  /** Asks, checks, and tells the outcome: the status of a success, the code of a refusal. */
  async function tell(base: string, name: string, ask: Ask): Promise<Answered> {
    const { path, method, operation } = operations.get(name)!
    const { params = {}, query = '', json, bytes, token } = ask
    const url = `${base}${path.replace(/\{(\w+)\}/g, (_, key: string) => params[key] ?? '')}${query}`
    const body = bytes ?? (json === undefined ? undefined : JSON.stringify(json))
    const type = bytes === undefined ? 'application/json' : 'application/octet-stream'
    const leaving = new AbortController()
    const response = await fetch(url, {
      method: method.toUpperCase(),
      headers: {
        // of its own, so that none is left open when the server closes
        connection: 'close',
        ...(body === undefined ? {} : { 'content-type': type }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...ask.headers,
      },
      ...(body === undefined ? {} : { body: body as string }),
      signal: leaving.signal,
    })
    const media = (response.headers.get('content-type') ?? '').split(';')[0]!
    const text = media === 'text/event-stream' ? await readUntil(response, ask.until ?? 'retry', ask.heard) : await response.text()
    leaving.abort()
    const checked = check(name, operation, response, media, text)
    const outcome = response.status < 400 ? String(response.status) : (checked.body as { code: string }).code
    seen.add(`${name} ${outcome}`)
    return { ...checked, text, headers: response.headers, outcome }
  }

  /** The same; the outcome has to be the expected one. */
  async function drive(base: string, name: string, ask: Ask, expected: number | string): Promise<Answered> {
    const answered = await tell(base, name, ask)
    expect(answered.outcome, `${name}: ${answered.text.slice(0, 300)}`).toBe(String(expected))
    return answered
  }

  function check(
    name: string,
    operation: Operation,
    { status, headers }: Response,
    media: string,
    text: string,
  ): Pick<Answered, 'status' | 'body' | 'items'> {
    const described = operation.responses[status]
    expect(described, `${name} answers ${status}, which the document does not have: ${text.slice(0, 300)}`).toBeDefined()
    const known = Object.keys(described!.headers)
    for (const header of headers.keys())
      if (!TRANSPORT.has(header)) expect(known, `${name} ${status}: the header ${header} is not in the document`).toContain(header)
    for (const header of known)
      if (header !== 'retry-after' || text.includes('retry_after_ms'))
        expect(headers.get(header), `${name}: the header ${header}`).not.toBeNull()
    if (described!.content === undefined) {
      expect(text).toBe('')
      return { status, body: undefined, items: [] }
    }
    const content = described!.content[media]
    expect(content, `${name} answers ${media}, which the document does not have`).toBeDefined()
    const body: unknown = /[/+]json$/.test(media) ? JSON.parse(text) : text
    validate(content!.schema, body, `${name} ${status}`)
    if (status >= 400) expect(Object.keys(content!.examples ?? {}), name).toContain((body as { code: string }).code)
    const items = content!['x-item-schema'] === undefined ? [] : itemsOf(media, text)
    for (const item of items) {
      validate(content!['x-item-schema']!, item, `${name}: a piece`)
      seen.add(`${name} ${kindOf(item)}`)
    }
    return { status, body, items }
  }

  function validate(schema: object, value: unknown, at: string): void {
    expect(ajv.validate(schema, value), `${at}: ${ajv.errorsText()}\n${JSON.stringify(value).slice(0, 500)}`).toBe(true)
  }

  return {
    openapi,
    operations,
    seen,
    tell,
    drive,
    /** What of the document was not seen, of the outcomes that `counts` takes. */
    missing: (counts: (operation: string, outcome: string) => boolean): string[] =>
      [...operations].flatMap(([name, { operation }]) =>
        outcomesOf(operation)
          .filter((outcome) => counts(name, outcome) && !seen.has(`${name} ${outcome}`))
          .map((outcome) => `${name} ${outcome}`),
      ),
  }
}

export type ContractUnderTest = ReturnType<typeof createContract>

function outcomesOf(operation: Operation): string[] {
  return Object.entries(operation.responses).flatMap(([status, { content = {} }]) => {
    if (Number(status) >= 400) return Object.values(content).flatMap(({ examples = {} }) => Object.keys(examples))
    return [status, ...Object.values(content).flatMap(kindsOf)]
  })
}

/** The kinds of pieces that the document knows. */
function kindsOf(content: Content): string[] {
  type Kind = { properties: Record<string, { const?: string }> }
  const { anyOf, oneOf } = (content['x-item-schema'] ?? {}) as { anyOf?: Kind[]; oneOf?: Kind[] }
  return (anyOf ?? oneOf ?? []).map(({ properties }) => properties['kind']?.const ?? properties['event']?.const ?? 'retry')
}

function kindOf(item: Item): string {
  return item.kind ?? item.event ?? 'retry'
}

/** The pieces of a text, whole. */
export function itemsOf(media: string, text: string): Item[] {
  if (media === 'application/x-ndjson') {
    expect(text.endsWith('\n'), 'the last line ends').toBe(true)
    return text
      .slice(0, -1)
      .split('\n')
      .map((line) => JSON.parse(line) as Item)
  }
  const blocks = text.split('\n\n').slice(0, -1)
  return blocks.flatMap((block) => {
    const fields = block
      .split('\n')
      .filter((line) => !line.startsWith(':'))
      .map((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)])
    const { data, retry, ...rest } = Object.fromEntries(fields) as Record<string, string>
    const item = {
      ...rest,
      ...(retry === undefined ? {} : { retry: Number(retry) }),
      ...(data === undefined ? {} : { data: JSON.parse(data) as unknown }),
    }
    return Object.keys(item).length === 0 ? [] : [item]
  })
}

/** Whole messages, up to the first of this kind or to the end. */
async function readUntil({ body }: Response, kind: string, heard: Ask['heard'] = () => {}): Promise<string> {
  let text = ''
  let told = 0
  const decoder = new TextDecoder()
  for await (const part of body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(part, { stream: true })
    const whole = text.slice(0, text.lastIndexOf('\n\n') + 2)
    const items = itemsOf('text/event-stream', whole)
    for (const item of items.slice(told)) heard(item)
    told = items.length
    if (items.some((item) => kindOf(item) === kind)) return whole
  }
  return text
}

/** What any operation may answer, however right its request is. */
export const FAILURES: ReadonlySet<string> = new Set(['internal', 'unavailable', 'rate_limited', 'overloaded', 'suspended'])
