/** R12: every limit, set by its variable and met at the door: over HTTP and sockets, by whom it is for and by nobody else. */
import { toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { Client } from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { RATES, type RateRule, rateVariable } from '../src/limits/rules.ts'
import { makeAccount, makeDevice, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { type Ask, type Door, type DoorAnswer, freshAddress, useDoors } from '@sealpost/testing/relays/configured-relays'
import { Followed, makeEventJson } from '@sealpost/testing/relays/event-server'
import { connectRaw, makeRecord, type RawOptions, startRaw } from '@sealpost/testing/clients/raw-client'

const doors = useDoors()
const HERE = '203.0.113.7'

/** The same twice, by one whom the limit is for, and once by another. */
type Case = { ok: number; ask(): Promise<DoorAnswer>; other(): Promise<DoorAnswer> }

const mailboxId = (): string => toBase64url(nodeCrypto.random(16))
const putOffer = (door: Door, token: string, mailbox = mailboxId()): Promise<DoorAnswer> =>
  door.ask('PUT', `/api/pairing/${mailbox}/offer`, { token, bytes: new Uint8Array(40) })
const readOffer = (door: Door, mailbox: string, options?: Ask): Promise<DoorAnswer> =>
  door.ask('GET', `/api/pairing/${mailbox}/offer`, options)

/** Those of the listener of admins have their own tests. */
const REST: Record<Exclude<RateRule, `handshake_${string}` | `admin${string}`>, (door: Door) => Promise<Case>> = {
  async rest_address(door) {
    const path = '/.well-known/sealpost.json'
    return { ok: 200, ask: () => door.ask('GET', path, { from: HERE }), other: () => door.ask('GET', path) }
  },
  async rest_user(door) {
    const [account, stranger] = [await doors.account(2), await doors.account()]
    const tokens = [await door.token(account, 0), await door.token(account, 1)]
    let asked = 0
    return {
      ok: 200,
      ask: () => door.ask('GET', '/api/user', { token: tokens[asked++ % 2] ?? '' }),
      other: async () => door.ask('GET', '/api/user', { token: await door.token(stranger) }),
    }
  },
  async rest_device(door) {
    const account = await doors.account(2)
    const token = await door.token(account)
    return {
      ok: 200,
      ask: () => door.ask('GET', '/api/user', { token }),
      other: async () => door.ask('GET', '/api/user', { token: await door.token(account, 1) }),
    }
  },
  async genesis(door) {
    const create = (from?: string): Promise<DoorAnswer> =>
      door.postEntry(makeAccount(), { type: 'genesis', device: makeDevice() }, from === undefined ? {} : { from })
    return { ok: 200, ask: () => create(HERE), other: () => create() }
  },
  async repair(door) {
    const [account, stranger] = [await doors.account(), await doors.account()]
    const repair = (of: TestAccount): Promise<DoorAnswer> =>
      door.postEntry(of, { type: 'add_device', device: makeDevice() }, { repair: true })
    return { ok: 200, ask: () => repair(account), other: () => repair(stranger) }
  },
  async repair_address(door) {
    const repair = async (from: string): Promise<DoorAnswer> =>
      door.postEntry(await doors.account(), { type: 'add_device', device: makeDevice() }, { repair: true, from })
    return { ok: 200, ask: () => repair(HERE), other: () => repair(freshAddress()) }
  },
  async mailbox(door) {
    const token = await door.token(await doors.account())
    const [one, another] = [mailboxId(), mailboxId()]
    for (const mailbox of [one, another]) expect(await putOffer(door, token, mailbox)).toMatchObject({ status: 204 })
    return { ok: 200, ask: () => readOffer(door, one), other: () => readOffer(door, another) }
  },
  async mailbox_miss(door) {
    const mailbox = mailboxId()
    await putOffer(door, await door.token(await doors.account()), mailbox)
    // what is there is no miss
    for (let i = 0; i < 3; i++) expect(await readOffer(door, mailbox, { from: HERE })).toMatchObject({ status: 200 })
    return { ok: 404, ask: () => readOffer(door, mailboxId(), { from: HERE }), other: () => readOffer(door, mailboxId()) }
  },
  async offer(door) {
    const [token, stranger] = [await door.token(await doors.account()), await door.token(await doors.account())]
    return { ok: 204, ask: () => putOffer(door, token), other: () => putOffer(door, stranger) }
  },
  async export(door) {
    const [token, stranger] = [await door.token(await doors.account()), await door.token(await doors.account())]
    const ask = (by: string): Promise<DoorAnswer> => door.ask('GET', '/api/user/export', { token: by })
    return { ok: 200, ask: () => ask(token), other: () => ask(stranger) }
  },
}

function expectLimited(rule: RateRule | null, answer: DoorAnswer): void {
  expect(answer).toMatchObject({ status: 429, body: { status: 429, code: 'rate_limited' } })
  expect(answer.headers.get('content-type')).toContain('application/problem+json')
  expectWait(answer.headers.get('retry-after'), rule === null ? 60 : RATES[rule].duration)
}

function expectWait(seconds: unknown, max: number): void {
  expect(seconds).toMatch(/^[1-9]\d*$/)
  expect(Number(seconds)).toBeLessThanOrEqual(max)
}

describe('R12: a rate of 1 over REST', () => {
  it.each(Object.keys(REST) as (keyof typeof REST)[])('%s: the second is 429 with a time to come back, another is served', async (rule) => {
    const door = await doors.open({ [rateVariable(rule)]: '1' })
    const { ok, ask, other } = await REST[rule](door)
    expect((await ask()).status).toBe(ok)
    expectLimited(rule, await ask())
    expect((await other()).status).toBe(ok)
    expectLimited(rule, await ask())
  })

  it.each([
    ['handshake_device', 0, 1],
    ['handshake_user', 1, null],
  ] as const)('%s: a session that is taken over REST counts', async (rule, second, ok) => {
    const door = await doors.open({ [rateVariable(rule)]: '1' })
    const account = await doors.account(2)
    const take = async (device: number): Promise<DoorAnswer> =>
      door.ask('POST', '/api/events/session', { json: await door.assertion(account, device, 'session') })
    expect((await take(0)).status).toBe(200)
    expectLimited(rule, await take(second))
    if (ok !== null) expect((await take(ok)).status).toBe(200)
  })
})

/** A session that is open until the test ends. */
async function connect(options: RawOptions): ReturnType<typeof connectRaw> {
  const client = await connectRaw(options)
  onTestFinished(() => void client.close())
  return client
}

describe('R12: a rate of 1 of sockets', () => {
  it('handshake_address: the second upgrade is refused 429 with a time to come back', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_HANDSHAKE_ADDRESS: '1' })
    expect((await door.upgrade(HERE)).status).toBe(101)
    const refused = await door.upgrade(HERE)
    expect(refused.status).toBe(429)
    expectWait(refused.headers['retry-after'], 60)
    expect((await door.upgrade(freshAddress())).status).toBe(101)
  })

  it.each([
    ['handshake_device', 0, 1],
    ['handshake_user', 1, null],
  ] as const)('%s: the second handshake is closed 4453', async (rule, second, ok) => {
    const door = await doors.open({ [rateVariable(rule)]: '1' })
    const [account, stranger] = [await doors.account(2), await doors.account()]
    await connect(door.raw(account, 0))
    await expect(connect(door.raw(account, second))).rejects.toThrow('closed 4453 rate_limited')
    if (ok !== null) await connect(door.raw(account, ok))
    await connect(door.raw(stranger))
  })
})

