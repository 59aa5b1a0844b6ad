/**
 * The account over REST (protocol.md §10): its figures, and its end (G04). Deletion asks for a fresh signature of an active device or
 * of the root; a token is not enough.
 */
import { type Bytes, fromBase64url, toBase64url } from '@sealpost/protocol'
import type { AccountStore, Bus, LogStore, SessionStore, Store } from '../../ports/store.ts'
import type { Log } from '../../telemetry/log.ts'
import { type AssertionDeps, acceptAssertion } from '../auth/assertions.ts'
import type { Answer, RouteAnswers, RouteCall } from '../call.ts'
import { standingProblem } from '../auth/standing.ts'
import type { USER_CONTRACTS } from './contracts.ts'

type Call<N extends keyof typeof USER_CONTRACTS> = RouteCall<typeof USER_CONTRACTS, N>

export type UserRouteDeps = AssertionDeps & {
  store: AssertionDeps['store'] & AccountStore & Pick<LogStore, 'findSigner'> & Pick<SessionStore, 'findDevice'> & Pick<Store, 'history_id'>
  bus: Pick<Bus, 'publish'>
  /** Stored bytes of a user; null = no quota. */
  quota_bytes: number | null
  logger: Log
}

/** It was there when the token was looked at. */
const UNAUTHORIZED = { problem: { code: 'unauthorized' } } as const

export function createUserRoutes(deps: UserRouteDeps): RouteAnswers<typeof USER_CONTRACTS> {
  const { store } = deps
  return {
    read_user: async ({ caller }) => {
      const user = await store.readUser(caller.user_no)
      if (user === null) return UNAUTHORIZED
      const { user_id, log_head, ...figures } = user
      const quota_bytes = figures.quota_bytes ?? deps.quota_bytes
      return {
        json: { user_id: toBase64url(user_id), log_head: toBase64url(log_head), ...figures, quota_bytes, history_id: store.history_id },
      }
    },
    delete_user: (call) => deleteUser(deps, call),
  }
}

async function deleteUser(deps: UserRouteDeps, call: Call<'delete_user'>): Promise<Answer> {
  const { store, bus, logger } = deps
  const { user_id, signer } = await acceptAssertion(deps, call.body, 'delete-account', (claimed) => findKey(deps, claimed))
  if (signer !== 'root') {
    const device = await store.findDevice(user_id, signer)
    const refused = device === null ? UNAUTHORIZED : standingProblem(device)
    if (refused !== null) return refused
  }
  const { request_id, address } = call
  const deleted = await store.deleteAccount(user_id, signer === 'root' ? null : signer, { origin: { request_id, address } })
  if (deleted === null) return UNAUTHORIZED
  bus.publish(deleted.user_no, { is: 'deleted' })
  logger.info({ audit: 'account_deleted', user_id, signer, request_id, counts: deleted.counts }, 'an account was deleted')
  return { json: { deleted: deleted.counts } }
}

async function findKey({ store }: UserRouteDeps, claimed: { user_id: string; signer: string }): Promise<Bytes | null> {
  if (claimed.signer === 'root') return fromBase64url(claimed.user_id, 32)
  return (await store.findSigner(claimed.user_id, claimed.signer))?.sign_pub ?? null
}
