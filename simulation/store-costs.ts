/**
 * What the rounds and handshakes of a node cost PostgreSQL: `node --conditions=development simulation/store-costs.ts [devices]`. On an
 * embedded PostgreSQL of its own, fsync on, with a made-up population written straight into the tables; the statements are those of
 * the store. CPU is that of the backends, without the processes that write the log and the pages.
 */
import { randomUUID } from 'node:crypto'
import { toBase64url } from '@sealpost/protocol'
import { Client } from 'pg'
import type { NodeFigures, SessionPlace } from '../packages/server/src/ports/store.ts'
import { migrate } from '../packages/server/src/store/postgres/migrate.ts'
import { createStore, type PostgresStore } from '../packages/server/src/store/store.ts'
import { silent } from '@sealpost/testing/relays/silent-log'
import { type Cost, costOf, withPostgres } from './database.ts'
import { createRandom, type Random } from './random.ts'
import { show, showBytes, table } from './tables.ts'
import { makeWorld, usersOf, type World } from './world.ts'

const REPEATS = 5
const SESSIONS = 5_000
const AT_ONCE = 8

const LEASE_MS = 600_000
const FIGURES: NodeFigures = {
  version: '',
  host: '',
  pid: 0,
  started_at: 0,
  sessions: 0,
  subscriptions: 0,
  reach: 'alone',
  inbox_bytes: 0,
  outbound_bytes: 0,
  events_stored: 0,
  rss_bytes: 0,
  loop_delay_ms: 0,
  shedding: false,
  draining: false,
}

type Device = { user_no: number; device_no: number }

const devices = Number(process.argv[2] ?? 1_000_000)
await withPostgres(async ({ connection }) => {
  await migrate(connection)
  const admin = new Client(connection)
  await admin.connect()
  const store = await createStore({ connection, log: silent })
  try {
    const world = makeWorld({ devices, nodes: 1, placement: 'random' }, createRandom(1))
    await populate(admin, world)
    console.log(await measure(admin, store, world))
  } finally {
    await store.close()
    await admin.end()
  }
})

async function populate(admin: Client, world: World): Promise<void> {
  const counts = Array.from({ length: usersOf(world) }, (_, user) => (world.firstDevice[user + 1] ?? 0) - (world.firstDevice[user] ?? 0))
  await admin.query(
    `insert into account (user_id, log_seq, log_head, created_at)
     select sha256(int8send(i)), 0, sha256(int8send(i)), 0 from generate_series(1, $1::int4) i order by i`,
    [counts.length],
  )
  await admin.query('insert into head (user_no, stream_no, last) select a.user_no, 0, a.user_no % 1000 from account a order by a.user_no')
  await admin.query(
    `insert into device (user_no, device_no, device_id)
     select u.no, d, gen_random_uuid() from unnest($1::int4[]) with ordinality u (n, no), generate_series(1, u.n) d`,
    [counts],
  )
  await admin.query(
    `insert into device_profile (user_no, added_log_seq, device_no, device_type, name, name_key, sign_pub)
     select d.user_no, 0, d.device_no, 'mobile', 'device ' || d.device_no, 'device ' || d.device_no, sha256(uuid_send(d.device_id)) from device d`,
  )
  await admin.query('vacuum analyze')
  await admin.query('checkpoint')
}

