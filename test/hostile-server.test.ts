import {
  activeDevices,
  buildEntry,
  createDeviceKeys,
  deriveRootKeys,
  type DeviceLog,
  type EventRecord,
  fromBase64url,
  introduceDevice,
  type LogEntry,
  openEpochKey,
  previousEpochKey,
  receivePage,
  toBase64url,
  toTombstone,
  verifyLog,
  wordsToRecoverySeed,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { randomBytes } from 'node:crypto'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, test } from 'vitest'
import { hear, listen, recordOf, say, type Seat, until, useRelayWorld } from '@sealpost/testing/relays/hostile-relay'

const world = useRelayWorld()

const userOf = (seat: Seat): Buffer => Buffer.from(fromBase64url(seat.device.user_id, 32))

/** Laptop and phone; the phone has had event 1 ("zero") and is away while a, b, c, d (numbers 2 to 5) and one in another stream follow. */
async function awayPhone(
  others: readonly string[] = [],
): Promise<{ laptop: Seat; phone: Seat; rest: Seat[]; user_id: string; user: Buffer }> {
  const laptop = await world.create('laptop')
  const rest: Seat[] = []
  for (const name of others) rest.push(await world.pair(laptop, name))
  const phone = await world.pair(laptop, 'phone')
  await say(laptop, 'notes', 'zero')
  expect(await hear(phone, 'notes', 'zero')).toEqual(['zero'])
  await phone.close()
  await say(laptop, 'notes', 'a', 'b', 'c', 'd')
  await say(laptop, 'other', 'fine')
  return { laptop, phone, rest, user_id: laptop.device.user_id, user: userOf(laptop) }
}

const B = 3
const user_no = '(select user_no from account where user_id = $1)'

describe('B01 G14 a server that changes what it stores', () => {
  type Change = (record: EventRecord) => EventRecord
  const flip = (bytes: Uint8Array, at: number): Uint8Array => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte))
  const changes: [string, Change][] = [
    ['a byte of the ciphertext', (record) => ({ ...record, payload: flip(record.payload!, 40) })],
    ['a byte of the iv', (record) => ({ ...record, payload: flip(record.payload!, 0) })],
    ['a payload cut off', (record) => ({ ...record, payload: record.payload!.subarray(0, 20) })],
    ['the type', (record) => ({ ...record, type: 'zzz' })],
    ['a ttl put on', (record) => ({ ...record, ttl: 3_600 })],
    ['the epoch', (record) => ({ ...record, epoch: 0 })],
    ['the event_id', (record) => ({ ...record, event_id: record.event_id.replace(/.$/, (digit) => (digit === '0' ? '1' : '0')) })],
    ['the link to the event before', (record) => ({ ...record, prev_hash: null })],
    ['a tombstone over another payload', (record) => ({ ...record, payload: null, payload_hash: new Uint8Array(32) })],
  ]
  test.each(changes)('%s: alarm, the event is not handed over, the rest of the chain and the other chains are', async (_, change) => {
    const { phone, user_id } = await awayPhone()
    await world.tamper(user_id, B, change)
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', 'alarm invalid_signature', `gap unexplained from ${B}`, 'c', 'd'])
    expect(await hear(phone, 'other', 'fine')).toEqual(['fine'])
    expect((await phone.device.status()).alarms).toBe(2)
    // a reader from the beginning is told the same
    expect(await hear(phone, 'notes', 'd', 'start')).toEqual([
      'zero',
      'a',
      'alarm invalid_signature',
      `gap unexplained from ${B}`,
      'c',
      'd',
    ])
  })

  test('a number of the device: alarm, and the gap behind it', async () => {
    const { phone, user_id } = await awayPhone()
    await world.tamper(user_id, B, (record) => ({ ...record, device_seq: 77 }))
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', 'alarm invalid_signature', `gap unexplained from ${B}`, 'c', 'd'])
  })

  test('an event that was really there as a tombstone: told as removed, never as if nothing had been', async () => {
    const { phone, user } = await awayPhone()
    const [row] = await world.sql<{ flags: number; record: Buffer }>(
      `select flags, record from event where user_no = ${user_no} and position = ${B}`,
      [user],
    )
    const tombstone = await toTombstone(nodeCrypto, row!.flags, row!.record)
    await world.sql(`update event set flags = $2, record = $3 where user_no = ${user_no} and position = ${B}`, [
      user,
      tombstone.flags,
      Buffer.from(tombstone.client),
    ])
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', `gap retention from ${B}`, 'c', 'd'])
  })

  test('an event of one device as another one’s, also as the reader’s own: alarm', async () => {
    const { laptop, phone, rest, user_id } = await awayPhone(['tablet'])
    await world.tamper(user_id, B, (record) => ({ ...record, device_id: rest[0]!.device.device_id }))
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', 'alarm invalid_signature', `gap unexplained from ${B}`, 'c', 'd'])
    await world.tamper(user_id, B, (record) => ({ ...record, device_id: phone.device.device_id }))
    expect(await hear(phone, 'notes', 'd', 'start')).toEqual([
      'zero',
      'a',
      'alarm invalid_signature',
      `gap unexplained from ${B}`,
      'c',
      'd',
    ])
    await say(phone, 'notes', 'mine')
    expect(await hear(laptop, 'notes', 'mine')).toEqual(['mine'])
  })

  test('an event of another account: alarm', async () => {
    const stranger = await world.create('stranger')
    await say(stranger, 'notes', 'from a stranger')
    const { phone, user } = await awayPhone()
    await world.sql(
      `update event set (flags, record) = (select s.flags, s.record from event s join account a using (user_no) where a.user_id = $2 and s.position = 1)
        where user_no = ${user_no} and position = ${B}`,
      [user, userOf(stranger)],
    )
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', 'alarm unknown_device', `gap unexplained from ${B}`, 'c', 'd'])
  })
})

