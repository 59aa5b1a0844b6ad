/**
 * A session at work: inputs into the machine of `core/session.ts`, its effects out to connection, store, inbox and bus. One
 * mailbox, so inputs never interleave; effects run in order; what has to be waited for comes back as an input.
 *
 * Invariant: no failure leaves this file. What is not expected ends this one session with 4450 and goes to the log.
 */
import {
  answerClientHello,
  encodeMessage,
  ERROR,
  type ErrorCode,
  fromBase64url,
  SealpostError,
  type ServerHead,
  toBase64url,
} from '@sealpost/protocol'
import type { SyncCrypto } from '@sealpost/protocol/node'
import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import { closing, leave } from '../core/endings.ts'
import { INITIAL, isOverdrawn, isReading, step } from '../core/session.ts'
import type { Effect, Input, Outcome, PageAsk, State, Step, Who } from '../core/state.ts'
import type { Inbox } from '../ingest/inbox.ts'
import type { Log } from '../log.ts'
import type { Bus, Hint, Store } from '../ports.ts'
import type { EventEncoder } from '../relay/event-message.ts'
import type { PageAnswer } from '../relay/pages.ts'
import type { PageOwner } from '../relay/continuation.ts'
import type { Authenticator } from './authenticate.ts'
import { createBucket } from './bucket.ts'
import { type Connection, createConnection, type Shared } from './connection.ts'
import type { EntryPage } from './log-entries.ts'
import type { Presence } from './presence.ts'

export type SessionDeps = Shared & {
  crypto: SyncCrypto
  store: Store
  bus: Bus
  inbox: Inbox
  presence: Presence
  encoder: EventEncoder
  authenticator: Authenticator
  readPage(ask: PageAsk, owner: PageOwner): Promise<PageAnswer>
  readEntries(who: Who, from_log_seq: number): Promise<EntryPage>
  server: { sign_seed: Uint8Array; server_key: Uint8Array }
  logger: Log
  /** Runs one at a time per key. */
  exclusively<T>(key: string, work: () => Promise<T>): Promise<T>
  /** Keeps count of what is going on in the store, so that a close can wait for it. */
  track(work: Promise<void>): void
  /** The device proved itself; the connection no longer counts as a stranger. */
  authenticated(run: SessionRun): void
  gone(run: SessionRun): void
}

export type SessionRun = {
  input(input: Input): void
  tick(now: number): void
  terminate(): void
  readonly at: State['at']
  /** Of an open session: whose it is, of which history, and how far it was told. */
  readonly place: { user_no: number; history_id: string; position: number; log_seq: number } | null
}

type Do<D extends Effect['do']> = Extract<Effect, { do: D }>

