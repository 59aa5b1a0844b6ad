/**
 * Nodes, databases and Redis for 10^4, 10^6 and 10^8 users: `node --conditions=development simulation/arithmetic.ts`. What is assumed
 * and what was measured stand here alone; docs/operations/scale.md has the same table, which a test holds to it.
 */
import { show, showBytes, table } from './tables.ts'

/** Of a service that is used all day; another one changes these. */
export const ASSUMED = {
  devices_per_user: 3,
  /** Of all devices, connected at the busiest time. */
  online: 0.3,
  events_per_user_day: 100,
  events_per_send: 2,
  /** How often a device connects in a day. */
  connects_per_device_day: 10,
  /** The busiest time against the mean. */
  peak: 3,
  kept_days: 90,
  sockets_per_node: 20_000,
  /** Two survive the loss of one. */
  nodes_min: 3,
  /** Of a database server: cores, and how much of them is used at the busiest time; bytes of events that it keeps. */
  database_cores: 16,
  database_use: 0.6,
  database_bytes: 4e12,
  /** Of the one core that a Redis has. */
  redis_use: 0.5,
}

/** By the commands on docs/operations/scale.md; µs are CPU of the server that is named. */
export const MEASURED = {
  /** partitions.ts: a run of its own in a commit of its own, and each further event in it. */
  commit_us: 720,
  event_us: 17,
  event_disk_bytes: 600,
  event_log_bytes: 1_200,
  /** store-costs.ts. */
  heads_us: 11.6,
  presence_us: 22,
  touch_us: 21,
  touch_log_bytes: 180,
  handshake_us: 550,
  session_end_us: 312,
  session_log_bytes: 290,
  /** redis-costs.ts: one message in one write, and each copy of it. */
  publish_us: 7,
  copy_us: 2.7,
  subscribe_us: 12,
  unsubscribe_us: 13,
  limit_us: 19,
  subscription_bytes: 181,
  /** socket-costs.ts. */
  socket_kib: 21,
  socket_idle_us: 21.5,
  node_handshake_us: 2_840,
  /** fan-out.ts, a third online: nodes that get a hint. */
  copies: 1.7,
}

/** What the relay does by itself; seconds. */
const HEADS_S = 2
const PRESENCE_S = 4
const TOUCH_S = 30
const HINT_BYTES = 974
const PRESENCE_HINT_BYTES = 250
/** At a connect, that the device has another session and that it is online; at a disconnect, that it is not. */
const PRESENCE_HINTS = 3
const LIMITS_PER_HANDSHAKE = 3
const BEATS_PER_S = 2
const BEATS_CLUSTER = 24
const CONNECTIONS = 12
const ADMITTED_PER_S = 500
const DAY_S = 86_400

export type Plan = ReturnType<typeof plan>

export function plan(users: number) {
  const a = ASSUMED
  const m = MEASURED
  const sockets = users * a.devices_per_user * a.online
  const nodes = Math.max(a.nodes_min, Math.ceil(sockets / a.sockets_per_node))
  const events = (users * a.events_per_user_day * a.peak) / DAY_S
  const sends = events / a.events_per_send
  const connects = (users * a.devices_per_user * a.connects_per_device_day * a.peak) / DAY_S

  const cores = {
    ingest: (sends * (m.commit_us + (a.events_per_send - 1) * m.event_us)) / 1e6,
    heads: ((sockets / HEADS_S) * m.heads_us) / 1e6,
    presence: ((sockets / PRESENCE_S) * m.presence_us) / 1e6,
    touch: ((sockets / TOUCH_S) * m.touch_us) / 1e6,
    sessions: (connects * (m.handshake_us + m.session_end_us)) / 1e6,
  }
  const database_cores = Object.values(cores).reduce((sum, part) => sum + part, 0)
  const stored_day = users * a.events_per_user_day * m.event_disk_bytes
  const databases = {
    by_cores: Math.ceil(database_cores / (a.database_cores * a.database_use)),
    by_bytes: Math.ceil((stored_day * a.kept_days) / a.database_bytes),
  }

  const presence_hints = connects * PRESENCE_HINTS
  const hints = sends + presence_hints
  const redisCores = (beats: number): number => {
    const messages = hints * (m.publish_us + m.copies * m.copy_us) + nodes * BEATS_PER_S * beats * (m.publish_us + m.copy_us)
    return (messages + connects * (m.subscribe_us + m.unsubscribe_us + LIMITS_PER_HANDSHAKE * m.limit_us)) / 1e6
  }
  const alone = redisCores(1)
  const redis_cores = alone <= a.redis_use ? alone : redisCores(BEATS_CLUSTER)
  const redis_bytes_in = sends * HINT_BYTES + presence_hints * PRESENCE_HINT_BYTES

  return {
    users,
    sockets,
    nodes,
    events,
    sends,
    connects,
    cores,
    database_cores,
    databases,
    stored_day,
    log_bytes: events * m.event_log_bytes + (sockets / TOUCH_S) * m.touch_log_bytes + connects * 2 * m.session_log_bytes,
    row_writes: events + 3 * sends + sockets / TOUCH_S + 3 * connects,
    database_connections: nodes * CONNECTIONS,
    hints,
    presence_hints,
    copies: hints * m.copies,
    redis_bytes_in,
    redis_cores,
    redis_masters: Math.ceil(redis_cores / a.redis_use),
    subscription_bytes: sockets * m.subscription_bytes,
    node_memory: (sockets / nodes) * m.socket_kib * 1_024,
    node_cores: (sockets / nodes) * (m.socket_idle_us / 1e6) + ((connects / nodes) * m.node_handshake_us) / 1e6,
    lost_node_s: sockets / nodes / (Math.max(1, nodes - 1) * ADMITTED_PER_S),
    all_back_s: sockets / nodes / ADMITTED_PER_S,
    all_back_cores: (nodes * ADMITTED_PER_S * m.handshake_us) / 1e6,
  }
}

