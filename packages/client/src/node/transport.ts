/** `Transport` on ws: no compression, bounded frames, handlers one at a time, `closed` exactly once. */
import type { IncomingMessage } from 'node:http'
import { globalAgent } from 'node:https'
import { LIMITS, type SealpostError } from '@sealpost/protocol'
import { WebSocket } from 'ws'
import { describeAnswer, foreignAnswer } from '../failure.ts'
import type { Connection, Transport, TransportHandlers } from '../ports.ts'
import { networkError } from './network-errors.ts'

/** The opening handshake of the socket, TCP and TLS included. */
const CONNECT_MS = 15_000
const CLOSE_MS = 2_000
const ABNORMAL = 1006

export const nodeTransport: Transport = {
  connect(url, protocols, handlers) {
    let socket: WebSocket
    try {
      socket = new WebSocket(url, [...protocols], {
        perMessageDeflate: false,
        maxPayload: LIMITS.frameBytesMax,
        handshakeTimeout: CONNECT_MS,
        followRedirects: false,
        // The way of REST: with NODE_USE_ENV_PROXY, Node gives this agent the proxies of the environment. A relay without TLS is on this
        // machine, so it needs no proxy; and Node's agent for plain HTTP asks for no tunnel, without which proxies drop the upgrade.
        ...(url.startsWith('wss:') ? { agent: globalAgent } : {}),
      })
    } catch (cause) {
      setImmediate(() => handlers.closed(ABNORMAL, '', cause))
      return CLOSED
    }
    return wire(socket, handlers)
  },
}

function wire(socket: WebSocket, handlers: TransportHandlers): Connection {
  let cause: unknown
  /** What the answer to the upgrade is, as long as ws has not taken it as the one of a socket. */
  let untaken: SealpostError | undefined
  socket.binaryType = 'nodebuffer'
  socket.on('upgrade', ({ statusCode = 0, headers }) => {
    untaken = foreignAnswer(describeAnswer(statusCode, headers['content-type'] ?? ''))
  })
  socket.on('open', () => {
    untaken = undefined
    handlers.opened()
  })
  socket.on('message', (data: Buffer, isBinary) => {
    if (isBinary) handlers.binary(new Uint8Array(data.buffer, data.byteOffset, data.length))
    else handlers.text(data.toString('utf8'))
  })
  // `close` follows every error.
  socket.on('error', (error) => {
    cause ??= networkError(error) ?? untaken ?? error
  })
  socket.on('unexpected-response', (_request, response) => {
    cause = refusalOf(response)
    socket.terminate()
  })
  socket.on('close', (code, reason) => handlers.closed(code, reason.toString('utf8'), cause))

  const isOpen = (): boolean => socket.readyState === WebSocket.OPEN
  return {
    sendText(text) {
      if (isOpen()) socket.send(text)
    },
    sendBinary(bytes) {
      if (isOpen()) socket.send(bytes)
    },
    get buffered_amount() {
      return socket.bufferedAmount
    },
    pause() {
      if (isOpen()) socket.pause()
    },
    resume() {
      if (isOpen()) socket.resume()
    },
    close(code = 1000, reason = '') {
      if (socket.readyState === WebSocket.CLOSED) return
      // A paused socket would not see the other side's close.
      if (socket.isPaused) socket.resume()
      socket.close(code, reason)
      const timer = setTimeout(() => socket.terminate(), CLOSE_MS)
      socket.once('close', () => clearTimeout(timer))
    },
  }
}

const CLOSED: Connection = {
  sendText() {},
  sendBinary() {},
  buffered_amount: 0,
  pause() {},
  resume() {},
  close() {},
}

/** A relay refuses an upgrade with a problem (RFC 9457); every other answer is of something between. */
function refusalOf({ statusCode = 0, headers }: IncomingMessage): Error {
  const type = headers['content-type'] ?? ''
  if (type.startsWith('application/problem+json')) return new Error(`the upgrade was refused (${statusCode})`)
  return foreignAnswer(describeAnswer(statusCode, type))
}
