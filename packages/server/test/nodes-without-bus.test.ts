/**
 * Two nodes on one database, each with a bus of its own, as when the bus between them is dead: what is decided or written at one reaches the
 * sessions of the other within 5 s, by the store alone (protocol.md §7). What a round asks and how it is judged is in `relay/sessions/rounds.test.ts`,
 * `core/session.test.ts` and the tests of the store.
 */
import { randomUUID } from 'node:crypto'
import { decodeAcks, decodeRecords } from '@sealpost/protocol'
import { afterAll, beforeAll, describe, type ExpectStatic, it, vi } from 'vitest'
import { createMemoryBus } from '../src/bus/memory-bus.ts'
import { createNodeFigures } from '../src/relay/node-figures.ts'
import { makeEntry, type TestAccount, wire } from '@sealpost/testing/clients/store-accounts'
import { type AdminNode, useAdminServer } from '@sealpost/testing/relays/admin-server'
import { Followed } from '@sealpost/testing/relays/event-server'
import { connectRaw, makeRecord, type RawClient } from '@sealpost/testing/clients/raw-client'

const STALE_MS = 5_000
// all wait for the same rounds
vi.setConfig({ maxConcurrency: 20 })

/** The node of the sessions, and the one where things happen. */
const here = useAdminServer()
let there: AdminNode
let operator = ''
const open: { close(): unknown }[] = []

beforeAll(async () => {
  there = await here.node()
  operator = await there.token(await here.admin('operator'))
})
afterAll(() => Promise.all(open.splice(0).map((one) => one.close())))

async function connect(account: TestAccount, device = 0, node: AdminNode = here): ReturnType<typeof connectRaw> {
  const client = await connectRaw(node.door.raw(account, device))
  open.push(client)
  return client
}

async function follow(account: TestAccount, device = 0, node: AdminNode = here): Promise<Followed> {
  const followed = new Followed(`${node.door.url}/api/events/live`, await node.door.token(account, device))
  open.push(followed)
  await followed.answered
  await followed.next('presence')
  return followed
}

/** A device that has a session here and follows here beside it. */
async function session(devices = 2): Promise<{ account: TestAccount; socket: RawClient; stream: Followed }> {
  const account = await here.account(devices)
  return { account, socket: await connect(account), stream: await follow(account) }
}

async function within<T>(expect: ExpectStatic, work: Promise<T>): Promise<T> {
  const began = performance.now()
  const result = await work
  expect(performance.now() - began).toBeLessThan(STALE_MS)
  return result
}

/** How socket and stream were ended, which is told to both within the time. */
async function ends(expect: ExpectStatic, socket: RawClient, stream: Followed): Promise<[number, number]> {
  const ended = Promise.all([socket.closed, stream.next('closed')])
  const [{ code }, { data }] = await within(expect, ended)
  return [code, data.code]
}

const act = (name: 'suspend_user' | 'disconnect_user', { user_id }: TestAccount) =>
  there.ask(name, { token: operator, params: { user_id }, json: {} })
const actOn = (name: 'suspend_device' | 'disconnect_device', { user_id, devices }: TestAccount, device: number) =>
  there.ask(name, { token: operator, params: { user_id, device_id: devices[device]!.device_id }, json: {} })
const tells = (device_id: string, online: boolean) => (devices: { device_id: string; online: boolean }[]) =>
  devices.some((device) => device.device_id === device_id && device.online === online)

/** The session is open at its node, and is the one that may write. */
async function goesOn(expect: ExpectStatic, client: RawClient, epoch: number): Promise<void> {
  client.sendRecords(makeRecord(client.identity.device_id, 1, { epoch }))
  expect(decodeAcks((await client.next('ack')).body)).toMatchObject([{ device_seq: 1 }])
}

