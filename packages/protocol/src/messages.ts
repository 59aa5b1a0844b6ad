/**
 * THE list of messages (protocol.md §4, §5): the whole truth about a message is one row. Heads are JSON; `body` says what
 * follows the head in the sealed frame.
 *
 *   message = u32be(len(head)) || head (UTF-8 JSON with `type`) || body
 */
import { type Bytes, concat, EMPTY, parseJson, readU64, utf8, viewOf, writeU64 } from './bytes.ts'
import { ERROR, LOG_RESULT, NACK } from './codes.ts'
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'
import { check, type Of, type Shape } from './schema.ts'

/** What follows the head: nothing, event records (`event.ts`), or 24-byte ack rows. */
export type BodyKind = 'none' | 'records' | 'acks'

/** `values`: what a field of codes holds in this version, and what it means. A reader takes others too. */
type Row = {
  readonly head: Shape
  readonly body: BodyKind
  readonly says: string
  readonly values?: Readonly<Record<string, Readonly<Record<string, string>>>>
}

const deviceBody = {
  device_id: 'uuid',
  sign_pub: 'key',
  kem_pub: 'kem_pub',
  self_sig: 'sig',
  name: 'text',
  device_type: { oneOf: ['mobile', 'desktop', 'web'] },
} as const
const cursor = { position: 'int', event_id: 'uuid|null', received_at: 'int|null', history_id: 'key|null' } as const
const tip = { event_id: 'uuid', received_at: 'int' } as const
const sessionLimits = {
  frame_bytes: 'int',
  payload_bytes: 'int',
  batch_events: 'int',
  inflight_events: 'int',
  inflight_bytes: 'int',
  replay_events: 'int',
} as const
const logEntry = { body: 'b64', sig: 'sig', box: 'box|null' } as const

const { not_found, invalid_token, invalid_request, invalid_message, invalid_encoding, too_large, timeout, unavailable } = ERROR

/** The JSON objects inside signed bodies, mailbox slots and cursors. */
export const SHAPES = {
  cursor,
  tip,
  device: deviceBody,
  server_hello: {
    type: '=server_hello',
    v: { oneOf: [1] },
    server_eph: 'key',
    server_nonce: 'key',
    server_key: 'key',
    server_time: 'int',
    gen: 'u32',
  },
  client_auth: {
    user_id: 'key',
    device_id: 'uuid',
    log_seq: 'u32|null',
    log_head: 'key|null',
    cursor: { object: cursor },
    last_device_seq: 'int',
    features: { list: 'code', max: 32 },
    client: { object: { name: 'text', version: 'text' } },
  },
  client_auth_rekey: { user_id: 'key', device_id: 'uuid', session_id: 'opaque' },
  assertion: {
    purpose: 'label',
    aud: 'key',
    user_id: 'key',
    signer: 'signer',
    iat: 'int',
    jti: 'opaque',
    from_log_seq: 'u32?',
  },
  pair_offer: { v: { oneOf: [1] }, user_id: 'key', log_seq: 'u32', log_head: 'key', server_key: 'key', commit: 'key', expires_at: 'int' },
  pair_join: { v: { oneOf: [1] }, offer_hash: 'key', device: { object: deviceBody } },
  pair_reveal: { nonce: 'key' },
  pair_done: { log_seq: 'u32', entry_hash: 'key' },
} as const satisfies Record<string, Shape>

export type Cursor = Of<typeof cursor>
export type Tip = Of<typeof tip>
export type DeviceType = 'mobile' | 'desktop' | 'web'

export const CLIENT_MESSAGES = {
  client_hello: {
    head: { versions: { list: 'u32', max: 16 }, client_eph: 'key', client_nonce: 'key', session_id: 'opaque?' },
    body: 'none',
    says: 'Opens a handshake; with session_id, a rekey of that session.',
  },
  client_auth: { head: { body: 'b64', sig: 'sig' }, body: 'none', says: 'Proves the device, bound to this channel.' },
  event: { head: {}, body: 'records', says: 'Events to be stored; each is acked or refused.' },
  replay_request: {
    head: {
      id: 'u32',
      last_ack_device_seq: 'int',
      limit: 'int?',
      pages: 'int?',
      continuation_token: 'opaque?',
      query: 'bool?',
      after_position: 'int?',
      streams: { list: 'label', max: 256, optional: true },
    },
    body: 'none',
    says: 'Asks for the next pages; with query, a read that moves nothing.',
  },
  ack: { head: { position: 'int' }, body: 'none', says: 'What this device has taken over; serves status only.' },
  log_append: {
    head: { id: 'u32', body: 'b64', sig: 'sig', boxes: { map: 'box', max: 64 } },
    body: 'none',
    says: 'A new entry of the device log.',
  },
  log_request: { head: { id: 'u32', from_log_seq: 'u32' }, body: 'none', says: 'Asks for entries of the device log.' },
  tips_request: { head: { id: 'u32', device_id: 'uuid' }, body: 'none', says: "Asks for the last record of each of a device's streams." },
  ping: { head: { t: 'int' }, body: 'none', says: 'Is the server there? Answered by pong.' },
} as const satisfies Record<string, Row>

