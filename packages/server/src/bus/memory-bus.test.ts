import { expect, it } from 'vitest'
import type { Hint } from '../ports/store.ts'
import { createMemoryBus } from './memory-bus.ts'

const log = (log_seq: number): Hint => ({ is: 'log', history_id: 'h', log_seq, revoked: [] })

it('R10: a hint reaches every subscriber of its user, nobody else, and nobody after the end', async () => {
  const bus = createMemoryBus()
  const got: string[] = []
  const note = (name: string) => (hint: Hint) => got.push(`${name}${hint.is === 'log' ? hint.log_seq : ''}`)
  const leave = bus.subscribe(1, note('a'))
  bus.subscribe(1, note('b'))
  bus.subscribe(2, note('c'))
  bus.publish(1, log(1))
  leave()
  leave()
  bus.publish(1, log(2))
  bus.publish(3, log(3))
  await bus.close()
  bus.publish(1, log(4))
  expect(got).toEqual(['a1', 'b1', 'b2'])
})

it('G13: counts users whose hints are received, however many receive them, and gives each back', async () => {
  const bus = createMemoryBus()
  const leave = [bus.subscribe(1, () => {}), bus.subscribe(1, () => {}), bus.subscribe(2, () => {})]
  expect(bus.subscriptions()).toBe(2)
  leave[0]!()
  leave[0]!()
  expect(bus.subscriptions()).toBe(2)
  for (const go of leave) go()
  expect(bus.subscriptions()).toBe(0)
  bus.subscribe(3, () => {})
  await bus.close()
  expect(bus.subscriptions()).toBe(0)
})

it('hints of other nodes never come, and nothing is told of it', () => {
  const bus = createMemoryBus()
  const told: string[] = []
  bus.onReach((reach) => told.push(reach))
  bus.publish(1, log(1))
  expect([bus.reach(), told]).toEqual(['alone', []])
})

it('keeps one order for all, also of what is published while hints are handed out, and survives a subscriber that throws', () => {
  const failures: unknown[] = []
  const bus = createMemoryBus((error) => failures.push(error))
  const got: number[] = []
  bus.subscribe(1, (hint) => {
    if (hint.is === 'log' && hint.log_seq === 1) bus.publish(1, log(2))
    throw new Error('no')
  })
  bus.subscribe(1, (hint) => hint.is === 'log' && got.push(hint.log_seq))
  bus.publish(1, log(1))
  expect(got).toEqual([1, 2])
  expect(failures.length).toBe(2)
})
