import { decodeRecords, encodeMessage, LIMITS } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import { append, makeEntry, makeEventId } from '@sealpost/testing/clients/store-accounts'
import { makeRecord, proveRaw, randomIdentity, RawSocket, startRaw } from '@sealpost/testing/clients/raw-client'
import { makeRecords, takeAcks, takeEvents, useRelay } from '@sealpost/testing/relays/socket-relay'

const limits = { tickMs: 50, headRoundMs: 200 }
const relay = useRelay({ limits })
const unfinished = useRelay({ limits: { ...limits, messageMs: 500 } })
const impatient = useRelay({ limits: { ...limits, handshake_step_ms: 800, pingMs: 300, pongMs: 700 } })

describe('one event end to end', () => {
  it('G14: what one device sends is acked and reaches the others in order, with numbers without a hole', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    const b = await relay.connect(account, 1)
    expect(a.established).toMatchObject({ mode: 'live', last_device_seq: 0, head_position: 0, features: [], gen: 0 })
    const records = makeRecords(a, 1, 5, { epoch: account.log_seq })
    a.sendRecords(...records.slice(0, 2))
    a.sendRecords(...records.slice(2))
    const acks = await takeAcks(a, 5)
    expect(acks.map((row) => [row.device_seq, row.position, row.stream_seq])).toEqual([1, 2, 3, 4, 5].map((n) => [n, n, n]))
    const got = await takeEvents(b, 5, 0)
    expect(got.map((record) => [record.device_seq, record.server!.position])).toEqual([1, 2, 3, 4, 5].map((n) => [n, n]))
    expect(got.map((record) => record.device_id)).toEqual(records.map(() => a.identity.device_id))
  })

  it('tells the sender of the position by an empty event with the tip, and sends it no own event', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    a.sendRecords(...makeRecords(a, 1, 3, { epoch: account.log_seq }))
    await takeAcks(a, 3)
    const { head, body } = await a.next('event')
    expect(head).toMatchObject({ after: 0, upto: 3 })
    expect(head.tip).toEqual(await relay.store.readTip(account.user_no, 3))
    expect(body.length).toBe(0)
  })

  it('G14: two senders see one order, and each message continues at the one before', async () => {
    const account = await relay.account(3)
    const [a, b, c] = [await relay.connect(account, 0), await relay.connect(account, 1), await relay.connect(account, 2)]
    for (let i = 0; i < 20; i++) {
      a.sendRecords(...makeRecords(a, 1 + i * 3, 3, { epoch: account.log_seq, stream_id: `s${i % 3}` }))
      b.sendRecords(...makeRecords(b, 1 + i * 2, 2, { epoch: account.log_seq, stream_id: `s${i % 3}` }))
    }
    const seen = await takeEvents(c, 100, 0)
    expect(seen.map((record) => record.server!.position)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1))
    for (const stream of ['s0', 's1', 's2']) {
      const numbers = seen.filter((record) => record.stream_id === stream).map((record) => record.server!.stream_seq)
      expect(numbers).toEqual(numbers.map((_, i) => i + 1))
    }
    for (const sender of [a, b]) {
      const numbers = seen.filter((record) => record.device_id === sender.identity.device_id).map((record) => record.device_seq)
      expect(numbers).toEqual(numbers.map((_, i) => i + 1))
    }
    const atA = await takeEvents(a, 40, 0)
    expect(atA.map((r) => r.event_id)).toEqual(seen.filter((r) => r.device_id !== a.identity.device_id).map((r) => r.event_id))
  })
})

