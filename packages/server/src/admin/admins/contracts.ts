/** Contracts of admins: their tokens, who they are, and what owners decide of them. */
import { ROLES, toBase64url, utf8 } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { KID, LOG_HEAD, SERVER_KEY, SIGNATURE, TIME_MS } from '../../http/examples.ts'
import { base64url, count, key, signature } from '../../http/fields.ts'
import { ADMIN_ID, adminId, done, timeMs, timeMsOrNull } from '../fields.ts'
import { givenName, role } from './fields.ts'

const params = z.strictObject({ admin_id: adminId })
const OF_ADMIN = { params: { admin_id: ADMIN_ID } }

const admin = z.strictObject({ admin_id: adminId, name: z.string(), role, public_key: key, created_at: timeMs, removed_at: timeMsOrNull })
const ADMIN = { admin_id: ADMIN_ID, name: 'grace', role: 'operator', public_key: SERVER_KEY, created_at: TIME_MS, removed_at: null }

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
} as const satisfies Record<string, Contract>
