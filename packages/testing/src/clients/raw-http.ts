/** HTTP by hand: bytes as they are, over a connection of their own. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** A connection that was reset is closed too: `once` of node:events would reject. */
export function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()))
}

/** All that comes until the end of the connection, which is cut after `ms_max`, and how many ms that took. */
export async function sendRaw(url: string, text: string, ms_max = 20_000): Promise<{ answer: string; ms: number }> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  let answer = ''
  socket.on('data', (part) => (answer += part.toString('latin1')))
  socket.on('error', () => {})
  await once(socket, 'connect')
  const began = performance.now()
  const timer = setTimeout(() => socket.destroy(), ms_max)
  socket.write(text)
  await closed(socket)
  clearTimeout(timer)
  return { answer, ms: performance.now() - began }
}
