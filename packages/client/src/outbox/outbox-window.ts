/**
 * The window of the outbox: what is sealed and not yet acknowledged, in the order of `device_seq` (protocol.md §3, §5). Pure:
 * which records leave next, what an ack settles, what a nack asks for. Go-back-N: after a nack everything from
 * `expected_device_seq` on counts as unsent.
 *
 * Invariant: `slots` ascend in `device_seq` and `item_no`; the first `sent` of them left in this session; `next_seq` follows
 * the last slot. Bound: `inflight_events` and `inflight_bytes`.
 */
import { type AckRow, type ErrorCode, LIMITS, NACK, type NackCode, SealpostError } from '@sealpost/protocol'
import type { Sealed } from '../ports.ts'

export type Slot = { item_no: number; event_id: string; stream_id: string; sealed: Sealed }

export type Window = { readonly slots: readonly Slot[]; readonly sent: number; readonly next_seq: number }

export type WindowLimits = { batch_events: number; batch_bytes: number; inflight_events: number; inflight_bytes: number }

/** Head of the message and what a frame adds. */
const FRAME_SPARE_BYTES = 256

/** From what the server allows in a session. */
export function batchLimits(limits: {
  frame_bytes: number
  batch_events: number
  inflight_events: number
  inflight_bytes: number
}): WindowLimits {
  return {
    batch_events: Math.max(1, Math.min(limits.batch_events, LIMITS.batchEventsMax)),
    batch_bytes: limits.frame_bytes - FRAME_SPARE_BYTES,
    inflight_events: Math.max(1, limits.inflight_events),
    inflight_bytes: limits.inflight_bytes,
  }
}

export function openWindow(slots: readonly Slot[], acked_device_seq: number): Window {
  return { slots, sent: 0, next_seq: (slots.at(-1)?.sealed.device_seq ?? acked_device_seq) + 1 }
}

export function extendWindow(window: Window, slots: readonly Slot[]): Window {
  const last = slots.at(-1)
  return last === undefined ? window : { ...window, slots: [...window.slots, ...slots], next_seq: last.sealed.device_seq + 1 }
}

/** A fresh session has seen nothing of it. */
export function rewind(window: Window): Window {
  return { ...window, sent: 0 }
}

/** The slots of the next `event` message; empty when there is nothing to send or the limits are reached. */
export function nextBatch(window: Window, limits: WindowLimits): readonly Slot[] {
  let bytes = 0
  for (let i = 0; i < window.sent; i++) bytes += window.slots[i]?.sealed.record.length ?? 0
  let end = window.sent
  let batch = 0
  while (end < window.slots.length && end < limits.inflight_events && end - window.sent < limits.batch_events) {
    const length = window.slots[end]?.sealed.record.length ?? 0
    // a single record always fits: the server pauses reading, it does not refuse
    if (end > 0 && bytes + length > limits.inflight_bytes) break
    if (end > window.sent && batch + length > limits.batch_bytes) break
    bytes += length
    batch += length
    end++
  }
  return window.slots.slice(window.sent, end)
}

export function markSent(window: Window, count: number): Window {
  return { ...window, sent: Math.min(window.slots.length, window.sent + count) }
}

/** Takes out what was acknowledged; numbers that are not in the window (a doubled ack) change nothing. */
export function settleAcks(window: Window, rows: readonly AckRow[]): { window: Window; acked: { slot: Slot; row: AckRow }[] } {
  const bySeq = new Map(rows.map((row) => [row.device_seq, row]))
  const acked: { slot: Slot; row: AckRow }[] = []
  const slots: Slot[] = []
  let sent = window.sent
  for (const [i, slot] of window.slots.entries()) {
    const row = bySeq.get(slot.sealed.device_seq)
    if (row === undefined) slots.push(slot)
    else {
      acked.push({ slot, row })
      if (i < window.sent) sent--
    }
  }
  return { window: { ...window, slots, sent }, acked }
}

