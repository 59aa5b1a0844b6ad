import { encodeMessage, encodeRecord, LIMITS, type ClientHead, type SessionKeys } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { GATEWAY_LIMITS } from '../gateway/limits.ts'
import type { DeviceRow, Established, StoredEvent } from '../ports/store.ts'
import { INITIAL, INPUTS, isOverdrawn, isReading, STATES, step } from './session.ts'
import type { Effect, Input, Open, State, Step } from './state.ts'

const rules = GATEWAY_LIMITS
const bytes = (length: number, fill = 1): Uint8Array => new Uint8Array(length).fill(fill)
const DEVICE = '00000000-0000-4000-8000-00000000000a'
const OTHER = '00000000-0000-4000-8000-00000000000b'
const THIRD = '00000000-0000-4000-8000-00000000000c'
const keys: SessionKeys = { th: bytes(32), c2s: bytes(32, 2), s2c: bytes(32, 3), gen: 0 }
const newKeys: SessionKeys = { ...keys, th: bytes(32, 9), gen: 1 }
const device: DeviceRow = {
  user_no: 7,
  device_no: 1,
  user_id: 'u',
  device_id: DEVICE,
  sign_pub: bytes(32),
  active: true,
  revoked_log_seq: null,
  account_active: true,
  session_id: 's',
  token_version: 0,
}
const { user_no, device_no, user_id, device_id, sign_pub } = device
const who = { user_no, device_no, user_id, device_id, sign_pub }
const auth = {
  user_id: 'u',
  device_id: DEVICE,
  log_seq: 2,
  log_head: null,
  cursor: { position: 4, event_id: null, received_at: null, history_id: null },
  last_device_seq: 3,
  features: [],
  client: { name: 'c', version: '1' },
}
const established: Established = {
  log_seq: 2,
  log_head: bytes(32),
  history_id: 'h',
  head_position: 4,
  floor: 0,
  last_device_seq: 3,
  acked_event_missing: false,
  mode: 'live',
  reset_reason: null,
  entries: [],
}
const hello = { type: 'server_hello' as const, body: 'e30', sig: 'A' }
const authHead = { type: 'client_auth' as const, body: 'e30', sig: 'A' }

const authenticating: State = { at: 'authenticating', keys, auth: null }
const establishing: State = { at: 'establishing', keys, auth, who, head: 0, log_seq: 0, token_version: null, changed: false }
const refusing: State = { at: 'refusing', who, from_log_seq: 3, upto_log_seq: 4, session: null, dry: false }
const open = run(establishing, { is: 'established', session_id: 's', result: { ok: true, established } }).state as Open
const joining = run(INITIAL, { is: 'joined', who, token_version: 3, cursor: auth.cursor, log_seq: null }).state
const reader = run(joining, { is: 'established', session_id: 'r', result: { ok: true, established } }).state as Open

function run(state: State, ...inputs: Input[]): Step {
  let at: Step = { state, effects: [] }
  for (const input of inputs) {
    const next = step(rules, at.state, input)
    at = { state: next.state, effects: [...at.effects, ...next.effects] }
  }
  return at
}

const message = (head: ClientHead, body: Uint8Array = bytes(0), gen = 0): Input => ({
  is: 'message',
  head,
  body,
  gen,
  json: encodeMessage(head).subarray(4),
})
const entry = (log_seq: number) => ({ log_seq, body: bytes(3, log_seq), sig: bytes(64), box: null })

function stored(position: number, options: { device_no?: number; device_seq?: number; epoch?: number; size?: number } = {}): StoredEvent {
  const client = bytes(options.size ?? 60, 0)
  new DataView(client.buffer).setUint32(40, options.epoch ?? 2)
  const { device_no = 2, device_seq = position } = options
  return { position, stream_seq: position, received_at: 1_000 + position, device_no, device_seq, stream_no: 1, flags: 0, client }
}

const committed = (...events: StoredEvent[]): Input => ({ is: 'hint', hint: { is: 'committed', history_id: 'h', events } })
const announced = (log_seq: number, ...revoked: string[]): Input => ({
  is: 'hint',
  hint: { is: 'log', history_id: 'h', log_seq, revoked },
})
/** The store is to be asked about a device; of a session that was opened, with its id. */
const decided = (device_id: string, session_id?: string): Input => ({
  is: 'hint',
  hint: { is: 'device', device_id, ...(session_id === undefined ? {} : { session_id }) },
})
/** What the store says of the device. */
const looked = (differs: Partial<DeviceRow> | null = {}): Input => ({
  is: 'device_checked',
  device: differs === null ? null : { ...device, ...differs },
})
/** A round: all is as it was told but for what differs. */
const head = (differs: { position?: number; log_seq?: number; entitled?: boolean } = {}): Input => ({
  is: 'head',
  position: 4,
  log_seq: 2,
  entitled: true,
  ...differs,
})
const online = (...device_ids: string[]): Input => ({ is: 'online', device_ids })

function record(device_seq: number, options: { device_id?: string; epoch?: number; payload?: number } = {}): Uint8Array {
  return encodeRecord({
    server: null,
    event_id: '01890000-0000-7000-8000-000000000001',
    device_id: options.device_id ?? DEVICE,
    device_seq,
    epoch: options.epoch ?? 2,
    ttl: null,
    prev_hash: null,
    stream_id: 'main',
    type: 'app',
    sig: bytes(64),
    payload: bytes(options.payload ?? 40),
    payload_hash: null,
  })
}

const events = (...records: Uint8Array[]): Input => message({ type: 'event' }, Buffer.concat(records))

/** Effects as short words: what is done, and for messages which. */
function words(effects: readonly Effect[]): string[] {
  return effects.map((effect) => {
    if (effect.do === 'send' || effect.do === 'send_events') return `send ${effect.head.type}`
    if (effect.do === 'close') return `close ${effect.name}`
    if (effect.do === 'arm' || effect.do === 'disarm') return `${effect.do} ${effect.timer}`
    return effect.do
  })
}

function sent(step: Step, type: string) {
  return step.effects.flatMap((e) => ('head' in e && (e.do === 'send' || e.do === 'send_events') && e.head.type === type ? [e] : []))
}

function rule(title: string, state: State, input: Input | Input[], effects: string[], at: State['at']): void {
  it(title, () => {
    const next = run(state, ...(Array.isArray(input) ? input : [input]))
    expect(words(next.effects)).toEqual(effects)
    expect(next.state.at).toBe(at)
  })
}

