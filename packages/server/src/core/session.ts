/**
 * The session machine (protocol.md §4, §5, §7): `step(rules, state, input) → { state, effects }`, pure. One row per state,
 * one entry per input; the compiler refuses a missing one.
 *
 *   state          | goes on with                     | to
 *   hello          | hello (text frame)               | answering
 *                  | joined (a reader, known by its token) | establishing
 *   answering      | hello_answered                   | proving
 *   proving        | message client_auth              | authenticating
 *   authenticating | authenticated                    | establishing, refusing (revoked), closed 4401, 4457 (suspended)
 *   establishing   | established                      | open, refusing (revoked meanwhile), closed 4401
 *   refusing       | log_read: entries up to the revocation | closed 4403
 *   open           | every message but a second handshake outside a rekey (`open.ts`) | refusing, closed
 *   closed         | nothing                          | –
 *
 * In every state: a frame that does not open, decode or fit ends it with 4451, an oversized one with 4413, a step that lasts
 * too long with 4452, `gone` silently. While a state waits for an answer of its own it reads nothing (`isReading`), so inputs
 * of the client never interleave with a look-up.
 */
import type { CloseName } from '@sealpost/protocol'
import { armStep, closing, establishedMessage, isAsked, leave, logEntryMessage, refuse, roleOf } from './endings.ts'
import { isIntakeFull } from './intake.ts'
import { stepOpen } from './open.ts'
import type { Effect, Input, Open, Rules, State, Step } from './state.ts'

type At<S extends State['at']> = Extract<State, { at: S }>
type Is<I extends Input['is']> = Extract<Input, { is: I }>
type Row<S extends State['at']> = { [I in Input['is']]: (state: At<S>, input: Is<I>, rules: Rules) => Step }

export const INITIAL: State = { at: 'hello' }

export function step(rules: Rules, state: State, input: Input): Step {
  const row = TABLE[state.at] as Row<State['at']>
  return (row[input.is] as (state: State, input: Input, rules: Rules) => Step)(state, input, rules)
}

/** Whether the next frame of the client may be handed over; otherwise the socket is not read. */
export function isReading(rules: Rules, state: State): boolean {
  switch (state.at) {
    case 'hello':
    case 'proving':
      return true
    case 'open':
      return (
        !state.draining &&
        state.rekey.at !== 'answering' &&
        state.rekey.at !== 'checking' &&
        state.requests < rules.requests &&
        !isIntakeFull(state.intake, rules)
      )
    case 'answering':
    case 'authenticating':
    case 'establishing':
    case 'refusing':
    case 'closed':
      return false
    default:
      return state satisfies never
  }
}

/**
 * Whether the client has sent more than it may: requests or events above the limits that it was told, or anything before
 * session_established. Other pauses are not of its making, and what came before they could be felt is not held against it.
 */
export function isOverdrawn(rules: Rules, state: State): boolean {
  if (state.at === 'open') return state.requests >= rules.requests || isIntakeFull(state.intake, rules)
  return state.at !== 'refusing' && state.at !== 'closed'
}

const stay = (state: State): Step => ({ state, effects: [] })
const end = (name: CloseName) => (): Step => closing(name)

/** What no state before the session is open can make use of: answers to effects that were not asked for, and hints. */
const EARLY = {
  opened: stay,
  joined: stay,
  too_large: end('too_large'),
  bad_frame: end('bad_frame'),
  overflow: end('inbound_overflow'),
  stalled: end('stalled'),
  gone: (): Step => ({ state: { at: 'closed', name: null }, effects: [] }),
  drain: end('draining'),
  failed: end('error'),
  hello: end('bad_frame'),
  message: end('bad_frame'),
  timer: (state: State, input: Is<'timer'>): Step => (input.timer === 'handshake' ? closing('timeout') : stay(state)),
  rekey_due: stay,
  backlog: stay,
  hello_answered: stay,
  hello_refused: stay,
  authenticated: stay,
  established: stay,
  rekey_checked: stay,
  log_read: stay,
  device_checked: stay,
  page: stay,
  page_refused: stay,
  settled: stay,
  appended: stay,
  answer: stay,
  presence: stay,
  hint: stay,
  head: stay,
  online: stay,
  restored: stay,
}

/** Every input, for whoever wants to visit them all. */
export const INPUTS = Object.keys(EARLY) as Input['is'][]

