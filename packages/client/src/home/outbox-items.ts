/**
 * The outbox as the application sees it (protocol.md §3): what waits, what was set aside and why; to send it again, or to drop it.
 * Works in any process of the home, with a connection or without.
 *
 * Invariant: what may be on the server is not dropped: bytes that left under a number are decided by the server first.
 */
import { type Crypto, SealpostError } from '@sealpost/protocol'
import { createEventIdMaker } from '../outbox/event-id.ts'
import type { Member } from './member.ts'
import type { Clock, DeviceStore, OutboxRow } from '../ports.ts'

export type OutboxItem = {
  /** As `enqueue` returned it. */
  event_id: string
  stream_id: string
  type: string
  /** Seconds; null = none. */
  ttl: number | null
  /** Of the data. */
  bytes: number
  /** ms, the clock of this device. */
  queued_at: number
  /** `pending`: it is sent as soon as that is possible. `set_aside`: it was refused for its own sake, holds up nothing, and waits for `retry` or `drop`. */
  state: 'pending' | 'set_aside'
  /** Why it was set aside; null while it is pending. */
  code: string | null
  /** Its bytes may be on the server: it cannot be dropped before the server has decided. */
  sent: boolean
}

export type OutboxItems = {
  /** In the order of sending. What comes or goes meanwhile may be missed. */
  list(): AsyncIterable<OutboxItem>
  /**
   * Queues what was set aside anew: behind everything that waits, with a new time and its whole ttl. Returns the `event_id`s, under which
   * `outcome` follows them. `all`: everything that is set aside. Throws `not_found`, and changes nothing, when one of them is not set aside.
   */
  retry(event_ids: readonly string[] | 'all'): Promise<string[]>
  /**
   * Drops what waits or is set aside, for ever. `kept`: those whose bytes may be on the server. `all`: the whole outbox. Throws `not_found`,
   * and changes nothing, when one of them is not in the outbox.
   */
  drop(event_ids: readonly string[] | 'all'): Promise<{ dropped: string[]; kept: string[] }>
}

const PAGE = 500

export function openOutboxItems(
  { store, clock, crypto }: { store: DeviceStore; clock: Clock; crypto: Crypto },
  member: Member,
): OutboxItems {
  const makeEventId = createEventIdMaker(crypto)

  async function* rows(): AsyncGenerator<OutboxRow> {
    for (let after = 0; ; ) {
      const page = await store.readOutbox(after, PAGE)
      yield* page
      const last = page.at(-1)
      if (last === undefined) return
      after = last.item_no
    }
  }

  async function find(event_ids: readonly string[] | 'all', isMeant: (row: OutboxRow) => boolean, says: string): Promise<string[]> {
    const found = new Set<string>()
    const asked = event_ids === 'all' ? null : new Set(event_ids)
    for await (const row of rows()) if (isMeant(row) && (asked === null || asked.has(row.queued_id))) found.add(row.queued_id)
    for (const event_id of asked ?? []) if (!found.has(event_id)) throw new SealpostError('not_found', `${event_id} ${says}`)
    return [...found]
  }

  return {
    async *list() {
      for await (const { queued_id, stream_id, type, ttl, bytes, queued_at, code, sealed } of rows())
        yield {
          event_id: queued_id,
          stream_id,
          type,
          ttl,
          bytes,
          queued_at,
          state: code === null ? 'pending' : 'set_aside',
          code,
          sent: sealed,
        }
    },
    async retry(event_ids) {
      const asked = await find(event_ids, (row) => row.code !== null, 'is not set aside in the outbox of this device')
      const renewed: string[] = []
      for (let from = 0; from < asked.length; from += PAGE) {
        const page = asked.slice(from, from + PAGE)
        const now = member.time.now()
        renewed.push(
          ...(await store.renewItems(
            page.map((queued_id) => ({ queued_id, event_id: makeEventId(now) })),
            clock.now(),
          )),
        )
      }
      member.wake()
      return renewed
    },
    async drop(event_ids) {
      const asked = await find(event_ids, () => true, 'is not in the outbox of this device')
      const dropped: string[] = []
      for (let from = 0; from < asked.length; from += PAGE) dropped.push(...(await store.dropItems(asked.slice(from, from + PAGE))))
      member.wake()
      const gone = new Set(dropped)
      const left = asked.filter((event_id) => !gone.has(event_id))
      const rest = new Set((await store.readOutcomes(left)).filter(({ state }) => state === 'pending').map(({ queued_id }) => queued_id))
      return { dropped, kept: left.filter((event_id) => rest.has(event_id)) }
    },
  }
}
