import { describe, expect, it } from 'vitest'
import type { SealpostError } from '@sealpost/protocol'
import { type Connection, type Home, type Notice, Sealpost, type Transport, type TransportHandlers } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { bytes, settled, take, text, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()

/** `frame`: counted from the next one sent, which is 1. */
type Cut = { frame: number; when: 'before' | 'answered' }

/** A transport whose sockets a test can cut, as a network does: nothing said, nothing flushed. */
function cuttable(
  transport: Transport,
): Transport & { cut(): void; sockets: number; cutAt: Cut | null; held: PromiseWithResolvers<void> | null } {
  const open = new Set<{ handlers: TransportHandlers; close(): void }>()
  const wrapped = {
    sockets: 0,
    cutAt: null as Cut | null,
    held: null as PromiseWithResolvers<void> | null,
    cut() {
      for (const { handlers, close } of open) {
        close()
        handlers.closed(1006, '')
      }
      open.clear()
    },
    connect(url: string, protocols: readonly string[], handlers: TransportHandlers): Connection {
      let cut = false
      let answering = false
      wrapped.sockets++
      const entry = {
        handlers,
        close() {
          cut = true
          socket.close(1000)
        },
      }
      const guard =
        <A extends unknown[]>(call: (...args: A) => void) =>
        (...args: A): void => {
          if (!cut) call(...args)
        }
      const socket = transport.connect(url, protocols, {
        opened: () => void Promise.resolve(wrapped.held?.promise).then(guard(() => handlers.opened())),
        text: guard((frame) => handlers.text(frame)),
        binary: guard((frame) => {
          if (answering) return wrapped.cut()
          handlers.binary(frame)
        }),
        closed: guard((code, reason, cause) => {
          open.delete(entry)
          handlers.closed(code, reason, cause)
        }),
      })
      open.add(entry)
      return {
        sendText: (frame) => socket.sendText(frame),
        sendBinary(frame) {
          const { cutAt } = wrapped
          if (cutAt !== null && --cutAt.frame === 0) {
            wrapped.cutAt = null
            if (cutAt.when === 'before') return wrapped.cut()
            answering = true
          }
          socket.sendBinary(frame)
        },
        get buffered_amount() {
          return socket.buffered_amount
        },
        pause: () => socket.pause(),
        resume: () => socket.resume(),
        close: (code, reason) => socket.close(code, reason),
      }
    },
  }
  return wrapped
}

function withTransport(home: Home, transport: Transport): Home {
  return { ...home, transport }
}

async function openCuttable(): Promise<{ sender: Sealpost; network: ReturnType<typeof cuttable> }> {
  const { sealpost: laptop } = await relay.create('laptop')
  await laptop.close()
  const home = await openHome(folderOf('laptop'))
  const network = cuttable(home.transport)
  const sender = relay.keep(await Sealpost.open({ home: withTransport(home, network) }))
  await settled(() => sender.state).toBe('live')
  return { sender, network }
}

describe('a bad network', () => {
  it('every event is acked once and arrives once, in order, over sockets that are cut again and again (R04, C3)', async () => {
    const { sender, network } = await openCuttable()
    const receiverNetwork: ReturnType<typeof cuttable>[] = []
    const phone = await relay.pair(sender, 'phone', (of) => {
      const cut = cuttable(of.transport)
      receiverNetwork.push(cut)
      return withTransport(of, cut)
    })
    const lines = Array.from({ length: 2_000 }, (_, i) => `${i}`)
    const received = take(phone.stream('main').events(), lines.length)
    const ids: string[] = []
    for (let i = 0; i < lines.length; i += 100) {
      ids.push(...(await sender.stream('main').enqueue(lines.slice(i, i + 100).map((line) => ({ data: bytes(line) })))))
      if (i % 400 !== 0) continue
      const { sockets } = network
      network.cut()
      receiverNetwork[0]?.cut()
      while (network.sockets === sockets) await new Promise((resolve) => setTimeout(resolve, 10))
    }
    const got = await received
    expect(got.map(text)).toEqual(lines)
    expect(got.map((event) => event.is === 'event' && event.stream_seq)).toEqual(lines.map((_, i) => i + 1))
    const outcomes = await sender.stream('main').outcome(ids)
    expect(outcomes.filter((outcome) => outcome.state !== 'acked')).toEqual([])
    expect(network.sockets).toBeGreaterThan(5)
    expect((await phone.status()).alarms).toBe(0)
  }, 60_000)

  it('what is queued while the server is away goes out when it is back, and flush waits for it (R09)', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    const states: string[] = []
    laptop.on((notice: Notice) => notice.is === 'state' && states.push(notice.state))
    await relay.stop()
    await settled(() => laptop.state).not.toBe('live')
    await laptop.stream('main').enqueue([{ data: bytes('a') }, { data: bytes('b') }])
    expect((await laptop.status()).outbox.pending).toBe(2)
    const soon = new AbortController()
    setTimeout(() => soon.abort(), 100)
    await expect(laptop.flush({ signal: soon.signal })).rejects.toMatchObject({ code: 'aborted' })
    await relay.start()
    await laptop.flush()
    expect((await take(phone.stream('main').events(), 2)).map(text)).toEqual(['a', 'b'])
    expect(states).toContain('offline')
    await settled(() => states.at(-1)).toBe('live')
    expect((await laptop.status()).last_error).toBeNull()
  }, 60_000)

  it('a change of the device list outlives its connection, whether it had left or was stored without its answer (R07)', async () => {
    const { sender, network } = await openCuttable()
    // the log is read first, then changed
    for (const frame of [1, 2])
      for (const when of ['before', 'answered'] as const) {
        const { sockets } = network
        network.cutAt = { frame, when }
        expect(await sender.rename(sender.device_id, `${when} ${frame}`)).toBe(`${when} ${frame}`)
        expect(network.sockets).toBeGreaterThan(sockets)
        expect((await sender.devices()).map((device) => device.name)).toEqual([`${when} ${frame}`])
      }
    // read for the offer, and again for the change
    network.cutAt = { frame: 3, when: 'answered' }
    const phone = await relay.pair(sender, 'phone')
    expect(network.cutAt).toBeNull()
    // the tips of what it sent are asked for in between
    network.cutAt = { frame: 3, when: 'answered' }
    await sender.revoke(phone.device_id)
    expect(network.cutAt).toBeNull()
    const revoked = (await sender.devices()).find((device) => device.device_id === phone.device_id)
    expect(revoked).toMatchObject({ revoked: expect.anything() })
  }, 60_000)

  it('a change that was stored without an answer is not made again over a later one (C3)', async () => {
    const { sender, network } = await openCuttable()
    const phone = await relay.pair(sender, 'phone')
    await settled(() => sender.state).toBe('live')
    network.cutAt = { frame: 2, when: 'answered' }
    network.held = Promise.withResolvers<void>()
    const renaming = sender.rename(phone.device_id, 'first')
    await settled(async () => (await phone.devices()).some(({ name }) => name === 'first')).toBe(true)
    await phone.rename(phone.device_id, 'later')
    network.held.resolve()
    expect(await renaming).toBe('first')
    await settled(async () => (await sender.devices()).map(({ name }) => name).toSorted()).toEqual(['laptop', 'later'])
  }, 60_000)

  it('what waits for a connection ends with close', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    await relay.stop()
    await settled(() => laptop.state).toBe('offline')
    const renaming = laptop.rename(laptop.device_id, 'too late').catch((error: SealpostError) => error.code)
    await new Promise((resolve) => setTimeout(resolve, 200))
    const asked = performance.now()
    await laptop.close()
    expect(await renaming).toBe('unreachable')
    expect(performance.now() - asked).toBeLessThan(3_000)
    await relay.start()
  }, 60_000)

  it('an address where nobody answers is unreachable, and said so', async () => {
    const options = { server: 'http://127.0.0.1:9', name: 'x', device_type: 'desktop' as const }
    await expect(Sealpost.create({ ...options, home: await relay.home('x') })).rejects.toMatchObject({ code: 'unreachable' })
    await expect(Sealpost.create({ ...options, server: 'http://relay.example', home: await relay.home('x') })).rejects.toMatchObject({
      code: 'invalid_request',
    })
  })
})

