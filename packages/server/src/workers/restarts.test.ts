import { expect, it } from 'vitest'
import { createRestarts } from './restarts.ts'

const SOON = 5_000
const LATE = 60_000

it('pauses grow while a worker ends soon, and begin anew after one that lived', () => {
  const restarts = createRestarts()
  expect([LATE, SOON, SOON, SOON, LATE, SOON].map((lived) => restarts.next(lived, true))).toEqual([0, 100, 500, 1_000, 0, 100])
})

it('five that end soon in a row are enough', () => {
  const restarts = createRestarts()
  expect(Array.from({ length: 5 }, () => restarts.next(SOON, true))).toEqual([100, 500, 1_000, 2_000, null])
})

it('an end for something that passes by itself is no reason to give up', () => {
  const restarts = createRestarts()
  for (let i = 0; i < 100; i++) expect(restarts.next(SOON, false)).toBe(2_000)
  expect(restarts.next(SOON, true)).toBe(100)
})
