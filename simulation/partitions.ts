/**
 * What hash partitions of `event` by `user_no` cost: `node --conditions=development simulation/partitions.ts [partitions]`. On an embedded
 * PostgreSQL of its own, fsync on, two databases with the schema of the relay, one of them with `event` partitioned; the same batches
 * go into both through the store, round by round in turn. Then which other tables PostgreSQL takes apart by `user_no` as they are.
 */
import { nodeCrypto } from '@sealpost/protocol/node'
import { Client, type ClientConfig } from 'pg'
import type { Run } from '../packages/server/src/ports/store.ts'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { createStore, type PostgresStore } from '../packages/server/src/store/store.ts'
import { createAccount, makeRun, openSession } from '@sealpost/testing/clients/store-accounts'
import { silent } from '@sealpost/testing/relays/silent-log'
import { type Cost, costOf, withPostgres } from './database.ts'
import { show, showBytes, table } from './tables.ts'

const ROUNDS = 9
const USERS = 400
/** Devices in a batch × events of each, and so many batches in a round. */
const SHAPES = [
  { runs: 1, events: 1, batches: 200 },
  { runs: 35, events: 1, batches: 60 },
  { runs: 100, events: 6, batches: 20 },
]
const PAGES = 1_000

type Sender = Omit<Run, 'events'>
type Side = { name: string; admin: Client; store: PostgresStore; senders: Sender[]; next: number }

const partitions = Number(process.argv[2] ?? 16)
await withPostgres(async ({ connection }) => {
  const sides = [
    await openSide('1 table', connection, 'whole', 1),
    await openSide(`${partitions} partitions`, connection, 'parted', partitions),
  ]
  try {
    console.log(`${await measure(sides)}\n`)
    const [whole] = sides
    if (whole !== undefined) console.log(await tryTables(whole.admin))
  } finally {
    for (const { store, admin } of sides) await Promise.all([store.close(), admin.end()])
  }
})

async function openSide(name: string, server: ClientConfig, database: string, count: number): Promise<Side> {
  const maker = new Client(server)
  await maker.connect()
  await maker.query(`create database ${database}`)
  await maker.end()
  const connection = { ...server, database }
  await migrate(connection)
  const admin = new Client(connection)
  await admin.connect()
  if (count > 1) await partition(admin, count)
  const store = await createStore({ connection, log: silent })
  const senders: Sender[] = []
  for (let i = 0; i < USERS; i++) {
    const { user_no, log_seq: epoch } = await createAccount(store)
    senders.push({ user_no, device_no: 1, session_id: await openSession(store, user_no, 1), epoch, first_seq: 1 })
  }
  return { name, admin, store, senders, next: 0 }
}

async function partition(admin: Client, count: number): Promise<void> {
  await admin.query('create table parted (like event including all) partition by hash (user_no)')
  for (let i = 0; i < count; i++)
    await admin.query(`create table event_${i} partition of parted for values with (modulus ${count}, remainder ${i})`)
  await admin.query('drop table event')
  await admin.query('alter table parted rename to event')
}

