/**
 * The connection machine (protocol.md §4): `step(state, input) → { state, effects }`, pure. It decides when to connect, what to do
 * about each close code, when to rekey and when to give up; it knows no socket, no clock and no key.
 *
 * | state      | known                                   | leaves by |
 * |------------|-----------------------------------------|-----------|
 * | idle       | told to stay away                       | start → opening |
 * | opening    | a socket is being made                  | opened → hello · closed → by code |
 * | hello      | client_hello is sent                    | server_hello → proving · closed, step timer → by code |
 * | proving    | server verified, client_auth sent       | established → replaying or live · closed, step timer → by code |
 * | replaying  | the session stands, a backlog comes     | caught_up → live · closed → by code |
 * | live       | everything is handed over as it comes   | reset → replaying · closed → by code |
 * | checking   | the server refused us, or knows less than we do, or has another key: it is looked into over REST | checked → opening, waiting or stopped |
 * | waiting    | offline, a timer runs                   | retry → opening |
 * | stopped    | never again unchanged; `code` says why  | start → opening |
 *
 * Bounds: five 4451 in a row stop it; a rekey on its own at most once a minute; every wait has a timer.
 */
import { CLOSE, closeNameOf, closePolicy, type ErrorCode, LIMITS, unreachable } from '@sealpost/protocol'
import { backoffMs } from './backoff.ts'

/** `steady`: a session that has stood so long has ended the row of failures. */
export type TimerName = 'retry' | 'step' | 'ping' | 'pong' | 'rekey' | 'rekey_step' | 'steady'

/** `auth`: 4401, 4403 · `log`: the server's log is shorter than ours · `identity`: another server key. */
export type CheckReason = 'auth' | 'log' | 'identity'

/** What survives from one connection to the next, until a session got something done (`progress`) or stood for a minute. */
export type Run = {
  /** Failures in a row. */
  attempt: number
  bad_frames: number
  /** Said by going_away; used once. */
  retry_after_ms: number | null
  /** None of them is made twice in one run. */
  checked: readonly CheckReason[]
  last_code: number | null
}

/** `hello`, `proving`: a rekey is under way. `early`: the keys are less than a minute old. */
export type Rekey = 'early' | 'none' | 'hello' | 'proving'

export type MachineState =
  | { at: 'idle'; run: Run }
  | { at: 'opening'; run: Run }
  | { at: 'hello'; run: Run }
  | { at: 'proving'; run: Run }
  | { at: 'replaying' | 'live'; run: Run; rekey: Rekey; rekey_after_ms: number; wanted: boolean; gen: number }
  | { at: 'checking'; run: Run; why: CheckReason }
  | { at: 'waiting'; run: Run }
  | { at: 'stopped'; run: Run; code: ErrorCode }

export type MachineInput =
  | { is: 'start' }
  | { is: 'end' }
  | { is: 'timer'; name: TimerName }
  | { is: 'opened' }
  | { is: 'closed'; code: number }
  /** A server_hello arrived (first or in a rekey); the driver has verified it and sent client_auth. */
  | { is: 'proved' }
  /** session_established arrived. `behind`: its log_seq is below ours. */
  | { is: 'established'; mode: 'live' | 'replay' | 'reset'; gen: number; rekey_after_ms: number; behind: boolean }
  | { is: 'rekeyed'; gen: number; rekey_after_ms: number }
  | { is: 'caught_up' }
  | { is: 'reset' }
  /** An ack came, or the cursor moved: this server can be worked with. */
  | { is: 'progress' }
  /** Any message of the server. */
  | { is: 'heard' }
  | { is: 'rekey_required' }
  /** This side has sealed or opened as many frames as a key may. */
  | { is: 'frames_used' }
  | { is: 'going_away'; retry_after_ms: number }
  /** The driver found the server's bytes wrong, or wants a fresh session. */
  | { is: 'broken'; close: 'bad_frame' | 'normal' | 'timeout' }
  | { is: 'other_key' }
  | { is: 'checked'; next: 'connect' | 'later' | ErrorCode }
  | { is: 'fatal'; code: ErrorCode }

export type ConnectionState = 'connecting' | 'replaying' | 'live' | 'offline'

