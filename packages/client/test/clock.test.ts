import { describe, expect, it } from 'vitest'
import { type Home, Sealpost, SealpostError } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { bytes, settled, take, text, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()

const HOUR = 3_600_000
const SHIFTS = [600_000, -600_000, 400 * 24 * HOUR]

/** A home whose clock a test sets wrong, and right again. */
async function shiftable(name: string, path?: string) {
  const clock = { wrong: 0 }
  const wrap = (home: Home): Home => ({ ...home, clock: { ...home.clock, now: () => home.clock.now() + clock.wrong } })
  return { clock, wrap, home: wrap(path === undefined ? await relay.home(name) : await openHome(path)) }
}

/** A device whose clock can be set, and one beside it. */
async function pairOf() {
  const { sealpost: desk } = await relay.create('desk')
  const made = await shiftable('wrong')
  const laptop = await relay.pair(desk, 'laptop', made.wrap)
  return { desk, laptop, clock: made.clock, path: relay.last('laptop') ?? '' }
}

const received = async (of: Sealpost, count: number) => (await take(of.stream('main').events(), count)).map(text)

describe('a wrong clock of the device (G07)', () => {
  it.each(SHIFTS)('by %i ms: an event with a ttl is sent, and lives as long as it says', async (wrong) => {
    const { desk, laptop, clock } = await pairOf()
    // while it is connected, and from the beginning of a session
    clock.wrong = wrong
    await laptop.stream('main').send(bytes('1'), { ttl: 3_600 })
    await laptop.close()
    const again = await shiftable('wrong', relay.last('laptop'))
    again.clock.wrong = wrong
    const opened = relay.keep(await Sealpost.open({ home: again.home }))
    await opened.stream('main').send(bytes('2'), { ttl: 60 })
    const events = await take(desk.stream('main').events(), 2)
    expect(events.map(text)).toEqual(['1', '2'])
    for (const event of events) expect(event.is === 'event' && Math.abs(event.sent_at - event.received_at)).toBeLessThan(60_000)
  })

  it.each(SHIFTS)('by %i ms while events were queued, and right again when they are sent: none holds up the others', async (wrong) => {
    const { desk, laptop, path } = await pairOf()
    await laptop.close()
    const offline = await shiftable('wrong', path)
    offline.clock.wrong = wrong
    const alone = await Sealpost.open({ home: offline.home, connect: false })
    const [queued = ''] = await alone.stream('main').enqueue([{ data: bytes('queued'), ttl: 3_600 }])
    await alone.close()
    const opened = relay.keep(await Sealpost.open({ home: await openHome(path) }))
    await opened.stream('main').send(bytes('plain'))
    expect(await opened.stream('main').outcome([queued])).toEqual([{ event_id: queued, state: 'acked' }])
    expect(await received(desk, 2)).toEqual(['queued', 'plain'])
    expect((await opened.status()).outbox).toEqual({ pending: 0, set_aside: 0, rejected: 0 })
  })

  it('that is set right while it is connected: what is sent then counts from then', async () => {
    const { desk, laptop, clock } = await pairOf()
    clock.wrong = HOUR
    await laptop.stream('main').send(bytes('ahead'), { ttl: 60 })
    clock.wrong = 0
    await laptop.stream('main').send(bytes('right'), { ttl: 60 })
    expect(await received(desk, 2)).toEqual(['ahead', 'right'])
  })

  it.each(SHIFTS)('by %i ms: a token and an export are given, with a connection and without', async (wrong) => {
    const { laptop, path } = await pairOf()
    await laptop.close()
    for (const connect of [true, false]) {
      const { clock, home } = await shiftable('wrong', path)
      clock.wrong = wrong
      // what a session told before is as good as forgotten
      await home.store.writeNote('server_clock', null)
      const opened = await Sealpost.open({ home, connect })
      expect(await opened.accessToken()).toMatchObject({ expires_in: 600 })
      const lines: string[] = []
      for await (const part of opened.exportAccount()) lines.push(Buffer.from(part).toString())
      expect(lines.join('')).toContain('"kind":"end"')
      await opened.close()
    }
  })

  it('what a session told of the time is known to the next process, also offline', async () => {
    const { laptop, clock, path } = await pairOf()
    await laptop.close()
    const first = await shiftable('wrong', path)
    first.clock.wrong = clock.wrong = HOUR
    const opened = await Sealpost.open({ home: first.home })
    await settled(() => opened.state).toBe('live')
    await opened.close()
    const second = await shiftable('wrong', path)
    second.clock.wrong = HOUR
    const alone = await Sealpost.open({ home: second.home, connect: false })
    const [queued = ''] = await alone.stream('main').enqueue([{ data: bytes('x'), ttl: 60 }])
    const stamp = Number.parseInt(queued.replaceAll('-', '').slice(0, 12), 16)
    expect(Math.abs(stamp - Date.now())).toBeLessThan(60_000)
    await alone.outbox.drop('all')
    await alone.close()
  })

  it('where the server does not tell the time, the refusal speaks of the clock and not of pairing', async () => {
    const { laptop, path } = await pairOf()
    await laptop.close()
    const { clock, home } = await shiftable('wrong', path)
    clock.wrong = HOUR
    const told = { date: undefined as string | undefined }
    const http: Home['http'] = {
      ...home.http,
      async request(request) {
        const answer = await home.http.request(request)
        const { date: _, ...headers } = answer.headers
        return { ...answer, headers: told.date === undefined ? headers : { ...headers, date: told.date } }
      },
    }
    await home.store.writeNote('server_clock', null)
    const opened = relay.keep(await Sealpost.open({ home: { ...home, http }, connect: false }))
    const refused = () => opened.accessToken().catch((error: unknown) => error as SealpostError)
    expect(await refused()).toMatchObject({ code: 'clock_skew', message: expect.stringMatching(/clock of this device.*set it/) as string })
    // a date of its own that is as wrong
    told.date = new Date(Date.now() + 20 * 60_000).toUTCString()
    expect(await refused()).toMatchObject({
      code: 'clock_skew',
      message: expect.stringMatching(/40 minutes ahead of the server's; set it/) as string,
    })
  })
})

describe('what is not taken is set aside, and holds up nothing', () => {
  /** Queued half an hour ago with a ttl of a minute, behind and before others. */
  async function withExpired() {
    const { sealpost: desk } = await relay.create('desk')
    const made = await shiftable('late')
    const laptop = await relay.pair(desk, 'laptop', made.wrap)
    await laptop.close()
    const path = relay.last('laptop') ?? ''
    const past = await shiftable('late', path)
    past.clock.wrong = -HOUR / 2
    const alone = await Sealpost.open({ home: past.home, connect: false })
    const ids = await alone
      .stream('main')
      .enqueue([{ data: bytes('before') }, { data: bytes('expired'), ttl: 60 }, { data: bytes('behind') }])
    await alone.close()
    return { desk, ids, laptop: relay.keep(await Sealpost.open({ home: await openHome(path) })) }
  }

  it('an event that has expired; sent again it counts from then, and comes after the others', async () => {
    const { desk, laptop, ids } = await withExpired()
    const main = laptop.stream('main')
    const [, expired = ''] = ids
    expect(await main.outcome(ids)).toMatchObject([{ state: 'acked' }, { state: 'set_aside', code: 'event_expired' }, { state: 'acked' }])
    expect(await received(desk, 2)).toEqual(['before', 'behind'])
    const listed = []
    for await (const item of laptop.outbox.list()) listed.push(item)
    expect(listed).toMatchObject([
      { event_id: expired, stream_id: 'main', bytes: 7, ttl: 60, state: 'set_aside', code: 'event_expired', sent: false },
    ])
    expect((await laptop.status()).outbox).toEqual({ pending: 0, set_aside: 1, rejected: 0 })

    await expect(laptop.outbox.retry([expired, ids[0]!])).rejects.toMatchObject({ code: 'not_found' })
    expect(await laptop.outbox.retry('all')).toEqual([expired])
    expect(await main.outcome([expired])).toEqual([{ event_id: expired, state: 'acked' }])
    expect(await received(desk, 1)).toEqual(['expired'])
  })

  it('dropped it is gone, and whoever waits for it is told', async () => {
    const { laptop, ids } = await withExpired()
    const [, expired = ''] = ids
    await laptop.flush()
    expect(await laptop.outbox.drop([expired])).toEqual({ dropped: [expired], kept: [] })
    expect(await laptop.stream('main').outcome([expired])).toEqual([{ event_id: expired, state: 'rejected', code: 'aborted' }])
    await expect(laptop.outbox.drop([expired])).rejects.toMatchObject({ code: 'not_found' })
  })

  it('an event of one stream too many; the other streams go on', async () => {
    await relay.stop()
    await relay.start({ SEALPOST_QUOTA_STREAMS: '1' })
    const { sealpost: laptop } = await relay.create('laptop')
    await laptop.stream('main').send(bytes('1'))
    const refused = laptop.stream('other').send(bytes('x'))
    const behind = laptop.stream('main').send(bytes('2'))
    await expect(refused).rejects.toMatchObject({ code: 'too_many_streams' })
    expect(await behind).toMatchObject({ position: 2 })
    await relay.stop()
    await relay.start()
    expect(await laptop.outbox.retry('all')).toHaveLength(1)
    await laptop.flush()
    expect((await laptop.status()).outbox).toEqual({ pending: 0, set_aside: 0, rejected: 0 })
  })

  it('what a quota holds can be dropped, since the server said that it has none of it', async () => {
    await relay.stop()
    await relay.start({ SEALPOST_QUOTA_BYTES: '100' })
    const { sealpost: laptop } = await relay.create('laptop')
    await laptop.stream('main').send(new Uint8Array(1_000))
    const held = laptop
      .stream('main')
      .send(bytes('x'))
      .catch((error: unknown) => error)
    await settled(async () => (await laptop.status()).last_error?.code).toBe('quota_exceeded')
    await settled(async () => (await laptop.outbox.drop('all')).dropped.length).toBe(1)
    expect(await held).toMatchObject({ code: 'aborted' })
    await relay.stop()
    await relay.start()
    expect(await laptop.stream('main').send(bytes('y'))).toMatchObject({ position: 2 })
  })
})
