import { eventTimeMs, isUuid } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { expect, it } from 'vitest'
import { createEventIdMaker } from './event-id.ts'

it('ids of a maker rise, also inside one millisecond and when the clock goes back, and carry their time', () => {
  const now = Date.now()
  const makeId = createEventIdMaker(nodeCrypto)
  const ids = Array.from({ length: 10_000 }, (_, i) => makeId(now - (i % 3)))
  expect(ids.every(isUuid)).toBe(true)
  expect(ids.toSorted()).toEqual(ids)
  expect(new Set(ids).size).toBe(ids.length)
  expect(eventTimeMs(ids[0]!)).toBe(now)
  expect(eventTimeMs(ids.at(-1)!) - now).toBeLessThan(5)
  expect(ids.every((id) => id[14] === '7' && '89ab'.includes(id[19]!))).toBe(true)
})
