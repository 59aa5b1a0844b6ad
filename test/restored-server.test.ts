import { fromBase64url } from '@sealpost/protocol'
import { describe, expect, test } from 'vitest'
import { hear, listen, say, type Seat, show, until, useRelayWorld } from '@sealpost/testing/relays/hostile-relay'

const world = useRelayWorld()

const user_no = '(select user_no from account where user_id = $1)'
const userOf = (seat: Seat): Buffer => Buffer.from(fromBase64url(seat.device.user_id, 32))

type Stored = { position: number; stream_seq: number; device_seq: number }

/** Numbers of what the server has of the account, in order; text of none of it. */
async function storedOf(user: Buffer): Promise<Stored[]> {
  const rows = await world.sql<Record<keyof Stored, string>>(
    `select position, stream_seq, device_seq from event where user_no = ${user_no} order by position`,
    [user],
  )
  return rows.map((row) => ({
    position: Number(row.position),
    stream_seq: Number(row.stream_seq),
    device_seq: Number(row.device_seq),
  }))
}

async function logSeqOf(user: Buffer): Promise<number> {
  const [row] = await world.sql<{ log_seq: string }>('select log_seq from account where user_id = $1', [user])
  return row === undefined ? -1 : Number(row.log_seq)
}

const closeAll = (...seats: Seat[]): Promise<unknown> => Promise.all(seats.map((seat) => seat.close()))

