/** Contracts of events over REST: reading, sending, following. */
import { LIMITS } from '@sealpost/protocol'
import { z } from 'zod'
import { encodeFollowId } from '../relay/follow-id.ts'
import type { Contract } from './contract.ts'
import { ASSERTION, DEVICE_ID, EVENT_ID, HISTORY_ID, LOG_HEAD, SESSION_ID, SIGNATURE, TIME_MS, USER_ID } from './examples.ts'
import { assertion, base64url, count, countText, key, label, signature, uuid } from './fields.ts'

const epoch = count.max(0xffff_ffff)
const payload = base64url(Math.ceil((LIMITS.payloadBytesMax * 4) / 3))
const position = countText(0, Number.MAX_SAFE_INTEGER)
const tip = z.strictObject({ event_id: uuid, received_at: count })

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
const sentEvent = z.strictObject({
  ...clientPart,
  encrypted_payload: payload,
  stream_seq: z.null().optional(),
  position: z.null().optional(),
  received_at: z.null().optional(),
})

const storedEvent = z.strictObject({
  ...clientPart,
  encrypted_payload: payload.nullable().describe('Null in a tombstone.'),
  payload_hash: key.optional().describe('SHA-256 of the payload, in a tombstone.'),
  stream_seq: count,
  position: count,
  received_at: count,
})

const SENT = {
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
const STORED = { ...SENT, stream_seq: 3, position: 42, received_at: TIME_MS }
const CURSOR = { event_id: EVENT_ID, received_at: String(TIME_MS), history_id: HISTORY_ID }

const FOLLOW_ID = encodeFollowId({
  cursor: { position: 42, event_id: EVENT_ID, received_at: TIME_MS, history_id: HISTORY_ID },
  log_seq: 1,
})

/** All three or none: only then the position is judged. */
const cursor = {
  event_id: uuid.optional().describe('Of the event at after_position; with received_at and history_id.'),
  received_at: position.optional().describe('Of the same event, in ms.'),
  history_id: key.optional().describe('Of the store that numbered it.'),
}
const after_position = position.optional().describe('Exclusive; 0 by default.')

const reset = z.strictObject({ reason: z.enum(['history_changed', 'cursor_unknown']), from_position: count })

export const EVENT_CONTRACTS = {
  take_session: {
    body: assertion.extend({ last_device_seq: count.optional().describe('The highest device_seq that the device knows as acked.') }),
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        session_id: uuid,
        last_device_seq: count.describe('The next event has the number above it.'),
        log_seq: count,
        log_head: key,
        history_id: key,
        head_position: count,
        floor: count,
      }),
      example: {
        session_id: SESSION_ID,
        last_device_seq: 6,
        log_seq: 1,
        log_head: LOG_HEAD,
        history_id: HISTORY_ID,
        head_position: 41,
        floor: 0,
      },
    },
    problems: ['device_revoked', 'account_gone'],
    example: { body: { ...ASSERTION, last_device_seq: 6 } },
  },
  append_events: {
    body: z.strictObject({ session_id: uuid, events: z.array(sentEvent).min(1).max(LIMITS.batchEventsMax) }),
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        acks: z
          .array(
            z.strictObject({
              device_seq: count.min(1),
              position: count.describe('0 when retention has removed it since.'),
              stream_seq: count,
              received_at: count,
            }),
          )
          .max(LIMITS.batchEventsMax),
        nack: z
          .strictObject({
            code: z.string().regex(/^[a-z_]{1,64}$/),
            device_seq: count,
            expected_device_seq: count,
            retry_after_ms: count.optional(),
            log_seq: epoch.optional().describe('Read the device log up to this entry first.'),
          })
          .optional()
          .describe('Nothing from expected_device_seq on is stored.'),
      }),
      example: {
        acks: [{ device_seq: 7, position: 42, stream_seq: 3, received_at: TIME_MS }],
        nack: { code: 'rate_limited', device_seq: 8, expected_device_seq: 8, retry_after_ms: 1_000 },
      },
    },
    problems: ['superseded', 'device_revoked', 'account_gone', 'invalid_message', 'invalid_encoding'],
    example: { body: { session_id: SESSION_ID, events: [SENT] } },
  },
  read_events: {
    query: z.strictObject({
      after_position,
      ...cursor,
      limit: countText(1, LIMITS.replayEventsMax).optional().describe(`${LIMITS.replayEventsDefault} by default.`),
      streams: z
        .string()
        .regex(/^[A-Za-z0-9._:-]{1,64}(,[A-Za-z0-9._:-]{1,64}){0,255}$/)
        .optional()
        .describe('Only these, separated by commas; unknown ones are empty.'),
      continuation_token: base64url(256).optional().describe('Of the page before, with the same streams.'),
    }),
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        after: count,
        upto: count.describe('All that is asked for in (after, upto] is in events.'),
        tip: tip.nullable().optional().describe('The event at upto, where it is not the last of events.'),
        has_more: z.boolean(),
        continuation_token: z.string().max(1_024).optional(),
        total_events: count,
        head_position: count,
        floor: count,
        history_id: key,
        reset: reset.optional().describe('The cursor cannot be honoured; this page begins at from_position.'),
        events: z.array(storedEvent).max(LIMITS.replayEventsMax),
      }),
      example: {
        after: 41,
        upto: 42,
        has_more: false,
        total_events: 1,
        head_position: 42,
        floor: 0,
        history_id: HISTORY_ID,
        events: [STORED],
      },
    },
    problems: ['account_gone'],
    example: { query: { after_position: '41', ...CURSOR, limit: '100', streams: 'clipboard' } },
  },
  follow_events: {
    query: z.strictObject({
      after_position,
      ...cursor,
      log_seq: countText(0, LIMITS.logSeqMax).optional().describe('Entries of the device log above it are told; those to come by default.'),
    }),
    headers: z.strictObject({
      'last-event-id': base64url(256).optional().describe('The id of the last event that was taken over; it goes before the query.'),
    }),
    answer: {
      status: 200,
      media: 'text/event-stream',
      example: [
        'retry: 3000',
        '',
        `event: event\nid: ${FOLLOW_ID}\ndata: ${JSON.stringify({ after: 41, upto: 42, events: [STORED] })}`,
        '',
        `event: presence\ndata: ${JSON.stringify({ devices: [{ device_id: DEVICE_ID, online: true, last_seen: TIME_MS }] })}`,
        '',
        `event: going_away\nretry: 1200\ndata: ${JSON.stringify({ retry_after_ms: 1_200 })}`,
        '',
        `event: closed\ndata: ${JSON.stringify({ code: 1001, name: 'draining', says: 'The server is going away; connect again, perhaps to another node.' })}`,
        '',
        '',
      ].join('\n'),
    },
    problems: ['account_gone'],
    example: { query: { after_position: '41', ...CURSOR, log_seq: '1' } },
  },
} as const satisfies Record<string, Contract>