describe('R11: refusals and duplicates', () => {
  it('acks the same event again with its first position, and refuses another one under its number', async () => {
    const account = await relay.account()
    const a = await relay.connect(account)
    const [one, two] = makeRecords(a, 1, 2, { epoch: account.log_seq })
    a.sendRecords(one!, two!)
    const first = await takeAcks(a, 2)
    a.sendRecords(one!, two!)
    expect(await takeAcks(a, 2)).toEqual(first)
    a.sendRecords(makeRecord(a.identity.device_id, 2, { epoch: account.log_seq }))
    expect((await a.next('nack')).head).toEqual({ type: 'nack', code: 'sequence_conflict', device_seq: 2, expected_device_seq: 3 })
  })

  it('a message of old and new events: the old are acked as they were, the new are stored', async () => {
    const account = await relay.account()
    const a = await relay.connect(account)
    const records = makeRecords(a, 1, 4, { epoch: account.log_seq })
    a.sendRecords(...records.slice(0, 2))
    await takeAcks(a, 2)
    a.sendRecords(...records)
    expect((await takeAcks(a, 4)).map((row) => row.position)).toEqual([1, 2, 3, 4])
  })

  it('refuses a gap once, discards what is above, and goes on with the expected number', async () => {
    const account = await relay.account()
    const a = await relay.connect(account)
    const records = makeRecords(a, 1, 5, { epoch: account.log_seq })
    a.sendRecords(records[2]!)
    a.sendRecords(records[3]!)
    expect((await a.next('nack')).head).toEqual({ type: 'nack', code: 'sequence_gap', device_seq: 3, expected_device_seq: 1 })
    a.sendRecords(...records)
    expect((await takeAcks(a, 5)).map((row) => row.device_seq)).toEqual([1, 2, 3, 4, 5])
    expect(a.received.filter((message) => message.head.type === 'nack')).toEqual([])
  })

  it('G07: refuses what has expired and what lies too far ahead, at the edges of five minutes, and stores the rest', async () => {
    const account = await relay.account()
    const a = await relay.connect(account)
    const id = a.identity.device_id
    const epoch = account.log_seq
    const now = relay.store.now()
    a.sendRecords(
      makeRecord(id, 1, { epoch, ttl: 1, made_at: now - 295_000 }),
      makeRecord(id, 2, { epoch, ttl: 9, made_at: now + 295_000 }),
    )
    await takeAcks(a, 2)
    a.sendRecords(makeRecord(id, 3, { epoch }), makeRecord(id, 4, { epoch, ttl: 1, made_at: now - 310_000 }))
    expect((await a.next('nack')).head).toMatchObject({ code: 'event_expired', device_seq: 4, expected_device_seq: 3 })
    a.sendRecords(makeRecord(id, 3, { epoch, ttl: 9, made_at: now + 310_000 }))
    expect((await a.next('nack')).head).toMatchObject({ code: 'clock_skew', device_seq: 3, expected_device_seq: 3 })
    a.sendRecords(makeRecord(id, 3, { epoch, made_at: now + 310_000 }))
    await takeAcks(a, 1)
  })

  it('tells of the missing log entries before it refuses a stale epoch', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account)
    await append(relay.store, account, { type: 'rotate_keys' })
    a.sendRecords(makeRecord(a.identity.device_id, 1, { epoch: account.log_seq - 1 }))
    const nack = await a.next('nack')
    expect(nack.head).toMatchObject({ code: 'stale_epoch', device_seq: 1, expected_device_seq: 1 })
    expect(a.types.indexOf('log_entry')).toBeGreaterThan(-1)
    expect(a.types.indexOf('log_entry')).toBeLessThan(a.types.indexOf('nack'))
    a.sendRecords(makeRecord(a.identity.device_id, 1, { epoch: account.log_seq }))
    await takeAcks(a, 1)
  })

  it('refuses an event of another device and one that is too large, and stores what came before', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account)
    const id = a.identity.device_id
    const epoch = account.log_seq
    a.sendRecords(makeRecord(id, 1, { epoch }), makeRecord(account.devices[1]!.device_id, 2, { epoch }), makeRecord(id, 3, { epoch }))
    expect((await a.next('nack')).head).toEqual({ type: 'nack', code: 'invalid_event', device_seq: 2, expected_device_seq: 2 })
    await takeAcks(a, 1)
    a.sendRecords(makeRecord(id, 2, { epoch, payload: new Uint8Array(LIMITS.payloadBytesMax + 1) }))
    expect((await a.next('nack')).head).toMatchObject({ code: 'payload_too_large', device_seq: 2, expected_device_seq: 2 })
    a.sendRecords(makeRecord(id, 2, { epoch, payload: new Uint8Array(LIMITS.payloadBytesMax) }))
    await takeAcks(a, 1)
  })
})