describe('R09: the handshake', () => {
  const establish = { is: 'established', session_id: 's', result: { ok: true, established } } as const
  rule('a new connection has one step of time', INITIAL, { is: 'opened' }, ['arm handshake'], 'hello')
  rule('a client_hello is answered', INITIAL, { is: 'hello', json: bytes(2) }, ['arm handshake', 'answer_hello'], 'answering')
  rule(
    'with the answer there are keys in both directions',
    { at: 'answering' },
    { is: 'hello_answered', hello, keys },
    ['arm handshake', 'send_text', 'expect_keys', 'use_keys'],
    'proving',
  )
  rule(
    'no shared version ends it',
    { at: 'answering' },
    { is: 'hello_refused', code: 'unsupported_version' },
    ['close unsupported_version'],
    'closed',
  )
  rule('a bad hello ends it', { at: 'answering' }, { is: 'hello_refused', code: 'bad_frame' }, ['close bad_frame'], 'closed')
  rule('client_auth is checked', { at: 'proving', keys }, message(authHead), ['arm handshake', 'authenticate'], 'authenticating')
  rule('anything else in its place ends it', { at: 'proving', keys }, message({ type: 'ping', t: 1 }), ['close bad_frame'], 'closed')
  rule('a second hello ends it', { at: 'proving', keys }, { is: 'hello', json: bytes(2) }, ['close bad_frame'], 'closed')
  rule(
    'hints are wanted before the fence is written',
    authenticating,
    { is: 'authenticated', device, auth, valid: true },
    ['arm handshake', 'subscribe', 'establish'],
    'establishing',
  )
  rule(
    'a signature that does not hold: 4401',
    authenticating,
    { is: 'authenticated', device, auth, valid: false },
    ['close auth_failed'],
    'closed',
  )
  rule(
    'an unknown device: 4401',
    authenticating,
    { is: 'authenticated', device: null, auth, valid: false },
    ['close auth_failed'],
    'closed',
  )
  rule(
    'a suspended account: 4457, also for a device that was revoked before',
    authenticating,
    { is: 'authenticated', device: { ...device, active: false, account_active: false, revoked_log_seq: 4 }, auth, valid: true },
    ['close suspended'],
    'closed',
  )
  rule(
    'a suspended device: 4457',
    authenticating,
    { is: 'authenticated', device: { ...device, active: false }, auth, valid: true },
    ['close suspended'],
    'closed',
  )
  rule(
    'a revoked device gets the entries first',
    authenticating,
    { is: 'authenticated', device: { ...device, active: false, revoked_log_seq: 4 }, auth, valid: true },
    ['arm handshake', 'read_log'],
    'refusing',
  )
  rule(
    'one that knows them is told at once',
    authenticating,
    { is: 'authenticated', device: { ...device, active: false, revoked_log_seq: 2 }, auth, valid: true },
    ['close device_revoked'],
    'closed',
  )
  rule(
    'a revoked device with a wrong signature: 4401',
    authenticating,
    { is: 'authenticated', device: { ...device, active: false, revoked_log_seq: 4 }, auth, valid: false },
    ['close auth_failed'],
    'closed',
  )
  rule(
    'established, then open',
    establishing,
    establish,
    ['disarm handshake', 'send session_established', 'open', 'read_presence', 'arm rekey_age'],
    'open',
  )
  rule(
    'later entries follow session_established',
    establishing,
    { ...establish, result: { ok: true, established: { ...established, log_seq: 4, entries: [entry(3), entry(4)] } } },
    ['disarm handshake', 'send session_established', 'send log_entry', 'send log_entry', 'open', 'read_presence', 'arm rekey_age'],
    'open',
  )
  rule(
    'a long log is read on',
    establishing,
    { ...establish, result: { ok: true, established: { ...established, log_seq: 9, entries: [entry(3)] } } },
    ['disarm handshake', 'send session_established', 'send log_entry', 'open', 'read_presence', 'arm rekey_age', 'read_log'],
    'open',
  )
  rule(
    'then, in mode reset, the reset',
    establishing,
    { ...establish, result: { ok: true, established: { ...established, mode: 'reset', reset_reason: 'history_changed' } } },
    ['disarm handshake', 'send session_established', 'send reset', 'open', 'read_presence', 'arm rekey_age'],
    'open',
  )
  rule(
    'what was committed meanwhile is read',
    establishing,
    [committed(stored(5)), establish],
    ['disarm handshake', 'send session_established', 'open', 'read_presence', 'arm rekey_age', 'read_page'],
    'open',
  )
  const opening = ['disarm handshake', 'send session_established', 'open', 'read_presence', 'arm rekey_age']
  rule(
    'revoked while it is established: of which history is not known yet, so the store is asked behind it',
    establishing,
    [announced(3, DEVICE), establish, looked({ active: false, revoked_log_seq: 3 })],
    [...opening, 'read_log', 'check_device', 'cut_off', 'arm handshake', 'read_log'],
    'refusing',
  )
  rule(
    'another history revokes nobody',
    establishing,
    [{ is: 'hint', hint: { is: 'log', history_id: 'x', log_seq: 2, revoked: [DEVICE] } }, establish, looked()],
    [...opening, 'check_device'],
    'open',
  )
  rule(
    'what is decided about the device meanwhile is asked for once it is open',
    establishing,
    [decided(DEVICE), decided(DEVICE, 'x'), establish],
    [...opening, 'check_device'],
    'open',
  )
  rule('and of another device nothing', establishing, [decided(OTHER), establish], opening, 'open')
  rule(
    'R12: too many handshakes: 4453',
    establishing,
    { is: 'established', session_id: 's', result: { ok: false, code: 'rate_limited' } },
    ['close rate_limited'],
    'closed',
  )
  rule(
    'suspended before it was established: 4457',
    establishing,
    { is: 'established', session_id: 's', result: { ok: false, code: 'suspended' } },
    ['close suspended'],
    'closed',
  )
  rule(
    'revoked before it was established',
    establishing,
    [
      { is: 'established', session_id: 's', result: { ok: false, code: 'device_revoked' } },
      { is: 'device_checked', device: { ...device, revoked_log_seq: 3 } },
    ],
    ['check_device', 'arm handshake', 'read_log'],
    'refusing',
  )
  rule(
    'deleted before it was established',
    establishing,
    { is: 'established', session_id: 's', result: { ok: false, code: 'account_gone' } },
    ['close auth_failed'],
    'closed',
  )
  rule('not revoked after all', establishing, { is: 'device_checked', device }, ['close auth_failed'], 'closed')
  for (const state of [establishing, open]) {
    const leaving = state.at === 'open' ? ['leave'] : []
    const gone: Input = { is: 'hint', hint: { is: 'deleted' } }
    rule(`G10: ${state.at}: the account is deleted`, state, gone, [...leaving, 'close account_gone'], 'closed')
  }
  rule('G10: also while a revoked device is told why', refusing, { is: 'hint', hint: { is: 'deleted' } }, ['close account_gone'], 'closed')
  rule(
    'entries up to the revocation and no further',
    refusing,
    { is: 'log_read', entries: [entry(3), entry(4), entry(5)], has_more: true },
    ['send log_entry', 'send log_entry', 'close device_revoked'],
    'closed',
  )
  rule(
    'a long log of a revoked device is read on',
    refusing,
    { is: 'log_read', entries: [entry(3)], has_more: true },
    ['send log_entry', 'read_log'],
    'refusing',
  )
  rule(
    'an earlier read of the log does not stand for the revocation: it is read on',
    open,
    [
      announced(3),
      announced(4, DEVICE),
      { is: 'log_read', entries: [entry(3)], has_more: false },
      { is: 'log_read', entries: [entry(3), entry(4)], has_more: false },
    ],
    ['read_log', 'cut_off', 'arm handshake', 'read_log', 'send log_entry', 'read_log', 'send log_entry', 'leave', 'close device_revoked'],
    'closed',
  )
  rule(
    'an empty answer is believed the second time',
    refusing,
    [
      { is: 'log_read', entries: [], has_more: false },
      { is: 'log_read', entries: [], has_more: false },
    ],
    ['read_log', 'close device_revoked'],
    'closed',
  )
  rule('what else fails meanwhile does not count', refusing, { is: 'failed', what: 'presence' }, [], 'refusing')
  rule('the log that cannot be read ends it', refusing, { is: 'failed', what: 'log' }, ['close error'], 'closed')
  rule(
    'an entry announced while it was established is told behind it',
    establishing,
    [announced(3), establish],
    ['disarm handshake', 'send session_established', 'open', 'read_presence', 'arm rekey_age', 'read_log'],
    'open',
  )
  for (const state of [INITIAL, { at: 'answering' } as State, { at: 'proving', keys } as State, authenticating, establishing])
    rule(`${state.at}: too slow is 4452`, state, { is: 'timer', timer: 'handshake' }, ['close timeout'], 'closed')
  rule('the store fails: 1011', authenticating, { is: 'failed', what: 'handshake' }, ['close error'], 'closed')
})

