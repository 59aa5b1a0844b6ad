/** The contract of the stream that is followed (protocol.md §10; the event streams of HTML §9.2). */
import { CLOSE, type CloseName, LIMITS } from '@sealpost/protocol'
import { z } from 'zod'
import { encodeFollowId } from '../../relay/follow/follow-id.ts'
import type { Contract } from '../contract.ts'
import { STORED, storedEvent } from '../event-fields.ts'
import { after_position, CURSOR, cursor, reset, tip } from './fields.ts'
import { BOX, DEVICE_ID, EVENT_ID, HISTORY_ID, LOG_ENTRY, TIME_MS } from '../examples.ts'
import { base64url, count, countText, key, onlineDevice, storedEntry } from '../fields.ts'

/** It stands on what moves the reader. */
const id = base64url(256).min(1)
const retry = count.describe('ms to wait before the stream is opened again.')
const name = z.enum(Object.keys(CLOSE) as [CloseName, ...CloseName[]])

/** Each message, its `data` read as JSON. Comments (`:`) keep the connection alive between them. */
const message = z.union([
  z.strictObject({ retry }).describe('The first one: no event, only the time to wait.'),
  z
    .strictObject({
      event: z.literal('event'),
      id,
      data: z.strictObject({
        after: count,
        upto: count,
        tip: tip.nullable().optional(),
        events: z.array(storedEvent).max(LIMITS.replayEventsMax),
      }),
    })
    .describe('All that is in (after, upto].'),
  z.strictObject({ event: z.literal('log_entry'), id, data: storedEntry }).describe('A new entry of the device log.'),
  z
    .strictObject({ event: z.literal('reset'), id, data: reset.extend({ history_id: key, head_position: count }) })
    .describe('The place cannot be honoured; it goes on from from_position.'),
  z
    .strictObject({ event: z.literal('presence'), data: z.strictObject({ devices: z.array(onlineDevice).max(256) }) })
    .describe('Who is online: all at first, then changes.'),
  z
    .strictObject({ event: z.literal('going_away'), retry, data: z.strictObject({ retry_after_ms: count }) })
    .describe('The server will close soon.'),
  z
    .strictObject({ event: z.literal('closed'), data: z.strictObject({ code: z.int().min(1_000).max(4_999), name, says: z.string() }) })
    .describe('The last one; codes as those of the socket.'),
])

const FOLLOW_ID = encodeFollowId({
  cursor: { position: 42, event_id: EVENT_ID, received_at: TIME_MS, history_id: HISTORY_ID },
  log_seq: 1,
})
const text = (event: string, data: object, more = ''): string => `event: ${event}\n${more}data: ${JSON.stringify(data)}\n\n`
const draining = { code: CLOSE.draining.code, name: 'draining', says: CLOSE.draining.says }

export const FOLLOW_CONTRACT = {
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
    item: message,
    example: [
      'retry: 3000\n\n',
      text('event', { after: 41, upto: 42, events: [STORED] }, `id: ${FOLLOW_ID}\n`),
      text('log_entry', { body: LOG_ENTRY.body, sig: LOG_ENTRY.sig, box: BOX }, `id: ${FOLLOW_ID}\n`),
      text('reset', { reason: 'history_changed', history_id: HISTORY_ID, head_position: 42, from_position: 0 }, `id: ${FOLLOW_ID}\n`),
      text('presence', { devices: [{ device_id: DEVICE_ID, online: true, last_seen: TIME_MS }] }),
      ':\n\n',
      text('going_away', { retry_after_ms: 1_200 }, 'retry: 1200\n'),
      text('closed', draining),
    ].join(''),
    headers: { 'x-accel-buffering': 'Always `no`: a proxy that would hold messages back is asked not to.' },
  },
  problems: [],
  example: { query: { after_position: 41, ...CURSOR, log_seq: 1 }, headers: { 'last-event-id': FOLLOW_ID } },
} as const satisfies Contract