async function measure(sides: readonly Side[]): Promise<string> {
  const costs = sides.map(() => SHAPES.map((): Cost[] => []))
  for (let round = -1; round < ROUNDS; round++)
    for (const [shape, { runs, events, batches }] of SHAPES.entries())
      for (const [at, side] of sides.entries()) {
        const cost = await costOf(side.admin, 1, async () => {
          for (let i = 0; i < batches; i++) await ingest(side, runs, events)
        })
        // the first round is for plans and caches
        if (round >= 0) costs[at]?.[shape]?.push(cost)
      }
  const rows: string[][] = []
  for (const [shape, { runs, events, batches }] of SHAPES.entries()) {
    const count = runs * events * batches
    const of = (pick: (cost: Cost) => number): number[] => costs.map((side) => median((side[shape] ?? []).map(pick)) / count)
    rows.push([`ingest ${runs} × ${events}, wall`, ...micros(of(({ wall_ms }) => wall_ms))])
    rows.push([`ingest ${runs} × ${events}, CPU of PostgreSQL`, ...micros(of(({ postgres_ms }) => postgres_ms))])
    rows.push([
      `ingest ${runs} × ${events}, log`,
      ...withRatio(
        of(({ wal_bytes }) => wal_bytes),
        showBytes,
      ),
    ])
  }
  // the same statistics for both, whatever autovacuum got to
  for (const { admin } of sides) await admin.query('vacuum analyze')
  rows.push(['a page of 100 events, CPU of PostgreSQL', ...micros(await measurePages(sides, 100))])
  rows.push(['a page of 1 event, CPU of PostgreSQL', ...micros(await measurePages(sides, 1))])
  rows.push(['on disk, with indexes', ...withRatio(await Promise.all(sides.map(bytesPerEvent)), showBytes)])
  return table([`${USERS} users, 256 B; each event or page`, ...sides.map(({ name }) => name), 'ratio'], rows)
}

async function ingest(side: Side, runs: number, events: number): Promise<void> {
  const payload = nodeCrypto.random(256)
  const senders = Array.from({ length: runs }, () => side.senders[side.next++ % USERS]).flatMap((sender) => sender ?? [])
  const batch = senders.map((sender) =>
    makeRun(
      sender,
      Array.from({ length: events }, () => ({ payload, epoch: sender.epoch })),
    ),
  )
  const verdicts = await side.store.ingest(batch, false)
  if (verdicts.some(({ is }) => is !== 'stored')) throw new Error('a run was refused')
  for (const sender of senders) sender.first_seq += events
}

/** CPU of PostgreSQL, ms per page, pages of many users in turn. */
async function measurePages(sides: readonly Side[], limit: number): Promise<number[]> {
  const costs = sides.map((): number[] => [])
  for (let round = 0; round < ROUNDS; round++)
    for (const [at, { admin, store, senders }] of sides.entries()) {
      const { postgres_ms } = await costOf(admin, 1, async () => {
        for (let i = 0; i < PAGES; i++) {
          const user_no = senders[i % USERS]?.user_no ?? 0
          await store.readPage({ user_no, after: 0, limit, bytes: 1_000_000, own: null, streams: null })
        }
      })
      costs[at]?.push(postgres_ms / PAGES)
    }
  return costs.map(median)
}

async function bytesPerEvent({ admin }: Side): Promise<number> {
  const { rows } = await admin.query<{ bytes: string }>(
    `select sum(pg_total_relation_size(c.oid))::float8 / (select count(*) from event) as bytes from pg_class c where c.relname ~ '^event(_[0-9]+)?$' and c.relkind = 'r'`,
  )
  return Number(rows[0]?.bytes)
}

async function tryTables(admin: Client): Promise<string> {
  const { rows } = await admin.query<{ name: string; has_user: boolean }>(
    `select c.relname as name, exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'user_no') as has_user
       from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' order by 2 desc, 1`,
  )
  const found: string[][] = []
  for (const { name, has_user } of rows) found.push([`\`${name}\``, has_user ? await tryTable(admin, name) : 'has no `user_no`'])
  return table(['table', 'by hash of `user_no`, as it is'], found)
}

async function tryTable(admin: Client, name: string): Promise<string> {
  await admin.query('begin')
  try {
    await admin.query(`create table tried (like ${name} including all) partition by hash (user_no)`)
    return 'taken'
  } catch (error) {
    return `refused: ${error instanceof Error ? error.message : 'unknown'}`
  } finally {
    await admin.query('rollback')
  }
}

function micros(values: readonly number[]): string[] {
  return withRatio(
    values.map((ms) => ms * 1_000),
    (us) => `${show(us)} µs`,
  )
}

function withRatio(values: readonly number[], text: (value: number) => string): string[] {
  return [...values.map(text), ((values[1] ?? 0) / (values[0] ?? 1)).toFixed(2)]
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0
}