/** A cold copy keeps the name of its history, a dump restored elsewhere has another. */
describe.each([
  ['a cold copy', false],
  ['a restored dump', true],
] as const)('C6 after %s', (_, restored) => {
  test('a device that was ahead is told of a reset, gets what comes, and nothing twice', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const tablet = await world.pair(laptop, 'tablet')
    await say(laptop, 'notes', '1', '2', '3')
    expect(await hear(tablet, 'notes', '3')).toEqual(['1', '2', '3'])
    await closeAll(laptop, phone, tablet)
    const backup = await world.backUp()
    await laptop.open()
    await phone.open()
    await say(laptop, 'notes', '4', '5')
    expect(await hear(phone, 'notes', '5')).toEqual(['1', '2', '3', '4', '5'])
    await closeAll(laptop, phone)

    await world.swapTo(backup, restored)
    await laptop.open()
    await phone.open()
    await say(laptop, 'notes', '6')
    const phoneHeard = await hear(phone, 'notes', '6')
    expect(phoneHeard[0]).toBe(restored ? 'reset history_changed' : 'reset cursor_unknown')
    expect(phoneHeard.filter((text) => !text.startsWith('gap restart'))).toEqual([phoneHeard[0], '6'])
    // numbers go on: nothing new under an old number of the device
    const user = userOf(laptop)
    expect(await storedOf(user)).toEqual([
      { position: 1, stream_seq: 1, device_seq: 1 },
      { position: 2, stream_seq: 2, device_seq: 2 },
      { position: 3, stream_seq: 3, device_seq: 3 },
      { position: 4, stream_seq: 4, device_seq: 6 },
    ])
    // who had not got 4 and 5 is told that they are missing
    await tablet.open()
    expect(await hear(tablet, 'notes', '6')).toEqual([expect.stringMatching(/^gap (unexplained|restart) from 4$/), '6'])
    if (!restored) expect(world.log()).toContain('acked_event_missing')
    // and everything goes on as before
    await say(phone, 'notes', 'back')
    await say(laptop, 'notes', '7')
    expect(await hear(tablet, 'notes', '7')).toEqual(['back', '7'])
    expect(await hear(phone, 'notes', '7')).toEqual(['7'])
  })

  test('an acknowledged event that the copy lacks is not put back: who received it keeps it, and can send it again', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const tablet = await world.pair(laptop, 'tablet')
    await say(laptop, 'notes', '1')
    expect(await hear(tablet, 'notes', '1')).toEqual(['1'])
    await closeAll(laptop, phone, tablet)
    const backup = await world.backUp()
    await laptop.open()
    await phone.open()
    await say(laptop, 'notes', '2', '3')
    expect(await hear(phone, 'notes', '3')).toEqual(['1', '2', '3'])
    await closeAll(laptop, phone)

    await world.swapTo(backup, restored)
    await laptop.open()
    await phone.open()
    await say(laptop, 'notes', '4')
    expect((await hear(phone, 'notes', '4')).at(-1)).toBe('4')
    const user = userOf(laptop)
    expect((await storedOf(user)).map(({ device_seq }) => device_seq)).toEqual([1, 4])
    await tablet.open()
    const gap = expect.stringMatching(/^gap (unexplained|restart) from 2$/)
    expect(await hear(tablet, 'notes', '4')).toEqual([gap, '4'])
    const later = await world.pair(laptop, 'later')
    expect(await hear(later, 'notes', '4', 'start')).toEqual(['1', gap, '4'])

    // a consumer of another name reads from the beginning what this device has received
    const kept: string[] = []
    for await (const event of phone.device.stream('notes').events({ consumer: 'rescue', signal: AbortSignal.timeout(10_000) })) {
      if (event.is === 'reset') break
      kept.push(show(event))
    }
    expect(kept).toEqual(['1', '2', '3'])
    await say(phone, 'notes', '2', '3')
    expect(await hear(tablet, 'notes', '3')).toEqual(['2', '3'])
    expect((await hear(laptop, 'notes', '3')).slice(-2)).toEqual(['2', '3'])
  })

  test('positions that were given again to other events are not taken for the known ones', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    await say(laptop, 'notes', '1')
    await closeAll(laptop, phone)
    const backup = await world.backUp()
    await laptop.open()
    await phone.open()
    await say(laptop, 'notes', '2', '3')
    expect(await hear(phone, 'notes', '3')).toEqual(['1', '2', '3'])
    await closeAll(laptop, phone)

    await world.swapTo(backup, restored)
    await laptop.open()
    await say(laptop, 'notes', '4', '5', '6')
    await phone.open()
    const heard = await hear(phone, 'notes', '6')
    expect(heard[0]).toBe(restored ? 'reset history_changed' : 'reset cursor_unknown')
    expect(heard.filter((text) => !text.startsWith('gap restart'))).toEqual([heard[0], '4', '5', '6'])
    expect(await listen(phone, 'notes', 300)).toEqual([])
  })

  test('what waits in the outbox arrives once, also when it was sealed and had left before', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    await say(laptop, 'notes', '1')
    expect(await hear(phone, 'notes', '1')).toEqual(['1'])
    await closeAll(laptop, phone)
    const backup = await world.backUp()
    await laptop.open()
    await say(laptop, 'notes', '2')
    // queued while the relay is away: sealed for a session, or not, as it happens
    const stream = laptop.device.stream('notes')
    const ids = await stream.enqueue(Array.from({ length: 500 }, (_unused, i) => ({ data: new TextEncoder().encode(`q${i}`) })))
    await world.swapTo(backup, restored)
    const outcomes = await stream.outcome(ids, { signal: AbortSignal.timeout(15_000) })
    expect(outcomes.every((outcome) => outcome.state === 'acked')).toBe(true)
    await say(laptop, 'notes', 'end')
    await phone.open()
    const heard = await hear(phone, 'notes', 'end')
    const events = heard.filter((text) => /^(q\d+|end)$/.test(text))
    expect(new Set(events).size).toBe(events.length)
    // those that the old server had acked are lost with it, and that is told; what it had not is there in order
    const lost = 500 - (events.length - 1)
    expect(events.slice(0, -1)).toEqual(Array.from({ length: 500 - lost }, (_unused, i) => `q${i + lost}`))
    expect(heard.some((text) => /^gap (unexplained|restart) from/.test(text))).toBe(true)
  })

  test('R09 a forgotten revocation does not survive the first device that knows it', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const tablet = await world.pair(laptop, 'tablet')
    await say(tablet, 'notes', 'trusted')
    expect(await hear(laptop, 'notes', 'trusted')).toEqual(['trusted'])
    await closeAll(laptop, phone, tablet)
    const backup = await world.backUp()
    await laptop.open()
    await laptop.device.revoke(tablet.id)
    await laptop.close()

    await world.swapTo(backup, restored)
    await tablet.open()
    await until(() => tablet.device.state === 'live')
    await laptop.open()
    await until(() => tablet.device.failure !== null)
    expect(tablet.device.failure?.code).toBe('device_revoked')
    expect(tablet.device.failure?.message).toMatch(/revoked by "laptop"/)
    const user = userOf(laptop)
    // the revocation, and a rotation behind it
    await until(async () => (await logSeqOf(user)) === 4)
    await say(laptop, 'notes', 'after')
    await phone.open()
    expect(await hear(phone, 'notes', 'after')).toContain('after')
    const devices = await phone.device.devices()
    expect(devices.find((device) => device.device_id === tablet.id)?.revoked).toMatchObject({ by_name: 'laptop' })
  })

  test('a device that the server has forgotten brings itself back', async () => {
    const laptop = await world.create('laptop')
    await say(laptop, 'notes', '1')
    await laptop.close()
    const backup = await world.backUp()
    await laptop.open()
    const phone = await world.pair(laptop, 'phone')
    await say(phone, 'notes', '2')
    expect(await hear(laptop, 'notes', '2')).toEqual(['2'])
    await closeAll(laptop, phone)

    await world.swapTo(backup, restored)
    await phone.open()
    await say(phone, 'notes', '3')
    await laptop.open()
    const heard = await hear(laptop, 'notes', '3')
    expect(heard[0]).toMatch(/^reset /)
    expect(heard.filter((text) => !text.startsWith('gap restart'))).toEqual([heard[0], '3'])
    expect((await laptop.device.devices()).map((device) => device.name)).toEqual(['laptop', 'phone'])
  })

  test('an account that the server has forgotten comes back from its genesis, and its numbers go on', async () => {
    const backup = await world.backUp()
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    await say(laptop, 'notes', '1', '2')
    expect(await hear(phone, 'notes', '2')).toEqual(['1', '2'])
    await closeAll(laptop, phone)

    await world.swapTo(backup, restored)
    await laptop.open()
    await say(laptop, 'notes', '3')
    const user = userOf(laptop)
    expect(await storedOf(user)).toEqual([{ position: 1, stream_seq: 1, device_seq: 3 }])
    await phone.open()
    const heard = await hear(phone, 'notes', '3')
    expect(heard[0]).toMatch(/^reset /)
    expect(heard.filter((text) => !text.startsWith('gap restart'))).toEqual([heard[0], '3'])
  })
})

