/** Contracts of devices and of who is connected. */
import { z } from 'zod'
import type { Contract } from '../contract.ts'
import { DEVICE_ID, LOG_ENTRY, LOG_HEAD, OTHER_DEVICE_ID, TIME_MS } from '../examples.ts'
import { count, deviceId, key, logEntry, onlineDevice, uuid } from '../fields.ts'

const device = z.strictObject({
  device_id: uuid,
  name: z.string().min(1).max(512),
  device_type: z.enum(['mobile', 'desktop', 'web']),
  added_log_seq: count,
  revoked_log_seq: count.nullable().describe('Null while the device is active.'),
  online: z.boolean(),
  last_seen: count.nullable().describe('Time in ms; null = never.'),
  this_device: z.boolean(),
})

const LAPTOP = {
  device_id: DEVICE_ID,
  name: 'laptop',
  device_type: 'desktop',
  added_log_seq: 0,
  revoked_log_seq: null,
  online: true,
  last_seen: TIME_MS,
  this_device: true,
}
const PHONE = {
  ...LAPTOP,
  device_id: OTHER_DEVICE_ID,
  name: 'phone',
  device_type: 'mobile',
  added_log_seq: 1,
  online: false,
  this_device: false,
}

const ETAG = { etag: 'Of what the device log says of the device; for If-Match.' }
const ifMatch = z.strictObject({ 'if-match': z.string().max(256).optional().describe('The etag of the device as the caller last saw it.') })
const params = z.strictObject({ device_id: deviceId })
const path = { device_id: OTHER_DEVICE_ID }
const changed = {
  status: 200,
  media: 'application/json',
  schema: z.strictObject({ log_seq: count, log_head: key, device }),
  headers: ETAG,
} as const
const refused = ['not_found', 'forbidden', 'account_gone', 'log_conflict', 'invalid_entry', 'unknown_version', 'invalid_encoding'] as const

export const DEVICE_CONTRACTS = {
  list_devices: {
    query: z.strictObject({ revoked: z.enum(['true', 'false']).optional().describe('Whether the revoked ones are listed too.') }),
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ devices: z.array(device).max(1_000), log_seq: count, log_head: key }),
      example: { devices: [LAPTOP, PHONE], log_seq: 1, log_head: LOG_HEAD },
    },
    problems: [],
    example: { query: { revoked: 'true' } },
  },
  read_device: {
    params,
    answer: { status: 200, media: 'application/json', schema: device, example: PHONE, headers: ETAG },
    problems: ['not_found'],
    example: { params: path },
  },
  rename_device: {
    params,
    headers: ifMatch,
    body: logEntry,
    answer: { ...changed, example: { log_seq: 3, log_head: LOG_HEAD, device: { ...PHONE, name: 'pocket phone' } } },
    problems: [...refused, 'name_taken', 'precondition_failed'],
    example: { params: path, headers: { 'if-match': '"q83vEjRWeJCrze8SNFZ4kA"' }, body: LOG_ENTRY },
  },
  revoke_device: {
    params,
    headers: ifMatch,
    body: logEntry,
    answer: { ...changed, example: { log_seq: 4, log_head: LOG_HEAD, device: { ...PHONE, revoked_log_seq: 4 } } },
    problems: [...refused, 'heads_stale', 'precondition_failed'],
    example: { params: path, headers: { 'if-match': '"q83vEjRWeJCrze8SNFZ4kA"' }, body: LOG_ENTRY },
  },
  read_connection_status: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        online: count,
        devices: z.array(onlineDevice).max(1_000),
      }),
      example: { online: 1, devices: [{ device_id: DEVICE_ID, online: true, last_seen: TIME_MS }] },
    },
    problems: [],
  },
} as const satisfies Record<string, Contract>
