/**
 * The open session (protocol.md §4 rekey, §5, §7): one entry per input, one per message of the client. What may leave after
 * each of them is decided in `delivery.ts`.
 *
 * Bound: `requests` unanswered requests.
 */
import {
  type ClientMessage,
  type ClientType,
  type CloseName,
  ERROR,
  encodeAcks,
  FLAG,
  LIMITS,
  type RecordView,
  SealpostError,
  scanRecords,
  toBase64url,
} from '@sealpost/protocol'
import { factsOf } from './batch.ts'
import { advance, type Draft, end, finishJob, isLiveFree, send, sendAfterLog, sendError, takeBatch, wantLog } from './delivery.ts'
import { isAsked, logEntryMessage, refuse, rekeyAfter, roleOf } from './endings.ts'
import { settle, takeRecords } from './intake.ts'
import { tellPosition } from './outbox.ts'
import type { Input, Job, Open, Rules, Step } from './state.ts'

type Is<I extends Input['is']> = Extract<Input, { is: I }>
type MessageOf<T extends ClientType> = { head: Extract<ClientMessage, { head: { type: T } }>['head'] } & Omit<Is<'message'>, 'head'>

export function stepOpen(state: Open, input: Input, rules: Rules): Step {
  const draft: Draft = { s: { ...state }, effects: [], rules, ended: null }
  const on = ON[input.is] as (d: Draft, input: Input) => void
  on(draft, input)
  if (draft.ended !== null) return { state: draft.ended.state, effects: [...draft.effects, ...draft.ended.effects] }
  return { state: draft.s, effects: draft.effects }
}

const ignore = (): void => {}
const ends =
  (name: CloseName) =>
  (d: Draft): void =>
    end(d, name)

