/**
 * Fan-out, hint traffic and the herd after a dead node, for 10^6 devices over 50 nodes: the tables of docs/operations/scale.md.
 *
 *   node --conditions=development simulation/fan-out.ts [--json] [--devices 1000000] [--nodes 50] [--seed 1] [--seconds 20] [--events 10000]
 *
 * Made up, not measured: what a commit takes and what a message weighs is put in (`TRAFFIC`, `HERD`); what comes out follows from how
 * devices are spread. The same arguments give the same output.
 */
import { parseArgs } from 'node:util'
import { HERD, type HerdOptions, type HerdReport, simulateHerd } from './herd.ts'
import { createRandom } from './random.ts'
import { show, showBytes, showShare, table } from './tables.ts'
import { simulateTraffic, TRAFFIC, type TrafficReport } from './traffic.ts'
import { makeWorld, type Placement, type World } from './world.ts'

export type Size = { devices: number; nodes: number; seed: number; seconds: number; events: number }

type TrafficRun = { name: string; report: TrafficReport }
type HerdRun = { name: string; report: HerdReport }

export function runTraffic({ devices, nodes, seed, seconds, events }: Size): TrafficRun[] {
  const run = (name: string, placement: Placement, online: number, events_per_second: number): TrafficRun => {
    const random = createRandom(seed)
    const world = makeWorld({ devices, nodes, placement, online }, random)
    return { name, report: simulateTraffic(world, { ...TRAFFIC, seconds, events_per_second }, random) }
  }
  return [
    run('any node', 'random', 1, events),
    run('any node, a third of the devices online', 'random', 1 / 3, events),
    run('by user', 'by_user', 1, events),
    run('any node, a tenth of the events', 'random', 1, events / 10),
  ]
}

export function runHerds({ devices, nodes, seed, events }: Size): HerdRun[] {
  const random = createRandom(seed)
  const world: World = makeWorld({ devices, nodes, placement: 'random' }, random)
  const run = (name: string, options: Partial<HerdOptions>): HerdRun => ({
    name,
    report: simulateHerd(
      world,
      { ...HERD, dead: 1, failover: 'random', notice: 'reset', events_per_second: events, ...options },
      createRandom(seed),
    ),
  })
  const told = { pause: 'told' } as const
  return [
    run('1 node, process', {}),
    run('1 node, process; SDK heeds `Retry-After`', told),
    run('1 node, machine', { notice: 'silence' }),
    run('1 node, all to the next', { failover: 'next_node' }),
    run(`${nodes / 2} nodes, processes`, { dead: nodes / 2 }),
    run('all sockets cut', { dead: nodes, revived: true }),
    run('all sockets cut; SDK heeds `Retry-After`', { dead: nodes, revived: true, ...told }),
  ]
}

export function trafficTable(runs: readonly TrafficRun[]): string {
  const row = (name: string, of: (report: TrafficReport) => string): string[] => [name, ...runs.map(({ report }) => of(report))]
  return table(
    ['', ...runs.map(({ name }) => name)],
    [
      row('users with a socket', ({ users }) => show(users)),
      row('sockets per node, mean · most', ({ sockets_per_node: s }) => `${show(s.mean)} · ${show(s.max)}`),
      row('channels per node, mean · most', ({ subscriptions_per_node: s }) => `${show(s.mean)} · ${show(s.max)}`),
      row('events/s', ({ events, seconds }) => show(events / seconds)),
      row('events per commit', ({ events, commits }) => show(events / commits)),
      row('events per hint', ({ events, hints }) => show(events / hints)),
      row('hints/s = messages into Redis', ({ hints, seconds }) => show(hints / seconds)),
      row('messages/s out of Redis', ({ copies, seconds }) => show(copies / seconds)),
      row('nodes that get a hint, the sender too', ({ copies, hints }) => show(copies / hints)),
      row('of the messages out: own echoes', ({ echoes, copies }) => showShare(echoes / copies)),
      row('hints that no other node waits for', ({ unheard, hints }) => showShare(unheard / hints)),
      row('deliveries/s', ({ deliveries: d, seconds }) => show((d.local + d.remote) / seconds)),
      row('of them remote', ({ deliveries: d }) => showShare(d.remote / Math.max(1, d.local + d.remote))),
      row('bytes/s into Redis · out', ({ redis_bytes: b, seconds }) => `${showBytes(b.in / seconds)} · ${showBytes(b.out / seconds)}`),
      row(
        'bytes/s to sockets per node, mean · most',
        ({ egress_per_node: e, seconds }) => `${showBytes(e.mean / seconds)} · ${showBytes(e.max / seconds)}`,
      ),
    ],
  )
}

export function herdTable(runs: readonly HerdRun[]): string {
  return table(
    [
      'what dies',
      'devices',
      'half · 99 % · all back, s',
      'attempts (refused)',
      'busiest node: attempts · let in /s',
      'let in /s, all nodes',
      'with missed events: devices · pages',
    ],
    runs.map(({ name, report }) => [
      name,
      show(report.devices),
      [report.seconds.half, report.seconds.most, report.seconds.all].map((value) => value.toFixed(1)).join(' · '),
      `${show(report.attempts)} (${show(report.refused)})`,
      `${show(report.peak_per_node.attempts)} · ${show(report.peak_per_node.admitted)}`,
      show(report.peak_admitted),
      `${show(report.catch_up.devices)} · ${show(report.catch_up.pages)}`,
    ]),
  )
}

if (import.meta.main) {
  const whole = { type: 'string' } as const
  const { values } = parseArgs({
    options: { json: { type: 'boolean' }, devices: whole, nodes: whole, seed: whole, seconds: whole, events: whole },
  })
  const size: Size = {
    devices: Number(values.devices ?? 1_000_000),
    nodes: Number(values.nodes ?? 50),
    seed: Number(values.seed ?? 1),
    seconds: Number(values.seconds ?? 20),
    events: Number(values.events ?? 10_000),
  }
  const assumed = {
    traffic: { ...TRAFFIC, seconds: size.seconds, events_per_second: size.events },
    herd: { ...HERD, events_per_second: size.events },
  }
  const traffic = runTraffic(size)
  const herds = runHerds(size)
  if (values.json === true) process.stdout.write(`${JSON.stringify({ size, assumed, traffic, herds }, null, 1)}\n`)
  else process.stdout.write(`${trafficTable(traffic)}\n\n${herdTable(herds)}\n`)
}
