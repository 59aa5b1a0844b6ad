import { randomUUID } from 'node:crypto'
import { bytesToUuid, type Cursor, equalBytes } from '@sealpost/protocol'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createMemoryBus } from '../../bus/memory-bus.ts'
import type { Log } from '../../telemetry/log.ts'
import type { Established, EstablishRequest, StoredEvent } from '../../ports/store.ts'
import { createNodeFigures } from '../../relay/node-figures.ts'
import { append, createAccount, makeDevice, makeRun, openSession, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createStore, type PostgresStore } from '../store.ts'

const database = useDatabase()
const errors: unknown[] = []
const warnings: unknown[] = []
const log: Log = {
  ...silent,
  error: (fields: unknown) => void errors.push(fields),
  warn: (fields: unknown) => void warnings.push(fields),
}
let store: PostgresStore

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log })
})
afterAll(() => store.close())

const START: Cursor = { position: 0, event_id: null, received_at: null, history_id: null }

const figures = createNodeFigures({ relay: () => null, bus: createMemoryBus(), draining: () => false })

const establish = (user_no: number, more: Partial<EstablishRequest> = {}) =>
  store.establishSession({
    user_no,
    device_no: 1,
    session_id: randomUUID(),
    node_no: null,
    cursor: START,
    last_device_seq: 0,
    log_seq: null,
    ...more,
  })

async function established(...args: Parameters<typeof establish>): Promise<Established> {
  const result = await establish(...args)
  if (!result.ok) throw new Error(result.code)
  return result.established
}

async function fill(account: TestAccount, first_seq: number, events: number): Promise<StoredEvent[]> {
  const { user_no, log_seq } = account
  const session_id = await openSession(store, user_no, 1)
  const [verdict] = await store.ingest([makeRun({ user_no, device_no: 1, session_id, epoch: log_seq, first_seq }, events)], true)
  if (verdict?.is !== 'stored') throw new Error(verdict?.is)
  return verdict.events
}

function cursorAt({ position, client, received_at }: StoredEvent, history_id = store.history_id): Cursor {
  return { position, event_id: bytesToUuid(client), received_at, history_id }
}

describe('findDevice', () => {
  it('finds a device with its key, also a revoked one; R10: only in its own account', async () => {
    const account = await createAccount(store, 2)
    const other = await createAccount(store)
    const [first, second] = account.devices
    const row = await store.findDevice(account.user_id, second!.device_id)
    expect(row).toMatchObject({
      user_no: account.user_no,
      device_no: 2,
      active: true,
      revoked_log_seq: null,
      account_active: true,
      session_id: null,
    })
    expect(row).toMatchObject({ user_id: account.user_id, device_id: second!.device_id })
    expect(equalBytes(row!.sign_pub, second!.sign_pub)).toBe(true)
    expect(await store.findDevice(other.user_id, second!.device_id)).toBeNull()
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: second!.device_id }] }, first)
    expect(await store.findDevice(account.user_id, second!.device_id)).toMatchObject({ active: false, revoked_log_seq: 2 })
  })
})