describe('B03 G14 a server that leaves out, repeats or reorders', () => {
  test('an event taken out, all numbers of the server made contiguous again: gap with an alarm', async () => {
    const { laptop, phone, user } = await awayPhone()
    await laptop.close()
    await world.sql(`delete from event where user_no = ${user_no} and position = ${B}`, [user])
    for (const position of [4, 5, 6])
      await world.sql(
        `update event set position = position - 1, stream_seq = stream_seq - 1 where user_no = ${user_no} and position = $2`,
        [user, position],
      )
    await world.sql(`update head set last = last - 1 where user_no = ${user_no} and stream_no in (0, 1)`, [user])
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', `gap unexplained from ${B}`, 'c', 'd'])
    expect(await hear(phone, 'other', 'fine')).toEqual(['fine'])
    expect((await phone.device.status()).alarms).toBe(1)
    expect(await hear(phone, 'notes', 'd', 'start')).toEqual(['zero', 'a', `gap unexplained from ${B}`, 'c', 'd'])
  })

  test('a claim that retention removed it: told as a gap all the same', async () => {
    const { phone, user } = await awayPhone()
    await world.sql(`delete from event where user_no = ${user_no} and position <= ${B}`, [user])
    await world.sql(`update account set floor = ${B} where user_id = $1`, [user])
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['gap retention from 2', 'c', 'd'])
  })

  test('the last events kept back: the next event of the device shows it', async () => {
    const { laptop, phone, user } = await awayPhone()
    await world.sql(`update event set position = 100 where user_no = ${user_no} and position = 5`, [user])
    await world.sql(`update event set position = 5 where user_no = ${user_no} and position = 6`, [user])
    await world.sql(`delete from event where user_no = ${user_no} and position = 100`, [user])
    await world.sql(`update head set last = 5 where user_no = ${user_no} and stream_no = 0`, [user])
    await phone.open()
    expect(await hear(phone, 'notes', 'c')).toEqual(['a', 'b', 'c'])
    await laptop.close()
    await laptop.open()
    await say(laptop, 'notes', 'e')
    expect(await hear(phone, 'notes', 'e')).toEqual(['gap unexplained from 5', 'e'])
  })

  test('two events in each other’s place: never out of order', async () => {
    const { phone, user } = await awayPhone()
    for (const [from, to] of [
      [3, 100],
      [4, 3],
      [100, 4],
    ])
      await world.sql(`update event set position = $3 where user_no = ${user_no} and position = $2`, [user, from, to])
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', `gap unexplained from ${B}`, 'c', 'alarm sequence_not_rising', 'd'])
    expect(await hear(phone, 'other', 'fine')).toEqual(['fine'])
  })

  test('an event again at a new position: alarm, handed over once', async () => {
    const { laptop, phone, user } = await awayPhone()
    await world.sql('alter table event drop constraint if exists event_user_no_device_no_device_seq_key')
    await world.sql(
      `insert into event select user_no, 7, stream_seq + 3, device_seq, received_at, stream_no, device_no, expires_at, flags, record
         from event where user_no = ${user_no} and position = ${B}`,
      [user],
    )
    await world.sql(`update head set last = 7 where user_no = ${user_no} and stream_no = 0`, [user])
    await say(laptop, 'notes', 'e')
    await phone.open()
    expect(await hear(phone, 'notes', 'e')).toEqual(['a', 'b', 'c', 'd', 'alarm sequence_not_rising', 'e'])
    expect(await hear(phone, 'notes', 'e', 'start')).toEqual(['zero', 'a', 'b', 'c', 'd', 'alarm sequence_not_rising', 'e'])
  })

  test('an event in another stream: alarm there, gap where it belongs', async () => {
    const { phone, user_id } = await awayPhone()
    await world.tamper(user_id, B, (record) => ({ ...record, stream_id: 'other' }))
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', `gap unexplained from ${B}`, 'c', 'd'])
    expect(await hear(phone, 'other', 'fine')).toEqual(['alarm invalid_signature', 'fine'])
  })

  test('an event among those of another stream when that one is read: refused as a whole', async () => {
    const { phone, user } = await awayPhone()
    await world.sql(`update event set stream_no = 2 where user_no = ${user_no} and position = ${B}`, [user])
    await phone.open()
    expect(await hear(phone, 'notes', 'd')).toEqual(['a', 'b', 'c', 'd'])
    await expect(hear(phone, 'other', 'fine', 'start')).rejects.toMatchObject({ code: 'invalid_message' })
  })

  test('an epoch that the device log does not know: nothing of it and behind it is handed over, and the device does not say it is up to date', async () => {
    const { phone, user_id } = await awayPhone()
    await world.tamper(user_id, B, (record) => ({ ...record, epoch: 9 }))
    await phone.open()
    await until(() => phone.notices.some((notice) => notice.is === 'state' && notice.state === 'offline'))
    expect((await listen(phone, 'notes', 300)).filter((text) => text !== 'a')).toEqual([])
    expect((await phone.device.status()).position).toBeLessThan(B)
    expect(phone.notices).not.toContainEqual({ is: 'state', state: 'live' })
  })
})

