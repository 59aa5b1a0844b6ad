/**
 * What waits in the inbox, by user and device, and how it is cut into a batch (protocol.md §6): at most one run per device,
 * contiguous numbers of one session and one epoch. Order within a device is never changed.
 */
import type { Submission } from '../core/state.ts'
import type { Outcome } from '../core/state.ts'

/** Who is told what became of the events. */
export type Sink = { settled(outcome: Outcome): void }

export type Segment = { run: Submission; sink: Sink }

export type WaitingUser = {
  readonly user_no: number
  /** Which of the lanes commits it. */
  readonly lane: number
  /** By device_no; no empty lists. */
  readonly devices: Map<number, Segment[]>
  /** Part of a batch, or of a look-up after one: nothing of the user is taken. */
  out: boolean
  /** How often in a row the account was locked by another writer. */
  busy: number
}

/** Takes the next run of every device of the user, as long as `room` lasts. */
export function takeRuns(user: WaitingUser, room: { events: number; bytes: number }): Segment[] {
  const taken: Segment[] = []
  for (const [device_no, segments] of user.devices) {
    const merged = takeRun(segments, room)
    if (merged === null) break
    taken.push(merged)
    if (segments.length === 0) user.devices.delete(device_no)
  }
  return taken
}

/** Puts a run back in front of what its device has sent since. */
export function putBack(user: WaitingUser, segment: Segment): void {
  const waiting = user.devices.get(segment.run.device_no)
  if (waiting === undefined) user.devices.set(segment.run.device_no, [segment])
  else waiting.unshift(segment)
}

/** Drops what waits behind a refused run of the same session; returns how much that was. */
export function dropBehind(user: WaitingUser, { run, sink }: Segment): { events: number; bytes: number } {
  const dropped = { events: 0, bytes: 0 }
  const kept = (user.devices.get(run.device_no) ?? []).filter((waiting) => {
    if (waiting.sink !== sink) return true
    dropped.events += waiting.run.events.length
    dropped.bytes += waiting.run.bytes
    return false
  })
  if (kept.length === 0) user.devices.delete(run.device_no)
  else user.devices.set(run.device_no, kept)
  return dropped
}

/** The first run, with those behind it that continue it. A run that is too large for the room is taken when it would be alone. */
function takeRun(segments: Segment[], room: { events: number; bytes: number }): Segment | null {
  const first = segments[0]
  if (first === undefined || room.events <= 0 || room.bytes <= 0) return null
  let end = 1
  let events = first.run.events.length
  let bytes = first.run.bytes
  for (let next = segments[end]; next !== undefined && continues(first, events, next); next = segments[end]) {
    if (events + next.run.events.length > room.events || bytes + next.run.bytes > room.bytes) break
    events += next.run.events.length
    bytes += next.run.bytes
    end += 1
  }
  const parts = segments.splice(0, end)
  room.events -= events
  room.bytes -= bytes
  if (parts.length === 1) return first
  return { sink: first.sink, run: { ...first.run, events: parts.flatMap((part) => part.run.events), bytes } }
}

function continues(first: Segment, events: number, next: Segment): boolean {
  return (
    next.sink === first.sink &&
    next.run.session_id === first.run.session_id &&
    next.run.epoch === first.run.epoch &&
    next.run.first_seq === first.run.first_seq + events
  )
}
