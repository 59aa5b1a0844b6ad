import { decodeAcks, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { append } from '@sealpost/testing/clients/store-accounts'
import { makeEventJson, toJson, useEventServer } from '@sealpost/testing/relays/event-server'
import { makeRecords, takeAcks, takeEvents } from '@sealpost/testing/relays/socket-relay'
import { makeRecord } from '@sealpost/testing/clients/raw-client'
import { EVENT_CONTRACTS } from './contracts.ts'
import { createEventRoutes } from './routes.ts'

const server = useEventServer({ tickMs: 50, headRoundMs: 200 })

/** A device that sends over REST. */
async function sender(account: Awaited<ReturnType<typeof server.account>>, device = 0) {
  const token = await server.token(account, device)
  const session_id = await server.session(account, device)
  return {
    token,
    session_id,
    send: (events: object[], session = session_id) => server.ask('POST', '/api/events', token, { session_id: session, events }),
  }
}

/** Null: there is no account. */
async function positionOf({ user_no }: { user_no: number }): Promise<number | null> {
  const text = `select coalesce(h.last, 0) as last from account a left join head h on h.user_no = a.user_no and h.stream_no = 0 where a.user_no = $1`
  const { rows } = await server.store.pools.main.query<{ last: number }>(text, [user_no])
  return rows[0]?.last ?? null
}

const read = (token: string, query = '') => server.ask('GET', `/api/events${query}`, token)

describe('sending over REST', () => {
  it('G14: what REST sends and what sockets send has one order, for those who follow and those who read', async () => {
    const account = await server.account(4)
    const [a, follower] = [await server.connect(account, 0), await server.connect(account, 1)]
    const rest = await sender(account, 2)
    const stream = await server.follow(await server.token(account, 3))
    for (let i = 0; i < 10; i++) {
      a.sendRecords(...makeRecords(a, 1 + i * 3, 3, { epoch: account.log_seq, stream_id: `s${i % 2}` }))
      const answer = await rest.send([1, 2].map((n) => makeEventJson(account, 2, i * 2 + n, { stream_id: `s${i % 2}` }).json))
      expect(answer).toMatchObject({ status: 200, body: { acks: [{ device_seq: i * 2 + 1 }, { device_seq: i * 2 + 2 }] } })
      expect(answer.body.nack).toBe(undefined)
      EVENT_CONTRACTS.append_events.answer.schema.parse(answer.body)
    }
    const live = await takeEvents(follower, 50, 0)
    expect(live.map((record) => record.server!.position)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1))
    const followed = await stream.records(50, 0)
    const page = await read(rest.token, '?limit=1000')
    EVENT_CONTRACTS.read_events.answer.schema.parse(page.body)
    const ids = live.map((record) => record.event_id)
    expect(followed.map((event) => event.event_id)).toEqual(ids)
    expect(page.body.events).toEqual(followed)
    expect(page.body).toMatchObject({ after: 0, upto: 50, has_more: false, head_position: 50, history_id: server.store.history_id })
    const own = await takeEvents(a, 20, 0)
    expect(own.map((record) => record.event_id)).toEqual(
      live.filter((record) => record.device_id !== a.identity.device_id).map((record) => record.event_id),
    )
  })

  it('R11, C3: the same event by REST and by socket is one row, acked twice with the same numbers', async () => {
    const account = await server.account(2)
    const events = [1, 2, 3].map((n) => makeEventJson(account, 0, n, { ttl: n === 2 ? 60 : undefined } as object))
    const rest = await sender(account)
    const first = await rest.send(events.map(({ json }) => json))
    expect(first.body.acks.map((ack: { position: number }) => ack.position)).toEqual([1, 2, 3])
    expect((await rest.send(events.map(({ json }) => json))).body).toEqual(first.body)
    const socket = await server.connect(account, 0)
    socket.sendRecords(...events.map(({ record }) => record))
    const acks: object[] = []
    while (acks.length < 3) {
      const { head, body } = await socket.next('ack')
      acks.push(...decodeAcks(body).map((row) => ({ ...row, received_at: head.received_at })))
    }
    expect(acks).toEqual(first.body.acks)
    socket.sendRecords(...makeRecords(socket, 4, 1, { epoch: account.log_seq }))
    await takeAcks(socket, 1)
    expect((await read(rest.token)).body.events.map((event: { device_seq: number }) => event.device_seq)).toEqual([1, 2, 3, 4])
  })

  it('sent by socket first, asked again by REST', async () => {
    const account = await server.account()
    const socket = await server.connect(account)
    const records = makeRecords(socket, 1, 3, { epoch: account.log_seq })
    socket.sendRecords(...records)
    const rows = await takeAcks(socket, 3)
    const rest = await sender(account)
    expect((await socket.closed).code).toBe(4409)
    const { body } = await rest.send(records.map((record) => toJson(account.user_id, record)))
    expect(body.acks).toMatchObject(rows)
  })

  it('R11: the numbers are judged as on a socket', async () => {
    const account = await server.account()
    const { send } = await sender(account)
    const [one, two, , four] = [1, 2, 3, 4].map((n) => makeEventJson(account, 0, n).json)
    expect((await send([two!])).body).toEqual({ acks: [], nack: { code: 'sequence_gap', device_seq: 2, expected_device_seq: 1 } })
    const part = await send([one!, two!, four!])
    expect(part.body).toMatchObject({
      acks: [{ device_seq: 1 }, { device_seq: 2 }],
      nack: { code: 'sequence_gap', expected_device_seq: 3 },
    })
    const other = makeEventJson(account, 0, 2).json
    expect((await send([other])).body.nack).toEqual({ code: 'sequence_conflict', device_seq: 2, expected_device_seq: 3 })
    const old = makeEventJson(account, 0, 3, { epoch: 0 }).json
    await append(server.store, account, { type: 'rotate_keys' })
    expect((await send([old])).body.nack).toMatchObject({ code: 'stale_epoch', expected_device_seq: 3, log_seq: account.log_seq })
  })

  it('R10: an event of another device or user is refused, and no member is taken that is not known', async () => {
    const [account, stranger] = [await server.account(2), await server.account()]
    const { send } = await sender(account)
    const { json } = makeEventJson(account, 0, 1)
    const foreign = makeEventJson(account, 1, 1).json
    expect((await send([foreign])).body).toEqual({ acks: [], nack: { code: 'invalid_event', device_seq: 1, expected_device_seq: 1 } })
    expect(await send([{ ...json, user_id: stranger.user_id }])).toMatchObject({ status: 400, body: { code: 'invalid_message' } })
    for (const more of [{ position: 1 }, { stream_seq: 1 }, { received_at: 1 }, { payload_hash: json }, { __proto__x: 1 }])
      expect((await send([{ ...json, ...more }])).status).toBe(400)
    expect((await send([{ ...json, encrypted_payload: null, payload_hash: toBase64url(nodeCrypto.random(32)) }])).status).toBe(400)
    expect((await send([])).status).toBe(400)
    expect((await send(Array.from({ length: 257 }, () => json))).status).toBe(400)
    expect((await read((await sender(stranger)).token)).body).toMatchObject({ events: [], head_position: 0 })
    expect((await send([json])).body.acks).toHaveLength(1)
  })

  it('R14: whatever is sent as an event gets acks, a nack or a 400', async () => {
    const account = await server.account()
    const { send } = await sender(account)
    const { json } = makeEventJson(account, 0, 1)
    const value = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom('', 'AAAA', 0, -1, 2 ** 32, 2 ** 53, null), fc.string())
    const change = fc.dictionary(fc.constantFrom(...Object.keys(json), 'x', 'position'), value, { minKeys: 1, maxKeys: 3 })
    await fc.assert(
      fc.asyncProperty(change, async (changes) => {
        const { status, body } = await send([{ ...json, ...changes }])
        expect([200, 400]).toContain(status)
        if (status === 200) EVENT_CONTRACTS.append_events.answer.schema.parse(body)
        else expect(['invalid_message', 'invalid_encoding', 'invalid_request']).toContain(body.code)
      }),
      { numRuns: 300 },
    )
  }, 30_000)

  it('over the rate of its device it is asked to come again', async () => {
    const account = await server.account()
    const { send } = await sender(account)
    server.relay.pace.take(`${account.user_no}/1`, 20_000, 0, performance.now())
    const { body } = await send([makeEventJson(account, 0, 1).json])
    expect(body).toMatchObject({ acks: [], nack: { code: 'rate_limited', expected_device_seq: 1 } })
    expect(body.nack.retry_after_ms).toBeGreaterThan(1_000)
  })
})

