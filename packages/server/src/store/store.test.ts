import { randomBytes, randomUUID } from 'node:crypto'
import { PAIRING_SLOTS } from '@sealpost/protocol'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createAccount, makeEvent } from '@sealpost/testing/clients/store-accounts'
import { createTestDatabase, useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createClock } from './postgres/clock.ts'
import { historyId } from './postgres/history.ts'
import { migrate } from './postgres/migrate.ts'
import { withTransaction } from './postgres/pool.ts'
import { createStore, type PostgresStore } from './store.ts'
import { createStreamDirectory } from './events/stream-numbers.ts'

const database = useDatabase()
let store: PostgresStore

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
})
afterAll(() => store.close())

const query = (text: string, values: unknown[] = []) => store.pools.main.query(text, values)

describe('migrate', () => {
  it('tells that the database does not answer', async () => {
    await expect(migrate({ host: '/nonexistent', database: 'x' })).rejects.toMatchObject({ code: 'unavailable' })
    await expect(createStore({ connection: { host: '/nonexistent', database: 'x' }, log: silent })).rejects.toMatchObject({
      code: 'unavailable',
    })
  })
})

describe('the store', () => {
  it('the history is the same for every node on a database, and another on another database', async () => {
    const second = await createStore({ connection: database.connection, log: silent })
    expect(second.history_id).toBe(store.history_id)
    expect(store.history_id).toMatch(/^[A-Za-z0-9_-]{43}$/)
    await second.close()
    const row = { store_id: randomUUID(), system_identifier: '7300000000000000001', timeline: 1 }
    const ids = [
      row,
      { ...row, timeline: 2 },
      { ...row, system_identifier: '7300000000000000002' },
      { ...row, store_id: randomUUID() },
    ].map(historyId)
    expect(new Set(ids).size).toBe(4)
  })

  it('another past behind the same address is known within seconds, without a restart and without a call', async () => {
    const restored = await createTestDatabase()
    const relay = await createStore({ connection: restored.connection, log: silent })
    const before = relay.history_id
    const { user_no } = await createAccount(relay)
    const sql = new Client(restored.connection)
    await sql.connect()
    await sql.query('update server_meta set store_id = gen_random_uuid()')
    // what a restore and a promotion have in common: every connection ends
    await sql.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()')
    await expect.poll(() => relay.history_id, { timeout: 5_000, interval: 50 }).not.toBe(before)
    const cursor = { position: 0, event_id: null, received_at: null, history_id: null }
    const told = await relay.establishSession({
      user_no,
      device_no: 1,
      session_id: randomUUID(),
      node_no: null,
      cursor,
      last_device_seq: 0,
      log_seq: null,
    })
    expect(told).toMatchObject({ ok: true, established: { history_id: relay.history_id } })
    await relay.close()
    await sql.end()
    await restored.drop()
  })

  it('the first server key claims the database, another one does not match', async () => {
    const key = randomBytes(32)
    expect(await store.claimServerKey(key)).toBe('ok')
    expect(await store.claimServerKey(key)).toBe('ok')
    expect(await store.claimServerKey(randomBytes(32))).toBe('mismatch')
  })

  it('a number above 2^53-1 is a fault, never rounded', async () => {
    expect((await query('select 9007199254740991::int8 as n')).rows).toEqual([{ n: 9007199254740991 }])
    await expect(query('select 9007199254740992::int8 as n')).rejects.toMatchObject({ code: 'internal' })
  })

  it('R02: a failure of the database has a code and a safe sentence, and the connection is not used again', async () => {
    const pool = store.pools.main
    const broken = withTransaction(pool, (client) => client.query('select * from no_such_table'))
    await expect(broken).rejects.toMatchObject({ code: 'internal', message: 'the database refused a statement' })
    const killed = withTransaction(pool, async (client) => client.query('select pg_terminate_backend(pg_backend_pid())'))
    await expect(killed).rejects.toMatchObject({ code: 'unavailable', message: 'the database did not answer' })
    await store.ping()
    expect(pool.waitingCount).toBe(0)
  })

  it('now() follows the clock of the database', async () => {
    await store.ping()
    const [row] = (await query('select clock_ms() as ms')).rows as { ms: number }[]
    expect(Math.abs(store.now() - row!.ms)).toBeLessThan(100)
  })
})

describe('what is remembered', () => {
  it('stream numbers are good for one run of one server: another one is asked again', async () => {
    const other = await createTestDatabase()
    const second = await createStore({ connection: other.connection, log: silent })
    const directory = createStreamDirectory((client) => (client === b ? 'b' : 'a'), 10, 3)
    const a = await store.pools.main.connect()
    const b = await second.pools.main.connect()
    const [first, foreign] = [await createAccount(store), await createAccount(second)]
    // a user of the same number with streams of the same names, numbered otherwise
    const user_no = 77
    const session_id = randomUUID()
    for (const [client, { user_no: from }] of [
      [a, first],
      [b, foreign],
    ] as const) {
      await client.query(
        'insert into account (user_no, log_seq, created_at, user_id, log_head) overriding system value select $2, 0, 0, sha256(user_id), log_head from account where user_no = $1',
        [from, user_no],
      )
      await client.query('insert into device (user_no, device_no, device_id, session_id) values ($1, 1, $2, $2)', [user_no, session_id])
    }
    const run = (...streams: string[]) => [
      { user_no, device_no: 1, session_id, first_seq: 1, epoch: 0, events: streams.map((stream_id) => makeEvent(1, { stream_id })) },
    ]
    const ask = async (client: typeof a, ...streams: string[]) => {
      const [asked] = run(...streams)
      const numbers = await directory.numberStreams(client, [asked!], false)
      return streams.map((stream) => numbers(asked!, stream))
    }
    expect(await ask(a, 'x', 'y')).toEqual([1, 2])
    expect(await ask(b, 'y', 'x')).toEqual([1, 2])
    expect(await ask(a, 'y', 'x')).toEqual([2, 1])
    await a.query('delete from stream where user_no = $1', [user_no])
    expect(await ask(a, 'x', 'y')).toEqual([1, 2])
    // four names, room for three: the one used least recently is asked for again
    await ask(a, 'z', 'w')
    expect(await ask(a, 'y', 'z', 'w')).toEqual([2, 1, 2])
    expect(await ask(a, 'x')).toEqual([3])
    a.release()
    b.release()
    await second.close()
    await other.drop()
  })
})

