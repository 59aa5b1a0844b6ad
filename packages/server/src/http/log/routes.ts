/**
 * The device log over REST (protocol.md §10): any entry without a token, for its signature is the authority, and reading for
 * whoever signs as a device or as the root.
 *
 * `proof` keeps an entry from being posted by someone who only saw it: an assertion of the device that the entry introduces or of
 * its signer. In a repair the poster is any device that knows the entry; after a restore the store may not know that device
 * yet, and then the entry's own signature is all there is.
 */
import {
  type Assertion,
  type Bytes,
  decodeLogBody,
  decodeLogFrame,
  decodeWireEntry,
  encodeWireEntry,
  fromBase64url,
  LIMITS,
  type LogBody,
  readAssertion,
  toBase64url,
} from '@sealpost/protocol'
import type { AppendRequest, AppendResult, Bus, LogStore, SessionStore, Store } from '../../ports/store.ts'
import { type AssertionDeps, acceptAssertion, readClaims } from '../auth/assertions.ts'
import type { Answer, RouteAnswers, RouteCall } from '../call.ts'
import { appendAndTell } from '../../relay/sessions/log-append.ts'
import { logRefusal } from '../log-refusal.ts'
import type { Problem } from '../problems.ts'
import { SUSPENDED, standingProblem } from '../auth/standing.ts'
import type { Signup } from '../../config/settings.ts'
import { hashInviteCode } from './invite-code.ts'
import type { RateLimits } from '../../limits/rate-limits.ts'
import type { LOG_CONTRACTS } from './contracts.ts'

type Call<N extends keyof typeof LOG_CONTRACTS> = RouteCall<typeof LOG_CONTRACTS, N>

export type LogRouteDeps = AssertionDeps & {
  store: AssertionDeps['store'] & LogStore & Pick<SessionStore, 'findDevice'> & Pick<Store, 'history_id'>
  bus: Pick<Bus, 'publish'>
  signup(): Signup
  limits: RateLimits
}

export function createLogRoutes(deps: LogRouteDeps): RouteAnswers<typeof LOG_CONTRACTS> {
  return { append_log: (call) => append(deps, call), read_log: (call) => read(deps, call) }
}

async function append(deps: LogRouteDeps, call: Call<'append_log'>): Promise<Answer> {
  const { body, sig, boxes, proof, invite, repair = false } = call.body
  let invite_hash: Bytes | null = null
  if (repair) {
    const retry_after_ms = await deps.limits.take('repair_address', call.address)
    if (retry_after_ms !== null) return rateLimited(retry_after_ms)
  }
  const entry = decodeWireEntry({ body, sig })
  const decoded = decodeLogBody(decodeLogFrame(entry.body))
  if (!repair || (await knowsPoster(deps, decoded, readClaims(readAssertion, proof)))) {
    const poster = await acceptAssertion(deps, proof, 'log', (claimed) => findProofKey(deps, decoded, claimed, repair))
    const device = poster.signer === 'root' ? null : await deps.store.findDevice(poster.user_id, poster.signer)
    // one that was revoked may bring back what it knows
    if (device !== null && standingProblem(device)?.problem.code === 'suspended') return SUSPENDED
  }
  // a known genesis is fine: only a new account needs leave
  const isNew = decoded.type === 'genesis' && (await deps.store.findSigner(decoded.user_id, 'root')) === null
  if (isNew) {
    // so a device that was offline finds out, whatever the rules for new accounts
    if (await deps.store.isDeleted(decoded.user_id)) return { problem: { code: 'account_gone' } }
    const signup = deps.signup()
    if (signup === 'closed' || (signup === 'invite' && invite === undefined)) return { problem: { code: 'signup_closed' } }
    if (signup === 'invite' && invite !== undefined) invite_hash = hashInviteCode(invite)
    const retry_after_ms = await deps.limits.take('genesis', call.address)
    if (retry_after_ms !== null) return rateLimited(retry_after_ms)
  }
  const { request_id, address } = call
  const request = { user_id: decoded.user_id, entry, boxes, repair, allow_genesis: isNew, invite_hash, origin: { request_id, address } }
  const result = repair ? await repairEntry(deps, request) : await appendAndTell(deps.store, deps.bus, request)
  if ('problem' in result) return result
  if (!result.ok) return { problem: logRefusal(result) }
  return { json: { log_seq: result.log_seq, log_head: toBase64url(result.log_head) } }
}