/** Takes out items that were found on the server by their `event_id`. */
export function settleItems(window: Window, event_ids: ReadonlySet<string>): Window {
  const rows = window.slots
    .filter((slot) => event_ids.has(slot.event_id))
    .map((slot) => ({ device_seq: slot.sealed.device_seq, position: 0, stream_seq: 0 }))
  return settleAcks(window, rows).window
}

/** Drops the slots from `index` on: their numbers are given back. */
export function truncate(window: Window, index: number): Window {
  const first = window.slots[index]
  return first === undefined
    ? window
    : { slots: window.slots.slice(0, index), sent: Math.min(window.sent, index), next_seq: first.sealed.device_seq }
}

export type Nack = { code: string; device_seq: number; expected_device_seq: number; retry_after_ms?: number }

/** What a nack asks for. `from` is an index into the slots; the window is already rewound to it. */
export type NackAction =
  | { do: 'resend' }
  /** The same bytes after a pause. */
  | { do: 'pause'; ms: number }
  /** Nothing passes before something outside has changed: the numbers are given back meanwhile, so that what waits can be dropped. */
  | { do: 'hold'; from: number; ms: number }
  | { do: 'reseal'; from: number; epoch: number }
  /** The stamp of this item lies ahead of the server's clock. */
  | { do: 'restamp'; index: number }
  /** This item is not taken, whatever becomes of the others. */
  | { do: 'set_aside'; index: number; code: string }
  | { do: 'reconcile' }

const PAUSE_MS = 1_000
const HOLD_MS = 30_000

export function settleNack(window: Window, nack: Nack): { window: Window; action: NackAction } {
  const first = window.slots[0]?.sealed.device_seq ?? window.next_seq
  // below: the server lost what it had acknowledged; above: it has events of ours that we do not know
  if (nack.expected_device_seq < first || nack.expected_device_seq > window.next_seq) return { window, action: { do: 'reconcile' } }
  const found = window.slots.findIndex((slot) => slot.sealed.device_seq >= nack.expected_device_seq)
  const from = found < 0 ? window.slots.length : found
  const rewound = { ...window, sent: Math.min(window.sent, from) }
  return { window: rewound, action: actionOf(rewound, nack, from) }
}

function actionOf(window: Window, nack: Nack, from: number): NackAction {
  switch (nack.code as NackCode) {
    case 'stale_epoch': {
      const slot = window.slots[from]
      return slot === undefined ? { do: 'resend' } : { do: 'reseal', from, epoch: slot.sealed.epoch }
    }
    case 'sequence_gap':
      return { do: 'resend' }
    case 'sequence_conflict':
      return { do: 'reconcile' }
    case 'clock_skew':
    case 'event_expired':
    case 'payload_too_large':
    case 'too_many_streams':
    case 'invalid_event': {
      const index = window.slots.findIndex((slot) => slot.sealed.device_seq === nack.device_seq)
      if (index < 0) return { do: 'resend' }
      return nack.code === 'clock_skew' ? { do: 'restamp', index } : { do: 'set_aside', index, code: nack.code }
    }
    case 'rate_limited':
    case 'unavailable':
      return { do: 'pause', ms: nack.retry_after_ms ?? PAUSE_MS }
    case 'quota_exceeded':
      return { do: 'hold', from, ms: nack.retry_after_ms ?? HOLD_MS }
    default:
      // a code of a later server: nothing is lost by waiting
      return { do: 'hold', from, ms: nack.retry_after_ms ?? HOLD_MS }
  }
}

/** What a person is told of a nack that holds everything. */
export function nackError(nack: Nack): SealpostError {
  if (Object.hasOwn(NACK, nack.code)) return new SealpostError(nack.code as ErrorCode, NACK[nack.code as keyof typeof NACK])
  return new SealpostError('unknown_version', `the server refused an event (${nack.code}); it stays in the outbox`)
}
