/**
 * The pairing mailbox (protocol.md §10): four slots of sealed bytes for 10 minutes. The server sees the mailbox id and boxes;
 * `offer`, `reveal` and `done` need a token of the creator, `join` the mailbox id alone, and a slot is filled once.
 */
import { type Bytes, fromBase64url, type PairingSlot, SealpostError } from '@sealpost/protocol'
import type { PairingStore } from '../../ports/store.ts'
import type { Answer, Caller, RouteAnswers, RouteCall } from '../call.ts'
import { BOX_BYTES_MIN, type PAIRING_CONTRACTS } from './contracts.ts'
import type { RateLimits } from '../../limits/rate-limits.ts'
import type { SlotWaits } from './slot-waits.ts'

type Call<N extends keyof typeof PAIRING_CONTRACTS> = RouteCall<typeof PAIRING_CONTRACTS, N>

export type PairingRouteDeps = { store: PairingStore; limits: RateLimits; waits: SlotWaits }

/** Who asked for too many mailboxes that are not there learns of none that is (B02). */
async function guard({ limits }: PairingRouteDeps, address: string | null): Promise<Answer | null> {
  const retry_after_ms = await limits.take('mailbox_miss', address)
  if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
  return null
}

/** What was there does not count. */
async function missed({ limits }: PairingRouteDeps, address: string | null, answer: Answer): Promise<Answer> {
  if (!('problem' in answer && answer.problem.code === 'not_found')) await limits.giveBack('mailbox_miss', address)
  return answer
}

/** How often a waiter looks for a put on another node. */
const LOOK_AGAIN_MS = 2_000

export function createPairingRoutes(deps: PairingRouteDeps): RouteAnswers<typeof PAIRING_CONTRACTS> {
  return {
    put_offer: async ({ params, body, caller }) => {
      const retry_after_ms = await deps.limits.take('offer', caller.user_id)
      if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
      return putSlot(deps, params.mailbox_id, 'offer', body, caller)
    },
    put_join: async ({ params, body, address }) => {
      const guesses = await guard(deps, address)
      return guesses ?? missed(deps, address, await putSlot(deps, params.mailbox_id, 'join', body, null))
    },
    put_reveal: ({ params, body, caller }) => putSlot(deps, params.mailbox_id, 'reveal', body, caller),
    put_done: ({ params, body, caller }) => putSlot(deps, params.mailbox_id, 'done', body, caller),
    read_slot: async (call) => (await guard(deps, call.address)) ?? missed(deps, call.address, await readSlot(deps, call)),
  }
}

async function putSlot(deps: PairingRouteDeps, mailbox: string, slot: PairingSlot, box: Bytes, creator: Caller | null): Promise<Answer> {
  const mailbox_id = checkMailbox(mailbox)
  if (box.length < BOX_BYTES_MIN) throw new SealpostError('invalid_request', 'a slot holds sealed bytes, sent as application/octet-stream')
  const result = await deps.store.putSlot(mailbox_id, slot, box, creator)
  // a mailbox of somebody else is none: whoever asks must not learn that it is there
  if (result !== 'ok') return { problem: { code: result === 'forbidden' ? 'not_found' : result } }
  deps.waits.wake(`${mailbox_id}/${slot}`)
  return { empty: true }
}

async function readSlot(deps: PairingRouteDeps, call: Call<'read_slot'>): Promise<Answer> {
  const { slot } = call.params
  const mailbox_id = checkMailbox(call.params.mailbox_id)
  const { wait = 0 } = call.query
  const retry_after_ms = await deps.limits.take('mailbox', mailbox_id)
  if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }

  const until = performance.now() + wait * 1_000
  for (;;) {
    const left = until - performance.now()
    // registered before the read: a put in between wakes it
    const waiting = left > 0 ? deps.waits.wait(`${mailbox_id}/${slot}`, Math.min(left, LOOK_AGAIN_MS), call.gone) : null
    try {
      const box = await deps.store.readSlot(mailbox_id, slot)
      if (box !== null) return { bytes: box }
      if (waiting === null) return { problem: { code: 'not_found' } }
      await waiting.over
    } finally {
      waiting?.cancel()
    }
  }
}

function checkMailbox(mailbox_id: string): string {
  try {
    fromBase64url(mailbox_id, 16)
  } catch (cause) {
    throw new SealpostError('invalid_request', 'mailbox_id has 22 characters of base64url', { cause })
  }
  return mailbox_id
}
