/** AsyncAPI 3 of the socket (G21): made of the list of messages that both ends decode with, and of the close codes. */
import { CLIENT_MESSAGES, CLOSE, SERVER_MESSAGES, type Shape, toJsonSchema } from '@sealpost/protocol'
import { VERSION } from '../version.ts'
import { exampleHead } from './examples.ts'

type Row = { readonly head: Shape; readonly body: 'none' | 'records' | 'acks'; readonly says: string }

const BODIES = {
  none: 'Nothing follows the head.',
  records: 'Event records follow the head (docs/protocol.md, section 3).',
  acks: 'Rows of `u64 device_seq · u64 position · u64 stream_seq` follow the head.',
} as const

/** The two that open a connection are text; every other message is a sealed binary frame. */
const TEXT = new Set(['client_hello', 'server_hello'])

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
        messages: links('client', CLIENT_MESSAGES),
      },
      send: {
        action: 'send',
        channel: { $ref: '#/channels/socket' },
        summary: 'What the relay sends.',
        messages: links('server', SERVER_MESSAGES),
      },
    },
    components: { messages: { ...messages('client', CLIENT_MESSAGES), ...messages('server', SERVER_MESSAGES) } },
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
  return Object.fromEntries(
    Object.entries(rows).map(([type, { head, body, says }]) => [
      nameOf(from, type),
      {
        name: type,
        title: type,
        summary: says,
        description: `${TEXT.has(type) ? 'A text frame.' : 'A sealed frame.'} ${BODIES[body]}`,
        contentType: 'application/json',
        payload: toJsonSchema({ type: `=${type}`, ...head }),
        examples: [{ name: type, summary: says, payload: { type, ...exampleHead(head) } }],
      },
    ]),
  )
}