describe('establishSession', () => {
  it('tells where the account stands, and hands out the entries above the client’s, with its boxes', async () => {
    const account = await createAccount(store, 3)
    await fill(account, 1, 2)
    const all = await established(account.user_no, { device_no: 2 })
    expect(all).toMatchObject({
      log_seq: 2,
      head_position: 2,
      floor: 0,
      last_device_seq: 0,
      history_id: store.history_id,
      acked_event_missing: false,
    })
    expect(equalBytes(all.log_head, account.log_head!)).toBe(true)
    expect(all.entries.map((entry) => [entry.log_seq, entry.box !== null])).toEqual([
      [0, false],
      [1, true],
      [2, true],
    ])
    expect((await established(account.user_no, { log_seq: 1 })).entries.map((entry) => entry.log_seq)).toEqual([2])
    expect((await established(account.user_no, { log_seq: 2 })).entries).toEqual([])
    expect((await established(account.user_no, { log_seq: 7 })).entries).toEqual([])
  })

  it('the newest session wins: the one before is fenced', async () => {
    const account = await createAccount(store)
    const { user_no, log_seq } = account
    const old = await openSession(store, user_no, 1)
    const current = await openSession(store, user_no, 1)
    const send = async (session_id: string) =>
      (await store.ingest([makeRun({ user_no, device_no: 1, session_id, epoch: log_seq, first_seq: 1 }, 1)], false))[0]!.is
    expect(await send(old)).toBe('fenced')
    await store.endSession(user_no, 1, old, { position: 0 })
    expect(await send(current)).toBe('stored')
    await store.endSession(user_no, 1, current, { position: 1 })
    expect(await send(current)).toBe('fenced')
  })

  it('waits for whoever holds the account, and then tells what that one has written', async () => {
    const account = await createAccount(store)
    const other = new Client(database.connection)
    await other.connect()
    await other.query('begin')
    await other.query('select from account where user_no = $1 for no key update', [account.user_no])
    const waiting = established(account.user_no)
    await other.query('select pg_sleep(0.05)')
    await other.query('update account set log_seq = 9 where user_no = $1', [account.user_no])
    await other.query('commit')
    await other.end()
    expect((await waiting).log_seq).toBe(9)
  })

  it('tells a long log as far as half a frame goes, and reads it when the account is free again', async () => {
    const { user_no } = await createAccount(store)
    const other = new Client(database.connection)
    await other.connect()
    await other.query(
      `insert into log_entry (user_no, log_seq, stored_at, body, sig, entry_hash)
       select $1, n, 0, convert_to(repeat('x', 10000), 'utf8'), decode(repeat('00', 64), 'hex'), sha256(n::text::bytea) from generate_series(1, 300) n`,
      [user_no],
    )
    await other.query('update account set log_seq = 299 where user_no = $1', [user_no])
    await other.query('begin; lock table log_entry in access exclusive mode')
    const telling = established(user_no)
    const fence = async () =>
      (await store.pools.main.query('select from device where user_no = $1 and session_id is not null', [user_no])).rowCount
    await expect.poll(fence, { interval: 10, timeout: 1_500 }).toBe(1)
    await store.pools.main.query('select from account where user_no = $1 for no key update nowait', [user_no])
    await other.query('commit')
    const { log_seq, entries } = await telling
    expect(log_seq).toBe(299)
    expect(entries.map((entry) => entry.log_seq)).toEqual(entries.map((_, at) => at))
    const bytes = entries.reduce((sum, { body, box }) => sum + body.length + (box?.length ?? 0), 0)
    expect(bytes).toBeGreaterThan(256 * 1024)
    expect(bytes).toBeLessThanOrEqual(512 * 1024)
    expect((await established(user_no, { log_seq: 290 })).entries.map((entry) => entry.log_seq)).toEqual([
      291, 292, 293, 294, 295, 296, 297, 298, 299,
    ])
    await other.end()
  })

  it('refuses a revoked device, an unknown one, a suspended and a deleted account', async () => {
    const account = await createAccount(store, 2)
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[1]!.device_id }] })
    expect(await establish(account.user_no, { device_no: 2 })).toEqual({ ok: false, code: 'device_revoked' })
    expect(await establish(account.user_no, { device_no: 3 })).toEqual({ ok: false, code: 'auth_failed' })
    expect(await establish(2 ** 40)).toEqual({ ok: false, code: 'account_gone' })
    await store.pools.main.query('update account set active = false where user_no = $1', [account.user_no])
    expect(await establish(account.user_no)).toEqual({ ok: false, code: 'suspended' })
  })

  describe('cursor and mode', () => {
    it('at the start or at the head of what is stored', async () => {
      const account = await createAccount(store)
      expect(await established(account.user_no)).toMatchObject({ mode: 'live', reset_reason: null })
      const events = await fill(account, 1, 3)
      expect(await established(account.user_no)).toMatchObject({ mode: 'replay' })
      expect(await established(account.user_no, { cursor: cursorAt(events[1]!) })).toMatchObject({ mode: 'replay' })
      expect(await established(account.user_no, { cursor: cursorAt(events[2]!) })).toMatchObject({ mode: 'live' })
    })

    it('the same entry at the position is enough, whatever the history', async () => {
      const account = await createAccount(store)
      const events = await fill(account, 1, 2)
      const cursor = cursorAt(events[1]!, account.user_id)
      expect(await established(account.user_no, { cursor })).toMatchObject({ mode: 'live', reset_reason: null })
    })

    it('C6: another entry at the position, or none, resets, and the reason tells whether the history changed', async () => {
      const account = await createAccount(store)
      const events = await fill(account, 1, 2)
      const other = account.user_id
      const good = cursorAt(events[1]!)
      const cursors: [Cursor, string][] = [
        [{ ...good, event_id: randomUUID() }, 'cursor_unknown'],
        [{ ...good, received_at: good.received_at! + 1 }, 'cursor_unknown'],
        [{ ...good, event_id: null }, 'cursor_unknown'],
        [{ ...good, position: 1 }, 'cursor_unknown'],
        [{ ...good, position: 3 }, 'cursor_unknown'],
        [{ ...good, position: 3, history_id: other }, 'history_changed'],
        [{ ...good, event_id: randomUUID(), history_id: other }, 'history_changed'],
        [{ ...good, event_id: randomUUID(), history_id: null }, 'history_changed'],
      ]
      for (const [cursor, reset_reason] of cursors)
        expect(await established(account.user_no, { cursor })).toMatchObject({ mode: 'reset', reset_reason })
    })

    it('a row that retention took: the history decides', async () => {
      const account = await createAccount(store)
      const events = await fill(account, 1, 3)
      await store.pools.main.query('delete from event where user_no = $1 and position <= 2', [account.user_no])
      await store.pools.main.query('update account set floor = 2 where user_no = $1', [account.user_no])
      expect(await established(account.user_no, { cursor: cursorAt(events[1]!) })).toMatchObject({ mode: 'replay', floor: 2 })
      const foreign = cursorAt(events[1]!, account.user_id)
      expect(await established(account.user_no, { cursor: foreign })).toMatchObject({ mode: 'reset', reset_reason: 'history_changed' })
    })
  })

  it('B06: a claim above what is stored raises the number; in the same history it is a loss, and logged', async () => {
    const account = await createAccount(store, 2)
    const [, last] = await fill(account, 1, 2)
    const foreign = { ...cursorAt(last!), history_id: account.user_id }
    errors.length = 0
    expect(await established(account.user_no, { last_device_seq: 4, cursor: foreign })).toMatchObject({
      last_device_seq: 4,
      acked_event_missing: false,
    })
    expect(errors).toEqual([])
    expect(await established(account.user_no, { last_device_seq: 6, cursor: cursorAt(last!) })).toMatchObject({
      last_device_seq: 6,
      acked_event_missing: true,
    })
    expect(errors).toMatchObject([{ code: 'acked_event_missing', claimed: 6, stored: 4 }])
    // a cursor at 0 names no history: whether events were lost is not known
    warnings.length = 0
    expect(await established(account.user_no, { device_no: 2, last_device_seq: 3 })).toMatchObject({
      last_device_seq: 3,
      acked_event_missing: false,
    })
    expect(errors).toHaveLength(1)
    expect(warnings).toMatchObject([{ code: 'acked_event_missing', device_no: 2, claimed: 3, stored: 0 }])
    expect((await fill(account, 7, 1))[0]).toMatchObject({ device_seq: 7, position: 3 })
    // no claim brings a number out of the safe integers, where it would break batches of others
    expect((await established(account.user_no, { last_device_seq: Number.MAX_SAFE_INTEGER })).last_device_seq).toBe(2 ** 52)
  })
})

