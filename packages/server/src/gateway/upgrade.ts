/**
 * What an HTTP upgrade has to bring before there is a WebSocket (protocol.md §4, §9): the path, the subprotocol, an Origin on
 * the list or none, and an address within its bounds. A refusal is a short HTTP answer and the end of the socket.
 *
 * Bound: sockets per address, those without a proven device counted apart; loopback is exempt as `http/address.ts` says.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'

export const SOCKET_PATH = '/api/socket'
export const SUBPROTOCOL = 'sealpost.1'

export type UpgradeRefusal = { status: 400 | 403 | 404 | 429 | 503; says: string }

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

export function refuseUpgrade(socket: Duplex, { status, says }: UpgradeRefusal): void {
  const retry = status === 429 || status === 503 ? 'Retry-After: 5\r\n' : ''
  const headers = `Connection: close\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(says)}\r\n${retry}`
  socket.on('error', () => {})
  socket.end(`HTTP/1.1 ${status} ${REASONS[status]}\r\n${headers}\r\n${says}`)
  // whoever does not take the answer is not waited for
  setTimeout(() => socket.destroy(), 1_000).unref()
}

const REASONS = { 400: 'Bad Request', 403: 'Forbidden', 404: 'Not Found', 429: 'Too Many Requests', 503: 'Service Unavailable' } as const

/** Sockets per address; a seat is given back once, by whoever took it. */
export type Seats = { take(address: string | null): Seat | null }
export type Seat = { authenticated(): void; leave(): void }

export function createSeats(limits: { socketsPerAddressMax: number; unauthenticatedPerAddressMax: number }): Seats {
  const taken = new Map<string, { sockets: number; strangers: number }>()
  return {
    take(address) {
      if (address === null) return { authenticated: () => {}, leave: () => {} }
      const seats = taken.get(address) ?? { sockets: 0, strangers: 0 }
      if (seats.sockets >= limits.socketsPerAddressMax || seats.strangers >= limits.unauthenticatedPerAddressMax) return null
      seats.sockets += 1
      seats.strangers += 1
      taken.set(address, seats)
      let stranger = true
      let seated = true
      const known = (): void => {
        if (stranger) seats.strangers -= 1
        stranger = false
      }
      return {
        authenticated: known,
        leave() {
          if (!seated) return
          seated = false
          known()
          seats.sockets -= 1
          if (seats.sockets === 0) taken.delete(address)
        },
      }
    },
  }
}
