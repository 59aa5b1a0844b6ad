import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { createTurns } from './turns.ts'

describe('createTurns', () => {
  it('lets so many of a key in at once, in the order in which they came; other keys do not wait', async () => {
    const turns = createTurns({ width: 2, wait_ms: 5_000 })
    const began: string[] = []
    const ends: (() => void)[] = []
    const enter = (key: number, name: string) =>
      turns(key, () => {
        began.push(name)
        return new Promise<void>((resolve) => ends.push(resolve))
      })
    const all = [enter(1, 'a'), enter(1, 'b'), enter(1, 'c'), enter(1, 'd'), enter(2, 'other')]
    expect(began).toEqual(['a', 'b', 'other'])
    ends.shift()?.()
    await expect.poll(() => began).toEqual(['a', 'b', 'other', 'c'])
    while (began.length < 5 || ends.length > 0) {
      ends.shift()?.()
      await sleep(1)
    }
    expect(began.at(-1)).toBe('d')
    await Promise.all(all)
  })

  it('whoever fails gives the turn on', async () => {
    const turns = createTurns({ width: 1, wait_ms: 5_000 })
    const failing = turns(1, () => Promise.reject(new Error('no')))
    const next = turns(1, async () => 'here')
    await expect(failing).rejects.toThrow('no')
    expect(await next).toBe('here')
  })

  it('whoever waits too long is told, and stands in nobody’s way', async () => {
    const turns = createTurns({ width: 1, wait_ms: 20 })
    const first = Promise.withResolvers<string>()
    const holding = turns(1, () => first.promise)
    await expect(turns(1, async () => 'late')).rejects.toMatchObject({ code: 'unavailable' })
    first.resolve('done')
    expect(await holding).toBe('done')
    expect(await turns(1, async () => 'next')).toBe('next')
  })

  it('takes no more than a thousand that wait', async () => {
    const turns = createTurns({ width: 1, wait_ms: 5_000 })
    const first = Promise.withResolvers<void>()
    const all = Array.from({ length: 1_001 }, () => turns(1, () => first.promise))
    await expect(turns(1, async () => {})).rejects.toMatchObject({ code: 'unavailable' })
    first.resolve()
    await Promise.all(all)
  })
})
