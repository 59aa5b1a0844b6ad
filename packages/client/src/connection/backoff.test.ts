import { expect, it } from 'vitest'
import { backoffMs, toUnit } from './backoff.ts'

it('pauses lie between a quarter of a second and half a minute, and jitter spreads them over half of their bound', () => {
  for (let attempt = 1; attempt < 2_000; attempt++) {
    for (const jitter of [0, 0.3, 0.999999]) {
      const ms = backoffMs(attempt, jitter)
      expect(ms).toBeGreaterThanOrEqual(250)
      expect(ms).toBeLessThanOrEqual(30_000)
    }
  }
  expect([backoffMs(1, 0), backoffMs(1, 1), backoffMs(3, 0), backoffMs(3, 1)]).toEqual([250, 500, 1_000, 2_000])
})

it('random bytes become a number in [0, 1)', () => {
  expect(toUnit(new Uint8Array(6))).toBe(0)
  expect(toUnit(new Uint8Array(6).fill(255))).toBeLessThan(1)
  expect(toUnit(Uint8Array.of(128, 0, 0, 0, 0, 0))).toBe(0.5)
})
