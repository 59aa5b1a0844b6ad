/**
 * What a batch costs: `node --conditions=development bench/measure-ingest.ts [seconds]`. One
 * connection, one batch at a time, fsync on, 256-byte payloads, on an embedded PostgreSQL of its own (or `DATABASE_URL`,
 * an empty database). Per shape, the median of five interleaved rounds: µs of wall time per event, and of this process' CPU.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { Run } from '../packages/server/src/ports/store.ts'
import { startEmbeddedPostgres } from '../packages/server/src/store/postgres/embedded-postgres.ts'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { createStore } from '../packages/server/src/store/store.ts'
import { createAccount, makeRun, openSession } from '@sealpost/testing/clients/store-accounts'
import { silent } from '@sealpost/testing/relays/silent-log'

const ROUNDS = 5
const USERS = 200
/** Devices in a batch × events of each. */
const SHAPES = [
  { runs: 1, events: 1 },
  { runs: 35, events: 1 },
  { runs: 200, events: 1 },
  { runs: 1, events: 35 },
  { runs: 100, events: 2 },
  { runs: 100, events: 6 },
]

const ms = Number(process.argv[2] ?? 10) * (1000 / (ROUNDS * SHAPES.length))
const data_dir = await mkdtemp(join(tmpdir(), 'sealpost-measure-'))
const external = process.env['DATABASE_URL']
const postgres = external === undefined ? await startEmbeddedPostgres({ data_dir }) : null
const connection = postgres?.connection ?? { connectionString: external ?? '' }
await migrate(connection)
const store = await createStore({ connection, log: silent })
try {
  const senders: Omit<Run, 'events'>[] = []
  for (let i = 0; i < USERS; i++) {
    const { user_no, log_seq: epoch } = await createAccount(store)
    senders.push({ user_no, device_no: 1, session_id: await openSession(store, user_no, 1), epoch, first_seq: 1 })
  }
  const payload = nodeCrypto.random(256)
  const results = SHAPES.map((): { wall: number; cpu: number }[] => [])
  for (let round = -1; round < ROUNDS; round++) {
    for (const [at, shape] of SHAPES.entries()) {
      let next = 0
      let events = 0
      let wall = 0
      let cpu = 0
      while (wall < ms) {
        const chosen = Array.from({ length: shape.runs }, () => senders[next++ % USERS]).flatMap((sender) => sender ?? [])
        const runs = chosen.map((sender) =>
          makeRun(
            sender,
            Array.from({ length: shape.events }, () => ({ payload, epoch: sender.epoch })),
          ),
        )
        const began = performance.now()
        const usage = process.cpuUsage()
        const verdicts = await store.ingest(runs, false)
        wall += performance.now() - began
        const { user, system } = process.cpuUsage(usage)
        cpu += user + system
        if (verdicts.some((verdict) => verdict.is !== 'stored')) throw new Error('a run was refused')
        for (const sender of chosen) sender.first_seq += shape.events
        events += shape.runs * shape.events
      }
      if (round >= 0) results[at]?.push({ wall: (wall * 1000) / events, cpu: cpu / events })
    }
  }
  const median = (values: number[]): string => (values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0).toFixed(1)
  for (const [at, { runs, events }] of SHAPES.entries()) {
    const rows = results[at] ?? []
    const [wall, cpu] = [median(rows.map((row) => row.wall)), median(rows.map((row) => row.cpu))]
    console.log(`${runs} devices × ${events}: ${wall} µs per event, of it ${cpu} µs CPU of Node`)
  }
} finally {
  await store.close()
  await postgres?.stop()
  await rm(data_dir, { recursive: true, force: true })
}