describe('the open session', () => {
  rule(
    'R04: another session of its device is announced: the store says that it is a newer one, which ends it',
    open,
    [decided(DEVICE, 'x'), looked({ session_id: 'x' })],
    ['check_device', 'leave', 'close superseded'],
    'closed',
  )
  rule('R04: or an older one, whose hint was late: it goes on', open, [decided(DEVICE, 'x'), looked()], ['check_device'], 'open')
  rule('its own announcement asks nothing', open, decided(DEVICE, 's'), [], 'open')
  rule('nor does what is decided about another device', open, [decided(OTHER), decided(OTHER, 'x')], [], 'open')
  rule(
    'G23: a fence that was ended, by a logout or an operator: the device proves itself anew',
    open,
    [decided(DEVICE), looked({ session_id: null })],
    ['check_device', 'leave', 'close reauthenticate'],
    'closed',
  )
  rule('of its tokens a session is no matter', open, [decided(DEVICE), looked({ token_version: 9 })], ['check_device'], 'open')
  rule(
    'G24: a suspended device is told so, whatever else became of its fence',
    open,
    [decided(DEVICE), looked({ active: false, session_id: null })],
    ['check_device', 'leave', 'close suspended'],
    'closed',
  )
  rule(
    'one question at a time: what is decided while it is out is asked for once behind it, and only that answer counts',
    open,
    [decided(DEVICE), decided(DEVICE, 'x'), decided(DEVICE), looked({ session_id: 'x' }), looked()],
    ['check_device', 'check_device'],
    'open',
  )
  rule(
    'of what was asked twice the second answer ends it',
    open,
    [decided(DEVICE), decided(DEVICE), looked(), looked({ active: false })],
    ['check_device', 'check_device', 'leave', 'close suspended'],
    'closed',
  )
  rule(
    'a look that fails is not asked again by itself: the round does',
    open,
    [decided(DEVICE), { is: 'failed', what: 'device' }, head({ entitled: false })],
    ['check_device', 'check_device'],
    'open',
  )
  rule(
    'C6: of another history nothing is taken: no event, no entry, no revocation',
    open,
    [
      { is: 'hint', hint: { is: 'committed', history_id: 'x', events: [stored(5), stored(6)] } },
      { is: 'hint', hint: { is: 'log', history_id: 'x', log_seq: 3, revoked: [] } },
      { is: 'hint', hint: { is: 'log', history_id: 'x', log_seq: 3, revoked: [DEVICE] } },
      head(),
    ],
    [],
    'open',
  )
  const cut = (why: 'fenced' | 'not_active'): Input => ({ is: 'settled', outcome: { is: 'cut', why } })
  rule(
    'a run that was fenced by a newer session ends it',
    open,
    [cut('fenced'), looked({ session_id: 'x' })],
    ['check_device', 'leave', 'close superseded'],
    'closed',
  )
  rule(
    'a fence that nobody holds any more is no newer session: the device comes back',
    open,
    [cut('fenced'), looked({ session_id: null })],
    ['check_device', 'leave', 'close reauthenticate'],
    'closed',
  )
  rule(
    'a run that is cut while a look is out is looked into behind it',
    open,
    [decided(DEVICE), cut('fenced'), looked(), looked()],
    ['check_device', 'check_device', 'leave', 'close error'],
    'closed',
  )
  rule(
    'and what is decided meanwhile does not make it forgotten',
    open,
    [cut('fenced'), decided(DEVICE), looked(), { is: 'failed', what: 'device' }],
    ['check_device', 'check_device', 'leave', 'close error'],
    'closed',
  )
  rule(
    'a look that fails ends it: the cut run is never answered',
    open,
    [cut('not_active'), { is: 'failed', what: 'device' }],
    ['check_device', 'leave', 'close error'],
    'closed',
  )
  rule(
    'C6: a store of another past ends it, so that the cursor is judged again',
    open,
    { is: 'restored' },
    ['leave', 'close draining'],
    'closed',
  )
  rule(
    'R04: revoked: the entry, then 4403, and no nack',
    open,
    [
      announced(3, DEVICE),
      { is: 'settled', outcome: { is: 'cut', why: 'not_active' } },
      committed(stored(5)),
      { is: 'log_read', entries: [entry(3)], has_more: false },
    ],
    ['cut_off', 'arm handshake', 'read_log', 'send log_entry', 'leave', 'close device_revoked'],
    'closed',
  )
  rule(
    'a run of a device that is not active is looked into once',
    open,
    [
      { is: 'settled', outcome: { is: 'cut', why: 'not_active' } },
      { is: 'settled', outcome: { is: 'cut', why: 'not_active' } },
    ],
    ['check_device'],
    'open',
  )
  rule('C4: an entry that nobody announced is read', open, [head(), head({ log_seq: 3 }), head({ log_seq: 3 })], ['read_log'], 'open')
  rule(
    'C4: whoever may go on no longer is looked at, once at a time',
    open,
    [head({ entitled: false }), head({ entitled: false })],
    ['check_device'],
    'open',
  )
  rule(
    'C4: so a revocation whose hint was lost is found',
    open,
    [
      head({ log_seq: 3, entitled: false }),
      looked({ active: false, revoked_log_seq: 3 }),
      { is: 'log_read', entries: [entry(3)], has_more: false },
    ],
    ['read_log', 'check_device', 'cut_off', 'arm handshake', 'read_log', 'send log_entry', 'leave', 'close device_revoked'],
    'closed',
  )
  rule(
    'C4: also when a later entry was announced',
    open,
    [announced(4), head({ log_seq: 4, entitled: false })],
    ['read_log', 'check_device'],
    'open',
  )
  rule(
    'a device that may go on after all goes on, and the next round asks again',
    open,
    [head({ entitled: false }), looked(), head(), head({ entitled: false })],
    ['check_device', 'check_device'],
    'open',
  )
  rule(
    'a look of the round that fails is tried in the next',
    open,
    [head({ entitled: false }), { is: 'failed', what: 'device' }, head({ entitled: false })],
    ['check_device', 'check_device'],
    'open',
  )
  rule(
    'R08: who is online is asked again in the next round when it could not be read',
    open,
    [{ is: 'failed', what: 'presence' }, head(), head()],
    ['read_presence'],
    'open',
  )
  const checking = { ...open, checking: { cut: true, again: false } }
  rule(
    'a cut run ends as the look says: revoked',
    checking,
    looked({ revoked_log_seq: 3 }),
    ['cut_off', 'arm handshake', 'read_log'],
    'refusing',
  )
  rule('or suspended', checking, looked({ active: false, account_active: false }), ['leave', 'close suspended'], 'closed')
  rule('or deleted', checking, looked(null), ['leave', 'close account_gone'], 'closed')
  rule('or neither', checking, looked(), ['leave', 'close error'], 'closed')
  rule('a hello as text ends it', open, { is: 'hello', json: bytes(1) }, ['leave', 'close bad_frame'], 'closed')
  rule('client_auth outside a rekey ends it', open, message(authHead), ['leave', 'close bad_frame'], 'closed')
  rule('the peer is gone', open, { is: 'gone' }, ['leave'], 'closed')
  rule('a message that is never whole', open, { is: 'timer', timer: 'message' }, ['leave', 'close timeout'], 'closed')
  rule('nothing was read for too long', open, { is: 'stalled' }, ['leave', 'close stalled'], 'closed')
  rule('G03: too many messages wait', open, { is: 'overflow' }, ['leave', 'close inbound_overflow'], 'closed')
  rule(
    'R07: a drain with nothing in flight',
    open,
    { is: 'drain', retry_after_ms: 9 },
    ['send going_away', 'leave', 'close draining'],
    'closed',
  )
  rule(
    'R07: a drain waits for the ack of what is in flight',
    open,
    [
      events(record(4)),
      { is: 'drain', retry_after_ms: 9 },
      {
        is: 'settled',
        outcome: { is: 'acked', acks: [{ received_at: 1, rows: [{ device_seq: 4, position: 5, stream_seq: 1 }] }], events: 1, bytes: 999 },
      },
    ],
    ['submit', 'send going_away', 'send ack', 'leave', 'close draining'],
    'closed',
  )
  rule(
    'R07: a drain waits for the result of an entry of the log, and for no page',
    open,
    [
      message({ type: 'log_append', id: 1, body: 'e30', sig: 'A', boxes: {} }),
      message({ type: 'replay_request', id: 2, last_ack_device_seq: 0, query: true }),
      { is: 'drain', retry_after_ms: 9 },
      { is: 'appended', id: 1, result: { ok: true, log_seq: 3, log_head: bytes(32), user_no: 7, already_known: false, revoked: [] } },
      { is: 'log_read', entries: [entry(3)], has_more: false },
    ],
    ['append', 'read_page', 'send going_away', 'read_log', 'send log_entry', 'send log_result', 'leave', 'close draining'],
    'closed',
  )

  const came = (device_id: string, is_online = true): Input => ({
    is: 'hint',
    hint: { is: 'presence', device_id, online: is_online, last_seen: 5 },
  })
  const shown = (...device_ids: string[]): Input => ({
    is: 'presence',
    devices: [DEVICE, OTHER, THIRD].map((device_id) => ({ device_id, online: device_ids.includes(device_id), last_seen: null })),
  })
  rule('R08: presence of other devices is told, its own is not', open, [came(OTHER), came(DEVICE)], ['send presence'], 'open')
  rule(
    'R08: the store has who it was told of: nothing is read, and its own device is no matter',
    open,
    [shown(DEVICE, OTHER), online(OTHER, DEVICE), online(OTHER)],
    ['send presence'],
    'open',
  )
  rule('R08: before it was told of anybody nothing differs from nobody', open, [online(), online(DEVICE)], [], 'open')
  rule(
    'R08: one came of whom it was not told',
    open,
    [shown(DEVICE, OTHER), online(OTHER, THIRD), shown(OTHER, THIRD), online(OTHER, THIRD)],
    ['send presence', 'read_presence', 'send presence'],
    'open',
  )
  rule('R08: one went', open, [shown(OTHER, THIRD), online(DEVICE, OTHER)], ['send presence', 'read_presence'], 'open')
  rule('R08: one went and another came', open, [shown(OTHER), online(THIRD)], ['send presence', 'read_presence'], 'open')
  rule(
    'R08: hints count as told, doubled ones once',
    open,
    [shown(OTHER), came(THIRD), came(THIRD), online(OTHER, THIRD), came(OTHER, false), online(THIRD)],
    ['send presence', 'send presence', 'send presence', 'send presence'],
    'open',
  )
  rule(
    'R08: a late hint that says what is no more is put right by the round',
    open,
    [{ is: 'presence', devices: [] }, came(OTHER), online()],
    ['send presence', 'send presence', 'read_presence'],
    'open',
  )
  rule(
    'R08: a list that was being read when a hint came may be older: it is not told, but read again',
    open,
    [came(OTHER), shown(THIRD), shown(OTHER, THIRD)],
    ['send presence', 'read_presence', 'send presence'],
    'open',
  )
  rule('R08: who is online is read once at a time, however many rounds differ', open, [online(OTHER), online(OTHER)], [], 'open')

  it('an unreadable body, one without records, with a server part or with too many ends it', () => {
    const withServer = record(4).slice()
    withServer[4] = 4
    const many = Buffer.concat(Array.from({ length: rules.batch_events + 1 }, (_, i) => record(4 + i)))
    for (const body of [bytes(0), bytes(20), withServer, many])
      expect(words(run(open, message({ type: 'event' }, body)).effects), String(body.length)).toEqual(['leave', 'close bad_frame'])
  })

  it('cuts runs where the epoch changes, and counts what is in flight', () => {
    const next = run(open, events(record(4), record(5), record(6, { epoch: 3 })))
    expect(next.effects.flatMap((e) => (e.do === 'submit' ? e.runs.map((r) => [r.first_seq, r.epoch, r.events.length]) : []))).toEqual([
      [4, 2, 2],
      [6, 3, 1],
    ])
    expect((next.state as Open).intake).toMatchObject({ next: 7, events: 3, first: 4 })
  })

  it('a nack is cumulative: higher numbers are discarded until the expected one arrives', () => {
    const refused: Input = {
      is: 'settled',
      outcome: { is: 'refused', code: 'unavailable', device_seq: 4, expected: 4, log_seq: null, retry_after_ms: 5, events: 2, bytes: 10 },
    }
    const next = run(open, events(record(4), record(5)), refused, events(record(6)), events(record(7), record(8)), events(record(4)))
    expect(words(next.effects)).toEqual(['submit', 'send nack', 'submit'])
    expect(sent(next, 'nack')[0]!.head).toEqual({
      type: 'nack',
      code: 'unavailable',
      device_seq: 4,
      expected_device_seq: 4,
      retry_after_ms: 5,
    })
    expect((next.state as Open).intake).toMatchObject({ next: 5, discarding: false, events: 1 })
  })

  it('a stale epoch is refused behind the entries that are missing', () => {
    const refused: Input = {
      is: 'settled',
      outcome: { is: 'refused', code: 'stale_epoch', device_seq: 4, expected: 4, log_seq: 3, retry_after_ms: null, events: 1, bytes: 10 },
    }
    const next = run(open, events(record(4)), refused)
    expect(words(next.effects)).toEqual(['submit', 'read_log'])
    const told = run(next.state, { is: 'log_read', entries: [entry(3)], has_more: false })
    expect(words(told.effects)).toEqual(['send log_entry', 'send nack'])
    const failed = run(next.state, { is: 'failed', what: 'log' }, head())
    expect(words(failed.effects)).toEqual(['read_log'])
    expect(words(run(next.state, { is: 'log_read', entries: [], has_more: false }).effects)).toEqual(['send nack'])
  })

  it('reads nothing while the flight is full, and again after the ack', () => {
    const full: State = { ...open, intake: { ...open.intake, events: rules.inflight_events } }
    expect(isReading(rules, full)).toBe(false)
    expect(isReading(rules, { ...open, intake: { ...open.intake, events: 1, bytes: rules.inflight_bytes } })).toBe(false)
    expect(isReading(rules, run(full, { is: 'settled', outcome: { is: 'acked', acks: [], events: 1, bytes: 0 } }).state)).toBe(true)
    expect(isReading(rules, { ...open, requests: rules.requests })).toBe(false)
    expect(isOverdrawn(rules, full), 'the client knows its limit').toBe(true)
    expect(isOverdrawn(rules, { ...open, requests: rules.requests })).toBe(true)
    expect(isOverdrawn(rules, { ...open, rekey: { at: 'answering' } }), 'a pause that is not of its making').toBe(false)
    expect(isOverdrawn(rules, { ...open, draining: true })).toBe(false)
    expect(isOverdrawn(rules, refusing)).toBe(false)
    expect(isOverdrawn(rules, establishing), 'nothing is to be sent before session_established').toBe(true)
    for (const at of STATES) if (at !== 'open') expect(isReading(rules, sampleStates[at])).toBe(at === 'hello' || at === 'proving')
  })

  it('requests are answered, and refused with their id', () => {
    const asked = run(
      open,
      message({ type: 'log_append', id: 1, body: 'e30', sig: 'A', boxes: {} }),
      message({ type: 'log_request', id: 2, from_log_seq: 0 }),
      message({ type: 'tips_request', id: 3, device_id: OTHER }),
      message({ type: 'ack', position: 4 }),
      message({ type: 'replay_request', id: 4, last_ack_device_seq: 0, streams: ['x'] }),
    )
    expect(words(asked.effects)).toEqual(['append', 'read_entries', 'seen', 'send error'])
    expect((asked.state as Open).requests).toBe(3)
    const head = { type: 'log_entries' as const, id: 2, entries: [], has_more: false }
    const done = run(
      asked.state,
      { is: 'answer', to: 'ask', head },
      { is: 'answer', to: 'ask', head: { type: 'tips', id: 3, last_device_seq: 1, complete: true }, events: [] },
      { is: 'appended', id: 1, result: { ok: true, log_seq: 3, log_head: bytes(32), user_no: 7, already_known: false, revoked: [] } },
    )
    expect(words(done.effects)).toEqual(['send log_entries', 'read_tips', 'send tips', 'read_log'])
    expect(words(run(done.state, { is: 'log_read', entries: [entry(3)], has_more: false }).effects)).toEqual([
      'send log_entry',
      'send log_result',
    ])
    expect((done.state as Open).requests).toBe(0)
  })

  it('requests whose answers are long wait for room, and for each other; an append does not', () => {
    const request = (id: number): Input => message({ type: 'log_request', id, from_log_seq: 0 })
    const full = run(
      open,
      { is: 'backlog', full: true },
      request(1),
      request(2),
      message({ type: 'log_append', id: 3, body: 'e30', sig: 'A', boxes: {} }),
    )
    expect(words(full.effects)).toEqual(['append'])
    const error = { type: 'error' as const, code: 'unavailable' as const, message: '' }
    const refused = run(full.state, { is: 'answer', to: 'append', head: { ...error, id: 3 } }, { is: 'backlog', full: false })
    expect(words(refused.effects)).toEqual(['send error', 'read_entries'])
    expect(words(run(refused.state, { is: 'answer', to: 'ask', head: { ...error, id: 1 } }).effects)).toEqual([
      'send error',
      'read_entries',
    ])
  })

  it('a refused log entry says why; a conflict comes behind the entries that are missing', () => {
    const appended = (code: 'log_conflict' | 'name_taken' | 'not_found' | 'account_gone', log_head: Uint8Array | null): Input => ({
      is: 'appended',
      id: 1,
      result: { ok: false, code, log_seq: 3, log_head },
    })
    expect(words(run(open, appended('name_taken', bytes(32))).effects)).toEqual(['send log_result'])
    expect(words(run(open, appended('log_conflict', bytes(32))).effects)).toEqual(['read_log'])
    expect(words(run(open, appended('not_found', null)).effects)).toEqual(['send error'])
    expect(words(run(open, appended('account_gone', null)).effects)).toEqual(['leave', 'close account_gone'])
  })
})

