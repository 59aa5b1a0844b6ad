import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createAdmission } from './admission.ts'

const anyPart = (): number => randomInt(2 ** 32) / 2 ** 32

function open(per_second: number, random = anyPart) {
  const clock = { now: 5_000 }
  return { clock, admission: createAdmission({ per_second, now: () => clock.now, random }) }
}

type Herd = { admitted: number[]; attempts: number; most: number; busiest: number }

/** All come at one moment, and each again when it was told to; `read`: what it makes of the time. */
function comeBack(count: number, per_second: number, read: (ms: number) => number = (ms) => ms): Herd {
  const { clock, admission } = open(per_second)
  const coming = Array.from({ length: count }, () => ({ at: 0, tries: 0 }))
  const herd: Herd = { admitted: [], attempts: 0, most: 0, busiest: 0 }
  const perSecond: number[] = []
  for (let ms = 0; coming.length > 0; ms++) {
    clock.now = 5_000 + ms
    for (let i = coming.length - 1; i >= 0; i--) {
      const one = coming[i]!
      if (one.at > ms) continue
      one.tries += 1
      if (ms > 0) perSecond[Math.floor(ms / 1_000)] = (perSecond[Math.floor(ms / 1_000)] ?? 0) + 1
      herd.attempts += 1
      herd.most = Math.max(herd.most, one.tries)
      const wait = admission.admit()
      if (wait !== null) one.at = ms + Math.max(1, Math.round(read(wait)))
      else {
        herd.admitted.push(ms)
        coming.splice(i, 1)
      }
    }
  }
  herd.busiest = Math.max(0, ...Object.values(perSecond))
  return herd
}

describe('R12: a herd', () => {
  it.each([1, 3, 7, 500])('of %i a second: as many as that come in at one moment, and one more for each part of a second', (rate) => {
    const { clock, admission } = open(rate)
    const come = (count: number): number => Array.from({ length: count }, () => admission.admit()).filter((wait) => wait === null).length
    expect(come(3 * rate)).toBe(rate)
    clock.now += 1_000 / rate
    expect(come(3 * rate)).toBe(1)
    clock.now += 60_000
    expect(come(3 * rate)).toBe(rate)
  })

  it('R12: whenever they come, no more than rate × (t + 1) come in within t seconds', () => {
    const arrivals = fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0, max: 900, noNaN: true })), { minLength: 1, maxLength: 200 })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 30 }), arrivals, (rate, gaps) => {
        const { clock, admission } = open(rate)
        const admitted = gaps.flatMap((gap) => {
          clock.now += gap
          return admission.admit() === null ? [clock.now] : []
        })
        for (const [i, from] of admitted.entries())
          for (let j = i; j < admitted.length; j++) {
            // half a one is what the last fraction may give
            const most = rate * ((admitted[j]! - from) / 1_000 + 1) + 0.5
            expect(j - i + 1).toBeLessThanOrEqual(most + 1e-6)
          }
      }),
    )
  })

  it('R12: is told to come one after another: the time grows with how many were sent away, jittered, and is bounded', () => {
    const { admission } = open(10, () => 0.5)
    const told = Array.from({ length: 2_000 }, () => admission.admit()).filter((wait) => wait !== null)
    expect(told.slice(0, 3)).toEqual([550, 650, 750])
    expect(told[399]).toBe(40_450)
    expect(told.at(-1)).toBe(90_000)
    const jittered = open(10)
    const others = Array.from({ length: 100 }, () => jittered.admission.admit()).filter((wait) => wait !== null)
    for (const [i, wait] of others.entries()) {
      expect(wait).toBeGreaterThanOrEqual(i * 100)
      expect(wait).toBeLessThanOrEqual(i * 100 + 1_051)
    }
    expect(new Set(others.map((wait, i) => wait - i * 100)).size).toBeGreaterThan(50)
  })

  it('who was told long ago is no reason to tell others so', () => {
    const { clock, admission } = open(10)
    for (let i = 0; i < 10_000; i++) admission.admit()
    clock.now += 60_000
    for (let i = 0; i < 10; i++) expect(admission.admit()).toBeNull()
    expect(admission.admit()).toBeLessThan(1_300)
  })

  it('a look takes no room', () => {
    const { admission } = open(2)
    for (let i = 0; i < 10; i++) expect(admission.turnAway()).toBeNull()
    expect([admission.admit(), admission.admit()]).toEqual([null, null])
    expect(admission.turnAway()).toBeGreaterThan(0)
  })

  it.each([
    ['the ms of the body', (ms: number) => ms],
    ['the seconds of Retry-After', (ms: number) => Math.ceil(ms / 1_000) * 1_000],
  ])('of 2,000 at 200 a second that does as told, by %s, is in as soon as there was room, and asks twice', (_, read) => {
    const herd = comeBack(2_000, 200, read)
    // 9 s at best
    expect(herd.admitted.at(-1)).toBeLessThan(12_000)
    expect(herd.attempts).toBeLessThan(2_000 * 2.1)
    expect(herd.most).toBeLessThanOrEqual(4)
    // nor is the door busy with saying no
    expect(herd.busiest).toBeLessThan(300)
  })
})