describe('R12: an IPv6 /48 at the door', () => {
  const address = (i: number): string => `2001:db8:7:${i.toString(16)}::1`

  it('has 16 times the requests, upgrades and accounts of an address, from whichever of its addresses', async () => {
    const door = await doors.open({
      SEALPOST_LIMIT_REST_ADDRESS: '2',
      SEALPOST_LIMIT_HANDSHAKE_ADDRESS: '1',
      SEALPOST_LIMIT_GENESIS: '1',
    })
    const genesis = (from: string): Promise<DoorAnswer> =>
      door.postEntry(makeAccount(), { type: 'genesis', device: makeDevice() }, { from })
    for (let i = 0; i < 16; i++) {
      expect((await door.upgrade(address(i))).status).toBe(101)
      expect((await genesis(address(i))).status).toBe(200)
    }
    expect((await door.upgrade(address(16))).status).toBe(429)
    expectLimited('genesis', await genesis(address(16)))
    for (let i = 17; i < 32; i++) expect((await door.ask('GET', '/.well-known/jwks.json', { from: address(i) })).status).toBe(200)
    expectLimited('rest_address', await door.ask('GET', '/.well-known/jwks.json', { from: address(32) }))
    expect((await door.upgrade('2001:db8:8::1')).status).toBe(101)
    expect((await genesis('2001:db8:8::1')).status).toBe(200)
  })
})

