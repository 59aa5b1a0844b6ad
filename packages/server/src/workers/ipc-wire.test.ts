/** What a bus promises over this wire is in `bus/bus.test.ts`; here is what it does with its channels. */
import { setImmediate as turn } from 'node:timers/promises'
import { expect, it } from 'vitest'
import type { Wire } from '../bus/wire.ts'
import type { Channel, ToPrimary, ToWorker } from './channel.ts'
import { createWireHub, createWorkerWire, WAITING_BYTES_MAX } from './ipc-wire.ts'

/** A channel whose other end is the test. `full`: nothing leaves the process. */
function makeChannel<M>(): { channel: Pick<Channel<M, never>, 'send' | 'waiting'>; sent: M[]; full: boolean } {
  const made = {
    sent: [] as M[],
    full: false,
    channel: { send: (message: M) => void made.sent.push(message), waiting: () => (made.full ? WAITING_BYTES_MAX + 1 : 0) },
  }
  return made
}

function openWire(): ReturnType<typeof makeChannel<ToPrimary>> & { wire: Wire; up: boolean[]; got: number[] } {
  const made = makeChannel<ToPrimary>()
  const up: boolean[] = []
  const got: number[] = []
  const { open, received } = createWorkerWire(made.channel)
  const wire = open({ received: (topic) => got.push(topic), changed: (is) => up.push(is) })
  received([[1, new Uint8Array(1)]])
  return Object.assign(made, { wire, up, got })
}

const bytes = (n: number): Uint8Array<ArrayBuffer> => new Uint8Array(n)

it('is up from the start, and what is said in one turn is one message each of topics and hints', async () => {
  const { wire, sent, up, got } = openWire()
  expect([up, got]).toEqual([[true], [1]])
  for (const topic of [7, 8, 9]) wire.subscribe(topic)
  wire.unsubscribe(8)
  for (const topic of [7, 5]) wire.publish(topic, bytes(3))
  await turn()
  expect(sent).toEqual([
    { is: 'topics', joined: [7, 9], parted: [8] },
    {
      is: 'hints',
      hints: [
        [7, bytes(3)],
        [5, bytes(3)],
      ],
    },
  ])
})

it('loses hints for which there is no room, and no topic', async () => {
  const made = openWire()
  made.full = true
  made.wire.publish(1, bytes(3))
  made.wire.subscribe(1)
  await turn()
  expect(made.sent).toEqual([])
  made.full = false
  await expect.poll(() => made.sent).toEqual([{ is: 'topics', joined: [1], parted: [] }])
  made.sent.length = 0
  for (let i = 0; i < 20; i++) made.wire.publish(1, bytes(1_048_576))
  await turn()
  const [message] = made.sent
  expect(message?.is === 'hints' && message.hints.length).toBe(8)
})

it('the hub passes a hint on to those who want it but for its sender, and forgets who is gone', async () => {
  const hub = createWireHub()
  const ends = [1, 2, 3].map(() => makeChannel<ToWorker>())
  const [a, b, c] = ends.map((end) => hub.add(end.channel)) as [
    ReturnType<typeof hub.add>,
    ReturnType<typeof hub.add>,
    ReturnType<typeof hub.add>,
  ]
  for (const member of [a, b]) member.topics({ joined: [1, 2], parted: [] })
  c.topics({ joined: [2, 3], parted: [] })
  c.topics({ joined: [], parted: [2] })
  a.published([
    [1, bytes(1)],
    [3, bytes(2)],
    [4, bytes(3)],
  ])
  a.published([[2, bytes(4)]])
  await turn()
  const hints = ends.map(({ sent }) => sent.flatMap((message) => (message.is === 'hints' ? message.hints : [])))
  expect(hints).toEqual([
    [],
    [
      [1, bytes(1)],
      [2, bytes(4)],
    ],
    [[3, bytes(2)]],
  ])
  expect(ends[1]?.sent).toHaveLength(1)
  b.leave()
  a.published([[1, bytes(1)]])
  await turn()
  expect(ends[1]?.sent).toHaveLength(1)
})

it('one that is frozen gets no more than there is room for, and the others all', async () => {
  const hub = createWireHub()
  const [a, frozen, other] = [makeChannel<ToWorker>(), makeChannel<ToWorker>(), makeChannel<ToWorker>()]
  const sender = hub.add(a.channel)
  for (const end of [frozen, other]) hub.add(end.channel).topics({ joined: [1], parted: [] })
  frozen.full = true
  for (let i = 0; i < 5; i++) {
    sender.published([[1, bytes(10)]])
    await turn()
  }
  expect([frozen.sent.length, other.sent.length]).toEqual([0, 5])
})
