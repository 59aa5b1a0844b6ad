/**
 * What an open session may send now (protocol.md §5, §7): pages and answers in their order, and the reads that are due.
 *
 * Order that holds on every path: a log entry leaves before the first record of its epoch and before the nack or result that
 * rests on it; an ack leaves before a message whose `upto` reaches its position; pages and live messages continue exactly at
 * `outbox.told`. What cannot leave yet waits in `read` or `after_log`; `advance` lets it go after every input.
 *
 * Bound: one page being read or waiting, one log read.
 */
import { type CloseName, ERROR, type ErrorCode, type ServerHead } from '@sealpost/protocol'
import { factsOf } from './batch.ts'
import { leave } from './endings.ts'
import { leaveOut, type Offered, offerPage, type Own, tipField } from './outbox.ts'
import type { Effect, Job, Open, Rules, Step } from './state.ts'

/** A session on its way from one state to the next; its parts are replaced, never changed. */
export type Draft = { s: Open; readonly effects: Effect[]; readonly rules: Rules; ended: Step | null }

/** What a head may take of a frame beside the records: message head, JSON, seal. */
const HEAD_BYTES_MAX = 4_096

/** Records that fit into one frame, in bytes. */
export function recordBudget(rules: Rules): number {
  return rules.frame_bytes - HEAD_BYTES_MAX
}

/** Lets go what waited for this input, and starts the reads that are due. */
export function advance(d: Draft): void {
  if (d.ended !== null) return
  if (d.s.draining && d.s.intake.events === 0) return end(d, 'draining')
  releasePage(d)
  if (d.s.log.wanted > d.s.log.told && !d.s.log.reading) {
    d.s.log = { ...d.s.log, reading: true }
    d.effects.push({ do: 'read_log', who: d.s.who, from_log_seq: d.s.log.told + 1 })
  }
  if (d.s.read === null && !d.s.outbox.full) startRead(d)
}

function startRead(d: Draft): void {
  const { outbox, who } = d.s
  const ask = { user_no: who.user_no, told: outbox.told }
  if (outbox.mode === 'live' && outbox.head > outbox.sent) {
    d.s.read = { job: null, after: outbox.sent, page: null, token: null }
    const live = { job: null, after: outbox.sent, limit: d.rules.replay_events, own: ownOf(d.s), streams: null }
    d.effects.push({ do: 'read_page', ask: { ...ask, ...live } })
    return
  }
  const job = d.s.jobs[0]
  if (job === undefined) return
  if (!job.query && outbox.mode === 'live') {
    finishJob(d, job, { type: 'error', id: job.id, code: 'invalid_request', message: 'the session is live: there is nothing to replay' })
    return startRead(d)
  }
  const after = job.query ? job.after : outbox.told
  d.s.read = { job, after, page: null, token: null }
  // a query shows all: chains are verified from their own anchor, and own events are links of them
  const own = job.query ? null : ownOf(d.s)
  d.effects.push({ do: 'read_page', ask: { ...ask, job, after, limit: job.limit, own, streams: job.streams } })
}

function releasePage(d: Draft): void {
  const { read, intake, who, outbox } = d.s
  if (read === null || read.page === null || outbox.full) return
  const { page, job, after, token } = read
  const { epoch } = factsOf(page.events)
  if (epoch > d.s.log.told) return wantLog(d, epoch)
  // its ack is on the way, and leaves first
  const inFlight = (seq: number): boolean => intake.events > 0 && seq >= intake.first && seq < intake.next
  if (page.events.some((event) => event.device_no === who.device_no && inFlight(event.device_seq))) return
  d.s.read = null
  if (job === null) return send(d, offerPage(outbox, page, after, ownOf(d.s)))
  const events = job.query ? page.events : leaveOut(page.events, ownOf(d.s))
  const { upto, head_position, floor } = page
  const has_more = upto < head_position
  const head: ServerHead = {
    type: 'replay_response',
    id: job.id,
    after,
    upto,
    ...tipField(events, upto, () => page.tip),
    has_more,
    ...(has_more && token !== null ? { continuation_token: token } : {}),
    total_events: Math.max(0, head_position - after),
    head_position,
    floor,
  }
  if (!job.query) {
    const mode = has_more ? 'replay' : 'live'
    d.s.outbox = { ...outbox, mode, sent: upto, told: upto, tip: null, head: Math.max(outbox.head, head_position, upto) }
  }
  d.effects.push({ do: 'send_events', head, events, whole: false })
  if (has_more && job.pages > 1) d.s.jobs = [{ ...job, pages: job.pages - 1, token: null, after: upto }, ...d.s.jobs.slice(1)]
  else finishJob(d, job, null)
}

export function finishJob(d: Draft, job: Job, head: ServerHead | null): void {
  d.s.jobs = d.s.jobs.filter((other) => other !== job)
  d.s.requests -= 1
  if (head !== null) d.effects.push({ do: 'send', head })
}

export function send(d: Draft, offered: Offered): void {
  d.s.outbox = offered.outbox
  if (offered.send !== null) d.effects.push({ do: 'send_events', ...offered.send })
}

export function wantLog(d: Draft, log_seq: number): void {
  if (log_seq > d.s.log.wanted) d.s.log = { ...d.s.log, wanted: log_seq }
}

/** Sends at once, or behind the log entry that it rests on. */
export function sendAfterLog(d: Draft, log_seq: number, head: ServerHead): void {
  if (log_seq <= d.s.log.told) {
    d.effects.push({ do: 'send', head })
    return
  }
  wantLog(d, log_seq)
  d.s.after_log = [...d.s.after_log, { log_seq, head }]
}

export function sendError(d: Draft, id: number, code: ErrorCode): void {
  d.effects.push({ do: 'send', head: { type: 'error', id, code, message: ERROR[code] } })
}

export function ownOf(s: Open): Own {
  return { device_no: s.who.device_no, upto_seq: s.intake.acked }
}

export function end(d: Draft, name: CloseName | null): void {
  d.ended = leave(d.s, name)
}
