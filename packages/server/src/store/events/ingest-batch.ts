/**
 * The arrays of one `ingest` call, and what its answer means for each run (protocol.md §6; the call: sql/functions/ingest.sql).
 * Pure. Runs are sorted by (user, device), heads by (user, stream): the one lock order of all batches. Indexes inside the
 * arrays begin at 1; a head of stream 0 is the user's position.
 *
 *   run → one per device · seg → run × stream · head → user × stream · ev → one per event, in order of (run, device_seq)
 */
import type { Run, StoredEvent, Verdict } from '../../ports/store.ts'

/** The number of a stream; null when the limit of the user is reached. */
export type StreamNumbers = (run: Run, stream_id: string) => number | null

export type IngestArrays = {
  run_user: number[]
  run_device: number[]
  run_session: string[]
  run_first: number[]
  run_n: number[]
  run_epoch: number[]
  /** Null when no run has an event with a ttl. */
  run_expires: number[] | null
  run_made: number[] | null
  /** Null when every run may be stored. */
  run_barred: number[] | null
  run_head: number[]
  run_off: number[]
  seg_run: number[]
  seg_head: number[]
  seg_n: number[]
  seg_off: number[]
  /** Stored bytes: of client parts. */
  seg_bytes: number[]
  head_user: number[]
  head_stream: number[]
  head_n: number[]
  head_bytes: number[]
  ev_run: number[]
  ev_seg: number[]
  ev_run_ix: number[]
  ev_seg_ix: number[]
  ev_expires: number[]
  ev_flags: number[]
  ev_record: Uint8Array[]
}

export type IngestBatch = {
  arrays: IngestArrays
  /** The runs as sorted; `at` = their place in what the caller gave; `quota_index` = the event that meets the stream limit. */
  sorted: { run: Run; at: number; quota_index: number | null }[]
}

/** Numbers and verdicts as the call answers; null arrays when all runs were stored. */
export type IngestAnswer = {
  received_at: number
  verdict: number[] | null
  expected: number[] | null
  log_seq: number[] | null
  run_base: number[] | null
  seg_base: number[] | null
}

const VERDICT = { ok: 0, busy: 1, not_active: 2, fenced: 3, not_next: 4, gap: 5, stale_epoch: 6, ttl: 7, barred: 8, over_quota: 9 } as const

export function buildBatch(runs: readonly Run[], streamNo: StreamNumbers): IngestBatch {
  const sorted = runs.map((run, at): IngestBatch['sorted'][number] => ({ run, at, quota_index: null }))
  sorted.sort((a, b) => a.run.user_no - b.run.user_no || a.run.device_no - b.run.device_no)
  const a = emptyArrays()
  for (let from = 0; from < sorted.length; ) {
    let to = from + 1
    while (to < sorted.length && sorted[to]?.run.user_no === sorted[from]?.run.user_no) to++
    addUser(a, sorted.slice(from, to), streamNo)
    from = to
  }
  if (a.run_made?.every((ms) => ms === 0) === true && a.run_expires?.every((ms) => ms === 0) === true) a.run_made = a.run_expires = null
  if (a.run_barred?.every((bar) => bar === 0) === true) a.run_barred = null
  return { arrays: a, sorted }
}

/** Verdicts in the order in which the runs were given to `buildBatch`. */
export function readVerdicts({ arrays, sorted }: IngestBatch, answer: IngestAnswer, skew_ms: number): Verdict[] {
  const out = Array.from<Verdict>({ length: sorted.length })
  let ev = 0
  for (const [i, { run, at, quota_index }] of sorted.entries()) {
    const expected_seq = answer.expected?.[i] ?? run.first_seq
    const code = answer.verdict?.[i] ?? VERDICT.ok
    if (code === VERDICT.ok) out[at] = { is: 'stored', events: storedEvents(arrays, answer, i, ev, run) }
    else out[at] = refusal(code, run, expected_seq, answer, answer.log_seq?.[i] ?? 0, quota_index, skew_ms)
    if (quota_index === null) ev += run.events.length
  }
  return out
}

/** The ttl rule for one event, by the database's clock: what expired, or lies ahead, by more than the tolerance. */
export function judgeTtl(
  event: { expires_at: number; made_at: number },
  now_ms: number,
  skew_ms: number,
): 'event_expired' | 'clock_skew' | null {
  if (event.expires_at > 0 && event.expires_at + skew_ms < now_ms) return 'event_expired'
  return event.made_at > now_ms + skew_ms ? 'clock_skew' : null
}

type UserRun = IngestBatch['sorted'][number]

/** Appends all runs of one user. */
function addUser(a: IngestArrays, runs: readonly UserRun[], streamNo: StreamNumbers): void {
  const streams = runs.map((entry) => streamsOf(entry, streamNo))
  const firstHead = a.head_user.length
  const headOf = new Map<number, number>()
  for (const stream_no of [...new Set([0, ...streams.flat()])].sort((x, y) => x - y)) {
    a.head_user.push(runs[0]?.run.user_no ?? 0)
    a.head_stream.push(stream_no)
    a.head_n.push(0)
    a.head_bytes.push(0)
    headOf.set(stream_no, a.head_user.length)
  }
  for (const [i, entry] of runs.entries()) addRun(a, entry, streams[i] ?? [], headOf, firstHead)
}

