/** Contracts of jobs: what comes back by itself. */
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { TIME_MS } from '../../http/examples.ts'
import { count } from '../../http/fields.ts'
import { done, json, timeMs } from '../fields.ts'

const job = z
  .string()
  .regex(/^[a-z_]{1,64}$/)
  .describe('A job of `list_jobs`.')

export const JOB_CONTRACTS = {
  list_jobs: {
    answer: json(
      z.strictObject({
        jobs: z.array(
          z.strictObject({
            job,
            every_ms: count,
            last_run: z
              .strictObject({ began_at: timeMs, ms: count, rows: count, bytes: count, ended: z.enum(['done', 'taken', 'held', 'failed']) })
              .nullable(),
          }),
        ),
      }),
      {
        jobs: [{ job: 'expired_events', every_ms: 60_000, last_run: { began_at: TIME_MS, ms: 12, rows: 3, bytes: 4_096, ended: 'done' } }],
      },
    ),
    problems: [],
  },
  run_job: {
    params: z.strictObject({ job }),
    body: z.strictObject({}),
    answer: done,
    problems: ['not_found'],
    example: { params: { job: 'expired_events' }, body: {} },
  },
} as const satisfies Record<string, Contract>
