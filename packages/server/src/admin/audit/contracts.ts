/** Contracts of the audit log. */
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { LOG_HEAD, SERVER_KEY, SIGNATURE, TIME_MS } from '../../http/examples.ts'
import { auditFields, count, key, signature } from '../../http/fields.ts'
import { ADMIN_ID, adminId, nextCursor, page, timeMs } from '../fields.ts'

const auditRow = z.strictObject({
  ...auditFields,
  user_hash: key.nullable().describe('SHA-256 of the user_id.'),
  hash: key.describe('Of this row and of the hash before.'),
})
const AUDIT_ROW = {
  seq: 4_711,
  at: TIME_MS,
  actor: `admin:${ADMIN_ID}`,
  action: 'suspend_user',
  outcome: 'done',
  target: null,
  request_id: '3f1c1d0a-7f0e-4f5e-9a55-0c7d3f6f4f3b',
  address: '203.0.113.7',
  detail: '{"reason":"abuse report 4711"}',
  user_hash: LOG_HEAD,
  hash: SERVER_KEY,
}

export const AUDIT_CONTRACTS = {
  list_audit: {
    query: z.strictObject({
      ...page,
      order: z.enum(['oldest', 'newest']).optional().describe('Which come first; the oldest without it.'),
      action: z
        .string()
        .regex(/^[a-z_]{1,64}$/)
        .optional()
        .describe('Only this action.'),
      admin_id: adminId.optional().describe('Only what this admin did.'),
      user_id: key.optional().describe('Only what is about this account.'),
    }),
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ rows: z.array(auditRow), next_cursor: nextCursor }),
      example: { rows: [AUDIT_ROW], next_cursor: null },
    },
    problems: [],
    example: {
      query: { order: 'newest', action: 'suspend_user', admin_id: ADMIN_ID, user_id: SERVER_KEY, limit: 100, cursor: 'NDcxMQ' },
    },
  },
  read_audit_head: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        seq: count,
        hash: key,
        checkpoints: z.array(z.strictObject({ seq: count, at: timeMs, hash: key, sig: signature })),
      }),
      example: { seq: 4_711, hash: SERVER_KEY, checkpoints: [{ seq: 4_000, at: TIME_MS, hash: LOG_HEAD, sig: SIGNATURE }] },
    },
    problems: [],
  },
} as const satisfies Record<string, Contract>
