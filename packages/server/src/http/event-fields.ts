/** Events as REST takes and gives them (protocol.md §3), with examples: in pages, in streams that are followed, in exports. */
import { LIMITS } from '@sealpost/protocol'
import { z } from 'zod'
import { DEVICE_ID, EVENT_ID, SIGNATURE, TIME_MS, USER_ID } from './examples.ts'
import { base64url, count, key, label, signature, uuid } from './fields.ts'

export const epoch = count.max(0xffff_ffff)
const payload = base64url(Math.ceil((LIMITS.payloadBytesMax * 4) / 3))

const clientPart = {
  event_id: uuid,
  user_id: key,
  device_id: uuid,
  device_seq: count.min(1),
  stream_id: label,
  type: label,
  ttl: count.min(LIMITS.ttlSecondsMin).max(0xffff_ffff).nullable().describe('Seconds from the time in event_id; null = for ever.'),
  epoch,
  prev_hash: key.nullable(),
  sig: signature,
}

/** As it is sent: what the server adds is absent or null. */
export const sentEvent = z.strictObject({
  ...clientPart,
  encrypted_payload: payload,
  stream_seq: z.null().optional(),
  position: z.null().optional(),
  received_at: z.null().optional(),
})

export const storedEvent = z.strictObject({
  ...clientPart,
  encrypted_payload: payload.nullable().describe('Null in a tombstone.'),
  payload_hash: key.optional().describe('SHA-256 of the payload, in a tombstone.'),
  stream_seq: count,
  position: count,
  received_at: count,
})

export const SENT = {
  event_id: EVENT_ID,
  user_id: USER_ID,
  device_id: DEVICE_ID,
  device_seq: 7,
  stream_id: 'clipboard',
  type: 'app',
  encrypted_payload: SIGNATURE,
  ttl: 3_600,
  epoch: 1,
  prev_hash: null,
  sig: SIGNATURE,
}
export const STORED = { ...SENT, stream_seq: 3, position: 42, received_at: TIME_MS }