describe('one writer', () => {
  it('a session over REST supersedes the socket, and a socket that session', async () => {
    const account = await server.account(2)
    const socket = await server.connect(account)
    const other = await server.connect(account, 1)
    const rest = await sender(account)
    expect(await socket.closed).toEqual({ code: 4409, reason: 'superseded' })
    expect((await rest.send([makeEventJson(account, 0, 1).json])).status).toBe(200)
    await server.connect(account)
    expect(await rest.send([makeEventJson(account, 0, 2).json])).toMatchObject({ status: 409, body: { code: 'superseded' } })
    expect(await rest.send([makeEventJson(account, 0, 2).json], crypto.randomUUID())).toMatchObject({ status: 409 })
    expect((await takeEvents(other, 1, 0)).map((record) => record.device_seq)).toEqual([1])
  })

  it('races of sessions over REST and sockets leave one that may write', async () => {
    const account = await server.account()
    const token = await server.token(account)
    for (let round = 0; round < 10; round++) {
      const taken = await Promise.all([
        server.session(account),
        server.connect(account).then(
          (client) => client.session_id,
          () => null,
        ),
        server.session(account),
      ])
      const sessions = taken.filter((id) => id !== null)
      const { json } = makeEventJson(account, 0, round + 1)
      const answers = []
      for (const session_id of sessions) answers.push(await server.ask('POST', '/api/events', token, { session_id, events: [json] }))
      expect(answers.map(({ status }) => status).sort((a, b) => a - b)).toEqual([200, ...sessions.slice(1).map(() => 409)])
      await server.session(account)
    }
    expect((await read(token)).body.head_position).toBe(10)
  })

  it('a claim of what is acked raises the next number', async () => {
    const account = await server.account()
    const signed = await server.assertion(account, 0, 'session')
    const { status, body } = await server.ask('POST', '/api/events/session', null, { ...signed, last_device_seq: 5 })
    expect({ status, body }).toMatchObject({ status: 200, body: { last_device_seq: 5, log_seq: 0, head_position: 0, floor: 0 } })
    EVENT_CONTRACTS.take_session.answer.schema.parse(body)
    const again = await server.ask('POST', '/api/events/session', null, { ...signed })
    expect(again).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
    for (const purpose of ['token', 'log'])
      expect((await server.ask('POST', '/api/events/session', null, await server.assertion(account, 0, purpose))).status).toBe(401)
  })

  it('C4: a revoked device takes no session and sends nothing', async () => {
    const account = await server.account(2)
    const rest = await sender(account, 1)
    const signed = await server.assertion(account, 1, 'session')
    const { device_id } = account.devices[1]!
    await append(server.store, account, { type: 'revoke_device', revoked: [{ device_id }] })
    expect((await rest.send([])).status).toBe(401)
    expect(await server.ask('POST', '/api/events/session', null, signed)).toMatchObject({ status: 403, body: { code: 'device_revoked' } })
  })
})

