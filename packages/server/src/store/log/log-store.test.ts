import { randomBytes, randomUUID } from 'node:crypto'
import { type Bytes, decodeRecords, equalBytes, LIMITS, toBase64url, toTombstone, writeRecord } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StoredEvent } from '../../ports/store.ts'
import {
  append,
  createAccount,
  makeAccount,
  makeDevice,
  makeEntry,
  makeEvent,
  makeRun,
  openSession,
  type TestAccount,
} from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { nameKey } from './append-entry.ts'
import { createStore, type PostgresStore } from '../store.ts'

const database = useDatabase()
let store: PostgresStore

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
})
afterAll(() => store.close())

const query = async (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> =>
  (await store.pools.main.query(text, values)).rows

/** A rejected entry leaves no trace. */
async function footprint({ user_no }: TestAccount): Promise<unknown> {
  return query(
    `select a.log_seq, a.log_head, (select count(*) from log_entry where user_no = $1) as entries, (select count(*) from log_box where user_no = $1) as boxes,
            (select json_agg(d order by d.device_no) from device d where user_no = $1) as devices,
            (select json_agg(p order by p.device_no) from device_profile p where user_no = $1) as profiles
       from account a where a.user_no = $1`,
    [user_no],
  )
}

async function refused(account: TestAccount, request: ReturnType<typeof makeEntry>): Promise<string> {
  const before = await footprint(account)
  const result = await store.appendEntry(request)
  expect(await footprint(account)).toEqual(before)
  if (result.ok) throw new Error('it was appended')
  expect(result.log_seq).toBe(account.log_seq)
  expect(result.log_head).toEqual(account.log_head)
  return result.code
}

async function ingest(account: TestAccount, device_no: number, first_seq: number, streams: string[]): Promise<StoredEvent[]> {
  const { user_no, log_seq: epoch } = account
  const session_id = await openSession(store, user_no, device_no)
  const events = streams.map((stream_id) => ({ stream_id }))
  const [verdict] = await store.ingest([makeRun({ user_no, device_no, session_id, epoch, first_seq }, events)], true)
  if (verdict?.is !== 'stored') throw new Error(verdict?.is)
  return verdict.events
}

describe('appendEntry', () => {
  it('genesis creates the account; the same entry again is known', async () => {
    const account = makeAccount()
    const request = makeEntry(account, { type: 'genesis', device: makeDevice() })
    expect(await store.appendEntry({ ...request, allow_genesis: false })).toMatchObject({ ok: false, code: 'not_found' })
    const first = await store.appendEntry(request)
    expect(first).toMatchObject({ ok: true, log_seq: 0, already_known: false, revoked: [] })
    expect(await store.appendEntry({ ...request, allow_genesis: false })).toEqual({ ...first, already_known: true })
    const other = makeEntry(account, { type: 'genesis', device: makeDevice() })
    expect(await store.appendEntry(other)).toMatchObject({ ok: false, code: 'log_conflict', log_seq: 0 })
  })

  it('of two genesis entries of one account at the same time, one makes it', async () => {
    for (let round = 0; round < 20; round++) {
      const account = makeAccount()
      const requests = [0, 1].map(() => makeEntry(account, { type: 'genesis', device: makeDevice() }))
      const results = await Promise.all(requests.map((request) => store.appendEntry(request)))
      expect(results.map((result) => (result.ok ? 'ok' : result.code)).sort()).toEqual(['log_conflict', 'ok'])
      expect(await store.appendEntry(requests[results.findIndex((result) => result.ok)]!)).toMatchObject({ ok: true, already_known: true })
    }
  })

  it('C5: the genesis of a deleted account is refused for ever', async () => {
    const account = makeAccount()
    const hash = nodeCrypto.sha256(nodeCrypto.ed25519Public(account.root_seed))
    await query('insert into deleted_account values ($1, clock_ms())', [hash])
    const request = makeEntry(account, { type: 'genesis', device: makeDevice() })
    expect(await store.appendEntry(request)).toMatchObject({ ok: false, code: 'account_gone' })
    expect(await store.appendEntry({ ...request, repair: true })).toMatchObject({ ok: false, code: 'account_gone' })
    expect(await query('select from account where user_id = $1', [Buffer.from(nodeCrypto.ed25519Public(account.root_seed))])).toEqual([])
  })

  it('an account that is not there is not found', async () => {
    const account = { ...makeAccount(), log_seq: 0, log_head: randomBytes(32), devices: [makeDevice()] }
    expect(await store.appendEntry(makeEntry(account, { type: 'rotate_keys' }))).toMatchObject({
      ok: false,
      code: 'not_found',
      log_head: null,
    })
  })

  it('is compare-and-swap on log_seq and prev_hash', async () => {
    const account = await createAccount(store)
    const late = makeEntry(account, { type: 'rotate_keys' })
    await append(store, account, { type: 'rotate_keys' })
    expect(await refused(account, late)).toBe('log_conflict')
    expect(await refused(account, makeEntry({ ...account, log_seq: account.log_seq + 1 }, { type: 'rotate_keys' }))).toBe('log_conflict')
    expect(await refused(account, makeEntry({ ...account, log_head: randomBytes(32) }, { type: 'rotate_keys' }))).toBe('log_conflict')
  })

  it('refuses what the verifier refuses, another set of boxes, and an unsafe name', async () => {
    const account = await createAccount(store, 2)
    const good = makeEntry(account, { type: 'rotate_keys' })
    const forged = { ...good, entry: { ...good.entry, sig: new Uint8Array(randomBytes(64)) } }
    expect(await refused(account, forged)).toBe('invalid_entry')
    const stranger = makeEntry(account, { type: 'rotate_keys' }, makeDevice())
    expect(await refused(account, stranger)).toBe('invalid_entry')
    const { root, ...without } = good.boxes
    expect(await refused(account, { ...good, boxes: without })).toBe('invalid_entry')
    expect(await refused(account, { ...good, boxes: { ...good.boxes, root: toBase64url(randomBytes(1168)) } })).toBe('invalid_entry')
    expect(await refused(account, { ...good, boxes: { ...good.boxes, [randomUUID()]: root! } })).toBe('invalid_entry')
    expect(await refused(account, makeEntry(account, { type: 'add_device', device: makeDevice('a\u200Bb') }))).toBe('invalid_entry')
    expect(await store.appendEntry(good)).toMatchObject({ ok: true })
  })

  it('the epoch of the account is its log_seq, and every recipient has its box', async () => {
    const account = await createAccount(store, 2)
    const request = await append(store, account, { type: 'rotate_keys' })
    for (const to of ['root', ...account.devices.map((device) => device.device_id)]) {
      const { entries, has_more } = await store.readEntries(account.user_no, to, 2, 10)
      expect(has_more).toBe(false)
      expect(entries).toHaveLength(1)
      expect(toBase64url(entries[0]!.box!)).toBe(request.boxes[to])
      expect(equalBytes(entries[0]!.body, request.entry.body) && equalBytes(entries[0]!.sig, request.entry.sig)).toBe(true)
    }
  })

  it('R01: a revocation ends device and session in the same transaction', async () => {
    const account = await createAccount(store, 2)
    const session_id = await openSession(store, account.user_no, 2)
    const { device_id } = account.devices[1]!
    const epoch = account.log_seq
    const result = await store.appendEntry(makeEntry(account, { type: 'revoke_device', revoked: [{ device_id }] }))
    expect(result).toMatchObject({ ok: true, revoked: [{ device_no: 2, device_id }] })
    expect(await query('select active, session_id from device where user_no = $1 and device_no = 2', [account.user_no])).toEqual([
      { active: false, session_id: null },
    ])
    const run = makeRun({ user_no: account.user_no, device_no: 2, session_id, epoch, first_seq: 1 }, 1)
    expect(await store.ingest([run], false)).toEqual([{ is: 'not_active' }])
  })

  it('R01: a revocation that is stored already names its devices again, so that their sessions end though the first answer was lost', async () => {
    const account = await createAccount(store, 3)
    const device_id = account.devices[1]!.device_id
    const revocation = await append(store, account, { type: 'revoke_device', revoked: [{ device_id }] })
    const revoked = [{ device_no: 2, device_id }]
    expect(await store.appendEntry(revocation)).toMatchObject({ ok: true, already_known: true, log_seq: 3, revoked })
    await append(store, account, { type: 'rotate_keys' })
    expect(await store.appendEntry(revocation)).toMatchObject({ ok: true, already_known: true, log_seq: 4, revoked })
  })

  it('heads_stale: pins below what is stored are refused; without pins a revocation always ends', async () => {
    const account = await createAccount(store, 2)
    await ingest(account, 2, 1, ['a', 'a', 'b'])
    const { device_id } = account.devices[1]!
    const heads = [{ stream_id: 'a', device_seq: 2, event_hash: toBase64url(randomBytes(32)) }]
    const pinned = (last_device_seq: number) =>
      makeEntry(account, { type: 'revoke_device', revoked: [{ device_id, last_device_seq, heads }] })
    expect(await refused(account, pinned(2))).toBe('heads_stale')
    const bare = makeEntry(account, { type: 'revoke_device', revoked: [{ device_id }] })
    const exact = pinned(3)
    expect(await store.appendEntry(exact)).toMatchObject({ ok: true })
    expect(await store.appendEntry(bare)).toMatchObject({ ok: false, code: 'log_conflict' })
    const other = await createAccount(store, 2)
    await ingest(other, 2, 1, ['a'])
    expect(
      await store.appendEntry(makeEntry(other, { type: 'revoke_device', revoked: [{ device_id: other.devices[1]!.device_id }] })),
    ).toMatchObject({ ok: true })
  })

  it('G05: names are unique per user, by what they look like; a revoked device and another user do not hold one', async () => {
    const account = makeAccount()
    await append(store, account, { type: 'genesis', device: makeDevice('Caf\u00e9') })
    const taken = (name: string) => makeEntry(account, { type: 'add_device', device: makeDevice(name) })
    expect(await refused(account, taken('CAF\u00c9'))).toBe('name_taken')
    await append(store, account, { type: 'add_device', device: makeDevice('laptop') })
    const [, laptop] = account.devices
    expect(
      await refused(account, makeEntry(account, { type: 'rename_device', rename: { device_id: laptop!.device_id, name: 'caf\u00e9' } })),
    ).toBe('name_taken')
    await append(store, account, { type: 'rename_device', rename: { device_id: laptop!.device_id, name: 'Laptop' } })
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: laptop!.device_id }] })
    await append(store, account, { type: 'add_device', device: makeDevice('LAPTOP') })
    const other = makeAccount()
    await append(store, other, { type: 'genesis', device: makeDevice('laptop') })
  })

  it('G05, G06: the database enforces unique names and the three device types by itself', async () => {
    const { user_no } = await createAccount(store, 2)
    const name = query('update device_profile set name_key = $2 where user_no = $1', [user_no, 'same'])
    await expect(name).rejects.toMatchObject({ constraint: 'device_name_taken' })
    const type = query(`update device_profile set device_type = 'fridge' where user_no = $1`, [user_no])
    await expect(type).rejects.toMatchObject({ code: '23514' })
    const account = await createAccount(store)
    const fridge = makeEntry(account, { type: 'add_device', device: makeDevice('fridge', 'fridge' as 'web') })
    expect(await refused(account, fridge)).toBe('invalid_entry')
  })

  /** As if the entry had been stored so much earlier. */
  const age = ({ user_no }: TestAccount, log_seq: number, ms: number) =>
    query('update log_entry set stored_at = stored_at - $3::int8 where user_no = $1 and log_seq = $2', [user_no, log_seq, ms])
  /** Rotations of one device until the hour is used up. */
  const exhaust = async (account: TestAccount, signer = account.devices[0]): Promise<void> => {
    while (account.log_seq < 30) await append(store, account, { type: 'rotate_keys' }, signer)
    expect(await refused(account, makeEntry(account, { type: 'rotate_keys' }, signer))).toBe('rate_limited')
  }

  it('R12: takes 30 entries of the devices of a user per hour, and says when the oldest of them is an hour old', async () => {
    const account = await createAccount(store)
    for (let i = 0; i < 30; i++) await append(store, account, { type: 'rotate_keys' })
    const next = makeEntry(account, { type: 'rotate_keys' })
    expect(await refused(account, next)).toBe('rate_limited')
    await age(account, 1, 3_000_000)
    const again = await store.appendEntry(next)
    if (again.ok) throw new Error('it was appended')
    expect(again.retry_after_ms).toBeGreaterThan(570_000)
    expect(again.retry_after_ms).toBeLessThanOrEqual(600_000)
    await age(account, 1, 600_000)
    expect(await store.appendEntry(next)).toMatchObject({ ok: true, log_seq: 31 })
  })

  it('C4: a stolen device that uses up the hour keeps nobody from revoking it, nor from revoking others beside it', async () => {
    const account = await createAccount(store, 4)
    const [, second, third, thief] = account.devices
    await exhaust(account, thief)
    expect(await refused(account, makeEntry(account, { type: 'add_device', device: makeDevice() }))).toBe('rate_limited')
    for (const { device_id } of [thief!, third!]) await append(store, account, { type: 'revoke_device', revoked: [{ device_id }] })
    // what was revoked is not counted for anything, and gives nothing back
    expect(await refused(account, makeEntry(account, { type: 'rotate_keys' }, second))).toBe('rate_limited')
    await age(account, 1, 3_600_000)
    await append(store, account, { type: 'rotate_keys' }, second)
  })

  it('C4: nor the root from coming back, whose device can add others at once', async () => {
    const account = await createAccount(store, 2)
    const [, thief] = account.devices
    await exhaust(account, thief)
    // whoever revokes first has the log, until the root comes
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[0]!.device_id }] }, thief)
    await append(store, account, { type: 'recover', device: makeDevice() })
    for (let i = 0; i < 3; i++) await append(store, account, { type: 'add_device', device: makeDevice() })
    expect(account.devices).not.toContain(thief)
  })

  it('R12: the root appends 30 entries per hour, and is counted by itself', async () => {
    const account = await createAccount(store)
    for (let i = 1; i < 30; i++) await append(store, account, { type: 'recover', device: makeDevice() })
    const next = makeEntry(account, { type: 'recover', device: makeDevice() })
    expect(await refused(account, next)).toBe('rate_limited')
    await append(store, account, { type: 'rotate_keys' })
    await age(account, 0, 3_600_000)
    await append(store, account, { type: 'recover', device: makeDevice() })
  })

  it('a repair is not counted against the rate', async () => {
    const account = await createAccount(store)
    await exhaust(account)
    const next = makeEntry(account, { type: 'rotate_keys' })
    expect(await store.appendEntry({ ...next, repair: true })).toMatchObject({ ok: true, log_seq: account.log_seq + 1 })
  })

  it('takes 20 devices', async () => {
    const account = await createAccount(store, 20)
    const next = makeEntry(account, { type: 'add_device', device: makeDevice() })
    expect(await refused(account, next)).toBe('invalid_entry')
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[7]!.device_id }] })
    await append(store, account, { type: 'add_device', device: makeDevice() })
  })

  it('recover revokes all others, and its device may take the name of one of them', async () => {
    const account = await createAccount(store, 3)
    const { name } = account.devices[0]!
    const device = makeDevice(name)
    const result = await store.appendEntry(makeEntry(account, { type: 'recover', device }))
    expect(result).toMatchObject({ ok: true, revoked: [{ device_no: 1 }, { device_no: 2 }, { device_no: 3 }] })
    expect((await store.readPresence(account.user_no)).map((row) => row.device_id)).toEqual([device.device_id])
  })

  it('repair brings back a log that the database forgot, under a running node: own box only, no pin, name or rate check', async () => {
    const account = makeAccount()
    const requests = [await append(store, account, { type: 'genesis', device: makeDevice('one') })]
    const [me] = account.devices
    requests.push(await append(store, account, { type: 'add_device', device: makeDevice('two') }))
    const { device_id } = account.devices[1]!
    const heads = [{ stream_id: 'a', device_seq: 1, event_hash: toBase64url(randomBytes(32)) }]
    requests.push(await append(store, account, { type: 'revoke_device', revoked: [{ device_id, last_device_seq: 1, heads }] }))
    requests.push(await append(store, account, { type: 'add_device', device: makeDevice('two') }))
    // the database as it was before the revocation, but with later events of the revoked device
    await query('delete from log_entry where user_no = $1 and log_seq > 1', [account.user_no])
    await query('delete from device where user_no = $1 and device_no = 3', [account.user_no])
    await query('update device set active = true, last_seq = 9 where user_no = $1', [account.user_no])
    await query(`update device_profile set revoked_log_seq = null, name_key = name where user_no = $1`, [account.user_no])
    await query(
      'update account set log_seq = 1, log_head = (select entry_hash from log_entry where user_no = $1 and log_seq = 1) where user_no = $1',
      [account.user_no],
    )
    const own = (request: (typeof requests)[number]) => ({
      ...request,
      repair: true,
      boxes: { [me!.device_id]: request.boxes[me!.device_id]! },
    })
    const results = []
    for (const request of requests) results.push(await store.appendEntry(own(request)))
    expect(results).toMatchObject([
      { ok: true, already_known: true },
      { ok: true, already_known: true },
      { ok: true, already_known: false, log_seq: 2, revoked: [{ device_id }] },
      { ok: true, already_known: false, log_seq: 3 },
    ])
    expect(await store.findDevice(account.user_id, device_id)).toMatchObject({ active: false })
    const { entries } = await store.readEntries(account.user_no, me!.device_id, 2, 10)
    expect(entries.map((entry) => entry.box !== null)).toEqual([true, true])
    const wrongBox = { ...makeEntry(account, { type: 'rotate_keys' }), repair: true, boxes: { root: toBase64url(randomBytes(1168)) } }
    expect(await store.appendEntry(wrongBox)).toMatchObject({ ok: false, code: 'invalid_entry' })
  })

  it('repair after a restore gives a name that is taken to the log, and leaves its holder the reservation', async () => {
    const account = makeAccount()
    await append(store, account, { type: 'genesis', device: makeDevice('one') })
    const request = makeEntry(account, { type: 'add_device', device: makeDevice('ONE') })
    expect(await refused(account, request)).toBe('name_taken')
    expect(await store.appendEntry({ ...request, repair: true })).toMatchObject({ ok: true })
    expect(await query('select name, name_key from device_profile where user_no = $1 order by device_no', [account.user_no])).toEqual([
      { name: 'one', name_key: 'one' },
      { name: 'ONE', name_key: null },
    ])
  })
})

