import {
  buildEntry,
  createDeviceKeys,
  type DeviceKeys,
  deriveRootKeys,
  encodeWireEntry,
  introduceDevice,
  type LogChange,
  type NewEntry,
  toHex,
  type WireEntry,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { beforeEach, describe, expect, it } from 'vitest'
import { type AccountLog, openAccountLog } from './account-log.ts'
import type { Identity } from '../ports.ts'
import { createMemoryStore, type MemoryStore } from '@sealpost/testing/clients/memory-store'
import { createTestClock } from '@sealpost/testing/clients/clock-and-account'

const clock = createTestClock()
let laptop: DeviceKeys
let phone: DeviceKeys
let user_id: string
let store: MemoryStore
let account: AccountLog
let genesis: NewEntry

const wire = (made: NewEntry, to: string): WireEntry => encodeWireEntry(made.entry, made.boxes[to] ?? null)
const build = (change: LogChange, previous: Uint8Array | null, by = laptop): Promise<NewEntry> =>
  buildEntry(nodeCrypto, account.log, user_id, { id: by.device_id, seed: by.sign_seed }, change, previous, clock.now())

beforeEach(async () => {
  const root = await deriveRootKeys(nodeCrypto, nodeCrypto.random(32))
  laptop = await createDeviceKeys(nodeCrypto)
  phone = await createDeviceKeys(nodeCrypto)
  user_id = root.user_id
  const device = await introduceDevice(nodeCrypto, user_id, laptop, 'laptop', 'desktop')
  const signer = { id: 'root', seed: root.sign_seed }
  genesis = await buildEntry(nodeCrypto, null, user_id, signer, { type: 'genesis', root_kem_pub: root.kem_pub, device }, null, clock.now())
  const identity: Identity = {
    ...laptop,
    user_id,
    name: 'laptop',
    device_type: 'desktop',
    server_url: 'https://relay.example',
    server_key: new Uint8Array(32),
    created_at: 0,
  }
  store = createMemoryStore()
  const row = { ...genesis.entry, log_seq: 0, entry_hash: genesis.entry_hash, box: null, epoch_key: genesis.epoch_key, first_seen: 0 }
  await store.createIdentity(identity, [row])
  account = await openAccountLog(nodeCrypto, store, clock, identity)
})

describe('the device log of this device', () => {
  it('takes over entries that verify, with the epoch key that its box holds, and keeps them', async () => {
    const device = await introduceDevice(nodeCrypto, user_id, phone, 'phone', 'mobile')
    const added = await build({ type: 'add_device', device }, genesis.epoch_key)
    const { applied } = await account.apply([wire(added, laptop.device_id)])
    expect(applied.map((entry) => entry.log_seq)).toEqual([1])
    expect(account.epochKey(1)).toEqual(added.epoch_key)
    expect(account.deviceName(phone.device_id)).toBe('phone')
    expect((await account.sealingKey())?.epoch).toBe(1)
    expect((await store.readLog())[1]?.epoch_key).toEqual(added.epoch_key)
    expect((await account.apply([wire(added, laptop.device_id)])).applied).toEqual([])
  })

  it('never accepts another entry at a known place: log_fork (B03)', async () => {
    const one = await build({ type: 'rotate_keys' }, genesis.epoch_key)
    const two = await build({ type: 'rotate_keys' }, genesis.epoch_key)
    await account.apply([wire(one, laptop.device_id)])
    await expect(account.apply([wire(two, laptop.device_id)])).rejects.toMatchObject({ code: 'log_fork' })
    expect(account.log.log_head).toEqual(one.entry_hash)
    expect(await store.readLog()).toHaveLength(2)
  })

  it('an entry that does not verify changes nothing; one from further ahead asks for what lies between', async () => {
    const made = await build({ type: 'rotate_keys' }, genesis.epoch_key)
    const bent = { ...made, entry: { ...made.entry, sig: new Uint8Array(64) } }
    await expect(account.apply([wire(bent, laptop.device_id)])).rejects.toMatchObject({ code: 'invalid_entry' })
    expect(account.log.log_seq).toBe(0)
    await account.apply([wire(made, laptop.device_id)])
    const third = await build({ type: 'rotate_keys' }, made.epoch_key)
    const behind = await openAccountLog(nodeCrypto, await copyOf(1), clock, (await store.readIdentity())!)
    expect((await behind.apply([wire(third, laptop.device_id)])).missing).toBe(true)
  })

  it('keys of epochs without a box for it are opened down the chain from a later one', async () => {
    const second = await build({ type: 'rotate_keys' }, genesis.epoch_key)
    await account.apply([wire(second, 'nobody')])
    expect(await account.sealingKey()).toBeNull()
    const third = await build({ type: 'rotate_keys' }, second.epoch_key)
    await account.apply([wire(third, laptop.device_id)])
    expect(account.epochKey(1)).toBeNull()
    await account.openKeys([0, 1, 2])
    expect(toHex(account.epochKey(1)!)).toBe(toHex(second.epoch_key))
    expect(toHex((await store.readLog())[1]!.epoch_key!)).toBe(toHex(second.epoch_key))
  })

  it('a box that was changed on the way does not open; the entry stands all the same', async () => {
    const made = await build({ type: 'rotate_keys' }, genesis.epoch_key)
    const entry = wire(made, 'root')
    expect((await account.apply([entry])).applied).toHaveLength(1)
    expect(await account.sealingKey()).toBeNull()
  })

  async function copyOf(entries: number): Promise<MemoryStore> {
    const copy = createMemoryStore()
    await copy.createIdentity((await store.readIdentity())!, (await store.readLog()).slice(0, entries))
    return copy
  }
})
