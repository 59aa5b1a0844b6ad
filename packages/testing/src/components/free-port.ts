/**
 * Ports of loopback for what is to be found again where it was: below those that kernels give to clients and to who takes any, so that
 * nothing sits on the port of a program that is down for a while.
 */
import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

const PORT_MIN = 10_240
const PORT_MAX = 32_000

/** Free, and so is the one at the distance `also_at`. */
export async function findFreePort(also_at = 0): Promise<number> {
  for (;;) {
    const port = randomInt(PORT_MIN, PORT_MAX - also_at)
    if ((await isFree(port)) && (also_at === 0 || (await isFree(port + also_at)))) return port
  }
}

export function isFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}
