/** The contract of an export (docs/export.md): one kind of line for each kind of row. */
import { PAIRING_SLOTS } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from '../contract.ts'
import { STORED, storedEvent } from '../event-fields.ts'
import { BOX, DEVICE_ID, HISTORY_ID, LOG_ENTRY, LOG_HEAD, MAILBOX_ID, SERVER_KEY, SESSION_ID, TIME_MS, USER_ID } from '../examples.ts'
import { auditFields, base64url, boxes, count, key, logEntry, mailboxId, uuid } from '../fields.ts'

const time = count.describe('Time in ms.')
/** Null: it was never. */
const timeOrNever = time.nullable()

/** A line of an export (docs/export.md). */
export const EXPORT_LINE = z.discriminatedUnion('kind', [
  z
    .strictObject({ kind: z.literal('export'), format: z.literal(1), user_id: key, server_key: key, history_id: key, exported_at: time })
    .describe('The first line.'),
  z.strictObject({
    kind: z.literal('account'),
    created_at: time,
    last_activity: timeOrNever,
    log_seq: count,
    log_head: key,
    floor: count,
    head_position: count,
    stored_bytes: count,
    suspended_at: timeOrNever,
    quota_bytes: count.nullable(),
    quota_streams: count.nullable(),
    quota_devices: count.nullable(),
  }),
  z.strictObject({
    kind: z.literal('device'),
    device_id: uuid,
    name: z.string().min(1).max(512),
    device_type: z.enum(['mobile', 'desktop', 'web']),
    sign_pub: key,
    added_log_seq: count,
    revoked_log_seq: count.nullable(),
    suspended_at: timeOrNever,
    cleared_at: timeOrNever,
    last_seen: timeOrNever,
    seen_position: count,
    last_device_seq: count,
    swept_device_seq: count,
    has_session: z.boolean(),
    token_version: count,
  }),
  z.strictObject({
    kind: z.literal('log_entry'),
    log_seq: count,
    stored_at: time,
    body: logEntry.shape.body,
    sig: logEntry.shape.sig,
    boxes,
  }),
  z.strictObject({
    kind: z.literal('stream'),
    stream_id: storedEvent.shape.stream_id,
    stream_seq: count,
    stored_bytes: count,
    swept_position: count,
  }),
  storedEvent.extend({ kind: z.literal('event'), tombstone: z.literal(true).optional() }),
  z.strictObject({
    kind: z.literal('refresh_family'),
    device_id: uuid,
    family_id: uuid,
    generation: count,
    created_at: time,
    rotated_at: timeOrNever,
    expires_at: time,
  }),
  z.strictObject({
    kind: z.literal('pairing'),
    mailbox_id: mailboxId,
    device_id: uuid.nullable(),
    expires_at: time,
    slot: z.enum(PAIRING_SLOTS).nullable(),
    box: base64url(5_464).nullable(),
  }),
  z.strictObject({ kind: z.literal('audit'), ...auditFields }),
  z
    .strictObject({ kind: z.literal('end'), counts: z.record(z.string(), count) })
    .describe('The last line, with the number of lines of each other kind. An export without it was broken off.'),
])

const FAMILY = { created_at: TIME_MS, rotated_at: null, expires_at: TIME_MS + 2_592_000_000 }
const EXAMPLE: z.input<typeof EXPORT_LINE>[] = [
  { kind: 'export', format: 1, user_id: USER_ID, server_key: SERVER_KEY, history_id: HISTORY_ID, exported_at: TIME_MS },
  {
    kind: 'account',
    created_at: TIME_MS,
    last_activity: TIME_MS,
    log_seq: 3,
    log_head: LOG_HEAD,
    floor: 0,
    head_position: 42,
    stored_bytes: 256,
    suspended_at: null,
    quota_bytes: null,
    quota_streams: null,
    quota_devices: null,
  },
  {
    kind: 'device',
    device_id: DEVICE_ID,
    name: 'laptop',
    device_type: 'desktop',
    sign_pub: SERVER_KEY,
    added_log_seq: 0,
    revoked_log_seq: null,
    suspended_at: null,
    cleared_at: null,
    last_seen: TIME_MS,
    seen_position: 42,
    last_device_seq: 7,
    swept_device_seq: 0,
    has_session: true,
    token_version: 0,
  },
  { kind: 'log_entry', log_seq: 3, stored_at: TIME_MS, ...LOG_ENTRY },
  { kind: 'stream', stream_id: 'clipboard', stream_seq: 3, stored_bytes: 256, swept_position: 0 },
  { kind: 'event', ...STORED },
  { kind: 'refresh_family', device_id: DEVICE_ID, family_id: SESSION_ID, generation: 0, ...FAMILY },
  { kind: 'pairing', mailbox_id: MAILBOX_ID, device_id: DEVICE_ID, expires_at: TIME_MS, slot: 'offer', box: BOX },
  {
    kind: 'audit',
    seq: 4_711,
    at: TIME_MS,
    actor: 'root',
    action: 'account_created',
    outcome: 'done',
    target: null,
    request_id: '3f1c1d0a-7f0e-4f5e-9a55-0c7d3f6f4f3b',
    address: '203.0.113.7',
    detail: '{"log_seq":0}',
  },
  { kind: 'end', counts: { account: 1, device: 1, log_entry: 1, stream: 1, event: 1, refresh_family: 1, pairing: 1, audit: 1 } },
]

export const EXPORT_CONTRACTS = {
  export_user: {
    answer: {
      status: 200,
      media: 'application/x-ndjson',
      item: EXPORT_LINE,
      example: EXAMPLE.map((row) => `${JSON.stringify(row)}\n`).join(''),
    },
    problems: [],
  },
} as const satisfies Record<string, Contract>
