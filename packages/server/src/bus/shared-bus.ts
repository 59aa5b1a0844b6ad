/**
 * The bus of several processes: hints reach subscribers here at once, and those elsewhere over a wire (protocol.md §7). The wire is
 * subscribed to while a user has a subscriber here, once per user, and given back after the last (G13).
 *
 * Invariant: what comes back from the wire as our own, or is no message of this relay, is dropped; nothing of a closed bus goes on.
 */
import type { Bytes } from '@sealpost/protocol'
import type { Bus, Reach } from '../ports/store.ts'
import { createHintCodec } from './hint-codec.ts'
import { createMemoryBus } from './memory-bus.ts'
import type { OpenWire } from './wire.ts'

/** `key`: 32 bytes that all processes of the relay have. */
export type SharedBusOptions = { open: OpenWire; key: Bytes; failed(error: unknown): void }

export function createSharedBus({ open, key, failed }: SharedBusOptions): Bus {
  const local = createMemoryBus(failed)
  const codec = createHintCodec(key)
  const counts = new Map<number, number>()
  const listeners: ((reach: Reach) => void)[] = []
  let up = false
  let closed = false

  const wire = open({
    received(user_no, message) {
      if (!counts.has(user_no)) return
      const hint = codec.decode(user_no, message)
      if (hint !== null && hint !== 'own') local.publish(user_no, hint)
    },
    changed(now) {
      if (closed || up === now) return
      up = now
      for (const tell of listeners) tell(reach())
    },
  })

  function reach(): Reach {
    return up ? 'up' : 'down'
  }

  function giveBack(user_no: number): void {
    const left = (counts.get(user_no) ?? 0) - 1
    if (left > 0) return void counts.set(user_no, left)
    counts.delete(user_no)
    wire.unsubscribe(user_no)
  }

  return {
    publish(user_no, hint) {
      if (closed) return
      local.publish(user_no, hint)
      if (up) wire.publish(user_no, () => codec.encode(user_no, hint))
    },
    subscribe(user_no, receive) {
      const leave = local.subscribe(user_no, receive)
      const count = counts.get(user_no) ?? 0
      counts.set(user_no, count + 1)
      if (count === 0) wire.subscribe(user_no)
      let left = false
      return () => {
        leave()
        if (!left && !closed) giveBack(user_no)
        left = true
      }
    },
    subscriptions: () => counts.size,
    reach,
    onReach: (listener) => void listeners.push(listener),
    async close() {
      closed = true
      up = false
      counts.clear()
      await local.close()
      await wire.close()
    },
  }
}
