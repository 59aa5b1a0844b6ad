/** Own events as the receive path meets them (protocol.md §5): what the outbox knows of them, and what it takes over from there. */
import type { DeviceStore, ItemAck, StoredHead } from '../ports.ts'

/** The outbox as the receive path sees it when it meets own events. */
export type OwnEvents = {
  readonly acked_device_seq: number
  /** Own chains by stream. */
  readonly heads: ReadonlyMap<string, StoredHead>
  /** `waiting`: still pending here. `known`: this device remembers having sent it. */
  find(event_ids: readonly string[]): Promise<{ waiting: Set<string>; known: Set<string> }>
  /** After they were stored: `seen` own events, of which `acks` were waiting. */
  adopt(seen: number, acks: readonly ItemAck[], heads: ReadonlyMap<string, StoredHead>, acked_device_seq: number): void
}

/** By what this device remembers of its items. */
export async function findOwn(store: DeviceStore, event_ids: readonly string[]): Promise<{ waiting: Set<string>; known: Set<string> }> {
  const rows = await store.readOutcomes(event_ids)
  return {
    waiting: new Set(rows.filter((row) => row.state === 'pending').map((row) => row.event_id)),
    known: new Set(rows.map((row) => row.event_id)),
  }
}

/** The own chains among all, by stream. */
export function ownHeads(heads: ReadonlyMap<string, StoredHead>, device_id: string): Map<string, StoredHead> {
  const out = new Map<string, StoredHead>()
  for (const [key, head] of heads) if (key.startsWith(`${device_id}/`)) out.set(key.slice(device_id.length + 1), head)
  return out
}
