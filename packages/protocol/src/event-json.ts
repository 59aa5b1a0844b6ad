/**
 * Events as JSON, for REST, SDK and documents (protocol.md §3): a record and its JSON form say the same. Reading is strict, since
 * what is read is encoded and stored.
 */
import { fromBase64url, isUuid, toBase64url } from './bytes.ts'
import { SealpostError } from './errors.ts'
import { checkFields, type EventRecord, type ServerPart } from './record.ts'

/** The JSON form of REST, SDK and documents; the last three of a record that the server has not numbered are null. */
export type EventJson = {
  event_id: string
  user_id: string
  device_id: string
  device_seq: number
  stream_id: string
  stream_seq: number | null
  type: string
  /** Null in a tombstone, which has `payload_hash`. */
  encrypted_payload: string | null
  payload_hash?: string
  ttl: number | null
  epoch: number
  prev_hash: string | null
  sig: string
  position: number | null
  received_at: number | null
}

export function recordToJson(user_id: string, record: EventRecord): EventJson {
  return {
    event_id: record.event_id,
    user_id,
    device_id: record.device_id,
    device_seq: record.device_seq,
    stream_id: record.stream_id,
    stream_seq: record.server?.stream_seq ?? null,
    type: record.type,
    encrypted_payload: record.payload === null ? null : toBase64url(record.payload),
    ...(record.payload_hash === null ? {} : { payload_hash: toBase64url(record.payload_hash) }),
    ttl: record.ttl,
    epoch: record.epoch,
    prev_hash: record.prev_hash === null ? null : toBase64url(record.prev_hash),
    sig: toBase64url(record.sig),
    position: record.server?.position ?? null,
    received_at: record.server?.received_at ?? null,
  }
}

/**
 * The record of a JSON form of this user's: exactly the members of `EventJson`, where those of the server are all there, or all
 * null or absent. What it returns can be encoded. Throws `invalid_message` or `invalid_encoding`.
 */
export function recordFromJson(user_id: string, json: unknown): EventRecord {
  const fields = eventMembers(json)
  const take = <T>(name: keyof EventJson, fits: (value: unknown) => value is T): T => {
    const value = fields[name]
    if (!fits(value)) throw wrong(`${name} of an event is missing or not valid`)
    return value
  }
  if (fields.user_id !== user_id) throw wrong('the event is of another user')
  const encrypted_payload = take('encrypted_payload', isTextOrNull)
  const payload = encrypted_payload === null ? null : fromBase64url(encrypted_payload)
  if (payload !== null && fields.payload_hash !== undefined) throw wrong('payload_hash belongs to a tombstone')
  const prev_hash = take('prev_hash', isTextOrNull)
  const record: EventRecord = {
    server: serverOf(fields),
    event_id: take('event_id', isUuidText),
    device_id: take('device_id', isUuidText),
    device_seq: take('device_seq', isNumber),
    epoch: take('epoch', isNumber),
    ttl: take('ttl', isNumberOrNull),
    prev_hash: prev_hash === null ? null : fromBase64url(prev_hash, 32),
    stream_id: take('stream_id', isText),
    type: take('type', isText),
    sig: fromBase64url(take('sig', isText), 64),
    payload,
    payload_hash: payload === null ? fromBase64url(take('payload_hash', isText), 32) : null,
  }
  checkFields(record)
  return record
}

const EVENT_MEMBERS: ReadonlySet<string> = new Set<keyof EventJson>([
  'event_id',
  'user_id',
  'device_id',
  'device_seq',
  'stream_id',
  'stream_seq',
  'type',
  'encrypted_payload',
  'payload_hash',
  'ttl',
  'epoch',
  'prev_hash',
  'sig',
  'position',
  'received_at',
])

function eventMembers(json: unknown): Readonly<Partial<Record<keyof EventJson, unknown>>> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw wrong('an event is an object')
  for (const name of Object.keys(json)) if (!EVENT_MEMBERS.has(name)) throw wrong('an event has a member that is not known')
  // what it inherits is not its own word
  return Object.assign(Object.create(null), json)
}

function serverOf({ position, stream_seq, received_at }: ReturnType<typeof eventMembers>): ServerPart | null {
  const numbers = [position, stream_seq, received_at]
  if (numbers.every((value) => value === null || value === undefined)) return null
  if (!isNumber(position) || !isNumber(stream_seq) || !isNumber(received_at))
    throw wrong('what the server adds is there whole, or not at all')
  return { position, stream_seq, received_at }
}

const isText = (value: unknown): value is string => typeof value === 'string'
const isTextOrNull = (value: unknown): value is string | null => value === null || isText(value)
const isUuidText = (value: unknown): value is string => isText(value) && isUuid(value)
const isNumber = (value: unknown): value is number => Number.isSafeInteger(value) && !Object.is(value, -0)
const isNumberOrNull = (value: unknown): value is number | null => value === null || isNumber(value)

function wrong(what: string): SealpostError {
  return new SealpostError('invalid_message', what)
}