export const SERVER_MESSAGES = {
  server_hello: { head: { body: 'b64', sig: 'sig' }, body: 'none', says: 'Proves the server, bound to this channel.' },
  session_established: {
    head: {
      session_id: 'opaque',
      gen: 'u32',
      log_seq: 'u32?',
      log_head: 'key?',
      history_id: 'key?',
      head_position: 'int?',
      floor: 'int?',
      mode: { oneOf: ['live', 'replay', 'reset'], optional: true },
      last_device_seq: 'int?',
      features: { list: 'code', max: 32, optional: true },
      limits: { object: sessionLimits, optional: true },
      rekey_after_s: 'int',
      rekey_after_frames: 'int',
    },
    body: 'none',
    says: 'The session is open; in a rekey, its keys are new.',
  },
  ack: { head: { received_at: 'int' }, body: 'acks', says: 'These events are on disk. Sent only after the commit.' },
  nack: {
    head: { code: 'code', device_seq: 'int', expected_device_seq: 'int', retry_after_ms: 'int?' },
    body: 'none',
    says: 'Nothing from expected_device_seq on is stored.',
    values: { code: NACK },
  },
  event: {
    head: { after: 'int', upto: 'int', tip: { object: tip, nullable: true, optional: true } },
    body: 'records',
    says: 'All that is for you in (after, upto].',
  },
  replay_response: {
    head: {
      id: 'u32',
      after: 'int',
      upto: 'int',
      tip: { object: tip, nullable: true, optional: true },
      has_more: 'bool',
      continuation_token: 'opaque?',
      total_events: 'int?',
      head_position: 'int',
      floor: 'int',
    },
    body: 'records',
    says: 'A page of what was missed; with has_more false the session is live from upto on.',
  },
  reset: {
    head: { reason: { oneOf: ['history_changed', 'cursor_unknown'] }, history_id: 'key', head_position: 'int', from_position: 'int' },
    body: 'none',
    says: 'The cursor cannot be honoured; go on from from_position.',
  },
  log_entry: { head: logEntry, body: 'none', says: 'A new entry of the device log; precedes the first record of its epoch.' },
  log_result: {
    head: { id: 'u32', ok: 'bool', log_seq: 'u32', log_head: 'key', code: 'code?' },
    body: 'none',
    says: 'What became of a log_append.',
    values: { code: LOG_RESULT },
  },
  log_entries: {
    head: { id: 'u32', entries: { list: { object: logEntry }, max: LIMITS.logEntriesPageMax }, has_more: 'bool' },
    body: 'none',
    says: 'Entries asked for by log_request.',
  },
  tips: {
    head: { id: 'u32', last_device_seq: 'int', complete: 'bool' },
    body: 'records',
    says: "The last record of each of a device's streams, as tombstones.",
  },
  presence: {
    head: { devices: { list: { object: { device_id: 'uuid', online: 'bool', last_seen: 'int|null', suspended: 'bool?' } }, max: 256 } },
    body: 'none',
    says: 'Who is online, and whom an operator suspended: all after the handshake, then changes.',
  },
  rekey_required: {
    head: { reason: 'code', deadline_s: 'int' },
    body: 'none',
    says: 'Renew the session keys within deadline_s.',
    values: { reason: { age: 'The keys are old.', frames: 'The keys sealed many frames.', policy: 'Whoever runs the server wants it.' } },
  },
  going_away: { head: { retry_after_ms: 'int' }, body: 'none', says: 'The server will close soon; connect again after that time.' },
  pong: { head: { t: 'int' }, body: 'none', says: 'Answers a ping of the client.' },
  error: {
    head: { id: 'u32?', code: 'code', message: 'text' },
    body: 'none',
    says: 'A request could not be answered.',
    values: {
      code: { not_found, invalid_token, invalid_request, invalid_message, invalid_encoding, too_large, timeout, unavailable },
    },
  },
} as const satisfies Record<string, Row>

type ClientRows = typeof CLIENT_MESSAGES
type ServerRows = typeof SERVER_MESSAGES
export type ClientType = keyof ClientRows
export type ServerType = keyof ServerRows

