/**
 * Seals events for the outbox (protocol.md §3): under their numbers, each linked to the event before it in its stream.
 *
 * Invariants: `heads` are the own chains as far as they are acked; an event links to the last one sealed in its stream, and
 * `restart` goes back to what the window holds; nothing is sealed under a key that may not be used any more.
 */
import { type Bytes, type Crypto, LIMITS, sealEvent } from '@sealpost/protocol'
import type { AccountLog, SealingKey } from '../log/account-log.ts'
import type { Window } from './outbox-window.ts'
import type { Identity, NewItem, Sealed, StoredHead } from '../ports.ts'
import type { ServerClock } from '../connection/server-clock.ts'

export type SealerPorts = { crypto: Crypto; time: ServerClock; identity: Identity; account: AccountLog }

export type Sealer = {
  /** Own acked chains by stream. */
  readonly heads: ReadonlyMap<string, StoredHead>
  /** `unreadable`: the current epoch does not open here; `old`: it may not be sealed under any more. */
  readKey(): Promise<SealingKey | 'unreadable' | 'old'>
  seal(item: NewItem, device_seq: number, key: SealingKey): Promise<Sealed>
  /** What was sealed beyond the window is forgotten. */
  restart(window: Window): void
  moveHeads(moved: ReadonlyMap<string, StoredHead>): void
  /** The chains of all streams begin anew. */
  forgetHeads(window: Window): void
}

/** `stored`: own chains of the store, by stream. */
export function createSealer(ports: SealerPorts, stored: ReadonlyMap<string, StoredHead>, window: Window): Sealer {
  const { crypto, time, identity, account } = ports
  const heads = new Map(stored)
  let tips = tipsOf(window, heads)

  return {
    heads,
    async readKey() {
      const key = await account.sealingKey()
      if (key === null) return 'unreadable'
      return time.now() - key.first_seen >= LIMITS.epochForbiddenMs ? 'old' : key
    },
    async seal(item, device_seq, key) {
      const { record, event_hash } = await sealEvent(crypto, {
        user_id: identity.user_id,
        device_id: identity.device_id,
        sign_seed: identity.sign_seed,
        event_key: key.key,
        epoch: key.epoch,
        event_id: item.event_id,
        device_seq,
        stream_id: item.stream_id,
        type: item.type,
        ttl: item.ttl,
        prev_hash: tips.get(item.stream_id) ?? null,
        data: item.data,
      })
      tips.set(item.stream_id, event_hash)
      return { device_seq, epoch: key.epoch, event_hash, record }
    },
    restart(to) {
      tips = tipsOf(to, heads)
    },
    moveHeads(moved) {
      for (const [stream_id, head] of moved) heads.set(stream_id, head)
    },
    forgetHeads(of) {
      heads.clear()
      tips = tipsOf(of, heads)
    },
  }
}

/** The hash that the next event of each stream links to. */
function tipsOf(window: Window, heads: ReadonlyMap<string, StoredHead>): Map<string, Bytes> {
  const tips = new Map<string, Bytes>()
  for (const [stream_id, head] of heads) tips.set(stream_id, head.event_hash)
  for (const slot of window.slots) tips.set(slot.stream_id, slot.sealed.event_hash)
  return tips
}
