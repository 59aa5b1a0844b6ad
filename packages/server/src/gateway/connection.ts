/**
 * One WebSocket: the only file that touches a socket (protocol.md §4 frames, §9). Frames in: bounded, opened, decoded, handed
 * over one at a time and only while the session reads. Frames out: sealed and written at once. The socket is paused whenever
 * frames could not be handed over, and the clocks of the peer (ping, rekey) stand still meanwhile.
 *
 * Bound: `inboundMessagesMax` frames that were not handed over (G03), or what was in one chunk of the socket when a pause began
 * that the client could not foresee; outbound the session is told at `outboundHighBytes`, at
 * four times that nothing more is read; before authentication two handshake frames in bytes.
 */
import {
  type Bytes,
  CLOSE,
  type ClientMessage,
  type CloseName,
  decodeClientMessage,
  genOf,
  OpenCipher,
  SealCipher,
  type SessionKeys,
  viewOf,
} from '@sealpost/protocol'
import type { SyncAesGcmKey, SyncCrypto } from '@sealpost/protocol/node'
import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import type { Input, Timer } from '../core/state.ts'
import type { GatewayLimits } from './limits.ts'

/** The session behind a connection. */
export type Listener = {
  /** Whether the next frame may be handed over. */
  isReading(): boolean
  /** Whether what waits is more than the client may send. */
  isOverdrawn(): boolean
  input(input: Input): void
  /** The peer answered a ping. */
  alive(): void
}

/** `outbound`: what is queued in the whole process. */
export type Shared = { crypto: SyncCrypto; limits: GatewayLimits; outbound: { bytes: number } }

export type Connection = {
  /** From now on frames may be as long as the session's limit. */
  authenticated(): void
  expectKeys(keys: SessionKeys): void
  useKeys(keys: SessionKeys): void
  send(message: Bytes): void
  sendText(json: string): void
  arm(timer: Timer, ms: number): void
  disarm(timer: Timer): void
  /** Reads nothing for this long: the device is over its rate. */
  hold(ms: number): void
  /** Hands over what waits, after the session changed. */
  pump(): void
  close(name: CloseName): void
  /** Takes the socket away within a second, closed or not. */
  cutOff(): void
  terminate(): void
  /** Clocks; `now` in ms, monotonic. */
  tick(now: number): void
}

type Frame = { data: Buffer; binary: boolean }

const PAUSED_TIMERS: readonly Timer[] = ['rekey_deadline']
const READ_STOP_FACTOR = 4
const REVOKED_CLOSE_MS = 750

export function createConnection(ws: WebSocket, socket: Socket, listener: Listener, shared: Shared, started: number): Connection {
  const { crypto, limits, outbound } = shared
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
  let full = false
  let counted = 0
  let agedGen = -1
  const timers = new Map<Timer, number>()
  let now = started
  let pingAt = started + limits.pingMs
  let deadAt = Number.POSITIVE_INFINITY
  let progressAt = started
  let flushed = { total: 0, queue: 0 }

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
    outbound.bytes -= counted
    counted = 0
    listener.input({ is: 'gone' })
  })
  socket.on('drain', () => checkBacklog())

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
    checkBacklog()
  }

  function checkBacklog(): void {
    const buffered = ws.bufferedAmount
    outbound.bytes += buffered - counted
    counted = buffered
    const high = buffered > limits.outboundHighBytes || (buffered > 0 && outbound.bytes > limits.queueBytesMax)
    if (!full && high) {
      full = true
      progressAt = now
      listener.input({ is: 'backlog', full: true })
    } else if (full && buffered < limits.outboundLowBytes && outbound.bytes <= limits.queueBytesMax) {
      full = false
      listener.input({ is: 'backlog', full: false })
      pump()
    }
  }

  // ---- clocks

  function tick(at: number): void {
    const passed = at - now
    now = at
    if (now >= closeAt || now >= cutOffAt) return ws.terminate()
    if (closing()) return
    checkBacklog()
    if (counted > 0 && !hasMoved() && now - progressAt >= limits.stalledMs) return listener.input({ is: 'stalled' })
    if (!isUnfinished(ws)) unfinishedSince = now
    else if (now - unfinishedSince >= limits.messageMs) return listener.input({ is: 'timer', timer: 'message' })
    if (paused) {
      pingAt += passed
      deadAt += passed
      unfinishedSince += passed
      for (const timer of PAUSED_TIMERS) {
        const due = timers.get(timer)
        if (due !== undefined) timers.set(timer, due + passed)
      }
    } else if (now >= deadAt) return ws.terminate()
    if (now >= pingAt) ping()
    for (const [timer, due] of timers) {
      if (now < due) continue
      timers.delete(timer)
      listener.input({ is: 'timer', timer })
    }
    checkAge()
  }

  function ping(): void {
    pingAt = now + limits.pingMs
    // behind a backlog it would measure the line, not the peer: there `stalled` decides
    if (counted > 0 || sealer === null) return
    // an unanswered ping keeps its deadline, however often another is due
    deadAt = Math.min(deadAt, now + limits.pongMs)
    ws.ping()
  }

  /** Whether the peer has taken anything since the last look. */
  function hasMoved(): boolean {
    const total = socket.bytesWritten - socket.writableLength
    const queue = (socket as { _handle?: { writeQueueSize?: number } | null })._handle?.writeQueueSize ?? 0
    const moved = total !== flushed.total || queue !== flushed.queue
    flushed = { total, queue }
    if (moved) progressAt = now
    return moved
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
    send(message) {
      if (sealer !== null && !closing()) write(sealer.seal(message))
    },
    sendText: write,
    arm: (timer, ms) => void timers.set(timer, performance.now() + ms),
    disarm: (timer) => void timers.delete(timer),
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
      // a revoked device gets nothing more after a second, however slowly it reads (C4)
      closeAt = performance.now() + (name === 'device_revoked' ? Math.min(limits.closeMs, REVOKED_CLOSE_MS) : limits.closeMs)
      waiting.length = 0
      setPaused(false)
      ws.close(CLOSE[name].code, name)
    },
    cutOff() {
      cutOffAt = Math.min(cutOffAt, performance.now() + REVOKED_CLOSE_MS)
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
