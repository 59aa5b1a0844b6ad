/** Contracts of admins and of the audit log. */
import { ROLES, toBase64url, utf8 } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { KID, LOG_HEAD, SERVER_KEY, SIGNATURE, TIME_MS } from '../../http/examples.ts'
import { auditFields, base64url, count, key, signature } from '../../http/fields.ts'
import { adminId, done, givenName, nextCursor, page, role, timeMs, timeMsOrNull } from '../fields.ts'

const ADMIN_ID = 'dJ5rO0Wc3x2r0b9m4nq1uA'
const params = z.strictObject({ admin_id: adminId })
const OF_ADMIN = { params: { admin_id: ADMIN_ID } }

const admin = z.strictObject({ admin_id: adminId, name: z.string(), role, public_key: key, created_at: timeMs, removed_at: timeMsOrNull })
const ADMIN = { admin_id: ADMIN_ID, name: 'grace', role: 'operator', public_key: SERVER_KEY, created_at: TIME_MS, removed_at: null }

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

export const ADMIN_CONTRACTS = {
  create_admin_token: {
    body: z.strictObject({ body: base64url(5_464), sig: signature }),
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ access_token: z.string(), token_type: z.literal('Bearer'), expires_in: count, role }),
      example: {
        access_token: 'eyJhbGciOiJFZDI1NTE5IiwidHlwIjoiYXQrand0In0.e30.c2ln',
        token_type: 'Bearer',
        expires_in: 300,
        role: 'operator',
      },
    },
    problems: [],
    example: {
      body: {
        body: toBase64url(utf8(JSON.stringify({ purpose: 'admin-token', aud: SERVER_KEY, admin_key: LOG_HEAD, iat: TIME_MS, jti: KID }))),
        sig: SIGNATURE,
      },
    },
  },
  read_self: { answer: { status: 200, media: 'application/json', schema: admin, example: ADMIN }, problems: [] },
  list_admins: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ admins: z.array(admin) }),
      example: { admins: [ADMIN] },
    },
    problems: [],
  },
  add_admin: {
    body: z.strictObject({ name: givenName, role, public_key: key }),
    answer: { status: 200, media: 'application/json', schema: admin, example: ADMIN },
    problems: ['admin_exists'],
    example: { body: { name: 'grace', role: ROLES[1], public_key: SERVER_KEY } },
  },
  set_admin_role: {
    params,
    body: z.strictObject({ role }),
    answer: done,
    problems: ['not_found', 'last_owner'],
    example: { ...OF_ADMIN, body: { role: 'viewer' } },
  },
  remove_admin: { params, answer: done, problems: ['not_found', 'last_owner'], example: OF_ADMIN },
  list_signing_keys: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        keys: z.array(
          z.strictObject({
            purpose: z.enum(['rest', 'admin']),
            kid: z.string(),
            state: z.enum(['next', 'active', 'retired']),
            created_at: timeMs,
            active_at: timeMsOrNull,
            retired_at: timeMsOrNull,
          }),
        ),
      }),
      example: { keys: [{ purpose: 'rest', kid: KID, state: 'active', created_at: TIME_MS, active_at: TIME_MS, retired_at: null }] },
    },
    problems: [],
  },
  rotate_signing_keys: {
    body: z.strictObject({ purpose: z.enum(['rest', 'admin']) }),
    answer: done,
    problems: [],
    example: { body: { purpose: 'rest' } },
  },
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