type StoredEntry = { log_seq: string; body: Buffer; sig: Buffer; entry_hash: Buffer }

async function storedLog(user: Buffer): Promise<{ log: DeviceLog; entries: StoredEntry[] }> {
  const entries = await world.sql<StoredEntry>(`select * from log_entry where user_no = ${user_no} order by log_seq`, [user])
  const verified = await verifyLog(nodeCrypto, toBase64url(user), entries satisfies LogEntry[])
  if (!verified.ok) throw new Error(verified.reason)
  return { log: verified.log, entries }
}

/** The operator forgets the newest entry of the account's log, and what it meant. */
async function forgetNewestEntry(user: Buffer): Promise<StoredEntry> {
  const { entries } = await storedLog(user)
  const newest = entries.at(-1)!
  await world.sql(`delete from log_entry where user_no = ${user_no} and log_seq = $2`, [user, newest.log_seq])
  await world.sql('update account set log_seq = $2, log_head = $3 where user_id = $1', [
    user,
    Number(newest.log_seq) - 1,
    entries.at(-2)!.entry_hash,
  ])
  await world.sql(
    `delete from device d using device_profile p
      where d.user_no = ${user_no} and p.user_no = d.user_no and p.device_no = d.device_no and p.added_log_seq = $2`,
    [user, newest.log_seq],
  )
  await world.sql(`update device_profile set revoked_log_seq = null where user_no = ${user_no} and revoked_log_seq = $2`, [
    user,
    newest.log_seq,
  ])
  await world.sql(
    `update device d set active = true from device_profile p
      where d.user_no = ${user_no} and p.user_no = d.user_no and p.device_no = d.device_no and p.revoked_log_seq is null`,
    [user],
  )
  return newest
}

