/**
 * A session at work: inputs into the machine of `core/session.ts`, its effects out to outlet, store, inbox and bus. One
 * mailbox, so inputs never interleave; effects run in order; what has to be waited for comes back as an input.
 *
 * Invariant: no failure leaves this file. What is not expected ends this one session with 4450 and goes to the log.
 */
import {
  type ClientHeadOf,
  ERROR,
  type ErrorCode,
  fromBase64url,
  SealpostError,
  type ServerHead,
  type SessionKeys,
  toBase64url,
} from '@sealpost/protocol'
import { closing, leave, roleOf } from '../../core/endings.ts'
import { INITIAL, isOverdrawn, isReading, step } from '../../core/session.ts'
import type { Effect, Input, Outcome, Role, Rules, State, Step, Who } from '../../core/state.ts'
import type { Inbox } from '../../ingest/inbox.ts'
import type { RateLimits } from '../../limits/rate-limits.ts'
import type { Log } from '../../telemetry/log.ts'
import type { Bus, EstablishResult, SessionPlace, Store } from '../../ports/store.ts'
import type { EntryPage } from './log-entries.ts'
import type { NodeLease } from './node-lease.ts'
import type { Listener, Outlet } from './outlet.ts'
import type { Pace } from '../load/pace.ts'
import type { ReadPage } from '../replay/pages.ts'
import { appendAndTell } from './log-append.ts'
import { type Presence, showPresence } from './presence.ts'
import { deviceKey, type Work } from '../load/work.ts'

/** What all sessions share. */
export type SessionDeps = {
  store: Store
  bus: Bus
  inbox: Inbox
  presence: Presence
  node: Pick<NodeLease, 'node_no'>
  rates: RateLimits
  pace: Pace
  readPage: ReadPage
  readEntries(who: Who, from_log_seq: number): Promise<EntryPage>
  work: Pick<Work, 'track' | 'exclusively'>
  limits: Rules
  logger: Log
}

/** The way by which a device proves itself to a session, and its keys. */
export type Channel = {
  sendText(json: string): void
  expectKeys(keys: SessionKeys): void
  useKeys(keys: SessionKeys): void
  answerHello(json: Uint8Array, rekey: { prev_th: Uint8Array; gen: number; session_id: string } | null): Promise<Input>
  authenticate(head: ClientHeadOf<'client_auth'>, keys: SessionKeys): Promise<Input>
  checkRekey(head: ClientHeadOf<'client_auth'>, keys: SessionKeys, who: Who, session_id: string): Promise<boolean>
}

/** What this one is open over. */
export type SessionEnds = {
  /** `channel` is null where the device proved itself before: then the first input is `joined`. */
  attach(listener: Listener): { outlet: Outlet; channel: Channel | null }
  /** The device proved itself; the session no longer counts as a stranger. */
  authenticated(): void
  /** Nothing of the session goes on. */
  gone(run: SessionRun): void
}

export type SessionRun = {
  input(input: Input): void
  tick(now: number): void
  terminate(): void
  readonly at: State['at']
  /** Of an open session, for those who run the relay. */
  readonly summary: SessionSummary | null
  /** Of an open session: whose it is, of which history, and how far it was told. */
  readonly place: (SessionPlace & { history_id: string }) | null
}

/** `opened_at` in ms of this machine's clock. */
export type SessionSummary = {
  session_id: string
  user_id: string
  device_id: string
  role: Role
  opened_at: number
  position: number
  log_seq: number
}

type Do<D extends Effect['do']> = Extract<Effect, { do: D }>