export function arithmeticTable(): string {
  const plans = [1e4, 1e6, 1e8].map(plan)
  const row = (name: string, of: (plan: Plan) => string): string[] => [name, ...plans.map(of)]
  const cores = (value: number): string => (value < 0.1 ? '< 0.1' : show(value))
  return table(
    ['at the busiest time', ...plans.map(({ users }) => `${show(users)} users`)],
    [
      row('sockets', (p) => show(p.sockets)),
      row(`**nodes** (processes) of ${show(ASSUMED.sockets_per_node)} sockets, at least ${ASSUMED.nodes_min}`, (p) => show(p.nodes)),
      row('memory of sockets per node', (p) => showBytes(p.node_memory)),
      row('cores per node, only sockets and handshakes', (p) => cores(p.node_cores)),
      row('events/s · commits/s (a send is a commit)', (p) => `${show(p.events)} · ${show(p.sends)}`),
      row('connects/s, and as many disconnects', (p) => show(p.connects)),
      row('PostgreSQL cores: events', (p) => cores(p.cores.ingest)),
      row('PostgreSQL cores: rounds of heads', (p) => cores(p.cores.heads)),
      row('PostgreSQL cores: rounds of presence', (p) => cores(p.cores.presence)),
      row('PostgreSQL cores: `last_seen`', (p) => cores(p.cores.touch)),
      row('PostgreSQL cores: sessions', (p) => cores(p.cores.sessions)),
      row('PostgreSQL cores: sum', (p) => cores(p.database_cores)),
      row('rows written/s', (p) => show(p.row_writes)),
      row('WAL per second', (p) => showBytes(p.log_bytes)),
      row('stored per day · in total', (p) => `${showBytes(p.stored_day)} · ${showBytes(p.stored_day * ASSUMED.kept_days)}`),
      row('**databases** by cores · by bytes', (p) => `${show(p.databases.by_cores)} · ${show(p.databases.by_bytes)}`),
      row('connections to databases without a pooler', (p) => show(p.database_connections)),
      row('hints/s into Redis, presence hints among them', (p) => `${show(p.hints)}, ${show(p.presence_hints)}`),
      row('hints/s out of Redis', (p) => show(p.copies)),
      row('bytes/s into Redis · out', (p) => `${showBytes(p.redis_bytes_in)} · ${showBytes(p.redis_bytes_in * MEASURED.copies)}`),
      row('subscriptions, their memory', (p) => `${show(p.sockets)}, ${showBytes(p.subscription_bytes)}`),
      row('**Redis** cores · masters', (p) => `${cores(p.redis_cores)} · ${show(p.redis_masters)}`),
      row('one node dies: its devices are back after at least', (p) => (p.lost_node_s < 0.1 ? '< 0.1 s' : `${show(p.lost_node_s)} s`)),
      row('all sockets are cut: all devices are back after at least', (p) => `${show(p.all_back_s)} s`),
      row('PostgreSQL cores during this return', (p) => cores(p.all_back_cores)),
    ],
  )
}

if (import.meta.main) process.stdout.write(`${arithmeticTable()}\n`)