describe('R01: replay', () => {
  it('G02: pages from the cursor to the end while events arrive, and is live from exactly there', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    a.sendRecords(...makeRecords(a, 1, 250, { epoch: account.log_seq }))
    await takeAcks(a, 250)
    const b = await relay.connect(account, 1)
    expect(b.established).toMatchObject({ mode: 'replay', head_position: 250, floor: 0 })
    const first = await b.replay()
    expect(first.head).toMatchObject({ after: 0, upto: 100, has_more: true, total_events: 250, head_position: 250 })
    const second = await b.replay({ limit: 100, continuation_token: first.head.continuation_token! })
    expect(second.head).toMatchObject({ after: 100, upto: 200 })
    a.sendRecords(...makeRecords(a, 251, 10, { epoch: account.log_seq }))
    await takeAcks(a, 10)
    const third = await b.replay()
    const all = [...first.records, ...second.records, ...third.records]
    const more = third.head.has_more ? [] : await takeEvents(b, 260 - third.head.upto, third.head.upto)
    expect([...all, ...more].map((record) => record.server!.position)).toEqual(Array.from({ length: 260 }, (_, i) => i + 1))
  })

  it('G02: answers one request with as many pages as asked for', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    a.sendRecords(...makeRecords(a, 1, 90, { epoch: account.log_seq }))
    await takeAcks(a, 90)
    const b = await relay.connect(account, 1)
    b.send({ type: 'replay_request', id: 7, last_ack_device_seq: 0, limit: 30, pages: 5 })
    for (const after of [0, 30, 60]) {
      const { head } = await b.next('replay_response')
      expect(head).toMatchObject({ id: 7, after, upto: after + 30, has_more: after < 60 })
    }
  })

  it('leaves out own events only as far as the device knows them as acked', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    a.sendRecords(...makeRecords(a, 1, 6, { epoch: account.log_seq }))
    await takeAcks(a, 6)
    await a.close()
    const lost = await relay.connect(account, 0, { auth: { last_device_seq: 2 } })
    expect(lost.established.last_device_seq).toBe(6)
    expect((await lost.replayAll()).map((record) => record.device_seq)).toEqual([3, 4, 5, 6])
    await lost.close()
    const again = await relay.connect(account, 0, { auth: { last_device_seq: 2 } })
    const page = await again.replay({ last_ack_device_seq: 4 })
    expect(page.records.map((record) => record.device_seq)).toEqual([5, 6])
  })

  it('G02: refuses a token that is cut, foreign, of another place or filter; the client goes on from its cursor', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    a.sendRecords(...makeRecords(a, 1, 30, { epoch: account.log_seq }))
    await takeAcks(a, 30)
    const b = await relay.connect(account, 1)
    const token = (await b.replay({ limit: 10 })).head.continuation_token!
    await b.replay({ limit: 10 })
    const query = (await a.replay({ query: true, limit: 5 })).head.continuation_token!
    const wrong = [token, token.slice(1), `A${token.slice(1)}`, query, 'x']
    for (const [id, continuation_token] of wrong.entries()) {
      b.send({ type: 'replay_request', id, last_ack_device_seq: 0, continuation_token })
      expect((await b.next('error')).head).toMatchObject({ id, code: 'invalid_token' })
    }
    expect((await b.replay()).head).toMatchObject({ after: 20, upto: 30, has_more: false })
  })

  it('a query reads some streams from anywhere and moves nothing', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    for (let i = 0; i < 10; i++) a.sendRecords(makeRecord(a.identity.device_id, i + 1, { epoch: account.log_seq, stream_id: `s${i % 2}` }))
    await takeAcks(a, 10)
    const b = await relay.connect(account, 1)
    const first = await b.replay({ query: true, streams: ['s1'], after_position: 3, limit: 2 })
    expect(first.records.map((record) => record.server!.position)).toEqual([4, 6])
    expect(first.head).toMatchObject({ after: 3, upto: 6, has_more: true })
    const rest = await b.replay({ query: true, streams: ['s1'], continuation_token: first.head.continuation_token! })
    expect(rest.records.map((record) => record.server!.position)).toEqual([8, 10])
    expect((await b.replay()).head).toMatchObject({ after: 0, upto: 10, has_more: false })
    expect((await a.replay({ query: true })).records.length).toBe(10)
  })

  it('a cursor that cannot be honoured gives a reset, and replay goes on from its position', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    a.sendRecords(...makeRecords(a, 1, 5, { epoch: account.log_seq }))
    await takeAcks(a, 5)
    const cursor = { position: 3, event_id: makeEventId(0), received_at: 12, history_id: a.established.history_id! }
    const b = await relay.connect(account, 1, { auth: { cursor } })
    expect(b.established.mode).toBe('reset')
    const { head } = await b.next('reset')
    expect(head).toEqual({
      type: 'reset',
      reason: 'cursor_unknown',
      history_id: a.established.history_id,
      head_position: 5,
      from_position: 0,
    })
    expect((await b.replayAll()).length).toBe(5)
    const tip = await relay.store.readTip(account.user_no, 5)
    await b.close()
    const c = await relay.connect(account, 1, { auth: { cursor: { position: 5, ...tip!, history_id: a.established.history_id! } } })
    expect(c.established.mode).toBe('live')
  })

  it('replay in a live session is refused', async () => {
    const a = await relay.connect(await relay.account())
    a.send({ type: 'replay_request', id: 3, last_ack_device_seq: 0 })
    expect((await a.next('error')).head).toMatchObject({ id: 3, code: 'invalid_request' })
  })
})

