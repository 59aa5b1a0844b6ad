/** Contracts of invites. */
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { TIME_MS } from '../../http/examples.ts'
import { count, uuid } from '../../http/fields.ts'
import { encodePlace } from '../cursor.ts'
import { done, json, nextCursor, note, page, timeMs, timeMsOrNull } from '../fields.ts'

const INVITE_ID = '4c1b0a9e-8f70-4d6c-b5a4-93827160514f'
const invite = z.strictObject({
  invite_id: uuid,
  created_at: timeMs,
  expires_at: timeMs,
  revoked_at: timeMsOrNull,
  uses_max: count,
  uses: count,
  note: z.string().nullable(),
})
const INVITE = {
  invite_id: INVITE_ID,
  created_at: TIME_MS,
  expires_at: TIME_MS + 604_800_000,
  revoked_at: null,
  uses_max: 1,
  uses: 0,
  note: 'for the new colleague',
}

export const INVITE_CONTRACTS = {
  list_invites: {
    query: z.strictObject(page),
    answer: json(z.strictObject({ invites: z.array(invite), next_cursor: nextCursor }), { invites: [INVITE], next_cursor: null }),
    problems: [],
    example: { query: { limit: 100, cursor: encodePlace({ at: TIME_MS, id: INVITE_ID }) } },
  },
  create_invite: {
    body: z.strictObject({
      uses: count.min(1).max(100_000),
      expires_in_s: count.min(60).max(31_622_400),
      note: note.nullable(),
    }),
    answer: json(z.strictObject({ invite, code: z.string().describe('Shown this once; whoever has it may create an account.') }), {
      invite: INVITE,
      code: 'Zr8l0bVq3m1x7s5k9d2fwA',
    }),
    problems: [],
    example: { body: { uses: 1, expires_in_s: 604_800, note: 'for the new colleague' } },
  },
  revoke_invite: {
    params: z.strictObject({ invite_id: uuid.describe('An invite of `list_invites`.') }),
    answer: done,
    problems: ['not_found'],
    example: { params: { invite_id: INVITE_ID } },
  },
} as const satisfies Record<string, Contract>
