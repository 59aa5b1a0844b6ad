/** Buses of several nodes for tests, and what holds for every bus, whatever carries it. */
import { randomBytes, randomInt } from 'node:crypto'
import { afterEach, expect, it } from 'vitest'
import { openBus } from '../../../server/src/bus/open-bus.ts'
import { openRedis, type RedisConfig, type RedisLink } from '../../../server/src/bus/redis-link.ts'
import { openRedisWire } from '../../../server/src/bus/redis-wire.ts'
import type { Bus, Hint, StoredEvent } from '../../../server/src/ports/store.ts'
import { silent } from './silent-log.ts'

export const KEY = randomBytes(32)
const HISTORY = randomBytes(32).toString('base64url')
export const STANDALONE = { mode: 'standalone', master: '', sentinel_password: null } as const

export const log = (log_seq: number): Hint => ({ is: 'log', history_id: HISTORY, log_seq, revoked: [] })
export const seqOf = (hint: Hint): number => (hint.is === 'log' ? hint.log_seq : -1)

function event(position: number, size = 100): StoredEvent {
  const numbers = { position, stream_seq: position, received_at: 1_795_000_000_000, device_no: 2, device_seq: 2 ** 52 + 1, stream_no: 3 }
  return { ...numbers, flags: 2, client: randomBytes(size) }
}

const EVERY_HINT: Hint[] = [
  { is: 'committed', history_id: HISTORY, events: [event(2 ** 40 + 5), event(7, 0), event(1, 700_000)] },
  { is: 'log', history_id: HISTORY, log_seq: 7, revoked: ['a', 'b'] },
  { is: 'device', device_id: 'd' },
  { is: 'device', device_id: 'd', session_id: 's' },
  { is: 'presence', device_id: 'd', online: true, last_seen: 5 },
  { is: 'presence', device_id: 'd', online: false, last_seen: 5, suspended: true },
  { is: 'deleted' },
]

export type BusNode = { bus: Bus; link: RedisLink; close(): Promise<void> }

const open: BusNode[] = []

/** Closed after the test. */
export function openNode(config: RedisConfig, { relay = 'relay', key = KEY }: { relay?: string; key?: Uint8Array } = {}): BusNode {
  const link = openRedis(config, silent)
  const bus = openBus(openRedisWire(link, relay, silent), key, silent)
  const node = {
    bus,
    link,
    async close() {
      await bus.close()
      link.close()
    },
  }
  open.push(node)
  return node
}

/** Now; what is left is closed after the test. */
export async function closeNodes(): Promise<void> {
  await Promise.all(open.splice(0).map((node) => node.close()))
}
afterEach(closeNodes)

export const isUp = (...nodes: BusNode[]): Promise<void> =>
  expect.poll(() => nodes.map((node) => node.bus.reach()), { timeout: 15_000 }).toEqual(nodes.map(() => 'up'))

export function collect(bus: Bus, user_no: number): { got: Hint[]; leave(): void } {
  const got: Hint[] = []
  return { got, leave: bus.subscribe(user_no, (hint) => got.push(hint)) }
}

/** A subscription takes its way to the server: what is published from then on arrives. */
export async function arrives(from: Bus, to: { got: Hint[] }, user_no: number): Promise<void> {
  await expect
    .poll(() => {
      from.publish(user_no, { is: 'device', device_id: 'here?' })
      return to.got.length
    })
    .toBeGreaterThan(0)
  let before = -1
  await expect
    .poll(() => {
      const still = to.got.length === before
      before = to.got.length
      return still
    })
    .toBe(true)
  to.got.length = 0
}

/** What holds for every bus; `pair`: two nodes of one relay. */
export function busContract(pair: () => Promise<[Bus, Bus]>): void {
  const user_no = randomInt(2 ** 40)

  it('R10: a hint reaches every subscriber of its user on every node once, nobody else, and nobody after the end', async () => {
    const [a, b] = await pair()
    const [here, too, there, other] = [collect(a, user_no), collect(a, user_no), collect(b, user_no), collect(b, user_no + 1)]
    if (a !== b) await arrives(a, there, user_no)
    here.got.length = 0
    too.got.length = 0
    a.publish(user_no, log(1))
    expect([here.got, too.got].map((got) => got.map(seqOf))).toEqual([[1], [1]])
    await expect.poll(() => there.got.map(seqOf)).toEqual([1])
    here.leave()
    here.leave()
    b.publish(user_no, log(2))
    await expect.poll(() => too.got.map(seqOf)).toEqual([1, 2])
    expect([here, there, other].map(({ got }) => got.map(seqOf))).toEqual([[1], [1, 2], []])
  })

  it('keeps the order of a user from one node, whatever the hint is, to the last byte', async () => {
    const [a, b] = await pair()
    const there = collect(b, user_no)
    if (a !== b) await arrives(a, there, user_no)
    for (const hint of EVERY_HINT) a.publish(user_no, hint)
    for (let i = 0; i < 200; i++) a.publish(user_no, log(i))
    await expect.poll(() => there.got.length).toBe(EVERY_HINT.length + 200)
    expect(there.got.slice(0, EVERY_HINT.length)).toEqual(EVERY_HINT)
    expect(there.got.slice(EVERY_HINT.length).map(seqOf)).toEqual(Array.from({ length: 200 }, (_, i) => i))
  })

  it('goes on after a subscriber that throws, and keeps one order for hints that are published meanwhile', async () => {
    const [a] = await pair()
    const got: number[] = []
    a.subscribe(user_no, (hint) => {
      if (seqOf(hint) === 1) a.publish(user_no, log(2))
      throw new Error('no')
    })
    a.subscribe(user_no, (hint) => got.push(seqOf(hint)))
    a.publish(user_no, log(1))
    expect(got).toEqual([1, 2])
  })

  it('takes hints in silence after its end', async () => {
    const [a] = await pair()
    const here = collect(a, user_no)
    await a.close()
    a.publish(user_no, log(1))
    here.leave()
    expect([here.got, a.subscriptions()]).toEqual([[], 0])
  })
}
