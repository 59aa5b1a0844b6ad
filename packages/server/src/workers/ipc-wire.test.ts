/** What a bus promises over this wire is in `bus/bus.test.ts`; here is how it is done. */
import { randomBytes } from 'node:crypto'
import { type Duplex, duplexPair } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, it } from 'vitest'
import type { Wire } from '../bus/wire.ts'
import { createWireHub, openIpcWire, WAITING_BYTES_MAX, type WireHub } from './ipc-wire.ts'

type Worker = { wire: Wire; up: boolean[]; got: [topic: number, message: Buffer][]; far: Duplex; near: Duplex }

/** A worker of the hub; without one, of a primary that reads nothing. */
function openWorker(hub: WireHub | null): Worker {
  const [far, near] = duplexPair()
  const up: boolean[] = []
  const got: Worker['got'] = []
  const wire = openIpcWire(far)({
    received: (topic, message) => got.push([topic, Buffer.from(message)]),
    changed: (is) => up.push(is),
  })
  hub?.add(near)
  return { wire, up, got, far, near }
}

const MIB = 1_048_576

it('a message reaches those who want its topic, but for its sender, byte for byte whatever its size; all are up from the start', async () => {
  const hub = createWireHub()
  const [a, b, c] = [openWorker(hub), openWorker(hub), openWorker(hub)]
  const topics = [7, 2 ** 40 + 5, 9]
  for (const { wire } of [a, b]) for (const topic of topics) wire.subscribe(topic)
  for (const topic of topics) c.wire.subscribe(topic)
  c.wire.unsubscribe(7)
  b.wire.unsubscribe(9)
  b.wire.subscribe(9)
  await expect.poll(() => hub.topics()).toBe(3)
  await turn()
  const sent: Worker['got'] = [0, 1, 70_000, 3 * MIB, 5].map((size, i) => [topics[i % 3] ?? 0, randomBytes(size)])
  for (const [topic, message] of sent) a.wire.publish(topic, () => message)
  a.wire.publish(8, () => randomBytes(3))
  await expect.poll(() => [b.got.length, c.got.length]).toEqual([5, 3])
  // byte by byte through an assertion takes seconds
  const texts = (messages: Worker['got']): string[] => messages.map(([topic, message]) => `${topic} ${message.toString('base64')}`)
  expect(texts(b.got)).toEqual(texts(sent))
  expect(texts(c.got)).toEqual(texts(sent.filter(([topic]) => topic !== 7)))
  expect([a.got, a.up, b.up]).toEqual([[], [true], [true]])
})

it('what is said in one turn leaves as one write', async () => {
  const { wire, far } = openWorker(null)
  let writes = 0
  const write = far.write.bind(far)
  far.write = ((chunk: Buffer) => {
    writes += 1
    return write(chunk)
  }) as typeof far.write
  for (let i = 0; i < 100; i++) wire.publish(i, () => randomBytes(10))
  await turn()
  expect(writes).toBe(1)
})

it('where nobody reads, hints above the bound are lost, and topics are told when there is room', async () => {
  const { wire, far, near } = openWorker(null)
  for (let i = 0; i < 100; i++) wire.publish(1, () => randomBytes(MIB))
  await turn()
  expect(far.writableLength).toBeLessThan(WAITING_BYTES_MAX + 2 * MIB)
  for (let i = 0; i < 100; i++) wire.publish(1, () => randomBytes(MIB))
  wire.subscribe(5)
  await turn()
  expect(far.writableLength).toBeLessThan(WAITING_BYTES_MAX + 2 * MIB)
  const hub = createWireHub()
  hub.add(near)
  await expect.poll(() => hub.topics()).toBe(1)
})

it('a worker that reads nothing keeps nothing from the others, and one that is gone is forgotten', async () => {
  const hub = createWireHub()
  const [a, frozen, other] = [openWorker(hub), openWorker(hub), openWorker(hub)]
  for (const { wire } of [frozen, other]) wire.subscribe(1)
  frozen.wire.subscribe(2)
  await expect.poll(() => hub.topics()).toBe(2)
  frozen.far.pause()
  for (let i = 0; i < 40; i++) {
    a.wire.publish(1, () => randomBytes(MIB))
    await turn()
  }
  await expect.poll(() => other.got.length).toBe(40)
  expect(frozen.near.writableLength).toBeLessThan(WAITING_BYTES_MAX + 2 * MIB)
  frozen.near.destroy()
  await expect.poll(() => hub.topics()).toBe(1)
  a.wire.publish(1, () => randomBytes(1))
  await expect.poll(() => other.got.length).toBe(41)
})

it('after its end a wire takes and gives nothing', async () => {
  const hub = createWireHub()
  const [a, b] = [openWorker(hub), openWorker(hub)]
  b.wire.subscribe(1)
  await expect.poll(() => hub.topics()).toBe(1)
  await b.wire.close()
  a.wire.publish(1, () => randomBytes(1))
  b.wire.publish(1, () => randomBytes(1))
  await turn()
  await turn()
  expect([a.got, b.got]).toEqual([[], []])
})
