/** AsyncAPI 3 of the socket (G21): made of the list of messages that both ends decode with, and of the close codes. */
import { type BodyKind, CLIENT_MESSAGES, CLOSE, encodeMessage, SERVER_MESSAGES, type Shape, toJsonSchema } from '@sealpost/protocol'
import { VERSION } from '../telemetry/version.ts'
import { exampleHead } from './examples.ts'
import { BODY_SCHEMAS, exampleBody } from './message-bodies.ts'

type Row = {
  readonly head: Shape
  readonly body: BodyKind
  readonly says: string
  readonly values?: Readonly<Record<string, Readonly<Record<string, string>>>>
}

const BODIES: Readonly<Record<BodyKind, string>> = {
  none: 'Nothing follows the head.',
  records: 'Event records follow the head: `x-body`.',
  acks: 'Rows of acks follow the head: `x-body`.',
}

/** The two that open a connection are text; every other message is a sealed binary frame. */
const TEXT = new Set(['client_hello', 'server_hello'])
/** Codes after which the same is sent again in a while. */
const WAITS = new Set(['rate_limited', 'unavailable'])

export function makeAsyncApi(): object {
  const closes = Object.entries(CLOSE).map(([name, { code, policy, says }]) => `| ${code} | ${name} | ${policy} | ${says} |`)
  const channel = {
    address: '/api/socket',
    title: 'The socket of a device',
    description:
      'WebSocket with the subprotocol `sealpost.1`. `client_hello` and `server_hello` are text frames of JSON; every other message is a binary frame, ' +
      'sealed: `gen (1 byte) ‖ AES-256-GCM(message)` with `message = u32be(length of head) ‖ head (JSON with type) ‖ body`. The payload schemas below are those of heads. ' +
      `When which message is legal is in docs/protocol.md, section 4.\n\nClose codes:\n\n| code | name | client | meaning |\n|---|---|---|---|\n${closes.join('\n')}`,
    servers: [{ $ref: '#/servers/relay' }],
    messages: { ...refs('client', CLIENT_MESSAGES), ...refs('server', SERVER_MESSAGES) },
    bindings: { ws: { method: 'GET', bindingVersion: '0.1.0' } },
  }
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Sealpost',
      version: VERSION,
      description: 'The messages between a device and its relay. The REST side is in /openapi.json.',
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    defaultContentType: 'application/json',
    servers: { relay: { host: '127.0.0.1:8787', protocol: 'ws', description: 'A relay on this machine; wss elsewhere.' } },
    channels: { socket: channel },
    // as AsyncAPI has it: what the relay, whose document this is, receives and sends
    operations: {
      receive: {
        action: 'receive',
        channel: { $ref: '#/channels/socket' },
        summary: 'What a device sends.',
        security: [{ $ref: '#/components/securitySchemes/device' }],
        messages: links('client', CLIENT_MESSAGES),
      },
      send: {
        action: 'send',
        channel: { $ref: '#/channels/socket' },
        summary: 'What the relay sends.',
        security: [{ $ref: '#/components/securitySchemes/device' }],
        messages: links('server', SERVER_MESSAGES),
      },
    },
    components: {
      messages: { ...messages('client', CLIENT_MESSAGES), ...messages('server', SERVER_MESSAGES) },
      schemas: BODY_SCHEMAS,
      securitySchemes: {
        device: {
          type: 'asymmetricEncryption',
          description: 'The device signs the handshake (`client_auth`) with its Ed25519 key, and the relay (`server_hello`) with its own.',
        },
      },
    },
  }
}

const nameOf = (from: string, type: string): string => (type.startsWith(`${from}_`) ? type : `${from}_${type}`)

function refs(from: string, rows: Record<string, Row>): object {
  return Object.fromEntries(Object.keys(rows).map((type) => [nameOf(from, type), { $ref: `#/components/messages/${nameOf(from, type)}` }]))
}

function links(from: string, rows: Record<string, Row>): object[] {
  return Object.keys(rows).map((type) => ({ $ref: `#/channels/socket/messages/${nameOf(from, type)}` }))
}

function messages(from: string, rows: Record<string, Row>): object {
  return Object.fromEntries(Object.entries(rows).map(([type, row]) => [nameOf(from, type), message(nameOf(from, type), type, row)]))
}

function message(name: string, type: string, { head, body, says, values = {} }: Row): object {
  const examples = examplesOf(type, head, says, values)
  const payload = toJsonSchema({ type: `=${type}`, ...head })
  const properties = { ...(payload['properties'] as object) }
  for (const [field, known] of Object.entries(values)) Object.assign(properties, { [field]: { enum: Object.keys(known) } })
  return {
    name: type,
    title: type,
    summary: says,
    description: `${TEXT.has(type) ? 'A text frame.' : 'A sealed frame.'} ${BODIES[body]}`,
    contentType: 'application/json',
    payload: { ...payload, properties },
    examples,
    ...(body === 'none' ? {} : withBody(name, body, examples[0]?.payload)),
  }
}

/** Head and body together, as they are before they are sealed: what a payload cannot show. */
function withBody(name: string, body: Exclude<BodyKind, 'none'>, head: unknown): object {
  const bytes = encodeMessage(head as Parameters<typeof encodeMessage>[0], exampleBody(name, body))
  return { 'x-body': { $ref: `#/components/schemas/${body}` }, 'x-message': Buffer.from(bytes).toString('base64') }
}

/** One for each code; where it may be absent, also one that has none. */
function examplesOf(type: string, head: Shape, says: string, values: NonNullable<Row['values']>): Example[] {
  const { code: _, ...plain } = { type, ...exampleHead(head) } as Record<string, unknown>
  const coded = Object.entries(values).flatMap(([field, known]) =>
    Object.entries(known).map(([value, summary]) => {
      const { retry_after_ms, ...rest } = plain
      const waiting = WAITS.has(value) && retry_after_ms !== undefined ? { retry_after_ms } : {}
      return { name: value, summary, payload: { ...rest, ...waiting, ...refused(head, summary), [field]: value } }
    }),
  )
  const isPlain = Object.keys(values).every((field) => typeof head[field] === 'string' && (head[field] as string).endsWith('?'))
  return [...(isPlain ? [{ name: type, summary: says, payload: plain }] : []), ...coded]
}

type Example = { name: string; summary: string; payload: object }

function refused(head: Shape, message: string): object {
  return { ...('ok' in head ? { ok: false } : {}), ...('message' in head ? { message } : {}) }
}