describe('G09: what was under way when it was ended', () => {
  /** The request was let in by its token; what follows happens before it is stored. */
  async function sendAfter(end: (account: Awaited<ReturnType<typeof server.account>>) => Promise<unknown>) {
    const account = await server.account(2)
    const session_id = await server.session(account, 1)
    await end(account)
    const { device_id } = account.devices[1] ?? { device_id: revoked }
    const { append_events } = createEventRoutes({
      store: server.store,
      bus: server.bus,
      relay: server.relay,
      server_key: nodeCrypto.random(32),
      skew_ms: 0,
    })
    const caller = {
      user_no: account.user_no,
      device_no: 2,
      user_id: account.user_id,
      device_id,
      token_version: 0,
      token_expires_at: Date.now(),
    }
    const event = toJson(account.user_id, makeRecord(device_id, 1, { epoch: account.log_seq })) as never
    const rest = {
      params: undefined,
      query: undefined,
      headers: undefined,
      address: null,
      request_id: 'r',
      gone: new AbortController().signal,
    }
    const answer = await append_events({ ...rest, caller, body: { session_id, events: [event] } })
    return { answer, position: await positionOf(account) }
  }
  let revoked = ''

  it('its device was revoked', async () => {
    const { answer, position } = await sendAfter(async (account) => {
      revoked = account.devices[1]!.device_id
      await append(server.store, account, { type: 'revoke_device', revoked: [{ device_id: revoked }] })
    })
    expect({ answer, position }).toEqual({ answer: { problem: { code: 'device_revoked' } }, position: 0 })
  })

  it('its account was deleted', async () => {
    const { answer, position } = await sendAfter((account) => server.store.deleteAccount(account.user_id, null))
    expect({ answer, position }).toEqual({ answer: { problem: { code: 'account_gone' } }, position: null })
  })

  it('races of revocation and sending: what is acked is stored, and nothing after the revocation', async () => {
    for (let round = 0; round < 20; round++) {
      const account = await server.account(2)
      const rest = await sender(account, 1)
      const { device_id } = account.devices[1]!
      const events = Array.from({ length: 5 }, (_, n) => makeEventJson(account, 1, n + 1).json)
      const [answer] = await Promise.all([
        rest.send(events),
        append(server.store, account, { type: 'revoke_device', revoked: [{ device_id }] }),
      ])
      expect([200, 401, 403]).toContain(answer.status)
      expect(await positionOf(account)).toBe(answer.status === 200 ? answer.body.acks.length : 0)
      expect((await rest.send([makeEventJson(account, 0, 6).json])).status).toBe(401)
    }
  })
})

