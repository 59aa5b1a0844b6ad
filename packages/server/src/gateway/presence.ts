/**
 * Which devices have a session here, and what was seen of them (protocol.md §5 presence, R08). `last_seen` is written in
 * bulk: one row per device and round, whatever happened in between.
 */
import type { Who } from '../core/state.ts'
import type { Store } from '../ports.ts'

type Seen = { user_no: number; device_no: number; position: number }

export type Presence = {
  /** The session is now the one of its device. */
  open(who: Who, session_id: string): void
  /** False when another session of the device has taken its place. */
  close(who: Who, session_id: string): boolean
  isOnline(user_no: number, device_id: string): boolean
  user_nos(): number[]
  touch(who: Who, position: number): void
  /** Writes what was seen since the last flush. */
  flush(): Promise<void>
  size(): number
}

export function createPresence(store: Pick<Store, 'touchDevices'>): Presence {
  const users = new Map<number, Map<string, string>>()
  let seen = new Map<string, Seen>()

  return {
    open({ user_no, device_id }, session_id) {
      const devices = users.get(user_no) ?? new Map<string, string>()
      devices.set(device_id, session_id)
      users.set(user_no, devices)
    },
    close({ user_no, device_id }, session_id) {
      const devices = users.get(user_no)
      if (devices?.get(device_id) !== session_id) return false
      devices.delete(device_id)
      if (devices.size === 0) users.delete(user_no)
      return true
    },
    isOnline: (user_no, device_id) => users.get(user_no)?.has(device_id) === true,
    user_nos: () => [...users.keys()],
    touch({ user_no, device_no }, position) {
      const key = `${user_no}/${device_no}`
      seen.set(key, { user_no, device_no, position: Math.max(position, seen.get(key)?.position ?? 0) })
    },
    async flush() {
      if (seen.size === 0) return
      const rows = [...seen.values()]
      seen = new Map()
      await store.touchDevices(rows)
    },
    size: () => users.size,
  }
}
