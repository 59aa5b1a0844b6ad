/** Contracts of what may be set while the relay runs: sign-up, limits, the log level. */
import { z } from 'zod'
import { LOG_LEVELS, SIGNUP } from '../../config/variables.ts'
import type { Contract } from '../../http/contract.ts'
import { count } from '../../http/fields.ts'
import { RATES } from '../../limits/rules.ts'
import { done, json } from '../fields.ts'

const rule = z.enum(Object.keys(RATES) as [string, ...string[]]).describe('A rate of `list_limits`.')
const by = z.enum(['configuration', 'operator']).describe('By what it is ruled now.')

export const SETTING_CONTRACTS = {
  read_signup: { answer: json(z.strictObject({ signup: z.enum(SIGNUP), by }), { signup: 'invite', by: 'operator' }), problems: [] },
  set_signup: {
    body: z.strictObject({ signup: z.enum(SIGNUP).nullable() }),
    answer: done,
    problems: [],
    example: { body: { signup: 'invite' } },
  },
  list_limits: {
    answer: json(
      z.strictObject({
        limits: z.array(
          z.strictObject({
            rule,
            per: z.string(),
            seconds: count,
            points: count.describe('In force.'),
            by,
            says: z.string(),
          }),
        ),
      }),
      { limits: [{ rule: 'genesis', per: 'address', seconds: 3_600, points: 10, by: 'configuration', says: 'new accounts' }] },
    ),
    problems: [],
  },
  set_limit: {
    params: z.strictObject({ rule }),
    body: z.strictObject({ points: count.min(1).max(1_000_000_000).nullable() }),
    answer: done,
    problems: [],
    example: { params: { rule: 'genesis' }, body: { points: 100 } },
  },
  read_log_level: {
    answer: json(z.strictObject({ log_level: z.enum(LOG_LEVELS), by }), { log_level: 'info', by: 'configuration' }),
    problems: [],
  },
  set_log_level: {
    body: z.strictObject({ log_level: z.enum(LOG_LEVELS).nullable() }),
    answer: done,
    problems: [],
    example: { body: { log_level: 'debug' } },
  },
} as const satisfies Record<string, Contract>
