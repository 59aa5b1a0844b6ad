/**
 * One socket and the order of its frames (protocol.md §4). The only file that touches a socket.
 *
 * Invariants: frames are handed on one after another, each when the one before is dealt with; what arrived before the close is
 * read before the close is told; frames leave in the order of the calls; a socket that is given up (`current`) has no effect any
 * more. Bound: reading stops while `FRAMES_MAX` frames wait or the receive path is behind.
 */
import type { Bytes } from '@sealpost/protocol'
import type { Transport } from '../ports.ts'

export const SUBPROTOCOL = 'sealpost.1'
const FRAMES_MAX = 64

export type ChannelPorts = {
  /** This is the socket that counts. */
  current(): boolean
  opened(): void
  frame(frame: string | Bytes): Promise<void> | void
  /** The socket is gone and all that came is read. */
  closed(code: number, cause: unknown): void
  /** The receive path has more than enough. */
  congested(): boolean
  /** Reading goes on after a pause. */
  resumed(): void
  failed(error: unknown): void
}

export type Channel = {
  readonly paused: boolean
  sendText(text: string): void
  /** With asynchronous crypto a frame is still to come: it keeps its place. */
  send(frame: Bytes | Promise<Bytes>): void
  /** Looks again whether to read. */
  throttle(): void
  close(code: number): void
}

export function openChannel(transport: Transport, url: string, ports: ChannelPorts): Channel {
  const inbound: (string | Bytes)[] = []
  let draining = false
  let closed: { code: number; cause: unknown } | null = null
  let paused = false
  let sending: Promise<void> | null = null

  const socket = transport.connect(url, [SUBPROTOCOL], {
    opened() {
      if (ports.current()) ports.opened()
    },
    text: receive,
    binary: receive,
    // what arrived before is read first: entries that revoke this device come right before a 4403
    closed(code, _reason, cause) {
      closed = { code, cause }
      if (!draining) end()
    },
  })

  function receive(frame: string | Bytes): void {
    if (!ports.current()) return
    inbound.push(frame)
    throttle()
    if (!draining) void drain()
  }

  /** Runs once at a time; where it does not run, nothing waits. */
  async function drain(): Promise<void> {
    draining = true
    try {
      for (let frame = inbound.shift(); frame !== undefined; frame = inbound.shift()) {
        if (!ports.current()) return
        const handled = ports.frame(frame)
        if (handled instanceof Promise) await handled
        throttle()
      }
    } catch (error) {
      inbound.length = 0
      if (ports.current()) ports.failed(error)
    } finally {
      // in the same step as the look that found nothing: a frame that comes now starts the next run
      draining = false
      end()
    }
  }

  function end(): void {
    if (closed !== null && ports.current()) ports.closed(closed.code, closed.cause)
  }

  function throttle(): void {
    const wanted = inbound.length >= FRAMES_MAX || ports.congested()
    if (wanted === paused) return
    paused = wanted
    if (wanted) return socket.pause()
    socket.resume()
    ports.resumed()
  }

  return {
    get paused() {
      return paused
    },
    sendText: (text) => socket.sendText(text),
    send(frame) {
      if (!(frame instanceof Promise) && sending === null) return socket.sendBinary(frame)
      const before = sending ?? Promise.resolve()
      sending = before
        .then(() => frame)
        .then((sealed) => {
          if (ports.current()) socket.sendBinary(sealed)
        })
        .catch((error: unknown) => {
          if (ports.current()) ports.failed(error)
        })
    },
    throttle,
    close: (code) => socket.close(code),
  }
}
