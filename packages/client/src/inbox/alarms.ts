/**
 * Alarms about the server as a whole and not about one event: what it keeps back or leaves out. They go through the store, so that
 * every process of the home and every later start sees them. Bound: one of each reason an hour.
 */
import type { AlarmNotice } from '../notices.ts'
import type { Clock, DeviceStore } from '../ports.ts'

const EVERY_MS = 3_600_000

export type AlarmReason = 'log_withheld' | 'cursor_gap' | 'epoch_unreadable'

export type Alarms = { raise(reason: AlarmReason): Promise<void> }

export type AlarmsPorts = {
  store: DeviceStore
  clock: Clock
  device_id: string
  /** Where the receive path stands. */
  position(): number
  tell(notice: AlarmNotice): void
}

export function createAlarms({ store, clock, device_id, position, tell }: AlarmsPorts): Alarms {
  const raisedAt = new Map<AlarmReason, number>()
  return {
    async raise(reason) {
      const last = raisedAt.get(reason)
      if (last !== undefined && clock.mono() - last < EVERY_MS) return
      raisedAt.set(reason, clock.mono())
      const notice: AlarmNotice = { is: 'alarm', position: position(), device_id, reason }
      await store.commitReceived({
        items: [{ is: 'notice', position: notice.position, stream_id: null, notice: JSON.stringify(notice) }],
        heads: [],
        acks: [],
        alarms: [{ position: notice.position, device_id, reason, at: clock.now() }],
      })
      tell(notice)
    },
  }
}