describe('presence', () => {
  it('R08: remembers when a device was seen, at the end of its session or by a touch; forgets revoked ones', async () => {
    const account = await createAccount(store, 3)
    const { user_no } = account
    const session_id = await openSession(store, user_no, 1)
    await store.endSession(user_no, 1, session_id, { position: 5 })
    await store.touchDevices([{ user_no, device_no: 2, position: 3, follower_node: null }])
    await store.touchDevices([])
    const seen = await store.readPresence(user_no)
    expect(seen.map((row) => row.device_id)).toEqual(account.devices.map((device) => device.device_id))
    expect(seen.map((row) => row.last_seen !== null && Math.abs(row.last_seen - store.now()) < 5_000)).toEqual([true, true, false])
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[2]!.device_id }] })
    await append(store, account, { type: 'add_device', device: makeDevice() })
    expect((await store.readPresence(user_no)).map((row) => row.device_id)).toEqual(account.devices.map((device) => device.device_id))
  })

  /** A node whose lease runs for so long; from the second time on, the same one. */
  const node = async (lease_ms = 60_000, node_id: string = randomUUID()) => {
    const { node_no } = await store.holdLease(node_id, lease_ms, figures())
    return { node_no, node_id }
  }
  /** As both ways tell it, which have to agree: of each device, whether it is online. */
  async function onlineOf({ user_no, devices }: TestAccount): Promise<boolean[]> {
    const rows = await store.readPresence(user_no)
    const ids = (await store.readOnline([user_no])).get(user_no) ?? []
    expect(rows.flatMap(({ device_id, online }) => (online ? [device_id] : []))).toEqual(ids)
    return devices.map(({ device_id }) => ids.includes(device_id))
  }
  const session = async ({ user_no }: TestAccount, node_no: number | null, device_no = 1): Promise<string> => {
    const session_id = randomUUID()
    await established(user_no, { session_id, node_no, device_no })
    return session_id
  }

  it('R08: a device is online by its fence and by a node that lives: when the lease ran out it is offline, without any write', async () => {
    const account = await createAccount(store, 2)
    const dying = await node(400)
    await session(account, dying.node_no)
    const version = async () =>
      (await store.pools.main.query('select array_agg(d.xmin::text) as x from device d where user_no = $1', [account.user_no])).rows
    const before = await version()
    expect(await onlineOf(account)).toEqual([true, false])
    await expect.poll(() => onlineOf(account), { interval: 50, timeout: 3_000 }).toEqual([false, false])
    await node(60_000, dying.node_id)
    expect(await onlineOf(account), 'it lives after all').toEqual([true, false])
    await store.endLease(dying.node_id)
    expect(await onlineOf(account)).toEqual([false, false])
    expect(await version()).toEqual(before)
  })

  it('R08: devices of one account over two nodes: each goes with its own; a session of requests alone is not online', async () => {
    const account = await createAccount(store, 3)
    const [a, b] = [await node(), await node()]
    await session(account, a.node_no, 1)
    await session(account, b.node_no, 2)
    await session(account, null, 3)
    expect(await onlineOf(account)).toEqual([true, true, false])
    await store.endLease(a.node_id)
    expect(await onlineOf(account)).toEqual([false, true, false])
    await session(account, b.node_no, 1)
    expect(await onlineOf(account), 'it went over to the other').toEqual([true, true, false])
  })

  it('R04: the end of a session makes its device offline unless another one has taken its place, also where the fence was ended before', async () => {
    const account = await createAccount(store)
    const { user_no } = account
    const [a, b] = [await node(), await node()]
    const old = await session(account, a.node_no)
    const current = await session(account, b.node_no)
    const end = (session_id: string) => store.endSession(user_no, 1, session_id, { position: 0 })
    expect([await end(old), await onlineOf(account)]).toEqual([false, [true]])
    expect([await end(current), await onlineOf(account)]).toEqual([true, [false]])
    expect(await end(current), 'it is, whoever ended it').toBe(true)
    expect(await store.endSession(2 ** 40, 1, current, { position: 0 })).toBe(false)
  })

  it('R08: a device that follows is online beside its session and after it, until it follows no more', async () => {
    const account = await createAccount(store)
    const { user_no } = account
    const [a, b] = [await node(), await node()]
    const reader = { user_no, device_no: 1 }
    const session_id = await session(account, a.node_no)
    expect(await store.setFollower(reader, b.node_no, true)).toBe(false)
    expect([await store.endSession(user_no, 1, session_id, { position: 0 }), await onlineOf(account)]).toEqual([false, [true]])
    expect(await store.setFollower(reader, a.node_no, false), 'of another node it is no matter').toBe(false)
    expect(await onlineOf(account)).toEqual([true])
    expect([await store.setFollower(reader, b.node_no, false), await onlineOf(account)]).toEqual([true, [false]])
    await store.setFollower(reader, b.node_no, true)
    await session(account, a.node_no)
    expect([await store.setFollower(reader, b.node_no, false), await onlineOf(account)]).toEqual([false, [true]])
    expect(await store.setFollower({ user_no, device_no: 9 }, a.node_no, false)).toBe(false)
  })

  it('R08: a touch keeps the follower, or sets it again; it never ends one', async () => {
    const account = await createAccount(store, 2)
    const { user_no } = account
    const [a, b] = [await node(), await node()]
    const touch = (follower_node: number | null, device_no = 1) => store.touchDevices([{ user_no, device_no, position: 0, follower_node }])
    await store.setFollower({ user_no, device_no: 1 }, a.node_no, true)
    await touch(null)
    expect(await onlineOf(account)).toEqual([true, false])
    await touch(b.node_no, 2)
    await store.endLease(a.node_id)
    expect(await onlineOf(account)).toEqual([false, true])
    await touch(b.node_no)
    expect(await onlineOf(account)).toEqual([true, true])
  })

  it('R08: whom an operator shut out, or whom its account revoked, is not online, though it has not left yet', async () => {
    const account = await createAccount(store, 3)
    const { node_no } = await node()
    const { user_no } = account
    for (const device_no of [1, 2, 3]) await store.setFollower({ user_no, device_no }, node_no, true)
    expect(await onlineOf(account)).toEqual([true, true, true])
    await store.suspendDevice(account.user_id, account.devices[1]!.device_id, true)
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[2]!.device_id }] })
    expect(await onlineOf({ ...account, devices: account.devices.slice(0, 2) })).toEqual([true, false])
  })

  it('many users are asked about at once; who has nobody online is left out', async () => {
    const accounts = await Promise.all([1, 2, 3].map(() => createAccount(store)))
    const { node_no } = await node()
    for (const account of accounts.slice(1)) await session(account, node_no)
    const online = await store.readOnline([...accounts.map(({ user_no }) => user_no), 2 ** 40])
    expect(online).toEqual(new Map(accounts.slice(1).map(({ user_no, devices }) => [user_no, [devices[0]!.device_id]])))
    expect(await store.readOnline([])).toEqual(new Map())
  })
})