/** Per event its stream; empty, with `quota_index` set, when one is above the limit. */
function streamsOf(entry: UserRun, streamNo: StreamNumbers): number[] {
  const out: number[] = []
  let last: { id: string; no: number } | undefined
  for (const [index, { stream_id }] of entry.run.events.entries()) {
    if (last?.id !== stream_id) {
      const no = streamNo(entry.run, stream_id)
      if (no === null) {
        entry.quota_index = index
        return []
      }
      last = { id: stream_id, no }
    }
    out.push(last.no)
  }
  return out
}

function addRun(a: IngestArrays, { run, quota_index }: UserRun, streams: readonly number[], heads: Map<number, number>, first: number) {
  a.run_user.push(run.user_no)
  a.run_device.push(run.device_no)
  a.run_session.push(run.session_id)
  a.run_first.push(run.first_seq)
  a.run_n.push(run.events.length)
  a.run_epoch.push(run.epoch)
  a.run_barred?.push(quota_index === null ? 0 : 1)
  a.run_head.push(first + 1)
  a.run_off.push(a.head_n[first] ?? 0)
  const runNo = a.run_user.length
  let expires = 0
  let made = 0
  const segOf = new Map<number, number>()
  for (const [i, event] of run.events.entries()) {
    if (event.expires_at > 0 && (expires === 0 || event.expires_at < expires)) expires = event.expires_at
    if (event.made_at > made) made = event.made_at
    const head = quota_index === null ? heads.get(streams[i] ?? 0) : undefined
    if (head === undefined) continue
    let seg = segOf.get(head)
    if (seg === undefined) {
      a.seg_run.push(runNo)
      a.seg_head.push(head)
      a.seg_n.push(0)
      a.seg_bytes.push(0)
      a.seg_off.push(a.head_n[head - 1] ?? 0)
      seg = a.seg_run.length
      segOf.set(head, seg)
    }
    const ix = (a.seg_n[seg - 1] ?? 0) + 1
    a.seg_n[seg - 1] = ix
    a.seg_bytes[seg - 1] = (a.seg_bytes[seg - 1] ?? 0) + event.client.length
    a.ev_run.push(runNo)
    a.ev_seg.push(seg)
    a.ev_run_ix.push(i + 1)
    a.ev_seg_ix.push(ix)
    a.ev_expires.push(event.expires_at)
    a.ev_flags.push(event.flags)
    a.ev_record.push(event.client)
  }
  for (const [head, seg] of segOf) {
    const bytes = a.seg_bytes[seg - 1] ?? 0
    a.head_n[head - 1] = (a.head_n[head - 1] ?? 0) + (a.seg_n[seg - 1] ?? 0)
    a.head_bytes[head - 1] = (a.head_bytes[head - 1] ?? 0) + bytes
    a.head_bytes[first] = (a.head_bytes[first] ?? 0) + bytes
  }
  if (quota_index === null) a.head_n[first] = (a.head_n[first] ?? 0) + run.events.length
  a.run_expires?.push(expires)
  a.run_made?.push(made)
}

function storedEvents(a: IngestArrays, answer: IngestAnswer, run: number, first: number, { device_no, first_seq, events }: Run) {
  const base = answer.run_base?.[run] ?? 0
  return events.map((event, i): StoredEvent => {
    const seg = (a.ev_seg[first + i] ?? 1) - 1
    return {
      position: base + i + 1,
      stream_seq: (answer.seg_base?.[seg] ?? 0) + (a.ev_seg_ix[first + i] ?? 0),
      received_at: answer.received_at,
      device_no,
      device_seq: first_seq + i,
      stream_no: a.head_stream[(a.seg_head[seg] ?? 1) - 1] ?? 0,
      flags: event.flags,
      client: event.client,
    }
  })
}

function refusal(
  code: number,
  run: Run,
  expected_seq: number,
  answer: IngestAnswer,
  log_seq: number,
  quota_index: number | null,
  skew_ms: number,
): Verdict {
  switch (code) {
    case VERDICT.busy:
      return { is: 'busy' }
    case VERDICT.not_active:
      return { is: 'not_active' }
    case VERDICT.fenced:
      return { is: 'fenced' }
    case VERDICT.not_next:
      return { is: 'not_next', expected_seq }
    case VERDICT.gap:
      return { is: 'gap', expected_seq }
    case VERDICT.stale_epoch:
      return { is: 'stale_epoch', expected_seq, log_seq }
    case VERDICT.ttl:
      for (const [index, event] of run.events.entries()) {
        const is = judgeTtl(event, answer.received_at, skew_ms)
        if (is !== null) return { is, index, expected_seq }
      }
      break
    case VERDICT.barred:
      if (quota_index !== null) return { is: 'too_many_streams', index: quota_index, expected_seq }
      break
    case VERDICT.over_quota:
      return { is: 'quota_exceeded', index: 0, expected_seq }
  }
  throw new TypeError(`ingest answered a verdict that the batch has no reason for: ${code}`)
}

function emptyArrays(): IngestArrays {
  return {
    run_user: [],
    run_device: [],
    run_session: [],
    run_first: [],
    run_n: [],
    run_epoch: [],
    run_expires: [],
    run_made: [],
    run_barred: [],
    run_head: [],
    run_off: [],
    seg_run: [],
    seg_head: [],
    seg_n: [],
    seg_off: [],
    seg_bytes: [],
    head_user: [],
    head_stream: [],
    head_n: [],
    head_bytes: [],
    ev_run: [],
    ev_seg: [],
    ev_run_ix: [],
    ev_seg_ix: [],
    ev_expires: [],
    ev_flags: [],
    ev_record: [],
  }
}