describe('R04, G09: sessions and revocation', () => {
  it('the newest session of a device wins; the fenced one is closed 4409 and commits nothing more', async () => {
    const account = await relay.account(2)
    const old = await relay.connect(account, 0)
    const fresh = await relay.connect(account, 0)
    expect(await old.closed).toMatchObject({ code: 4409 })
    fresh.sendRecords(...makeRecords(fresh, 1, 1, { epoch: account.log_seq }))
    await takeAcks(fresh, 1)
  })

  it('cuts a live session with the log entry and 4403, without a nack, whatever is in flight', async () => {
    const account = await relay.account(3)
    const [a, b] = [await relay.connect(account, 0), await relay.connect(account, 1)]
    const victim = account.devices[1]!
    b.sendRecords(...makeRecords(b, 1, 200, { epoch: account.log_seq }))
    const request = makeRevocation(account, victim.device_id)
    a.send({ type: 'log_append', id: 1, ...request })
    b.sendRecords(...makeRecords(b, 201, 50, { epoch: account.log_seq }))
    expect((await a.next('log_result')).head).toMatchObject({ id: 1, ok: true, log_seq: account.log_seq + 1 })
    expect(a.types.indexOf('log_entry')).toBeLessThan(a.types.indexOf('log_result'))
    expect(await b.closed).toMatchObject({ code: 4403 })
    const entry = await b.next('log_entry')
    expect(entry.head.body).toBe(request.body)
    expect(entry.head.box).toBe(null)
    expect(b.types).not.toContain('nack')
  })

  it('a revoked device that proves itself gets the entries up to the revocation, sealed, then 4403', async () => {
    const account = await relay.account(2)
    const victim = account.devices[1]!
    const known = account.log_seq
    const { entry } = await append(relay.store, account, { type: 'revoke_device', revoked: [{ device_id: victim.device_id }] })
    await append(relay.store, account, { type: 'rotate_keys' })
    const client = await relay.greet(account, victim)
    await proveRaw(client, { ...relay.options(account, victim), auth: { log_seq: known } })
    expect((await client.next('log_entry')).head.body).toBe(Buffer.from(entry.body).toString('base64url'))
    expect(await client.closed).toMatchObject({ code: 4403 })
    expect(client.types).toEqual(['log_entry'])
  })

  it('every other failure to prove oneself is 4401 and says nothing', async () => {
    const account = await relay.account(2)
    const other = await relay.account()
    const victim = account.devices[1]!
    await append(relay.store, account, { type: 'revoke_device', revoked: [{ device_id: victim.device_id }] })
    const identities = [
      randomIdentity(),
      { ...randomIdentity(), user_id: account.user_id },
      { user_id: account.user_id, device_id: account.devices[0]!.device_id, sign_seed: nodeCrypto.random(32) },
      { user_id: account.user_id, device_id: victim.device_id, sign_seed: nodeCrypto.random(32) },
      { user_id: other.user_id, device_id: account.devices[0]!.device_id, sign_seed: account.devices[0]!.sign_seed },
    ]
    for (const identity of identities) {
      const options = { url: relay.url, server_key: relay.server_key, identity }
      const client = await startRaw(options)
      await proveRaw(client, options)
      expect(await client.closed).toEqual({ code: 4401, reason: 'auth_failed' })
      expect(client.types).toEqual([])
    }
    const client = await relay.greet(account)
    client.send({ type: 'client_auth', body: 'e30', sig: 'A'.repeat(86) })
    expect(await client.closed).toMatchObject({ code: 4401 })
  })
})