describe('createClock', () => {
  it('takes the fastest round trip, until it is old', () => {
    let mono = 1_000
    const clock = createClock(() => mono)
    clock.sample(50_000, 990, 1_000)
    expect(clock.now()).toBe(50_005)
    clock.sample(90_000, 900, 1_000)
    expect(clock.now()).toBe(50_005)
    clock.sample(60_000, 998, 1_000)
    expect(clock.now()).toBe(60_001)
    mono = 40_000
    clock.sample(99_000, 39_900, 40_000)
    expect(clock.now()).toBe(99_050)
  })
})

describe('mailboxes', () => {
  const box = () => new Uint8Array(randomBytes(40))

  it('B02: the creator opens it, anyone with its name joins once, the creator goes on', async () => {
    const { user_no } = await createAccount(store, 2)
    const creator = { user_no, device_no: 1 }
    const id = randomBytes(16).toString('base64url')
    const boxes = PAIRING_SLOTS.map(box)
    expect(await store.putSlot(id, 'join', boxes[1]!, null)).toBe('not_found')
    expect(await store.putSlot(id, 'offer', boxes[0]!, null)).toBe('forbidden')
    for (const [i, slot] of PAIRING_SLOTS.entries()) {
      expect(await store.readSlot(id, slot)).toBeNull()
      expect(await store.putSlot(id, slot, boxes[i]!, slot === 'join' ? null : creator)).toBe('ok')
      expect(await store.putSlot(id, slot, box(), slot === 'join' ? null : creator)).toBe('slot_taken')
      expect(Buffer.from(boxes[i]!).equals(Buffer.from((await store.readSlot(id, slot))!))).toBe(true)
    }
  })

  it('a foreign creator, also the user’s other device, is refused', async () => {
    const { user_no } = await createAccount(store, 2)
    const id = randomUUID()
    await store.putSlot(id, 'offer', box(), { user_no, device_no: 1 })
    expect(await store.putSlot(id, 'reveal', box(), { user_no, device_no: 2 })).toBe('forbidden')
    expect(await store.putSlot(id, 'done', box(), { user_no: (await createAccount(store)).user_no, device_no: 1 })).toBe('forbidden')
    expect(await store.putSlot(id, 'offer', box(), { user_no, device_no: 2 })).toBe('slot_taken')
    await expect(store.putSlot(id, 'join', new Uint8Array(4097), null)).rejects.toMatchObject({ code: 'too_large' })
  })

  it('of many joins at the same time one is kept', async () => {
    const { user_no } = await createAccount(store)
    const id = randomUUID()
    await store.putSlot(id, 'offer', box(), { user_no, device_no: 1 })
    const answers = await Promise.all(Array.from({ length: 20 }, () => store.putSlot(id, 'join', box(), null)))
    expect(answers.filter((answer) => answer === 'ok')).toHaveLength(1)
    expect(answers.filter((answer) => answer === 'slot_taken')).toHaveLength(19)
  })

  it('after ten minutes it is gone, its name is free, and the sweep removes what is left', async () => {
    const { user_no } = await createAccount(store)
    const creator = { user_no, device_no: 1 }
    const [kept, old, swept] = [randomUUID(), randomUUID(), randomUUID()]
    for (const id of [kept, old, swept]) await store.putSlot(id, 'offer', box(), creator)
    await query('update pairing set expires_at = expires_at - 600001 where mailbox_id = any($1)', [[old, swept]])
    expect(await store.readSlot(old, 'offer')).toBeNull()
    expect(await store.putSlot(old, 'join', box(), null)).toBe('not_found')
    expect(await store.putSlot(old, 'offer', box(), creator)).toBe('ok')
    expect(await store.sweepExpired(100)).toBe(1)
    expect(await store.sweepExpired(100)).toBe(0)
    expect((await query('select from pairing_slot where mailbox_id = $1', [swept])).rows).toHaveLength(0)
    expect(await store.readSlot(kept, 'offer')).not.toBeNull()
  })
})

describe('assertions', () => {
  it('an id is good once within 600 s, for each user by itself', async () => {
    const { user_id } = await createAccount(store)
    const other = await createAccount(store)
    const jti = randomUUID()
    const answers = await Promise.all(Array.from({ length: 10 }, () => store.rememberAssertion(jti, user_id)))
    expect(answers.filter(Boolean)).toHaveLength(1)
    expect(await store.rememberAssertion(jti, other.user_id)).toBe(true)
    await query('update assertion set expires_at = expires_at - 600001')
    expect(await store.rememberAssertion(jti, user_id)).toBe(true)
    expect(await store.sweepExpired(100)).toBe(1)
    expect(await store.rememberAssertion(jti, user_id)).toBe(false)
  })
})
