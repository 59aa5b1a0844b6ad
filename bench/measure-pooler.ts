/**
 * What a pooler costs: `node --conditions=development bench/measure-pooler.ts [seconds]`. One embedded PostgreSQL
 * with fsync on, and two stores on it, each with a relay: by direct connections, and through a pgbouncer (1.18 or later) that lends a
 * server for one transaction. One call at a time, in twenty interleaved rounds; of all calls the lower quartile, which other work on the
 * machine disturbs little: ms of wall time, and of this process' CPU. A handshake is a whole one, its client in this process too.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nodeCrypto } from '@sealpost/protocol/node'
import { startPgbouncer } from '@sealpost/testing/components/pgbouncer'
import type { Run } from '../packages/server/src/ports/store.ts'
import { startEmbeddedPostgres } from '../packages/server/src/store/postgres/embedded-postgres.ts'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { createStore, type PostgresStore } from '../packages/server/src/store/store.ts'
import { createAccount, makeRun, openSession, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { startGateway, type TestGateway } from '@sealpost/testing/relays/gateway-server'
import { silent } from '@sealpost/testing/relays/silent-log'
import { connectRaw } from '@sealpost/testing/clients/raw-client'

const ROUNDS = 20
const USERS = 200
/** For handshakes, which would end the sessions of the senders. */
const GUESTS = 20
const READ_EVENTS = 100

type Sender = Omit<Run, 'events'>
type Side = { store: PostgresStore; gateway: TestGateway; guests: TestAccount[]; senders: Sender[]; next: number }

const seconds = Number(process.argv[2] ?? 20)
const data_dir = await mkdtemp(join(tmpdir(), 'sealpost-measure-'))
const postgres = await startEmbeddedPostgres({ data_dir })
const { host, user, database } = postgres.connection
const pooler = await startPgbouncer({ database_url: `postgresql://${user}@localhost/${database}?host=${encodeURIComponent(host)}` })
await migrate(postgres.connection)
const payload = nodeCrypto.random(256)

async function openSide(store: PostgresStore): Promise<Side> {
  const guests: TestAccount[] = []
  const senders: Sender[] = []
  for (let i = 0; i < GUESTS; i++) guests.push(await createAccount(store))
  for (let i = 0; i < USERS; i++) {
    const { user_no, log_seq: epoch } = await createAccount(store)
    senders.push({ user_no, device_no: 1, session_id: await openSession(store, user_no, 1), epoch, first_seq: 1 })
  }
  return { store, gateway: await startGateway(store), guests, senders, next: 0 }
}

async function ingest(side: Side, runs: number): Promise<() => Promise<void>> {
  const chosen = Array.from({ length: runs }, () => side.senders[side.next++ % USERS]).flatMap((sender) => sender ?? [])
  const batch = chosen.map((sender) => makeRun(sender, [{ payload, epoch: sender.epoch }]))
  return async () => {
    const verdicts = await side.store.ingest(batch, false)
    if (verdicts.some((verdict) => verdict.is !== 'stored')) throw new Error('a run was refused')
    for (const sender of chosen) sender.first_seq += 1
  }
}

/** Makes what is measured ready, and answers what is measured. */
const CALLS: Record<string, (side: Side) => Promise<() => Promise<unknown>>> = {
  'a batch of 1 event': (side) => ingest(side, 1),
  'a batch of 35 events': (side) => ingest(side, 35),
  'a batch of 200 events': (side) => ingest(side, 200),
  [`a page of ${READ_EVENTS} events`]: async ({ store, senders: [first] }) => {
    const user_no = first?.user_no ?? 0
    return () => store.readPage({ user_no, after: 0, limit: READ_EVENTS, bytes: 1_048_576, own: null, streams: null })
  },
  [`a round over ${USERS} sessions`]: async ({ store, senders }) => {
    const places = senders.map(({ user_no, device_no, session_id, epoch, first_seq }) => ({
      user_no,
      device_no,
      position: first_seq - 1,
      log_seq: epoch,
      by: { session_id },
    }))
    return () => store.compareSessions(places)
  },
  'a handshake': async (side) => {
    const { gateway, guests } = side
    const account = guests[side.next++ % GUESTS]
    const device = account?.devices[0]
    if (account === undefined || device === undefined) throw new Error('an account has a device')
    const { url, server_key } = gateway
    const identity = { user_id: account.user_id, device_id: device.device_id, sign_seed: device.sign_seed }
    return async () => {
      const client = await connectRaw({ url, server_key, identity, auth: { log_seq: account.log_seq } })
      await client.close()
    }
  },
}

const opened: Side[] = []
try {
  const connectionString = pooler.url
  for (const options of [{ connection: postgres.connection }, { connection: { connectionString }, pooler: 'transaction' as const }])
    opened.push(await openSide(await createStore({ ...options, log: silent })))
  const names = Object.keys(CALLS)
  const ms = (seconds * 1000) / (ROUNDS * names.length * opened.length)
  const results = names.map(() => opened.map(() => ({ wall: [] as number[], cpu: [] as number[] })))
  for (let round = -1; round < ROUNDS; round++)
    for (const [at, name] of names.entries())
      for (const [which, side] of opened.entries()) {
        for (const until = performance.now() + ms; performance.now() < until; ) {
          const call = await CALLS[name]?.(side)
          const began = performance.now()
          const usage = process.cpuUsage()
          await call?.()
          const wall = performance.now() - began
          const { user: own, system } = process.cpuUsage(usage)
          if (round < 0) continue
          results[at]?.[which]?.wall.push(wall)
          results[at]?.[which]?.cpu.push((own + system) / 1000)
        }
      }
  const quartile = (values: number[]): string => (values.toSorted((a, b) => a - b)[values.length >> 2] ?? 0).toFixed(2)
  for (const [at, name] of names.entries()) {
    const [direct, pooled] = (results[at] ?? []).map(({ wall, cpu }) => `${quartile(wall)} ms (${quartile(cpu)})`)
    console.log(`${name}: direct ${direct}; pooled ${pooled}`)
  }
} finally {
  for (const { store, gateway } of opened) {
    await gateway.close()
    await store.close()
  }
  await pooler.stop()
  await postgres.stop()
  await rm(data_dir, { recursive: true, force: true })
}
