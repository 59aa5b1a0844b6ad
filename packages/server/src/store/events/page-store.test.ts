import { randomUUID } from 'node:crypto'
import { bytesToUuid, recordBytes } from '@sealpost/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Page, PageRequest, SessionPlace, StoredEvent } from '../../ports/store.ts'
import { append, createAccount, makeRun, openSession, type TestAccount, type TestEvent } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createStore, type PostgresStore } from '../store.ts'

const database = useDatabase()
let store: PostgresStore

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
})
afterAll(() => store.close())

const read = (user_no: number, after: number, more: Partial<PageRequest> = {}): Promise<Page> =>
  store.readPage({ user_no, after, limit: 100, bytes: 1_000_000, own: null, streams: null, ...more })

const positions = (page: Page): number[] => page.events.map((event) => event.position)

/** Each row is a device and what it sends; returns all events by position. */
async function fill(rows: [device_no: number, events: number | TestEvent[]][]): Promise<{ user_no: number; events: StoredEvent[] }> {
  const { user_no, log_seq } = await createAccount(store, 2)
  const sessions = [await openSession(store, user_no, 1), await openSession(store, user_no, 2)]
  const next = [1, 1]
  const events: StoredEvent[] = []
  for (const [device_no, list] of rows) {
    const at = device_no - 1
    const run = makeRun({ user_no, device_no, session_id: sessions[at]!, epoch: log_seq, first_seq: next[at]! }, list)
    const [verdict] = await store.ingest([run], true)
    if (verdict?.is !== 'stored') throw new Error(verdict?.is)
    next[at]! += run.events.length
    events.push(...verdict.events)
  }
  return { user_no, events }
}

const tipOf = ({ client, received_at }: StoredEvent) => ({ event_id: bytesToUuid(client), received_at })

