/**
 * The death of a node: `node scripts/run.mjs bench nodes [--users 250 --devices 4] …`. Devices over several nodes, each user's spread,
 * under light steady traffic; one node is killed, and its devices come back to the others as the SDK does, in turn as behind a balancer.
 * How long until the last of them is live and has caught up, what nodes hold in memory, and whether all that was acked was delivered once
 * and in order.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { openAccounts } from './support/accounts.ts'
import { residentBytes } from './support/cost.ts'
import { type Faults, type Quantiles, type RemoteFleet, type Return, startFleets } from './support/fleet-process.ts'
import { MIB, show, table } from './support/figures.ts'
import { openGround, openRelay, type Relay } from './support/relays.ts'
import { runBench } from './support/run.ts'

const { values: given } = parseArgs({
  options: {
    users: { type: 'string', default: '250' },
    devices: { type: 'string', default: '4' },
    nodes: { type: 'string', default: '3' },
    bytes: { type: 'string', default: '256' },
    /** Events of all users together. */
    'per-second': { type: 'string', default: '250' },
    ms: { type: 'string', default: '4000' },
    /** Of each node, as an operator sets it. */
    handshakes: { type: 'string' },
    'no-fsync': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})
const [users, devices, count, payload_bytes] = [given.users, given.devices, given.nodes, given.bytes].map(Number) as [
  number,
  number,
  number,
  number,
]
const [per_second, ms] = [Number(given['per-second']), Number(given.ms)]
const BACK_MS_MAX = 40_000
const POLL_MS = 100
const SETTLE_MS_MAX = 15_000
const BENCH_MS_MAX = 180_000

type Result = {
  bench: 'nodes'
  devices: number
  nodes: number
  lost: number
  /** Until the last was live and had caught up, from the kill on; null: some never were. */
  all_live_ms: number | null
  half_live_ms: number | null
  /** Live sessions within the second that had the most. */
  handshakes_s: number
  refused: number
  attempts_most: number
  peak_rss_mib: number[]
  acked: number
  delivered: number
  delivery_ms: { before: Quantiles; meanwhile: Quantiles }
  faults: Faults
}

await runBench(async (defer) => {
  const ground = await openGround(defer, { fsync: !given['no-fsync'] })
  const env = given.handshakes === undefined ? {} : { SEALPOST_LIMIT_HANDSHAKES: given.handshakes }
  const relay = await openRelay(defer, ground, { name: 'nodes', nodes: count, redis: true, env })
  const identities = await openAccounts(relay, users, devices)
  const fleets = startFleets()
  defer(() => fleets.end())
  const fleet = await fleets.create({ identities, server_key: relay.server_key, payload_bytes })
  await fleet.connect(identities.map((_, i) => urlOf(relay, i)))
  const result = await killOne(relay, fleet)
  report(result)
  return result.all_live_ms !== null && Object.keys(result.faults).length === 0
}, BENCH_MS_MAX)

/** The devices of one user are at different nodes, and so are the senders. */
function urlOf({ nodes }: Relay, index: number): string {
  const [user, device] = [Math.floor(index / devices), index % devices]
  return nodes[(user + device) % nodes.length]?.url ?? ''
}

async function killOne(relay: Relay, fleet: RemoteFleet): Promise<Result> {
  const [victim, ...others] = relay.nodes
  if (victim === undefined || others.length === 0) throw new Error('a bench of the death of a node has more than one')
  const lost = Array.from({ length: users * devices }, (_, i) => urlOf(relay, i)).filter((url) => url === victim.url).length
  await fleet.pace(per_second, 1)
  await sleep(ms)
  const before = await fleet.mark()
  await fleet.survive(others.map(({ url }) => url))
  const peak_of_victim = residentBytes(victim.pid).peak
  const killed_at = Date.now()
  victim.kill('SIGKILL')
  const back = await waitForAll(fleet, lost)
  await sleep(ms)
  const meanwhile = await fleet.mark()
  const faults = await fleet.settle(SETTLE_MS_MAX)
  const last = await fleet.mark()
  const waits = back.map(({ live_at }) => live_at - killed_at).toSorted((a, b) => a - b)
  return {
    bench: 'nodes',
    devices: users * devices,
    nodes: count,
    lost,
    all_live_ms: back.length === lost ? (waits.at(-1) ?? null) : null,
    half_live_ms: waits[Math.floor(lost / 2)] ?? null,
    handshakes_s: most(waits, 1_000),
    refused: back.reduce((sum, { refused }) => sum + refused, 0),
    attempts_most: Math.max(0, ...back.map(({ attempts }) => attempts)),
    peak_rss_mib: [peak_of_victim, ...others.map(({ pid }) => residentBytes(pid).peak)].map((bytes) => bytes / MIB),
    acked: before.acked + meanwhile.acked + last.acked,
    delivered: before.delivered + meanwhile.delivered + last.delivered,
    delivery_ms: { before: before.delivery_ms, meanwhile: meanwhile.delivery_ms },
    faults,
  }
}

async function waitForAll(fleet: RemoteFleet, lost: number): Promise<Return[]> {
  for (const end = performance.now() + BACK_MS_MAX; ; await sleep(POLL_MS)) {
    const { back } = await fleet.returns()
    if (back.length >= lost || performance.now() > end) return back
  }
}

/** The most of these times, which are in order, that lie within `ms`. */
function most(times: readonly number[], within: number): number {
  let from = 0
  let found = 0
  for (const [i, time] of times.entries()) {
    while ((times[from] ?? time) <= time - within) from += 1
    found = Math.max(found, i - from + 1)
  }
  return found
}

function report(result: Result): void {
  if (given.json) return void process.stdout.write(`${JSON.stringify(result)}\n`)
  const { before, meanwhile } = result.delivery_ms
  process.stdout.write(
    table([
      ['figure', 'measured', 'must be'],
      ['devices · nodes · lost with one', `${result.devices} · ${result.nodes} · ${result.lost}`, ''],
      ['all live and caught up after, s', show((result.all_live_ms ?? Number.NaN) / 1000), '≤ 15'],
      ['half of them, s', show((result.half_live_ms ?? Number.NaN) / 1000), ''],
      ['handshakes in the busiest second', String(result.handshakes_s), ''],
      ['refused upgrades · most attempts of one', `${result.refused} · ${result.attempts_most}`, ''],
      ['peak RSS of each node, MiB', result.peak_rss_mib.map((mib) => mib.toFixed(0)).join(' · '), '≤ 512'],
      ['acked events · deliveries', `${result.acked} · ${result.delivered}`, ''],
      ['delivery ms, p50 / p99, before', `${show(before.p50)} / ${show(before.p99)}`, ''],
      ['from the kill on', `${show(meanwhile.p50)} / ${show(meanwhile.p99)}`, ''],
      ['lost, doubled, out of order', Object.entries(result.faults).join(' ') || 'none', 'none'],
    ]),
  )
}
