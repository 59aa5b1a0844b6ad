/** Parts that the contracts of admin routes share. */
import { ROLES } from '@sealpost/protocol'
import { z } from 'zod'
import { count, countText, key, uuid } from '../http/fields.ts'

export const adminId = z
  .string()
  .regex(/^[A-Za-z0-9_-]{22}$/)
  .describe('An admin: what its key is called by.')
export const role = z.enum(ROLES)
/** How an admin is called: by people, in lists and in the audit log. The last four look like nothing, and count as letters. */
export const givenName = z
  .string()
  .min(1)
  .max(64)
  .regex(/^(?!.*[\u115F\u1160\u3164\uFFA0])[\p{L}\p{N}][\p{L}\p{N} ._@-]*$/u)
/** What a person writes down, in one line; nothing that steers a terminal, turns a line round or cannot be seen. */
export const note = z
  .string()
  .max(200)
  .regex(/^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u115F\u1160\u3164\uFFA0]*$/u)
const userId = key.describe('The account.')
export const userParams = z.strictObject({ user_id: userId })
export const deviceParams = z.strictObject({ user_id: userId, device_id: uuid.describe('A device of this account.') })
export const nothing = z.strictObject({})
/** Where a page ended: what the next one is asked with. Opaque. */
export const cursor = z
  .string()
  .max(200)
  .regex(/^[A-Za-z0-9_-]+$/)
  .describe('Where the page before ended: its `next_cursor`.')
export const nextCursor = cursor.nullable().describe('Asks for the next page; null at the end.')
export const PAGE = 100
export const page = {
  cursor: cursor.optional(),
  limit: countText(1, 1_000).optional().describe(`Rows at most; ${PAGE} without it.`),
}
export const timeMs = count.describe('Time in ms.')
export const timeMsOrNull = count.nullable().describe('Time in ms.')

export const done = {
  status: 200,
  media: 'application/json',
  schema: z.strictObject({ done: z.literal(true) }),
  example: { done: true },
} as const