describe('nameKey', () => {
  it.each([
    ['Laptop', 'laptop'],
    ['e\u0301', '\u00c9'],
    ['straße', 'STRASSE'],
    ['ΣΊΣΥΦΟΣ', 'σίσυφος'],
  ])('%s and %s are one name', (a, b) => expect(nameKey(a)).toBe(nameKey(b)))
})

describe('readEntries', () => {
  it('pages from any entry on, by number and by bytes; R03: a stranger has no boxes', async () => {
    const account = await createAccount(store, 1)
    for (let i = 0; i < 4; i++) await append(store, account, { type: 'rotate_keys' })
    const seqs = async (from: number, limit: number) => {
      const { entries, has_more } = await store.readEntries(account.user_no, 'root', from, limit)
      return [entries.map((entry) => entry.log_seq), has_more]
    }
    expect(await seqs(0, 2)).toEqual([[0, 1], true])
    expect(await seqs(2, 3)).toEqual([[2, 3, 4], false])
    expect(await seqs(4, 50)).toEqual([[4], false])
    expect(await seqs(5, 50)).toEqual([[], false])
    const { entries } = await store.readEntries(account.user_no, randomUUID(), 0, 50)
    expect(entries.map((entry) => entry.box)).toEqual([null, null, null, null, null])
    await query('update log_entry set body = $2 where user_no = $1', [account.user_no, randomBytes(60_000)])
    const cut = await store.readEntries(account.user_no, 'root', 0, 50)
    expect(cut.entries).toHaveLength(5)
    await query('update log_entry set body = $2 where user_no = $1', [account.user_no, randomBytes(65_536)])
    for (let i = 0; i < 4; i++)
      await query(
        'insert into log_entry select user_no, log_seq + 5, stored_at, body, sig, entry_hash from log_entry where user_no = $1 and log_seq = $2',
        [account.user_no, i],
      )
    await query('update account set log_seq = 8 where user_no = $1', [account.user_no])
    const bounded = await store.readEntries(account.user_no, 'root', 0, 50)
    expect(bounded.entries).toHaveLength(7)
    expect(bounded.has_more).toBe(true)
  })
})

