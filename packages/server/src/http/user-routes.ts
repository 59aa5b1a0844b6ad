/**
 * The account over REST (protocol.md §10): its figures, everything that is held about it (B08), and its end (G04). Deletion asks for
 * a fresh signature of an active device or of the root; a token is not enough.
 *
 * Bound: one export per account and `EXPORTS_MAX` at a time in the process.
 */
import { type Bytes, fromBase64url, toBase64url } from '@sealpost/protocol'
import type { RateLimits } from '../limits/rate-limits.ts'
import type { Log } from '../log.ts'
import type { AccountStore, Bus, ExportStore, LogStore, SessionStore, UserSummary } from '../ports.ts'
import { type AssertionDeps, acceptAssertion } from './assertions.ts'
import type { Answer, Answers, Call, Caller } from './call.ts'

export type UserRouteDeps = AssertionDeps & {
  store: AssertionDeps['store'] &
    AccountStore &
    ExportStore &
    Pick<LogStore, 'findSigner'> &
    Pick<SessionStore, 'findDevice'> & { readonly history_id: string }
  bus: Pick<Bus, 'publish'>
  /** Stored bytes of a user; null = no quota. */
  quota_bytes: number | null
  limits: RateLimits
  logger: Log
}

const EXPORTS_MAX = 8
const EXPORT_AGAIN_MS = 10_000
/** It was there when the token was looked at. */
const GONE = { problem: { code: 'unauthorized' } } as const

export function createUserRoutes(deps: UserRouteDeps): Answers<'read_user' | 'delete_user' | 'export_user'> {
  const { store } = deps
  const exporting = new Set<number>()

  async function exportUser({ caller, request_id, gone }: Call<'export_user'>): Promise<Answer> {
    if (exporting.has(caller.user_no)) return { problem: { code: 'rate_limited', retry_after_ms: EXPORT_AGAIN_MS } }
    if (exporting.size >= EXPORTS_MAX) return { problem: { code: 'overloaded', retry_after_ms: EXPORT_AGAIN_MS } }
    const retry_after_ms = await deps.limits.take('export', caller.user_id)
    if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
    const user = await store.readUser(caller.user_no)
    if (user === null) return GONE
    // two may have come as far as this
    if (exporting.has(caller.user_no)) return { problem: { code: 'rate_limited', retry_after_ms: EXPORT_AGAIN_MS } }
    exporting.add(caller.user_no)
    // also when nobody ever reads a line
    gone.addEventListener('abort', () => exporting.delete(caller.user_no))
    return { stream: lines(caller, user, request_id), media: 'application/x-ndjson' }
  }

  async function* lines(caller: Caller, user: UserSummary, request_id: string): AsyncIterable<string> {
    const counts: Record<string, number> = {}
    try {
      const { user_id } = caller
      const exported_at = Math.floor(store.now())
      yield line({
        kind: 'export',
        format: 1,
        user_id,
        server_key: toBase64url(deps.server_key),
        history_id: store.history_id,
        exported_at,
      })
      for await (const row of store.exportRows(caller.user_no, user)) {
        counts[row.kind] = (counts[row.kind] ?? 0) + 1
        yield line(row)
      }
      yield line({ kind: 'end', counts })
    } catch (error) {
      // breaks the answer off: its last line is missing, and whoever reads it sees that
      deps.logger.warn({ err: error, request_id }, 'an export was broken off')
      throw error
    }
  }

  return {
    read_user: async ({ caller }) => {
      const user = await store.readUser(caller.user_no)
      if (user === null) return GONE
      const { user_id, log_head, ...figures } = user
      const { quota_bytes } = deps
      return {
        json: { user_id: toBase64url(user_id), log_head: toBase64url(log_head), ...figures, quota_bytes, history_id: store.history_id },
      }
    },
    delete_user: (call) => deleteUser(deps, call),
    export_user: exportUser,
  }
}

async function deleteUser(deps: UserRouteDeps, call: Call<'delete_user'>): Promise<Answer> {
  const { store, bus, logger } = deps
  const { user_id, signer } = await acceptAssertion(deps, call.body, 'delete-account', (claimed) => findKey(deps, claimed))
  if (signer !== 'root') {
    const device = await store.findDevice(user_id, signer)
    if (device?.active !== true)
      return { problem: { code: device !== null && device.revoked_log_seq !== null ? 'device_revoked' : 'unauthorized' } }
  }
  const deleted = await store.deleteAccount(user_id, signer === 'root' ? null : signer)
  if (deleted === null) return { problem: { code: 'unauthorized' } }
  bus.publish(deleted.user_no, { is: 'deleted' })
  logger.info({ audit: 'account_deleted', user_id, signer, request_id: call.request_id, counts: deleted.counts }, 'an account was deleted')
  return { json: { deleted: deleted.counts } }
}

async function findKey({ store }: UserRouteDeps, claimed: { user_id: string; signer: string }): Promise<Bytes | null> {
  if (claimed.signer === 'root') return fromBase64url(claimed.user_id, 32)
  return (await store.findSigner(claimed.user_id, claimed.signer))?.sign_pub ?? null
}

function line(row: object): string {
  return `${JSON.stringify(row)}\n`
}
