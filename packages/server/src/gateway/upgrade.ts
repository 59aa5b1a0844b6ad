/**
 * What an HTTP upgrade has to bring before there is a WebSocket (protocol.md §4, §9): the path, the subprotocol, an Origin on
 * the list or none. A refusal is a short HTTP answer and the end of the socket. Bounds of an address: `relay/seats.ts`.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'

export const SOCKET_PATH = '/api/socket'
export const SUBPROTOCOL = 'sealpost.1'

export type UpgradeRefusal = { status: 400 | 403 | 404 | 429 | 503; says: string; retry_after_ms?: number }

/** Null when the request may be upgraded. */
export function checkUpgrade(request: Pick<IncomingMessage, 'url' | 'headers'>, origins: readonly string[]): UpgradeRefusal | null {
  const path = (request.url ?? '').split('?', 1)[0]
  if (path !== SOCKET_PATH) return { status: 404, says: 'there is no socket here' }
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim())
  if (!offered.includes(SUBPROTOCOL)) return { status: 400, says: `the subprotocol ${SUBPROTOCOL} is required` }
  const { origin } = request.headers
  if (origin !== undefined && !origins.includes(origin)) return { status: 403, says: 'this origin may not connect' }
  return null
}

export function refuseUpgrade(socket: Duplex, { status, says, retry_after_ms = RETRY_MS }: UpgradeRefusal): void {
  const retry = status === 429 || status === 503 ? `Retry-After: ${Math.ceil(retry_after_ms / 1_000)}\r\n` : ''
  const headers = `Connection: close\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(says)}\r\n${retry}`
  socket.on('error', () => {})
  socket.end(`HTTP/1.1 ${status} ${REASONS[status]}\r\n${headers}\r\n${says}`)
  // whoever does not take the answer is not waited for
  setTimeout(() => socket.destroy(), 1_000).unref()
}

const RETRY_MS = 5_000
const REASONS = { 400: 'Bad Request', 403: 'Forbidden', 404: 'Not Found', 429: 'Too Many Requests', 503: 'Service Unavailable' } as const
