/**
 * Suspension (G24): whom an operator shuts out is out at once, on every way in, and is told so; nothing of it is lost, and when it is resumed it
 * goes on. That no event commits after a suspension, whatever comes at the same time, is in `store/races.test.ts`.
 */
import { decodeAcks } from '@sealpost/protocol'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { append, makeDevice, makeEntry, type TestAccount, type TestDevice, wire } from '@sealpost/testing/clients/store-accounts'
import { useAdminServer } from '@sealpost/testing/relays/admin-server'
import { Followed, makeEventJson } from '@sealpost/testing/relays/event-server'
import { connectRaw, makeRecord, type RawClient } from '@sealpost/testing/clients/raw-client'

const server = useAdminServer()
const open: { close(): unknown }[] = []
afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()))
})

async function connect(account: TestAccount, device = 0): ReturnType<typeof connectRaw> {
  const client = await connectRaw(server.door.raw(account, device))
  open.push(client)
  return client
}
async function follow(token: string): Promise<Followed> {
  const followed = new Followed(`${server.door.url}/api/events/live`, token)
  open.push(followed)
  await followed.answered
  return followed
}
const closedWithin = async (client: RawClient, ms: number): Promise<number> => {
  const began = performance.now()
  const { code } = await client.closed
  expect(performance.now() - began).toBeLessThan(ms)
  return code
}
const refusedHandshake = async (account: TestAccount, device = 0): Promise<void> => {
  await expect(connectRaw(server.door.raw(account, device))).rejects.toThrow('4457')
}
const eventsOf = async ({ user_no }: TestAccount): Promise<number> =>
  (await server.sql('select count(*)::int4 as n from event where user_no = $1', [user_no]))[0].n
const act = (name: 'suspend_user' | 'resume_user' | 'disconnect_user', { user_id }: TestAccount) =>
  server.as('operator', name, { params: { user_id }, json: {} })
const actOn = (name: 'suspend_device' | 'resume_device' | 'disconnect_device', { user_id, devices }: TestAccount, device: number) =>
  server.as('operator', name, { params: { user_id, device_id: devices[device]!.device_id }, json: {} })

/** What a device can ask for over REST, with what it has from before, and what it is answered. */
async function waysIn(account: TestAccount, device: number, had: { token: string; session_id: string; refresh_token: string }) {
  const ask = async (what: string, method: string, path: string, json?: unknown, token?: string) => {
    const answer = await server.door.ask(method, path, {
      ...(json === undefined ? {} : { json }),
      ...(token === undefined ? {} : { token }),
    })
    return [what, answer.status, answer.body.code]
  }
  const signed = (purpose: string) => server.door.assertion(account, device, purpose)
  const event = makeEventJson(account, device, 1, {}).json
  const { token, session_id, refresh_token } = had
  const entry = wire(makeEntry(account, { type: 'rotate_keys' }, account.devices[device]))
  return [
    await ask('figures', 'GET', '/api/user', undefined, token),
    await ask('devices', 'GET', '/api/devices', undefined, token),
    await ask('events', 'GET', '/api/events', undefined, token),
    await ask('to follow', 'GET', '/api/events/live', undefined, token),
    await ask('export', 'GET', '/api/user/export', undefined, token),
    await ask('to send', 'POST', '/api/events', { session_id, events: [event] }, token),
    await ask('to revoke', 'DELETE', `/api/devices/${account.devices[1]!.device_id}`, entry, token),
    await ask('a token', 'POST', '/api/auth/token', await signed('token')),
    await ask('a refresh', 'POST', '/api/auth/refresh', { ...(await signed('refresh')), refresh_token }),
    await ask('a session', 'POST', '/api/events/session', await signed('session')),
    await ask('the log', 'POST', '/api/log/read', await signed('log-read')),
    await ask('an entry', 'POST', '/api/log', { ...entry, proof: await signed('log') }),
    await ask('an entry again', 'POST', '/api/log', { ...entry, boxes: {}, repair: true, proof: await signed('log') }),
    await ask('its end', 'DELETE', '/api/user', await signed('delete-account')),
  ]
}

async function grant(account: TestAccount, device: number) {
  const { body } = await server.door.ask('POST', '/api/auth/token', { json: await server.door.assertion(account, device, 'token') })
  const session = await server.door.ask('POST', '/api/events/session', { json: await server.door.assertion(account, device, 'session') })
  return { token: body.access_token, refresh_token: body.refresh_token, session_id: session.body.session_id }
}

