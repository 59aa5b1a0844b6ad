/** Stored events as JSON, for REST (protocol.md §3): a batch that several follow is written once. */
import { decodeRecords, type EventJson, recordToJson, writeRecord } from '@sealpost/protocol'
import { factsOf } from '../../core/batch.ts'
import type { StoredEvent } from '../../ports/store.ts'

/** Tombstones have `payload_hash` and no payload. */
export function eventsToJson(user_id: string, events: readonly StoredEvent[]): EventJson[] {
  const body = new Uint8Array(factsOf(events).bytes)
  let at = 0
  for (const event of events) at = writeRecord(body, at, event.flags, event.client, event)
  return decodeRecords(body).map((record) => recordToJson(user_id, record))
}

const texts = new WeakMap<readonly StoredEvent[], string>()

/** The same as text. `whole`: the batch goes to others too, all of them of this user. */
export function eventsToText(user_id: string, events: readonly StoredEvent[], whole: boolean): string {
  const known = texts.get(events)
  if (known !== undefined) return known
  const text = JSON.stringify(eventsToJson(user_id, events))
  if (whole) texts.set(events, text)
  return text
}
