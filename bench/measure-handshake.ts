/**
 * What a handshake costs the relay: `node --conditions=development bench/measure-handshake.ts [seconds]`.
 * Clients run in a process of their own; each connects, is established and leaves. On an embedded PostgreSQL of its own (or
 * `DATABASE_URL`, an empty database). Prints handshakes per second and the CPU time of this process for each.
 */
import { fork } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedPostgres } from '../packages/server/src/store/postgres/embedded-postgres.ts'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { createStore } from '../packages/server/src/store/store.ts'
import { createAccount } from '@sealpost/testing/clients/store-accounts'
import { startGateway } from '@sealpost/testing/relays/gateway-server'
import { silent } from '@sealpost/testing/relays/silent-log'
import { connectRaw } from '@sealpost/testing/clients/raw-client'

const USERS = 200
const AT_ONCE = 16
const WARM_MS = 3_000

type Plan = {
  url: string
  server_key: string
  seconds: number
  devices: { user_id: string; device_id: string; sign_seed: string; log_seq: number }[]
}

if (process.send === undefined) await measure(Number(process.argv[2] ?? 10))
else process.once('message', (plan: Plan) => void connectAll(plan))

async function measure(seconds: number): Promise<void> {
  const data_dir = await mkdtemp(join(tmpdir(), 'sealpost-measure-'))
  const external = process.env['DATABASE_URL']
  const postgres = external === undefined ? await startEmbeddedPostgres({ data_dir }) : null
  const connection = postgres?.connection ?? { connectionString: external ?? '' }
  await migrate(connection)
  const store = await createStore({ connection, log: silent })
  const gateway = await startGateway(store)
  try {
    const devices: Plan['devices'] = []
    for (let i = 0; i < USERS; i++) {
      const {
        user_id,
        log_seq,
        devices: [device],
      } = await createAccount(store)
      if (device !== undefined)
        devices.push({ user_id, device_id: device.device_id, sign_seed: Buffer.from(device.sign_seed).toString('hex'), log_seq })
    }
    const plan: Plan = { url: gateway.url, server_key: Buffer.from(gateway.server_key).toString('hex'), seconds, devices }
    const clients = fork(import.meta.filename, { execArgv: ['--conditions=development'] })
    clients.send(plan)
    // from here on everything was compiled
    await new Promise((resolve) => clients.once('message', resolve))
    const began = performance.now()
    const usage = process.cpuUsage()
    const count = await new Promise<number>((resolve) => clients.once('message', (done: number) => resolve(done)))
    const { user, system } = process.cpuUsage(usage)
    const per_second = (count * 1000) / (performance.now() - began)
    console.log(`${per_second.toFixed(0)} handshakes per second, ${((user + system) / count).toFixed(0)} µs CPU of Node each`)
  } finally {
    await gateway.close()
    await store.close()
    await postgres?.stop()
    await rm(data_dir, { recursive: true, force: true })
  }
}

async function connectAll({ url, server_key, seconds, devices }: Plan): Promise<void> {
  const warm = performance.now() + WARM_MS
  const until = warm + seconds * 1000
  let next = 0
  let count = 0
  setTimeout(() => process.send?.('warm'), WARM_MS)
  const work = async (): Promise<void> => {
    while (performance.now() < until) {
      const device = devices[next++ % devices.length]
      if (device === undefined) return
      const { user_id, device_id, sign_seed, log_seq } = device
      const identity = { user_id, device_id, sign_seed: Buffer.from(sign_seed, 'hex') }
      const client = await connectRaw({ url, server_key: Buffer.from(server_key, 'hex'), identity, auth: { log_seq } })
      if (performance.now() > warm) count += 1
      await client.close()
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  process.send?.(count)
  process.disconnect()
}