describe('B02 G14 a server that lies about the device list', () => {
  test('a ghost device: its entry does not verify, the device stops and says so, nothing is sealed for it', async () => {
    const { laptop, phone, user, user_id } = await awayPhone()
    const { log } = await storedLog(user)
    const ghost = await createDeviceKeys(nodeCrypto)
    const device = await introduceDevice(nodeCrypto, user_id, ghost, 'ghost', 'desktop')
    // signed with a key that the operator has, in the name of the laptop
    const signer = { id: laptop.device.device_id, seed: ghost.sign_seed }
    const trusting = new Map(log.devices).set(signer.id, { ...log.devices.get(signer.id)!, sign_pub: ghost.sign_pub })
    const change = { type: 'add_device', device } as const
    const old_key = nodeCrypto.random(32)
    const forged = await buildEntry(nodeCrypto, { ...log, devices: trusting }, user_id, signer, change, old_key, Date.now())
    await laptop.close()
    await world.sql(`insert into log_entry (user_no, log_seq, stored_at, body, sig, entry_hash) values (${user_no}, $2, 0, $3, $4, $5)`, [
      user,
      forged.log_seq,
      Buffer.from(forged.entry.body),
      Buffer.from(forged.entry.sig),
      Buffer.from(forged.entry_hash),
    ])
    await world.sql('update account set log_seq = $2, log_head = $3 where user_id = $1', [
      user,
      forged.log_seq,
      Buffer.from(forged.entry_hash),
    ])
    await phone.open()
    await until(() => phone.device.failure !== null)
    expect(phone.device.failure?.code).toBe('invalid_entry')
    expect((await phone.device.devices()).map((known) => known.name)).toEqual(['laptop', 'phone'])
    await expect(phone.device.stream('notes').send(new Uint8Array(1))).rejects.toMatchObject({ code: 'invalid_entry' })
    expect((await phone.device.status()).outbox.pending).toBe(1)
    const rows = await world.sql<{ n: string }>(`select count(*) as n from event where user_no = ${user_no}`, [user])
    expect(rows).toEqual([{ n: '6' }])
  })

  test('an entry kept back: events of its epoch are held, nothing of them is handed over until it comes', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    await say(laptop, 'notes', 'before')
    expect(await hear(phone, 'notes', 'before')).toEqual(['before'])
    await phone.close()
    const tablet = await world.pair(laptop, 'tablet')
    await say(tablet, 'notes', 'from the tablet')
    const user = userOf(laptop)
    await tablet.close()
    await laptop.close()
    await forgetNewestEntry(user)
    await phone.open()
    await until(() => phone.notices.some((notice) => notice.is === 'state' && notice.state === 'offline'))
    expect(await listen(phone, 'notes', 300)).toEqual([])
    // the first device that knows the entry brings it back
    await laptop.open()
    expect(await hear(phone, 'notes', 'from the tablet')).toEqual(['from the tablet'])
    expect((await phone.device.devices()).map((device) => device.name)).toEqual(['laptop', 'phone', 'tablet'])
  })

  test('the key of an epoch kept back from one device: each of its events is an alarm, none is passed over', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    await say(laptop, 'notes', 'before')
    expect(await hear(phone, 'notes', 'before')).toEqual(['before'])
    await phone.close()
    await world.pair(laptop, 'tablet')
    await say(laptop, 'notes', 'closed')
    const user = userOf(laptop)
    await world.sql(`delete from log_box where user_no = ${user_no} and log_seq = 2`, [user])
    await phone.open()
    expect(await hear(phone, 'notes', 'alarm epoch_unreadable')).toEqual(['alarm epoch_unreadable'])
    expect((await phone.device.status()).alarms).toBe(1)
    expect(await hear(phone, 'notes', 'alarm epoch_unreadable', 'start')).toEqual(['before', 'alarm epoch_unreadable'])
    // by then the phone has renewed the key
    await say(laptop, 'notes', 'open again')
    expect(await hear(phone, 'notes', 'open again')).toEqual(['open again'])
  })

  test('a revocation hidden from one device: what the others send stays closed, and one who knows it brings it back', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const tablet = await world.pair(laptop, 'tablet')
    const tablet_id = tablet.device.device_id
    await say(tablet, 'notes', 'while trusted')
    expect(await hear(phone, 'notes', 'while trusted')).toEqual(['while trusted'])
    await tablet.close()
    await phone.close()
    await laptop.device.revoke(tablet_id)
    await say(laptop, 'notes', 'after')
    const user = userOf(laptop)
    await laptop.close()
    await forgetNewestEntry(user)

    await tablet.open()
    await say(tablet, 'notes', 'after the revocation')
    await phone.open()
    await until(() => phone.notices.some((notice) => notice.is === 'state' && notice.state === 'offline'))
    expect(await listen(phone, 'notes', 300)).not.toContain('after')

    await laptop.open()
    await until(() => tablet.device.failure !== null)
    expect(tablet.device.failure?.code).toBe('device_revoked')
    await say(laptop, 'notes', 'end')
    const heard = await hear(phone, 'notes', 'end')
    expect(heard).toContain('after')
    expect(heard).not.toContain('after the revocation')
    expect(heard.some((text) => /^alarm (outside_pins|inactive_device)$/.test(text))).toBe(true)
    const devices = await phone.device.devices()
    expect(devices.find((device) => device.device_id === tablet_id)?.revoked).toMatchObject({ by_name: 'laptop' })
  })

  test('two histories of the device list: who saw one stops at the other and sends nothing more', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const tablet = await world.pair(laptop, 'tablet')
    const tablet_id = tablet.device.device_id
    await Promise.all([laptop.close(), phone.close(), tablet.close()])
    const first = world.database_url
    const second = await world.backUp()
    await laptop.open()
    await laptop.device.revoke(tablet_id)
    await laptop.close()
    await world.swapTo(second)
    await phone.open()
    await phone.device.revoke(tablet_id)
    await phone.close()
    await world.swapTo(first)
    await phone.open()
    await until(() => phone.device.failure !== null)
    expect(phone.device.failure?.code).toBe('log_fork')
    await expect(phone.device.stream('notes').send(new Uint8Array(1))).rejects.toMatchObject({ code: 'log_fork' })
    await laptop.open()
    await say(laptop, 'notes', 'still here')
    expect(activeDevices((await storedLog(userOf(laptop))).log).length).toBe(2)
    const rows = await world.sql<{ n: string }>(`select count(*) as n from event where user_no = ${user_no}`, [userOf(laptop)])
    expect(rows).toEqual([{ n: '1' }])
  })
})

