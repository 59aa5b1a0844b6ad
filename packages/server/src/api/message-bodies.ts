/** What follows the head of a message, as AsyncAPI can say it: the layout in words, and bytes that the decoders take. */
import { type BodyKind, type Bytes, encodeAcks, encodeRecord, fromBase64url } from '@sealpost/protocol'
import { EVENT_ID, LOG_HEAD, SIGNATURE, TIME_MS } from '../http/examples.ts'
import { STORED } from '../http/event-fields.ts'

const SERVER_PART = { position: STORED.position, stream_seq: STORED.stream_seq, received_at: TIME_MS }
const EVENT = {
  server: null,
  event_id: EVENT_ID,
  device_id: STORED.device_id,
  device_seq: STORED.device_seq,
  epoch: STORED.epoch,
  ttl: STORED.ttl,
  prev_hash: fromBase64url(LOG_HEAD),
  stream_id: STORED.stream_id,
  type: STORED.type,
  sig: fromBase64url(SIGNATURE),
  payload: fromBase64url(STORED.encrypted_payload),
  payload_hash: null,
}
const TOMBSTONE = { ...EVENT, server: SERVER_PART, payload: null, payload_hash: fromBase64url(LOG_HEAD) }

const base64 = (bytes: Bytes): string => Buffer.from(bytes).toString('base64')
const RECORD = `One after the other, big-endian, until the end of the message (docs/protocol.md, section 3):

| bytes | what |
|---|---|
| 4 | length of what follows in this record |
| 1 | flags: 1 = ttl, 2 = prev_hash, 4 = numbers of the server, 8 = tombstone |
| 24, flag 4 | position, stream_seq, received_at in ms, 8 bytes each |
| 16 | event_id |
| 16 | device_id |
| 8 | device_seq |
| 4 | epoch |
| 4, flag 1 | ttl in seconds |
| 32, flag 2 | prev_hash |
| 1 and so many | stream_id |
| 1 and so many | type |
| 64 | sig |
| 4 and so many, or with flag 8 these 32 | payload, or its SHA-256 |`

/** Of the message of this name, where all of its kind do not have the same. */
const RECORDS_OF: Readonly<Record<string, Bytes>> = {
  client_event: encodeRecord(EVENT),
  server_tips: encodeRecord(TOMBSTONE),
}
const STORED_RECORD = encodeRecord({ ...EVENT, server: SERVER_PART })
const ACKS = encodeAcks([{ device_seq: STORED.device_seq, position: STORED.position, stream_seq: STORED.stream_seq }])

/** In the frame the bytes stand bare; JSON can only show them encoded. */
const bytes = { type: 'string', contentEncoding: 'base64', contentMediaType: 'application/octet-stream' }

export const BODY_SCHEMAS: Readonly<Record<Exclude<BodyKind, 'none'>, object>> = {
  records: {
    ...bytes,
    title: 'Event records',
    description: RECORD,
    examples: [RECORDS_OF['client_event'], STORED_RECORD, RECORDS_OF['server_tips']].map((record) => base64(record as Bytes)),
  },
  acks: {
    ...bytes,
    title: 'Rows of acks',
    description:
      'Rows of 24 bytes, big-endian, until the end of the message:\n\n| bytes | what |\n|---|---|\n| 8 | device_seq |\n| 8 | position |\n| 8 | stream_seq |',
    examples: [base64(ACKS)],
  },
}

/** An example of the body of a message. */
export function exampleBody(name: string, kind: BodyKind): Bytes {
  if (kind === 'none') return new Uint8Array()
  return kind === 'acks' ? ACKS : (RECORDS_OF[name] ?? STORED_RECORD)
}