describe('an account that is suspended', () => {
  it('is out within a second on every way in, is told so, and comes back with all that it had', async () => {
    const account = await server.account(2)
    const had = await grant(account, 1)
    const [laptop, phone] = [await connect(account), await connect(account, 1)]
    const [laptop_id] = account.devices.map(({ device_id }) => device_id) as [string]
    laptop.sendRecords(makeRecord(laptop_id, 1, { epoch: account.log_seq }))
    await laptop.next('ack')
    await phone.next('event')
    const followed = await follow(had.token)

    await act('suspend_user', account)
    expect(await Promise.all([closedWithin(laptop, 1_000), closedWithin(phone, 1_000)])).toEqual([4457, 4457])
    expect((await followed.next('closed')).data).toMatchObject({ name: 'suspended' })
    await refusedHandshake(account)
    await refusedHandshake(account, 1)
    for (const [what, status, code] of await waysIn(account, 1, had)) expect([what, status, code]).toEqual([what, 403, 'suspended'])
    const { body } = await server.as('viewer', 'read_user', { params: { user_id: account.user_id } })
    expect(body.suspended_at).toBeGreaterThan(Date.now() - 60_000)
    // again changes nothing
    await act('suspend_user', account)
    expect((await server.as('viewer', 'read_user', { params: { user_id: account.user_id } })).body.suspended_at).toBe(body.suspended_at)
    expect(await eventsOf(account)).toBe(1)

    await act('resume_user', account)
    const back = await connect(account)
    expect(back.established.last_device_seq).toBe(1)
    back.sendRecords(makeRecord(laptop_id, 2, { epoch: account.log_seq }))
    expect(decodeAcks((await back.next('ack')).body)).toMatchObject([{ device_seq: 2, position: 2 }])
    const again = await connect(account, 1)
    expect(await again.replayAll()).toHaveLength(2)
    expect((await server.door.ask('GET', '/api/user', { token: had.token })).status).toBe(200)
    expect((await server.as('viewer', 'read_user', { params: { user_id: account.user_id } })).body.suspended_at).toBeNull()
  })

  it('can be deleted by its root, and by nobody else of it', async () => {
    const account = await server.account(2)
    await act('suspend_user', account)
    const end = async (signer: number | 'root') => {
      const { status, body } = await server.door.ask('DELETE', '/api/user', {
        json: await server.door.assertion(account, signer, 'delete-account'),
      })
      return [status, body.code]
    }
    expect(await end(0)).toEqual([403, 'suspended'])
    expect(await end('root')).toEqual([200, undefined])
    expect(await server.store.readOperatedUser(account.user_id)).toBeNull()
    expect(await server.sql('select from event where user_no = $1', [account.user_no])).toEqual([])
  })
})

