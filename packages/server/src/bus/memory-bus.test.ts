import { expect, it } from 'vitest'
import type { Hint } from '../ports.ts'
import { createMemoryBus } from './memory-bus.ts'

const log = (log_seq: number): Hint => ({ is: 'log', log_seq, revoked: [] })

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
