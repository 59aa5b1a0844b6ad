import { chmod, mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { DeviceStore, Identity, ReceivedItem } from '../ports.ts'
import { describeStoreContract } from '@sealpost/testing/contracts/store-contract'
import { openDeviceStore } from './device-store.ts'
import { APPLICATION_ID, STATE_SCHEMA } from './state-schema.ts'

describeStoreContract('SQLite', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sealpost-store-'))
  const path = join(folder, 'sealpost.sqlite')
  let store = openDeviceStore(path)
  return {
    store,
    async reopen() {
      await store.close()
      store = openDeviceStore(path)
      return store
    },
    async dispose() {
      await store.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
})

const SECRET = new Uint8Array(32).fill(0xa5)
const PLAIN = new TextEncoder().encode('a plaintext that must not stay on the disk')
const identity: Identity = {
  user_id: 'u',
  device_id: '00000000-0000-4000-8000-000000000001',
  name: 'laptop',
  device_type: 'desktop',
  server_url: 'https://relay.example',
  server_key: new Uint8Array(32).fill(1),
  sign_seed: SECRET,
  kem_seed: SECRET,
  created_at: 1,
}

function event(position: number): ReceivedItem {
  return {
    is: 'event',
    position,
    stream_id: 'main',
    stream_seq: position,
    event_id: `00000000-0000-7000-8000-${String(position).padStart(12, '0')}`,
    type: 'app',
    device_id: identity.device_id,
    received_at: 1,
    ttl: null,
    data: PLAIN,
  }
}

describe('the file of a device', () => {
  let folder: string
  let path: string
  let stores: DeviceStore[]
  const openStore = (): DeviceStore => {
    const store = openDeviceStore(path)
    stores.push(store)
    return store
  }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealpost-store-'))
    path = join(folder, 'sealpost.sqlite')
    stores = []
  })
  afterEach(async () => {
    for (const store of stores) await store.close()
    await rm(folder, { recursive: true, force: true })
  })

  test('a wipe that was cut short behind its transaction is ended at the next opening', async () => {
    const store = openDeviceStore(path)
    await store.createIdentity(identity, [])
    await store.close()
    const half = new DatabaseSync(path)
    half.exec(
      `pragma secure_delete = off; begin; delete from identity; insert into revocation (one, revocation) values (1, '{}'); commit; pragma wal_checkpoint(truncate)`,
    )
    half.close()
    expect((await readFile(path)).includes(Buffer.from(SECRET))).toBe(true)
    await openDeviceStore(path).close()
    expect((await readFile(path)).includes(Buffer.from(SECRET))).toBe(false)
  })

  test('is WAL with synchronous FULL for what must survive a power cut', async () => {
    const store = openStore()
    await store.createIdentity(identity, [])
    const db = new DatabaseSync(path, { readOnly: true })
    expect(db.prepare('pragma journal_mode').get()).toEqual({ journal_mode: 'wal' })
    db.close()
  })

  test('20,000 events are stored in less than a second of CPU', async () => {
    const store = openStore()
    const began = process.cpuUsage()
    for (let page = 0; page < 20; page++) {
      const items = Array.from({ length: 1_000 }, (_, i) => event(page * 1_000 + i + 1))
      await store.commitReceived({ items, heads: [], acks: [], alarms: [] })
    }
    const { user, system } = process.cpuUsage(began)
    // some 100 ms alone; the rest is for cores that others use too
    expect((user + system) / 1_000).toBeLessThan(1_000)
    expect((await store.readReceivedEdges()).last_row).toBe(20_000)
  })

  test('what one process has written another one reads at once', async () => {
    const one = openStore()
    const other = openStore()
    await one.createIdentity(identity, [])
    expect(await other.readIdentity()).toEqual(identity)
    await other.saveConsumer('c', 'main', { done_row: 3, done_position: 4, handed_row: 5 })
    expect(await one.readConsumer('c', 'main')).toEqual({ done_row: 3, done_position: 4, handed_row: 5 })
  })

  test('after a wipe no key and no plaintext is in any of its files', async () => {
    const store = openStore()
    await store.createIdentity(identity, [
      {
        log_seq: 0,
        entry_hash: SECRET.slice(0, 1),
        body: PLAIN.slice(0, 1),
        sig: new Uint8Array(1),
        box: SECRET,
        epoch_key: SECRET,
        first_seen: 1,
      },
    ])
    const item = { stream_id: 'main', type: 'app', ttl: null, data: PLAIN, queued_at: 1 }
    await store.enqueue([
      { ...item, event_id: 'e' },
      { ...item, event_id: 'aside' },
    ])
    await store.setAsideItems([{ item_no: 2, code: 'event_expired' }])
    await store.commitReceived({ items: [event(1)], heads: [], acks: [], alarms: [] })
    await store.wipe({ user_id: 'u', device_id: identity.device_id, by: 'd', by_name: 'phone', at: 1, log_seq: 1 })
    for (const name of [path, `${path}-wal`]) {
      const bytes = await readFile(name)
      expect(bytes.includes(Buffer.from(SECRET))).toBe(false)
      expect(bytes.includes(Buffer.from(PLAIN))).toBe(false)
    }
    expect(await store.readIdentity()).toBeNull()
    expect(await store.readOutcomes(['e', 'aside'])).toMatchObject([
      { event_id: 'e', state: 'rejected', code: 'device_revoked' },
      { event_id: 'aside', state: 'rejected', code: 'device_revoked' },
    ])
    expect(await store.countOutbox()).toMatchObject({ pending: 0, set_aside: 0 })
  })

  test('of an older version is brought up to date and keeps what it holds', async () => {
    const db = new DatabaseSync(path)
    db.exec(`${STATE_SCHEMA} pragma application_id = ${APPLICATION_ID}; pragma user_version = 1;`)
    db.exec("insert into outbox (event_id, stream_id, type, queued_at, data) values ('waits', 'main', 'app', 1, x'01')")
    db.exec(
      "insert into outbox (event_id, state, stream_id, type, queued_at, code) values ('refused', 2, 'main', 'app', 1, 'event_expired')",
    )
    db.close()
    const [store] = [openStore(), openStore()]
    expect(await store.readPending(0, 9, 9)).toMatchObject([{ event_id: 'waits', sealed: null }])
    expect(await store.readOutcomes(['refused'])).toMatchObject([{ state: 'rejected', code: 'event_expired' }])
    await store.setAsideItems([{ item_no: 1, code: 'invalid_event' }])
    expect(await store.countOutbox()).toMatchObject({ pending: 0, set_aside: 1, rejected: 1 })
  })

  test('of a newer version is refused and not touched', async () => {
    await openStore().close()
    const db = new DatabaseSync(path)
    db.exec('pragma user_version = 1000')
    db.close()
    expect(openStore).toThrow(expect.objectContaining({ code: 'state_newer' }))
  })

  test('that is no database, or another one, is damaged and not touched', async () => {
    await writeFile(path, 'these are not the bytes of a database, and there are many of them'.repeat(100))
    const before = await readFile(path)
    expect(openStore).toThrow(expect.objectContaining({ code: 'state_damaged' }))
    expect(await readFile(path)).toEqual(before)
    await rm(path)
    const db = new DatabaseSync(path)
    db.exec('create table something (a)')
    db.close()
    expect(openStore).toThrow(expect.objectContaining({ code: 'state_damaged' }))
  })

  test.each([0.3, 0.6, 0.9])('cut off at %d of its length is damaged, when opened or when read', async (part) => {
    const store = openStore()
    await store.createIdentity(identity, [])
    await store.commitReceived({ items: Array.from({ length: 500 }, (_, i) => event(i + 1)), heads: [], acks: [], alarms: [] })
    await store.close()
    const { size } = await (await open(path)).stat()
    await truncate(path, Math.floor(size * part))
    const read = async (): Promise<void> => {
      const cut = openStore()
      await cut.readIdentity()
      await cut.readReceived('main', 0, 1_000, 1e9)
    }
    await expect(read()).rejects.toMatchObject({ code: 'state_damaged' })
  })

  test('a page of noise inside is damaged, and says what to do', async () => {
    const store = openStore()
    await store.createIdentity(identity, [])
    await store.commitReceived({ items: Array.from({ length: 500 }, (_, i) => event(i + 1)), heads: [], acks: [], alarms: [] })
    await store.close()
    const file = await open(path, 'r+')
    const { size } = await file.stat()
    for (let at = 8_192; at < size; at += 4_096) await file.write(Buffer.alloc(4_096, 0xee), 0, 4_096, at)
    await file.close()
    const read = async (): Promise<void> => {
      const bad = openStore()
      await bad.readIdentity()
      await bad.readReceived('main', 0, 1_000, 1e9)
    }
    await expect(read()).rejects.toMatchObject({ code: 'state_damaged', hint: expect.stringMatching(/backup|pair/) })
  })

  test.skipIf(process.getuid?.() === 0)('that cannot be written is a fault of the disk', async () => {
    await openStore().close()
    await chmod(path, 0o400)
    expect(openStore).toThrow(expect.objectContaining({ code: 'disk' }))
  })

  test('in a folder that is gone is a fault of the disk', async () => {
    await rm(folder, { recursive: true })
    expect(openStore).toThrow(expect.objectContaining({ code: 'disk' }))
  })
})