describe('R01: delivery', () => {
  const page = (after: number, events: StoredEvent[], upto: number, head_position: number): Input => ({
    is: 'page',
    after,
    token: 'token',
    page: { events, upto, tip: { event_id: OTHER, received_at: 9 }, head_position, floor: 0 },
  })

  it('a batch behind a hole is read from the store, and goes on where it stood', () => {
    const hole = run(open, committed(stored(6)))
    expect(words(hole.effects)).toEqual(['read_page'])
    const filled = run(hole.state, committed(stored(7)), page(4, [stored(5), stored(6)], 6, 6))
    expect(sent(filled, 'event')[0]!.head).toEqual({ type: 'event', after: 4, upto: 6 })
    expect(words(filled.effects)).toEqual(['send event', 'send event'])
  })

  it('what is committed during a read follows its page, so that steady traffic does not keep a session in the store', () => {
    let at = run(open, committed(stored(6)))
    at = run(at.state, committed(stored(6)), committed(stored(7)), committed(stored(8)), page(4, [stored(5), stored(6), stored(7)], 7, 8))
    expect(sent(at, 'event').map(({ head }) => head)).toEqual([
      { type: 'event', after: 4, upto: 7 },
      { type: 'event', after: 7, upto: 8 },
    ])
    expect(words(run(at.state, committed(stored(9))).effects)).toEqual(['send event'])
    const holes = run(open, committed(stored(6)), committed(stored(9)), page(4, [stored(5), stored(6)], 6, 6))
    expect(words(holes.effects), 'a batch behind another hole is read').toEqual(['read_page', 'send event', 'read_page'])
  })

  it('what is kept during a read is bounded', () => {
    let at = run(open, committed(stored(6)))
    for (let position = 7; position <= 6 + 200; position++) at = run(at.state, committed(stored(position, { size: 10_000 })))
    expect((at.state as Open).kept.batches.length).toBeLessThan(64)
    expect(words(run(at.state, page(4, [stored(5), stored(6)], 6, 206)).effects).at(-1)).toBe('read_page')
  })

  it('a query is started though the session is behind, and live delivery goes on though a query is read', () => {
    const query = message({ type: 'replay_request', id: 5, last_ack_device_seq: 0, query: true })
    const asked = run(open, committed(stored(9)), query, committed(stored(12)), page(4, [stored(5)], 5, 12))
    expect(words(asked.effects)).toEqual(['read_page', 'send event', 'read_page'])
    expect(asked.effects.at(-1)).toMatchObject({ ask: { job: { id: 5 } } })
    const answered = run(asked.state, page(0, [stored(1)], 1, 1))
    expect(words(answered.effects)).toEqual(['send replay_response', 'read_page'])
    expect(answered.effects.at(-1)).toMatchObject({ ask: { job: null, after: 5 } })
    const reading = run(open, query)
    expect(words(run(reading.state, committed(stored(5)), committed(stored(6))).effects)).toEqual(['send event', 'send event'])
  })

  it('the log entry of an epoch leaves before its first record', () => {
    const later = run(open, committed(stored(5, { epoch: 3 })))
    expect(words(later.effects)).toEqual(['read_page'])
    const held = run(later.state, page(4, [stored(5, { epoch: 3 })], 5, 5))
    expect(words(held.effects)).toEqual(['read_log'])
    expect(words(run(held.state, { is: 'log_read', entries: [entry(3)], has_more: false }).effects)).toEqual([
      'send log_entry',
      'send event',
    ])
  })

  it('a record of an epoch that the log does not have ends the session instead of asking for ever', () => {
    const held = run(open, committed(stored(5, { epoch: 9 })), page(4, [stored(5, { epoch: 9 })], 5, 5))
    const next = run(held.state, { is: 'log_read', entries: [], has_more: false })
    expect(words(next.effects)).toEqual(['leave', 'close error'])
  })

  it('a page with an own event in flight waits for its ack, and then leaves it out', () => {
    const own = stored(5, { device_no: 1, device_seq: 4 })
    const held = run(open, events(record(4)), committed(stored(9)), page(4, [own, stored(6)], 6, 6))
    expect(words(held.effects)).toEqual(['submit', 'read_page'])
    const acked: Input = {
      is: 'settled',
      outcome: { is: 'acked', acks: [{ received_at: 1, rows: [{ device_seq: 4, position: 5, stream_seq: 1 }] }], events: 1, bytes: 1 },
    }
    const next = run(held.state, acked)
    expect(words(next.effects).slice(0, 2)).toEqual(['send ack', 'send event'])
    const event = sent(next, 'event')[0]!
    expect('events' in event && event.events.map((e) => e.position)).toEqual([6])
  })

  it('above the high mark no hint is taken; below the low one it goes on from the store', () => {
    const full = run(open, { is: 'backlog', full: true }, committed(stored(5)), committed(stored(6)), head({ position: 6 }))
    expect(words(full.effects)).toEqual([])
    const again = run(full.state, { is: 'backlog', full: false })
    expect(words(again.effects)).toEqual(['read_page'])
    expect(again.effects[0]).toMatchObject({ ask: { after: 4, job: null } })
  })

  it('pages of a replay follow each other; the last switches to live at exactly its end', () => {
    const replaying = { ...open, outbox: { ...open.outbox, mode: 'replay' as const, sent: 0, told: 0, head: 4 } }
    const asked = run(
      replaying,
      message({ type: 'replay_request', id: 5, last_ack_device_seq: 9, pages: 2, limit: 2 }),
      committed(stored(5)),
    )
    expect(asked.effects).toMatchObject([{ do: 'read_page', ask: { after: 0, limit: 2, own: { device_no: 1, upto_seq: 9 } } }])
    const first = run(asked.state, page(0, [stored(1), stored(2)], 2, 4))
    expect(words(first.effects)).toEqual(['send replay_response', 'read_page'])
    expect(sent(first, 'replay_response')[0]!.head).toMatchObject({
      id: 5,
      after: 0,
      upto: 2,
      has_more: true,
      total_events: 4,
      continuation_token: 'token',
    })
    const second = run(first.state, page(2, [stored(3)], 4, 4))
    expect(sent(second, 'replay_response')[0]!.head).toMatchObject({ after: 2, upto: 4, has_more: false, tip: { event_id: OTHER } })
    expect(words(second.effects)).toEqual(['send replay_response', 'read_page'])
    expect((second.state as Open).outbox).toMatchObject({ mode: 'live', sent: 4, told: 4, head: 5 })
    expect((second.state as Open).requests).toBe(0)
  })

  it('a page that could not be read is refused with the id of its request', () => {
    const asked = run(open, message({ type: 'replay_request', id: 6, last_ack_device_seq: 0, query: true }))
    const next = run(asked.state, { is: 'page_refused', code: 'invalid_token' })
    expect(sent(next, 'error')[0]!.head).toMatchObject({ id: 6, code: 'invalid_token' })
    expect(
      words(run(run(open, committed(stored(6))).state, { is: 'page_refused', code: 'unavailable' }, head({ position: 6 })).effects),
    ).toEqual(['read_page'])
  })
})