describe('a device that is suspended', () => {
  it('is out alone: the others of its account go on and see it as suspended, and see when that is over', async () => {
    const account = await server.account(3)
    const had = await grant(account, 1)
    const [laptop, phone] = [await connect(account), await connect(account, 1)]
    const followed = await follow(await server.door.token(account, 2))
    const { device_id } = account.devices[1]!
    const tells = (suspended: boolean | undefined) => (devices: { device_id: string; suspended?: boolean }[]) =>
      devices.some((device) => device.device_id === device_id && device.suspended === suspended)

    await actOn('suspend_device', account, 1)
    expect(await closedWithin(phone, 1_000)).toBe(4457)
    await laptop.next('presence', ({ head }) => tells(true)(head.devices))
    await followed.next('presence', ({ data }) => tells(true)(data.devices))
    await refusedHandshake(account, 1)
    for (const [what, status, code] of await waysIn(account, 1, had)) expect([what, status, code]).toEqual([what, 403, 'suspended'])
    const { body } = await server.as('viewer', 'list_user_devices', { params: { user_id: account.user_id } })
    expect(body.devices.map(({ state }: { state: string }) => state)).toEqual(['active', 'suspended', 'active'])
    const seen = await server.door.ask('GET', '/api/connection-status', { token: await server.door.token(account, 2) })
    expect([seen.status, tells(true)(seen.body.devices)]).toEqual([200, true])
    // who comes later is told, too
    const late = await connect(account, 2)
    await late.next('presence', ({ head }) => tells(true)(head.devices))

    laptop.sendRecords(makeRecord(account.devices[0]!.device_id, 1, { epoch: account.log_seq }))
    await laptop.next('ack')
    await actOn('resume_device', account, 1)
    await laptop.next('presence', ({ head }) => tells(false)(head.devices))
    const back = await connect(account, 1)
    expect(await back.replayAll()).toHaveLength(1)
    await laptop.next('presence', ({ head }) => head.devices.some((one) => one.device_id === device_id && one.online))
  })

  it('has no entry in the log: by its own proof, by that of another, as a repair, by a socket that nobody told', async () => {
    const account = await server.account(2)
    const session = await connect(account, 1)
    const [other, suspended] = account.devices as [TestDevice, TestDevice]
    await server.store.suspendDevice(account.user_id, suspended.device_id, true)
    const entry = wire(makeEntry(account, { type: 'add_device', device: makeDevice() }, suspended))
    session.send({ type: 'log_append', id: 1, ...entry })
    expect((await session.closed).code).toBe(4457)

    const post = async (signer: number | 'root', more: object = {}) => {
      const proof = await server.door.assertion(account, signer, 'log')
      const { status, body } = await server.door.ask('POST', '/api/log', { json: { ...entry, proof, ...more } })
      return [status, body.code]
    }
    expect(await post(1)).toEqual([403, 'suspended'])
    expect(await post(1, { repair: true, boxes: {} })).toEqual([403, 'suspended'])
    expect(await post(0)).toEqual([401, 'unauthorized'])
    expect(await post('root')).toEqual([401, 'unauthorized'])
    // nor by somebody who knows it, or says to be a device that is not there
    expect(await post(0, { repair: true, boxes: {} })).toEqual([403, 'suspended'])
    expect(await post('root', { repair: true, boxes: {} })).toEqual([403, 'suspended'])
    const stranger = await server.door.assertion({ ...account, devices: [makeDevice()] }, 0, 'log')
    const { status } = await server.door.ask('POST', '/api/log', { json: { ...entry, proof: stranger, repair: true, boxes: {} } })
    expect(status).toBe(403)
    expect((await server.store.readOperatedUser(account.user_id))?.log_seq).toBe(account.log_seq)
    // the others write, and may revoke it: that is theirs
    await append(server.store, account, { type: 'revoke_device', revoked: [{ device_id: suspended.device_id }] }, other)
    const { body } = await server.as('viewer', 'list_user_devices', { params: { user_id: account.user_id } })
    expect(body.devices[1]).toMatchObject({ state: 'revoked' })
  })

  it('that was revoked by its account is not there for an operator any more', async () => {
    const account = await server.account(2)
    const { user_id } = account
    const { device_id } = account.devices[1]!
    const token = await server.tokenOf('operator')
    await append(server.store, account, { type: 'revoke_device', revoked: [{ device_id }] })
    const before = await server.store.listOperatedDevices(user_id)
    for (const name of ['suspend_device', 'resume_device'] as const)
      expect((await server.ask(name, { token, params: { user_id, device_id }, json: {} })).body.code).toBe('not_found')
    expect(await server.store.listOperatedDevices(user_id)).toEqual(before)
    // nor does resuming the account bring it back
    await act('suspend_user', account)
    await act('resume_user', account)
    await expect(connectRaw(server.door.raw({ ...account, devices: [makeDevice()] }))).rejects.toThrow('4401')
    expect((await server.store.listOperatedDevices(user_id))[1]).toMatchObject({ active: false })
  })

  it('of a suspended account stays suspended when the account is resumed', async () => {
    const account = await server.account(2)
    await actOn('suspend_device', account, 1)
    await act('suspend_user', account)
    await act('resume_user', account)
    await connect(account)
    await refusedHandshake(account, 1)
    await actOn('resume_device', account, 1)
    await connect(account, 1)
  })
})