describe('readPage', () => {
  it('an account without events has an empty page at its head', async () => {
    const { user_no } = await createAccount(store)
    expect(await read(user_no, 0)).toEqual({ events: [], upto: 0, tip: null, head_position: 0, floor: 0 })
  })

  it('hands out what was stored, number by number and byte by byte', async () => {
    const { user_no, events } = await fill([
      [1, 3],
      [2, [{ stream_id: 'x', ttl: 60 }]],
    ])
    const page = await read(user_no, 0)
    expect(page.events.map((event) => ({ ...event, client: Buffer.from(event.client) }))).toEqual(
      events.map((event) => ({ ...event, client: Buffer.from(event.client) })),
    )
    expect(page).toMatchObject({ upto: 4, tip: tipOf(events[3]!), head_position: 4, floor: 0 })
  })

  it('G02: 20,000 events come in pages of 1,000, of 100 and of 1 without hole or overlap', { timeout: 60_000 }, async () => {
    const { user_no } = await fill(Array.from({ length: 20 }, (_, i): [number, number] => [1 + (i % 2), 1_000]))
    for (const [limit, from] of [
      [1_000, 0],
      [100, 0],
      [1, 19_500],
    ] as const) {
      let after: number = from
      for (; after < 20_000; ) {
        const page = await read(user_no, after, { limit })
        expect(positions(page)).toEqual(Array.from({ length: limit }, (_, i) => after + i + 1))
        expect(page).toMatchObject({ upto: after + limit, head_position: 20_000 })
        after = page.upto
      }
    }
  })

  it('G02: pages of any size join without hole or overlap', async () => {
    const { user_no, events } = await fill([
      [1, 7],
      [2, 4],
      [1, 6],
    ])
    for (const limit of [1, 2, 5, 17, 100]) {
      const seen: number[] = []
      for (let after = 0; ; ) {
        const page = await read(user_no, after, { limit })
        expect(page.tip).toEqual(tipOf(events[page.upto - 1]!))
        seen.push(...positions(page))
        if (page.upto === page.head_position) break
        expect(page.upto).toBe(seen.at(-1))
        after = page.upto
      }
      expect(seen).toEqual(events.map((event) => event.position))
    }
    expect(await read(user_no, 17)).toMatchObject({ events: [], upto: 17, tip: tipOf(events[16]!), head_position: 17 })
  })

  it('ends before the byte bound, but has one record at least', async () => {
    const { user_no, events } = await fill([[1, Array.from({ length: 6 }, () => ({ payload: new Uint8Array(1000) }))]])
    const each = recordBytes(0, events[0]!.client, { position: 1, stream_seq: 1, received_at: 1 })
    expect(await read(user_no, 0, { bytes: 3 * each })).toMatchObject({ upto: 3, tip: tipOf(events[2]!) })
    expect(await read(user_no, 0, { bytes: 3 * each - 1 })).toMatchObject({ upto: 2 })
    expect(await read(user_no, 3, { bytes: 1 })).toMatchObject({ upto: 4, head_position: 6, events: [{ position: 4 }] })
    expect(positions(await read(user_no, 0, { bytes: 6 * each }))).toHaveLength(6)
  })

  it('leaves out own events up to the number that the device knows, and moves on past them', async () => {
    const { user_no, events } = await fill([
      [1, 2],
      [2, 1],
      [1, 3],
    ])
    const page = await read(user_no, 0, { own: { device_no: 1, upto_seq: 4 } })
    expect(positions(page)).toEqual([3, 6])
    expect(page.upto).toBe(6)
    const all = await read(user_no, 3, { own: { device_no: 1, upto_seq: 5 } })
    expect(all).toEqual({ events: [], upto: 6, tip: tipOf(events[5]!), head_position: 6, floor: 0 })
  })

  it('R03: a filter hands out only its streams, and nothing for one that does not exist', async () => {
    const { user_no, events } = await fill([[1, ['a', 'b', 'a', 'c', 'b', 'c'].map((stream_id) => ({ stream_id }))]])
    expect(positions(await read(user_no, 0, { streams: ['a', 'b'] }))).toEqual([1, 2, 3, 5])
    expect(positions(await read(user_no, 1, { streams: ['a'], limit: 1 }))).toEqual([3])
    expect(await read(user_no, 0, { streams: ['none'] })).toEqual({
      events: [],
      upto: 6,
      tip: tipOf(events[5]!),
      head_position: 6,
      floor: 0,
    })
    expect(await read(user_no, 0, { streams: [] })).toMatchObject({ events: [], upto: 6 })
  })

  it('R10: shows nothing of another user', async () => {
    const a = await fill([[1, 3]])
    const b = await fill([[1, 2]])
    expect((await read(b.user_no, 0)).events.map((event) => bytesToUuid(event.client))).toEqual(
      b.events.map((event) => bytesToUuid(event.client)),
    )
    expect(await store.readTip(a.user_no, 4)).toBeNull()
  })

  it('looks at 10,000 positions at most', async () => {
    const { user_no } = await fill([[1, 1]])
    await store.pools.main.query(
      `insert into event (user_no, position, stream_seq, device_seq, received_at, stream_no, device_no, flags, record)
       select user_no, g, g, g, received_at, stream_no, device_no, 0, record from event, generate_series(2, 10500) g where user_no = $1`,
      [user_no],
    )
    await store.pools.main.query('update head set last = 10500 where user_no = $1', [user_no])
    const own = { device_no: 1, upto_seq: 20_000 }
    const first = await read(user_no, 0, { own })
    expect(first).toMatchObject({ events: [], upto: 10_000, head_position: 10_500 })
    expect(first.tip).not.toBeNull()
    expect(await read(user_no, first.upto, { own })).toMatchObject({ events: [], upto: 10_500 })
    expect(positions(await read(user_no, 300, { limit: 1000 }))).toHaveLength(1000)
    // what retention removed is not looked at
    await store.pools.main.query('delete from event where user_no = $1 and position <= 400', [user_no])
    await store.pools.main.query('update account set floor = 400 where user_no = $1', [user_no])
    expect(await read(user_no, 0, { own })).toMatchObject({ upto: 10_400, floor: 400 })
  })

  it('names no tip where retention took the entry', async () => {
    const { user_no } = await fill([[1, 3]])
    await store.pools.main.query('delete from event where user_no = $1', [user_no])
    await store.pools.main.query('update account set floor = 3 where user_no = $1', [user_no])
    expect(await read(user_no, 0)).toEqual({ events: [], upto: 3, tip: null, head_position: 3, floor: 3 })
    expect(await read(2 ** 40, 5)).toEqual({ events: [], upto: 5, tip: null, head_position: 5, floor: 0 })
  })
})

describe('readTip', () => {
  it('gives the entry at a position', async () => {
    const { user_no, events } = await fill([[1, 3]])
    expect(await store.readTip(user_no, 2)).toEqual(tipOf(events[1]!))
    expect(await store.readTip(user_no, 4)).toBeNull()
  })
})

