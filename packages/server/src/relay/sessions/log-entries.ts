/** Pages of the device log as one device may see them: its own boxes, and no more than fits into one frame. */
import type { LogStore, StoredLogEntry } from '../../ports/store.ts'
import type { RelayLimits } from '../limits.ts'

export type EntryPage = { entries: StoredLogEntry[]; has_more: boolean }

/** Base64url and JSON around the bytes of an entry. */
const GROWTH = 4 / 3
const ENTRY_JSON_BYTES = 256
const MARGIN_BYTES = 8_192

export function createEntryReader(
  store: Pick<LogStore, 'readEntries'>,
  limits: Pick<RelayLimits, 'frame_bytes' | 'logEntriesPageMax'>,
): (device: { user_no: number; device_id: string }, from_log_seq: number) => Promise<EntryPage> {
  return async ({ user_no, device_id }, from_log_seq) => {
    const page = await store.readEntries(user_no, device_id, from_log_seq, limits.logEntriesPageMax)
    let room = limits.frame_bytes - MARGIN_BYTES
    let fit = 0
    for (const { body, sig, box } of page.entries) {
      room -= Math.ceil((body.length + sig.length + (box?.length ?? 0)) * GROWTH) + ENTRY_JSON_BYTES
      if (room < 0 && fit > 0) break
      fit += 1
    }
    return fit === page.entries.length ? page : { entries: page.entries.slice(0, fit), has_more: true }
  }
}
