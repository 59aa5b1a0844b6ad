import { randomInt } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { waterLevel } from './water-level.ts'

const levelOf = (sizes: number[], total: number) => waterLevel(Float64Array.from(sizes), total)
const sumAt = (sizes: number[], level: number) => sizes.reduce((sum, size) => sum + Math.min(size, level), 0)

describe('the water level', () => {
  it('is none while all fit', () => {
    expect(levelOf([], 0)).toBeNull()
    expect(levelOf([1, 2, 3], 6)).toBeNull()
    expect(levelOf([0, 0], 0)).toBeNull()
  })

  it('takes from the largest and nothing from who is below', () => {
    expect(levelOf([10, 100, 10], 60)).toBe(40)
    expect(levelOf([100, 50, 10], 90)).toBe(40)
    expect(levelOf([7], 3)).toBe(3)
    expect(levelOf([5, 5], 0)).toBe(0)
  })

  it('is the greatest at which all fit', () => {
    for (let round = 0; round < 500; round++) {
      const sizes = Array.from({ length: 1 + (round % 9) }, () => randomInt(50))
      const total = randomInt(200)
      const level = levelOf(sizes, total)
      if (level === null) expect(sumAt(sizes, Number.POSITIVE_INFINITY)).toBeLessThanOrEqual(total)
      else {
        expect(sumAt(sizes, level)).toBeLessThanOrEqual(total)
        expect(sumAt(sizes, level + 1)).toBeGreaterThan(total)
      }
    }
  })
})