/** Everything the database holds, as bytes in one string: text as it is, binary columns byte by byte. */
async function dumpDatabase(): Promise<string> {
  const tables = await world.sql<{ name: string }>(
    "select quote_ident(tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema') order by 1",
  )
  const parts: string[] = []
  for (const { name } of tables)
    for (const row of await world.sql(`select * from ${name}`))
      for (const value of Object.values(row))
        parts.push(value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : String(value))
  return parts.join('\n')
}

type Secrets = { sign_seed: Uint8Array; kem_seed: Uint8Array; epoch_keys: Map<number, Uint8Array> }

/** The private keys of a home that is closed. */
function secretsOf(dir: string): Secrets {
  const db = new DatabaseSync(join(dir, 'sealpost.sqlite'))
  try {
    const keys = db.prepare('select sign_seed, kem_seed from identity').get() as { sign_seed: Uint8Array; kem_seed: Uint8Array }
    const rows = db.prepare('select log_seq, epoch_key from log where epoch_key is not null').all()
    return { ...keys, epoch_keys: new Map(rows.map((row) => [Number(row['log_seq']), row['epoch_key'] as Uint8Array])) }
  } finally {
    db.close()
  }
}

describe('R10 what the server has of what it carries', () => {
  test('neither database nor log holds a plaintext or a private key, whatever was done', async () => {
    const canary = `canary-${randomBytes(16).toString('hex')}`
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const tablet = await world.pair(laptop, 'tablet')
    await say(laptop, 'notes', canary, `${canary} ${'x'.repeat(5_000)}`)
    await say(phone, 'notes', `${canary} back`)
    expect(await hear(phone, 'notes', `${canary} ${'x'.repeat(5_000)}`)).toHaveLength(2)
    await tablet.close()
    const tablet_keys = secretsOf(tablet.dir)
    await laptop.device.revoke(tablet.id)
    await say(laptop, 'notes', `${canary} after`)
    await laptop.close()
    await phone.close()

    const root = await deriveRootKeys(nodeCrypto, await wordsToRecoverySeed(laptop.recovery_words))
    const devices = [secretsOf(laptop.dir), secretsOf(phone.dir), tablet_keys]
    const secrets = [
      Buffer.from(canary),
      Buffer.from(laptop.recovery_words.slice(0, 40)),
      await wordsToRecoverySeed(laptop.recovery_words),
      root.sign_seed,
      root.kem_seed,
      ...devices.flatMap((device) => [device.sign_seed, device.kem_seed, ...device.epoch_keys.values()]),
    ]
    expect(secrets.length).toBeGreaterThanOrEqual(5 + 6 + 6)
    const database = await dumpDatabase()
    const log = world.log()
    // what the search does find
    expect(database).toContain('tablet')
    expect(database).toContain(Buffer.from(fromBase64url(root.user_id, 32)).toString('latin1'))
    expect(log).toContain('/api/log')
    for (const place of [database, log])
      for (const secret of secrets)
        for (const form of ['latin1', 'hex', 'base64', 'base64url'] as const)
          expect(place.includes(Buffer.from(secret).toString(form).replace(/=+$/, ''))).toBe(false)
  })

  test('R09 a revoked device opens nothing sent after, even with all that the server stores', async () => {
    const laptop = await world.create('laptop')
    const phone = await world.pair(laptop, 'phone')
    const tablet = await world.pair(laptop, 'tablet')
    await say(laptop, 'notes', 'before')
    expect(await hear(tablet, 'notes', 'before')).toEqual(['before'])
    await tablet.close()
    // it keeps its keys: a copy that never hears of the revocation
    const kept = join(world.folder, 'kept')
    await cp(tablet.dir, kept, { recursive: true })
    await laptop.device.revoke(tablet.id)
    await say(laptop, 'notes', 'after')
    expect(await hear(phone, 'notes', 'after')).toEqual(['before', 'after'])
    const user = userOf(laptop)
    await laptop.close()
    await phone.close()

    const { log } = await storedLog(user)
    const boxes = await world.sql<{ log_seq: string; box: Buffer }>(`select log_seq, box from log_box where user_no = ${user_no}`, [user])
    const stored = await world.sql<{ flags: number; record: Buffer; position: string; stream_seq: string }>(
      `select * from event where user_no = ${user_no} order by position`,
      [user],
    )
    const records = stored.map(({ flags, record, position, stream_seq }) => ({
      ...recordOf(flags, record),
      server: { position: Number(position), stream_seq: Number(stream_seq), received_at: 0 },
    }))

    /** All epoch keys that a device comes to with every box on the server, tried as every recipient, and all it had before. */
    async function keysOf(dir: string): Promise<Map<number, Uint8Array>> {
      const { kem_seed, epoch_keys } = secretsOf(dir)
      for (const { log_seq, box } of boxes)
        for (const to of ['root', ...log.devices.keys()]) {
          const key = await openEpochKey(nodeCrypto, log, Number(log_seq), to, kem_seed, box).catch(() => null)
          if (key !== null) epoch_keys.set(Number(log_seq), key)
        }
      for (const log_seq of [...epoch_keys.keys()].toSorted((a, b) => b - a))
        for (let n = log_seq; n > 0; n--) {
          const key = await previousEpochKey(nodeCrypto, log, n, epoch_keys.get(n)!).catch(() => null)
          if (key === null) break
          epoch_keys.set(n - 1, key)
        }
      return epoch_keys
    }

    async function opened(keys: Map<number, Uint8Array>): Promise<string[]> {
      const heard = new Set<string>()
      // each event also with the keys of all other epochs
      for (const shift of log.epochs.keys()) {
        const epoch_key = (epoch: number): Uint8Array | null => keys.get((epoch + shift) % log.epochs.length) ?? null
        const context = { user_id: log.user_id, log, epoch_key, floor: 0, now_ms: 0 }
        for (const item of (await receivePage(nodeCrypto, context, new Map(), records)).items)
          if (item.is === 'event') heard.add(new TextDecoder().decode(item.data))
      }
      return [...heard].toSorted()
    }
    expect(await opened(await keysOf(phone.dir))).toEqual(['after', 'before'])
    expect(await opened(await keysOf(kept))).toEqual(['before'])

    // and it learns nothing more by asking
    await cp(kept, tablet.dir, { recursive: true, force: true })
    await tablet.open()
    await until(() => tablet.device.failure !== null)
    expect(tablet.device.failure?.code).toBe('device_revoked')
    expect(await listen(tablet, 'notes', 300).catch((error: { code: string }) => error.code)).toBe('device_revoked')
  })
})
