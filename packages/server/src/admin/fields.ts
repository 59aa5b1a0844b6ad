/** Parts that the contracts of admin routes share. */
import { z } from 'zod'
import { count, countText } from '../http/fields.ts'

export const adminId = z
  .string()
  .regex(/^[A-Za-z0-9_-]{22}$/)
  .describe('An admin: what its key is called by.')
export const ADMIN_ID = 'dJ5rO0Wc3x2r0b9m4nq1uA'
/** What a person writes down, in one line; nothing that steers a terminal, turns a line round or cannot be seen. */
export const note = z
  .string()
  .max(200)
  .regex(/^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u115F\u1160\u3164\uFFA0]*$/u)
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

export const json = <S extends z.ZodType>(schema: S, example: z.input<S>) =>
  ({ status: 200, media: 'application/json', schema, example }) as const
