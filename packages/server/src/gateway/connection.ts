/**
 * One WebSocket: the only file that touches a socket (protocol.md §4 frames, §9). Frames in: bounded, opened, decoded, handed
 * over one at a time and only while the session reads. Frames out: sealed and written at once. The socket is paused whenever
 * frames could not be handed over, and the clocks of the peer (ping, rekey) stand still meanwhile.
 *
 * Bound: `inboundMessagesMax` frames that were not handed over (G03), or what was in one chunk of the socket when a pause began
 * that the client could not foresee; outbound that of `relay/load/outflow.ts`, and at four times `outboundHighBytes` nothing more is
 * read; before authentication two handshake frames in bytes.
 */
import {
  type Bytes,
  CLOSE,
  type ClientMessage,
  decodeClientMessage,
  encodeMessage,
  genOf,
  OpenCipher,
  SealCipher,
  type SessionKeys,
  viewOf,
} from '@sealpost/protocol'
import type { SyncAesGcmKey, SyncCrypto } from '@sealpost/protocol/node'
import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import type { Timer } from '../core/state.ts'
import type { EventEncoder } from '../relay/replay/event-message.ts'
import { createOutflow } from '../relay/load/outflow.ts'
import { AT_ONCE, createTimers, CUT_OFF_MS, type Listener, type Outlet } from '../relay/sessions/outlet.ts'
import type { GatewayLimits } from './limits.ts'

/** `outbound`: what is queued in the whole process. */
export type Shared = { crypto: SyncCrypto; limits: GatewayLimits; encoder: EventEncoder; outbound: { bytes: number } }

export type Connection = Outlet & {
  sendText(json: string): void
  /** Frames of the next generation may come from now on. */
  expectKeys(keys: SessionKeys): void
  /** What is sent from now on is sealed with these keys. */
  useKeys(keys: SessionKeys): void
}

type Frame = { data: Buffer; binary: boolean }

const PAUSED_TIMERS: readonly Timer[] = ['rekey_deadline']
const READ_STOP_FACTOR = 4

