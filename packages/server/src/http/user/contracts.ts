/** Contracts of the account: its figures and its end. */
import { z } from 'zod'
import type { Contract } from '../contract.ts'
import { ASSERTION, HISTORY_ID, LOG_HEAD, TIME_MS, USER_ID } from '../examples.ts'
import { assertion, count, key } from '../fields.ts'

const user = z.strictObject({
  user_id: key,
  created_at: count.describe('Time in ms.'),
  last_activity: count.nullable().describe('Time in ms when a device of the account was last seen.'),
  log_seq: count,
  log_head: key,
  devices: count,
  streams: count,
  events: count,
  stored_bytes: count.describe('Bytes of records.'),
  quota_bytes: count.nullable().describe('From here on nothing more is stored; null = no quota.'),
  head_position: count,
  floor: count,
  history_id: z.string(),
})

export const USER_CONTRACTS = {
  read_user: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: user,
      example: {
        user_id: USER_ID,
        created_at: TIME_MS,
        last_activity: TIME_MS,
        log_seq: 1,
        log_head: LOG_HEAD,
        devices: 2,
        streams: 1,
        events: 4_711,
        stored_bytes: 1_204_224,
        quota_bytes: 1_073_741_824,
        head_position: 4_711,
        floor: 0,
        history_id: HISTORY_ID,
      },
    },
    problems: [],
  },
  delete_user: {
    body: assertion,
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ deleted: z.record(z.string(), count).describe('Rows per table.') }),
      example: { deleted: { event: 4_711, head: 2, stream: 1, log_box: 5, log_entry: 2, device_profile: 2, device: 2, account: 1 } },
    },
    problems: ['device_revoked', 'suspended'],
    example: { body: ASSERTION },
  },
} as const satisfies Record<string, Contract>