describe.concurrent('C4: what is decided at one node ends the sessions at the other', () => {
  it('a revocation, of which they are told', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const other = await connect(account, 1)
    const { device_id } = account.devices[0]!
    const request = makeEntry(account, { type: 'revoke_device', revoked: [{ device_id }] }, account.devices[1])
    const token = await there.door.token(account, 1)
    const { status } = await there.door.ask('DELETE', `/api/devices/${device_id}`, { token, json: wire(request) })
    expect(status).toBe(200)
    expect(await ends(expect, socket, stream)).toEqual([4403, 4403])
    expect((await socket.next('log_entry')).head.body).toBe(Buffer.from(request.entry.body).toString('base64url'))
    await other.next('log_entry')
    await goesOn(expect, other, account.log_seq + 1)
  })

  it('a suspension of the account', async ({ expect }) => {
    const { account, socket, stream } = await session()
    expect((await act('suspend_user', account)).status).toBe(200)
    expect(await ends(expect, socket, stream)).toEqual([4457, 4457])
  })

  it('a suspension of the device, and of no other', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const other = await connect(account, 1)
    expect((await actOn('suspend_device', account, 0)).status).toBe(200)
    expect(await ends(expect, socket, stream)).toEqual([4457, 4457])
    await goesOn(expect, other, account.log_seq)
  })

  it('a logout', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const other = await connect(account, 1)
    const { status } = await there.door.ask('POST', '/api/auth/logout', { token: await there.door.token(account) })
    expect(status).toBe(204)
    expect(await ends(expect, socket, stream)).toEqual([4456, 4456])
    await goesOn(expect, other, account.log_seq)
  })

  it('a refresh token that comes again', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const ask = async (purpose: string, path: string, more: object = {}) =>
      there.door.ask('POST', path, { json: { ...(await there.door.assertion(account, 0, purpose)), ...more } })
    const { refresh_token } = (await ask('token', '/api/auth/token')).body
    const refresh = (token: string) => ask('refresh', '/api/auth/refresh', { refresh_token: token })
    const second = (await refresh(refresh_token)).body
    await refresh(second.refresh_token)
    expect((await refresh(refresh_token)).status).toBe(401)
    expect(await ends(expect, socket, stream)).toEqual([4456, 4456])
  })

  it('a disconnection of the account', async ({ expect }) => {
    const { account, socket, stream } = await session()
    expect((await act('disconnect_user', account)).status).toBe(200)
    expect(await ends(expect, socket, stream)).toEqual([4456, 4456])
    await goesOn(expect, await connect(account), account.log_seq)
  })

  it('a disconnection of the device, and of no other', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const other = await connect(account, 1)
    expect((await actOn('disconnect_device', account, 0)).status).toBe(200)
    expect(await ends(expect, socket, stream)).toEqual([4456, 4456])
    await goesOn(expect, other, account.log_seq)
  })

  it('the deletion of the account', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const json = await there.door.assertion(account, 'root', 'delete-account')
    expect((await there.door.ask('DELETE', '/api/user', { json })).status).toBe(200)
    expect(await ends(expect, socket, stream)).toEqual([4410, 4410])
  })

  it('R04: a session of its device at the other node supersedes the one here, and nothing else', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const newer = await connect(account, 0, there)
    expect((await within(expect, socket.closed)).code).toBe(4409)
    await goesOn(expect, newer, account.log_seq)
    await stream.records(1, 0)
    expect(stream.received.map(({ type }) => type)).not.toContain('closed')
  })
})

describe.concurrent('R01: what is written at one node reaches the sessions at the other', () => {
  it('an entry of the device log', async ({ expect }) => {
    const { account, socket, stream } = await session()
    expect((await there.door.postEntry(account, { type: 'rotate_keys' })).status).toBe(200)
    await within(expect, Promise.all([socket.next('log_entry'), stream.next('log_entry')]))
    await goesOn(expect, socket, account.log_seq)
  })

  it('an event', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const writer = await connect(account, 1, there)
    await goesOn(expect, writer, account.log_seq)
    const [event] = await within(expect, Promise.all([socket.next('event'), stream.records(1, 0)]))
    expect(decodeRecords(event.body)).toMatchObject([{ device_id: writer.identity.device_id, device_seq: 1 }])
  })
})

describe.concurrent('R08: who is online over nodes', () => {
  it('a device that comes at the other node, and goes', async ({ expect }) => {
    const { account, socket, stream } = await session()
    const { device_id } = account.devices[1]!
    const told = (online: boolean) =>
      Promise.all([
        socket.next('presence', ({ head }) => tells(device_id, online)(head.devices)),
        stream.next('presence', ({ data }) => tells(device_id, online)(data.devices)),
      ])
    const other = await connect(account, 1, there)
    await within(expect, told(true))
    const token = await here.door.token(account)
    const shown = async () => [
      (await here.door.ask('GET', '/api/connection-status', { token })).body.devices,
      (await here.door.ask('GET', '/api/devices', { token })).body.devices,
    ]
    expect((await shown()).map(tells(device_id, true))).toEqual([true, true])
    await other.close()
    await within(expect, told(false))
    expect((await shown()).map(tells(device_id, false))).toEqual([true, true])
  })

  it('a device that follows at the other node', async ({ expect }) => {
    const account = await here.account(2)
    const socket = await connect(account)
    await follow(account, 1, there)
    await within(
      expect,
      socket.next('presence', ({ head }) => tells(account.devices[1]!.device_id, true)(head.devices)),
    )
  })

  it('a device that goes over to the other node is online all the time', async ({ expect }) => {
    const account = await here.account(2)
    const before = await connect(account, 0)
    const watcher = await connect(account, 1)
    const { device_id } = before.identity
    await watcher.next('presence', ({ head }) => tells(device_id, true)(head.devices))
    const after = await connect(account, 0, there)
    expect((await within(expect, before.closed)).code).toBe(4409)
    await goesOn(expect, after, account.log_seq)
    await within(expect, watcher.next('event'))
    const told = watcher.received.flatMap(({ head }) => (head.type === 'presence' ? head.devices : []))
    expect(tells(device_id, false)(told)).toBe(false)
  })

  it('the devices of a node that died, whose lease ran out', async ({ expect }) => {
    const account = await here.account(2)
    const { device_id } = account.devices[1]!
    const figures = createNodeFigures({ relay: () => null, bus: createMemoryBus(), draining: () => false })()
    const node_id = randomUUID()
    const { node_no } = await here.store.holdLease(node_id, 60_000, figures)
    const cursor = { position: 0, event_id: null, received_at: null, history_id: null }
    const request = { user_no: account.user_no, device_no: 2, session_id: randomUUID(), node_no, cursor, last_device_seq: 0, log_seq: null }
    expect((await here.store.establishSession(request)).ok).toBe(true)
    const socket = await connect(account)
    await socket.next('presence', ({ head }) => tells(device_id, true)(head.devices))
    await here.sql('update node set lease_until = clock_ms() where node_id = $1', [node_id])
    await within(
      expect,
      socket.next('presence', ({ head }) => tells(device_id, false)(head.devices)),
    )
  })
})
