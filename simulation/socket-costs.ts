/**
 * What a socket costs a node that only holds it: `node --expose-gc --conditions=development simulation/socket-costs.ts [sockets]`.
 * Relay and PostgreSQL here, on an embedded one of its own, the devices in a process of their own. Memory is RSS of this process over
 * that without sockets, after garbage collection; CPU is that of this process: for handshakes, for nothing at all, and for sending away
 * those that come too fast.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { createStore } from '../packages/server/src/store/store.ts'
import { createAccount } from '@sealpost/testing/clients/store-accounts'
import { startGateway } from '@sealpost/testing/relays/gateway-server'
import { silent } from '@sealpost/testing/relays/silent-log'
import { connectRaw } from '@sealpost/testing/clients/raw-client'
import { withPostgres } from './database.ts'
import { show, table } from './tables.ts'

const DEVICES = 3
/** Sockets before anything is measured, and those that are sent away. */
const WARM = 150
const REFUSED = 5_000
const AT_ONCE = 16
const IDLE_S = 20

type Identity = { user_id: string; device_id: string; sign_seed: string; log_seq: number }
type Plan = { url: string; server_key: string; devices: Identity[]; refused: number }

if (process.send === undefined) await measure(Number(process.argv[2] ?? 2_000))
else process.once('message', (plan: Plan) => void connectAll(plan))

async function measure(sockets: number): Promise<void> {
  await withPostgres(async ({ connection }) => {
    await migrate(connection)
    const store = await createStore({ connection, log: silent })
    const gateway = await startGateway(store)
    const closed = await startGateway(store, { limits: { handshakesPerSecond: 1 } })
    const clients = fork(import.meta.filename, { execArgv: ['--conditions=development'] })
    const send = async (to: typeof gateway, some: Identity[], refused = 0): Promise<number> => {
      const began = process.cpuUsage()
      clients.send({ url: to.url, server_key: Buffer.from(to.server_key).toString('hex'), devices: some, refused } satisfies Plan)
      await once(clients, 'message')
      const { user, system } = process.cpuUsage(began)
      return user + system
    }
    try {
      const devices: Identity[] = []
      while (devices.length < sockets) {
        const account = await createAccount(store, DEVICES)
        for (const { device_id, sign_seed } of account.devices)
          devices.push({ user_id: account.user_id, device_id, sign_seed: Buffer.from(sign_seed).toString('hex'), log_seq: account.log_seq })
      }
      await send(closed, [], WARM)
      await send(gateway, devices.slice(0, WARM))
      const before = await restingRss()
      const connected = await send(gateway, devices.slice(WARM))
      const after = await restingRss()
      const resting = process.cpuUsage()
      await sleep(IDLE_S * 1_000)
      const rested = process.cpuUsage(resting)
      const refused = await send(closed, [], REFUSED)
      const count = devices.length - WARM
      const rows = [
        ['memory of an idle session', `${show((after - before) / 1_024 / count)} KiB`],
        ['a handshake, CPU of Node', `${show(connected / count)} µs`],
        ['an idle session, CPU of Node in a second', `${show((rested.user + rested.system) / IDLE_S / devices.length)} µs`],
        ['a connection that is sent away (503), CPU of Node', `${show(refused / REFUSED)} µs`],
      ]
      console.log(table([`${show(devices.length)} sockets, ${DEVICES} devices per user`, ''], rows))
    } finally {
      clients.kill()
      await Promise.all([gateway.close(), closed.close()])
      await store.close()
    }
  })
}

async function restingRss(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    await sleep(1_000)
    globalThis.gc?.()
  }
  return process.memoryUsage.rss()
}

async function connectAll({ url, server_key, devices, refused }: Plan): Promise<void> {
  const queue = devices.values()
  let left = refused
  const work = async (): Promise<void> => {
    for (const { user_id, device_id, sign_seed, log_seq } of queue) {
      const identity = { user_id, device_id, sign_seed: Buffer.from(sign_seed, 'hex') }
      await connectRaw({ url, server_key: Buffer.from(server_key, 'hex'), identity, auth: { log_seq } })
    }
    while (left-- > 0) await knock(new URL(url))
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  process.send?.('done')
  process.once('message', (plan: Plan) => void connectAll(plan))
}

/** Asks for a socket until it is told no. */
async function knock({ hostname, port }: URL): Promise<void> {
  const socket = connect(Number(port), hostname)
  socket.end(
    `GET /api/socket HTTP/1.1\r\nHost: ${hostname}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16).toString('base64')}\r\nSec-WebSocket-Protocol: sealpost.1\r\n\r\n`,
  )
  socket.on('error', () => {})
  socket.resume()
  await once(socket, 'close')
}
