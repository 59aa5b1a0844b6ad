/**
 * Which devices have a session here, and what was seen of them (protocol.md §5 presence, R08). `last_seen` is written in
 * bulk: one row per device and round, whatever happened in between.
 */
import type { PresenceRow, Store } from '../ports.ts'

type Device = { user_no: number; device_no: number; device_id: string }
type ShownDevice = { device_id: string; online: boolean; last_seen: number | null; suspended?: true }
type Seen = { user_no: number; device_no: number; position: number }

export type Presence = {
  open(device: Device, session_id: string): void
  /** False while the device has another session. */
  close(device: Device, session_id: string): boolean
  isOnline(user_no: number, device_id: string): boolean
  /** What others of the account are shown of these devices. */
  show(user_no: number, devices: readonly PresenceRow[]): ShownDevice[]
  user_nos(): number[]
  touch(device: Pick<Device, 'user_no' | 'device_no'>, position: number): void
  /** Writes what was seen since the last flush. */
  flush(): Promise<void>
  size(): number
}

export function createPresence(store: Pick<Store, 'touchDevices'>): Presence {
  const users = new Map<number, Map<string, Set<string>>>()
  let seen = new Map<string, Seen>()
  const isOnline = (user_no: number, device_id: string): boolean => users.get(user_no)?.has(device_id) === true

  return {
    open({ user_no, device_id }, session_id) {
      const devices = users.get(user_no) ?? new Map<string, Set<string>>()
      const sessions = devices.get(device_id) ?? new Set()
      users.set(user_no, devices.set(device_id, sessions.add(session_id)))
    },
    close({ user_no, device_id }, session_id) {
      const devices = users.get(user_no)
      const sessions = devices?.get(device_id)
      if (devices === undefined || sessions === undefined || !sessions.delete(session_id) || sessions.size > 0) return false
      devices.delete(device_id)
      if (devices.size === 0) users.delete(user_no)
      return true
    },
    isOnline,
    show: (user_no, devices) =>
      devices.map(({ device_id, last_seen, suspended }) => ({
        device_id,
        online: isOnline(user_no, device_id),
        last_seen,
        ...(suspended ? { suspended } : {}),
      })),
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