describe('the device list of a restored server', () => {
  test('all devices that come back at once bring back what is missing, and none of them is shut out', async () => {
    const laptop = await world.create('laptop')
    await laptop.close()
    const backup = await world.backUp()
    await laptop.open()
    const others: Seat[] = []
    for (const name of ['phone', 'tablet', 'watch']) others.push(await world.pair(laptop, name))
    await closeAll(laptop, ...others)
    await world.swapTo(backup)
    const seats = [laptop, ...others]
    await Promise.all(seats.map((seat) => seat.open()))
    await until(() => seats.every((seat) => seat.device.state === 'live' || seat.device.failure !== null))
    expect(seats.map((seat) => seat.device.failure)).toEqual([null, null, null, null])
    for (const seat of seats) await say(seat, 'notes', `from ${seat.name}`)
    for (const seat of seats) {
      const heard = await listen(seat, 'notes', 500, 'start')
      const others = seats.filter((other) => other !== seat)
      expect(heard.toSorted()).toEqual(others.map(({ name }) => `from ${name}`).toSorted())
    }
  })

  test('a server that fails while it is repaired is asked again later', async () => {
    const laptop = await world.create('laptop')
    await laptop.close()
    const backup = await world.backUp()
    await laptop.open()
    const phone = await world.pair(laptop, 'phone')
    await closeAll(laptop, phone)
    await world.swapTo(backup)
    await world.sql("create function refuse() returns trigger language plpgsql as $f$ begin raise exception 'no'; end $f$")
    await world.sql('create trigger refuse before insert on log_entry for each row execute function refuse()')
    await phone.open()
    await until(() => phone.notices.some((notice) => notice.is === 'state' && notice.state === 'offline'))
    await world.sql('drop trigger refuse on log_entry')
    await world.sql('drop function refuse')
    await say(phone, 'notes', 'back')
    expect(phone.device.failure).toBeNull()
  })

  test('another history behind the known one is a fork: the device stops and says so', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const tablet = await world.pair(laptop, 'tablet')
    await closeAll(laptop, phone, tablet)
    const first = world.database_url
    const second = await world.backUp()
    await laptop.open()
    await laptop.device.revoke(tablet.id)
    await laptop.close()
    await world.swapTo(second)
    await phone.open()
    await phone.device.revoke(tablet.id)
    const watch = await world.pair(phone, 'watch')
    await closeAll(phone, watch)
    await world.swapTo(first)
    await phone.open()
    await until(() => phone.device.failure !== null)
    expect(phone.device.failure?.code).toBe('log_fork')
    expect(phone.device.failure?.message).toMatch(/another device log|two different device logs/)
  })
})
