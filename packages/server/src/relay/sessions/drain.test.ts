import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { drainSessions } from './drain.ts'

type Told = { at: number; retry_after_ms: number }

/** `staying`: so many of them do not leave when they are told. */
function crowd(size: number, staying = 0) {
  const began = performance.now()
  const told: Told[] = []
  let turn = 0
  const empty = Promise.withResolvers<void>()
  const sessions = new Set<{ input(input: { retry_after_ms: number }): void }>()
  const arrive = (stays: boolean): void => {
    const session = {
      input: ({ retry_after_ms }: { retry_after_ms: number }) => {
        told.push({ at: performance.now() - began, retry_after_ms })
        if (stays) return
        sessions.delete(session)
        if (sessions.size === 0) empty.resolve()
      },
    }
    sessions.add(session)
  }
  for (let i = 0; i < size; i++) arrive(i < staying)
  if (size === 0) empty.resolve()
  const drain = async (drainSpreadMs: number, drainMs: number): Promise<number> => {
    const limits = { drainSpreadMs, drainMs, drainRetryMs: 1_000 }
    await drainSessions({ sessions, left: () => empty.promise, limits, random: () => (turn = (turn + 0.618) % 1) })
    return performance.now() - began
  }
  return { told, sessions, arrive, drain }
}

/** Who was told within one turn, together. */
function slicesOf(told: readonly Told[]): number[] {
  const slices: number[] = []
  let last = Number.NEGATIVE_INFINITY
  for (const { at } of told) {
    if (at - last > 40) slices.push(0)
    slices[slices.length - 1]! += 1
    last = at
  }
  return slices
}

describe('R07: sessions leave', () => {
  it('in slices of like size over the time that there is, each with a time of its own to come again', async () => {
    const { told, drain } = crowd(400)
    const took = await drain(1_000, 5_000)
    expect(told).toHaveLength(400)
    const slices = slicesOf(told)
    expect(slices.length).toBeGreaterThanOrEqual(8)
    // those after a late turn are larger; all at once would be 400
    expect(Math.max(...slices)).toBeLessThanOrEqual(200)
    expect(took).toBeGreaterThan(800)
    expect(took).toBeLessThan(4_000)
    expect(new Set(told.map(({ retry_after_ms }) => retry_after_ms)).size).toBeGreaterThan(200)
    expect(Math.max(...told.map(({ retry_after_ms }) => retry_after_ms))).toBeLessThan(1_000)
  })

  it('a few at once, and where nobody is there is nothing to wait for', async () => {
    const few = crowd(10)
    expect(await few.drain(60_000, 60_000)).toBeLessThan(5_000)
    expect(slicesOf(few.told)).toEqual([10])
    expect(await crowd(0).drain(60_000, 60_000)).toBeLessThan(5_000)
  })

  it('also one that comes when the others were told', async () => {
    const { told, arrive, drain } = crowd(1, 1)
    const drained = drain(0, 1_000)
    await sleep(50)
    arrive(true)
    await drained
    expect(told).toHaveLength(2)
  })

  it('until the time is over, whoever stays; nobody is told twice', async () => {
    const { told, sessions, drain } = crowd(30, 5)
    const took = await drain(200, 300)
    expect(told).toHaveLength(30)
    expect(sessions.size).toBe(5)
    expect(took).toBeGreaterThanOrEqual(500)
    expect(took).toBeLessThan(900)
  })
})