describe('R12: whose address it is', () => {
  it('loopback is exempt, unless it says that it forwards', async () => {
    const door = await doors.open({ SEALPOST_TRUSTED_PROXIES: '', SEALPOST_LIMIT_REST_ADDRESS: '1' })
    const ask = (headers: Record<string, string>): Promise<number> =>
      fetch(`${door.url}/.well-known/jwks.json`, { headers }).then((a) => a.status)
    for (let i = 0; i < 3; i++) expect(await ask({})).toBe(200)
    expect(await ask({ forwarded: 'for=1.1.1.1' })).toBe(200)
    // nobody is believed: all who forward are one
    for (const headers of [{ 'x-forwarded-for': '2.2.2.2' }, { 'x-real-ip': '3.3.3.3' }]) expect(await ask(headers)).toBe(429)
    expect(await ask({})).toBe(200)
  })

  it('a trusted proxy is no exempt loopback, and is believed with a port', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_REST_ADDRESS: '1' })
    const ask = (from: string): Promise<DoorAnswer> => door.ask('GET', '/.well-known/jwks.json', { from })
    const bare = (): Promise<number> => fetch(`${door.url}/.well-known/jwks.json`).then((a) => a.status)
    expect([await bare(), await bare()]).toEqual([200, 429])
    expect((await ask('9.9.9.9:1234')).status).toBe(200)
    expectLimited('rest_address', await ask('[::ffff:9.9.9.9]:99'))
  })
})

describe('R12: seats', () => {
  it('SEALPOST_LIMIT_SOCKETS_ADDRESS: one socket of an address until it leaves', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_SOCKETS_ADDRESS: '1' })
    const account = await doors.account(2)
    const client = await connect(door.raw(account, 0, HERE))
    const refused = await door.upgrade(HERE)
    expect(refused.status).toBe(429)
    expectWait(refused.headers['retry-after'], 60)
    expect((await door.upgrade(freshAddress())).status).toBe(101)
    await client.close()
    await expect.poll(async () => (await door.upgrade(HERE)).status).toBe(101)
  })

  it('SEALPOST_LIMIT_UNAUTHENTICATED_ADDRESS: one stranger of an address until it proves itself', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_UNAUTHENTICATED_ADDRESS: '1' })
    const account = await doors.account(2)
    const stranger = await startRaw(door.raw(account, 0, HERE))
    expect((await door.upgrade(HERE)).status).toBe(429)
    await stranger.close()
    await expect.poll(async () => (await door.upgrade(HERE)).status).toBe(101)
    await expect
      .poll(() =>
        connect(door.raw(account, 0, HERE)).then(
          () => true,
          () => false,
        ),
      )
      .toBe(true)
    await expect
      .poll(() =>
        connect(door.raw(account, 1, HERE)).then(
          () => true,
          () => false,
        ),
      )
      .toBe(true)
  })

  it('SEALPOST_LIMIT_FOLLOWERS_DEVICE: one stream of a device', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_FOLLOWERS_DEVICE: '1' })
    const account = await doors.account(2)
    const tokens = [await door.token(account, 0), await door.token(account, 1)]
    const follow = async (token = ''): Promise<Followed> => {
      const followed = new Followed(`${door.url}/api/events/live`, token)
      onTestFinished(() => void followed.close())
      await followed.answered
      return followed
    }
    expect((await follow(tokens[0])).status).toBe(200)
    expectLimited(null, await door.ask('GET', '/api/events/live', { token: tokens[0] ?? '' }))
    expect((await follow(tokens[1])).status).toBe(200)
  })
})

/** Sends events over REST as the one session of a device. */
async function sender(door: Door, account: TestAccount, device = 0) {
  const token = await door.token(account, device)
  const { body } = await door.ask('POST', '/api/events/session', { json: await door.assertion(account, device, 'session') })
  let seq = body.last_device_seq
  return async (count: number, event: Parameters<typeof makeEventJson>[3] = {}): Promise<{ acks: object[]; nack?: { code: string } }> => {
    const events = Array.from({ length: count }, (_, i) => makeEventJson(account, device, seq + 1 + i, event).json)
    const answer = await door.ask('POST', '/api/events', { token, json: { session_id: body.session_id, events } })
    expect(answer.status).toBe(200)
    seq += answer.body.acks.length
    return answer.body
  }
}

