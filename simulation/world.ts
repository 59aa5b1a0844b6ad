/**
 * A made-up population: users with 1 to 20 devices, each device with a socket on one of the nodes, and how much of all that is
 * sent comes from each user.
 *
 * Invariant: every device belongs to one user and is on one node; the shares of all users are 1 together.
 */
import { hash32, type Random } from './random.ts'

/** How a balancer places sockets: it knows nothing, or keeps the devices of a user together by a hash. */
export type Placement = 'random' | 'by_user'

export type WorldOptions = {
  /** With a socket. */
  devices: number
  nodes: number
  placement: Placement
  /** Of these devices per user, at most. */
  devices_max?: number
  devices_mean?: number
  /** The share of a user's devices that have a socket; the others are not counted in `devices`. */
  online?: number
  /** The user of rank r sends as 1 / r^zipf. */
  zipf?: number
}

export type World = {
  nodes: number
  placement: Placement
  /** Devices of user u: firstDevice[u] up to firstDevice[u + 1]. */
  firstDevice: Uint32Array
  userOf: Uint32Array
  nodeOf: Uint16Array
  /** Nodes with a socket of the user: those that subscribe to its channel. */
  reachOf: Uint16Array
  /** Sum of the shares of all users up to this one. */
  shareUpTo: Float64Array
}

const DEVICES_MAX = 20
const DEVICES_MEAN = 3
const ZIPF = 1

export function makeWorld(options: WorldOptions, random: Random): World {
  const { devices, nodes, placement, online = 1, zipf = ZIPF } = options
  const drawSize = sizes(options.devices_max ?? DEVICES_MAX, options.devices_mean ?? DEVICES_MEAN)
  const firsts = [0]
  const userOf = new Uint32Array(devices)
  const nodeOf = new Uint16Array(devices)
  for (let made = 0; made < devices; ) {
    let size = drawSize(random.unit())
    if (online < 1) size = countOnline(size, online, random)
    // a user without a socket is not part of this world
    if (size === 0) continue
    const user = firsts.length - 1
    size = Math.min(size, devices - made)
    for (let i = 0; i < size; i++) {
      userOf[made] = user
      nodeOf[made] = placement === 'by_user' ? nodeByUser(user, nodes) : random.below(nodes)
      made += 1
    }
    firsts.push(made)
  }
  const firstDevice = Uint32Array.from(firsts)
  const users = firstDevice.length - 1
  const reachOf = new Uint16Array(users)
  for (let user = 0; user < users; user++) reachOf[user] = new Set(nodeOf.subarray(firstDevice[user], firstDevice[user + 1])).size
  return { nodes, placement, firstDevice, userOf, nodeOf, reachOf, shareUpTo: zipfShares(users, zipf) }
}

export function usersOf(world: World): number {
  return world.firstDevice.length - 1
}

export function shareOf({ shareUpTo }: World, user: number): number {
  return (shareUpTo[user] ?? 0) - (user === 0 ? 0 : (shareUpTo[user - 1] ?? 0))
}

export function drawUser({ shareUpTo }: World, random: Random): number {
  const at = random.unit()
  let low = 0
  let high = shareUpTo.length - 1
  while (low < high) {
    const middle = (low + high) >> 1
    if ((shareUpTo[middle] ?? 1) > at) high = middle
    else low = middle + 1
  }
  return low
}

/** Where the balancer sends a user when all nodes are there: the greatest of the hashes, so that a lost node moves its own users alone. */
export function nodeByUser(user: number, nodes: number, isAlive: (node: number) => boolean = () => true): number {
  let best = -1
  let most = -1
  for (let node = 0; node < nodes; node++) {
    if (!isAlive(node)) continue
    const weight = hash32(hash32(user) ^ Math.imul(node + 1, 0x9e3779b1))
    if (weight > most) [best, most] = [node, weight]
  }
  return best
}

/** A geometric distribution over 1 … max that has this mean. */
function sizes(max: number, mean: number): (unit: number) => number {
  let low = 0
  let high = 1
  let upTo: number[] = []
  for (let i = 0; i < 50; i++) {
    const ratio = (low + high) / 2
    const weights = Array.from({ length: max }, (_, at) => ratio ** at)
    const total = weights.reduce((sum, weight) => sum + weight, 0)
    const got = weights.reduce((sum, weight, at) => sum + weight * (at + 1), 0) / total
    if (got < mean) low = ratio
    else high = ratio
    let sum = 0
    upTo = weights.map((weight) => (sum += weight / total))
  }
  return (unit) => upTo.findIndex((limit) => unit < limit) + 1 || max
}

function countOnline(size: number, online: number, random: Random): number {
  let count = 0
  for (let i = 0; i < size; i++) if (random.unit() < online) count += 1
  return count
}

function zipfShares(users: number, exponent: number): Float64Array {
  const upTo = new Float64Array(users)
  let sum = 0
  for (let rank = 0; rank < users; rank++) {
    sum += (rank + 1) ** -exponent
    upTo[rank] = sum
  }
  for (let rank = 0; rank < users; rank++) upTo[rank] = (upTo[rank] ?? 0) / sum
  return upTo
}
