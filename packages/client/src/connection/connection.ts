/**
 * The connection at work: executes what the machine decides (`machine.ts`), answers what belongs to the session itself
 * (handshake, rekey, ping), and hands every other opened message on in its order.
 *
 * Invariants: nothing of an old socket has any effect once it is given up; each message is legal in the state it meets, or the
 * connection ends; client_auth is the first frame of its generation. Bound: one socket; the machine's timers.
 */
import {
  type Bytes,
  CLOSE,
  type ClientAuthBody,
  type ClientHead,
  type Crypto,
  decodeServerMessage,
  encodeMessage,
  ERROR,
  type ErrorCode,
  SealpostError,
  type ServerHeadOf,
  type ServerMessage,
  socketUrl,
} from '@sealpost/protocol'
import { toUnit } from './backoff.ts'
import { type Channel, openChannel } from './channel.ts'
import { type ChannelKeys, createChannelKeys } from './channel-keys.ts'
import { closeError, toError } from '../failure.ts'
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
import type { Clock, Identity, Transport } from '../ports.ts'

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

const SESSION_FIELDS = [
  'log_seq',
  'log_head',
  'history_id',
  'head_position',
  'floor',
  'mode',
  'last_device_seq',
  'features',
  'limits',
] as const

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
  /** The server's time, as a server_hello that verified told it. */
  heard(server_ms: number): void
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

export type Connection = {
  readonly state: ConnectionState
  /** Why the last connection ended, or null. */
  readonly last_error: SealpostError | null
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
type Link = { channel: Channel; keys: ChannelKeys }

export function createConnection(ports: ConnectionPorts): Connection {
  const { crypto, clock } = ports
  const timers = new Map<TimerName, () => void>()
  let machine = createMachine()
  let link: Link | null = null
  let state: ConnectionState = 'offline'
  let last_error: SealpostError | null = null
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
        link?.channel.close(effect.code)
        link = null
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
              const unread = effect.timer === 'pong' && link?.channel.paused === true
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
    const { server_url } = ports.identity()
    const keys = createChannelKeys(crypto, ports.identity)
    const channel = openChannel(ports.transport, socketUrl(server_url), {
      current: () => current(opened),
      opened: () => input({ is: 'opened' }),
      frame: (frame) => (typeof frame === 'string' ? onText(opened, frame) : onFrame(opened, frame)),
      closed: onClosed,
      congested: () => ports.congested(),
      // the answer to a ping may lie among what was not read: it gets its full time
      resumed: () => input({ is: 'heard' }),
      failed: onFault,
    })
    const opened: Link = { channel, keys }
    link = opened
  }

  function current(of: Link): boolean {
    return link === of
  }

  function onClosed(code: number, cause: unknown): void {
    link = null
    if (code !== CLOSE.normal.code) last_error = closeError(code, cause, ports.identity().server_url)
    input({ is: 'closed', code })
  }

  /** Work that belongs to the socket of now. */
  function spawn(work: (of: Link) => Promise<void>): void {
    const of = link
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

  async function sendHello(of: Link): Promise<void> {
    const hello = await of.keys.startHello()
    if (current(of)) of.channel.sendText(hello)
  }

  async function onText(of: Link, text: string): Promise<void> {
    if (machine.at !== 'hello' || !of.keys.asked) throw new SealpostError('invalid_message', 'a text frame is legal only as server_hello')
    ports.heard(await of.keys.finishHello(text))
    const auth = await of.keys.prove(await ports.authBody())
    if (!current(of)) return
    transmit(of, auth)
    input({ is: 'proved' })
  }

  async function sendRekeyHello(of: Link): Promise<void> {
    if (established !== null) transmit(of, await of.keys.startRekey(established.session_id))
  }

  async function onRekeyHello(of: Link, head: ServerHeadOf<'server_hello'>): Promise<void> {
    if (established === null) throw new SealpostError('invalid_message', 'a server_hello that nobody asked for')
    const { keys, auth } = await of.keys.finishRekey(head, established.session_id)
    if (!current(of)) return
    ports.heard(keys.server_time)
    // in one step: client_auth is the first frame of the new generation, and what was sealed before left before
    of.keys.switchTo(keys)
    transmit(of, auth)
    input({ is: 'proved' })
  }

  function onEstablished(of: Link, head: ServerHeadOf<'session_established'>): void {
    if (isOpen(machine)) {
      if (machine.rekey !== 'proving' || !of.keys.fresh || head.gen !== of.keys.gen || head.session_id !== established?.session_id)
        throw new SealpostError('invalid_message', 'session_established is not legal now')
      of.keys.establish(head.rekey_after_frames)
      return input({ is: 'rekeyed', gen: head.gen, rekey_after_ms: head.rekey_after_s * 1000 })
    }
    if (machine.at !== 'proving' || head.gen !== of.keys.gen)
      throw new SealpostError('invalid_message', 'session_established is not legal now')
    const session = complete(head)
    of.keys.establish(session.rekey_after_frames)
    established = session
    const { behind } = ports.established(session)
    input({ is: 'established', mode: session.mode, gen: session.gen, rekey_after_ms: session.rekey_after_s * 1000, behind })
  }

  // ---------------------------------------------------------------- messages

  function onFrame(of: Link, frame: Bytes): Promise<void> | void {
    const message = of.keys.open(frame)
    return message instanceof Promise ? message.then((bytes) => onMessage(of, bytes)) : onMessage(of, message)
  }

  function onMessage(of: Link, bytes: Bytes): Promise<void> | void {
    const message = decodeServerMessage(bytes)
    expectLegal(of, message.head.type)
    input({ is: 'heard' })
    if (of.keys.open_used) input({ is: 'frames_used' })
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

  function expectLegal(of: Link, type: ServerMessage['head']['type']): void {
    const legal = isOpen(machine) ? !of.keys.fresh || type === 'session_established' : BEFORE_SESSION.has(type)
    if (!legal) throw new SealpostError('invalid_message', `${type} is not legal now`)
  }

  function send(head: ClientHead, body?: Bytes): boolean {
    const of = link
    if (of === null || !isOpen(machine)) return false
    transmit(of, encodeMessage(head, body))
    if (of.keys.seal_used) input({ is: 'frames_used' })
    return true
  }

  function transmit(of: Link, message: Bytes): void {
    if (current(of)) of.channel.send(of.keys.seal(message))
  }

  return {
    get state() {
      return state
    },
    get last_error() {
      return last_error
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
      link?.channel.throttle()
    },
    end: () => input({ is: 'end' }),
  }
}

function complete(head: ServerHeadOf<'session_established'>): Established {
  for (const field of SESSION_FIELDS)
    if (head[field] === undefined) throw new SealpostError('invalid_message', `session_established.${field} is missing`)
  return head as Established
}
