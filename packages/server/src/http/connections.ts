/**
 * Connections are bounded before there is a request (protocol.md §9): in the process, and per peer. A proxy is exempt from the
 * latter: what stands behind it is bounded by it.
 *
 * Bound: one count per peer that has a connection.
 */
import { LIMITS } from '@sealpost/protocol'
import type { Server } from 'node:http'
import type { Socket } from 'node:net'

export type ConnectionBounds = { total: number; perPeer: number; isExempt(peer: string | undefined): boolean }

export const CONNECTION_BOUNDS = { total: LIMITS.connectionsMax, perPeer: LIMITS.connectionsPerPeerMax } as const

export function boundConnections(server: Server, bounds: ConnectionBounds): void {
  const counts = new Map<string, number>()
  server.maxConnections = bounds.total
  server.on('connection', (socket: Socket) => {
    if (bounds.isExempt(socket.remoteAddress)) return
    const peer = socket.remoteAddress ?? ''
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
