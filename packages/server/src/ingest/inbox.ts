/**
 * The inbox in front of the store (protocol.md §6): group commit without a timer. What arrived while a batch was being
 * committed is the next batch; a lane or two, users spread over them by number. A user stays in one lane while anything of it waits or
 * is being committed, so that its order is kept.
 *
 * Invariants: an ack leaves only after its commit, and before the batch is offered to anybody; a refusal takes everything of
 * that device that waits behind it. A user whose account is locked goes back, and after the third time is committed alone and
 * patiently, beside the lanes: one long lock stalls nobody else.
 *
 * Bound: `queue_bytes` over all users, above which a run is refused as `unavailable`; `events_per_minute` a user.
 */
import type { NackCode } from '@sealpost/protocol'
import type { Submission } from '../core/state.ts'
import type { IngestStore, StoredEvent, Verdict } from '../ports/store.ts'
import { isDataError } from './data-error.ts'
import { dropBehind, putBack, type Segment, type Sink, takeRuns, type WaitingUser } from './segments.ts'

export type InboxBounds = {
  queue_bytes: number
  /** Of one commit. */
  batch_events: number
  batch_bytes: number
  /** Of one fan-out message, records only. */
  message_bytes: number
  /** How many commits may go on at once: 1 or 2. */
  lanes(): number
  events_per_minute(): number
}

export type InboxDeps = {
  store: IngestStore
  bounds: InboxBounds
  /** A committed batch of one user, positions without a hole, at most `message_bytes`. Called after the acks. */
  committed(user_no: number, events: readonly StoredEvent[]): void
  failed(error: unknown): void
  /** ms, monotonic. */
  now(): number
  /** A random wait in whole ms, from `min` to twice that. */
  jitter(min: number): number
}

export type Inbox = {
  /** Runs of one message, in order: when one is refused at once, those behind it are dropped with it. */
  submit(runs: readonly Submission[], sink: Sink): void
  /** Resolves when nothing waits and nothing is being committed. */
  idle(): Promise<void>
  stats(): { users: number; bytes: number; batches: number; events: number; minutes: number; suspects: number }
}

const LANES_MAX = 2
const BUSY_MAX = 3
const PATIENT_MAX = 2
const RETRY_MS = 1_000
const MINUTE_MS = 60_000
const SUSPECT_MS = 600_000

type Lane = { users: Set<WaitingUser>; scheduled: boolean; running: boolean }

