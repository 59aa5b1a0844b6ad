/**
 * What a session takes from its client (protocol.md §5, §6): numbers in order, cut into runs of one epoch. A nack is
 * cumulative: after it higher numbers are discarded until the expected one arrives. The store decides again under its locks;
 * here only what is plain from the bytes is refused.
 *
 * Bound: `batch_events` records a message; what is in flight is bounded by `isIntakeFull`.
 */
import { eventTimeMs, type NackCode, type RecordView, type ServerHeadOf } from '@sealpost/protocol'
import type { Intake, Outcome, Rules, Submission, Who } from './state.ts'
import type { RunEvent } from '../ports/store.ts'

export type Taken = { intake: Intake; runs: Submission[]; nack: ServerHeadOf<'nack'> | null }

export function isIntakeFull(intake: Intake, rules: Rules): boolean {
  return intake.events >= rules.inflight_events || intake.bytes >= rules.inflight_bytes
}

export function takeRecords(
  before: Intake,
  who: Pick<Who, 'user_no' | 'device_no' | 'device_id'>,
  session_id: string,
  views: readonly RecordView[],
  rules: Pick<Rules, 'payload_bytes'>,
): Taken {
  const intake = { ...before }
  const runs: Submission[] = []
  let run: (Submission & { events: RunEvent[] }) | null = null
  let nack: ServerHeadOf<'nack'> | null = null
  for (const view of views) {
    const { device_seq } = view
    if (device_seq > intake.next) {
      if (!intake.discarding) nack = refuse(intake, 'sequence_gap', device_seq)
      continue
    }
    if (device_seq === intake.next) intake.discarding = false
    const code = refusal(view, who, rules)
    if (code !== null) {
      nack = refuse(intake, code, device_seq)
      continue
    }
    if (device_seq === intake.next) intake.next += 1
    if (run === null || run.epoch !== view.epoch || run.first_seq + run.events.length !== device_seq) {
      run = { user_no: who.user_no, device_no: who.device_no, session_id, first_seq: device_seq, epoch: view.epoch, events: [], bytes: 0 }
      runs.push(run)
    }
    run.events.push(toRunEvent(view))
    run.bytes += view.client.length
    intake.first = intake.events === 0 ? device_seq : Math.min(intake.first, device_seq)
    intake.events += 1
    intake.bytes += view.client.length
  }
  return { intake, runs, nack }
}

/** The intake after an outcome, and what to tell the client. */
export function settle(intake: Intake, outcome: Exclude<Outcome, { is: 'cut' }>): { intake: Intake; nack: ServerHeadOf<'nack'> | null } {
  const events = Math.max(0, intake.events - outcome.events)
  const bytes = Math.max(0, intake.bytes - outcome.bytes)
  if (outcome.is === 'acked') {
    let { acked, first } = intake
    for (const { rows } of outcome.acks)
      for (const row of rows) {
        acked = Math.max(acked, row.device_seq)
        first = Math.max(first, row.device_seq + 1)
      }
    return { intake: { ...intake, events, bytes, acked, first }, nack: null }
  }
  const nack: ServerHeadOf<'nack'> = {
    type: 'nack',
    code: outcome.code,
    device_seq: outcome.device_seq,
    expected_device_seq: outcome.expected,
    ...(outcome.retry_after_ms === null ? {} : { retry_after_ms: outcome.retry_after_ms }),
  }
  return { intake: { ...intake, events, bytes, next: outcome.expected, discarding: true }, nack }
}

function refuse(intake: Intake, code: NackCode, device_seq: number): ServerHeadOf<'nack'> {
  intake.discarding = true
  return { type: 'nack', code, device_seq, expected_device_seq: intake.next }
}

function refusal(view: RecordView, who: Pick<Who, 'device_id'>, rules: Pick<Rules, 'payload_bytes'>): NackCode | null {
  if (view.device_id !== who.device_id) return 'invalid_event'
  if (view.payload_bytes > rules.payload_bytes) return 'payload_too_large'
  return null
}

function toRunEvent(view: RecordView): RunEvent {
  const made_at = view.ttl === null ? 0 : eventTimeMs(view.event_id)
  return {
    stream_id: view.stream_id,
    flags: view.flags,
    client: view.client,
    expires_at: view.ttl === null ? 0 : made_at + view.ttl * 1000,
    made_at,
  }
}