const ON: { [I in Input['is']]: (d: Draft, input: Is<I>) => void } = {
  opened: ignore,
  joined: ignore,
  hello: ends('bad_frame'),
  bad_frame: ends('bad_frame'),
  too_large: ends('too_large'),
  overflow: ends('inbound_overflow'),
  stalled: ends('stalled'),
  gone: (d) => end(d, null),
  message: (d, input) => {
    if (roleOf(d.s) === 'reader') return end(d, 'bad_frame')
    // client_auth alone opens the next generation, and nothing else may be sealed with it before
    const next = d.s.rekey.at === 'proving' ? d.s.rekey.keys.gen : -1
    if ((input.gen === next) !== (input.head.type === 'client_auth')) return end(d, 'bad_frame')
    const on = ON_MESSAGE[input.head.type] as (d: Draft, message: Is<'message'>) => void
    on(d, input)
    return advance(d)
  },
  timer: (d, { timer }) => {
    switch (timer) {
      case 'handshake':
        return
      case 'rekey_age':
        return requireRekey(d, 'age')
      case 'rekey_deadline':
        return d.s.rekey.at === 'none' ? undefined : end(d, 'rekey_failed')
      case 'message':
        return end(d, 'timeout')
      case 'rekey_rest':
        d.s.rested = false
        return
      case 'token':
        return end(d, 'reauthenticate')
      default:
        return timer satisfies never
    }
  },
  rekey_due: (d, { reason }) => requireRekey(d, reason),
  backlog: (d, { full }) => {
    d.s.outbox = { ...d.s.outbox, full }
    advance(d)
  },
  drain: (d, { retry_after_ms }) => {
    d.effects.push({ do: 'send', head: { type: 'going_away', retry_after_ms } })
    d.s.draining = true
    advance(d)
  },
  hello_answered: (d, { hello, keys }) => {
    if (d.s.rekey.at !== 'answering') return
    d.s.rekey = { at: 'proving', keys }
    d.effects.push({ do: 'send', head: hello }, { do: 'expect_keys', keys })
  },
  hello_refused: (d, { code }) => end(d, code),
  authenticated: ignore,
  established: ignore,
  rekey_checked: (d, { valid }) => {
    if (d.s.rekey.at !== 'checking') return
    if (!valid) return end(d, 'rekey_failed')
    const { keys } = d.s.rekey
    d.s.rekey = { at: 'none' }
    d.s.keys = { th: keys.th, gen: keys.gen }
    d.s.rested = true
    d.effects.push(
      { do: 'use_keys', keys },
      { do: 'send', head: { type: 'session_established', session_id: d.s.session_id, gen: keys.gen, ...rekeyAfter(d.rules) } },
      { do: 'disarm', timer: 'rekey_deadline' },
      { do: 'arm', timer: 'rekey_age', ms: d.rules.rekey_after_ms },
      { do: 'arm', timer: 'rekey_rest', ms: d.rules.rekey_rest_ms },
    )
  },
  log_read: (d, { entries }) => {
    let { told, wanted } = d.s.log
    for (const entry of entries)
      if (entry.log_seq === told + 1) {
        told = entry.log_seq
        d.effects.push({ do: 'send', head: logEntryMessage(entry) })
      }
    // a record of an epoch that the log does not have: nothing of it can be told, and asking again would not end
    const page = d.s.read?.page ?? null
    if (told === d.s.log.told && page !== null && factsOf(page.events).epoch > told) return end(d, 'error')
    // nothing came although more was announced: the announcement was wrong, and what waits for it goes on
    if (told === d.s.log.told) wanted = told
    d.s.log = { ...d.s.log, told, wanted: Math.max(told, wanted), reading: false }
    const released = d.s.after_log.filter((waiting) => waiting.log_seq <= told || told === wanted)
    d.s.after_log = d.s.after_log.filter((waiting) => !released.includes(waiting))
    for (const { head } of released) d.effects.push({ do: 'send', head })
    advance(d)
  },
  device_checked: (d, { device }) => {
    const { checking, session_id, token_version } = d.s
    d.s.checking = null
    if (checking?.again === true) return checkDevice(d, checking.cut)
    // a deleted account has no device any more; one that is only suspended has
    if (device === null) return end(d, 'account_gone')
    if (device.revoked_log_seq !== null) return revoke(d, device.revoked_log_seq)
    if (!device.active) return end(d, 'suspended')
    if (token_version === null ? device.session_id === null : device.token_version !== token_version) return end(d, 'reauthenticate')
    if (token_version === null && device.session_id !== session_id) return end(d, 'superseded')
    // a run was cut by a fence that is the right one now: what became of it is not known, and the device sends it again
    if (checking?.cut === true) return end(d, 'error')
  },
  page: (d, { page, after, token }) => {
    if (d.s.read === null) return
    d.s.read = { ...d.s.read, page, after, token }
    advance(d)
  },
  page_refused: (d, { code }) => {
    const job = d.s.read?.job ?? null
    d.s.read = null
    // without a job it was live delivery: the next input tries again, the round every 2 s at the latest
    if (job === null) return
    finishJob(d, job, { type: 'error', id: job.id, code, message: ERROR[code] })
    advance(d)
  },
  settled: (d, { outcome }) => {
    if (outcome.is === 'cut') {
      return checkDevice(d, true)
    }
    const { intake, nack } = settle(d.s.intake, outcome)
    d.s.intake = intake
    if (outcome.is === 'acked')
      for (const { received_at, rows } of outcome.acks)
        d.effects.push({ do: 'send', head: { type: 'ack', received_at }, body: encodeAcks(rows) })
    else if (nack !== null) sendAfterLog(d, outcome.log_seq ?? 0, nack)
    advance(d)
  },
  appended: (d, { id, result }) => {
    d.s.requests -= 1
    const { log_seq, log_head } = result
    if (result.ok) sendAfterLog(d, log_seq, { type: 'log_result', id, ok: true, log_seq, log_head: toBase64url(result.log_head) })
    else if (result.code === 'account_gone' || result.code === 'suspended') return end(d, result.code)
    else if (result.code === 'not_found' || log_head === null) sendError(d, id, 'not_found')
    else {
      const head = { type: 'log_result' as const, id, ok: false, log_seq, log_head: toBase64url(log_head), code: result.code }
      sendAfterLog(d, result.code === 'log_conflict' ? log_seq : 0, head)
    }
    advance(d)
  },
  answer: (d, { to, head, events }) => {
    d.s.requests -= 1
    if (to === 'ask') {
      d.s.asks = d.s.asks.slice(1)
      d.s.asking = false
    }
    if (events === undefined) d.effects.push({ do: 'send', head })
    else d.effects.push({ do: 'send_events', head, events, whole: false })
    advance(d)
  },
  presence: (d, { devices }) => {
    if (d.s.presence === 'outdated') return readPresence(d)
    d.effects.push({ do: 'send', head: { type: 'presence', devices } })
    d.s.presence = 'read'
    d.s.online = devices.flatMap(({ device_id, online }) => (online && device_id !== d.s.who.device_id ? [device_id] : []))
  },
  failed: (d, { what }) => {
    switch (what) {
      case 'handshake':
        return end(d, 'error')
      case 'log':
        d.s.log = { ...d.s.log, reading: false }
        return
      case 'device':
        // a cut run is never answered; what the round asked, the next one asks again
        if (d.s.checking?.cut === true) return end(d, 'error')
        d.s.checking = null
        return
      case 'presence':
        d.s.presence = 'due'
        return
      default:
        return what satisfies never
    }
  },
  hint: (d, { hint }) => {
    switch (hint.is) {
      case 'committed':
        // of another past, which some node has not noticed yet
        if (hint.history_id !== d.s.history_id) return
        takeBatch(d, hint.events)
        return advance(d)
      case 'log':
        if (hint.history_id !== d.s.history_id) return
        if (hint.revoked.includes(d.s.who.device_id)) return revoke(d, hint.log_seq)
        wantLog(d, hint.log_seq)
        return advance(d)
      case 'device':
        // which session has the fence now is the store's to say: hints may come out of their order
        if (isAsked(hint, d.s.who, roleOf(d.s) === 'reader') && hint.session_id !== d.s.session_id) checkDevice(d, false)
        return
      case 'deleted':
        return end(d, 'account_gone')
      case 'presence': {
        const { is: _, ...device } = hint
        const { device_id, online } = device
        if (device_id === d.s.who.device_id) return
        if (d.s.presence === 'asked') d.s.presence = 'outdated'
        d.effects.push({ do: 'send', head: { type: 'presence', devices: [device] } })
        const others = d.s.online.filter((other) => other !== device_id)
        d.s.online = online ? [...others, device_id] : others
        return
      }
      default:
        return hint satisfies never
    }
  },
  head: (d, { position, log_seq, entitled }) => {
    if (position > d.s.outbox.head) d.s.outbox = { ...d.s.outbox, head: position }
    if (d.s.presence === 'due') readPresence(d)
    wantLog(d, log_seq)
    advance(d)
    if (d.ended !== null) return
    if (!entitled && d.s.checking === null) checkDevice(d, false)
    if (isLiveFree(d.s)) send(d, tellPosition(d.s.outbox))
  },
  online: (d, { device_ids }) => {
    const others = device_ids.filter((device_id) => device_id !== d.s.who.device_id)
    if (others.length === d.s.online.length && others.every((device_id) => d.s.online.includes(device_id))) return
    if (d.s.presence !== 'asked' && d.s.presence !== 'outdated') readPresence(d)
  },
  restored: ends('draining'),
}