export function createConnection(ws: WebSocket, socket: Socket, listener: Listener, shared: Shared, started: number): Connection {
  const { crypto, limits, encoder, outbound } = shared
  let opener: OpenCipher<SyncAesGcmKey> | null = null
  let nextOpener: OpenCipher<SyncAesGcmKey> | null = null
  let sealer: SealCipher<SyncAesGcmKey> | null = null
  let frameBytes = limits.handshakeFrameBytesMax
  let unread = 0
  const waiting: Frame[] = []
  let delivering = false
  let paused = false
  let heldUntil = 0
  let holding: NodeJS.Timeout | null = null
  let unfinishedSince = started
  let closeAt = Number.POSITIVE_INFINITY
  let cutOffAt = Number.POSITIVE_INFINITY
  let agedGen = -1
  const timers = createTimers(listener)
  let now = started
  let pingAt = started + limits.pingMs
  let deadAt = Number.POSITIVE_INFINITY
  const outflow = createOutflow({
    buffered: () => ws.bufferedAmount,
    socket,
    limits,
    outbound,
    changed(full) {
      listener.input({ is: 'backlog', full })
      if (!full) pump()
    },
  })

  const closing = (): boolean => closeAt !== Number.POSITIVE_INFINITY

  // ---- inbound

  ws.on('message', (data: Buffer, binary: boolean) => {
    unread = 0
    unfinishedSince = now
    deadAt = Number.POSITIVE_INFINITY
    if (closing()) return
    if (data.length > frameBytes) return listener.input({ is: 'too_large' })
    waiting.push({ data, binary })
    pump()
  })
  // a frame is held in memory until it is whole: before authentication that is kept small
  const countBytes = (chunk: Buffer): void => {
    unread += chunk.length
    if (unread > 2 * limits.handshakeFrameBytesMax && !closing()) listener.input({ is: 'too_large' })
  }
  socket.on('data', countBytes)
  ws.on('pong', () => {
    deadAt = Number.POSITIVE_INFINITY
    listener.alive()
  })
  ws.on('ping', (data: Buffer) => {
    // answered by hand: a flood of pings must not fill memory with answers that nobody reads
    if (!closing() && ws.bufferedAmount < limits.outboundHighBytes) ws.pong(data)
  })
  ws.on('error', (error: Error & { code?: string }) => {
    // the end of the socket would be told by 'close', but only when the peer agrees to it
    if (!closing()) listener.input({ is: error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' ? 'too_large' : 'bad_frame' })
  })
  ws.on('close', () => {
    closeAt = 0
    if (holding !== null) clearTimeout(holding)
    waiting.length = 0
    outflow.release()
    listener.input({ is: 'gone' })
  })
  socket.on('drain', () => outflow.check(now))

  function pump(): void {
    if (delivering) return
    delivering = true
    while (!closing() && canRead()) {
      const frame = waiting.shift()
      if (frame === undefined) break
      deliver(frame)
    }
    delivering = false
    if (closing()) return
    if (waiting.length > limits.inboundMessagesMax && listener.isOverdrawn()) return listener.input({ is: 'overflow' })
    setPaused(waiting.length > 0 || !canRead())
  }

  function canRead(): boolean {
    return heldUntil === 0 && ws.bufferedAmount <= READ_STOP_FACTOR * limits.outboundHighBytes && listener.isReading()
  }

  function setPaused(want: boolean): void {
    if (want === paused) return
    paused = want
    if (want) ws.pause()
    else ws.resume()
  }

  function deliver({ data, binary }: Frame): void {
    if (!binary) return listener.input({ is: 'hello', json: data })
    const opened = openFrame(data)
    if (opened === null) return listener.input({ is: 'bad_frame' })
    const { message, plaintext, gen } = opened
    const json = plaintext.subarray(4, 4 + viewOf(plaintext).getUint32(0))
    listener.input({ is: 'message', head: message.head, body: message.body, json, gen })
    checkAge()
  }

  function openFrame(frame: Bytes): { message: ClientMessage; plaintext: Bytes; gen: number } | null {
    if (nextOpener !== null && genOf(frame) === nextOpener.gen) {
      opener = nextOpener
      nextOpener = null
    }
    if (opener === null) return null
    try {
      const plaintext = opener.open(frame)
      return { message: decodeClientMessage(plaintext), plaintext, gen: opener.gen }
    } catch {
      // whatever is wrong with it, the answer is one: 4451
      return null
    }
  }

  function checkAge(): void {
    const frames = Math.max(opener?.counter ?? 0, sealer?.counter ?? 0)
    if (frames < limits.rekey_after_frames || sealer === null || agedGen === sealer.gen) return
    agedGen = sealer.gen
    listener.input({ is: 'rekey_due', reason: 'frames' })
  }

  // ---- outbound

  function write(data: Bytes | string): void {
    if (closing() || ws.readyState !== ws.OPEN) return
    ws.send(data)
    outflow.check(now)
  }

  // ---- clocks

  function tick(at: number): void {
    const passed = at - now
    now = at
    if (now >= closeAt || now >= cutOffAt) return ws.terminate()
    if (closing()) return
    outflow.check(now)
    if (outflow.isStalled(now)) return listener.input({ is: 'stalled' })
    if (!isUnfinished(ws)) unfinishedSince = now
    else if (now - unfinishedSince >= limits.messageMs) return listener.input({ is: 'timer', timer: 'message' })
    if (paused) {
      pingAt += passed
      deadAt += passed
      unfinishedSince += passed
      for (const timer of PAUSED_TIMERS) timers.delay(timer, passed)
    } else if (now >= deadAt) return ws.terminate()
    if (now >= pingAt) ping()
    timers.tick(now)
    checkAge()
  }

  function ping(): void {
    pingAt = now + limits.pingMs
    // behind a backlog it would measure the line, not the peer: there `stalled` decides
    if (outflow.bytes() > 0 || sealer === null) return
    // an unanswered ping keeps its deadline, however often another is due
    deadAt = Math.min(deadAt, now + limits.pongMs)
    ws.ping()
  }

  function seal(message: Bytes): void {
    if (sealer !== null && !closing()) write(sealer.seal(message))
  }

  return {
    authenticated() {
      frameBytes = limits.frame_bytes
      socket.off('data', countBytes)
    },
    expectKeys(keys) {
      const cipher = new OpenCipher(crypto.aesGcmKey(keys.c2s), keys.gen)
      if (opener === null) opener = cipher
      else nextOpener = cipher
    },
    useKeys(keys) {
      sealer = new SealCipher(crypto.aesGcmKey(keys.s2c), keys.gen)
    },
    send: (head, body) => seal(encodeMessage(head, body)),
    sendEvents: (head, events, whole) => seal(encoder.encode(head, events, whole)),
    sendText: write,
    arm: timers.arm,
    disarm: timers.disarm,
    hold(ms) {
      if (closing()) return
      heldUntil = Math.max(heldUntil, performance.now() + ms)
      if (holding !== null) return
      holding = setTimeout(() => {
        holding = null
        const left = heldUntil - performance.now()
        heldUntil = 0
        if (left > 0) this.hold(left)
        else pump()
      }, ms)
    },
    pump,
    close(name) {
      if (closing()) return
      // whom the account is closed to gets nothing more after a second, however slowly it reads (C4, C5)
      closeAt = performance.now() + (AT_ONCE.has(name) ? Math.min(limits.closeMs, CUT_OFF_MS) : limits.closeMs)
      waiting.length = 0
      setPaused(false)
      ws.close(CLOSE[name].code, name)
    },
    cutOff() {
      cutOffAt = Math.min(cutOffAt, performance.now() + CUT_OFF_MS)
    },
    terminate() {
      ws.terminate()
    },
    tick,
  }
}

/** Whether a message has begun that is not whole: `ws` has no public word for it. */
function isUnfinished(ws: WebSocket): boolean {
  const { _receiver: reader } = ws as { _receiver?: { _bufferedBytes?: number; _fragmented?: number; _state?: number } }
  return reader !== undefined && ((reader._bufferedBytes ?? 0) > 0 || (reader._fragmented ?? 0) > 0 || (reader._state ?? 0) !== 0)
}