describe('device log over the socket', () => {
  it('brings a new entry to every session, before the first record of its epoch', async () => {
    const account = await relay.account(2)
    const [a, b] = [await relay.connect(account, 0), await relay.connect(account, 1)]
    const { entry, boxes } = makeEntry(account, { type: 'rotate_keys' })
    const [body, sig] = [Buffer.from(entry.body).toString('base64url'), Buffer.from(entry.sig).toString('base64url')]
    a.send({ type: 'log_append', id: 9, body, sig, boxes })
    await a.next('log_result')
    a.sendRecords(makeRecord(a.identity.device_id, 1, { epoch: account.log_seq + 1 }))
    await b.next('event')
    expect(b.types.filter((type) => type === 'log_entry' || type === 'event')).toEqual(['log_entry', 'event'])
    a.send({ type: 'log_append', id: 10, body, sig, boxes })
    expect((await a.next('log_result')).head).toMatchObject({ id: 10 })
    a.send({ type: 'log_request', id: 11, from_log_seq: 0 })
    const { head } = await a.next('log_entries')
    expect(head.entries.length).toBe(account.log_seq + 2)
    expect(head.entries.at(-1)).toEqual({ body, sig, box: boxes[a.identity.device_id] })
  })

  it('pages wait for the log entry of their epoch', async () => {
    const account = await relay.account(2)
    const known = account.log_seq
    const a = await relay.connect(account, 0)
    a.sendRecords(makeRecord(a.identity.device_id, 1, { epoch: known }))
    await takeAcks(a, 1)
    const b = await relay.connect(account, 1)
    await append(relay.store, account, { type: 'rotate_keys' })
    await a.close()
    const again = await relay.connect(account, 0, { auth: { last_device_seq: 1 } })
    again.sendRecords(makeRecord(again.identity.device_id, 2, { epoch: account.log_seq }))
    await takeAcks(again, 1)
    expect((await b.replayAll()).map((record) => record.epoch)).toEqual([known, account.log_seq])
    expect(b.types.filter((type) => type === 'log_entry' || type === 'replay_response')).toEqual(['log_entry', 'replay_response'])
  })

  it('answers a request for tips, and says when there is no such device', async () => {
    const account = await relay.account(2)
    const a = await relay.connect(account, 0)
    a.sendRecords(...makeRecords(a, 1, 3, { epoch: account.log_seq, stream_id: 'x' }), ...makeRecords(a, 4, 1, { epoch: account.log_seq }))
    await takeAcks(a, 4)
    a.send({ type: 'tips_request', id: 1, device_id: a.identity.device_id })
    const { head, body } = await a.next('tips')
    expect(head).toMatchObject({ id: 1, last_device_seq: 4, complete: true })
    expect(decodeRecords(body).map((record) => [record.stream_id, record.device_seq, record.payload])).toEqual(
      expect.arrayContaining([
        ['x', 3, null],
        ['main', 4, null],
      ]),
    )
    a.send({ type: 'tips_request', id: 2, device_id: randomIdentity().device_id })
    expect((await a.next('error')).head).toMatchObject({ id: 2, code: 'not_found' })
  })
})