describe('G12: rekey', () => {
  const helloHead: ClientHead = { type: 'client_hello', versions: [1], client_eph: 'A', client_nonce: 'A', session_id: 's' }
  const helloMessage = message(helloHead)
  const proving = run(open, helloMessage, { is: 'hello_answered', hello, keys: newKeys })
  const renewed = run(proving.state, message(authHead, bytes(0), 1), { is: 'rekey_checked', valid: true })

  it('the four messages again, sealed; sending switches at session_established', () => {
    expect(words(proving.effects)).toEqual(['arm rekey_deadline', 'answer_hello', 'send server_hello', 'expect_keys'])
    expect(words(renewed.effects)).toEqual([
      'check_rekey',
      'use_keys',
      'send session_established',
      'disarm rekey_deadline',
      'arm rekey_age',
      'arm rekey_rest',
    ])
    expect(sent(renewed, 'session_established')[0]!.head).toEqual({
      type: 'session_established',
      session_id: 's',
      gen: 1,
      rekey_after_s: 3600,
      rekey_after_frames: 2 ** 20,
    })
    expect((renewed.state as Open).keys).toEqual({ th: newKeys.th, gen: 1 })
  })
  it('touches neither cursor nor mode nor what is in flight', () => {
    const { keys: _, rekey: __, rested: ___, ...rest } = renewed.state as Open
    expect(open).toMatchObject(rest)
  })
  rule('data of the old generation flows on until client_auth', proving.state, events(record(4)), ['submit'], 'open')
  rule(
    'data of the new generation before client_auth ends it',
    proving.state,
    message({ type: 'event' }, record(4), 1),
    ['leave', 'close bad_frame'],
    'closed',
  )
  rule('client_auth of the old generation ends it', proving.state, message(authHead, bytes(0), 0), ['leave', 'close bad_frame'], 'closed')
  rule(
    'a proof that does not hold: 4455',
    proving.state,
    [message(authHead, bytes(0), 1), { is: 'rekey_checked', valid: false }],
    ['check_rekey', 'leave', 'close rekey_failed'],
    'closed',
  )
  rule(
    'keys that are old are asked for once',
    open,
    [
      { is: 'timer', timer: 'rekey_age' },
      { is: 'rekey_due', reason: 'frames' },
    ],
    ['send rekey_required', 'arm rekey_deadline'],
    'open',
  )
  rule(
    'not in time: 4455',
    open,
    [
      { is: 'rekey_due', reason: 'policy' },
      { is: 'timer', timer: 'rekey_deadline' },
    ],
    ['send rekey_required', 'arm rekey_deadline', 'leave', 'close rekey_failed'],
    'closed',
  )
  rule(
    'on its own a client does it once a minute',
    renewed.state,
    message(helloHead, bytes(0), 1),
    ['leave', 'close rate_limited'],
    'closed',
  )
  rule(
    'asked for, it may do it again',
    renewed.state,
    [{ is: 'rekey_due', reason: 'frames' }, helloMessage],
    ['send rekey_required', 'arm rekey_deadline', 'answer_hello'],
    'open',
  )
  rule(
    'or after the minute',
    renewed.state,
    [{ is: 'timer', timer: 'rekey_rest' }, helloMessage],
    ['arm rekey_deadline', 'answer_hello'],
    'open',
  )
  rule(
    'of another session: 4451',
    open,
    message({ type: 'client_hello', versions: [1], client_eph: 'A', client_nonce: 'A', session_id: 'x' }),
    ['leave', 'close bad_frame'],
    'closed',
  )
  rule(
    'without a session: 4451',
    open,
    message({ type: 'client_hello', versions: [1], client_eph: 'A', client_nonce: 'A' }),
    ['leave', 'close bad_frame'],
    'closed',
  )
  rule(
    'a hello that cannot be answered ends it',
    open,
    [helloMessage, { is: 'hello_refused', code: 'bad_frame' }],
    ['arm rekey_deadline', 'answer_hello', 'leave', 'close bad_frame'],
    'closed',
  )
  const last: State = { ...open, keys: { th: keys.th, gen: LIMITS.genMax } }
  rule('generation 255 is the last: asked for', last, { is: 'rekey_due', reason: 'age' }, ['leave', 'close draining'], 'closed')
  rule('generation 255 is the last: wished', last, helloMessage, ['leave', 'close draining'], 'closed')
  rule('while the proof is checked nothing else is read', proving.state, message(authHead, bytes(0), 1), ['check_rekey'], 'open')
})

