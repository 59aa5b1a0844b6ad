/** What the application is told beside its events: gaps, alarms and resets of a stream, and notices of the device as a whole. */
import type { SealpostError } from '@sealpost/protocol'
import type { ConnectionState } from './connection/machine.ts'

export type GapNotice = {
  is: 'gap'
  /** Null: unknown, events of any stream may be missing. */
  stream_id: string
  device_id: string
  from_device_seq: number
  reason: 'expired' | 'retention' | 'restart' | 'unexplained'
  position: number
}
/** Something did not verify and was not handed over. `reason` is a stable code. */
export type AlarmNotice = { is: 'alarm'; position: number; device_id: string; reason: string }
/** The server's history is another one, or does not know the cursor: what follows is only what this device has not seen. */
export type ResetNotice = { is: 'reset'; reason: 'history_changed' | 'cursor_unknown' }

export type StreamNotice = GapNotice | AlarmNotice | ResetNotice

export type Notice =
  | { is: 'state'; state: ConnectionState }
  | StreamNotice
  /** `terminal`: the engine has stopped and does not connect again by itself. */
  | { is: 'error'; error: SealpostError; terminal: boolean }
  | { is: 'log'; log_seq: number }

/** Of the JSON of a notice: behind it positions are of another history. */
export function isReset(notice: string): boolean {
  return notice.startsWith('{"is":"reset"')
}
