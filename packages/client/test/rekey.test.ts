import { expect, it } from 'vitest'
import { type TransportHandlers } from '../src/index.ts'
import { text, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()

it('session keys are renewed under load: no event is lost or doubled, and no connection is given up (R11)', async () => {
  await relay.stop()
  await relay.start({ SEALPOST_REKEY_AFTER_FRAMES: '32', SEALPOST_REKEY_AFTER_S: '1' })
  const { sealpost: laptop } = await relay.create('laptop')
  const generations = new Set<number>()
  let sockets = 0
  const phone = await relay.pair(laptop, 'phone', (home) => ({
    ...home,
    transport: {
      connect(url, protocols, handlers) {
        sockets++
        const watched: TransportHandlers = {
          ...handlers,
          binary(frame) {
            generations.add(frame[0] ?? -1)
            handlers.binary(frame)
          },
        }
        return home.transport.connect(url, protocols, watched)
      },
    },
  }))
  const sent: string[] = []
  const received: string[] = []
  const stop = new AbortController()
  const reading = (async () => {
    for await (const event of phone.stream('main').events({ signal: stop.signal })) received.push(text(event))
  })()
  const until = Date.now() + 3_500
  while (Date.now() < until) {
    const line = String(sent.length)
    sent.push(line)
    await Promise.all([laptop.stream('main').send(new TextEncoder().encode(line)), phone.stream('other').send(new Uint8Array(3))])
  }
  await expect.poll(() => received.length, { timeout: 10_000 }).toBe(sent.length)
  stop.abort()
  await reading
  expect(received).toEqual(sent)
  expect(generations.size).toBeGreaterThan(1)
  expect(sockets).toBe(1)
}, 40_000)
