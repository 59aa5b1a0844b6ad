/**
 * The connection at work: executes what the machine decides (`machine.ts`), runs the handshake and the record layer, and hands
 * every opened message on in its order. The only file that touches a socket.
 *
 * Invariants: frames are opened one after another, each handed on before the next is opened; nothing of an old socket has any
 * effect once it is given up; frames leave in the order in which they were sealed. Bound: reading stops while
 * `FRAMES_MAX` frames wait or the receive path is behind.
 */
import {
  type Bytes,
  CLOSE,
  type ClientAuthBody,
  type ClientHandshake,
  type ClientHead,
  concat,
  type Crypto,
  createClientAuth,
  decodeHello,
  decodeServerMessage,
  encodeMessage,
  ERROR,
  type ErrorCode,
  finishServerHello,
  genOf,
  OpenCipher,
  SealCipher,
  SealpostError,
  type ServerHeadOf,
  type ServerMessage,
  type SessionKeys,
  startHandshake,
  utf8,
  viewOf,
} from '@sealpost/protocol'
import { toUnit } from './backoff.ts'
import {
  type CheckReason,
  type ConnectionState,
  createMachine,
  isOpen,
  type MachineEffect,
  type MachineInput,
  step,
  type TimerName,
} from './machine.ts'
import type { Clock, Connection as Socket, Identity, Transport } from './ports.ts'
import { socketUrl } from './server-url.ts'

export const SUBPROTOCOL = 'sealpost.1'
const FRAMES_MAX = 64
/** Never again unchanged, whoever finds it: connecting anew would find the same. */
const FATAL: ReadonlySet<ErrorCode> = new Set([
  'unsupported_version',
  'unknown_version',
  'log_fork',
  'invalid_entry',
  'device_revoked',
  'state_damaged',
  'state_diverged',
  'disk',
])

/** A revoked device gets the entries that say so in place of its session. */
const BEFORE_SESSION: ReadonlySet<ServerMessage['head']['type']> = new Set(['session_established', 'log_entry'])

/** `session_established` of a first handshake: all its fields are there. */
export type Established = Required<ServerHeadOf<'session_established'>>

/** Messages that the connection does not keep to itself. */
export type SessionMessage = Exclude<
  ServerMessage,
  { head: { type: 'server_hello' | 'session_established' | 'rekey_required' | 'going_away' | 'pong' } }
>

export type ConnectionPorts = {
  crypto: Crypto
  clock: Clock
  transport: Transport
  /** As stored now: address and pinned key may change between connections. */
  identity(): Identity
  /** Resolves when nothing of the session before is being stored any more. */
  authBody(): Promise<ClientAuthBody>
  established(session: Established): { behind: boolean }
  begin(session: Established): void
  message(message: SessionMessage): Promise<void> | void
  ended(): void
  check(why: CheckReason): Promise<'connect' | 'later' | ErrorCode>
  stateChanged(state: ConnectionState): void
  /** `error`: what exactly went wrong, when that is known. */
  stopped(code: ErrorCode, error: SealpostError | null): void
  /** The receive path has more than enough. */
  congested(): boolean
}

export type ConnectionStatus = { state: ConnectionState; last_error: SealpostError | null }

export type Connection = {
  readonly state: ConnectionState
  /** Why the last connection ended, or null. */
  readonly last_error: SealpostError | null
  /** ms to add to this device's clock to get the server's; 0 before the first handshake. */
  readonly clock_offset: number
  /** The session stands. */
  readonly open: boolean
  start(): void
  /** False when no session stands: nothing was sent. */
  send(head: ClientHead, body?: Bytes): boolean
  caughtUp(): void
  reset(): void
  /** This session got something done: failures before it are forgotten. */
  progress(): void
  /** The session cannot go on: a wrong message closes it as such, a failure on this side ends it for good, all else begins it anew. */
  fault(error: unknown): void
  /** The session is given up and begun anew. */
  reconnect(error: SealpostError | null): void
  fatal(error: SealpostError): void
  /** The receive path has room again. */
  relieve(): void
  end(): void
}

/** One socket and its keys. */
type Channel = {
  socket: Socket
  inbound: (string | Bytes)[]
  draining: boolean
  /** How the socket ended, until what came before is read. */
  closed: { code: number; cause: unknown } | null
  paused: boolean
  handshake: ClientHandshake | null
  keys: SessionKeys | null
  seal: SealCipher | null
  open: OpenCipher | null
  /** Of the generation to come: the server switches with its session_established. */
  next: { open: OpenCipher; keys: SessionKeys } | null
  /** The first frame of a generation says that it is established, and nothing else. */
  fresh: boolean
  session: Established | null
  frames_max: number
  sending: Promise<void> | null
}

