/** What the server is and how it is (R06). Details of a failure go to the log, not to whoever asks. */
import { type Bytes, SealpostError, toBase64url } from '@sealpost/protocol'
import type { Log } from '../../telemetry/log.ts'
import type { Store } from '../../ports/store.ts'
import type { RouteAnswers } from '../call.ts'
import type { STATUS_CONTRACTS } from './contracts.ts'

export type StatusDeps = {
  store: Pick<Store, 'ping'>
  server_key: Bytes
  draining(): boolean
  /** Hints of some node do not arrive here: all works, and what is done there is heard of later. */
  degraded(): boolean
  logger: Log
}

/** One look at the database serves all who ask within this time. */
const PING_FRESH_MS = 1_000
const PING_DEADLINE_MS = 2_000

export function createStatusRoutes(deps: StatusDeps): RouteAnswers<typeof STATUS_CONTRACTS> {
  let last: { at: number; up: Promise<boolean> } | undefined

  function databaseUp(): Promise<boolean> {
    const now = performance.now()
    if (last === undefined || now - last.at > PING_FRESH_MS) last = { at: now, up: pingInTime(deps) }
    return last.up
  }

  return {
    read_server: async () => ({ json: { server_key: toBase64url(deps.server_key), chain: [] } }),
    live: async () => ({ json: { status: 'live' } }),
    ready: async () => {
      if (deps.draining()) return { problem: { code: 'unavailable', detail: 'the server is draining' } }
      if (!(await databaseUp())) return { problem: { code: 'unavailable' } }
      return { json: { status: deps.degraded() ? 'degraded' : 'ready' } }
    },
  }
}

async function pingInTime({ store, logger }: StatusDeps): Promise<boolean> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new SealpostError('unavailable', 'no answer in time')), PING_DEADLINE_MS)
  try {
    await Promise.race([store.ping(), late.promise])
    return true
  } catch (err) {
    logger.warn({ err }, 'the database does not answer')
    return false
  } finally {
    clearTimeout(timer)
  }
}