describe('a reader', () => {
  const join: Extract<Input, { is: 'joined' }> = { is: 'joined', who, token_version: 3, cursor: auth.cursor, log_seq: null }
  const behind: Established = { ...established, mode: 'replay', head_position: 9 }
  const judged = (result: Established): Input => ({ is: 'established', session_id: 'r', result: { ok: true, established: result } })
  rule('its cursor is judged, and no fence written', INITIAL, join, ['arm handshake', 'subscribe', 'join'], 'establishing')
  it('its token is judged again with it, once hints are heard', () => {
    const reader = { user_no: who.user_no, device_no: who.device_no, token_version: 3 }
    expect(run(INITIAL, join).effects.at(-1)).toEqual({ do: 'join', reader, cursor: auth.cursor })
  })
  rule(
    'G23: has to prove itself anew when its token was ended meanwhile',
    joining,
    { is: 'established', session_id: 'r', result: { ok: false, code: 'reauthenticate' } },
    ['close reauthenticate'],
    'closed',
  )
  rule(
    'it is told who is online; there are no keys to renew',
    joining,
    judged(established),
    ['disarm handshake', 'open', 'read_presence'],
    'open',
  )
  rule('what it missed comes unasked', joining, judged(behind), ['disarm handshake', 'open', 'read_presence', 'read_page'], 'open')
  rule(
    'C6: a cursor that cannot be honoured',
    joining,
    judged({ ...behind, mode: 'reset', reset_reason: 'cursor_unknown' }),
    ['disarm handshake', 'send reset', 'open', 'read_presence', 'read_page'],
    'open',
  )
  rule(
    'the entries that it does not know come first',
    INITIAL,
    [{ ...join, log_seq: 1 }, judged(established)],
    ['arm handshake', 'subscribe', 'join', 'disarm handshake', 'open', 'read_presence', 'read_log'],
    'open',
  )
  const told = (differs: Partial<DeviceRow> | null = {}): Input => looked(differs === null ? null : { token_version: 3, ...differs })
  rule(
    'is judged by its token: sessions of its device come and go beside it',
    reader,
    [decided(DEVICE, 'x'), decided(DEVICE, 'y'), decided(DEVICE), told({ session_id: null })],
    ['check_device'],
    'open',
  )
  rule(
    'G23: when its token was ended it has to prove itself anew',
    reader,
    [decided(DEVICE), told({ token_version: 4 })],
    ['check_device', 'leave', 'close reauthenticate'],
    'closed',
  )
  rule(
    'also when only the round finds it',
    reader,
    [head({ entitled: false }), told({ token_version: 4 })],
    ['check_device', 'leave', 'close reauthenticate'],
    'closed',
  )
  rule(
    'G24: ends when it is suspended',
    reader,
    [decided(DEVICE), told({ active: false })],
    ['check_device', 'leave', 'close suspended'],
    'closed',
  )
  rule(
    'G10: ends when there is no account',
    reader,
    [decided(DEVICE), told(null)],
    ['check_device', 'leave', 'close account_gone'],
    'closed',
  )
  rule(
    'what is decided while its cursor is judged is asked for behind it',
    joining,
    [decided(DEVICE), judged(established), told({ token_version: 4 })],
    ['disarm handshake', 'open', 'read_presence', 'check_device', 'leave', 'close reauthenticate'],
    'closed',
  )
  rule('renews no keys', reader, { is: 'rekey_due', reason: 'policy' }, [], 'open')
  rule('takes nothing', reader, events(record(4)), ['leave', 'close bad_frame'], 'closed')
  rule('C4: ends when its device is revoked', reader, announced(3, DEVICE), ['cut_off', 'arm handshake', 'read_log'], 'refusing')
  rule('C5: ends with the account', reader, { is: 'hint', hint: { is: 'deleted' } }, ['leave', 'close account_gone'], 'closed')
  rule('ends with its token', reader, { is: 'timer', timer: 'token' }, ['leave', 'close reauthenticate'], 'closed')
  rule('goes elsewhere at a drain', reader, { is: 'drain', retry_after_ms: 1 }, ['send going_away', 'leave', 'close draining'], 'closed')
  it('is told of the events of its own device too', () => {
    const own = run(reader, committed(stored(5, { device_no: 1, device_seq: 2 })))
    expect(own.effects).toMatchObject([{ do: 'send_events', head: { after: 4, upto: 5 }, whole: true }])
  })
  it('leaves as a reader', () => {
    expect(run(reader, { is: 'gone' }).effects).toEqual([{ do: 'leave', who, session_id: 'r', role: 'reader', position: 4 }])
    expect(run(open, { is: 'gone' }).effects).toEqual([{ do: 'leave', who, session_id: 's', role: 'device', position: 4 }])
  })
})