describe('findSigner', () => {
  it('finds the root, and devices, also revoked ones', async () => {
    const account = await createAccount(store, 2)
    const { user_no, user_id, devices } = account
    const root = await store.findSigner(user_id, 'root')
    expect(root).toMatchObject({ user_no, device_no: null, active: true })
    expect(toBase64url(root!.sign_pub)).toBe(user_id)
    await append(store, account, { type: 'revoke_device', revoked: [{ device_id: devices[1]!.device_id }] })
    expect(await store.findSigner(user_id, devices[0]!.device_id)).toMatchObject({ user_no, device_no: 1, active: true })
    expect(await store.findSigner(user_id, devices[1]!.device_id)).toMatchObject({ device_no: 2, active: false })
    expect(await store.findSigner(user_id, randomUUID())).toBeNull()
    expect(await store.findSigner(makeAccount().user_id, 'root')).toBeNull()
  })
})

describe('readTips', () => {
  it('the last record of each stream of the device, as tombstones that still carry header and signature', async () => {
    const account = await createAccount(store, 2)
    const events = await ingest(account, 1, 1, ['a', 'b', 'a'])
    await ingest(account, 2, 1, ['a', 'c'])
    const tips = await store.readTips(account.user_no, account.devices[0]!.device_id)
    expect(tips).toMatchObject({ last_device_seq: 3, complete: true })
    expect(tips!.records.map((record) => [record.position, record.device_seq])).toEqual([
      [2, 2],
      [3, 3],
    ])
    for (const record of tips!.records) {
      const [decoded] = decodeRecords(encode(record))
      const original = decodeRecords(encode(events[record.position - 1]!))[0]!
      expect(equalBytes(decoded!.payload_hash!, nodeCrypto.sha256(original.payload!))).toBe(true)
      expect(equalBytes(decoded!.sig, original.sig)).toBe(true)
    }
  })

  it('tips keep their hash whatever the payload and the labels, also those that retention made tombstones of', async () => {
    const { user_no, log_seq: epoch, devices } = await createAccount(store)
    const session_id = await openSession(store, user_no, 1)
    const events = [
      { stream_id: 'x'.repeat(64), ttl: 600, payload: new Uint8Array(0) },
      { stream_id: 'y', payload: randomBytes(LIMITS.payloadBytesMax) },
      { stream_id: 'z'.repeat(64), payload: randomBytes(5) },
    ]
    const [verdict] = await store.ingest([makeRun({ user_no, device_no: 1, session_id, epoch, first_seq: 1 }, events)], true)
    if (verdict?.is !== 'stored') throw new Error(verdict?.is)
    const expected = await Promise.all(
      verdict.events.map(async (event) => ({ ...event, ...(await toTombstone(nodeCrypto, event.flags, event.client)) })),
    )
    const swept = expected[2]!
    await query('update event set record = $2, flags = $3 where user_no = $1 and position = 3', [user_no, swept.client, swept.flags])
    const tips = await store.readTips(user_no, devices[0]!.device_id)
    expect(tips).toMatchObject({ last_device_seq: 3, complete: true })
    const plain = (event: StoredEvent) => ({ ...event, client: toBase64url(event.client) })
    expect(tips!.records.map(plain)).toEqual(expected.map(plain))
  })

  it('R03: none for a device without events, null for no device; not complete above 300 streams', async () => {
    const account = await createAccount(store, 2)
    expect(await store.readTips(account.user_no, account.devices[1]!.device_id)).toEqual({
      last_device_seq: 0,
      complete: true,
      records: [],
    })
    expect(await store.readTips(account.user_no, randomUUID())).toBeNull()
    const streams = Array.from({ length: 301 }, (_, i) => `s${i}`)
    await ingest(account, 1, 1, streams.slice(0, 300))
    expect(await store.readTips(account.user_no, account.devices[0]!.device_id)).toMatchObject({ complete: true })
    await ingest(account, 1, 301, streams.slice(300))
    const tips = await store.readTips(account.user_no, account.devices[0]!.device_id)
    expect(tips).toMatchObject({ last_device_seq: 301, complete: false })
    expect(tips!.records).toHaveLength(300)
  })
})

function encode({ flags, client, ...server }: StoredEvent): Bytes {
  const out = new Uint8Array(29 + client.length)
  writeRecord(out, 0, flags, client, server)
  return out
}

// keeps the helper honest: what it builds is what the protocol's decoder reads
it('test events are records', () => {
  const { flags, client } = makeEvent(1, { ttl: 5 })
  expect(
    decodeRecords(encode({ flags, client, position: 1, stream_seq: 1, received_at: 1, device_no: 1, device_seq: 1, stream_no: 1 })),
  ).toHaveLength(1)
})
