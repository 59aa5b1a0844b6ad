import { afterEach, expect, it, vi } from 'vitest'
import { createMemoryCounter } from '../limits/memory-counter.ts'
import type { LimitCounter } from '../limits/counter.ts'
import { type ChannelEnds, makeChannelEnds } from '@sealpost/testing/relays/worker-channels'
import { answerCount, createWorkerCounter } from './ipc-counter.ts'

const LIMIT = { name: 'genesis', points: 10, duration: 3_600 }
const open: ChannelEnds[] = []

afterEach(() => {
  vi.useRealTimers()
  for (const ends of open.splice(0)) ends.close()
})

/** A worker of a primary with this counter. `own`: nodes of this machine, `nodes`: of all. */
function openWorker(counter: LimitCounter | null, { own = 2, nodes = 2 } = {}): LimitCounter {
  const ends = makeChannelEnds()
  open.push(ends)
  const counts = createWorkerCounter(ends.worker)
  ends.worker.receive((message) => {
    if (message.is === 'counted') counts.counted(message.id, message.wait)
  })
  ends.primary.receive((message) => {
    if (counter !== null && (message.is === 'consume' || message.is === 'reward'))
      void answerCount(counter, own, message).then((answer) => ends.primary.send(answer))
  })
  return counts.counter(() => nodes)
}

async function take(workers: readonly LimitCounter[], times: number): Promise<number> {
  const waits = await Promise.all(
    Array.from({ length: times }, (_, i) => (workers[i % workers.length] as LimitCounter).consume(LIMIT, 'a', 1)),
  )
  return waits.filter((wait) => wait === null).length
}

it('R12: workers count as one, with the time to wait; what is given back by one is there for the other', async () => {
  const counter = createMemoryCounter()
  const workers = [openWorker(counter), openWorker(counter)]
  expect(await take(workers, 25)).toBe(10)
  expect(await workers[0]?.consume(LIMIT, 'a', 1)).toBeGreaterThan(3_000_000)
  await workers[0]?.reward(LIMIT, 'a', 20)
  expect(await take(workers, 20)).toBeGreaterThan(0)
  expect(await workers[1]?.consume(LIMIT, 'b', 10)).toBeNull()
})

it('where others live with whom nothing is shared, a machine has its part of a limit, and at least one', async () => {
  expect(await take([openWorker(createMemoryCounter(), { own: 2, nodes: 4 })], 20)).toBe(5)
  expect(await take([openWorker(createMemoryCounter(), { own: 3, nodes: 4 })], 20)).toBe(7)
  expect(await take([openWorker(createMemoryCounter(), { own: 1, nodes: 400 })], 20)).toBe(1)
  // the workers have not heard of those that ended
  expect(await take([openWorker(createMemoryCounter(), { own: 4, nodes: 2 })], 20)).toBe(10)
})

it('an ask ends within a second though nobody answers, and there are not more than so many', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  const worker = openWorker(null)
  const asks = Array.from({ length: 8_192 }, () => worker.consume(LIMIT, 'a', 1).catch((error: Error) => error.message))
  await expect(worker.consume(LIMIT, 'a', 1)).rejects.toThrow('too many asks')
  vi.advanceTimersByTime(1_000)
  expect(new Set(await Promise.all(asks))).toEqual(new Set(['no answer in time']))
})