const sampleStates: { [S in State['at']]: State } = {
  hello: INITIAL,
  answering: { at: 'answering' },
  proving: { at: 'proving', keys },
  authenticating,
  establishing,
  refusing,
  open,
  closed: { at: 'closed', name: null },
}

const sampleInputs: { [I in Input['is']]: Input[] } = {
  opened: [{ is: 'opened' }],
  joined: [{ is: 'joined', who, token_version: 3, cursor: auth.cursor, log_seq: null }],
  hello: [{ is: 'hello', json: bytes(2) }],
  message: [
    message({ type: 'client_hello', versions: [1], client_eph: 'A', client_nonce: 'A' }),
    message(authHead),
    events(record(4)),
    message({ type: 'replay_request', id: 1, last_ack_device_seq: 0 }),
    message({ type: 'ack', position: 1 }),
    message({ type: 'log_append', id: 1, body: 'e30', sig: 'A', boxes: {} }),
    message({ type: 'log_request', id: 1, from_log_seq: 0 }),
    message({ type: 'tips_request', id: 1, device_id: OTHER }),
    message({ type: 'ping', t: 1 }),
  ],
  bad_frame: [{ is: 'bad_frame' }],
  too_large: [{ is: 'too_large' }],
  overflow: [{ is: 'overflow' }],
  stalled: [{ is: 'stalled' }],
  gone: [{ is: 'gone' }],
  timer: (['handshake', 'rekey_age', 'rekey_deadline', 'rekey_rest', 'message', 'token'] as const).map((timer) => ({ is: 'timer', timer })),
  rekey_due: [{ is: 'rekey_due', reason: 'age' }],
  backlog: [
    { is: 'backlog', full: true },
    { is: 'backlog', full: false },
  ],
  drain: [{ is: 'drain', retry_after_ms: 1 }],
  hello_answered: [{ is: 'hello_answered', hello, keys }],
  hello_refused: [{ is: 'hello_refused', code: 'bad_frame' }],
  authenticated: [{ is: 'authenticated', device, auth, valid: true }],
  established: [
    { is: 'established', session_id: 's', result: { ok: true, established } },
    ...(['device_revoked', 'suspended', 'auth_failed', 'account_gone', 'reauthenticate', 'rate_limited'] as const).map(
      (code): Input => ({ is: 'established', session_id: 's', result: { ok: false, code } }),
    ),
  ],
  rekey_checked: [{ is: 'rekey_checked', valid: true }],
  log_read: [{ is: 'log_read', entries: [entry(3)], has_more: false }],
  device_checked: [
    looked(),
    looked(null),
    looked({ active: false }),
    looked({ active: false, revoked_log_seq: 3 }),
    looked({ session_id: null }),
    looked({ session_id: 'x' }),
  ],
  page: [{ is: 'page', page: { events: [], upto: 4, tip: null, head_position: 4, floor: 0 }, after: 4, token: null }],
  page_refused: [{ is: 'page_refused', code: 'unavailable' }],
  settled: [
    { is: 'settled', outcome: { is: 'acked', acks: [], events: 0, bytes: 0 } },
    { is: 'settled', outcome: { is: 'cut', why: 'fenced' } },
  ],
  appended: [{ is: 'appended', id: 1, result: { ok: false, code: 'log_conflict', log_seq: 2, log_head: bytes(32) } }],
  answer: [{ is: 'answer', to: 'ask', head: { type: 'pong', t: 1 } }],
  presence: [{ is: 'presence', devices: [] }],
  failed: (['handshake', 'log', 'device', 'presence'] as const).map((what) => ({ is: 'failed', what })),
  hint: [
    committed(stored(5)),
    announced(3),
    announced(3, DEVICE),
    decided(DEVICE),
    decided(DEVICE, 's'),
    decided(OTHER, 'x'),
    { is: 'hint', hint: { is: 'committed', history_id: 'x', events: [stored(5)] } },
    { is: 'hint', hint: { is: 'log', history_id: 'x', log_seq: 3, revoked: [DEVICE] } },
    { is: 'hint', hint: { is: 'presence', device_id: OTHER, online: true, last_seen: 5 } },
    { is: 'hint', hint: { is: 'deleted' } },
  ],
  head: [head(), head({ log_seq: 3 }), head({ entitled: false })],
  online: [online(), online(DEVICE), online(OTHER)],
  restored: [{ is: 'restored' }],
}

