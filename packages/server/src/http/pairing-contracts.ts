/** Contracts of the pairing mailbox. */
import { LIMITS, PAIRING_SLOTS } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from './contract.ts'
import { countText, mailboxId } from './fields.ts'

const EXAMPLE = { mailbox_id: 'q83vEjRWeJCrze8SNFZ4kA' }

const put = {
  params: z.strictObject({ mailbox_id: mailboxId }),
  answer: { status: 204, media: 'application/octet-stream' },
  example: { params: EXAMPLE },
} as const satisfies Omit<Contract, 'problems'>

export const PAIRING_CONTRACTS = {
  put_offer: { ...put, problems: ['slot_taken'] },
  put_join: { ...put, problems: ['slot_taken', 'not_found'] },
  put_reveal: { ...put, problems: ['slot_taken', 'not_found', 'forbidden'] },
  put_done: { ...put, problems: ['slot_taken', 'not_found', 'forbidden'] },
  read_slot: {
    params: z.strictObject({ mailbox_id: mailboxId, slot: z.enum(PAIRING_SLOTS) }),
    query: z.strictObject({ wait: countText(0, LIMITS.pairingWaitSeconds).optional() }),
    answer: { status: 200, media: 'application/octet-stream' },
    problems: ['not_found'],
    example: { params: { ...EXAMPLE, slot: 'offer' }, query: { wait: '25' } },
  },
} as const satisfies Record<string, Contract>
