/**
 * Events of one request (protocol.md §5, §6, §10): the intake of the session machine for as long as the request lasts, and the
 * inbox of all. The first number of the request is taken as the next one; whether it is, the store decides, as it does on a
 * socket. Bound: one message, `batch_events`.
 */
import { scanRecords, type ServerHeadOf } from '@sealpost/protocol'
import { settle, takeRecords } from '../core/intake.ts'
import type { Outcome, Rules, Who } from '../core/state.ts'
import type { Inbox } from '../ingest/inbox.ts'
import type { Pace } from './load/pace.ts'
import { deviceKey } from './load/work.ts'

export type AppendDeps = { inbox: Pick<Inbox, 'submit'>; pace: Pace; limits: Pick<Rules, 'batch_events' | 'payload_bytes'> }

export type AckedEvent = { device_seq: number; position: number; stream_seq: number; received_at: number }

/** `log_seq`: the entry of the device log that has to be known first. */
export type Refusal = Omit<ServerHeadOf<'nack'>, 'type'> & { log_seq?: number }

export type Appended =
  | { is: 'answered'; acks: AckedEvent[]; nack: Refusal | null }
  /** The device may not write, or another session of it does. */
  | { is: 'cut' }

/** `body`: records without a server part, no tombstones, at least one. Throws `invalid_message` when it is no such body. */
export async function appendRecords(
  { inbox, pace, limits }: AppendDeps,
  who: Pick<Who, 'user_no' | 'device_no' | 'device_id'>,
  session_id: string,
  body: Uint8Array,
): Promise<Appended> {
  const views = scanRecords(body, limits.batch_events)
  const first = views[0]?.device_seq ?? 1
  const now = performance.now()
  const owed = pace.owed(deviceKey(who), now)
  if (owed > 0) return refused({ code: 'rate_limited', device_seq: first, expected_device_seq: first, retry_after_ms: owed })
  const taken = takeRecords({ next: first, discarding: false, acked: 0, events: 0, bytes: 0, first: 0 }, who, session_id, views, limits)
  let { intake } = taken
  if (taken.runs.length === 0) return { is: 'answered', acks: [], nack: taken.nack === null ? null : toRefusal(taken.nack, null) }
  pace.take(deviceKey(who), intake.events, intake.bytes, now)

  return new Promise((resolve) => {
    const acks: AckedEvent[] = []
    let nack: Refusal | null = null
    const settled = (outcome: Outcome): void => {
      if (outcome.is === 'cut') return resolve({ is: 'cut' })
      const after = settle(intake, outcome)
      intake = after.intake
      if (outcome.is === 'acked')
        for (const { received_at, rows } of outcome.acks) for (const row of rows) acks.push({ ...row, received_at })
      else if (after.nack !== null) nack ??= toRefusal(after.nack, outcome.log_seq)
      if (intake.events > 0) return
      // what the store refused lies before what was plain from the bytes
      nack ??= taken.nack === null ? null : toRefusal(taken.nack, null)
      resolve({ is: 'answered', acks: acks.sort((a, b) => a.device_seq - b.device_seq), nack })
    }
    inbox.submit(taken.runs, { settled })
  })
}

function refused(nack: Refusal): Appended {
  return { is: 'answered', acks: [], nack }
}

function toRefusal({ type: _type, ...nack }: ServerHeadOf<'nack'>, log_seq: number | null): Refusal {
  return log_seq === null ? nack : { ...nack, log_seq }
}
