import { type ErrorCode, SealpostError } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { openContact } from './contact.ts'
import type { Home } from '../ports.ts'
import { createServerClock } from '../connection/server-clock.ts'
import { createTestClock } from '@sealpost/testing/clients/clock-and-account'

/** Fails as told, one error per call, then succeeds; the clock is at once where the contact waits for. */
async function tries(until: number, ...errors: SealpostError[]) {
  const clock = createTestClock()
  const began = clock.mono()
  const waited: number[] = []
  const hasty = {
    ...clock,
    setTimer(ms: number, call: () => void) {
      waited.push(ms)
      const cancel = clock.setTimer(ms, call)
      queueMicrotask(() => clock.advance(ms))
      return cancel
    },
  }
  const { again } = openContact({ clock: hasty } as unknown as Home, 'https://x', createServerClock(hasty))
  let calls = 0
  const result = await again(began + until, undefined, () => {
    const error = errors[calls++]
    return error === undefined ? Promise.resolve('done') : Promise.reject(error)
  }).catch((error: unknown) => error)
  return { calls, waited, result }
}

const failure = (code: ErrorCode, retry_after_ms?: number) => new SealpostError(code, 'x', { retry_after_ms })

describe('a call on the way into an account', () => {
  it('is tried again after what passes, each pause twice the last', async () => {
    const run = await tries(10_000, failure('unreachable'), failure('timeout'), failure('unavailable'))
    expect(run).toEqual({ calls: 4, waited: [250, 500, 1_000], result: 'done' })
  })

  it('fails at once with what does not pass', async () => {
    const error = failure('not_found')
    expect(await tries(10_000, error)).toEqual({ calls: 1, waited: [], result: error })
  })

  it('that was refused for its time is tried once more, with the time that the refusal told; then it is the clock', async () => {
    expect(await tries(10_000, failure('expired'))).toEqual({ calls: 2, waited: [], result: 'done' })
    const run = await tries(10_000, failure('expired'), failure('expired'))
    expect(run).toMatchObject({ calls: 2, waited: [], result: { code: 'clock_skew' } })
  })

  it('is not tried before the time that the server gave', async () => {
    expect(await tries(10_000, failure('rate_limited', 3_000))).toEqual({ calls: 2, waited: [3_000], result: 'done' })
  })

  it('fails at once where that time is after the end of the tries', async () => {
    const error = failure('rate_limited', 3_600_000)
    expect(await tries(10_000, error)).toEqual({ calls: 1, waited: [], result: error })
  })
})
