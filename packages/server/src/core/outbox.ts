/**
 * The one comparison of protocol.md §7: a committed batch or a page is next → send, older → drop, or behind a hole → read
 * the store. It serves live delivery, catching up, slow consumers, and hints that were lost, doubled, reordered or late.
 *
 * Invariant: what leaves continues exactly at `told`; a position is passed once. Own events are left out only up to the
 * number that the device knows as acked (§5).
 */
import type { ServerHeadOf, Tip } from '@sealpost/protocol'
import type { Page, StoredEvent } from '../ports/store.ts'
import { factsOf, tipOf } from './batch.ts'
import type { Outbox } from './state.ts'

/** Own events to be left out: those of this device up to this number. */
export type Own = { device_no: number; upto_seq: number }

export type Sendable = { head: ServerHeadOf<'event'>; events: readonly StoredEvent[]; whole: boolean }

export type Offered = { outbox: Outbox; send: Sendable | null }

export type Place = 'older' | 'next' | 'hole'

/** Where positions `first`…`last` lie for someone who was sent everything up to `sent`. */
export function place(sent: number, first: number, last: number): Place {
  if (last <= sent) return 'older'
  return first <= sent + 1 ? 'next' : 'hole'
}

/**
 * Offers a committed batch. It is sent when it is next and nothing hinders (`ready`: live, not full, no page being read, the
 * log told up to `log_told`); otherwise only `head` moves, and the store is read later.
 */
export function offerBatch(
  outbox: Outbox,
  events: readonly StoredEvent[],
  own: Own,
  limit: { ready: boolean; log_told: number; bytes: number },
): Offered {
  const first = events[0]
  const last = events.at(-1)
  if (first === undefined || last === undefined) return { outbox, send: null }
  const moved = last.position > outbox.head ? { ...outbox, head: last.position } : outbox
  if (!limit.ready || outbox.mode !== 'live' || outbox.full) return { outbox: moved, send: null }
  const facts = factsOf(events)
  if (!facts.contiguous || facts.epoch > limit.log_told || facts.bytes > limit.bytes) return { outbox: moved, send: null }
  if (place(outbox.sent, first.position, last.position) !== 'next') return { outbox: moved, send: null }
  const rest = first.position <= outbox.sent ? events.slice(outbox.sent + 1 - first.position) : events
  return pass(moved, facts.device_nos.includes(own.device_no) ? leaveOut(rest, own) : rest, last.position, () => tipOf(last), events)
}

/** Offers a page that was read after `after`; dropped when it no longer continues at what was sent. */
export function offerPage(outbox: Outbox, page: Page, after: number, own: Own): Offered {
  if (after !== outbox.sent) return { outbox, send: null }
  // nothing found where something should be: the head was a wrong hint; the next round says better
  if (page.upto <= outbox.sent) return { outbox: { ...outbox, head: outbox.sent }, send: null }
  const moved = { ...outbox, head: Math.max(outbox.head, page.upto) }
  return pass(moved, leaveOut(page.events, own), page.upto, () => page.tip, null)
}

/** The empty message that tells of a position which only own events moved; null when there is nothing to tell. */
export function tellPosition(outbox: Outbox): Offered {
  if (outbox.mode !== 'live' || outbox.told === outbox.sent || outbox.full) return { outbox, send: null }
  const head = { type: 'event' as const, after: outbox.told, upto: outbox.sent, tip: outbox.tip }
  return { outbox: { ...outbox, told: outbox.sent, tip: null }, send: { head, events: [], whole: false } }
}

export function leaveOut(events: readonly StoredEvent[], own: Own): readonly StoredEvent[] {
  const isOwn = (event: StoredEvent): boolean => event.device_no === own.device_no && event.device_seq <= own.upto_seq
  return events.some(isOwn) ? events.filter((event) => !isOwn(event)) : events
}

/** `tip` names the entry at `upto` where that is not the last record of the body (§5). */
export function tipField(events: readonly StoredEvent[], upto: number, tip: () => Tip | null): { tip?: Tip | null } {
  return events.at(-1)?.position === upto ? {} : { tip: tip() }
}

function pass(
  outbox: Outbox,
  events: readonly StoredEvent[],
  upto: number,
  tip: () => Tip | null,
  batch: readonly StoredEvent[] | null,
): Offered {
  if (events.length === 0) return { outbox: { ...outbox, sent: upto, tip: tip() }, send: null }
  const head = { type: 'event' as const, after: outbox.told, upto, ...tipField(events, upto, tip) }
  return { outbox: { ...outbox, sent: upto, told: upto, tip: null }, send: { head, events, whole: events === batch } }
}
