/** Contracts of tokens. */
import { z } from 'zod'
import type { Contract } from './contract.ts'
import { assertion, count } from './fields.ts'

export const AUTH_CONTRACTS = {
  create_token: {
    body: assertion,
    answer: { status: 200, media: 'application/json', schema: z.strictObject({ access_token: z.string(), expires_in: count }) },
    problems: ['device_revoked'],
  },
} as const satisfies Record<string, Contract>
