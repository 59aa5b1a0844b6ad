import { nodeCrypto } from '@sealpost/protocol/node'
import * as fc from 'fast-check'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, vi } from 'vitest'
import { decodeFollowId, encodeFollowId } from '../../relay/follow/follow-id.ts'
import { follow } from '../../relay/follow/follower.ts'
import { append } from '@sealpost/testing/clients/store-accounts'
import { Followed, useEventServer } from '@sealpost/testing/relays/event-server'
import { makeRecords, takeAcks, takeEvents } from '@sealpost/testing/relays/socket-relay'

const limits = { tickMs: 50, headRoundMs: 200 }
const server = useEventServer({ ...limits, heartbeatMs: 200 })
const small = useEventServer({ ...limits, outboundHighBytes: 64 * 1024, outboundLowBytes: 16 * 1024 })
const impatient = useEventServer({ ...limits, outboundHighBytes: 64 * 1024, outboundLowBytes: 16 * 1024, stalledMs: 1_000, closeMs: 200 })

type Server = typeof server

/** One device that sends by socket, another that follows. */
async function pair(on: Server = server, query = '') {
  const account = await on.account(2)
  const socket = await on.connect(account, 0)
  const token = await on.token(account, 1)
  const stream = await on.follow(token, query)
  let sent = 0
  const send = async (count: number, size = 60): Promise<void> => {
    socket.sendRecords(...makeRecords(socket, sent + 1, count, { epoch: account.log_seq, payload: nodeCrypto.random(size) }))
    sent += count
    await takeAcks(socket, count)
  }
  return { account, socket, token, stream, send }
}