async function measure(admin: Client, store: PostgresStore, world: World): Promise<string> {
  const random = createRandom(2)
  const some = (count: number): Device[] =>
    Array.from({ length: count }, () => {
      const device = random.below(devices)
      const user = world.userOf[device] ?? 0
      return { user_no: user + 1, device_no: device - (world.firstDevice[user] ?? 0) + 1 }
    })
  const rows: string[][] = []
  const note = (name: string, count: number, { wall_ms, postgres_ms, wal_bytes }: Cost): void => {
    rows.push([name, `${show(wall_ms)} ms`, `${show((postgres_ms * 1_000) / count)} µs`, showBytes(wal_bytes / count)])
  }
  const node_id = randomUUID()
  const { node_no } = await store.holdLease(node_id, LEASE_MS, FIGURES)
  for (const count of [20_000, 100_000]) {
    const places = await openAll(admin, some(count), node_no)
    const compare = async (): Promise<void> => {
      const standings = await store.compareSessions(places)
      if (standings.some(({ is }) => is !== 'same')) throw new Error('a session is not as it was told')
    }
    shuffle(places, random)
    await compare()
    note(`round of heads, ${show(places.length)} sessions`, places.length, await costOf(admin, REPEATS, compare))
    const user_nos = [...new Set(places.map(({ user_no }) => user_no))]
    const online = (): Promise<unknown> => store.readOnline(user_nos)
    await online()
    note(`round of presence, their ${show(user_nos.length)} users`, places.length, await costOf(admin, REPEATS, online))
  }
  const seen = [...new Map(some(20_000).map((device) => [`${device.user_no}/${device.device_no}`, device])).values()]
  const touch = (): Promise<void> => store.touchDevices(seen.map((device) => ({ ...device, position: 0, follower_node: null })))
  await touch()
  note(`last_seen of ${show(seen.length)} devices, one statement`, seen.length, await costOf(admin, REPEATS, touch))

  const sessions = await identify(admin, some(SESSIONS))
  const open = new Map<string, string>()
  const begin = (): Promise<void> =>
    inParallel(sessions, async ({ user_id, device_id, user_no, device_no }) => {
      const session_id = randomUUID()
      const cursor = { position: 0, event_id: null, received_at: null, history_id: null }
      await store.findDevice(user_id, device_id)
      await store.establishSession({ user_no, device_no, session_id, node_no, cursor, last_device_seq: 0, log_seq: 0 })
      await store.readPresence(user_no)
      open.set(device_id, session_id)
    })
  const end = (): Promise<void> =>
    inParallel(sessions, async ({ device_id, user_no, device_no }) => {
      await store.endSession(user_no, device_no, open.get(device_id) ?? '', { position: 0 })
    })
  // pages that are written for the first time after a checkpoint are written whole
  await begin()
  await end()
  note('handshake: find_device, establish_session, read_presence', SESSIONS, await costOf(admin, REPEATS, begin))
  note('end of a session', SESSIONS, await costOf(admin, 1, end))
  return table([`${show(devices)} devices of ${show(usersOf(world))} users`, 'wall time', 'CPU of PostgreSQL, each', 'log, each'], rows)
}

/** Sessions as a node with these devices has them. */
async function openAll(admin: Client, asked: readonly Device[], node_no: number): Promise<SessionPlace[]> {
  const values = [asked.map(({ user_no }) => user_no), asked.map(({ device_no }) => device_no), node_no]
  const { rows } = await admin.query<{ user_no: string; device_no: number; session_id: string; position: string }>(
    `with opened as (
       update device d set session_id = gen_random_uuid(), session_node = $3::int4
         from (select distinct * from unnest($1::int8[], $2::int4[])) t (user_no, device_no)
        where d.user_no = t.user_no and d.device_no = t.device_no returning d.user_no, d.device_no, d.session_id)
     select o.*, h.last as position from opened o join head h on h.user_no = o.user_no and h.stream_no = 0`,
    values,
  )
  await admin.query('vacuum device')
  return rows.map(({ user_no, device_no, session_id, position }) => ({
    user_no: Number(user_no),
    device_no,
    position: Number(position),
    log_seq: 0,
    by: { session_id },
  }))
}

function shuffle(items: unknown[], random: Random): void {
  for (let i = items.length - 1; i > 0; i--) {
    const other = random.below(i + 1)
    ;[items[i], items[other]] = [items[other], items[i]]
  }
}

async function identify(admin: Client, asked: readonly Device[]): Promise<(Device & { user_id: string; device_id: string })[]> {
  const { rows } = await admin.query<{ user_no: string; device_no: number; user_id: Buffer; device_id: string }>(
    `select d.user_no, d.device_no, a.user_id, d.device_id from unnest($1::int8[], $2::int4[]) t (user_no, device_no)
       join account a on a.user_no = t.user_no join device d on d.user_no = t.user_no and d.device_no = t.device_no`,
    [asked.map(({ user_no }) => user_no), asked.map(({ device_no }) => device_no)],
  )
  return rows.map((row) => ({ ...row, user_no: Number(row.user_no), user_id: toBase64url(row.user_id) }))
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values()
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const item of queue) await work(item)
    }),
  )
}