export function createConnection(ports: ConnectionPorts): Connection {
  const { crypto, clock } = ports
  const timers = new Map<TimerName, () => void>()
  let machine = createMachine()
  let channel: Channel | null = null
  let state: ConnectionState = 'offline'
  let last_error: SealpostError | null = null
  let clock_offset = 0
  let established: Established | null = null

  function input(given: MachineInput): void {
    const stepped = step(machine, given, toUnit(crypto.random(6)))
    machine = stepped.state
    for (const effect of stepped.effects) execute(effect)
  }

  function execute(effect: MachineEffect): void {
    switch (effect.do) {
      case 'connect':
        return connect()
      case 'close':
        channel?.socket.close(effect.code)
        channel = null
        return
      case 'arm':
        timers.get(effect.timer)?.()
        timers.set(
          effect.timer,
          clock.setTimer(
            effect.ms,
            () => {
              timers.delete(effect.timer)
              // a socket that this side does not read says nothing about the other end
              const unread = effect.timer === 'pong' && channel?.paused === true
              input(unread ? { is: 'heard' } : { is: 'timer', name: effect.timer })
            },
            effect.timer === 'rekey' || effect.timer === 'ping' || effect.timer === 'steady',
          ),
        )
        return
      case 'disarm':
        timers.get(effect.timer)?.()
        timers.delete(effect.timer)
        return
      case 'send_hello':
        return spawn(sendHello)
      case 'send_rekey_hello':
        return spawn(sendRekeyHello)
      case 'send_ping':
        send({ type: 'ping', t: clock.now() })
        return
      case 'begin':
        last_error = null
        if (established !== null) ports.begin(established)
        return
      case 'end':
        established = null
        ports.ended()
        return
      case 'check':
        void ports.check(effect.why).then(
          (next) => input({ is: 'checked', next }),
          (error: unknown) => {
            last_error = toError(error)
            input({ is: 'checked', next: FATAL.has(last_error.code) ? last_error.code : 'later' })
          },
        )
        return
      case 'tell':
        if (state === effect.state) return
        state = effect.state
        ports.stateChanged(state)
        return
      case 'stop': {
        const error = last_error?.code === effect.code ? last_error : null
        last_error = error ?? new SealpostError(effect.code, ERROR[effect.code])
        ports.stopped(effect.code, error)
      }
    }
  }

  function connect(): void {
    const opened: Channel = {
      socket: ports.transport.connect(socketUrl(ports.identity().server_url), [SUBPROTOCOL], {
        opened: () => current(opened) && input({ is: 'opened' }),
        text: (text) => receive(opened, text),
        binary: (bytes) => receive(opened, bytes),
        closed: (code, _reason, cause) => onClosed(opened, code, cause),
      }),
      inbound: [],
      draining: false,
      closed: null,
      paused: false,
      handshake: null,
      keys: null,
      seal: null,
      open: null,
      next: null,
      fresh: false,
      session: null,
      frames_max: Number.POSITIVE_INFINITY,
      sending: null,
    }
    channel = opened
  }

  function current(of: Channel): boolean {
    return channel === of
  }

  /** What arrived before the close is read first: entries that revoke this device come right before a 4403. */
  function onClosed(of: Channel, code: number, cause: unknown): void {
    of.closed = { code, cause }
    if (!of.draining) endChannel(of)
  }

  function endChannel(of: Channel): void {
    if (of.closed === null || !current(of)) return
    const { code, cause } = of.closed
    channel = null
    if (code !== CLOSE.normal.code) last_error = closeError(code, cause, ports.identity().server_url)
    input({ is: 'closed', code })
  }

  function receive(of: Channel, frame: string | Bytes): void {
    if (!current(of)) return
    of.inbound.push(frame)
    throttle(of)
    if (!of.draining) void drain(of)
  }

  /** Runs once at a time; where it does not run, nothing waits. */
  async function drain(of: Channel): Promise<void> {
    of.draining = true
    try {
      for (let frame = of.inbound.shift(); frame !== undefined; frame = of.inbound.shift()) {
        if (!current(of)) return
        if (typeof frame === 'string') await onText(of, frame)
        else {
          const handled = onFrame(of, frame)
          if (handled instanceof Promise) await handled
        }
        throttle(of)
      }
    } catch (error) {
      of.inbound.length = 0
      if (current(of)) onFault(error)
    } finally {
      // in the same step as the look that found nothing: a frame that comes now starts the next run
      of.draining = false
      endChannel(of)
    }
  }

  function throttle(of: Channel): void {
    const wanted = of.inbound.length >= FRAMES_MAX || ports.congested()
    if (wanted === of.paused) return
    of.paused = wanted
    if (wanted) return of.socket.pause()
    of.socket.resume()
    // the answer to a ping may lie among what was not read: it gets its full time
    input({ is: 'heard' })
  }

  /** Work that belongs to the socket of now. */
  function spawn(work: (of: Channel) => Promise<void>): void {
    const of = channel
    if (of === null) return
    work(of).catch((error: unknown) => {
      if (current(of)) onFault(error)
    })
  }

  function onFault(error: unknown): void {
    const known = toError(error)
    last_error = known
    if (FATAL.has(known.code)) return input({ is: 'fatal', code: known.code })
    switch (known.code) {
      case 'internal':
        return input({ is: 'fatal', code: 'internal' })
      case 'server_identity':
        return input({ is: 'other_key' })
      case 'invalid_message':
      case 'invalid_encoding':
      case 'invalid_signature':
      case 'invalid_box':
      case 'decrypt_failed':
        return input({ is: 'broken', close: 'bad_frame' })
      default:
        return input({ is: 'broken', close: 'normal' })
    }
  }

  // ---------------------------------------------------------------- handshake

  async function sendHello(of: Channel): Promise<void> {
    of.handshake = await startHandshake(crypto)
    if (current(of)) of.socket.sendText(new TextDecoder().decode(of.handshake.hello))
  }

  async function onText(of: Channel, text: string): Promise<void> {
    const { handshake } = of
    if (machine.at !== 'hello' || handshake === null)
      throw new SealpostError('invalid_message', 'a text frame is legal only as server_hello')
    of.handshake = null
    const asked = clock.now()
    const keys = await finishServerHello(crypto, handshake, decodeHello('server_hello', utf8(text)), ports.identity().server_key)
    clock_offset = keys.server_time - asked
    of.keys = keys
    of.seal = new SealCipher(crypto.aesGcmKey(keys.c2s), keys.gen)
    of.open = new OpenCipher(crypto.aesGcmKey(keys.s2c), keys.gen)
    const auth = await createClientAuth(crypto, keys, ports.identity().sign_seed, await ports.authBody())
    if (!current(of)) return
    transmit(of, encodeMessage(auth))
    input({ is: 'proved' })
  }

  async function sendRekeyHello(of: Channel): Promise<void> {
    const { session, keys } = of
    if (session === null || keys === null) return
    const handshake = await startHandshake(crypto, { session_id: session.session_id, prev_th: keys.th, gen: keys.gen + 1 })
    of.handshake = handshake
    const length = new Uint8Array(4)
    viewOf(length).setUint32(0, handshake.hello.length)
    transmit(of, concat(length, handshake.hello))
  }

  async function onRekeyHello(of: Channel, head: ServerHeadOf<'server_hello'>): Promise<void> {
    const { handshake, session } = of
    if (handshake === null || session === null) throw new SealpostError('invalid_message', 'a server_hello that nobody asked for')
    of.handshake = null
    const { server_key, sign_seed, user_id, device_id } = ports.identity()
    const keys = await finishServerHello(crypto, handshake, head, server_key)
    const auth = await createClientAuth(crypto, keys, sign_seed, { user_id, device_id, session_id: session.session_id })
    if (!current(of)) return
    // client_auth is the first frame of the new generation; what was sealed before left before
    of.seal = new SealCipher(crypto.aesGcmKey(keys.c2s), keys.gen)
    of.next = { open: new OpenCipher(crypto.aesGcmKey(keys.s2c), keys.gen), keys }
    transmit(of, encodeMessage(auth))
    input({ is: 'proved' })
  }

  function onEstablished(of: Channel, head: ServerHeadOf<'session_established'>): void {
    if (isOpen(machine)) {
      if (machine.rekey !== 'proving' || !of.fresh || head.gen !== of.keys?.gen || head.session_id !== of.session?.session_id)
        throw new SealpostError('invalid_message', 'session_established is not legal now')
      of.fresh = false
      of.frames_max = head.rekey_after_frames
      return input({ is: 'rekeyed', gen: head.gen, rekey_after_ms: head.rekey_after_s * 1000 })
    }
    if (machine.at !== 'proving' || head.gen !== of.keys?.gen)
      throw new SealpostError('invalid_message', 'session_established is not legal now')
    const session = complete(head)
    of.session = session
    of.frames_max = session.rekey_after_frames
    established = session
    const { behind } = ports.established(session)
    input({ is: 'established', mode: session.mode, gen: session.gen, rekey_after_ms: session.rekey_after_s * 1000, behind })
  }

  // ---------------------------------------------------------------- frames

  function onFrame(of: Channel, frame: Bytes): Promise<void> | void {
    if (of.next !== null && genOf(frame) === of.next.open.gen) {
      of.open = of.next.open
      of.keys = of.next.keys
      of.next = null
      of.fresh = true
    }
    if (of.open === null) throw new SealpostError('invalid_message', 'a sealed frame before the handshake')
    const message = of.open.open(frame)
    return message instanceof Promise ? message.then((bytes) => onMessage(of, bytes)) : onMessage(of, message)
  }

  function onMessage(of: Channel, bytes: Bytes): Promise<void> | void {
    const message = decodeServerMessage(bytes)
    expectLegal(of, message.head.type)
    input({ is: 'heard' })
    if ((of.open?.counter ?? 0) >= of.frames_max) input({ is: 'frames_used' })
    switch (message.head.type) {
      case 'server_hello':
        return onRekeyHello(of, message.head)
      case 'session_established':
        return onEstablished(of, message.head)
      case 'rekey_required':
        return input({ is: 'rekey_required' })
      case 'going_away':
        return input({ is: 'going_away', retry_after_ms: message.head.retry_after_ms })
      case 'pong':
        return
      default:
        return ports.message(message as SessionMessage)
    }
  }

  function expectLegal(of: Channel, type: ServerMessage['head']['type']): void {
    const legal = isOpen(machine) ? !of.fresh || type === 'session_established' : BEFORE_SESSION.has(type)
    if (!legal) throw new SealpostError('invalid_message', `${type} is not legal now`)
  }

  function send(head: ClientHead, body?: Bytes): boolean {
    const of = channel
    if (of === null || !isOpen(machine)) return false
    transmit(of, encodeMessage(head, body))
    if ((of.seal?.counter ?? 0) >= of.frames_max) input({ is: 'frames_used' })
    return true
  }

  function transmit(of: Channel, message: Bytes): void {
    if (of.seal === null || !current(of)) return
    const frame = of.seal.seal(message)
    if (!(frame instanceof Promise) && of.sending === null) return of.socket.sendBinary(frame)
    // with asynchronous crypto the order of the calls is kept by waiting for the frame before
    const before = of.sending ?? Promise.resolve()
    of.sending = before
      .then(() => frame)
      .then((sealed) => {
        if (current(of)) of.socket.sendBinary(sealed)
      })
      .catch((error: unknown) => {
        if (current(of)) onFault(error)
      })
  }

  return {
    get state() {
      return state
    },
    get last_error() {
      return last_error
    },
    get clock_offset() {
      return clock_offset
    },
    get open() {
      return isOpen(machine)
    },
    start: () => input({ is: 'start' }),
    send,
    caughtUp() {
      last_error = null
      input({ is: 'caught_up' })
    },
    reset: () => input({ is: 'reset' }),
    progress: () => input({ is: 'progress' }),
    fault: onFault,
    reconnect(error) {
      if (error !== null) last_error = error
      input({ is: 'broken', close: 'normal' })
    },
    fatal(error) {
      last_error = error
      input({ is: 'fatal', code: error.code })
    },
    relieve() {
      if (channel !== null) throttle(channel)
    },
    end: () => input({ is: 'end' }),
  }
}

function complete(head: ServerHeadOf<'session_established'>): Established {
  for (const field of [
    'log_seq',
    'log_head',
    'history_id',
    'head_position',
    'floor',
    'mode',
    'last_device_seq',
    'features',
    'limits',
  ] as const)
    if (head[field] === undefined) throw new SealpostError('invalid_message', `session_established.${field} is missing`)
  return head as Established
}

function toError(error: unknown): SealpostError {
  return error instanceof SealpostError ? error : new SealpostError('internal', 'a failure inside', { cause: error })
}

function closeError(code: number, cause: unknown, server_url: string): SealpostError {
  if (code === 1006) return new SealpostError('unreachable', `the server at ${server_url} cannot be reached`, { cause })
  return new SealpostError('unreachable', `the server closed the connection (${code})`, { cause })
}