describe('a reader', () => {
  it('continues where it stopped, sees again only what it had not taken, and reads from the start without moving', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    for (const line of ['1', '2', '3', '4']) await laptop.stream('main').send(bytes(line))
    expect((await take(phone.stream('main').events(), 2)).map(text)).toEqual(['1', '2'])
    const [next] = await take(phone.stream('main').events(), 1)
    expect(next).toMatchObject({ position: 3, redelivered: false })
    expect((await take(phone.stream('main').events({ from: 'start', consumer: 'other' }), 4)).map(text)).toEqual(['1', '2', '3', '4'])
    const stop = new AbortController()
    const live = (async () => {
      const out: string[] = []
      for await (const event of phone.stream('main').events({ from: 'now', consumer: 'now', signal: stop.signal })) {
        out.push(text(event))
        stop.abort()
      }
      return out
    })()
    await new Promise((resolve) => setTimeout(resolve, 50))
    await laptop.stream('main').send(bytes('5'))
    expect(await live).toEqual(['5'])
  })

  it('after a crash what it may have seen comes again, marked (C2)', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    for (const line of ['1', '2', '3']) await laptop.stream('main').send(bytes(line))
    await settled(async () => (await phone.status()).position).toBe(3)
    // never ended: what a killed process leaves behind
    const killed = phone.stream('main').events()
    await killed.next()
    await killed.next()
    const again = await take(phone.stream('main').events(), 3)
    expect(again.map((event) => event.is === 'event' && [event.position, event.redelivered])).toEqual([
      [1, true],
      [2, true],
      [3, true],
    ])
    await killed.return(undefined)
  })

  it('a hole that the buffer left is filled from the server, in order', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const home = await relay.home('phone')
    const phone = await relay.pair(laptop, 'phone', () => home)
    await phone.stream('main').send(bytes('own'))
    for (const line of ['1', '2', '3', '4', '5']) await laptop.stream('main').send(bytes(line))
    await laptop.stream('other').send(bytes('elsewhere'))
    await settled(async () => (await phone.status()).position).toBe(7)
    await home.store.trimReceived({ rows: 2, bytes: 1e9 })
    expect((await take(phone.stream('main').events(), 5)).map(text)).toEqual(['1', '2', '3', '4', '5'])
  })

  it('an event past its ttl is never handed over; the gap is told', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await phone.close()
    await laptop.stream('main').send(bytes('soon gone'), { ttl: 1 })
    await laptop.stream('main').send(bytes('stays'))
    await new Promise((resolve) => setTimeout(resolve, 1_100))
    const again = relay.keep(await Sealpost.open({ home: await openHome(folderOf('phone')) }))
    const [first, second] = await take(again.stream('main').events(), 2)
    expect(first).toMatchObject({ is: 'gap', reason: 'expired' })
    expect(text(second!)).toBe('stays')
  })

  it('20,000 missed events arrive opened and verified', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await phone.close()
    const payload = new Uint8Array(256).fill(65)
    for (let i = 0; i < 20; i++) await laptop.stream('main').enqueue(Array.from({ length: 1_000 }, () => ({ data: payload })))
    await laptop.flush()
    const began = performance.now()
    const again = relay.keep(await Sealpost.open({ home: await openHome(folderOf('phone')) }))
    let last = 0
    for await (const event of again.stream('main').events()) {
      if (event.is !== 'event' || event.stream_seq !== last + 1) throw new Error(`expected ${last + 1}`)
      last = event.stream_seq
      if (last === 20_000) break
    }
    const ms = performance.now() - began
    expect(ms).toBeLessThan(20_000)
  }, 90_000)
})

function folderOf(name: string): string {
  const folder = relay.last(name)
  if (folder === undefined) throw new Error(`no home of ${name}`)
  return folder
}