// ---------------------------------------------------------------- messages of the client

const ON_MESSAGE: { [T in ClientType]: (d: Draft, message: MessageOf<T>) => void } = {
  client_hello: (d, { head, json }) => {
    const { rekey, session_id, keys } = d.s
    if (keys === null || head.session_id !== session_id || (rekey.at !== 'none' && rekey.at !== 'asked')) return end(d, 'bad_frame')
    if (rekey.at === 'none' && d.s.rested) return end(d, 'rate_limited')
    if (keys.gen >= LIMITS.genMax) return end(d, 'draining')
    if (rekey.at === 'none') d.effects.push({ do: 'arm', timer: 'rekey_deadline', ms: d.rules.rekey_deadline_ms })
    d.s.rekey = { at: 'answering' }
    d.effects.push({ do: 'answer_hello', json, rekey: { prev_th: keys.th, gen: keys.gen + 1, session_id } })
    return
  },
  client_auth: (d, { head }) => {
    if (d.s.rekey.at !== 'proving') return end(d, 'bad_frame')
    const { keys } = d.s.rekey
    d.s.rekey = { at: 'checking', keys }
    d.effects.push({ do: 'check_rekey', head, keys, who: d.s.who, session_id: d.s.session_id })
    return
  },
  event: (d, { body }) => {
    const views = readRecords(body, d.rules)
    if (views === null) return end(d, 'bad_frame')
    const { intake, runs, nack } = takeRecords(d.s.intake, d.s.who, d.s.session_id, views, d.rules)
    d.s.intake = intake
    if (runs.length > 0) d.effects.push({ do: 'submit', runs })
    if (nack !== null) d.effects.push({ do: 'send', head: nack })
    return
  },
  replay_request: (d, { head }) => {
    const { rules } = d
    const query = head.query === true
    if (!query && (head.streams !== undefined || head.after_position !== undefined)) return sendError(d, head.id, 'invalid_request')
    const { acked } = d.s.intake
    if (head.last_ack_device_seq > acked) d.s.intake = { ...d.s.intake, acked: head.last_ack_device_seq }
    const job: Job = {
      id: head.id,
      query,
      after: head.after_position ?? 0,
      limit: clamp(head.limit ?? rules.replay_events_default, rules.replay_events),
      pages: clamp(head.pages ?? 1, rules.replay_pages),
      streams: head.streams ?? null,
      token: head.continuation_token ?? null,
    }
    d.s.jobs = [...d.s.jobs, job]
    d.s.requests += 1
    return
  },
  ack: (d, { head }) => {
    d.effects.push({ do: 'seen', who: d.s.who, position: head.position })
  },
  log_append: (d, { head }) => {
    d.s.requests += 1
    d.effects.push({ do: 'append', who: d.s.who, head })
  },
  log_request: (d, { head }) => {
    d.s.requests += 1
    d.s.asks = [...d.s.asks, head]
  },
  tips_request: (d, { head }) => {
    d.s.requests += 1
    d.s.asks = [...d.s.asks, head]
  },
  ping: (d, { head }) => {
    d.effects.push({ do: 'send', head: { type: 'pong', t: head.t } })
  },
}