describe('what is followed', () => {
  it('C2: what was there and what comes, each once, in order, as the socket has it', async () => {
    const { stream, send, account, token } = await pair()
    const witness = await server.connect(account, 1)
    await send(5)
    await send(3)
    const followed = await stream.records(8, 0)
    const live = await takeEvents(witness, 8, 0)
    expect(followed.map((event) => [event.event_id, event.position, event.stream_seq])).toEqual(
      live.map((record) => [record.event_id, record.server!.position, record.server!.stream_seq]),
    )
    const late = await server.follow(token, '?after_position=6')
    expect((await late.records(2, 6)).map((event) => event.position)).toEqual([7, 8])
  })

  it('goes on behind the last id without a gap and without a double, however often it is cut', async () => {
    const { stream, send, token } = await pair()
    const seen: number[] = []
    let followed = stream
    for (let round = 0; round < 6; round++) {
      await send(4)
      seen.push(...(await followed.records(2, seen.length)).map((event) => event.position!))
      const last_id = followed.last_id!
      expect(decodeFollowId(last_id)!.cursor.position).toBe(seen.length)
      await followed.close()
      await send(2)
      followed = await server.follow(token, '?after_position=0', last_id)
    }
    seen.push(...(await followed.records(36 - seen.length, seen.length)).map((event) => event.position!))
    expect(seen).toEqual(Array.from({ length: 36 }, (_, i) => i + 1))
  })

  it('C6: an id that cannot be honoured gives reset, and all from there', async () => {
    const { send, token } = await pair()
    await send(3)
    const { history_id } = server.store
    const entry = { position: 2, event_id: crypto.randomUUID(), received_at: 1 }
    const stream = await server.follow(token, '', encodeFollowId({ cursor: { ...entry, history_id }, log_seq: 1 }))
    expect((await stream.next('reset')).data).toEqual({ reason: 'cursor_unknown', history_id, head_position: 3, from_position: 0 })
    expect(await stream.records(3, 0)).toHaveLength(3)
    const beyond = await server.follow(token, '?after_position=99')
    expect((await beyond.next('reset')).data.reason).toBe('cursor_unknown')
    for (const id of ['nonsense', 'AQ', 'A'.repeat(256)]) expect((await server.follow(token, '', id)).status, id).toBe(400)
  })

  it('an entry of the device log goes before the first event of its epoch, and is not told again', async () => {
    const { account, socket, token } = await pair(server)
    const stream = await server.follow(token, '?log_seq=0')
    expect(JSON.parse(Buffer.from((await stream.next('log_entry')).data.body, 'base64url').toString()).log_seq).toBe(1)
    await append(server.store, account, { type: 'rotate_keys' })
    socket.sendRecords(...makeRecords(socket, 1, 1, { epoch: account.log_seq }))
    await takeAcks(socket, 1)
    await expect
      .poll(() => stream.received.map((event) => event.type).filter((type) => type !== 'presence'))
      .toEqual(['log_entry', 'event'])
    const entry = await stream.next('log_entry')
    await stream.records(1, 0)
    expect(JSON.parse(Buffer.from(entry.data.body, 'base64url').toString()).log_seq).toBe(account.log_seq)
    const again = await server.follow(token, '?log_seq=0', stream.last_id!)
    socket.sendRecords(...makeRecords(socket, 2, 1, { epoch: account.log_seq }))
    await again.records(1, 1)
    expect(again.received.filter((event) => event.type === 'log_entry')).toEqual([])
  })

  it('R08: who is online is told, and who follows is online', async () => {
    const { account, socket, stream } = await pair()
    const ids = account.devices.map((device) => device.device_id)
    const all = (await stream.next('presence', ({ data }) => data.devices.length === 2)).data.devices
    expect(
      all
        .filter((device: { online: boolean }) => device.online)
        .map((device: { device_id: string }) => device.device_id)
        .sort(),
    ).toEqual(ids.sort())
    await socket.close()
    const gone = await stream.next('presence', ({ data }) => data.devices[0].online === false)
    expect(gone.data.devices[0].device_id).toBe(socket.identity.device_id)
    const back = await server.connect(account, 0)
    await back.next('presence', ({ head }) => head.devices.some((device) => device.online && device.device_id !== back.identity.device_id))
    await stream.close()
    await back.next('presence', ({ head }) => head.devices.some((device) => !device.online && device.device_id !== back.identity.device_id))
  })

  it('follows beside the socket and the sessions of its device, neither ends the other', async () => {
    const { account, stream, send } = await pair()
    const own = await server.connect(account, 1)
    await server.session(account, 1)
    expect((await own.closed).code).toBe(4409)
    await send(1)
    await stream.records(1, 0)
  })

  it('R12: so many streams of a device and no more; a seat is given back', async () => {
    const account = await server.account()
    const token = await server.token(account)
    const streams = await Promise.all([1, 2, 3, 4].map(() => server.follow(token)))
    expect(await server.ask('GET', '/api/events/live', token)).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
    await streams[0]!.close()
    await vi.waitUntil(async () => (await server.follow(token)).status === 200, { timeout: 3_000 })
  })

  it('says something now and then, so that the line is known to hold', async () => {
    const { stream } = await pair()
    await expect.poll(() => stream.comments, { timeout: 3_000 }).toBeGreaterThan(2)
  })
})

describe('a slow reader', () => {
  it('is not let go and misses nothing: above the mark nothing is queued, later it goes on from the store', async () => {
    const { stream, send } = await pair(small)
    stream.pause()
    for (let i = 0; i < 40; i++) await send(8, 20_000)
    expect(small.relay.outbound.bytes).toBeLessThan(3 * 1_048_576)
    stream.resume()
    const events = await stream.records(320, 0)
    expect(events.map((event) => event.position)).toEqual(Array.from({ length: 320 }, (_, i) => i + 1))
    await expect.poll(() => small.relay.outbound.bytes).toBe(0)
  }, 20_000)

  it('one that reads nothing at all is let go after the time', async () => {
    const { stream, send } = await pair(impatient)
    stream.pause()
    for (let i = 0; i < 60; i++) await send(8, 20_000)
    await expect.poll(() => impatient.relay.sessions.size(), { timeout: 6_000 }).toBe(1)
    expect(impatient.relay.outbound.bytes).toBe(0)
    stream.resume()
    await stream.ended
  }, 20_000)
})