export type MachineEffect =
  | { do: 'connect' }
  | { do: 'close'; code: number }
  | { do: 'arm'; timer: TimerName; ms: number }
  | { do: 'disarm'; timer: TimerName }
  | { do: 'send_hello' }
  | { do: 'send_rekey_hello' }
  | { do: 'send_ping' }
  /** The session stands: outbox and replay may begin. */
  | { do: 'begin' }
  /** The session is over: nothing of it may have effects any more. */
  | { do: 'end' }
  | { do: 'check'; why: CheckReason }
  | { do: 'tell'; state: ConnectionState }
  | { do: 'stop'; code: ErrorCode }

export type Stepped = { state: MachineState; effects: MachineEffect[] }

const FRESH: Run = { attempt: 0, bad_frames: 0, retry_after_ms: null, checked: [], last_code: null }
const BAD_FRAMES_MAX = 5
const REKEY_LEAST_MS = 60_000
const STEADY_MS = 60_000
/** At least so long, and up to twice. */
const SUSPENDED_MS = 30_000

export function createMachine(): MachineState {
  return { at: 'idle', run: FRESH }
}

/** `jitter` in [0, 1). Never throws for a listed input; every state takes every input. */
export function step(state: MachineState, input: MachineInput, jitter: number): Stepped {
  switch (input.is) {
    case 'start':
      return state.at === 'idle' || state.at === 'waiting' || state.at === 'stopped'
        ? connect(state.at === 'waiting' ? state.run : FRESH, disarmRetry(state))
        : stay(state)
    case 'end':
      return end(state)
    case 'timer':
      return onTimer(state, input.name, jitter)
    case 'opened':
      return state.at === 'opening'
        ? to({ at: 'hello', run: state.run }, { do: 'send_hello' }, { do: 'arm', timer: 'step', ms: LIMITS.handshakeStepMs })
        : stay(state)
    case 'closed':
      return hasSocket(state) ? onClosed(state, input.code, jitter) : stay(state)
    case 'proved':
      if (state.at === 'hello') return to({ at: 'proving', run: state.run }, { do: 'arm', timer: 'step', ms: LIMITS.handshakeStepMs })
      return isOpen(state) && state.rekey === 'hello' ? to({ ...state, rekey: 'proving' }) : stay(state)
    case 'established':
      return state.at === 'proving' ? onEstablished(state.run, input) : stay(state)
    case 'rekeyed':
      return isOpen(state) && state.rekey === 'proving'
        ? to(
            { ...state, rekey: 'early', wanted: false, gen: input.gen, rekey_after_ms: input.rekey_after_ms },
            { do: 'disarm', timer: 'rekey_step' },
            { do: 'arm', timer: 'rekey', ms: REKEY_LEAST_MS },
          )
        : stay(state)
    case 'caught_up':
      return state.at === 'replaying' ? to({ ...state, at: 'live' }, { do: 'tell', state: 'live' }) : stay(state)
    case 'reset':
      return state.at === 'live' ? to({ ...state, at: 'replaying' }, { do: 'tell', state: 'replaying' }) : stay(state)
    case 'progress':
      return isOpen(state) && state.run !== FRESH ? steady(state) : stay(state)
    case 'heard':
      return isOpen(state) ? to(state, { do: 'disarm', timer: 'pong' }, { do: 'arm', timer: 'ping', ms: LIMITS.pingMs }) : stay(state)
    case 'rekey_required':
      // one that crosses our own hello is answered by it
      return isOpen(state) && (state.rekey === 'none' || state.rekey === 'early') ? rekey(state) : stay(state)
    case 'frames_used':
      if (!isOpen(state) || state.wanted) return stay(state)
      return state.rekey === 'none' ? rekey(state) : to({ ...state, wanted: true })
    case 'going_away':
      return isOpen(state) ? to({ ...state, run: { ...state.run, retry_after_ms: input.retry_after_ms } }) : stay(state)
    case 'broken':
      return hasSocket(state) ? onBroken(state, input.close, jitter) : stay(state)
    case 'other_key':
      if (state.at === 'hello' && !state.run.checked.includes('identity')) return look(state.run, 'identity', CLOSE.normal.code, state)
      if (state.at === 'hello') return stop(state, 'server_identity')
      // the key that was verified when the session began does not change within it
      return isOpen(state) ? onBroken(state, 'bad_frame', jitter) : stay(state)
    case 'checked':
      return state.at === 'checking' ? onChecked(state, input.next, jitter) : stay(state)
    case 'fatal':
      return state.at === 'stopped' || state.at === 'idle' ? stay(state) : stop(state, input.code)
    default:
      return unreachable(input)
  }
}