describe('every state × every input', () => {
  it.each(STATES)('%s: each input has a defined outcome, and an end is an end', (at) => {
    expect(new Set(Object.keys(sampleInputs))).toEqual(new Set(INPUTS))
    const asking = [
      { ...open, checking: { cut: false, again: true } },
      { ...open, checking: { cut: true, again: false } },
      { ...establishing, changed: true },
    ]
    const states: State[] = [sampleStates[at], ...[joining, reader, ...asking].filter((state) => state.at === at)]
    for (const [state, input] of states.flatMap((given) =>
      INPUTS.flatMap((is) => sampleInputs[is]).map((each) => [given, each] as const),
    )) {
      const before = JSON.stringify(state)
      const next = step(rules, state, input)
      expect(STATES, `${at} × ${input.is}`).toContain(next.state.at)
      expect(next.effects.every((effect) => typeof effect.do === 'string')).toBe(true)
      expect(JSON.stringify(state), 'a step changes no state that it was given').toBe(before)
      // a connection is closed exactly when its state says so, and nothing follows the close
      const closes = next.effects.filter((effect) => effect.do === 'close')
      if (at === 'closed') expect(next).toEqual({ state: sampleStates.closed, effects: [] })
      else expect(closes.length, `${at} × ${input.is}`).toBe(next.state.at === 'closed' && input.is !== 'gone' ? 1 : 0)
      if (closes.length > 0) expect(next.effects.at(-1)).toBe(closes[0])
    }
  })
})
