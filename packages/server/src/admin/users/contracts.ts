/** Contracts of what operators see of accounts, and decide. */
import { LIMITS } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { DEVICE_ID, SESSION_ID, TIME_MS, USER_ID } from '../../http/examples.ts'
import { count, key, uuid } from '../../http/fields.ts'
import { encodePlace } from '../cursor.ts'
import { done, nextCursor, note, page, timeMs, timeMsOrNull } from '../fields.ts'

const userId = key.describe('The account.')
const userParams = z.strictObject({ user_id: userId })
const deviceParams = z.strictObject({ user_id: userId, device_id: uuid.describe('A device of this account.') })

const quota = {
  bytes: count.nullable().describe('Stored bytes; null = as configured.'),
  streams: count.max(1_000_000).nullable().describe('Null = as configured.'),
  devices: count.min(1).max(LIMITS.devicesPerUserMax).nullable().describe('Active ones; null = as configured.'),
}

const user = z.strictObject({
  user_id: key,
  created_at: timeMs,
  suspended_at: timeMsOrNull,
  last_activity: timeMsOrNull,
  log_seq: count,
  floor: count,
  head_position: count,
  events: count,
  stored_bytes: count,
  devices: count.describe('Active ones.'),
  quota: z.strictObject(quota),
})

const USER = {
  user_id: USER_ID,
  created_at: TIME_MS,
  suspended_at: null,
  last_activity: TIME_MS,
  log_seq: 1,
  floor: 0,
  head_position: 4_711,
  events: 4_711,
  stored_bytes: 1_204_224,
  devices: 2,
  quota: { bytes: null, streams: null, devices: null },
}

const device = z.strictObject({
  device_id: uuid,
  name: z.string(),
  device_type: z.enum(['mobile', 'desktop', 'web']),
  state: z.enum(['active', 'suspended', 'revoked']),
  suspended_at: timeMsOrNull,
  revoked_log_seq: count.nullable(),
  last_seen: timeMsOrNull,
  has_session: z.boolean().describe('Some node holds a session of it.'),
})

const DEVICE = {
  device_id: DEVICE_ID,
  name: 'laptop',
  device_type: 'desktop',
  state: 'active',
  suspended_at: null,
  revoked_log_seq: null,
  last_seen: TIME_MS,
  has_session: true,
}

const session = z.strictObject({
  session_id: z.string(),
  user_id: key,
  device_id: uuid,
  role: z.enum(['device', 'reader']),
  opened_at: timeMs,
  position: count.describe('Up to here the device was told.'),
  log_seq: count,
})

const because = z.strictObject({ reason: note.optional().describe('Written into the audit log.') })
const BECAUSE = { reason: 'abuse report 4711' }
const OF_USER = { params: { user_id: USER_ID } }
const OF_DEVICE = { params: { user_id: USER_ID, device_id: DEVICE_ID } }

export const USER_CONTRACTS = {
  list_users: {
    query: z.strictObject({ ...page, state: z.enum(['active', 'suspended']).optional().describe('Only these.') }),
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ users: z.array(user), next_cursor: nextCursor }),
      example: { users: [USER], next_cursor: null },
    },
    problems: [],
    example: { query: { state: 'active', limit: 100, cursor: 'NDcxMQ' } },
  },
  read_user: {
    params: userParams,
    answer: { status: 200, media: 'application/json', schema: user, example: USER },
    problems: ['not_found'],
    example: OF_USER,
  },
  list_user_devices: {
    params: userParams,
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ devices: z.array(device) }),
      example: { devices: [DEVICE] },
    },
    problems: ['not_found'],
    example: OF_USER,
  },
  suspend_user: { params: userParams, body: because, answer: done, problems: ['not_found'], example: { ...OF_USER, body: BECAUSE } },
  resume_user: { params: userParams, body: because, answer: done, problems: ['not_found'], example: { ...OF_USER, body: BECAUSE } },
  disconnect_user: { params: userParams, body: because, answer: done, problems: ['not_found'], example: { ...OF_USER, body: BECAUSE } },
  suspend_device: { params: deviceParams, body: because, answer: done, problems: ['not_found'], example: { ...OF_DEVICE, body: BECAUSE } },
  resume_device: { params: deviceParams, body: because, answer: done, problems: ['not_found'], example: { ...OF_DEVICE, body: BECAUSE } },
  disconnect_device: {
    params: deviceParams,
    body: because,
    answer: done,
    problems: ['not_found'],
    example: { ...OF_DEVICE, body: BECAUSE },
  },
  set_user_quota: {
    params: userParams,
    body: z.strictObject(quota),
    answer: done,
    problems: ['not_found'],
    example: { ...OF_USER, body: { bytes: 1_073_741_824, streams: null, devices: null } },
  },
  delete_user: {
    params: userParams,
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ deleted: z.record(z.string(), count).describe('Rows per table.') }),
      example: { deleted: { event: 4_711, device: 2, account: 1 } },
    },
    problems: ['not_found'],
    example: OF_USER,
  },
  list_sessions: {
    query: z.strictObject({ user_id: key.optional().describe('Of this account only.'), ...page }),
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ sessions: z.array(session), total: count, next_cursor: nextCursor }),
      example: {
        sessions: [
          {
            session_id: SESSION_ID,
            user_id: USER_ID,
            device_id: DEVICE_ID,
            role: 'device',
            opened_at: TIME_MS,
            position: 4_711,
            log_seq: 1,
          },
        ],
        total: 1,
        next_cursor: null,
      },
    },
    problems: [],
    example: { query: { user_id: USER_ID, limit: 100, cursor: encodePlace({ at: TIME_MS, id: SESSION_ID }) } },
  },
} as const satisfies Record<string, Contract>
