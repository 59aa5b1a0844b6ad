/** Contracts of the routes that say what the server is and how it is. */
import { z } from 'zod'
import type { Contract } from '../contract.ts'
import { count, key, signature } from '../fields.ts'

export const STATUS_CONTRACTS = {
  read_server: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        server_key: key,
        chain: z.array(z.strictObject({ key, not_before: count, sig: signature })).max(64),
      }),
      example: { server_key: '7UkoxijRwsbq6QM4kFmVYSlZJzpdY_k2NsFGFKyHN9E', chain: [] },
    },
    problems: [],
  },
  live: {
    answer: { status: 200, media: 'application/json', schema: z.strictObject({ status: z.literal('live') }), example: { status: 'live' } },
    problems: [],
  },
  ready: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ status: z.enum(['ready', 'degraded']) }),
      example: { status: 'ready' },
    },
    problems: [],
  },
} as const satisfies Record<string, Contract>