const HELLO: Row<'hello'> = {
  ...EARLY,
  opened: (state, _input, rules) => ({ state, effects: [armStep(rules)] }),
  joined: (_state, { who, token_version, cursor, log_seq }, rules) => {
    const { user_no, device_no } = who
    return {
      state: {
        at: 'establishing',
        keys: null,
        auth: { cursor, last_device_seq: 0, log_seq },
        who,
        head: 0,
        log_seq: 0,
        token_version,
        changed: false,
      },
      // hints first: what ended the token before was not heard of, and the store has it
      effects: [armStep(rules), { do: 'subscribe', user_no }, { do: 'join', reader: { user_no, device_no, token_version }, cursor }],
    }
  },
  hello: (_state, { json }, rules) => ({
    state: { at: 'answering' },
    effects: [armStep(rules), { do: 'answer_hello', json, rekey: null }],
  }),
}

const ANSWERING: Row<'answering'> = {
  ...EARLY,
  hello_answered: (_state, { hello, keys }, rules) => ({
    state: { at: 'proving', keys },
    effects: [armStep(rules), { do: 'send_text', head: hello }, { do: 'expect_keys', keys }, { do: 'use_keys', keys }],
  }),
  hello_refused: (_state, { code }) => closing(code),
}

const PROVING: Row<'proving'> = {
  ...EARLY,
  message: ({ keys }, { head }, rules) =>
    head.type === 'client_auth'
      ? { state: { at: 'authenticating', keys, auth: null }, effects: [armStep(rules), { do: 'authenticate', head, keys }] }
      : closing('bad_frame'),
}

const AUTHENTICATING: Row<'authenticating'> = {
  ...EARLY,
  authenticated: ({ keys }, { device, auth, valid }, rules) => {
    if (device === null || auth === null || !valid) return closing('auth_failed')
    if (!device.account_active) return closing('suspended')
    const { user_no, device_no, user_id, device_id, sign_pub } = device
    const who = { user_no, device_no, user_id, device_id, sign_pub }
    if (device.revoked_log_seq !== null) return refuse(who, auth.log_seq, device.revoked_log_seq, null, rules)
    if (!device.active) return closing('suspended')
    const { cursor, last_device_seq, log_seq } = auth
    return {
      state: { at: 'establishing', keys, auth, who, head: 0, log_seq: 0, token_version: null, changed: false },
      // hints first: what is committed or revoked from here on is heard of
      effects: [
        armStep(rules),
        { do: 'subscribe', user_no },
        { do: 'establish', who, request: { user_no, device_no, cursor, last_device_seq, log_seq } },
      ],
    }
  },
}

const ESTABLISHING: Row<'establishing'> = {
  ...EARLY,
  established: (state, { session_id, result }, rules) => {
    const { auth, keys, who } = state
    if (!result.ok && result.code === 'device_revoked') return { state, effects: [{ do: 'check_device', who }] }
    if (!result.ok) return closing(SHOWN.find((code) => code === result.code) ?? 'auth_failed')
    const e = result.established
    const position = e.mode === 'reset' ? e.floor : auth.cursor.position
    // a long log is told in pieces; a reader that does not say what it knows reads the log itself
    const known = keys === null ? e.log_seq : -1
    const told = Math.min(e.log_seq, e.entries.at(-1)?.log_seq ?? auth.log_seq ?? known)
    const opened: Open = {
      at: 'open',
      who,
      session_id,
      history_id: e.history_id,
      log: { told, wanted: Math.max(e.log_seq, state.log_seq), reading: false },
      after_log: [],
      intake: { next: e.last_device_seq + 1, discarding: false, acked: auth.last_device_seq, events: 0, bytes: 0, first: 0 },
      outbox: {
        // a reader asks for nothing: what it missed comes like what is new
        mode: e.mode === 'live' || keys === null ? 'live' : 'replay',
        sent: position,
        told: position,
        tip: null,
        head: Math.max(e.head_position, state.head),
        full: false,
      },
      read: null,
      kept: { batches: [], bytes: 0 },
      jobs: [],
      last_read: 'job',
      asks: [],
      asking: false,
      requests: 0,
      checking: null,
      token_version: state.token_version,
      online: [],
      presence: 'asked',
      keys: keys === null ? null : { th: keys.th, gen: keys.gen },
      rekey: { at: 'none' },
      rested: false,
      draining: false,
    }
    const effects: Effect[] = [{ do: 'disarm', timer: 'handshake' }]
    if (keys !== null) effects.push({ do: 'send', head: establishedMessage(session_id, keys.gen, e, rules) })
    for (const entry of e.entries) effects.push({ do: 'send', head: logEntryMessage(entry) })
    if (e.mode === 'reset')
      effects.push({
        do: 'send',
        head: {
          type: 'reset',
          reason: e.reset_reason ?? 'cursor_unknown',
          history_id: e.history_id,
          head_position: e.head_position,
          from_position: position,
        },
      })
    effects.push({ do: 'open', who, session_id, role: roleOf(opened) }, { do: 'read_presence', who })
    if (keys !== null) effects.push({ do: 'arm', timer: 'rekey_age', ms: rules.rekey_after_ms })
    const next = stepOpen(opened, { is: 'head', position: opened.outbox.head, log_seq: e.log_seq, entitled: !state.changed }, rules)
    return { state: next.state, effects: [...effects, ...next.effects] }
  },
  device_checked: ({ auth, who }, { device }, rules) =>
    device !== null && device.account_active && device.revoked_log_seq !== null
      ? refuse(who, auth.log_seq, device.revoked_log_seq, null, rules)
      : closing(device !== null && !device.active ? 'suspended' : 'auth_failed'),
  hint: (state, { hint }) => {
    if (hint.is === 'committed') return stay({ ...state, head: Math.max(state.head, hint.events.at(-1)?.position ?? 0) })
    if (hint.is === 'log') {
      // of which history is not known yet: a revocation is asked for like any other decision
      const changed = state.changed || hint.revoked.includes(state.who.device_id)
      return stay({ ...state, changed, log_seq: Math.max(state.log_seq, hint.log_seq) })
    }
    if (hint.is === 'deleted') return closing('account_gone')
    const reader = state.keys === null
    return stay(hint.is === 'device' && isAsked(hint, state.who, reader) ? { ...state, changed: true } : state)
  },
}

