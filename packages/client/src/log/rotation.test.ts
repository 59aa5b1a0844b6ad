import { LIMITS } from '@sealpost/protocol'
import { expect, it } from 'vitest'
import { rotationDue, UNREADABLE_EVERY_MS } from './rotation.ts'

const epoch = { first_seen: 0, own_events: 0, readable: true, last_forced: null }
const day = 86_400_000

it('the content key is renewed after 30 days or 2^24 own events, at once after 60 days, hourly while it does not open', () => {
  expect(rotationDue(epoch, 29 * day)).toBeNull()
  expect(rotationDue(epoch, 30 * day)).toBe('soon')
  expect(rotationDue(epoch, 60 * day)).toBe('now')
  expect(rotationDue({ ...epoch, own_events: LIMITS.epochEventsMax }, 1)).toBe('soon')
  expect(rotationDue({ ...epoch, readable: false }, 1)).toBe('now')
  expect(rotationDue({ ...epoch, readable: false, last_forced: 5 }, 5 + UNREADABLE_EVERY_MS - 1)).toBeNull()
  expect(rotationDue({ ...epoch, readable: false, last_forced: 5 }, 5 + UNREADABLE_EVERY_MS)).toBe('now')
})

it('a time that lies ahead, written while the clock was wrong, puts nothing off', () => {
  expect(rotationDue({ ...epoch, first_seen: 400 * day }, day)).toBe('now')
  expect(rotationDue({ ...epoch, readable: false, last_forced: 400 * day }, day)).toBe('now')
  expect(rotationDue({ ...epoch, first_seen: day + 1_000 }, day)).toBeNull()
})
