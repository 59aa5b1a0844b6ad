/**
 * Sockets that nobody reads: `node scripts/run.mjs bench stalled [--users 20 --devices 7] …`. On one node each user has a device that
 * sends at a steady pace, one that reads, and others that read too until all of these stop at once. What the node holds in memory then,
 * and how long the rest waits for a delivery, before and after.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { openAccounts } from './support/accounts.ts'
import { residentBytes } from './support/cost.ts'
import { type Faults, type Quantiles, startFleets } from './support/fleet-process.ts'
import { MIB, show, table } from './support/figures.ts'
import { openGround, openRelay } from './support/relays.ts'
import { runBench } from './support/run.ts'

const { values: given } = parseArgs({
  options: {
    users: { type: 'string', default: '20' },
    devices: { type: 'string', default: '7' },
    /** More than kernels take for a peer that does not read: some 3 MiB each. */
    bytes: { type: 'string', default: '32768' },
    /** Events of all users together. */
    'per-second': { type: 'string', default: '200' },
    'before-ms': { type: 'string', default: '8000' },
    /** Sockets that take nothing for 30 s are closed: less than that. */
    ms: { type: 'string', default: '25000' },
    'no-fsync': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})
const [users, devices, payload_bytes, per_second] = [given.users, given.devices, given.bytes, given['per-second']].map(Number) as [
  number,
  number,
  number,
  number,
]
const [before_ms, ms] = [Number(given['before-ms']), Number(given.ms)]
const WARM_PART = 0.25
const SAMPLE_MS = 100
const SETTLE_MS_MAX = 15_000
const BENCH_MS_MAX = 180_000

type Result = {
  bench: 'stalled'
  sockets: number
  stalled: number
  /** Sent to each of the stalled, and not read. */
  owed_mib: number
  rss_mib: { before: number; peak: number; growth: number }
  delivery_ms: { before: Quantiles; after: Quantiles; p99_ratio: number }
  events_s: { before: number; after: number }
  faults: Faults
}

await runBench(async (defer) => {
  const ground = await openGround(defer, { fsync: !given['no-fsync'] })
  const relay = await openRelay(defer, ground, { name: 'stalled', nodes: 1 })
  const [node] = relay.nodes
  if (node === undefined) throw new Error('a relay has a node')
  const identities = await openAccounts(relay, users, devices)
  const fleets = startFleets()
  defer(() => fleets.end())
  const fleet = await fleets.create({ identities, server_key: relay.server_key, payload_bytes })
  await fleet.connect(identities.map(() => node.url))
  await fleet.pace(per_second, 1)
  await sleep(before_ms * WARM_PART)
  await fleet.mark()
  const rss_before = await peakWithin(node.pid, before_ms * (1 - WARM_PART))
  const before = await fleet.mark()
  const stalled = identities.flatMap((_, i) => (i % devices >= 2 ? [i] : []))
  await fleet.stall(stalled)
  const rss_peak = await peakWithin(node.pid, ms)
  const after = await fleet.mark()
  const faults = await fleet.settle(SETTLE_MS_MAX)
  report({
    bench: 'stalled',
    sockets: identities.length,
    stalled: stalled.length,
    owed_mib: ((after.acked / users) * payload_bytes) / MIB,
    rss_mib: { before: rss_before / MIB, peak: rss_peak / MIB, growth: (rss_peak - rss_before) / MIB },
    delivery_ms: { before: before.delivery_ms, after: after.delivery_ms, p99_ratio: after.delivery_ms.p99 / before.delivery_ms.p99 },
    events_s: { before: (before.acked * 1000) / (before_ms * (1 - WARM_PART)), after: (after.acked * 1000) / ms },
    faults,
  })
  return Object.keys(faults).length === 0
}, BENCH_MS_MAX)

async function peakWithin(pid: number, time: number): Promise<number> {
  let peak = 0
  for (const end = performance.now() + time; performance.now() < end; await sleep(SAMPLE_MS)) peak = Math.max(peak, residentBytes(pid).now)
  return peak
}

function report(result: Result): void {
  if (given.json) return void process.stdout.write(`${JSON.stringify(result)}\n`)
  const { rss_mib: rss, delivery_ms: delivery, events_s } = result
  process.stdout.write(
    table([
      ['figure', 'before', 'after', 'must be'],
      ['sockets · of them stalled', `${result.sockets} · 0`, `${result.sockets} · ${result.stalled}`, ''],
      ['events/s', show(events_s.before), show(events_s.after), ''],
      ['owed to each stalled one, MiB', '', show(result.owed_mib), ''],
      ['peak RSS, MiB', rss.before.toFixed(0), `${rss.peak.toFixed(0)} (+ ${rss.growth.toFixed(0)})`, '+ ≤ 128'],
      ['delivery to the others, p50 ms', show(delivery.before.p50), show(delivery.after.p50), ''],
      ['p99 ms', show(delivery.before.p99), `${show(delivery.after.p99)} (${show(delivery.p99_ratio)} ×)`, '≤ 2 ×'],
      ['lost, doubled, out of order', '', Object.entries(result.faults).join(' ') || 'none', 'none'],
    ]),
  )
}