/** What a handshake says of why it failed; everything else is one answer. */
const SHOWN = ['reauthenticate', 'suspended', 'rate_limited'] as const

const REFUSING: Row<'refusing'> = {
  ...EARLY,
  // nothing of the client counts any more, and only the revocation is told as the reason
  hello: stay,
  message: stay,
  bad_frame: stay,
  overflow: (state) => leave(state, 'device_revoked'),
  too_large: (state) => leave(state, 'device_revoked'),
  stalled: (state) => leave(state, 'stalled'),
  drain: (state) => leave(state, 'draining'),
  failed: (state, { what }) => (what === 'log' ? leave(state, 'error') : stay(state)),
  timer: (state, { timer }) => (timer === 'handshake' ? leave(state, 'timeout') : stay(state)),
  gone: (state) => leave(state, null),
  hint: (state, { hint }) => (hint.is === 'deleted' ? leave(state, 'account_gone') : stay(state)),
  // the answer may be that of a read from before the revocation: what is still missing is asked for
  log_read: (state, { entries }) => {
    let { from_log_seq } = state
    const effects: Effect[] = []
    for (const entry of entries)
      if (entry.log_seq === from_log_seq && entry.log_seq <= state.upto_log_seq) {
        effects.push({ do: 'send', head: logEntryMessage(entry) })
        from_log_seq += 1
      }
    if (from_log_seq > state.upto_log_seq || (effects.length === 0 && state.dry)) {
      const left = leave(state, 'device_revoked')
      return { state: left.state, effects: [...effects, ...left.effects] }
    }
    const dry = effects.length === 0
    return { state: { ...state, from_log_seq, dry }, effects: [...effects, { do: 'read_log', who: state.who, from_log_seq }] }
  },
}

const OPEN: Row<'open'> = toRow<'open'>(stepOpen)

const CLOSED: Row<'closed'> = toRow<'closed'>(stay)

const TABLE: { [S in State['at']]: Row<S> } = {
  hello: HELLO,
  answering: ANSWERING,
  proving: PROVING,
  authenticating: AUTHENTICATING,
  establishing: ESTABLISHING,
  refusing: REFUSING,
  open: OPEN,
  closed: CLOSED,
}

/** Every state, for the same. */
export const STATES = Object.keys(TABLE) as State['at'][]

/** A row whose every entry is the same function: `open.ts` has a table of its own, and in `closed` nothing happens. */
function toRow<S extends State['at']>(on: (state: At<S>, input: Input, rules: Rules) => Step): Row<S> {
  return Object.fromEntries(INPUTS.map((is) => [is, on])) as unknown as Row<S>
}