describe('R08: presence and heartbeats', () => {
  it('tells of all devices after the handshake, and then of changes', async () => {
    const account = await relay.account(2)
    const [one, two] = account.devices
    const a = await relay.connect(account, 0)
    const all = await a.next('presence')
    expect(all.head.devices.map(({ device_id, online }) => [device_id, online])).toEqual([
      [one!.device_id, true],
      [two!.device_id, false],
    ])
    const b = await relay.connect(account, 1)
    expect((await a.next('presence')).head.devices).toMatchObject([{ device_id: two!.device_id, online: true }])
    await b.close()
    const { devices } = (await a.next('presence')).head
    expect(devices).toMatchObject([{ device_id: two!.device_id, online: false }])
    expect(devices[0]!.last_seen).toBeGreaterThan(0)
  })

  it('finds a peer that no longer answers, and tells the other devices', async () => {
    const account = await impatient.account(2)
    const a = await impatient.connect(account, 0)
    await a.next('presence')
    const frozen = await impatient.connect(account, 1)
    await a.next('presence', ({ head }) => head.devices[0]!.device_id === frozen.identity.device_id && head.devices[0]!.online)
    frozen.socket.ws.pause()
    const { head } = await a.next('presence', ({ head }) =>
      head.devices.some((device) => !device.online && device.device_id === frozen.identity.device_id),
    )
    expect(head.devices.length).toBe(1)
    expect(a.socket.ws.readyState).toBe(1)
  })

  it('answers a ping with its pong', async () => {
    const a = await relay.connect(await relay.account())
    a.send({ type: 'ping', t: 42 })
    expect((await a.next('pong')).head.t).toBe(42)
  })
})

