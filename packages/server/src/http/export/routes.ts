/**
 * Everything that is held about an account, line by line (B08, docs/export.md). It goes on for as long as the device is active and the
 * token in force that it began with (R01).
 *
 * Bound: one export per account, `EXPORTS_MAX` at a time in the process and `EXPORTS_PER_ADDRESS_MAX` of them of one address, each no
 * longer than its token. A seat is kept until the answer is closed.
 */
import { toBase64url } from '@sealpost/protocol'
import type { RateLimits } from '../../limits/rate-limits.ts'
import type { Log } from '../../telemetry/log.ts'
import type { ExportStore, SessionStore, Store, UserSummary } from '../../ports/store.ts'
import { createSeats } from '../../relay/sessions/seats.ts'
import type { Work } from '../../relay/load/work.ts'
import type { Caller, RouteAnswers } from '../call.ts'
import { answerLines, type Host } from './answer.ts'
import type { EXPORT_CONTRACTS } from './contracts.ts'

export type ExportDeps = {
  store: ExportStore & Pick<SessionStore, 'findDevice'> & Pick<Store, 'readUser' | 'now' | 'history_id'>
  server_key: Uint8Array
  limits: RateLimits
  relay: Host & { work: Pick<Work, 'track'> }
  logger: Log
}

const EXPORTS_MAX = 8
const EXPORTS_PER_ADDRESS_MAX = 2
const AGAIN_MS = 10_000

export function createExportRoutes(deps: ExportDeps): RouteAnswers<typeof EXPORT_CONTRACTS> {
  const { store, relay, logger } = deps
  const seats = createSeats({
    socketsPerAddressMax: EXPORTS_PER_ADDRESS_MAX,
    unauthenticatedPerAddressMax: EXPORTS_PER_ADDRESS_MAX,
    followersPerDeviceMax: 1,
  })
  const open = new Set<object>()

  return {
    async export_user({ caller, address, request_id, gone }) {
      const isOver = (): boolean => gone.aborted || relay.sessions.isDraining()
      if (isOver()) return { problem: { code: 'unavailable' } }
      if (open.size >= EXPORTS_MAX) return { problem: { code: 'overloaded', retry_after_ms: AGAIN_MS } }
      const seat = seats.takeKnown(address, String(caller.user_no))
      if (seat === null) return { problem: { code: 'rate_limited', retry_after_ms: AGAIN_MS } }
      open.add(seat)
      // every answer is closed at last, also one that nobody reads or that is a problem
      gone.addEventListener('abort', () => {
        open.delete(seat)
        seat.leave()
      })

      const retry_after_ms = await deps.limits.take('export', caller.user_id)
      if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
      const isAllowed = async (): Promise<boolean> => {
        const device = await store.findDevice(caller.user_id, caller.device_id)
        return device?.active === true && device.token_version === caller.token_version
      }
      const [user, allowed] = await Promise.all([store.readUser(caller.user_no), isAllowed()])
      const left_ms = caller.token_expires_at - store.now()
      // it was when the token was looked at
      if (user === null || !allowed || left_ms <= 0) return { problem: { code: 'unauthorized' } }
      if (isOver()) return { problem: { code: 'unavailable' } }
      const brokenOff = (reason: unknown): void => logger.warn({ err: reason, request_id }, 'an export was broken off')
      const ask = { media: 'application/x-ndjson', lines: lines(deps, caller, user), left_ms, isAllowed, brokenOff } as const
      return { take_over: (response) => relay.work.track(answerLines(relay, response, ask)) }
    },
  }
}

async function* lines({ store, server_key }: ExportDeps, caller: Caller, user: UserSummary): AsyncGenerator<string> {
  const counts: Record<string, number> = {}
  const { user_id } = caller
  const { history_id } = store
  yield line({ kind: 'export', format: 1, user_id, server_key: toBase64url(server_key), history_id, exported_at: Math.floor(store.now()) })
  for await (const row of store.exportRows(caller.user_no, user)) {
    counts[row.kind] = (counts[row.kind] ?? 0) + 1
    yield line(row)
  }
  yield line({ kind: 'end', counts })
}

function line(row: object): string {
  return `${JSON.stringify(row)}\n`
}