describe('R12: what a device and a user may send', () => {
  it('SEALPOST_LIMIT_EVENTS_DEVICE: five seconds of it at once, then a time to come back', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_EVENTS_DEVICE: '1' })
    const account = await doors.account(2)
    const send = await sender(door, account)
    expect((await send(65)).acks).toHaveLength(65)
    const { acks, nack } = await send(1)
    expect(acks).toEqual([])
    expect(nack).toMatchObject({ code: 'rate_limited', retry_after_ms: expect.toSatisfy((ms: number) => ms > 0 && ms <= 60_000) })
    expect((await (await sender(door, account, 1))(1)).acks).toHaveLength(1)
  })

  it('SEALPOST_LIMIT_BYTES_DEVICE', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_BYTES_DEVICE: '65536' })
    const account = await doors.account(2)
    const send = await sender(door, account)
    expect((await send(3, { payload: nodeCrypto.random(250_000) })).acks).toHaveLength(3)
    expect(await send(1)).toMatchObject({ acks: [], nack: { code: 'rate_limited' } })
    expect((await (await sender(door, account, 1))(1)).acks).toHaveLength(1)
  })

  it('SEALPOST_LIMIT_EVENTS_USER: of all devices together', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_EVENTS_USER: '3' })
    const account = await doors.account(2)
    expect((await (await sender(door, account))(3)).acks).toHaveLength(3)
    expect(await (await sender(door, account, 1))(1)).toMatchObject({ acks: [], nack: { code: 'rate_limited' } })
    expect((await (await sender(door, await doors.account()))(3)).acks).toHaveLength(3)
  })

  it('SEALPOST_QUOTA_STREAMS', async () => {
    const door = await doors.open({ SEALPOST_QUOTA_STREAMS: '1' })
    const send = await sender(door, await doors.account())
    expect((await send(1, { stream_id: 'one' })).acks).toHaveLength(1)
    expect(await send(1, { stream_id: 'two' })).toMatchObject({ acks: [], nack: { code: 'too_many_streams' } })
    expect((await send(1, { stream_id: 'one' })).acks).toHaveLength(1)
  })

  it('SEALPOST_QUOTA_DEVICES: none is added above it; who has more keeps them and may do all else', async () => {
    const door = await doors.open({ SEALPOST_QUOTA_DEVICES: '2' })
    const [small, large] = [await doors.account(), await doors.account(4)]
    expect(await door.postEntry(small, { type: 'add_device', device: makeDevice() })).toMatchObject({ status: 200 })
    for (const account of [small, large])
      expect(await door.postEntry(account, { type: 'add_device', device: makeDevice() })).toMatchObject({
        status: 422,
        body: { code: 'invalid_entry', detail: 'an account has at most 2 devices' },
      })
    const { device_id } = large.devices[1]!
    expect(await door.postEntry(large, { type: 'rename_device', rename: { device_id, name: 'other' } })).toMatchObject({ status: 200 })
    expect(await door.postEntry(large, { type: 'revoke_device', revoked: [{ device_id }] })).toMatchObject({ status: 200 })
    // what was lost in a restore comes back whole
    const lost = await doors.account(4)
    expect(await door.postEntry(lost, { type: 'add_device', device: makeDevice() }, { repair: true })).toMatchObject({ status: 200 })
  })
})

/** The first answer that sends away. */
async function until503<A extends { status: number }>(ask: () => Promise<A>): Promise<A> {
  let answer = await ask()
  await expect
    .poll(
      async () => {
        answer = await ask()
        return answer.status
      },
      { timeout: 10_000, interval: 50 },
    )
    .toBe(503)
  return answer
}

describe('R12: load is shed at the door', () => {
  it('SEALPOST_LIMIT_QUEUE_BYTES: with a full queue new work is 503 with a time to come back, over HTTP and sockets; then it is served', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_QUEUE_BYTES: String(4 * 1_048_576) })
    const account = await doors.account(2)
    const clients = [await connect(door.raw(account, 0)), await connect(door.raw(account, 1))]
    const locker = new Client({ connectionString: doors.database.url })
    await locker.connect()
    onTestFinished(() => locker.end())
    const ask = (): Promise<DoorAnswer> => door.ask('GET', '/.well-known/jwks.json')
    expect((await ask()).status).toBe(200)

    await locker.query('begin')
    await locker.query({ text: 'select from account where user_no = $1::int8 for update', values: [account.user_no] })
    // 4,000,000 bytes, in messages that fit
    for (const client of clients)
      for (let seq = 1; seq < 9; seq += 2) {
        const event = { epoch: account.log_seq, payload: nodeCrypto.random(250_000) }
        client.sendRecords(...[seq, seq + 1].map((number) => makeRecord(client.identity.device_id, number, event)))
      }
    const [refused, upgrade] = await Promise.all([until503(ask), until503(() => door.upgrade(freshAddress()))])
    expect(refused.body).toMatchObject({ status: 503, code: 'overloaded' })
    expectWait(refused.headers.get('retry-after'), 10)
    expectWait(upgrade.headers['retry-after'], 10)
    // whether the process lives is answered also then
    expect((await door.ask('GET', '/livez')).status).toBe(200)

    await locker.query('rollback')
    await expect.poll(async () => (await ask()).status, { timeout: 10_000 }).toBe(200)
    expect((await door.upgrade(freshAddress())).status).toBe(101)
  }, 60_000)
})
