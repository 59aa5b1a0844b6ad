/** The writer and the keys of its epochs, with real boxes: what one device writes, another opens. */
import { beforeAll, describe, expect, it } from 'vitest'
import { type Bytes, fromBase64url, parseJson, toBase64url, toHex } from './bytes.ts'
import { type DeviceLog, verifyEntry } from './device-log.ts'
import { buildEntry, type LogChange, type NewEntry } from './device-log-writer.ts'
import { checkBox, checkBoxes, openEpochKey, previousEpochKey, sealEpochKey } from './epoch-key.ts'
import { SealpostError } from './errors.ts'
import { createDeviceKeys, type DeviceKeys, deriveRootKeys, introduceDevice, type RootKeys } from './keys.ts'
import { nodeCrypto } from './node.ts'

const now = 1_764_000_000_000
const codeOf = (of: Promise<unknown>) =>
  of.then(() => 'ok').catch((error: unknown) => (error instanceof SealpostError ? error.code : error))
const signerOf = (device: DeviceKeys) => ({ id: device.device_id, seed: device.sign_seed })

let root: RootKeys
let laptop: DeviceKeys
let phone: DeviceKeys
let tablet: DeviceKeys
let genesis: Step
let added: Step
let revoked: Step

type Step = NewEntry & { log: DeviceLog }

async function write(
  before: Step | null,
  signer: { id: string; seed: Bytes },
  change: LogChange,
  prev = before?.epoch_key ?? null,
): Promise<Step> {
  const made = await buildEntry(nodeCrypto, before?.log ?? null, root.user_id, signer, change, prev, now)
  const verified = await verifyEntry(nodeCrypto, before?.log ?? null, root.user_id, made.entry)
  if (!verified.ok) throw new Error(verified.reason)
  return { ...made, log: verified.log }
}
const introduce = (device: DeviceKeys, name: string) => introduceDevice(nodeCrypto, root.user_id, device, name, 'desktop')
const open = ({ log, log_seq, boxes }: Step, device: DeviceKeys) =>
  openEpochKey(nodeCrypto, log, log_seq, device.device_id, device.kem_seed, fromBase64url(boxes[device.device_id]!))

beforeAll(async () => {
  root = await deriveRootKeys(nodeCrypto, nodeCrypto.random(32))
  laptop = await createDeviceKeys(nodeCrypto)
  phone = await createDeviceKeys(nodeCrypto)
  tablet = await createDeviceKeys(nodeCrypto)
  const first: LogChange = { type: 'genesis', root_kem_pub: root.kem_pub, device: await introduce(laptop, 'laptop') }
  genesis = await write(null, { id: 'root', seed: root.sign_seed }, first)
  added = await write(genesis, signerOf(laptop), { type: 'add_device', device: await introduce(phone, 'phone') })
  revoked = await write(added, signerOf(laptop), { type: 'revoke_device', device_id: phone.device_id, pins: null })
})

describe('an entry that was written', () => {
  it('verifies, and says what was asked for', async () => {
    const body = parseJson(added.entry.body) as Record<string, unknown>
    expect(body).toMatchObject({ v: 1, log_seq: 1, type: 'add_device', signer: laptop.device_id, created_at: now })
    expect(added).toMatchObject({ log_seq: 1, entry_hash: added.log.log_head })
    expect(Object.keys(added.boxes).sort()).toEqual(['root', laptop.device_id, phone.device_id].sort())
  })

  it('carries pins', async () => {
    const pins = { last_device_seq: 9, heads: [{ stream_id: 'main', device_seq: 9, event_hash: nodeCrypto.random(32) }] }
    const step = await write(added, signerOf(laptop), { type: 'revoke_device', device_id: phone.device_id, pins })
    expect(step.log.devices.get(phone.device_id)?.revoked?.pins?.heads[0]?.stream_id).toBe('main')
    expect(toHex(step.log.devices.get(phone.device_id)!.revoked!.pins!.heads[0]!.event_hash)).toBe(toHex(pins.heads[0]!.event_hash))
  })

  it('renames', async () => {
    const step = await write(added, signerOf(laptop), { type: 'rename_device', device_id: phone.device_id, name: 'pixel' })
    expect(step.log.devices.get(phone.device_id)?.name).toBe('pixel')
  })

  it('recovers with the root keys alone, and closes the past when its key is gone', async () => {
    const step = await write(
      added,
      { id: 'root', seed: root.sign_seed },
      { type: 'recover', device: await introduce(tablet, 'tablet') },
      null,
    )
    expect([...step.log.devices.values()].filter((device) => device.revoked === null).map((device) => device.name)).toEqual(['tablet'])
    expect(await open(step, tablet)).toEqual(step.epoch_key)
    expect(await previousEpochKey(nodeCrypto, step.log, 2, step.epoch_key)).toBeNull()
  })

  it('is never one that the verifier refuses', async () => {
    const phoneAgain = await introduce(phone, 'phone')
    const cases: [{ id: string; seed: Bytes }, LogChange, Bytes | null][] = [
      [signerOf(phone), { type: 'rotate_keys' }, revoked.epoch_key],
      [signerOf(laptop), { type: 'add_device', device: phoneAgain }, revoked.epoch_key],
      [signerOf(laptop), { type: 'revoke_device', device_id: laptop.device_id, pins: null }, revoked.epoch_key],
      [signerOf(laptop), { type: 'rename_device', device_id: laptop.device_id, name: 'x'.repeat(51) }, revoked.epoch_key],
      [signerOf(laptop), { type: 'add_device', device: { ...(await introduce(tablet, 't')), name: 'a\u200Bb' } }, revoked.epoch_key],
      [signerOf(laptop), { type: 'rename_device', device_id: laptop.device_id, name: 'x' }, null],
    ]
    for (const [signer, change, prev] of cases)
      expect(await codeOf(buildEntry(nodeCrypto, revoked.log, root.user_id, signer, change, prev, now)), change.type).toBe('invalid_entry')
    expect(await codeOf(buildEntry(nodeCrypto, null, root.user_id, signerOf(laptop), { type: 'rotate_keys' }, null, now))).toBe(
      'invalid_entry',
    )
  })
})

