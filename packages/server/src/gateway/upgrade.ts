/**
 * What an HTTP upgrade has to bring before there is a WebSocket (protocol.md §4, §9): the path, the subprotocol, an Origin on
 * the list or none. A refusal is a problem, as over REST, and the end of the socket. Bounds of an address: `relay/sessions/seats.ts`.
 */
import type { IncomingMessage } from 'node:http'
import type { Problem } from '../http/problems.ts'

export const SOCKET_PATH = '/api/socket'
export const SUBPROTOCOL = 'sealpost.1'
/** 16 bytes in base64. */
const KEY = /^[A-Za-z0-9+/]{22}={2}$/

/** Null when the request may be upgraded. */
export function checkUpgrade(request: Pick<IncomingMessage, 'url' | 'headers'>, origins: readonly string[]): Problem | null {
  const path = (request.url ?? '').split('?', 1)[0]
  if (path !== SOCKET_PATH) return { code: 'not_found', detail: 'there is no socket here' }
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim())
  if (!offered.includes(SUBPROTOCOL)) return { code: 'invalid_request', detail: `the subprotocol ${SUBPROTOCOL} is required` }
  const key = request.headers['sec-websocket-key'] ?? ''
  const isWebSocket = /^websocket$/i.test(request.headers.upgrade ?? '') && request.headers['sec-websocket-version'] === '13'
  if (!isWebSocket || !KEY.test(key)) return { code: 'invalid_request', detail: 'this is no handshake of a WebSocket (RFC 6455 §4.2.1)' }
  const { origin } = request.headers
  if (origin !== undefined && !origins.includes(origin)) return { code: 'forbidden', detail: 'this origin may not connect' }
  return null
}