type Open = Extract<MachineState, { at: 'replaying' | 'live' }>

export function isOpen(state: MachineState): state is Open {
  return state.at === 'replaying' || state.at === 'live'
}

function hasSocket(state: MachineState): boolean {
  return state.at === 'opening' || state.at === 'hello' || state.at === 'proving' || isOpen(state)
}

function to(state: MachineState, ...effects: MachineEffect[]): Stepped {
  return { state, effects }
}

function stay(state: MachineState): Stepped {
  return { state, effects: [] }
}

function connect(run: Run, effects: MachineEffect[] = []): Stepped {
  return {
    state: { at: 'opening', run },
    effects: [
      ...effects,
      { do: 'tell', state: 'connecting' },
      { do: 'connect' },
      { do: 'arm', timer: 'step', ms: LIMITS.handshakeStepMs * 2 },
    ],
  }
}

function disarmRetry(state: MachineState): MachineEffect[] {
  return state.at === 'waiting' ? [{ do: 'disarm', timer: 'retry' }] : []
}

function onTimer(state: MachineState, name: TimerName, jitter: number): Stepped {
  switch (name) {
    case 'retry':
      return state.at === 'waiting' ? connect(state.run) : stay(state)
    case 'step':
      return hasSocket(state) && !isOpen(state) ? onBroken(state, 'timeout', jitter) : stay(state)
    case 'ping':
      return isOpen(state) ? to(state, { do: 'send_ping' }, { do: 'arm', timer: 'pong', ms: LIMITS.pongMs }) : stay(state)
    case 'pong':
      return isOpen(state) ? onBroken(state, 'timeout', jitter) : stay(state)
    case 'rekey':
      if (!isOpen(state) || state.rekey === 'hello' || state.rekey === 'proving') return stay(state)
      if (state.rekey === 'none' || state.wanted) return rekey(state)
      return to({ ...state, rekey: 'none' }, { do: 'arm', timer: 'rekey', ms: Math.max(1, state.rekey_after_ms - REKEY_LEAST_MS) })
    case 'rekey_step':
      return isOpen(state) ? onBroken(state, 'timeout', jitter) : stay(state)
    case 'steady':
      return isOpen(state) ? steady(state) : stay(state)
    default:
      return unreachable(name)
  }
}

function onEstablished(run: Run, input: Extract<MachineInput, { is: 'established' }>): Stepped {
  if (input.behind) return run.checked.includes('log') ? stopWith(run, 'state_diverged', true) : look(run, 'log', CLOSE.normal.code)
  const at = input.mode === 'live' ? 'live' : 'replaying'
  return to(
    { at, run: { ...run, retry_after_ms: null }, rekey: 'early', rekey_after_ms: input.rekey_after_ms, wanted: false, gen: input.gen },
    { do: 'disarm', timer: 'step' },
    { do: 'arm', timer: 'ping', ms: LIMITS.pingMs },
    { do: 'arm', timer: 'rekey', ms: Math.min(REKEY_LEAST_MS, input.rekey_after_ms) },
    { do: 'arm', timer: 'steady', ms: STEADY_MS },
    { do: 'tell', state: at },
    { do: 'begin' },
  )
}

/** What failed before is over; what the server has said about its going away still counts. */
function steady(state: Open): Stepped {
  const { retry_after_ms } = state.run
  return to({ ...state, run: retry_after_ms === null ? FRESH : { ...FRESH, retry_after_ms } })
}

function rekey(state: Open): Stepped {
  // generation 255 is the last: a fresh session begins at 0
  if (state.gen >= LIMITS.genMax) return onBroken(state, 'normal', 0)
  return to(
    { ...state, rekey: 'hello', wanted: false },
    { do: 'disarm', timer: 'rekey' },
    { do: 'arm', timer: 'rekey_step', ms: LIMITS.rekeyDeadlineMs },
    { do: 'send_rekey_hello' },
  )
}

const ALL_TIMERS: readonly TimerName[] = ['retry', 'step', 'ping', 'pong', 'rekey', 'rekey_step', 'steady']

function leave(state: MachineState): MachineEffect[] {
  const disarm = ALL_TIMERS.map((timer) => ({ do: 'disarm', timer }) as const)
  return isOpen(state) ? [...disarm, { do: 'end' }] : disarm
}

