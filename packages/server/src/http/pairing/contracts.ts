/** Contracts of the pairing mailbox. */
import { LIMITS, PAIRING_SLOTS } from '@sealpost/protocol'
import { z } from 'zod'
import type { Contract } from '../contract.ts'
import { MAILBOX_ID, SLOT_BYTES } from '../examples.ts'
import { countText, mailboxId } from '../fields.ts'

/** iv 12 + tag 16: nothing shorter can be a box. */
export const BOX_BYTES_MIN = 28

const mailbox_id = mailboxId.describe('Derived from the pairing code; who knows it has the code.')

const put = {
  params: z.strictObject({ mailbox_id }),
  bytesMin: BOX_BYTES_MIN,
  answer: { status: 204, media: 'application/octet-stream' },
  example: { params: { mailbox_id: MAILBOX_ID }, body: SLOT_BYTES },
} as const satisfies Omit<Contract, 'problems'>

export const PAIRING_CONTRACTS = {
  put_offer: { ...put, problems: ['slot_taken'] },
  put_join: { ...put, problems: ['slot_taken', 'not_found'] },
  put_reveal: { ...put, problems: ['slot_taken', 'not_found'] },
  put_done: { ...put, problems: ['slot_taken', 'not_found'] },
  read_slot: {
    params: z.strictObject({ mailbox_id, slot: z.enum(PAIRING_SLOTS).describe('Which of the four.') }),
    query: z.strictObject({
      wait: countText(0, LIMITS.pairingWaitSeconds).optional().describe('Seconds to wait for a slot that is empty; 0 by default.'),
    }),
    answer: {
      status: 200,
      media: 'application/octet-stream',
      bytes: [BOX_BYTES_MIN, LIMITS.pairingSlotBytesMax],
      example: SLOT_BYTES,
    },
    problems: ['not_found'],
    example: { params: { mailbox_id: MAILBOX_ID, slot: 'offer' }, query: { wait: 25 } },
  },
} as const satisfies Record<string, Contract>