// ---------------------------------------------------------------- small rules

function requireRekey(d: Draft, reason: string): void {
  if (d.s.keys === null || d.s.rekey.at !== 'none') return
  if (d.s.keys.gen >= LIMITS.genMax) return end(d, 'draining')
  d.s.rekey = { at: 'asked' }
  d.effects.push(
    { do: 'send', head: { type: 'rekey_required', reason, deadline_s: Math.ceil(d.rules.rekey_deadline_ms / 1000) } },
    { do: 'arm', timer: 'rekey_deadline', ms: d.rules.rekey_deadline_ms },
  )
}

function readPresence(d: Draft): void {
  d.s.presence = 'asked'
  d.effects.push({ do: 'read_presence', who: d.s.who })
}

/** One question at a time; what is decided while it is out is asked for behind it. */
function checkDevice(d: Draft, cut: boolean): void {
  const { checking } = d.s
  d.s.checking = { cut: cut || checking?.cut === true, again: checking !== null }
  if (checking === null) d.effects.push({ do: 'check_device', who: d.s.who })
}

function revoke(d: Draft, log_seq: number): void {
  d.ended = refuse(d.s.who, d.s.log.told, log_seq, d.s, d.rules)
}

function readRecords(body: Uint8Array, rules: Rules): RecordView[] | null {
  try {
    const views = scanRecords(body, rules.batch_events)
    const plain = views.every((view) => (view.flags & (FLAG.server | FLAG.tombstone)) === 0)
    return plain && views.length > 0 ? views : null
  } catch (error) {
    if (error instanceof SealpostError) return null
    throw error
  }
}

function clamp(value: number, max: number): number {
  return Math.min(Math.max(value, 1), max)
}
