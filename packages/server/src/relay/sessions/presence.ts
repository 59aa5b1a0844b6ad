/**
 * What this node tells the store of its devices (protocol.md §5 presence, R08). When they were last seen is written in bulk: one
 * row per device and flush, whatever happened in between. The end of a session is written at once, and again when the store did not
 * take it: else the device would be online for as long as this node is.
 *
 * Bound: one row per device that was seen since the last flush, and per session whose end is not written.
 */
import type { Contact, PresenceRow, Store } from '../../ports/store.ts'
import { deviceKey } from '../load/work.ts'

type Device = { user_no: number; device_no: number }
type ShownDevice = { device_id: string; online: boolean; last_seen: number | null; suspended?: true }
/** `session_id` null: of a device that followed by REST. */
export type EndedSession = Device & { session_id: string | null; position: number }

export type Presence = {
  touch(device: Device, position: number): void
  /** A stream that is followed by REST has begun. */
  follow(device: Device): Promise<void>
  /** True: the device is offline now. Throws what the store throws; `retry` has it then. */
  end(session: EndedSession): Promise<boolean>
  /** Writes what was seen since the last flush. */
  flush(): Promise<void>
  /** Writes the ends that the store did not take. */
  retry(): Promise<void>
}

export function createPresence(store: Pick<Store, 'touchDevices' | 'endSession' | 'setFollower'>, node_no: () => number): Presence {
  const seen = new Map<string, Device & { position: number }>()
  const followers = new Map<string, number>()
  const unwritten = new Set<EndedSession>()
  let flushing: Promise<void> = Promise.resolve()

  async function write(ended: EndedSession): Promise<boolean> {
    const { user_no, device_no, session_id, position } = ended
    if (session_id !== null) return store.endSession(user_no, device_no, session_id, { position })
    // one that is under way may still say that the device follows
    await flushing.catch(() => {})
    return followers.has(deviceKey(ended)) ? false : store.setFollower(ended, node_no(), false)
  }

  async function tryWrite(ended: EndedSession): Promise<boolean> {
    try {
      return await write(ended)
    } catch (error) {
      unwritten.add(ended)
      throw error
    }
  }

  function touch({ user_no, device_no }: Device, position: number): void {
    const key = deviceKey({ user_no, device_no })
    seen.set(key, { user_no, device_no, position: Math.max(position, seen.get(key)?.position ?? 0) })
  }

  function take(): Contact[] {
    const rows = [...seen].map(([key, device]) => ({ ...device, follower_node: followers.has(key) ? node_no() : null }))
    seen.clear()
    return rows
  }

  return {
    touch,
    async follow(device) {
      const key = deviceKey(device)
      followers.set(key, (followers.get(key) ?? 0) + 1)
      await store.setFollower(device, node_no(), true)
    },
    async end(ended) {
      const key = deviceKey(ended)
      if (ended.session_id === null) {
        touch(ended, ended.position)
        const left = (followers.get(key) ?? 1) - 1
        if (left > 0) followers.set(key, left)
        else followers.delete(key)
      }
      return tryWrite(ended)
    },
    flush() {
      const rows = take()
      flushing = rows.length > 0 ? store.touchDevices(rows) : Promise.resolve()
      return flushing
    },
    async retry() {
      for (const ended of unwritten) {
        unwritten.delete(ended)
        await tryWrite(ended)
      }
    },
  }
}

/** What others of the account are shown of a device. */
export function showPresence({ device_id, online, last_seen, suspended }: PresenceRow): ShownDevice {
  return { device_id, online, last_seen, ...(suspended ? { suspended } : {}) }
}
