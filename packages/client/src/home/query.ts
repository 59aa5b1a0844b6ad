/**
 * Reading a stream out of the server's store (protocol.md §7, `query: true`): moves no cursor; its chains are verified from their
 * own anchors. Page n + 1 is asked for before page n is verified. It outlives the session: a page that did not come, or whose
 * token is of a session that ended, is asked for again from where the reading stands.
 */
import { decodeRecords, type ErrorCode, LIMITS, type Received, receivePage, SealpostError } from '@sealpost/protocol'
import { checkPositions } from '../inbox/cursor.ts'
import { lateIsWithheld, withheld } from '../log/log-reading.ts'
import type { QueryPage } from '../inbox/query-page.ts'
import type { Member } from './member.ts'
import type { Home, Identity, StoredHead } from '../ports.ts'
import { sleep } from '../signal.ts'

const AGAIN_MS = 250
/** What passes, or ends with the engine's terminal error. */
const AGAIN: ReadonlySet<ErrorCode> = new Set(['unreachable', 'timeout', 'invalid_token', 'unavailable', 'overloaded', 'rate_limited'])

export type QueryRange = {
  stream_id: string
  /** Exclusive. */
  after: number
  /** Inclusive; null: as far as there is. */
  upto: number | null
}

export type QueriedPage = { items: Received[]; upto: number }

export async function* queryStream(
  home: Home,
  identity: Identity,
  member: Member,
  range: QueryRange,
  signal?: AbortSignal,
): AsyncGenerator<QueriedPage> {
  const chains = new Map<string, StoredHead>()
  let floor = 0
  const again = async <T>(call: () => Promise<T>): Promise<T> => {
    for (;;) {
      try {
        return await call()
      } catch (error) {
        if (member.alone || !(error instanceof SealpostError) || !AGAIN.has(error.code)) throw error
        if (member.status.terminal !== null) throw member.status.terminal
        await sleep(home.clock, AGAIN_MS, signal)
      }
    }
  }
  const ask = (after_position: number, token: string | null): Promise<QueryPage> => {
    const request = { after_position, streams: [range.stream_id], limit: LIMITS.replayEventsMax }
    let given = token
    return again(() => {
      const continuation_token = given
      given = null
      return member.query({ ...request, continuation_token }, signal)
    })
  }
  let at = range.after
  let next: Promise<QueryPage> | null = ask(at, null)
  while (next !== null) {
    const page: QueryPage = await next
    if (page.after !== at || page.upto < page.after)
      throw new SealpostError('invalid_message', 'the server answered for another part of the stream')
    const more = page.has_more && (range.upto === null || page.upto < range.upto)
    next = more ? ask(page.upto, page.continuation_token) : null
    // a page that nobody takes any more fails on its own
    next?.catch(() => undefined)
    at = page.upto
    floor = Math.max(floor, page.floor)
    let rest = decodeRecords(page.body, LIMITS.replayEventsMax)
    checkPositions(rest, page)
    if (rest.some((record) => record.stream_id !== range.stream_id))
      throw new SealpostError('invalid_message', 'the server sent events of another stream')
    rest = rest.filter((record) => range.upto === null || (record.server?.position ?? 0) <= range.upto)
    const items: Received[] = []
    for (let read = false; rest.length > 0; read = true) {
      const { account } = member
      await account.openKeys(rest.map((record) => record.epoch).filter((epoch) => epoch <= account.log.log_seq))
      const now_ms = member.time.now()
      const context = { user_id: identity.user_id, log: account.log, epoch_key: (epoch: number) => account.epochKey(epoch), floor, now_ms }
      const verified = await receivePage(home.crypto, context, chains, rest)
      for (const item of verified.items) items.push(item)
      for (const [key, head] of verified.moved) chains.set(key, head)
      if (verified.unknown_epoch === null) break
      rest = rest.slice(verified.unknown_epoch.index)
      if (read) throw withheld()
      await again(() => member.readLog(signal).catch(lateIsWithheld))
    }
    yield { items, upto: page.upto }
  }
}
