/** Steps and messages that several states of the session share: how it ends, and what its client is told of the server. */
import { type CloseName, type ServerHeadOf, toBase64url } from '@sealpost/protocol'
import type { Established, Hint, StoredLogEntry } from '../ports/store.ts'
import type { Effect, Open, Role, Rules, State, Step, Who } from './state.ts'

/** Ends a connection that holds no session. */
export function closing(name: CloseName): Step {
  return { state: { at: 'closed', name }, effects: [{ do: 'close', name }] }
}

/** Ends a connection that may hold a session; `null`: the socket is gone already. */
export function leave(state: Extract<State, { at: 'open' | 'refusing' }>, name: CloseName | null): Step {
  const session = state.at === 'open' ? sessionOf(state) : state.session
  const effects: Effect[] = session === null ? [] : [{ do: 'leave', who: state.who, ...session }]
  if (name !== null) effects.push({ do: 'close', name })
  return { state: { at: 'closed', name }, effects }
}

/** A device that proved itself and was revoked: the entries after `known` up to the revocation, then 4403. */
export function refuse(who: Who, known: number | null, upto_log_seq: number, open: Open | null, rules: Rules): Step {
  const from_log_seq = known === null ? 0 : known + 1
  const session = open === null ? null : sessionOf(open)
  const state: State = { at: 'refusing', who, from_log_seq, upto_log_seq, session, dry: false }
  if (from_log_seq > upto_log_seq) return leave(state, 'device_revoked')
  const cut: Effect[] = open === null ? [] : [{ do: 'cut_off' }]
  return { state, effects: [...cut, armStep(rules), { do: 'read_log', who, from_log_seq }] }
}

/** Whether a hint asks a session of `who` to look: that another session was opened is nothing to a reader. */
export function isAsked(hint: Extract<Hint, { is: 'device' }>, who: Who, reader: boolean): boolean {
  return hint.device_id === who.device_id && !(reader && hint.session_id !== undefined)
}

export function roleOf({ keys }: Pick<Open, 'keys'>): Role {
  return keys === null ? 'reader' : 'device'
}

function sessionOf(open: Open): { session_id: string; role: Role; position: number } {
  return { session_id: open.session_id, role: roleOf(open), position: open.outbox.sent }
}

export function armStep(rules: Rules): Effect {
  return { do: 'arm', timer: 'handshake', ms: rules.handshake_step_ms }
}

export function logEntryMessage(entry: StoredLogEntry): ServerHeadOf<'log_entry'> {
  return {
    type: 'log_entry',
    body: toBase64url(entry.body),
    sig: toBase64url(entry.sig),
    box: entry.box === null ? null : toBase64url(entry.box),
  }
}

/** The session is open, and what its client has to know of the store and of the limits. */
export function establishedMessage(session_id: string, gen: number, e: Established, rules: Rules): ServerHeadOf<'session_established'> {
  return {
    type: 'session_established',
    session_id,
    gen,
    log_seq: e.log_seq,
    log_head: toBase64url(e.log_head),
    history_id: e.history_id,
    head_position: e.head_position,
    floor: e.floor,
    mode: e.mode,
    last_device_seq: e.last_device_seq,
    features: [],
    limits: limitsOf(rules),
    ...rekeyAfter(rules),
  }
}

function limitsOf(rules: Rules): NonNullable<ServerHeadOf<'session_established'>['limits']> {
  const { frame_bytes, payload_bytes, batch_events, inflight_events, inflight_bytes, replay_events } = rules
  return { frame_bytes, payload_bytes, batch_events, inflight_events, inflight_bytes, replay_events }
}

/** When the client has to expect a rekey; seconds, rounded up. */
export function rekeyAfter(rules: Rules): { rekey_after_s: number; rekey_after_frames: number } {
  return { rekey_after_s: Math.ceil(rules.rekey_after_ms / 1000), rekey_after_frames: rules.rekey_after_frames }
}