describe('events under way', () => {
  it('of a session that nobody told are refused by the store, and the session ends', async () => {
    const account = await server.account(1)
    const client = await connect(account)
    await server.store.suspendUser(account.user_id, true)
    client.sendRecords(makeRecord(account.devices[0]!.device_id, 1, { epoch: account.log_seq }))
    expect(await closedWithin(client, 1_500)).toBe(4457)
    expect(client.types).not.toContain('ack')
    expect(await eventsOf(account)).toBe(0)
  })

  it('are acked or not stored, in 100 rounds over sockets and REST', { timeout: 60_000 }, async () => {
    const outcomes = { acked: 0, refused: 0 }
    const LAST = 9
    for (let round = 0; round <= LAST; round++)
      await Promise.all(
        Array.from({ length: 10 }, async (_, i) => {
          const account = await server.account(1)
          const { device_id } = account.devices[0]!
          const over = i % 2 === 0 ? await connect(account) : null
          const had = over === null ? await grant(account, 0) : null
          const send = async (): Promise<number> => {
            if (over !== null) {
              over.sendRecords(...Array.from({ length: 5 }, (__, n) => makeRecord(device_id, n + 1, { epoch: account.log_seq })))
              await over.closed
              return over.received.flatMap((message) => (message.head.type === 'ack' ? decodeAcks(message.body) : [])).length
            }
            const events = Array.from({ length: 5 }, (__, n) => makeEventJson(account, 0, n + 1, {}).json)
            const { status, body } = await server.door.ask('POST', '/api/events', {
              token: had!.token,
              json: { session_id: had!.session_id, events },
            })
            return status === 200 ? body.acks.length : 0
          }
          const suspend = async (): Promise<number> => {
            if (round === LAST) await vi.waitUntil(async () => (await eventsOf(account)) === 5, { timeout: 10_000 })
            else if (round % 3 > 0) await new Promise((resolve) => setTimeout(resolve, (round + i) % 12))
            await act('suspend_user', account)
            return eventsOf(account)
          }
          // the first round and the last are in a given order, those between as it happens
          const first = round === 0 ? await suspend() : null
          const [acked, atReturn] = await Promise.all([send(), first ?? suspend()])
          const now = await eventsOf(account)
          expect(now).toBe(atReturn)
          expect(acked).toBeLessThanOrEqual(now)
          outcomes[acked > 0 ? 'acked' : 'refused'] += 1
        }),
      )
    expect(outcomes.acked + outcomes.refused).toBe(100)
    expect(Math.min(outcomes.acked, outcomes.refused)).toBeGreaterThanOrEqual(10)
  })
})

describe('a node that is told nothing', () => {
  it('ends the sessions of a suspended account, of a suspended device, and of followers within 5 s, by itself', async () => {
    const account = await server.account(2)
    const single = await server.account(2)
    const sessions = [await connect(account), await connect(account, 1), await connect(single, 1)]
    const stays = await connect(single)
    const followed = await follow(await server.door.token(account))
    // another node, which has a bus of its own
    const node = await server.node()
    const token = await node.token(await server.admin('operator'))
    const params = { user_id: account.user_id }
    expect((await node.ask('suspend_user', { token, params, json: {} })).status).toBe(200)
    const device = { user_id: single.user_id, device_id: single.devices[1]!.device_id }
    expect((await node.ask('suspend_device', { token, params: device, json: {} })).status).toBe(200)
    expect(await Promise.all(sessions.map((session) => closedWithin(session, 5_000)))).toEqual([4457, 4457, 4457])
    expect((await followed.next('closed')).data).toMatchObject({ name: 'suspended' })
    stays.sendRecords(makeRecord(single.devices[0]!.device_id, 1, { epoch: single.log_seq }))
    await stays.next('ack')
    await node.stop()
  })
})

describe('a disconnection', () => {
  it('ends sessions and nothing else: who is ended proves itself again and goes on', async () => {
    const account = await server.account(2)
    const [laptop, phone] = [await connect(account), await connect(account, 1)]
    await actOn('disconnect_device', account, 1)
    expect(await closedWithin(phone, 1_000)).toBe(4456)
    laptop.sendRecords(makeRecord(account.devices[0]!.device_id, 1, { epoch: account.log_seq }))
    await laptop.next('ack')
    const back = await connect(account, 1)
    await act('disconnect_user', account)
    expect(await Promise.all([closedWithin(laptop, 1_000), closedWithin(back, 1_000)])).toEqual([4456, 4456])
    await connect(account)
    const { body } = await server.as('viewer', 'read_user', { params: { user_id: account.user_id } })
    expect(body).toMatchObject({ suspended_at: null, devices: 2 })
  })
})