describe('R03: reading over REST', () => {
  it('G02: pages by token hold every event once; the token is of its owner and streams', async () => {
    const account = await server.account(2)
    const rest = await sender(account)
    for (let i = 0; i < 5; i++)
      await rest.send(
        Array.from({ length: 10 }, (_, n) => makeEventJson(account, 0, i * 10 + n + 1, { stream_id: n % 2 === 0 ? 'a' : 'b' }).json),
      )
    for (const [streams, count] of [
      ['', 50],
      ['&streams=a', 25],
      ['&streams=a,b', 50],
      ['&streams=nobody', 0],
    ] as const) {
      const seen: number[] = []
      let query = `?limit=7${streams}`
      for (;;) {
        const { status, body } = await read(rest.token, query)
        expect(status).toBe(200)
        seen.push(...body.events.map((event: { position: number }) => event.position))
        if (!body.has_more) break
        query = `?limit=7${streams}&continuation_token=${body.continuation_token}`
      }
      expect(seen).toHaveLength(count)
      expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b))
    }
    const { body } = await read(rest.token, '?limit=7')
    const bad = { status: 400, body: { code: 'invalid_request' } }
    expect(await read(await server.token(account, 1), `?continuation_token=${body.continuation_token}`)).toMatchObject(bad)
    expect(await read(rest.token, `?streams=a&continuation_token=${body.continuation_token}`)).toMatchObject(bad)
    for (const query of ['?limit=0', '?limit=1001', '?after_position=-1', '?streams=a,,b', '?stream=a', `?event_id=${crypto.randomUUID()}`])
      expect(await read(rest.token, query), query).toMatchObject(bad)
  })

  it('C6: a cursor is judged as in the handshake', async () => {
    const account = await server.account()
    const rest = await sender(account)
    await rest.send([1, 2, 3].map((n) => makeEventJson(account, 0, n).json))
    const { event_id, received_at } = (await server.store.readTip(account.user_no, 2))!
    const { history_id } = server.store
    const query = (changes: object) =>
      `?${new URLSearchParams({ after_position: '2', event_id, received_at: String(received_at), history_id, ...changes }).toString()}`
    const good = await read(rest.token, query({}))
    expect(good.body).toMatchObject({ after: 2, upto: 3, events: [{ device_seq: 3 }] })
    expect(good.body.reset).toBe(undefined)
    for (const changes of [{ event_id: crypto.randomUUID() }, { received_at: '1' }, { after_position: '9' }]) {
      const { body } = await read(rest.token, query(changes))
      expect(body).toMatchObject({ after: 0, reset: { reason: 'cursor_unknown', from_position: 0 } })
      expect(body.events).toHaveLength(3)
    }
    const elsewhere = toBase64url(nodeCrypto.random(32))
    expect((await read(rest.token, query({ history_id: elsewhere, event_id: crypto.randomUUID() }))).body.reset.reason).toBe(
      'history_changed',
    )
  })

  it('C6: a position alone is judged too: one that is not there any more gives reset, and all from there', async () => {
    const account = await server.account()
    const rest = await sender(account)
    for (const position of [1, Number.MAX_SAFE_INTEGER])
      expect((await read(rest.token, `?after_position=${position}`)).body).toMatchObject({
        after: 0,
        upto: 0,
        head_position: 0,
        reset: { reason: 'cursor_unknown', from_position: 0 },
      })
    expect((await read(rest.token)).body.reset).toBe(undefined)
    await rest.send([1, 2, 3].map((n) => makeEventJson(account, 0, n).json))
    for (const position of [0, 1, 3]) {
      const { body } = await read(rest.token, `?after_position=${position}`)
      expect(body).toMatchObject({ after: position, upto: 3 })
      expect(body.reset).toBe(undefined)
    }
    const beyond = (await read(rest.token, '?after_position=4')).body
    expect(beyond).toMatchObject({ after: 0, reset: { reason: 'cursor_unknown', from_position: 0 } })
    expect(beyond.events).toHaveLength(3)
    await server.store.pools.main.query('delete from event where user_no = $1 and position <= 2', [account.user_no])
    await server.store.pools.main.query('update account set floor = 2 where user_no = $1', [account.user_no])
    const taken = (await read(rest.token, '?after_position=1')).body
    expect(taken).toMatchObject({ after: 1, floor: 2, events: [{ position: 3 }] })
    expect(taken.reset).toBe(undefined)
  })

  it('a page is that of a query on a socket', async () => {
    const account = await server.account(2)
    const rest = await sender(account)
    await rest.send([1, 2, 3].map((n) => makeEventJson(account, 0, n).json))
    const socket = await server.connect(account, 1)
    const { head, records } = await socket.replay({ query: true, limit: 2 })
    const { body } = await read(rest.token, '?limit=2')
    expect(body.events.map((event: { event_id: string }) => event.event_id)).toEqual(records.map((record) => record.event_id))
    const { type: _, id: _id, continuation_token: _t, ...page } = head
    expect(body).toMatchObject(page)
  })
})
