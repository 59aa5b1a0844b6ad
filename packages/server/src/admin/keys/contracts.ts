/** Contracts of the keys that sign tokens. */
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { KID, TIME_MS } from '../../http/examples.ts'
import { done, timeMs, timeMsOrNull } from '../fields.ts'

export const KEY_CONTRACTS = {
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
} as const satisfies Record<string, Contract>
