/**
 * The cursor (protocol.md §5, §7): which positions a message with records may hold, and where the cursor stands behind it. Pure.
 *
 * Invariant: it names the entry at its position by id and time, or nothing when retention took that entry.
 */
import { type EventRecord, SealpostError, type Tip } from '@sealpost/protocol'
import type { StoredCursor } from '../ports.ts'

/** Positions rise inside (after, upto]; anything else would let a server slip records behind a cursor. */
export function checkPositions(records: readonly EventRecord[], range: { after: number; upto: number }): void {
  let last = range.after
  for (const record of records) {
    const position = record.server?.position ?? 0
    if (position <= last || position > range.upto)
      throw new SealpostError('invalid_message', 'records outside of the range that the message names')
    last = position
  }
}

/** The entry at `upto` is the last record, or the one that `tip` names; nothing named: retention took it. */
export function cursorAfter(
  cursor: StoredCursor,
  message: { upto: number; tip?: Tip | null },
  records: readonly EventRecord[],
  history_id: string | null,
): StoredCursor {
  if (message.upto === cursor.position) return { ...cursor, history_id }
  const last = records.at(-1)
  if (last?.server?.position === message.upto)
    return { position: message.upto, event_id: last.event_id, received_at: last.server.received_at, history_id }
  if (message.tip === undefined) throw new SealpostError('invalid_message', 'the entry where the message ends is not named')
  const tip: Tip | null = message.tip
  return { position: message.upto, event_id: tip?.event_id ?? null, received_at: tip?.received_at ?? null, history_id }
}
