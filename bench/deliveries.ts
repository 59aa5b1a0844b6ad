/**
 * What a delivery costs: `node scripts/run.mjs bench deliveries [--modes one,crossing] [--per-second 8000] …`. Users with three devices
 * each; one sends, in a closed loop or at a steady pace, and each event is acked when it is on disk and delivered to the two others. CPU of
 * nodes, PostgreSQL and Redis for 10,000 deliveries, the load left out; ratios are to the first mode, round by round, and modes take turns.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { openAccounts } from './support/accounts.ts'
import { cpuSeconds } from './support/cost.ts'
import { type Counts, type Faults, type RemoteFleet, startFleets } from './support/fleet-process.ts'
import { median, show, table } from './support/figures.ts'
import { openGround, openRelay, type Relay, type RelayOptions } from './support/relays.ts'
import { type Defer, runBench } from './support/run.ts'

const { values: given } = parseArgs({
  options: {
    users: { type: 'string', default: '100' },
    devices: { type: 'string', default: '3' },
    bytes: { type: 'string', default: '256' },
    /** Of each sender, in a closed loop. */
    outstanding: { type: 'string', default: '16' },
    /** Not in a closed loop, but so many events of all users together, */
    'per-second': { type: 'string' },
    /** so many of them in one message. */
    together: { type: 'string', default: '16' },
    /** Many and short: what else the machine does then meets all modes alike. */
    rounds: { type: 'string', default: '25' },
    ms: { type: 'string', default: '600' },
    'warm-ms': { type: 'string', default: '150' },
    /** Under load before the first round: code that is new is slow. */
    'new-ms': { type: 'string', default: '8000' },
    modes: { type: 'string', default: 'one,crossing' },
    /** Another tree of sources, packages installed: the mode `before`. */
    before: { type: 'string' },
    workers: { type: 'string', default: '2' },
    /** A folder to which nodes write what they spend their time on. */
    'cpu-prof': { type: 'string' },
    'no-fsync': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})
