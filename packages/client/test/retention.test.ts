import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createStore, type PostgresStore } from '../../server/src/store/store.ts'
import { silent } from '@sealpost/testing/relays/silent-log'
import { unheld } from '@sealpost/testing/relays/unheld'
import { Sealpost, type StreamEvent } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { bytes, settled, take, text, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()
/** Of the relay's database, without a tolerance for clocks: what has expired is swept. */
let store: PostgresStore

beforeAll(async () => {
  store = await createStore({ connection: { connectionString: relay.database }, log: silent, clock_skew_ms: 0 })
})
afterAll(() => store.close())

const nothing = { age_ms: null, tombstone_ms: null, bytes: null }
const gapOf = (event: StreamEvent | undefined) => (event?.is === 'gap' ? `${event.is} ${event.reason}` : event && text(event))
/** What a consumer is told: texts of events, gaps with their reason, everything else by its kind. */
const outline = (events: StreamEvent[]) => events.map(gapOf)

/** Two devices; the second has taken over one event and is offline. */
async function offlineAfterOne(streams = ['main']) {
  const { sealpost: laptop } = await relay.create('laptop')
  const phone = await relay.pair(laptop, 'phone')
  for (const stream of streams) await laptop.stream(stream).send(bytes('0'))
  for (const stream of streams) expect(outline(await take(phone.stream(stream).events(), 1))).toEqual(['0'])
  await settled(async () => (await phone.status()).position).toBe(streams.length)
  await phone.close()
  const path = relay.last('phone') ?? ''
  return { laptop, wake: async () => relay.keep(await Sealpost.open({ home: await openHome(path) })) }
}

/** The number of the account with the most events; each test has its own. */
async function newestUser(): Promise<number> {
  const { rows } = await store.pools.main.query<{ user_no: number }>('select max(user_no) as user_no from account')
  return rows[0]?.user_no ?? 0
}

const removePrefix: PostgresStore['removePrefix'] = (user_no, rule) => unheld(() => store.removePrefix(user_no, rule))

/** Collects what a consumer is told until the test ends it. */
function collect(of: Sealpost, stream: string) {
  const got: StreamEvent[] = []
  const ended = new AbortController()
  const done = (async () => {
    for await (const event of of.stream(stream).events({ signal: ended.signal })) got.push(event)
  })()
  return { got, end: () => (ended.abort(), done) }
}

describe('replay explains what retention took', () => {
  it('events that expired while a device was away are one gap, proved by tombstones, and nothing else is missing', async () => {
    const { laptop, wake } = await offlineAfterOne()
    const main = laptop.stream('main')
    await main.send(bytes('1'))
    await main.send(bytes('gone'), { ttl: 1 })
    await main.send(bytes('gone too'), { ttl: 1 })
    await main.send(bytes('2'))
    let swept = 0
    await settled(async () => {
      const batch = await store.sweepExpiredEvents(0)
      swept += batch.is === 'done' ? batch.rows : 0
      return swept
    }).toBe(2)
    const reading = collect(await wake(), 'main')
    await settled(() => outline(reading.got).at(-1)).toBe('2')
    expect(outline(reading.got)).toEqual(['1', 'gap expired', '2'])
    await reading.end()
  })

  it('a cursor below the floor goes on behind it: one gap of retention in each stream that lost something, and no reset', async () => {
    const { laptop, wake } = await offlineAfterOne(['main', 'other'])
    for (const one of ['1', '2', '3']) await laptop.stream('main').send(bytes(one))
    await laptop.stream('other').send(bytes('first'))
    await laptop.stream('main').send(bytes('4'))
    await laptop.stream('other').send(bytes('second'))
    const user_no = await newestUser()
    const { rows } = await store.pools.main.query<{ left: number }>(
      'select sum(octet_length(record))::int4 as left from event where user_no = $1 and position > 6',
      [user_no],
    )
    expect(await removePrefix(user_no, { ...nothing, bytes: rows[0]?.left ?? 0 })).toMatchObject({ rows: 6 })
    const phone = await wake()
    const [main, other] = [collect(phone, 'main'), collect(phone, 'other')]
    await settled(() => outline(main.got).at(-1)).toBe('4')
    await settled(() => outline(other.got).at(-1)).toBe('second')
    expect(outline(main.got)).toEqual(['gap retention', '4'])
    expect(outline(other.got)).toEqual(['gap retention', 'second'])
    await Promise.all([main.end(), other.end()])
  })

  it('old events of a stream with an age are a gap of retention in it; what stands between them in other streams arrives', async () => {
    const { laptop, wake } = await offlineAfterOne(['main', 'logs'])
    await laptop.stream('logs').send(bytes('old'))
    await laptop.stream('main').send(bytes('kept'))
    const user_no = await newestUser()
    expect(await unheld(() => store.sweepStreams(user_no, [{ stream_id: 'logs', age_ms: 0 }], null))).toMatchObject({ rows: 2 })
    await laptop.stream('logs').send(bytes('new'))
    const phone = await wake()
    const [main, logs] = [collect(phone, 'main'), collect(phone, 'logs')]
    await settled(() => outline(logs.got).at(-1)).toBe('new')
    await settled(() => outline(main.got).at(-1)).toBe('kept')
    expect(outline(logs.got)).toEqual(['gap retention', 'new'])
    expect(outline(main.got)).toEqual(['kept'])
    await Promise.all([main.end(), logs.end()])
  })

  it('when everything was removed, a device that was up to date goes on without a gap', async () => {
    const { laptop, wake } = await offlineAfterOne()
    expect(await removePrefix(await newestUser(), { ...nothing, age_ms: 0 })).toMatchObject({ rows: 1 })
    const reading = collect(await wake(), 'main')
    await laptop.stream('main').send(bytes('1'))
    await settled(() => outline(reading.got).at(-1)).toBe('1')
    expect(outline(reading.got)).toEqual(['1'])
    await reading.end()
  })
})

describe('R12: the quota of stored bytes', () => {
  it('a user who has reached it is told, keeps what waits, and goes on when there is room', async () => {
    await relay.stop()
    await relay.start({ SEALPOST_QUOTA_BYTES: '1000' })
    const { sealpost: laptop } = await relay.create('laptop')
    await laptop.stream('main').send(new Uint8Array(2_000))
    const sent = laptop.stream('main').send(bytes('waits'))
    await settled(() => laptop.trouble?.code).toBe('quota_exceeded')
    await removePrefix(await newestUser(), { ...nothing, age_ms: 0 })
    await relay.stop()
    await relay.start()
    expect(await sent).toMatchObject({ position: 2 })
  })
})
