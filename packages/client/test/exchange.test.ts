import { describe, expect, it } from 'vitest'
import { bytes, take, text, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()

describe('two devices of an account', () => {
  it('an event that was sent is acked, and reaches the other device opened and with its sender (R01)', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    const ack = await laptop.stream('notes').send(bytes('hello'), { type: 'note' })
    expect(ack).toMatchObject({ position: 1, stream_seq: 1 })
    const [event] = await take(phone.stream('notes').events(), 1)
    expect(event).toMatchObject({
      is: 'event',
      event_id: ack.event_id,
      position: 1,
      stream_seq: 1,
      type: 'note',
      from: { device_id: laptop.device_id, name: 'laptop' },
      redelivered: false,
    })
    expect(text(event!)).toBe('hello')
  })

  it('2,000 events queued in one go arrive in order, each once', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    const lines = Array.from({ length: 2_000 }, (_, i) => `line ${i}\n`)
    const began = performance.now()
    const ids = await laptop.stream('main').enqueue(lines.map((line) => ({ data: bytes(line) })))
    const got = await take(phone.stream('main').events(), lines.length)
    expect(got.map(text)).toEqual(lines)
    expect(performance.now() - began).toBeLessThan(5_000)
    const outcomes = await laptop.stream('main').outcome(ids)
    expect(outcomes.every((outcome) => outcome.state === 'acked')).toBe(true)
  })
})