export function createSessionRun(deps: SessionDeps, ends: SessionEnds): SessionRun {
  const { store, bus, inbox, presence, node, pace, rates, limits, logger, readEntries, work } = deps
  let state: State = INITIAL
  const mailbox: Input[] = []
  let running = false
  let unsubscribe: (() => void) | null = null
  let seenPosition = 0
  let gone = false
  /** A reader is shown itself, too: that it follows is in the store before that is read. */
  let written: Promise<void> = Promise.resolve()
  const sink = { settled: (outcome: Outcome): void => input({ is: 'settled', outcome }) }

  const { outlet, channel } = ends.attach({
    isReading: () => isReading(limits, state),
    isOverdrawn: () => isOverdrawn(limits, state),
    input,
    alive: () => {
      if (state.at === 'open') presence.touch(state.who, seenPosition)
    },
  })

  function input(given: Input): void {
    mailbox.push(given)
    if (running) return
    running = true
    for (let next = mailbox.shift(); next !== undefined; next = mailbox.shift()) {
      if (next.is === 'gone') gone = true
      // nothing that comes from another past is passed on: not a batch, and not an ack
      take(next.is !== 'gone' && state.at === 'open' && state.history_id !== store.history_id ? { is: 'restored' } : next)
    }
    running = false
    if (!gone) outlet.pump()
  }

  function take(next: Input): void {
    try {
      apply(step(limits, state, next))
    } catch (error) {
      logger.error({ err: error, at: state.at, input: next.is }, 'a session failed')
      apply(state.at === 'open' || state.at === 'refusing' ? leave(state, 'internal') : closing('internal'))
    }
    if (state.at !== 'closed') return
    unsubscribe?.()
    unsubscribe = null
    if (next.is === 'gone') ends.gone(run)
  }

  function apply({ state: next, effects }: Step): void {
    state = next
    for (const effect of effects) (DO[effect.do] as (effect: Effect) => void)(effect)
  }

  /** An effect that has to be waited for: its answer, or its failure, comes back as an input. */
  function ask(answer: Promise<Input>, failed: Input): void {
    work.track(
      answer.then(input, (error: unknown) => {
        logger.warn({ err: error }, 'the store did not answer a session')
        input(failed)
      }),
    )
  }

  function refusal(to: 'ask' | 'append', id: number, error: unknown): Input {
    const known = error instanceof SealpostError && SHOWN.has(error.code) ? error.code : 'unavailable'
    if (known === 'unavailable') logger.warn({ err: error }, 'a request was not answered')
    return { is: 'answer', to, head: { type: 'error', id, code: known, message: ERROR[known] } }
  }

  /** A request with an answer of its own: also its failure is an answer. */
  function request(to: 'ask' | 'append', id: number, answer: Promise<Input>): void {
    work.track(answer.catch((error: unknown) => refusal(to, id, error)).then(input))
  }

  function proving(): Channel {
    if (channel === null) throw new TypeError('there is no handshake here')
    return channel
  }

  const DO: { [D in Effect['do']]: (effect: Do<D>) => void } = {
    answer_hello: ({ json, rekey }) => ask(proving().answerHello(json, rekey), { is: 'failed', what: 'handshake' }),
    authenticate: ({ head, keys }) => ask(proving().authenticate(head, keys), { is: 'failed', what: 'handshake' }),
    check_rekey: ({ head, keys, who, session_id }) =>
      ask(
        proving()
          .checkRekey(head, keys, who, session_id)
          .then((valid) => ({ is: 'rekey_checked', valid })),
        { is: 'failed', what: 'handshake' },
      ),
    subscribe: ({ user_no }) => {
      unsubscribe ??= bus.subscribe(user_no, (hint) => input({ is: 'hint', hint }))
    },
    establish: ({ who, request: wanted }) => {
      const session_id = crypto.randomUUID()
      // one at a time per device: the session that is announced last is the one in the store
      const established = work.exclusively(deviceKey(who), async () => {
        // the peer may be gone by now: its device may have another session, which must not be fenced by nobody
        if (state.at !== 'establishing') return
        const limited = (await rates.take('handshake_device', who.device_id)) ?? (await rates.take('handshake_user', who.user_id))
        if (limited !== null) return input({ is: 'established', session_id, result: { ok: false, code: 'rate_limited' } })
        const result = await store.establishSession({ ...wanted, session_id, node_no: node.node_no })
        const wantedStill = state.at === 'establishing'
        input({ is: 'established', session_id, result })
        if (result.ok && !wantedStill) await presence.end({ user_no: who.user_no, device_no: who.device_no, session_id, position: 0 })
      })
      work.track(
        established.catch((error: unknown) => {
          logger.warn({ err: error }, 'a session could not be established')
          input({ is: 'failed', what: 'handshake' })
        }),
      )
    },
    join: ({ reader, cursor }) => {
      const session_id = crypto.randomUUID()
      ask(
        store.judgeCursor(reader, cursor).then((result: EstablishResult) => ({ is: 'established', session_id, result })),
        { is: 'failed', what: 'handshake' },
      )
    },
    open: ({ who, session_id, role }) => {
      if (state.at === 'open') outlet.authenticated({ history_id: state.history_id, log_seq: state.log.told })
      ends.authenticated()
      const { user_no, device_id } = who
      if (role === 'device') bus.publish(user_no, { is: 'device', device_id, session_id })
      const tell = (): void => bus.publish(user_no, { is: 'presence', device_id, online: true, last_seen: Math.floor(store.now()) })
      if (role === 'device') return tell()
      const followed = presence.follow(who).then(tell)
      written = followed.catch((error: unknown) => logger.debug({ err: error }, 'a follower was not written'))
      work.track(written)
    },
    leave: ({ who, session_id, role }) => {
      const { user_no, device_no, device_id } = who
      const ended = { user_no, device_no, session_id: role === 'device' ? session_id : null, position: seenPosition }
      const end = presence.end(ended).then((offline) => {
        if (offline) bus.publish(user_no, { is: 'presence', device_id, online: false, last_seen: Math.floor(store.now()) })
      })
      work.track(end.catch((error: unknown) => logger.debug({ err: error }, 'the end of a session was not written')))
    },
    send_text: ({ head }) => proving().sendText(JSON.stringify(head)),
    send: ({ head, body }) => outlet.send(head, body),
    send_events: ({ head, events, whole }) => outlet.sendEvents(head, events, whole),
    expect_keys: ({ keys }) => proving().expectKeys(keys),
    use_keys: ({ keys }) => proving().useKeys(keys),
    submit: ({ runs }) => {
      let events = 0
      let bytes = 0
      for (const submission of runs) {
        events += submission.events.length
        bytes += submission.bytes
      }
      const first = runs[0]
      const wait = first === undefined ? 0 : pace.take(deviceKey(first), events, bytes, performance.now())
      if (wait > 0) outlet.hold(wait)
      inbox.submit(runs, sink)
    },
    read_log: ({ who, from_log_seq }) =>
      ask(
        readEntries(who, from_log_seq).then((read) => ({ is: 'log_read', ...read })),
        { is: 'failed', what: 'log' },
      ),
    check_device: ({ who }) =>
      ask(
        // behind a handshake that is about to write the fence, or to give it back
        work
          .exclusively(deviceKey(who), () => store.findDevice(who.user_id, who.device_id))
          .then((device) => ({ is: 'device_checked', device })),
        { is: 'failed', what: 'device' },
      ),
    read_page: ({ ask: wanted }) => {
      const { who, history_id } = state.at === 'open' ? state : { who: null, history_id: '' }
      if (who === null) return
      const owner = { user_id: who.user_id, device_id: who.device_id, history_id }
      ask(
        deps.readPage(wanted, owner, () => state.at === 'open'),
        { is: 'page_refused', code: 'unavailable' },
      )
    },
    read_presence: ({ who }) => {
      const read = written
        .then(() => store.readPresence(who.user_no))
        .then((rows) => input({ is: 'presence', devices: rows.map(showPresence) }))
      work.track(
        read.catch((error: unknown) => {
          logger.debug({ err: error }, 'presence was not read')
          input({ is: 'failed', what: 'presence' })
        }),
      )
    },
    append: ({ who, head }) => request('append', head.id, append(who, head)),
    read_entries: ({ who, head }) =>
      request(
        'ask',
        head.id,
        readEntries(who, head.from_log_seq).then(({ entries, has_more }) => {
          const rows = entries.map(({ body, sig, box }) => ({
            body: toBase64url(body),
            sig: toBase64url(sig),
            box: box === null ? null : toBase64url(box),
          }))
          return { is: 'answer', to: 'ask', head: { type: 'log_entries', id: head.id, entries: rows, has_more } }
        }),
      ),
    read_tips: ({ who, head }) =>
      request(
        'ask',
        head.id,
        store.readTips(who.user_no, head.device_id).then((tips): Input => {
          if (tips === null) throw new SealpostError('not_found', ERROR.not_found)
          const { last_device_seq, complete, records } = tips
          const answer: ServerHead = { type: 'tips', id: head.id, last_device_seq, complete }
          return { is: 'answer', to: 'ask', head: answer, events: records }
        }),
      ),
    seen: ({ who, position }) => {
      seenPosition = Math.max(seenPosition, position)
      presence.touch(who, seenPosition)
    },
    cut_off: () => outlet.cutOff(),
    arm: ({ timer, ms }) => outlet.arm(timer, ms),
    disarm: ({ timer }) => outlet.disarm(timer),
    close: ({ name }) => outlet.close(name),
  }

  async function append(who: Who, head: Do<'append'>['head']): Promise<Input> {
    const { id, boxes } = head
    const entry = { body: fromBase64url(head.body), sig: fromBase64url(head.sig) }
    const result = await appendAndTell(store, bus, { user_id: who.user_id, entry, boxes, repair: false, allow_genesis: false })
    return { is: 'appended', id, result }
  }

  const opened_at = Date.now()
  const run: SessionRun = {
    input,
    tick: (now) => outlet.tick(now),
    terminate: () => outlet.terminate(),
    get at() {
      return state.at
    },
    get summary() {
      if (state.at !== 'open') return null
      const { session_id, who, outbox, log } = state
      const { user_id, device_id } = who
      return { session_id, user_id, device_id, role: roleOf(state), opened_at, position: outbox.sent, log_seq: log.told }
    },
    get place() {
      if (state.at !== 'open') return null
      const { who, history_id, outbox, log, session_id, token_version } = state
      const by = token_version === null ? { session_id } : { token_version }
      return { user_no: who.user_no, device_no: who.device_no, history_id, position: outbox.sent, log_seq: log.told, by }
    },
  }
  return run
}

/** Codes that a requester may see; everything else is `unavailable`. */
const SHOWN: ReadonlySet<ErrorCode> = new Set(['not_found', 'invalid_message', 'invalid_encoding', 'invalid_request', 'too_large'])
