/** Contracts of the device log. */
import { LIMITS } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from '../contract.ts'
import { ASSERTION, BOX, LOG_ENTRY, LOG_HEAD } from '../examples.ts'
import { assertion, boxes, count, key, logEntry, storedEntry } from '../fields.ts'

/** In a repair the boxes may be fewer than those that were signed. */
const entryWithProof = logEntry.extend({
  boxes,
  proof: assertion,
  invite: z.string().max(256).optional(),
  repair: z.boolean().optional(),
})

export const LOG_CONTRACTS = {
  append_log: {
    body: entryWithProof,
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({ log_seq: count, log_head: key }),
      example: { log_seq: 3, log_head: LOG_HEAD },
    },
    example: { body: { ...LOG_ENTRY, proof: ASSERTION } },
    problems: [
      'signup_closed',
      'suspended',
      'account_gone',
      'not_found',
      'log_conflict',
      'heads_stale',
      'name_taken',
      'invalid_entry',
      'unknown_version',
      'invalid_encoding',
    ],
  },
  read_log: {
    body: assertion,
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        entries: z.array(storedEntry).max(LIMITS.logEntriesPageMax),
        has_more: z.boolean(),
      }),
      example: { entries: [{ body: LOG_ENTRY.body, sig: LOG_ENTRY.sig, box: BOX }], has_more: false },
    },
    problems: ['not_found', 'account_gone', 'suspended'],
    example: { body: ASSERTION },
  },
} as const satisfies Record<string, Contract>