/** The rate of the log does not bind a repair, this does. What is not stored does not count: nobody can use up another's. */
async function repairEntry(deps: LogRouteDeps, request: AppendRequest): Promise<AppendResult | { problem: Problem }> {
  const retry_after_ms = await deps.limits.take('repair', request.user_id)
  if (retry_after_ms !== null) return rateLimited(retry_after_ms)
  let counts = false
  try {
    const result = await appendAndTell(deps.store, deps.bus, request)
    counts = result.ok && !result.already_known
    return result
  } finally {
    if (!counts) await deps.limits.giveBack('repair', request.user_id)
  }
}

function rateLimited(retry_after_ms: number): { problem: Problem } {
  return { problem: { code: 'rate_limited', retry_after_ms } }
}

/** Whether there is a key to check the poster of a repair against. */
async function knowsPoster(deps: LogRouteDeps, entry: LogBody, claimed: Assertion): Promise<boolean> {
  return claimed.user_id !== entry.user_id || (await findProofKey(deps, entry, claimed, true)) !== null
}

async function findProofKey(deps: LogRouteDeps, entry: LogBody, claimed: Assertion, repair: boolean): Promise<Bytes | null> {
  if (claimed.user_id !== entry.user_id) return null
  if ('device' in entry && entry.device.device_id === claimed.signer) return entry.device.sign_pub
  if (claimed.signer !== entry.signer && !repair) return null
  return findKey(deps, claimed)
}

async function findKey(deps: LogRouteDeps, claimed: Assertion): Promise<Bytes | null> {
  // the root key is the account's name; it can prove itself before the account is there
  if (claimed.signer === 'root') return fromBase64url(claimed.user_id, 32)
  return (await deps.store.findSigner(claimed.user_id, claimed.signer))?.sign_pub ?? null
}

async function read(deps: LogRouteDeps, call: Call<'read_log'>): Promise<Answer> {
  const claimed = await acceptAssertion(deps, call.body, 'log-read', (assertion) => findKey(deps, assertion))
  const signer = await deps.store.findSigner(claimed.user_id, claimed.signer)
  // whoever proved itself may learn it: the root, whose key the account's name is
  if (signer === null) return { problem: { code: (await deps.store.isDeleted(claimed.user_id)) ? 'account_gone' : 'not_found' } }
  const last = signer.active ? LIMITS.logSeqMax : await lastReadable(deps, claimed)
  if (last === 'suspended') return SUSPENDED
  if (last === null) return { problem: { code: 'unauthorized' } }
  const { entries, has_more } = await deps.store.readEntries(
    signer.user_no,
    claimed.signer,
    claimed.from_log_seq ?? 0,
    LIMITS.logEntriesPageMax,
  )
  const shown = entries.filter((entry) => entry.log_seq <= last)
  return {
    json: {
      entries: shown.map((entry) => encodeWireEntry(entry, entry.box === null ? null : toBase64url(entry.box))),
      has_more: has_more && shown.length === entries.length,
    },
  }
}

/** A revoked device may read up to the entry that revoked it, which it needs to believe it. Null: nothing at all. */
async function lastReadable(deps: LogRouteDeps, claimed: Assertion): Promise<number | 'suspended' | null> {
  // the root is never revoked
  if (claimed.signer === 'root') return 'suspended'
  const device = await deps.store.findDevice(claimed.user_id, claimed.signer)
  if (device === null) return null
  return standingProblem(device)?.problem.code === 'suspended' ? 'suspended' : device.revoked_log_seq
}
