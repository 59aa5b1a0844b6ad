import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { createMemoryBus } from '../../bus/memory-bus.ts'
import type { NodeFigures } from '../../ports/store.ts'
import { createNodeFigures } from '../../relay/node-figures.ts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createStore, type PostgresStore } from '../store.ts'

const database = useDatabase()
let store: PostgresStore
beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
})
afterEach(() => query('delete from node'))
afterAll(() => store.close())

const MINUTE = 60_000
const query = async <T>(text: string, values: unknown[] = []): Promise<T[]> => (await store.pools.main.query(text, values)).rows as T[]
const template = createNodeFigures({ relay: () => null, bus: createMemoryBus(), draining: () => false })()
const figures = (sessions: number): NodeFigures => ({ ...template, sessions })
const hold = (node_id: string, lease_ms = MINUTE, sessions = 0) => store.holdLease(node_id, lease_ms, figures(sessions))
/** How long the lease of each node still runs, in ms. */
const left = async (): Promise<number[]> =>
  (await query<{ ms: number }>('select lease_until - clock_ms() as ms from node order by node_no')).map(({ ms }) => ms)

it('a lease is taken, and prolonged under the same number, with the figures of now', async () => {
  const node_id = randomUUID()
  const { node_no, live } = await hold(node_id, 20_000, 1)
  expect(live).toEqual([node_no])
  expect(await store.listNodes()).toEqual([{ node_no, live: true, figures: figures(1) }])
  const [first] = await left()
  expect(first).toBeGreaterThan(10_000)
  expect(first).toBeLessThanOrEqual(20_000)
  expect(await hold(node_id, MINUTE, 2)).toEqual({ node_no, live: [node_no] })
  expect(await store.listNodes()).toEqual([{ node_no, live: true, figures: figures(2) }])
  expect((await left())[0]).toBeGreaterThan(20_000)
})

it('others see it live until the lease runs out, and then still listed', async () => {
  const [a, b] = [randomUUID(), randomUUID()]
  const first = await hold(a, 300)
  const second = await hold(b)
  expect(second.live).toEqual([first.node_no, second.node_no])
  expect((await hold(a, 300)).live).toEqual([first.node_no, second.node_no])
  await expect.poll(async () => (await hold(b)).live, { interval: 50, timeout: 3_000 }).toEqual([second.node_no])
  expect((await store.listNodes()).map(({ node_no, live }) => [node_no, live])).toEqual([
    [first.node_no, false],
    [second.node_no, true],
  ])
  expect((await hold(a)).node_no, 'its next beat finds it again').toBe(first.node_no)
  expect((await hold(b)).live).toEqual([first.node_no, second.node_no])
})

it('who ends is gone at once, and with it what ended long ago; what ended just now is kept for a look', async () => {
  const [old, late, own, other] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()]
  const numbers: number[] = []
  for (const node_id of [old, late, own, other]) numbers.push((await hold(node_id)).node_no)
  await query('update node set lease_until = clock_ms() - 3700000 where node_id = $1', [old])
  await query('update node set lease_until = clock_ms() - 1000 where node_id = $1', [late])
  await store.endLease(own)
  expect((await store.listNodes()).map(({ node_no, live }) => [node_no, live])).toEqual([
    [numbers[1], false],
    [numbers[3], true],
  ])
  await store.endLease(own)
})

it('who starts removes what ended long ago: nodes that are only ever killed leave nothing for ever', async () => {
  await Promise.all(Array.from({ length: 5 }, () => hold(randomUUID())))
  await query('update node set lease_until = clock_ms() - 3700000')
  const { node_no } = await hold(randomUUID())
  expect((await store.listNodes()).map((row) => row.node_no)).toEqual([node_no])
})

it('a row that is missing is made anew', async () => {
  const node_id = randomUUID()
  const before = await hold(node_id)
  await query('delete from node')
  const after = await hold(node_id)
  expect(after.node_no).toBeGreaterThan(before.node_no)
  expect(after.live).toEqual([after.node_no])
  expect((await store.listNodes()).map(({ node_no }) => node_no)).toEqual([after.node_no])
})

it('beats use up no numbers', async () => {
  const node_id = randomUUID()
  const { node_no } = await hold(node_id)
  for (let beat = 0; beat < 20; beat++) await hold(node_id)
  expect((await hold(randomUUID())).node_no).toBe(node_no + 1)
})

it('many that begin together have each a number of its own', async () => {
  const held = await Promise.all(Array.from({ length: 8 }, () => hold(randomUUID())))
  expect(new Set(held.map(({ node_no }) => node_no)).size).toBe(8)
  expect((await store.listNodes()).filter(({ live }) => live).length).toBe(8)
})