describe('compareSessions', () => {
  type Told = { position?: number; log_seq?: number; device_no?: number; by?: SessionPlace['by'] }
  /** A session of device 1 that was told all. */
  async function place(account: TestAccount, told: Told = {}): Promise<SessionPlace> {
    const { user_no, log_seq } = account
    const { device_no = 1 } = told
    const by = told.by ?? { session_id: await openSession(store, user_no, device_no) }
    return { user_no, position: 0, log_seq, ...told, device_no, by }
  }
  const compare = async (...places: SessionPlace[]) => store.compareSessions(places)
  const moved = (position: number, log_seq: number, entitled: boolean) => ({ is: 'moved', position, log_seq, entitled })

  it('what is as it was told is the same, of a device and of a reader; nothing is asked for nobody', async () => {
    const account = await createAccount(store, 2)
    expect(await compare(await place(account), await place(account, { device_no: 2, by: { token_version: 0 } }))).toEqual([
      { is: 'same' },
      { is: 'same' },
    ])
    expect(await compare()).toEqual([])
  })

  it('R01: how far the store is: events, entries, also below what was told', async () => {
    const { user_no, events } = await fill([[1, 3]])
    const by = { session_id: await openSession(store, user_no, 1) }
    const at = (position: number, log_seq: number) => ({ user_no, device_no: 1, position, log_seq, by })
    expect(await compare(at(3, 1), at(2, 1), at(3, 0), at(9, 9))).toEqual([{ is: 'same' }, ...Array(3).fill(moved(events.length, 1, true))])
  })

  it('C4: whether a session may go on: only that of the fence, of an active device of an active account', async () => {
    const account = await createAccount(store, 3)
    const { user_no, user_id } = account
    const places = [await place(account), await place(account, { device_no: 2 }), await place(account, { device_no: 3 })]
    await openSession(store, user_no, 1)
    await store.suspendDevice(user_id, account.devices[1]!.device_id, true)
    expect(await compare(...places)).toEqual([moved(0, 2, false), moved(0, 2, false), { is: 'same' }])
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[2]!.device_id }] })
    expect(await compare(places[2]!)).toEqual([moved(0, 3, false)])
    const left = await place(account)
    expect(await compare(left)).toEqual([{ is: 'same' }])
    await store.suspendUser(user_id, true)
    expect(await compare(left)).toEqual([moved(0, 3, false)])
    await store.suspendUser(user_id, false)
    expect(await compare(left), 'its fence was ended with it').toEqual([moved(0, 3, false)])
  })

  it.each<[string, (account: TestAccount) => Promise<unknown>]>([
    ['a logout', ({ user_no }) => store.endFamily(user_no, 1)],
    ['an operator who disconnects the account', ({ user_id }) => store.endSessions(user_id, null)],
    ['or this device', ({ user_id, devices }) => store.endSessions(user_id, devices[0]!.device_id)],
  ])('G23: %s ends the fence and the tokens of the device', async (_, end) => {
    const account = await createAccount(store, 2)
    const places = [await place(account), await place(account, { by: { token_version: 0 } })]
    await end(account)
    expect(await compare(...places)).toEqual([moved(0, 1, false), moved(0, 1, false)])
    expect(await compare(await place(account, { by: { token_version: 1 } }))).toEqual([{ is: 'same' }])
  })

  it('the disconnection of a device leaves the others alone, and one that is not there is nobody', async () => {
    const account = await createAccount(store, 2)
    const { user_no, user_id, devices } = account
    const others = [await place(account, { device_no: 2 }), await place(account, { device_no: 2, by: { token_version: 0 } })]
    const { device_id } = devices[0]!
    expect(await store.endSessions(user_id, device_id)).toEqual({ user_no, device_ids: [device_id] })
    expect(await compare(...others)).toEqual([{ is: 'same' }, { is: 'same' }])
    expect(await store.endSessions(user_id, randomUUID())).toBeNull()
    expect(await store.endSessions(account.user_id.replace(/^../, 'AA'), null)).toBeNull()
  })

  it('a reader is judged by its token, whatever became of the fence of its device', async () => {
    const account = await createAccount(store)
    const reader = await place(account, { by: { token_version: 0 } })
    const session_id = await openSession(store, account.user_no, 1)
    expect(await compare(reader)).toEqual([{ is: 'same' }])
    await store.endSession(account.user_no, 1, session_id, { position: 0 })
    expect(await compare(reader)).toEqual([{ is: 'same' }])
    await store.suspendDevice(account.user_id, account.devices[0]!.device_id, true)
    expect(await compare(reader)).toEqual([moved(0, 0, false)])
  })

  it('G10: an account that is not there, and a device that is not; the answers stand in the order of the questions', async () => {
    const account = await createAccount(store)
    const here = await place(account)
    const by = { session_id: randomUUID() }
    const gone = { user_no: 2 ** 40, device_no: 1, position: 0, log_seq: 0, by }
    expect(await compare(gone, here, { ...here, device_no: 9 }, gone)).toEqual([
      { is: 'gone' },
      { is: 'same' },
      moved(0, 0, false),
      { is: 'gone' },
    ])
  })
})
