/**
 * Connections are bounded before there is a request (protocol.md §9): in the process, and per peer. A peer on loopback is exempt,
 * which a proxy on this machine is too; what stands behind a proxy is bounded by the proxy.
 *
 * Bound: one count per peer that has a connection.
 */
import { LIMITS } from '@sealpost/protocol'
import type { Server } from 'node:http'
import type { Socket } from 'node:net'

export type ConnectionBounds = { total: number; perPeer: number; isExempt(peer: string): boolean }

export function boundConnections(server: Server, bounds: ConnectionBounds = DEFAULT): void {
  const counts = new Map<string, number>()
  server.maxConnections = bounds.total
  server.on('connection', (socket: Socket) => {
    const peer = socket.remoteAddress ?? ''
    if (bounds.isExempt(peer)) return
    const count = counts.get(peer) ?? 0
    if (count >= bounds.perPeer) return void socket.destroy()
    counts.set(peer, count + 1)
    socket.once('close', () => {
      const left = (counts.get(peer) ?? 1) - 1
      if (left === 0) counts.delete(peer)
      else counts.set(peer, left)
    })
  })
}

const DEFAULT: ConnectionBounds = {
  total: LIMITS.connectionsMax,
  perPeer: LIMITS.connectionsPerPeerMax,
  isExempt: (peer) => peer === '::1' || /^(::ffff:)?127\./.test(peer),
}
