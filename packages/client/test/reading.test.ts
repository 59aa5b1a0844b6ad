import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { type Home, Sealpost } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { bytes, settled, text, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()

const send = (from: Sealpost, ...texts: string[]): Promise<unknown> => Promise.all(texts.map((one) => from.stream('main').send(bytes(one))))

/** Collects what a consumer is handed until the test ends it. */
function collect(of: Sealpost, o: Parameters<ReturnType<Sealpost['stream']>['events']>[0] = {}) {
  const got: string[] = []
  const ended = new AbortController()
  const done = (async () => {
    for await (const event of of.stream('main').events({ ...o, signal: ended.signal })) got.push(text(event))
  })()
  return { got, end: () => (ended.abort(), done) }
}

describe('reading from the start', () => {
  it('what the query has shown is not handed over again when the same rows arrive live (C2)', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await phone.close()
    await send(laptop, '1', '2')
    await laptop.stream('main').enqueue(['3', '4', '5'].map((one) => ({ data: bytes(one) })))
    await laptop.flush()
    // the buffer of this home fills only after the query was answered
    const home = slowToStore(await openHome(relay.last('phone')!), 700)
    const reader = relay.keep(await Sealpost.open({ home }))
    const reading = collect(reader, { from: 'start' })
    await settled(() => reading.got.length).toBeGreaterThanOrEqual(5)
    await send(laptop, '6')
    await settled(() => reading.got.includes('6')).toBe(true)
    await sleep(300)
    expect(reading.got).toEqual(['1', '2', '3', '4', '5', '6'])
    await reading.end()
  })

  it('events of this device are left out, as they are live', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await send(laptop, 'own')
    await send(phone, 'theirs')
    const reading = collect(laptop, { from: 'start' })
    await settled(() => reading.got.length).toBeGreaterThan(0)
    await send(laptop, 'own again')
    await send(phone, 'theirs again')
    await settled(() => reading.got.length).toBeGreaterThan(1)
    expect(reading.got).toEqual(['theirs', 'theirs again'])
    await reading.end()
  })
})

describe('reading from now', () => {
  it('what waited on the server when this device came is left out', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await phone.close()
    await send(laptop, 'before 1', 'before 2')
    const reader = relay.keep(await Sealpost.open({ home: await openHome(relay.last('phone')!) }))
    const reading = collect(reader, { from: 'now' })
    await settled(() => reader.state).toBe('live')
    await sleep(200)
    await send(laptop, 'after')
    await settled(() => reading.got.length).toBeGreaterThan(0)
    await sleep(200)
    expect(reading.got).toEqual(['after'])
    await reading.end()
  })
})

describe('a consumer that is further behind than the buffer', () => {
  it('fills the hole from the server, and a fill that was ended goes on where it stood (B06)', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    await send(laptop, '1')
    expect(await takeSome(phone, 1)).toEqual(['1'])
    for (const one of ['2', '3', '4', '5']) await send(laptop, one)
    await settled(async () => (await phone.status()).position).toBe(5)
    const home = relay.keep(await openHome(relay.last('phone')!))
    await home.store.trimReceived({ rows: 0, bytes: 0 })
    expect(await takeSome(phone, 2)).toEqual(['2', '3'])
    expect(await takeSome(phone, 1)).toEqual(['4'])
    await send(laptop, '6')
    expect(await takeSome(phone, 2)).toEqual(['5', '6'])
  })
})

async function takeSome(of: Sealpost, count: number): Promise<string[]> {
  const got: string[] = []
  for await (const event of of.stream('main').events()) {
    got.push(text(event))
    if (got.length >= count) break
  }
  return got
}

describe('outcomes', () => {
  it('an event that was pending here and is known no longer counts as decided; one that never was is not found', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    await laptop.close()
    const home = await openHome(relay.last('laptop')!)
    let forgets = false
    const readOutcomes: Home['store']['readOutcomes'] = (ids) => (forgets ? Promise.resolve([]) : home.store.readOutcomes(ids))
    const sender = relay.keep(await Sealpost.open({ home: { ...home, store: { ...home.store, readOutcomes } } }))
    const ids = await sender.stream('main').enqueue([{ data: bytes('1') }, { data: bytes('2') }])
    await sender.flush()
    forgets = true
    expect(await sender.stream('main').outcome(ids)).toEqual(ids.map((event_id) => ({ event_id, state: 'forgotten' })))
    await expect(sender.stream('main').outcome(['0198c2aa-0000-7000-8000-000000000000'])).rejects.toMatchObject({ code: 'not_found' })
  })
})

/** A home whose received rows reach the disk late. */
function slowToStore(home: Home, ms: number): Home {
  const store: Home['store'] = {
    ...home.store,
    async commitReceived(commit) {
      await sleep(ms)
      await home.store.commitReceived(commit)
    },
  }
  return { ...home, store }
}
