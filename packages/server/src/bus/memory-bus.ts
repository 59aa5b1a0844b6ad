/**
 * The bus within a process: a hint reaches every subscriber of the user before `publish` returns (protocol.md §7).
 * A hint published while another is being handed out waits, so that all subscribers see one order.
 */
import type { Bus, Hint } from '../ports/store.ts'

type Receive = (hint: Hint) => void

export function createMemoryBus(failed: (error: unknown) => void = () => {}): Bus {
  const subscribers = new Map<number, Set<Receive>>()
  const waiting: { user_no: number; hint: Hint }[] = []
  let publishing = false

  function handOut({ user_no, hint }: { user_no: number; hint: Hint }): void {
    for (const receive of subscribers.get(user_no) ?? []) {
      try {
        receive(hint)
      } catch (error) {
        failed(error)
      }
    }
  }

  return {
    publish(user_no, hint) {
      waiting.push({ user_no, hint })
      if (publishing) return
      publishing = true
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) handOut(next)
      publishing = false
    },
    subscribe(user_no, receive) {
      const set = subscribers.get(user_no) ?? new Set()
      // each subscription is one of its own, also of the same function twice
      const own: Receive = (hint) => receive(hint)
      set.add(own)
      subscribers.set(user_no, set)
      return () => {
        set.delete(own)
        if (set.size === 0 && subscribers.get(user_no) === set) subscribers.delete(user_no)
      }
    },
    subscriptions: () => subscribers.size,
    reach: () => 'alone',
    onReach: () => {},
    close() {
      subscribers.clear()
      waiting.length = 0
      return Promise.resolve()
    },
  }
}
