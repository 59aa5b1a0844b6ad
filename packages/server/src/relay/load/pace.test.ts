import { expect, it } from 'vitest'
import { createPace } from './pace.ts'

const rate = { events: 100, bytes: 1_000, burst_s: 2 }

it('R12: lets a burst through, then says how long until the device is within its rate again', () => {
  const pace = createPace(rate)
  expect(pace.take('1/1', 200, 0, 0)).toBe(0)
  expect(pace.take('1/1', 50, 0, 0)).toBe(500)
  expect(pace.owed('1/1', 100)).toBe(400)
  expect(pace.owed('1/1', 500)).toBe(0)
  expect(pace.take('1/1', 0, 4_000, 500)).toBe(2_000)
  expect(pace.owed('1/2', 500)).toBe(0)
})

it('fills up to the burst and not above', () => {
  const pace = createPace(rate)
  expect(pace.take('1/1', 200, 0, 0)).toBe(0)
  expect(pace.take('1/1', 200, 0, 50_000)).toBe(0)
  expect(pace.take('1/1', 1, 0, 50_000)).toBe(10)
})

it('forgets a device that is within its rate, and keeps one that owes', () => {
  const pace = createPace(rate)
  for (let i = 0; i < 100; i++) pace.take(`1/${i}`, 1, 0, 0)
  pace.take('2/1', 10_000, 0, 60_500)
  expect(pace.size()).toBe(1)
  pace.take('2/2', 1, 0, 121_000)
  expect(pace.owed('2/1', 121_000)).toBeGreaterThan(0)
})
