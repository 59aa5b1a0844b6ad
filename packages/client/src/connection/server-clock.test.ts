import { describe, expect, it } from 'vitest'
import { NOW_MS } from '@sealpost/testing/clients/honest-events'
import { createServerClock, openServerClock } from './server-clock.ts'
import { createMemoryStore } from '@sealpost/testing/clients/memory-store'
import { createTestClock } from '@sealpost/testing/clients/clock-and-account'

const HOUR = 3_600_000
const dateOf = (ms: number): string => new Date(ms).toUTCString()

describe("the server's clock", () => {
  it('is that of the device until something is told', () => {
    const time = createServerClock(createTestClock())
    expect([time.now(), time.offset, time.sure]).toEqual([NOW_MS, 0, false])
  })

  it('a handshake is sure until the clock of the device is changed; the next handshake makes it sure again', () => {
    const clock = createTestClock()
    const time = createServerClock(clock)
    time.hear(NOW_MS + HOUR)
    clock.advance(60_000)
    expect([time.now(), time.sure]).toEqual([NOW_MS + HOUR + 60_000, true])
    clock.set(NOW_MS + HOUR + 60_000)
    expect(time.sure).toBe(false)
    time.hear(NOW_MS + HOUR + 60_000)
    expect([time.offset, time.sure]).toEqual([0, true])
  })

  it('the date of an answer counts only while no handshake is sure; what is no date tells nothing', () => {
    const clock = createTestClock()
    const time = createServerClock(clock)
    time.hearDate(dateOf(NOW_MS + HOUR))
    expect([Math.round((time.offset - HOUR - 500) / 1_000), time.sure]).toEqual([0, false])
    time.hear(NOW_MS)
    for (const date of [dateOf(NOW_MS + HOUR), 'soon', undefined]) time.hearDate(date)
    expect([time.offset, time.sure]).toEqual([0, true])
    clock.set(NOW_MS - HOUR)
    time.hearDate(dateOf(NOW_MS))
    expect(Math.round((time.offset - HOUR - 500) / 1_000)).toBe(0)
  })

  it('what was told before is a hint for the next process, and worth nothing when the clock shows an earlier time than then', async () => {
    const store = createMemoryStore()
    const clock = createTestClock()
    clock.set(NOW_MS + HOUR)
    ;(await openServerClock({ clock, store })).hear(NOW_MS)
    const next = await openServerClock({ clock, store })
    expect([next.now(), next.sure]).toEqual([NOW_MS, false])
    // set right
    clock.set(NOW_MS + 1_000)
    expect((await openServerClock({ clock, store })).now()).toBe(NOW_MS + 1_000)
    // the server's clock does not go back
    clock.set(NOW_MS - HOUR)
    expect((await openServerClock({ clock, store })).now()).toBe(NOW_MS)
  })
})