export function createSessionRun(ws: WebSocket, socket: Socket, deps: SessionDeps, started: number): SessionRun {
  const { store, bus, inbox, presence, encoder, limits, logger, readEntries } = deps
  let state: State = INITIAL
  const mailbox: Input[] = []
  let running = false
  let unsubscribe: (() => void) | null = null
  let seenPosition = 0
  let gone = false
  const bucket = createBucket({
    events: limits.eventsPerDevicePerSecond,
    bytes: limits.bytesPerDevicePerSecond,
    burst_s: limits.burstSeconds,
  })
  const sink = { settled: (outcome: Outcome): void => input({ is: 'settled', outcome }) }

  const connection: Connection = createConnection(
    ws,
    socket,
    {
      isReading: () => isReading(limits, state),
      isOverdrawn: () => isOverdrawn(limits, state),
      input,
      alive: () => {
        if (state.at === 'open') presence.touch(state.who, seenPosition)
      },
    },
    deps,
    started,
  )

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
    if (!gone) connection.pump()
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
    if (next.is === 'gone') deps.gone(run)
  }

  function apply({ state: next, effects }: Step): void {
    state = next
    for (const effect of effects) (DO[effect.do] as (effect: Effect) => void)(effect)
  }

  /** An effect that has to be waited for: its answer, or its failure, comes back as an input. */
  function ask(work: Promise<Input>, failed: Input): void {
    deps.track(
      work.then(input, (error: unknown) => {
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
  function request(to: 'ask' | 'append', id: number, work: Promise<Input>): void {
    deps.track(work.catch((error: unknown) => refusal(to, id, error)).then(input))
  }

  const DO: { [D in Effect['do']]: (effect: Do<D>) => void } = {
    answer_hello: ({ json, rekey }) => {
      const answered = answerClientHello(deps.crypto, json, deps.server, Math.floor(store.now()), rekey ?? undefined)
      deps.track(
        answered.then(
          ({ hello, keys }) => input({ is: 'hello_answered', hello, keys }),
          (error: unknown) => {
            const unsupported = error instanceof SealpostError && error.code === 'unsupported_version'
            input({ is: 'hello_refused', code: unsupported ? 'unsupported_version' : 'bad_frame' })
          },
        ),
      )
    },
    authenticate: ({ head, keys }) => ask(deps.authenticator.authenticate(head, keys), { is: 'failed', what: 'handshake' }),
    check_rekey: ({ head, keys, who, session_id }) =>
      ask(
        deps.authenticator.checkRekey(head, keys, who, session_id).then((valid) => ({ is: 'rekey_checked', valid })),
        { is: 'failed', what: 'handshake' },
      ),
    subscribe: ({ user_no }) => {
      unsubscribe ??= bus.subscribe(user_no, (hint) => input({ is: 'hint', hint }))
    },
    establish: ({ who, request: wanted }) => {
      const session_id = crypto.randomUUID()
      // one at a time per device: the session that is announced last is the one in the store
      const established = deps.exclusively(keyOf(who), async () => {
        // the peer may be gone by now: its device may have another session, which must not be fenced by nobody
        if (state.at !== 'establishing') return
        const result = await store.establishSession({ ...wanted, session_id })
        const wantedStill = state.at === 'establishing'
        input({ is: 'established', session_id, result })
        if (result.ok && !wantedStill) await store.endSession(who.user_no, who.device_no, session_id, { position: 0 })
      })
      deps.track(
        established.catch((error: unknown) => {
          logger.warn({ err: error }, 'a session could not be established')
          input({ is: 'failed', what: 'handshake' })
        }),
      )
    },
    open: ({ who, session_id }) => {
      connection.authenticated()
      deps.authenticated(run)
      presence.open(who, session_id)
      const { user_no, device_id } = who
      bus.publish(user_no, { is: 'superseded', device_id, session_id })
      bus.publish(user_no, { is: 'presence', device_id, online: true, last_seen: Math.floor(store.now()) })
    },
    leave: ({ who, session_id }) => {
      const { user_no, device_no, device_id } = who
      const last = presence.close(who, session_id)
      if (last) bus.publish(user_no, { is: 'presence', device_id, online: false, last_seen: Math.floor(store.now()) })
      deps.track(
        store
          .endSession(user_no, device_no, session_id, { position: seenPosition })
          .catch((error: unknown) => logger.debug({ err: error }, 'the end of a session was not written')),
      )
    },
    send_text: ({ head }) => connection.sendText(JSON.stringify(head)),
    send: ({ head, body }) => connection.send(encodeMessage(head, body)),
    send_events: ({ head, events, whole }) => connection.send(encoder.encode(head, events, whole)),
    expect_keys: ({ keys }) => connection.expectKeys(keys),
    use_keys: ({ keys }) => connection.useKeys(keys),
    submit: ({ runs }) => {
      let events = 0
      let bytes = 0
      for (const submission of runs) {
        events += submission.events.length
        bytes += submission.bytes
      }
      const wait = bucket.take(events, bytes, performance.now())
      if (wait > 0) connection.hold(wait)
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
        deps
          .exclusively(keyOf(who), () => store.findDevice(who.user_id, who.device_id))
          .then((device) => ({ is: 'device_checked', device })),
        { is: 'failed', what: 'device' },
      ),
    read_page: ({ ask: wanted }) => {
      const { who, history_id } = state.at === 'open' ? state : { who: null, history_id: '' }
      if (who === null) return
      const owner = { user_id: who.user_id, device_id: who.device_id, history_id }
      ask(deps.readPage(wanted, owner), { is: 'page_refused', code: 'unavailable' })
    },
    read_presence: ({ who }) => {
      const read = store.readPresence(who.user_no).then((rows) => {
        const devices = rows.map(({ device_id, last_seen }) => ({
          device_id,
          online: presence.isOnline(who.user_no, device_id),
          last_seen,
        }))
        input({ is: 'presence', devices })
      })
      deps.track(
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
    cut_off: () => connection.cutOff(),
    arm: ({ timer, ms }) => connection.arm(timer, ms),
    disarm: ({ timer }) => connection.disarm(timer),
    close: ({ name }) => connection.close(name),
  }

  async function append(who: Who, head: Do<'append'>['head']): Promise<Input> {
    const { id, boxes } = head
    const entry = { body: fromBase64url(head.body), sig: fromBase64url(head.sig) }
    const result = await store.appendEntry({ user_id: who.user_id, entry, boxes, repair: false, allow_genesis: false })
    if (result.ok) {
      const hint: Hint = { is: 'log', log_seq: result.log_seq, revoked: result.revoked.map(({ device_id }) => device_id) }
      bus.publish(result.user_no, hint)
    }
    return { is: 'appended', id, result }
  }

  const run: SessionRun = {
    input,
    tick: (now) => connection.tick(now),
    terminate: () => connection.terminate(),
    get at() {
      return state.at
    },
    get place() {
      if (state.at !== 'open') return null
      return { user_no: state.who.user_no, history_id: state.history_id, position: state.outbox.sent, log_seq: state.log.told }
    },
  }
  return run
}

function keyOf({ user_no, device_no }: Who): string {
  return `${user_no}/${device_no}`
}

/** Codes that a requester may see; everything else is `unavailable`. */
const SHOWN: ReadonlySet<ErrorCode> = new Set(['not_found', 'invalid_message', 'invalid_encoding', 'invalid_request', 'too_large'])
