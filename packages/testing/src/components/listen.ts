/** A server of a test on a free port of loopback, with the connections that it has. */
import { once } from 'node:events'
import type { AddressInfo, Server, Socket } from 'node:net'

/** `end` also cuts what is open. */
export async function listen(server: Server): Promise<{ port: number; end(): void }> {
  const open = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    open.add(socket.on('error', () => {}))
    socket.once('close', () => open.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    end() {
      server.close()
      for (const socket of open) socket.destroy()
    },
  }
}