function onClosed(state: MachineState, code: number, jitter: number): Stepped {
  const left = leave(state)
  const name = closeNameOf(code)
  const run = { ...state.run, last_code: code, bad_frames: name === 'bad_frame' ? state.run.bad_frames + 1 : state.run.bad_frames }
  if (run.bad_frames >= BAD_FRAMES_MAX)
    return { state: { at: 'stopped', run, code: 'invalid_message' }, effects: [...left, ...stopped('invalid_message')] }
  if ((name === 'auth_failed' || name === 'device_revoked') && !run.checked.includes('auth')) {
    const looked = look(run, 'auth', null)
    return { state: looked.state, effects: [...left, ...looked.effects] }
  }
  if (closePolicy(code) === 'never') {
    const error = errorOfClose(code)
    return { state: { at: 'stopped', run, code: error }, effects: [...left, ...stopped(error)] }
  }
  // who was suspended asks now and then whether that is over
  const waited = wait(name === 'suspended' ? { ...run, retry_after_ms: Math.round(SUSPENDED_MS * (1 + jitter)) } : run, jitter)
  return { state: waited.state, effects: [...left, ...waited.effects] }
}

/** Our side gives the connection up. */
function onBroken(state: MachineState, close: 'bad_frame' | 'normal' | 'timeout', jitter: number): Stepped {
  const closed = onClosed(state, CLOSE[close].code, jitter)
  return { state: closed.state, effects: [{ do: 'close', code: close === 'normal' ? 1000 : CLOSE[close].code }, ...closed.effects] }
}

function wait(run: Run, jitter: number): Stepped {
  const attempt = run.attempt + 1
  const ms = run.retry_after_ms ?? backoffMs(attempt, jitter)
  return to(
    { at: 'waiting', run: { ...run, attempt, retry_after_ms: null } },
    { do: 'tell', state: 'offline' },
    { do: 'arm', timer: 'retry', ms },
  )
}

function look(run: Run, why: CheckReason, close: number | null, from?: MachineState): Stepped {
  return to(
    { at: 'checking', run: { ...run, checked: [...run.checked, why] }, why },
    ...(close === null ? [] : ([{ do: 'close', code: close }] as const)),
    ...(from === undefined && close === null ? [] : ([{ do: 'disarm', timer: 'step' }] as const)),
    { do: 'tell', state: 'connecting' },
    { do: 'check', why },
  )
}

function onChecked(state: Extract<MachineState, { at: 'checking' }>, next: 'connect' | 'later' | ErrorCode, jitter: number): Stepped {
  if (next === 'connect') return connect(state.run)
  if (next === 'later') return wait({ ...state.run, checked: state.run.checked.filter((why) => why !== state.why) }, jitter)
  return stopWith(state.run, next, false)
}

function stop(state: MachineState, code: ErrorCode): Stepped {
  const close: MachineEffect[] = hasSocket(state) ? [{ do: 'close', code: 1000 }] : []
  return { state: { at: 'stopped', run: state.run, code }, effects: [...leave(state), ...close, ...stopped(code)] }
}

function stopWith(run: Run, code: ErrorCode, close: boolean): Stepped {
  return { state: { at: 'stopped', run, code }, effects: [...(close ? ([{ do: 'close', code: 1000 }] as const) : []), ...stopped(code)] }
}

function stopped(code: ErrorCode): MachineEffect[] {
  return [
    { do: 'tell', state: 'offline' },
    { do: 'stop', code },
  ]
}

function end(state: MachineState): Stepped {
  const close: MachineEffect[] = hasSocket(state) ? [{ do: 'close', code: 1000 }] : []
  return { state: { at: 'idle', run: FRESH }, effects: [...leave(state), ...close, { do: 'tell', state: 'offline' }] }
}

/** What a person is told about a close code that ends it. */
export function errorOfClose(code: number): ErrorCode {
  switch (closeNameOf(code)) {
    case 'device_revoked':
    case 'auth_failed':
      return 'unauthorized'
    case 'unsupported_version':
      return 'unsupported_version'
    case 'superseded':
      return 'superseded'
    case 'account_gone':
      return 'account_gone'
    case 'too_large':
      return 'too_large'
    default:
      return 'unsupported_version'
  }
}