describe('R09: the handshake over a socket', () => {
  it('ends a step that lasts too long with 4452', async () => {
    const silent = new RawSocket(impatient.url)
    expect(await silent.closed).toMatchObject({ code: 4452 })
    const greeted = await impatient.greet(await impatient.account())
    expect(await greeted.closed).toMatchObject({ code: 4452 })
  })

  it('ends with 4451 whatever does not belong there', async () => {
    const account = await relay.account()
    const first: (string | Uint8Array)[] = [
      '',
      '{}',
      'x'.repeat(4_000),
      new Uint8Array(0),
      nodeCrypto.random(60),
      '{"type":"client_auth","body":"e30"}',
    ]
    for (const frame of first) {
      const socket = new RawSocket(relay.url)
      await socket.opened
      socket.send(frame)
      expect(await socket.closed, String(frame).slice(0, 40)).toMatchObject({ code: 4451 })
    }
    const greeted = await relay.greet(account)
    greeted.send({ type: 'ping', t: 1 })
    expect(await greeted.closed).toMatchObject({ code: 4451 })
    for (const bytes of [
      encodeMessage({ type: 'event' }),
      encodeMessage({ type: 'event' }, nodeCrypto.random(200)),
      nodeCrypto.random(9),
    ]) {
      const client = await relay.connect(account)
      client.sendSealed(bytes)
      expect(await client.closed).toMatchObject({ code: 4451 })
    }
    const client = await relay.connect(account)
    client.socket.send('{"type":"client_hello"}')
    expect(await client.closed).toMatchObject({ code: 4451 })
  })

  it('ends with 4451 also what is no WebSocket message: unmasked, not UTF-8, or in too many pieces', async () => {
    const account = await relay.account()
    const piece = (first: number, payload: number[] = []) => Buffer.from([first, 0x80 | payload.length, 0, 0, 0, 0, ...payload])
    const wrong = [
      Buffer.from([0x82, 1, 7]),
      piece(0x83),
      piece(0x81, [0xff]),
      Buffer.concat([piece(0x02), ...Array<Buffer>(70).fill(piece(0, [1]))]),
    ]
    for (const bytes of wrong) {
      const a = await relay.connect(account)
      a.socket.ws._socket?.write(bytes)
      expect(await a.closed, bytes.toString('hex')).toMatchObject({ code: 4451 })
    }
  })

  it('ends a message that does not become whole in time with 4452, however many pongs come with it', async () => {
    const account = await unfinished.account()
    const a = await unfinished.connect(account)
    a.socket.ws._socket?.write(Buffer.from([0x02, 0x81, 0, 0, 0, 0, 1]))
    const pongs = setInterval(() => a.socket.ws.pong(), 100)
    expect(await a.closed).toMatchObject({ code: 4452 })
    clearInterval(pongs)
    const b = await unfinished.connect(account)
    for (let i = 0; i < 8; i++) {
      b.send({ type: 'ping', t: i })
      b.socket.ws.pong()
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    expect(b.types.filter((type) => type === 'pong').length).toBeGreaterThan(6)
  })

  it('says 4406 when no version is shared', async () => {
    const socket = new RawSocket(relay.url)
    await socket.opened
    const key = 'A'.repeat(43)
    socket.send(JSON.stringify({ type: 'client_hello', versions: [2], client_eph: key, client_nonce: key }))
    expect(await socket.closed).toMatchObject({ code: 4406 })
  })

  it('ends an oversized frame with 4413, before authentication from 4 KiB on', async () => {
    const socket = new RawSocket(relay.url)
    await socket.opened
    socket.send('x'.repeat(5_000))
    expect(await socket.closed).toMatchObject({ code: 4413 })
    const client = await relay.connect(await relay.account())
    client.socket.send(nodeCrypto.random(LIMITS.frameBytesMax + 1))
    expect(await client.closed).toMatchObject({ code: 4413 })
  })
})

describe('the upgrade', () => {
  it('needs the path, the subprotocol and an Origin on the list, or none', async () => {
    expect(await new RawSocket(relay.url, {}, ['sealpost.1'], '/api/other').refused).toBe(404)
    expect(await new RawSocket(relay.url, {}, ['other']).refused).toBe(400)
    expect(await new RawSocket(relay.url, {}, []).refused).toBe(400)
    expect(await new RawSocket(relay.url, { origin: 'https://evil.example' }).refused).toBe(403)
    const socket = new RawSocket(relay.url, {}, ['other', 'sealpost.1'])
    await socket.opened
    expect(socket.ws.protocol).toBe('sealpost.1')
    await socket.close()
  })

  it('counts strangers per address, unless they come from this machine without a word of forwarding', async () => {
    const from = (address: string) => new RawSocket(relay.url, { headers: { 'X-Forwarded-For': address } })
    const many = Array.from({ length: LIMITS.unauthenticatedPerAddressMax }, () => from('203.0.113.7'))
    await Promise.all(many.map((socket) => socket.opened))
    expect(await from('198.51.100.1').refused).toBe(429)
    const local = new RawSocket(relay.url)
    await local.opened
    await Promise.all([...many, local].map((socket) => socket.close()))
  })
})

it('R10: nothing of one user reaches another: events, log, presence, queries, tips', async () => {
  const mine = await relay.account(2)
  const theirs = await relay.account(2)
  const [a, b] = [await relay.connect(mine, 0), await relay.connect(theirs, 0)]
  a.sendRecords(...makeRecords(a, 1, 20, { epoch: mine.log_seq }))
  await takeAcks(a, 20)
  await append(relay.store, mine, { type: 'rotate_keys' })
  relay.gateway.bus.publish(mine.user_no, { is: 'log', history_id: relay.store.history_id, log_seq: mine.log_seq, revoked: [] })
  await a.next('log_entry')
  b.send({ type: 'tips_request', id: 1, device_id: a.identity.device_id })
  expect((await b.next('error')).head).toMatchObject({ id: 1, code: 'not_found' })
  expect((await b.replay({ query: true })).records).toEqual([])
  b.send({ type: 'log_request', id: 2, from_log_seq: 0 })
  expect((await b.next('log_entries')).head.entries.length).toBe(theirs.log_seq + 1)
  const told = b.types.filter((type) => type !== 'presence')
  expect(told).toEqual(['session_established', 'error', 'replay_response', 'log_entries'])
  const shown = b.received.flatMap((message) => (message.head.type === 'presence' ? message.head.devices : []))
  expect(shown.every(({ device_id }) => theirs.devices.some((device) => device.device_id === device_id))).toBe(true)
})

function makeRevocation(account: Parameters<typeof append>[1], device_id: string) {
  const { entry, boxes } = makeEntry(account, { type: 'revoke_device', revoked: [{ device_id }] })
  return { body: Buffer.from(entry.body).toString('base64url'), sig: Buffer.from(entry.sig).toString('base64url'), boxes }
}