export function createInbox(deps: InboxDeps): Inbox {
  const { store, bounds } = deps
  const lanes: Lane[] = Array.from({ length: LANES_MAX }, () => ({ users: new Set(), scheduled: false, running: false }))
  const users = new Map<number, WaitingUser>()
  /** Users of a batch that the store could not digest, and since when: each is committed alone until one of its batches succeeds. */
  const suspects = new Map<number, number>()
  const minutes = new Map<number, { since: number; events: number }>()
  const waiters: (() => void)[] = []
  let forgotAt = deps.now()
  let patients = 0
  let bytes = 0
  let batches = 0
  let stored = 0

  function submit(runs: readonly Submission[], sink: Sink): void {
    for (const [i, run] of runs.entries()) {
      if (bytes + run.bytes > bounds.queue_bytes)
        return tell(runs.slice(i), sink, { code: 'unavailable', retry_after_ms: deps.jitter(RETRY_MS) })
      const { count, wait_ms } = countInMinute(run)
      // what fits is taken: a run above the quota of a whole minute would never come in
      if (count > 0) take(part(run, 0, count), sink)
      if (count < run.events.length)
        return tell([part(run, count), ...runs.slice(i + 1)], sink, { code: 'rate_limited', retry_after_ms: wait_ms })
    }
  }

  function take(run: Submission, sink: Sink): void {
    const segment = { run, sink }
    let user = users.get(run.user_no)
    if (user === undefined) {
      user = { user_no: run.user_no, lane: run.user_no % bounds.lanes(), devices: new Map(), out: false, busy: 0 }
      users.set(run.user_no, user)
    }
    const waiting = user.devices.get(run.device_no)
    if (waiting === undefined) user.devices.set(run.device_no, [segment])
    else waiting.push(segment)
    bytes += run.bytes
    if (!user.out) enqueue(user)
  }

  function enqueue(user: WaitingUser): void {
    const lane = lanes[user.lane]
    if (lane === undefined) return
    lane.users.add(user)
    schedule(lane)
  }

  /** Not at once but after the sockets that are readable now: they belong to the same batch. */
  function schedule(lane: Lane): void {
    if (lane.scheduled || lane.running || lane.users.size === 0) return
    lane.scheduled = true
    setImmediate(() => {
      lane.scheduled = false
      runLane(lane).catch(deps.failed)
    })
  }

  async function runLane(lane: Lane): Promise<void> {
    const batch = takeBatch(lane)
    if (batch.length === 0) return
    lane.running = true
    try {
      await commit(batch, false)
    } finally {
      lane.running = false
      schedule(lane)
    }
  }

  function takeBatch(lane: Lane): Segment[] {
    const room = { events: bounds.batch_events, bytes: bounds.batch_bytes }
    const batch: Segment[] = []
    for (const user of lane.users) {
      if (room.events <= 0 || room.bytes <= 0) break
      if (user.busy >= BUSY_MAX) {
        if (patients < PATIENT_MAX) runPatient(lane, user).catch(deps.failed)
        continue
      }
      const suspect = suspects.has(user.user_no)
      if (suspect && batch.length > 0) continue
      lane.users.delete(user)
      user.out = true
      batch.push(...takeRuns(user, room))
      if (suspect) break
    }
    return batch
  }

  async function runPatient(lane: Lane, user: WaitingUser): Promise<void> {
    patients += 1
    lane.users.delete(user)
    user.out = true
    await commit(takeRuns(user, { events: bounds.batch_events, bytes: bounds.batch_bytes }), true)
    patients -= 1
    for (const other of lanes) schedule(other)
  }

  async function commit(batch: readonly Segment[], patient: boolean): Promise<void> {
    const runs = batch.map((segment) => segment.run)
    const taken = new Set(runs.map((run) => run.user_no))
    let verdicts: Verdict[] | null = null
    try {
      verdicts = await store.ingest(runs, patient)
      batches += 1
      for (const user_no of taken) suspects.delete(user_no)
    } catch (error) {
      // what the store did is not known, the commit included: the same bytes again are safe
      deps.failed(error)
      if (taken.size > 1 && isDataError(error)) for (const user_no of taken) suspects.set(user_no, deps.now())
    }
    const fresh = new Map<number, StoredEvent[]>()
    const later = new Map<number, Promise<void>[]>()
    for (const [i, segment] of batch.entries()) {
      const wait = settle(segment, verdicts?.[i] ?? null, patient, fresh)
      const { user_no } = segment.run
      if (wait !== null) later.set(user_no, [...(later.get(user_no) ?? []), wait])
    }
    for (const [user_no, events] of fresh) fanOut(user_no, events)
    for (const user_no of taken) {
      const waits = later.get(user_no)
      if (waits === undefined) release(user_no)
      else void Promise.all(waits).then(() => release(user_no))
    }
  }

  /** Tells the sink. Returns a promise when the answer needs another look at the store. */
  function settle(segment: Segment, verdict: Verdict | null, patient: boolean, fresh: Map<number, StoredEvent[]>): Promise<void> | null {
    const user = users.get(segment.run.user_no)
    if (user === undefined) return null
    if (verdict?.is !== 'busy') user.busy = 0
    if (verdict === null) return refuse(segment, 'unavailable', segment.run.first_seq, 0, { retry_after_ms: deps.jitter(RETRY_MS) })
    switch (verdict.is) {
      case 'stored':
        acked(segment, verdict.events, fresh)
        return null
      case 'busy':
        if (patient) return refuse(segment, 'unavailable', segment.run.first_seq, 0, { retry_after_ms: deps.jitter(RETRY_MS) })
        user.busy += 1
        putBack(user, segment)
        return null
      case 'not_active':
      case 'fenced':
        drop(segment)
        segment.sink.settled({ is: 'cut', why: verdict.is })
        return null
      case 'not_next':
        return resolveDuplicates(user, segment, verdict.expected_seq)
      case 'gap':
        return refuse(segment, 'sequence_gap', verdict.expected_seq, 0, {})
      case 'stale_epoch':
        return refuse(segment, 'stale_epoch', verdict.expected_seq, 0, { log_seq: verdict.log_seq })
      case 'event_expired':
      case 'clock_skew':
      case 'quota_exceeded':
      case 'too_many_streams':
        return refuse(segment, verdict.is, verdict.expected_seq, verdict.index, {})
      default:
        return verdict satisfies never
    }
  }

  function acked(segment: Segment, events: readonly StoredEvent[], fresh: Map<number, StoredEvent[]>): void {
    const { run, sink } = segment
    bytes -= run.bytes
    stored += events.length
    const rows = events.map(({ device_seq, position, stream_seq }) => ({ device_seq, position, stream_seq }))
    sink.settled({ is: 'acked', acks: [{ received_at: events[0]?.received_at ?? 0, rows }], events: events.length, bytes: run.bytes })
    const known = fresh.get(run.user_no)
    if (known === undefined) fresh.set(run.user_no, [...events])
    else known.push(...events)
  }

  /** Numbers that were stored before: the same event is acked again with its first position, another one is a conflict. */
  async function resolveDuplicates(user: WaitingUser, segment: Segment, expected: number): Promise<void> {
    const { run, sink } = segment
    const old = run.events.slice(0, Math.min(run.events.length, expected - run.first_seq))
    const asked = old.map(({ flags, client }, i) => ({ device_seq: run.first_seq + i, flags, client }))
    try {
      const verdicts = await store.readDuplicates(run.user_no, run.device_no, asked)
      const acks = new Map<number, { received_at: number; rows: { device_seq: number; position: number; stream_seq: number }[] }>()
      let same = 0
      for (const verdict of verdicts) {
        if (verdict.is === 'conflict') break
        const { device_seq } = verdict
        const [received_at, position, stream_seq] =
          verdict.is === 'swept' ? [0, 0, 0] : [verdict.received_at, verdict.position, verdict.stream_seq]
        const group = acks.get(received_at) ?? { received_at, rows: [] }
        group.rows.push({ device_seq, position, stream_seq })
        acks.set(received_at, group)
        same += 1
      }
      const rest = part(run, same)
      bytes -= run.bytes - rest.bytes
      if (same > 0) sink.settled({ is: 'acked', acks: [...acks.values()], events: same, bytes: run.bytes - rest.bytes })
      if (rest.events.length === 0) return
      const left = { run: rest, sink }
      if (same < old.length) refuse(left, 'sequence_conflict', expected, 0, {})
      else putBack(user, left)
    } catch (error) {
      deps.failed(error)
      refuse(segment, 'unavailable', run.first_seq, 0, { retry_after_ms: deps.jitter(RETRY_MS) })
    }
  }

  /** Refuses a run that was taken, and what waits behind it. */
  function refuse(
    segment: Segment,
    code: NackCode,
    expected: number,
    index: number,
    more: { log_seq?: number; retry_after_ms?: number },
  ): null {
    const released = drop(segment)
    segment.sink.settled({
      is: 'refused',
      code,
      device_seq: segment.run.first_seq + index,
      expected,
      log_seq: more.log_seq ?? null,
      retry_after_ms: more.retry_after_ms ?? null,
      ...released,
    })
    return null
  }

  function drop(segment: Segment): { events: number; bytes: number } {
    const user = users.get(segment.run.user_no)
    const behind = user === undefined ? { events: 0, bytes: 0 } : dropBehind(user, segment)
    const released = { events: segment.run.events.length + behind.events, bytes: segment.run.bytes + behind.bytes }
    bytes -= released.bytes
    return released
  }

  function fanOut(user_no: number, events: StoredEvent[]): void {
    events.sort((a, b) => a.position - b.position)
    let from = 0
    let size = 0
    for (const [i, event] of events.entries()) {
      const next = event.client.length + RECORD_OVERHEAD_BYTES
      if (i > from && size + next > bounds.message_bytes) {
        deps.committed(user_no, events.slice(from, i))
        from = i
        size = 0
      }
      size += next
    }
    deps.committed(user_no, from === 0 ? events : events.slice(from))
  }

  function release(user_no: number): void {
    const user = users.get(user_no)
    if (user === undefined) return
    user.out = false
    if (user.devices.size > 0) return enqueue(user)
    users.delete(user_no)
    if (users.size === 0) for (const wake of waiters.splice(0)) wake()
  }

  /** Refuses the first of runs that were never taken, and all of them with it. */
  function tell(runs: readonly Submission[], sink: Sink, refused: { code: NackCode; retry_after_ms: number }): void {
    const first_seq = runs[0]?.first_seq ?? 0
    const released = { events: 0, bytes: 0 }
    for (const run of runs) {
      released.events += run.events.length
      released.bytes += run.bytes
    }
    sink.settled({ is: 'refused', ...refused, device_seq: first_seq, expected: first_seq, log_seq: null, ...released })
  }

  /** Counts as many events of the run as the user's minute has room for; ms to wait for the others. */
  function countInMinute(run: Submission): { count: number; wait_ms: number } {
    const now = deps.now()
    let minute = minutes.get(run.user_no)
    if (minute === undefined || now - minute.since >= MINUTE_MS) {
      forget(now)
      minute = { since: now, events: 0 }
      minutes.set(run.user_no, minute)
    }
    const count = Math.max(0, Math.min(run.events.length, bounds.events_per_minute() - minute.events))
    minute.events += count
    return { count, wait_ms: Math.ceil(minute.since + MINUTE_MS - now) }
  }

  /** Once a minute, so that no run pays for the users of all others. */
  function forget(now: number): void {
    if (now - forgotAt < MINUTE_MS) return
    forgotAt = now
    for (const [user_no, { since }] of minutes) if (now - since >= MINUTE_MS) minutes.delete(user_no)
    for (const [user_no, since] of suspects) if (now - since >= SUSPECT_MS) suspects.delete(user_no)
  }

  return {
    submit,
    idle: () => (users.size === 0 ? Promise.resolve() : new Promise((resolve) => waiters.push(resolve))),
    stats: () => ({ users: users.size, bytes, batches, events: stored, minutes: minutes.size, suspects: suspects.size }),
  }
}

/** What the server part and the length add to a client part. */
const RECORD_OVERHEAD_BYTES = 29

function part(run: Submission, from: number, to: number = run.events.length): Submission {
  if (from === 0 && to === run.events.length) return run
  const events = run.events.slice(from, to)
  return { ...run, first_seq: run.first_seq + from, events, bytes: sizeOf(events) }
}

function sizeOf(events: Submission['events']): number {
  let size = 0
  for (const event of events) size += event.client.length
  return size
}
