/**
 * What retention costs: `node --conditions=development bench/measure-retention.ts [rounds]`. On an embedded
 * PostgreSQL of its own, fsync on, 200 users: events per second that become tombstones and that are removed, batches back to
 * back; and the time of an ingest batch (35 users, one event each) alone, beside a sweep of other users, and beside a sweep
 * of the same.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nodeCrypto } from '@sealpost/protocol/node'
import { createRetentionJobs } from '../packages/server/src/jobs/retention.ts'
import { type JobTurn, startJobs } from '../packages/server/src/jobs/schedule.ts'
import type { RetentionRules, Run } from '../packages/server/src/ports/store.ts'
import { startEmbeddedPostgres } from '../packages/server/src/store/postgres/embedded-postgres.ts'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { createStore } from '../packages/server/src/store/store.ts'
import { createAccount, makeRun, openSession, type TestEvent } from '@sealpost/testing/clients/store-accounts'
import { silent } from '@sealpost/testing/relays/silent-log'

const USERS = 200
const EVENTS_OF_EACH = 300
const ROUND_MS = 3_000
const ROUNDS = Number(process.argv[2] ?? 1)
const KEEP: RetentionRules = { age_ms: null, streams: [], stream_bytes: null, bytes: null, tombstone_ms: null, revoked_ms: null }
const AT_ONCE: JobTurn = { wanted: () => true, batch: (work) => work() }

const data_dir = await mkdtemp(join(tmpdir(), 'sealpost-measure-'))
const postgres = await startEmbeddedPostgres({ data_dir })
await migrate(postgres.connection)
const store = await createStore({ connection: postgres.connection, log: silent })
const sweeper = await createStore({ connection: postgres.connection, log: silent, clock_skew_ms: 0 })
type Sender = Omit<Run, 'events'>
try {
  const makeSenders = (): Promise<Sender[]> =>
    Promise.all(
      Array.from({ length: USERS }, async () => {
        const { user_no, log_seq: epoch } = await createAccount(store)
        return { user_no, device_no: 1, session_id: await openSession(store, user_no, 1), epoch, first_seq: 1 }
      }),
    )
  const payload = nodeCrypto.random(256)
  const expired = (): TestEvent => ({ payload, ttl: 1, made_at: Date.now() - 61_000 })
  const fill = async (senders: Sender[]): Promise<void> => {
    for (const sender of senders) {
      const run = makeRun(sender, Array.from({ length: EVENTS_OF_EACH }, expired))
      await store.ingest([run], true)
      sender.first_seq += EVENTS_OF_EACH
    }
  }
  const job = (name: string, rules: Partial<RetentionRules> = {}) => {
    const found = createRetentionJobs(sweeper, { ...KEEP, ...rules }).find((each) => each.name === name)
    if (found === undefined) throw new Error(`there is no job ${name}`)
    return found
  }
  const rate = async (what: string, run: () => Promise<{ rows: number }>): Promise<void> => {
    const began = performance.now()
    const { rows } = await run()
    console.log(`${what}: ${rows} events, ${Math.round((rows * 1000) / (performance.now() - began))} per second`)
  }

  const [swept, free] = [await makeSenders(), await makeSenders()]
  const ingestFor = async (what: string, senders: Sender[], wanted: () => boolean): Promise<void> => {
    const times: number[] = []
    let busy = 0
    let runs = 0
    for (let next = 0; wanted(); next += 35) {
      const chosen = Array.from({ length: 35 }, (_, i) => senders[(next + i) % USERS]).flatMap((sender) => sender ?? [])
      const batch = chosen.map((sender) => makeRun(sender, [{ payload }]))
      const began = performance.now()
      const verdicts = await store.ingest(batch, false)
      times.push(performance.now() - began)
      runs += verdicts.length
      for (const [i, verdict] of verdicts.entries()) {
        if (verdict.is === 'busy') busy += 1
        else if (verdict.is === 'stored') chosen.forEach((sender, at) => void (at === i && (sender.first_seq += 1)))
        else throw new Error(verdict.is)
      }
    }
    times.sort((a, b) => a - b)
    const at = (share: number): string => (times[Math.floor(times.length * share)] ?? 0).toFixed(2)
    console.log(
      `ingest ${what}: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, ${((100 * busy) / runs).toFixed(2)} % of runs put back, ${times.length} batches`,
    )
  }
  const forMs = (ms: number): (() => boolean) => {
    const until = performance.now() + ms
    return () => performance.now() < until
  }

  await ingestFor('(warm-up)', free, forMs(ROUND_MS / 3))
  for (let round = 0; round < ROUNDS; round++) {
    await fill(swept)
    await rate('tombstones', () => job('expired_events').run(AT_ONCE))
    await rate('removal', () => job('old_events', { age_ms: 0 }).run(AT_ONCE))
    await ingestFor('alone', free, forMs(ROUND_MS))
    for (const [what, senders] of [
      ['beside a sweep of others', free],
      ['beside a sweep of the same', swept],
    ] as const) {
      await fill(swept)
      await fill(swept)
      const jobs = startJobs([{ ...job('expired_events'), every_ms: 1 }], silent)
      await ingestFor(what, senders, () => jobs.lastRuns().length === 0)
      await jobs.close()
    }
  }
} finally {
  await Promise.all([store.close(), sweeper.close()])
  await postgres.stop()
  await rm(data_dir, { recursive: true, force: true })
}