describe('how it ends', () => {
  it('C4: with the revocation, which it is told of, and nothing later', async () => {
    const { account, stream, socket } = await pair()
    const { device_id } = account.devices[1]!
    const request = await append(server.store, account, { type: 'revoke_device', revoked: [{ device_id }] })
    const { history_id } = server.store
    server.bus.publish(account.user_no, { is: 'log', history_id, log_seq: account.log_seq, revoked: [device_id] })
    socket.sendRecords(...makeRecords(socket, 1, 1, { epoch: account.log_seq }))
    await stream.ended
    // found by the round, before the hint came, it is told with all entries of the log
    const told = stream.received.filter((event) => event.type === 'log_entry')
    expect(told.at(-1)?.data.body).toBe(Buffer.from(request.entry.body).toString('base64url'))
    expect((await stream.next('closed')).data).toMatchObject({ code: 4403, name: 'device_revoked' })
    expect(stream.received.filter((event) => event.type === 'event')).toEqual([])
  })

  it('C4: also one that reads nothing', async () => {
    const { account, stream, send } = await pair(small)
    stream.pause()
    for (let i = 0; i < 30; i++) await send(8, 20_000)
    const { device_id } = account.devices[1]!
    await append(small.store, account, { type: 'revoke_device', revoked: [{ device_id }] })
    const { history_id } = small.store
    small.bus.publish(account.user_no, { is: 'log', history_id, log_seq: account.log_seq, revoked: [device_id] })
    await expect.poll(() => small.relay.sessions.size(), { timeout: 15_000 }).toBe(1)
  }, 20_000)

  it('C4: a revocation that nobody announced is found by the round', async () => {
    const { account, stream } = await pair()
    await append(server.store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[1]!.device_id }] })
    await stream.ended
    expect((await stream.next('closed')).data.name).toBe('device_revoked')
  })

  it('C5: with the account', async () => {
    const { account, stream, socket } = await pair()
    server.bus.publish(account.user_no, { is: 'deleted' })
    await Promise.all([stream.ended, socket.closed])
    expect((await stream.next('closed')).data).toMatchObject({ code: 4410, name: 'account_gone' })
  })

  it('G10: with the account, also when the hint was lost', async () => {
    const { account, stream } = await pair()
    await server.store.deleteAccount(account.user_id, null)
    await stream.ended
    expect((await stream.next('closed')).data.name).toBe('account_gone')
  })

  it.each([true, false])('G23: when its device is to prove itself anew (told: %s)', async (told) => {
    const { account, stream } = await pair()
    const { device_id } = account.devices[1]!
    await server.store.endFamily(account.user_no, 2)
    if (told) server.bus.publish(account.user_no, { is: 'device', device_id })
    await stream.ended
    expect((await stream.next('closed')).data.name).toBe('reauthenticate')
  })

  it('not by a hint alone: the store is asked, and says that it may go on', async () => {
    const { account, stream, send } = await pair()
    server.bus.publish(account.user_no, { is: 'device', device_id: account.devices[1]!.device_id })
    await send(1)
    await stream.records(1, 0)
  })

  it.each(['logout', 'a refresh token that comes again'])(
    'G23: %s between the look at the token and the first hint leaves no stream open',
    async (how) => {
      const account = await server.account()
      const socket = await server.connect(account)
      socket.sendRecords(...makeRecords(socket, 1, 1))
      await takeAcks(socket, 1)
      const ask = async (path: string, purpose: string, more: object = {}) =>
        server.ask('POST', path, null, { ...(await server.assertion(account, 0, purpose)), ...more })
      const granted = (await ask('/api/auth/token', 'token')).body
      const refresh = (refresh_token: string) => ask('/api/auth/refresh', 'refresh', { refresh_token })
      const second = (await refresh(granted.refresh_token)).body
      await refresh(second.refresh_token)

      const [reached, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
      const readTip = server.store.readTip.bind(server.store)
      vi.spyOn(server.store, 'readTip').mockImplementationOnce(async (...args) => {
        reached.resolve()
        await held.promise
        return readTip(...args)
      })
      const following = server.follow(granted.access_token, '?after_position=1')
      await reached.promise
      const ended =
        how === 'logout' ? await server.ask('POST', '/api/auth/logout', granted.access_token) : await refresh(granted.refresh_token)
      expect(ended.status).toBe(how === 'logout' ? 204 : 401)
      held.resolve()
      const stream = await following
      await stream.ended
      expect(stream.received.map(({ type }) => type)).toEqual(['closed'])
      expect((await stream.next('closed')).data).toMatchObject({ code: 4456, name: 'reauthenticate' })
    },
  )

  it('with the token that opened it', async () => {
    const account = await server.account()
    const { device_id } = account.devices[0]!
    const place = { cursor: { position: 0, event_id: null, received_at: null, history_id: null }, log_seq: null }
    let seats = 1
    const seat = { authenticated: () => {}, leave: () => void (seats -= 1) }
    const ask = { user_no: account.user_no, device_no: 1, user_id: account.user_id, device_id, token_version: 0, place, left_ms: 300, seat }
    const http = createServer((_request, response) => follow(server.relay, response, ask)).listen(0, '127.0.0.1')
    await once(http, 'listening')
    const stream = new Followed(`http://127.0.0.1:${(http.address() as AddressInfo).port}/`, '')
    await stream.next('presence')
    await stream.ended
    expect((await stream.next('closed')).data).toMatchObject({ code: 4456, name: 'reauthenticate' })
    await expect.poll(() => seats).toBe(0)
    http.close()
  })

  it('R05: its answer has the headers of every answer', async () => {
    const { stream } = await pair()
    const { headers } = await stream.answered
    expect(headers).toMatchObject({ 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' })
    expect(headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('without a token, or with one of a revoked device, there is no stream', async () => {
    const account = await server.account(2)
    const token = await server.token(account, 1)
    await append(server.store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[1]!.device_id }] })
    for (const given of [null, 'x', token]) expect((await server.ask('GET', '/api/events/live', given)).status).toBe(401)
  })
})

describe('at a drain', () => {
  const drained = useEventServer(limits)
  it('says when to come back, and ends', async () => {
    const { stream, send, token } = await pair(drained)
    await send(1)
    await stream.records(1, 0)
    const gone = drained.relay.drain()
    const going = await stream.next('going_away')
    expect(going.retry).toBe(String(going.data.retry_after_ms))
    expect((await stream.next('closed')).data).toMatchObject({ code: 1001, name: 'draining' })
    await Promise.all([gone, stream.ended])
    expect(await drained.ask('GET', '/api/events/live', token)).toMatchObject({ status: 503, body: { code: 'unavailable' } })
  })
})

describe('the id', () => {
  const history_id = Buffer.from(nodeCrypto.random(32)).toString('base64url')
  it('says again what it was made of, and no other text says anything', () => {
    const entry = fc.record({ event_id: fc.uuid(), received_at: fc.maxSafeNat() })
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.option(entry), fc.option(fc.integer({ min: 0, max: 0xffff_ffff })), (position, named, log_seq) => {
        const cursor = { position, history_id, event_id: named?.event_id ?? null, received_at: named?.received_at ?? null }
        expect(decodeFollowId(encodeFollowId({ cursor, log_seq }))).toEqual({ cursor, log_seq })
      }),
    )
    fc.assert(fc.property(fc.string({ maxLength: 120 }), (text) => decodeFollowId(text) === null))
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        const text = Buffer.from(bytes).toString('base64url')
        const read = decodeFollowId(text)
        if (read?.cursor.history_id != null)
          expect(encodeFollowId({ ...read, cursor: { ...read.cursor, history_id: read.cursor.history_id } })).toBe(text)
      }),
    )
  })
})
