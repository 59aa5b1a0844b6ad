/** Contracts of events over REST: reading, following and sending. */
import { LIMITS, NACK, type NackCode } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from '../contract.ts'
import { FOLLOW_CONTRACT } from './follow-contract.ts'
import { epoch, SENT, STORED, sentEvent, storedEvent } from '../event-fields.ts'
import { after_position, CURSOR, cursor, reset, tip } from './fields.ts'
import { ASSERTION, CONTINUATION, HISTORY_ID, LOG_HEAD, SESSION_ID, TIME_MS } from '../examples.ts'
import { assertion, base64url, count, countText, key, uuid } from '../fields.ts'

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
    problems: ['device_revoked', 'suspended', 'account_gone'],
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
            code: z.enum(Object.keys(NACK) as [NackCode, ...NackCode[]]),
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
    problems: ['device_revoked', 'account_gone'],
    example: { query: { after_position: 41, ...CURSOR, limit: 100, streams: 'clipboard', continuation_token: CONTINUATION } },
  },
  follow_events: FOLLOW_CONTRACT,
} as const satisfies Record<string, Contract>
