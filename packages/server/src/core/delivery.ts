/**
 * What an open session may send now (protocol.md §5, §7): pages and answers in their order, and the reads that are due.
 *
 * Order that holds on every path: a log entry leaves before the first record of its epoch and before the nack or result that
 * rests on it; an ack leaves before a message whose `upto` reaches its position; pages and live messages continue exactly at
 * `outbox.told`. What cannot leave yet waits in `read` or `after_log`; `advance` lets it go after every input.
 *
 * Bound: one page being read or waiting, one log read, one request with a long answer; `KEPT_*` of what is committed meanwhile.
 */
import { type CloseName, ERROR, type ErrorCode, type ServerHead, type ServerHeadOf } from '@sealpost/protocol'
import { factsOf } from './batch.ts'
import { leave } from './endings.ts'
import { leaveOut, type Offered, offerBatch, offerPage, type Own, tipField } from './outbox.ts'
import type { Page, StoredEvent } from '../ports/store.ts'
import type { Effect, Job, Open, Rules, Step } from './state.ts'

/** A session on its way from one state to the next; its parts are replaced, never changed. */
export type Draft = { s: Open; readonly effects: Effect[]; readonly rules: Rules; ended: Step | null }

/** What a head may take of a frame beside the records: message head, JSON, seal. */
const HEAD_BYTES_MAX = 4_096
const KEPT_BYTES_MAX = 262_144
const KEPT_BATCHES_MAX = 64

/** Records that fit into one frame, in bytes. */
export function recordBudget(rules: Rules): number {
  return rules.frame_bytes - HEAD_BYTES_MAX
}

/** Lets go what waited for this input, and starts the reads that are due. */
export function advance(d: Draft): void {
  if (d.ended !== null) return
  if (d.s.draining && isAnswered(d.s)) return end(d, 'draining')
  releasePage(d)
  if (d.s.log.wanted > d.s.log.told && !d.s.log.reading) {
    d.s.log = { ...d.s.log, reading: true }
    d.effects.push({ do: 'read_log', who: d.s.who, from_log_seq: d.s.log.told + 1 })
  }
  if (d.s.outbox.full) return
  if (d.s.read === null) startRead(d)
  startAsk(d)
}

/** Whether every event and entry of the log that was taken has its answer; what was only asked for is asked again elsewhere. */
function isAnswered({ intake, requests, jobs, asks, after_log }: Open): boolean {
  return intake.events === 0 && requests === jobs.length + asks.length && after_log.length === 0
}

/** A committed batch: sent, kept behind the page that is being read, or left to the store. */
export function takeBatch(d: Draft, events: readonly StoredEvent[]): void {
  const { read, outbox, kept } = d.s
  if (read !== null && read.job === null && !outbox.full) {
    const bytes = kept.bytes + factsOf(events).bytes
    if (bytes <= KEPT_BYTES_MAX && kept.batches.length < KEPT_BATCHES_MAX) d.s.kept = { batches: [...kept.batches, events], bytes }
  }
  offer(d, events)
}

function offer(d: Draft, events: readonly StoredEvent[]): void {
  const limit = { ready: isLiveFree(d.s), log_told: d.s.log.told, bytes: recordBudget(d.rules) }
  send(d, offerBatch(d.s.outbox, events, ownOf(d.s), limit))
}

/** Whether nothing that is being read goes before the next live message; a query moves nothing. */
export function isLiveFree({ read }: Open): boolean {
  return read === null || read.job?.query === true
}

/** One at a time, and only while there is room: many small requests must not become many large answers. */
function startAsk(d: Draft): void {
  const head = d.s.asks[0]
  if (head === undefined || d.s.asking) return
  d.s.asking = true
  const { who } = d.s
  if (head.type === 'log_request') d.effects.push({ do: 'read_entries', who, head })
  else d.effects.push({ do: 'read_tips', who, head })
}

function startRead(d: Draft): void {
  const { outbox, who } = d.s
  const ask = { user_no: who.user_no, told: outbox.told }
  const job = d.s.jobs[0]
  if (job !== undefined && !job.query && outbox.mode === 'live') {
    finishJob(d, job, { type: 'error', id: job.id, code: 'invalid_request', message: 'the session is live: there is nothing to replay' })
    return startRead(d)
  }
  // under steady traffic something is always due: a query has its turn after each live page
  if (outbox.mode === 'live' && outbox.head > outbox.sent && (job === undefined || d.s.last_read === 'job')) {
    d.s.last_read = 'live'
    d.s.read = { job: null, after: outbox.sent, page: null, token: null }
    const live = { job: null, after: outbox.sent, limit: d.rules.replay_events, own: ownOf(d.s), streams: null }
    d.effects.push({ do: 'read_page', ask: { ...ask, ...live } })
    return
  }
  if (job === undefined) return
  d.s.last_read = 'job'
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
  if (job === null) {
    send(d, offerPage(outbox, page, after, ownOf(d.s)))
    const { batches } = d.s.kept
    d.s.kept = { batches: [], bytes: 0 }
    for (const batch of batches) offer(d, batch)
    return
  }
  const events = job.query ? page.events : leaveOut(page.events, ownOf(d.s))
  const head = pageHead(page, events, after, token)
  const { upto, head_position, has_more } = head
  if (!job.query) {
    const mode = has_more ? 'replay' : 'live'
    d.s.outbox = { ...outbox, mode, sent: upto, told: upto, tip: null, head: Math.max(outbox.head, head_position, upto) }
  }
  d.effects.push({ do: 'send_events', head: { type: 'replay_response', id: job.id, ...head }, events, whole: false })
  if (has_more && job.pages > 1) d.s.jobs = [{ ...job, pages: job.pages - 1, token: null, after: upto }, ...d.s.jobs.slice(1)]
  else finishJob(d, job, null)
}

/** What is said of a page, wherever it goes. `events`: those of it that are sent. */
export function pageHead(
  page: Page,
  events: readonly StoredEvent[],
  after: number,
  token: string | null,
): Omit<ServerHeadOf<'replay_response'>, 'type' | 'id'> {
  const { upto, head_position, floor } = page
  const has_more = upto < head_position
  return {
    after,
    upto,
    ...tipField(events, upto, () => page.tip),
    has_more,
    ...(has_more && token !== null ? { continuation_token: token } : {}),
    total_events: Math.max(0, head_position - after),
    head_position,
    floor,
  }
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