describe('epoch keys', () => {
  it('open for every recipient, for the root too', async () => {
    expect(await open(added, laptop)).toEqual(added.epoch_key)
    expect(await open(added, phone)).toEqual(added.epoch_key)
    expect(await openEpochKey(nodeCrypto, added.log, 1, 'root', root.kem_seed, fromBase64url(added.boxes['root']!))).toEqual(
      added.epoch_key,
    )
  })

  it('after a revocation are out of reach of the revoked device (B03)', async () => {
    expect(revoked.boxes[phone.device_id]).toBeUndefined()
    for (const [to, box] of Object.entries(revoked.boxes)) {
      expect(await codeOf(openEpochKey(nodeCrypto, revoked.log, 2, to, phone.kem_seed, fromBase64url(box)))).toBe('invalid_box')
      expect(await codeOf(openEpochKey(nodeCrypto, revoked.log, 2, phone.device_id, phone.kem_seed, fromBase64url(box)))).toBe(
        'invalid_box',
      )
    }
    expect(await codeOf(previousEpochKey(nodeCrypto, revoked.log, 2, added.epoch_key))).toBe('invalid_box')
  })

  it('come only out of the box that was signed, not out of another with the same key inside', async () => {
    const { log, log_seq, epoch_key } = added
    const place = { user_id: root.user_id, log_seq, prev_hash: genesis.entry_hash }
    const again = await sealEpochKey(phone.kem_pub, place, phone.device_id, epoch_key)
    const of = openEpochKey(nodeCrypto, log, log_seq, phone.device_id, phone.kem_seed, again)
    await expect(of).rejects.toThrow('the box is not the one that was signed')
  })

  it('of the past open for a device that joined later', async () => {
    expect(toHex((await previousEpochKey(nodeCrypto, added.log, 1, await open(added, phone)))!)).toBe(toHex(genesis.epoch_key))
    expect(await previousEpochKey(nodeCrypto, added.log, 0, genesis.epoch_key)).toBeNull()
  })

  it('are new in every entry', () => {
    expect(new Set([genesis, added, revoked].map((step) => toHex(step.epoch_key))).size).toBe(3)
  })

  it('of an epoch that the log does not have are refused', async () => {
    expect(await codeOf(openEpochKey(nodeCrypto, added.log, 2, 'root', root.kem_seed, new Uint8Array(1168)))).toBe('invalid_box')
    expect(await codeOf(previousEpochKey(nodeCrypto, added.log, 2, added.epoch_key))).toBe('invalid_box')
  })
})

describe('the boxes beside an entry', () => {
  it('are exactly those that it signed', async () => {
    const { log, boxes } = added
    const [a, b] = [laptop.device_id, phone.device_id]
    expect(await checkBoxes(nodeCrypto, log, boxes)).toBe(true)
    const { root: rootBox, ...withoutRoot } = boxes
    const wrong: Record<string, string>[] = [
      {},
      withoutRoot,
      { ...boxes, [tablet.device_id]: rootBox! },
      { ...withoutRoot, [tablet.device_id]: rootBox! },
      { ...boxes, [a]: boxes[b]!, [b]: boxes[a]! },
      { ...boxes, [a]: toBase64url(fromBase64url(boxes[a]!).fill(0, 5, 6)) },
      { ...boxes, [a]: `${boxes[a]}=` },
      genesis.boxes,
    ]
    for (const [i, boxes] of wrong.entries()) expect(await checkBoxes(nodeCrypto, log, boxes), `case ${i}`).toBe(false)
  })

  it('may be checked one by one, at any epoch', async () => {
    expect(await checkBox(nodeCrypto, added.log, 0, laptop.device_id, genesis.boxes[laptop.device_id]!)).toBe(true)
    expect(await checkBox(nodeCrypto, added.log, 1, laptop.device_id, genesis.boxes[laptop.device_id]!)).toBe(false)
    expect(await checkBox(nodeCrypto, added.log, 9, laptop.device_id, genesis.boxes[laptop.device_id]!)).toBe(false)
  })
})
