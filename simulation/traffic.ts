/**
 * Fan-out in a running cluster (protocol.md §6, §7): devices send, each node of several commits in one lane what waited there, and tells the
 * bus of each user in a committed batch with one message. Counted is what Redis and the nodes carry for it.
 *
 * Invariant: every delivery is one of an event to a device that did not send it, and is local (the committing node has the socket) or
 * remote: local + remote = Σ over events of the user's devices − 1.
 */
import type { Random } from './random.ts'
import { drawUser, usersOf, type World } from './world.ts'

export type TrafficOptions = {
  seconds: number
  /** Of all users together. */
  events_per_second: number
  /** A device sends so many together, on the average; they are one message. */
  events_per_send: number
  /** One commit: so much for itself, and for each run of a device in it. */
  commit_ms: number
  commit_run_ms: number
  /** Of a client part, and what the bus adds to a message and to each event in it. */
  event_bytes: number
  hint_bytes: number
  hint_event_bytes: number
  /** Of a record and a frame on a socket, beside the client part. */
  record_bytes: number
  frame_bytes: number
}

/** What `packages/server` has: bus/hint-codec.ts, relay/replay/event-message.ts; a payload of 256 B is a client part of 377 B. */
export const TRAFFIC: TrafficOptions = {
  seconds: 20,
  events_per_second: 10_000,
  events_per_send: 2,
  commit_ms: 0.85,
  commit_run_ms: 0.05,
  event_bytes: 377,
  hint_bytes: 142,
  hint_event_bytes: 45,
  record_bytes: 29,
  frame_bytes: 140,
}

export type TrafficReport = {
  users: number
  sockets_per_node: { mean: number; max: number }
  /** Channels that a node is subscribed to. */
  subscriptions_per_node: { mean: number; max: number }
  subscriptions: number
  events: number
  commits: number
  /** One per user and committed batch: messages into Redis. */
  hints: number
  /** Messages out of Redis: to each node that is subscribed. */
  copies: number
  /** Copies that come back to the node that sent the hint. */
  echoes: number
  /** Hints that no other node was waiting for. */
  unheard: number
  deliveries: { local: number; remote: number; expected: number }
  redis_bytes: { in: number; out: number }
  /** To sockets, in the whole time. */
  egress_per_node: { mean: number; max: number }
  seconds: number
}

type Send = { user: number; device: number; events: number }
type Lane = { waiting: Send[]; running: Send[]; until: number }

export function simulateTraffic(world: World, options: TrafficOptions, random: Random): TrafficReport {
  const { nodes, firstDevice, nodeOf, reachOf } = world
  const { seconds, events_per_second, events_per_send, event_bytes } = options
  const lanes = Array.from({ length: nodes }, (): Lane => ({ waiting: [], running: [], until: 0 }))
  const egress = new Float64Array(nodes)
  const out = { commits: 0, events: 0, hints: 0, copies: 0, unheard: 0, local: 0, remote: 0, expected: 0, bytes_in: 0, bytes_out: 0 }

  function commit(node: number, batch: readonly Send[]): void {
    out.commits += 1
    const byUser = new Map<number, Send[]>()
    for (const send of batch) {
      const sends = byUser.get(send.user)
      if (sends === undefined) byUser.set(send.user, [send])
      else sends.push(send)
    }
    for (const [user, sends] of byUser) fanOut(node, user, sends)
  }

  function fanOut(node: number, user: number, sends: readonly Send[]): void {
    const reach = reachOf[user] ?? 0
    const events = sends.reduce((sum, send) => sum + send.events, 0)
    const bytes = options.hint_bytes + events * (options.hint_event_bytes + event_bytes)
    out.hints += 1
    out.events += events
    out.copies += reach
    out.bytes_in += bytes
    out.bytes_out += bytes * reach
    if (reach === 1) out.unheard += 1
    const from = firstDevice[user] ?? 0
    const to = firstDevice[user + 1] ?? 0
    out.expected += events * (to - from - 1)
    for (let device = from; device < to; device++) {
      const own = sends.reduce((sum, send) => sum + (send.device === device ? send.events : 0), 0)
      const got = events - own
      if (got === 0) continue
      const at = nodeOf[device] ?? 0
      if (at === node) out.local += got
      else out.remote += got
      egress[at] = (egress[at] ?? 0) + options.frame_bytes + got * (options.record_bytes + event_bytes)
    }
  }

  function begin(lane: Lane, at: number): void {
    lane.running = lane.waiting
    lane.waiting = []
    const runs = new Set(lane.running.map((send) => send.device)).size
    lane.until = at + (options.commit_ms + options.commit_run_ms * runs) / 1_000
  }

  /** Commits that are over by `now`; what waited meanwhile is the next one. */
  function settle(lane: Lane, node: number, now: number): void {
    while (lane.running.length > 0 && lane.until <= now) {
      commit(node, lane.running)
      lane.running = []
      if (lane.waiting.length > 0) begin(lane, lane.until)
    }
  }

  const sends_per_second = events_per_second / events_per_send
  for (let now = random.wait(sends_per_second); now < seconds; now += random.wait(sends_per_second)) {
    const user = drawUser(world, random)
    const from = firstDevice[user] ?? 0
    const device = from + random.below((firstDevice[user + 1] ?? 0) - from)
    const node = nodeOf[device] ?? 0
    const lane = lanes[node]
    if (lane === undefined) continue
    settle(lane, node, now)
    lane.waiting.push({ user, device, events: burst(events_per_send, random) })
    if (lane.running.length === 0) begin(lane, now)
  }
  for (const [node, lane] of lanes.entries()) settle(lane, node, Number.POSITIVE_INFINITY)

  return {
    users: usersOf(world),
    sockets_per_node: spread(countSockets(world)),
    subscriptions_per_node: spread(countSubscriptions(world)),
    subscriptions: reachOf.reduce((sum, reach) => sum + reach, 0),
    events: out.events,
    commits: out.commits,
    hints: out.hints,
    copies: out.copies,
    echoes: out.hints,
    unheard: out.unheard,
    deliveries: { local: out.local, remote: out.remote, expected: out.expected },
    redis_bytes: { in: out.bytes_in, out: out.bytes_out },
    egress_per_node: spread(egress),
    seconds,
  }
}

/** At least one; geometric with this mean. */
function burst(mean: number, random: Random): number {
  return mean <= 1 ? 1 : 1 + Math.floor(Math.log(1 - random.unit()) / Math.log(1 - 1 / mean))
}

function countSockets({ nodes, nodeOf }: World): Float64Array {
  const sockets = new Float64Array(nodes)
  for (const node of nodeOf) sockets[node] = (sockets[node] ?? 0) + 1
  return sockets
}

function countSubscriptions(world: World): Float64Array {
  const subscriptions = new Float64Array(world.nodes)
  for (let user = 0; user < usersOf(world); user++)
    for (const node of new Set(world.nodeOf.subarray(world.firstDevice[user], world.firstDevice[user + 1])))
      subscriptions[node] = (subscriptions[node] ?? 0) + 1
  return subscriptions
}

function spread(perNode: Float64Array): { mean: number; max: number } {
  return { mean: perNode.reduce((sum, value) => sum + value, 0) / perNode.length, max: perNode.reduce((a, b) => Math.max(a, b), 0) }
}