/** Heads as they are used in code: `{ type: 'ack', received_at: 1 }`. */
export type ClientHead = { [T in ClientType]: { type: T } & Of<ClientRows[T]['head']> }[ClientType]
export type ServerHead = { [T in ServerType]: { type: T } & Of<ServerRows[T]['head']> }[ServerType]
export type ClientHeadOf<T extends ClientType> = { type: T } & Of<ClientRows[T]['head']>
export type ServerHeadOf<T extends ServerType> = { type: T } & Of<ServerRows[T]['head']>

/** A decoded message: the head is checked, the body is still bytes. */
export type ClientMessage = { [T in ClientType]: { head: ClientHeadOf<T>; body: Bytes } }[ClientType]
export type ServerMessage = { [T in ServerType]: { head: ServerHeadOf<T>; body: Bytes } }[ServerType]

/** Encodes `u32be(len(head)) || head || body`. */
export function encodeMessage(head: ClientHead | ServerHead, body: Bytes = EMPTY): Bytes {
  const json = utf8(JSON.stringify(head))
  const length = new Uint8Array(4)
  viewOf(length).setUint32(0, json.length)
  return concat(length, json, body)
}

/** Decodes a message of the client; throws `invalid_encoding` or `invalid_message`. */
export function decodeClientMessage(bytes: Bytes): ClientMessage {
  const { json, body } = splitMessage(bytes)
  return { head: checkHead(CLIENT_MESSAGES, json, body), body } as ClientMessage
}

/** Decodes a message of the server; throws `invalid_encoding` or `invalid_message`. */
export function decodeServerMessage(bytes: Bytes): ServerMessage {
  const { json, body } = splitMessage(bytes)
  return { head: checkHead(SERVER_MESSAGES, json, body), body } as ServerMessage
}

/** Checks the head of the two text frames (`client_hello`, `server_hello`). */
export function decodeHello<T extends 'client_hello' | 'server_hello'>(
  type: T,
  json: Bytes,
): T extends ClientType ? ClientHeadOf<T> : ServerHeadOf<T & ServerType> {
  const head = checkHead(type === 'client_hello' ? CLIENT_MESSAGES : SERVER_MESSAGES, json, EMPTY)
  if (head.type !== type) throw new SealpostError('invalid_message', `expected ${type}`)
  return head as ReturnType<typeof decodeHello<T>>
}

function splitMessage(bytes: Bytes): { json: Bytes; body: Bytes } {
  if (bytes.length < 4) throw new SealpostError('invalid_message', 'a message has a head')
  const length = viewOf(bytes).getUint32(0)
  if (length > bytes.length - 4) throw new SealpostError('invalid_message', 'the head is longer than the message')
  return { json: bytes.subarray(4, 4 + length), body: bytes.subarray(4 + length) }
}

function checkHead(rows: Record<string, Row>, json: Bytes, body: Bytes): ClientHead | ServerHead {
  const value = parseJson(json)
  const type = typeof value === 'object' && value !== null && 'type' in value ? value.type : undefined
  const row = typeof type === 'string' && Object.hasOwn(rows, type) ? rows[type] : undefined
  if (row === undefined) throw new SealpostError('invalid_message', 'unknown message type')
  if (row.body === 'none' && body.length > 0) throw new SealpostError('invalid_message', `${type as string} has no body`)
  return { type, ...check(row.head, value, type as string) } as ClientHead | ServerHead
}

/** One row of an `ack` body: `u64 device_seq · u64 position · u64 stream_seq`. */
export type AckRow = { device_seq: number; position: number; stream_seq: number }

const ACK_ROW_BYTES = 24

export function encodeAcks(rows: readonly AckRow[]): Bytes {
  const out = new Uint8Array(rows.length * ACK_ROW_BYTES)
  const view = viewOf(out)
  for (const [i, row] of rows.entries()) {
    writeU64(view, i * ACK_ROW_BYTES, row.device_seq)
    writeU64(view, i * ACK_ROW_BYTES + 8, row.position)
    writeU64(view, i * ACK_ROW_BYTES + 16, row.stream_seq)
  }
  return out
}

export function decodeAcks(body: Bytes): AckRow[] {
  if (body.length % ACK_ROW_BYTES !== 0) throw new SealpostError('invalid_message', 'an ack has rows of 24 bytes')
  const view = viewOf(body)
  return Array.from({ length: body.length / ACK_ROW_BYTES }, (_, i) => ({
    device_seq: readU64(view, i * ACK_ROW_BYTES),
    position: readU64(view, i * ACK_ROW_BYTES + 8),
    stream_seq: readU64(view, i * ACK_ROW_BYTES + 16),
  }))
}
