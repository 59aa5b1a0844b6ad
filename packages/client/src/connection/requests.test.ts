import type { ClientHead } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { createRequests } from './requests.ts'
import { createTestClock } from '@sealpost/testing/clients/clock-and-account'

function createWorld(sends = true) {
  const clock = createTestClock()
  const sent: ClientHead[] = []
  const requests = createRequests(clock, (head) => {
    sent.push(head)
    return sends
  })
  const ask = (signal?: AbortSignal) =>
    requests.ask('log_entries', (id) => ({ type: 'log_request', id, from_log_seq: 0 }), signal === undefined ? {} : { signal })
  return { clock, sent, requests, ask }
}
const entries = (id: number) => ({ head: { type: 'log_entries' as const, id, entries: [], has_more: false }, body: new Uint8Array(0) })

describe('a request over the socket', () => {
  it('gets the answer with its id, whatever the order', async () => {
    const { requests, ask } = createWorld()
    const [one, two] = [ask(), ask()]
    expect(requests.answer(entries(2))).toBe(true)
    expect(requests.answer(entries(1))).toBe(true)
    expect([(await one).head.id, (await two).head.id]).toEqual([1, 2])
    expect(requests.answer(entries(1))).toBe(false)
  })

  it('ends with the refusal, the session, the deadline or the caller, each with its code', async () => {
    const { requests, ask, clock } = createWorld()
    const refused = ask()
    expect(requests.refuse(1, 'invalid_token')).toBe(true)
    await expect(refused).rejects.toMatchObject({ code: 'invalid_token' })
    const lost = ask()
    requests.end()
    await expect(lost).rejects.toMatchObject({ code: 'unreachable' })
    const late = ask()
    clock.advance(20_000)
    await expect(late).rejects.toMatchObject({ code: 'timeout' })
    const stop = new AbortController()
    const stopped = ask(stop.signal)
    stop.abort()
    await expect(stopped).rejects.toMatchObject({ code: 'aborted' })
    const wrong = ask()
    requests.answer({ head: { type: 'tips', id: 5, last_device_seq: 0, complete: true }, body: new Uint8Array(0) })
    await expect(wrong).rejects.toMatchObject({ code: 'invalid_message' })
    await expect(createWorld(false).ask()).rejects.toMatchObject({ code: 'unreachable' })
  })
})