const [users, devices, payload_bytes] = [Number(given.users), Number(given.devices), Number(given.bytes)]
const [outstanding, rounds, ms, warm_ms, new_ms] = [given.outstanding, given.rounds, given.ms, given['warm-ms'], given['new-ms']].map(
  Number,
) as [number, number, number, number, number]
const per_second = given['per-second'] === undefined ? null : Number(given['per-second'])
const flags = given['cpu-prof'] === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${given['cpu-prof']}`]
const SETTLE_MS_MAX = 10_000
const BENCH_MS_MAX = 600_000

type Place = (user: number, device: number) => number
type Mode = { relay: keyof typeof RELAYS; place: Place; says: string }

const RELAYS = {
  one: { nodes: 1 },
  linked: { nodes: 1, redis: true },
  two: { nodes: 2, redis: true },
  before: { nodes: 1, root: given.before },
  workers: { nodes: 1, args: ['--workers', given.workers] },
} as const satisfies Record<string, Omit<RelayOptions, 'name'>>

/** Every second receiver is at another node than the sender. */
const crosses = (device: number): number => (device > 0 && device % 2 === 0 ? 1 : 0)
const half = (user: number): number => user & 1
const MODES: Readonly<Record<string, Mode>> = {
  one: { relay: 'one', place: () => 0, says: 'one node, no Redis' },
  before: { relay: 'before', place: () => 0, says: 'one node of the sources of --before' },
  linked: { relay: 'linked', place: () => 0, says: 'one node that tells Redis of all' },
  crossing: { relay: 'two', place: (user, device) => (half(user) + crosses(device)) % 2, says: 'two nodes, half of all deliveries cross' },
  gathered: { relay: 'two', place: (_, device) => crosses(device), says: 'the same, all senders at one node' },
  random: { relay: 'two', place: scatter, says: 'two nodes, each device at either' },
  affinity: { relay: 'two', place: (user) => half(user), says: 'two nodes, all of a user at one' },
  workers: { relay: 'workers', place: () => 0, says: 'one node with --workers' },
}

type Cost = { nodes: number; postgres: number; redis: number; sum: number }
/** `together`: events of a message. */
type Round = {
  events_s: number
  deliveries_s: number
  together: number
  cpu_s: Cost
  ack_ms: Counts['ack_ms']
  delivery_ms: Counts['delivery_ms']
}
type Field = { mode: string; relay: Relay; fleet: RemoteFleet; rounds: Round[]; faults: Faults }

await runBench(async (defer) => {
  const names = given.modes.split(',')
  const fields = await openFields(defer, names)
  for (const field of fields) await underLoad(field, () => sleep(new_ms))
  for (let round = 0; round < rounds; round++) {
    for (const field of round % 2 === 0 ? fields : fields.toReversed()) await underLoad(field, measure)
  }
  report(fields)
  return fields.every(({ faults }) => Object.keys(faults).length === 0)
}, BENCH_MS_MAX)

function modeOf(name: string): Mode {
  const mode = name === 'before' && given.before === undefined ? undefined : MODES[name]
  if (mode === undefined) throw new Error(`no such mode: ${name}; there are ${Object.keys(MODES).join(', ')} (before with --before)`)
  return mode
}

/** Each mode has a relay and users of its own, connected all the time; one at a time is under load. */
async function openFields(defer: Defer, names: readonly string[]): Promise<Field[]> {
  const ground = await openGround(defer, { fsync: !given['no-fsync'] })
  const relays = await Promise.all(names.map((name) => openRelay(defer, ground, { name, ...RELAYS[modeOf(name).relay], flags })))
  // ended before the relays, which then have nobody to take leave of
  const fleets = startFleets()
  defer(() => fleets.end())
  return Promise.all(
    relays.map(async (relay) => {
      const { place } = modeOf(relay.name)
      const identities = await openAccounts(relay, users, devices)
      const fleet = await fleets.create({ identities, server_key: relay.server_key, payload_bytes })
      await fleet.connect(identities.map((_, i) => relay.nodes[place(Math.floor(i / devices), i % devices)]?.url ?? ''))
      return { mode: relay.name, relay, fleet, rounds: [], faults: {} }
    }),
  )
}

async function underLoad(field: Field, act: (field: Field) => Promise<unknown>): Promise<void> {
  if (per_second === null) await field.fleet.loop(outstanding)
  else await field.fleet.pace(per_second, Number(given.together))
  await sleep(warm_ms)
  await act(field)
  field.faults = await field.fleet.settle(SETTLE_MS_MAX)
}

async function measure({ relay, fleet, rounds: measured }: Field): Promise<void> {
  await fleet.mark()
  const before = costOf(relay)
  const began = performance.now()
  await sleep(ms)
  const counts = await fleet.mark()
  const after = costOf(relay)
  const seconds = (performance.now() - began) / 1000
  const per = 10_000 / counts.delivered
  const [nodes, postgres, redis] = [after.nodes - before.nodes, after.postgres - before.postgres, after.redis - before.redis]
  measured.push({
    events_s: counts.acked / seconds,
    deliveries_s: counts.delivered / seconds,
    together: counts.delivered / counts.messages,
    cpu_s: { nodes: nodes * per, postgres: postgres * per, redis: redis * per, sum: (nodes + postgres + redis) * per },
    ack_ms: counts.ack_ms,
    delivery_ms: counts.delivery_ms,
  })
}

function costOf({ nodes, redis, postgres }: Relay): Omit<Cost, 'sum'> {
  return {
    nodes: nodes.reduce((sum, node) => sum + cpuSeconds(node.pid), 0),
    postgres: cpuSeconds(postgres.pid),
    redis: redis === null ? 0 : cpuSeconds(redis.pid),
  }
}

/** The same devices at the same nodes in every run. */
function scatter(user: number, device: number): number {
  return (Math.imul(user * 31 + device * 7 + 1, 0x9e37_79b1) >>> 16) & 1
}

function report(fields: readonly Field[]): void {
  const [base] = fields
  const modes = fields.map(({ mode, rounds: measured, faults }) => {
    const of = (pick: (round: Round) => number): number => median(measured.map(pick))
    const ratios = measured.map(({ cpu_s }, i) => cpu_s.sum / (base?.rounds[i]?.cpu_s.sum ?? Number.NaN))
    return {
      mode,
      says: MODES[mode]?.says,
      events_s: of((round) => round.events_s),
      deliveries_s: of((round) => round.deliveries_s),
      together: of((round) => round.together),
      cpu_s_per_10k: {
        nodes: of(({ cpu_s }) => cpu_s.nodes),
        postgres: of(({ cpu_s }) => cpu_s.postgres),
        redis: of(({ cpu_s }) => cpu_s.redis),
        sum: of(({ cpu_s }) => cpu_s.sum),
      },
      ratio: { median: median(ratios), least: Math.min(...ratios), most: Math.max(...ratios) },
      ack_ms: { p50: of(({ ack_ms }) => ack_ms.p50), p99: of(({ ack_ms }) => ack_ms.p99) },
      delivery_ms: { p50: of(({ delivery_ms }) => delivery_ms.p50), p99: of(({ delivery_ms }) => delivery_ms.p99) },
      faults,
    }
  })
  if (given.json) {
    process.stdout.write(
      `${JSON.stringify({ bench: 'deliveries', users, devices, payload_bytes, outstanding, per_second, rounds, ms, modes })}\n`,
    )
    return
  }
  process.stdout.write(
    `${users} users × ${devices} devices, ${payload_bytes} B, ${per_second === null ? `${outstanding} outstanding` : `${per_second} events/s`}; medians of ${rounds} rounds of ${ms} ms\n`,
  )
  process.stdout.write(
    table([
      [
        'mode',
        'events/s',
        'deliveries/s',
        'together',
        'CPU-s/10k',
        'ratio',
        'nodes',
        'postgres',
        'redis',
        'ack ms',
        'delivery ms',
        'faults',
      ],
      ...modes.map(({ mode, events_s, deliveries_s, together, cpu_s_per_10k: cpu, ratio, ack_ms, delivery_ms, faults }) => [
        mode,
        show(events_s),
        show(deliveries_s),
        show(together),
        show(cpu.sum),
        `${show(ratio.median)} (${show(ratio.least)}–${show(ratio.most)})`,
        ...[cpu.nodes, cpu.postgres, cpu.redis].map(show),
        ...[ack_ms, delivery_ms].map(({ p50, p99 }) => `${show(p50)} / ${show(p99)}`),
        Object.entries(faults).join(' ') || 'none',
      ]),
    ]),
  )
}
