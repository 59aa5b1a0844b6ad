/**
 * What comes back after nodes died (protocol.md §4): each device notices, waits as the SDK does, and asks a node that lives; a node
 * lets in so many a second and sends the others away (`packages/server/src/relay/load/admission.ts`), who wait longer the next time.
 *
 * Invariant: every device whose node died is in again exactly once at the end, and no node lets in more than its rate.
 */
import { createAdmission } from '../packages/server/src/relay/load/admission.ts'
import { backoffMs } from '../packages/client/src/connection/backoff.ts'
import type { Random } from './random.ts'
import { nodeByUser, shareOf, type World } from './world.ts'

/** Where the balancer sends the devices of a dead node: anywhere, by the hash of the user, or all of a node to the next one. */
export type Failover = 'random' | 'by_user' | 'next_node'

export type HerdOptions = {
  /** The first so many nodes die. */
  dead: number
  /** They come back at once: only the sockets are lost. */
  revived?: boolean
  failover: Failover
  /** `reset`: the kernel tells at once, when a process died. `silence`: nothing does, when a machine is gone: the ping is missed. */
  notice: 'reset' | 'silence'
  admitted_per_second: number
  /** Who was sent away: waits as the SDK does (`backoff`), or as long as it was told. */
  pause: 'backoff' | 'told'
  /** From the attempt to the answer. */
  answer_ms: number
  events_per_second: number
}

export const HERD: Omit<HerdOptions, 'dead' | 'failover' | 'notice'> = {
  admitted_per_second: 500,
  pause: 'backoff',
  answer_ms: 50,
  events_per_second: 10_000,
}

export type HerdReport = {
  devices: number
  seconds: { half: number; most: number; all: number }
  attempts: number
  refused: number
  /** In the busiest second of the busiest node. */
  peak_per_node: { attempts: number; admitted: number }
  /** In the busiest second, all nodes together: what the store has to take. */
  peak_admitted: number
  catch_up: { devices: number; events: number; pages: number }
}

const PING_MS = 25_000
const PONG_MS = 10_000
const PAGE_EVENTS = 1_000
const STEP_MS = 10
const SECOND_STEPS = 1_000 / STEP_MS

export function simulateHerd(world: World, options: HerdOptions, random: Random): HerdReport {
  const { dead, revived = false, failover, admitted_per_second: per_second, answer_ms } = options
  const isAlive = (node: number): boolean => revived || node >= dead
  const alive = Array.from({ length: world.nodes }, (_, node) => node).filter(isAlive)
  if (alive.length === 0) throw new RangeError('no node is left to come back to')
  const due = new Map<number, number[]>()
  const failures = new Uint8Array(world.nodeOf.length)
  const admitted: number[] = []
  const counts = { attempts: 0, refused: 0, catch_devices: 0, catch_events: 0, catch_pages: 0 }
  const perStep = { attempts: createSeries(world.nodes), admitted: createSeries(world.nodes) }
  let clock_ms = 0
  const openDoor = () => createAdmission({ per_second, now: () => clock_ms, random: () => random.unit() })
  const doors = Array.from({ length: world.nodes }, openDoor)

  function schedule(device: number, at_ms: number): void {
    const step = Math.floor(at_ms / STEP_MS)
    const others = due.get(step)
    if (others === undefined) due.set(step, [device])
    else others.push(device)
  }

  function pause(device: number): number {
    const failed = Math.min(255, (failures[device] ?? 0) + 1)
    failures[device] = failed
    return backoffMs(failed, random.unit())
  }

  function choose(device: number): number {
    if (failover === 'by_user') return nodeByUser(world.userOf[device] ?? 0, world.nodes, isAlive)
    if (failover === 'next_node') return nextAlive(world.nodeOf[device] ?? 0)
    return alive[random.below(alive.length)] ?? 0
  }

  function nextAlive(node: number): number {
    for (let next = node; ; next = (next + 1) % world.nodes) if (isAlive(next)) return next
  }

  function attempt(device: number, now_ms: number): void {
    const node = choose(device)
    counts.attempts += 1
    perStep.attempts.add(node, now_ms)
    clock_ms = now_ms
    const told_ms = doors[node]?.admit() ?? null
    if (told_ms !== null) {
      counts.refused += 1
      return schedule(device, now_ms + answer_ms + (options.pause === 'told' ? told_ms : pause(device)))
    }
    perStep.admitted.add(node, now_ms)
    admitted.push(now_ms + answer_ms)
    catchUp(device, (now_ms + answer_ms) / 1_000)
  }

  function catchUp(device: number, away_s: number): void {
    const user = world.userOf[device] ?? 0
    const devices = (world.firstDevice[user + 1] ?? 0) - (world.firstDevice[user] ?? 0)
    const others = (devices - 1) / devices
    const missed = random.poisson(options.events_per_second * shareOf(world, user) * others * away_s)
    if (missed === 0) return
    counts.catch_devices += 1
    counts.catch_events += missed
    counts.catch_pages += Math.ceil(missed / PAGE_EVENTS)
  }

  let devices = 0
  for (let device = 0; device < world.nodeOf.length; device++) {
    if ((world.nodeOf[device] ?? 0) >= dead) continue
    devices += 1
    const noticed = options.notice === 'reset' ? 0 : random.unit() * PING_MS + PONG_MS
    schedule(device, noticed + pause(device))
  }
  for (let step = 0; admitted.length < devices; step++) {
    const arrived = due.get(step)
    if (arrived === undefined) continue
    due.delete(step)
    // those of one step come in any order
    for (let i = arrived.length - 1; i > 0; i--) {
      const other = random.below(i + 1)
      ;[arrived[i], arrived[other]] = [arrived[other] ?? 0, arrived[i] ?? 0]
    }
    for (const [i, device] of arrived.entries()) attempt(device, (step + i / arrived.length) * STEP_MS)
  }

  admitted.sort((a, b) => a - b)
  const at = (share: number): number => (admitted[Math.max(0, Math.ceil(share * admitted.length) - 1)] ?? 0) / 1_000
  return {
    devices,
    seconds: { half: at(0.5), most: at(0.99), all: at(1) },
    attempts: counts.attempts,
    refused: counts.refused,
    peak_per_node: { attempts: perStep.attempts.peakOfNode(), admitted: perStep.admitted.peakOfNode() },
    peak_admitted: perStep.admitted.peakOfAll(),
    catch_up: { devices: counts.catch_devices, events: counts.catch_events, pages: counts.catch_pages },
  }
}

type Series = { add(node: number, at_ms: number): void; peakOfNode(): number; peakOfAll(): number }

/** Counts per node and step; peaks are those of any second. */
function createSeries(nodes: number): Series {
  const counts = Array.from({ length: nodes }, (): number[] => [])
  const peakOf = (series: readonly number[]): number => {
    let sum = 0
    let peak = 0
    for (let step = 0; step < series.length; step++) {
      sum += (series[step] ?? 0) - (series[step - SECOND_STEPS] ?? 0)
      peak = Math.max(peak, sum)
    }
    return peak
  }
  return {
    add(node, at_ms) {
      const series = counts[node]
      const step = Math.floor(at_ms / STEP_MS)
      if (series !== undefined) series[step] = (series[step] ?? 0) + 1
    },
    peakOfNode: () => Math.max(...counts.map(peakOf)),
    peakOfAll() {
      const all: number[] = []
      for (const series of counts) for (const [step, count] of series.entries()) all[step] = (all[step] ?? 0) + (count ?? 0)
      return peakOf(all)
    },
  }
}
