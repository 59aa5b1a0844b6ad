import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { toBase64url, toHex, utf8, utf8Decode } from './bytes.ts'
import {
  activeDevices,
  type DeviceLog,
  decodeWireEntry,
  encodeWireEntry,
  type LogEntry,
  type Verified,
  verifyEntries,
  verifyEntry,
  verifyLog,
} from './device-log.ts'
import { decodeLogBody, decodeLogFrame } from './device-log-body.ts'
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'
import { nodeCrypto } from './node.ts'
import {
  type EntryPlan,
  forgeDevice,
  forgeEntry,
  forgeGenesis,
  logOf,
  ROOT,
  ROOT_KEM_PUB,
  USER_ID,
} from '@sealpost/testing/forgeries/forged-entries'

// laptop and phone are active, tablet is revoked, stranger and newcomer are not in the log
const laptop = forgeDevice(1)
const phone = forgeDevice(2)
const tablet = forgeDevice(3)
const newcomer = forgeDevice(4)
const stranger = forgeDevice(5)
const both = ['root', laptop.id, phone.id]

async function append(log: DeviceLog, plan: EntryPlan): Promise<DeviceLog> {
  const verified = await verifyEntry(nodeCrypto, log, USER_ID, forgeEntry(log, plan))
  if (!verified.ok) throw new Error(verified.reason)
  return verified.log
}

async function sceneLog(): Promise<DeviceLog> {
  const genesis = await logOf(forgeGenesis(laptop))
  const two = await append(genesis, { type: 'add_device', signer: laptop, to: both, fields: { device: phone.introduction } })
  const three = await append(two, { type: 'add_device', signer: phone, to: [...both, tablet.id], fields: { device: tablet.introduction } })
  return append(three, { type: 'revoke_device', signer: laptop, to: both, fields: { revoked: [{ device_id: tablet.id }] } })
}
const scene = await sceneLog()

const rotate: EntryPlan = { type: 'rotate_keys', signer: phone, to: both }
const add: EntryPlan = { type: 'add_device', signer: phone, to: [...both, newcomer.id], fields: { device: newcomer.introduction } }
const revoke: EntryPlan = { type: 'revoke_device', signer: laptop, to: ['root', laptop.id], fields: { revoked: [{ device_id: phone.id }] } }
const rename: EntryPlan = { type: 'rename_device', signer: phone, to: both, fields: { rename: { device_id: laptop.id, name: 'studio' } } }
const everyone = [{ device_id: laptop.id }, { device_id: phone.id }]
const recover: EntryPlan = {
  type: 'recover',
  signer: ROOT,
  to: ['root', newcomer.id],
  fields: { device: newcomer.introduction, revoked: everyone },
}
const adding = (device: object): EntryPlan => ({ ...add, fields: { device } })
const revoking = (...revoked: object[]): EntryPlan => ({ ...revoke, fields: { revoked } })
const head = { stream_id: 'main', device_seq: 4, event_hash: toBase64url(new Uint8Array(32)) }
const set = (name: string, value: unknown) => ({ edit: (body: Record<string, unknown>) => void (body[name] = value) })

const verify = (plan: EntryPlan, log: DeviceLog | null = scene) => verifyEntry(nodeCrypto, log, USER_ID, forgeEntry(log, plan))
const verdict = (verified: Verified) => (verified.ok ? 'ok' : `${verified.code}: ${verified.reason}`)

describe('the verifier accepts', () => {
  it.each<[string, EntryPlan]>([
    ['an active device that adds a device', add],
    ['an active device that revokes another', revoke],
    ['a revocation of two devices at once, by the last one that stays', { ...revoking({ device_id: phone.id }), to: ['root', laptop.id] }],
    ['a revocation with pins', revoking({ device_id: phone.id, last_device_seq: 4, heads: [head, { ...head, stream_id: 'clip' }] })],
    ['a revocation that pins an empty past', revoking({ device_id: phone.id, last_device_seq: 0, heads: [] })],
    ['a new name of any active device', rename],
    ['a rotation', rotate],
    ['a rotation without prev_box, by a device that cannot open the epoch before', { ...rotate, prev_box: null }],
    ['the root that recovers', recover],
    ['the root that recovers without prev_box', { ...recover, prev_box: null }],
    ['fields that this version does not know', { ...rotate, ...set('later', { any: [1] }) }],
    ['a body of exactly 64 KiB', { ...rotate, text: (json) => json.padEnd(LIMITS.logBodyBytesMax, ' ') }],
    ['of doubled keys the last', { ...rotate, text: (json) => json.replace('{"v":1', '{"v":7,"v":1') }],
    ['any order of the recipients', { ...rotate, to: both.toReversed() }],
  ])('%s', async (_, plan) => {
    expect(verdict(await verify(plan))).toBe('ok')
  })

  it('a log from its genesis, and reads it into who is active and who revoked whom', async () => {
    expect(activeDevices(scene).map((device) => device.device_id)).toEqual([laptop.id, phone.id])
    expect(scene.devices.get(tablet.id)).toMatchObject({ added: 2, revoked: { log_seq: 3, by: laptop.id, pins: null } })
    expect(scene.epochs).toHaveLength(4)
    expect(scene.epochs[3]!.entry_hash).toBe(scene.log_head)
    expect(toHex(scene.epochs[3]!.prev_hash!)).toBe(toHex(scene.epochs[2]!.entry_hash))
  })

  it('recover as the end of all devices but the new one', async () => {
    const verified = await verify(recover)
    if (!verified.ok) throw new Error(verified.reason)
    expect(activeDevices(verified.log).map((device) => device.device_id)).toEqual([newcomer.id])
    expect(verified.log.devices.get(phone.id)?.revoked).toMatchObject({ log_seq: 4, by: 'root' })
  })

  it('a rename as the new name, and nothing else', async () => {
    const verified = await verify(rename)
    if (!verified.ok) throw new Error(verified.reason)
    expect(verified.log.devices.get(laptop.id)).toEqual({ ...scene.devices.get(laptop.id), name: 'studio' })
  })
})

describe('the verifier refuses', () => {
  const long = 'x'.repeat(513)
  const cases: [rule: string, plan: EntryPlan, expected: string][] = [
    // size and form
    [
      'a body above 64 KiB',
      { ...rotate, text: (json) => json.padEnd(LIMITS.logBodyBytesMax + 1, ' ') },
      'invalid_entry: the body is above 64 KiB',
    ],
    ['a body that is no JSON', { ...rotate, text: () => '{' }, 'invalid_entry: not valid JSON'],
    ['a body that is no object', { ...rotate, text: () => '1' }, 'invalid_entry: not a log entry'],
    ['a body that is null', { ...rotate, text: () => 'null' }, 'invalid_entry: not a log entry'],
    ['a v that is no number', { ...rotate, ...set('v', '1') }, 'invalid_entry: v is not a number'],
    ['an unknown v, as unknown_version', { ...rotate, ...set('v', 2) }, 'unknown_version: the entry was made by a newer version'],
    [
      'an unknown type, as unknown_version',
      { ...rotate, type: 'set_recovery' },
      'unknown_version: the entry has a type of a newer version',
    ],
    [
      'an unknown type of a stranger, as invalid',
      { ...rotate, type: 'x', signer: stranger },
      'invalid_entry: the signer is not an active device',
    ],
    ['an unknown type named like an inherited property', { ...rotate, type: 'constructor' }, 'unknown_version: the entry has a type'],
    // place
    [
      'an entry of another account',
      { ...rotate, ...set('user_id', toBase64url(new Uint8Array(32))) },
      'invalid_entry: the entry belongs to another account',
    ],
    ['a log_seq that leaves one out (B01)', { ...rotate, ...set('log_seq', 5) }, 'log_conflict: expected log_seq 4'],
    ['a log_seq that is taken', { ...rotate, ...set('log_seq', 3) }, 'log_conflict: expected log_seq 4'],
    ['a log_seq above 2^32-1', { ...rotate, ...set('log_seq', 2 ** 32) }, 'invalid_entry: entry.log_seq is missing or not valid'],
    [
      'another prev_hash (B01)',
      { ...rotate, ...set('prev_hash', toBase64url(new Uint8Array(32))) },
      'log_conflict: prev_hash is not the head',
    ],
    ['no prev_hash', { ...rotate, ...set('prev_hash', null) }, 'log_conflict: prev_hash is not the head'],
    [
      'a second genesis',
      { ...add, type: 'genesis', signer: ROOT, fields: { root_kem_pub: ROOT_KEM_PUB, device: newcomer.introduction } },
      'invalid_entry: genesis is the first entry',
    ],
    // signer and signature
    ['a signer that the log does not know (B01)', { ...add, signer: stranger }, 'invalid_entry: the signer is not an active device'],
    ['the introduced device as its own signer', { ...add, signer: newcomer }, 'invalid_entry: the signer is not an active device'],
    ['a revoked signer (B03)', { ...rotate, signer: tablet }, 'invalid_entry: the signer is not an active device'],
    ['the root as signer of add_device', { ...add, signer: ROOT }, 'invalid_entry: root may not sign add_device'],
    ['the root as signer of revoke_device', { ...revoke, signer: ROOT }, 'invalid_entry: root may not sign revoke_device'],
    ['the root as signer of rename_device', { ...rename, signer: ROOT }, 'invalid_entry: root may not sign rename_device'],
    ['the root as signer of rotate_keys', { ...rotate, signer: ROOT }, 'invalid_entry: root may not sign rotate_keys'],
    ['a device as signer of recover', { ...recover, signer: laptop }, `invalid_entry: ${laptop.id} may not sign recover`],
    [
      "a signature by another device's key (B01)",
      { ...rotate, signer: { id: phone.id, seed: laptop.seed } },
      'invalid_entry: the signature does not hold',
    ],
    [
      "a device's signature in the name of the root (B01)",
      { ...recover, signer: { id: 'root', seed: laptop.seed } },
      'invalid_entry: the signature does not hold',
    ],
    ['a signature with another label', { ...rotate, label: 'assertion' }, 'invalid_entry: the signature does not hold'],
    ['a signature with a context', { ...rotate, ctx: utf8('x') }, 'invalid_entry: the signature does not hold'],
    // fields
    [
      'a rotation that carries a revocation',
      { ...rotate, fields: { revoked: [{ device_id: laptop.id }] } },
      'invalid_entry: rotate_keys has no field revoked',
    ],
    [
      'a rename that brings a device',
      { ...rename, fields: { ...rename.fields, device: newcomer.introduction } },
      'invalid_entry: rename_device has no field device',
    ],
    [
      'a new root key after genesis',
      { ...rotate, fields: { root_kem_pub: ROOT_KEM_PUB } },
      'invalid_entry: rotate_keys has no field root_kem_pub',
    ],
    // the introduced device
    ['a device_id that is in use', adding({ ...forgeDevice(2, 4, 4).introduction }), 'invalid_entry: the device_id was used before'],
    ['a device_id of a revoked device', adding(forgeDevice(3, 4, 4).introduction), 'invalid_entry: the device_id was used before'],
    ['a sign_pub that is in use', adding(forgeDevice(4, 2, 4).introduction), 'invalid_entry: the sign_pub was used before'],
    ['a sign_pub of a revoked device', adding(forgeDevice(4, 3, 4).introduction), 'invalid_entry: the sign_pub was used before'],
    ['a kem_pub that is in use', adding(forgeDevice(4, 4, 2).introduction), 'invalid_entry: the kem_pub was used before'],
    ['a kem_pub of a revoked device', adding(forgeDevice(4, 4, 3).introduction), 'invalid_entry: the kem_pub was used before'],
    ["the root's key as sign_pub", adding({ ...newcomer.introduction, sign_pub: USER_ID }), 'invalid_entry: the sign_pub was used before'],
    [
      "the root's key as kem_pub",
      adding({ ...newcomer.introduction, kem_pub: ROOT_KEM_PUB }),
      'invalid_entry: the kem_pub was used before',
    ],
    [
      'a used key in recover',
      { ...recover, fields: { device: forgeDevice(4, 1, 4).introduction, revoked: everyone } },
      'invalid_entry: the sign_pub was used before',
    ],
    [
      'a self_sig by another key (B02)',
      adding(forgeDevice(4, 4, 4, laptop.seed).introduction),
      'invalid_entry: the device does not hold the key',
    ],
    [
      'a self_sig for another account (B02)',
      adding(forgeDevice(4, 4, 4, undefined, toBase64url(new Uint8Array(32))).introduction),
      'invalid_entry: the device does not hold the key',
    ],
    [
      'a self_sig over another device_id',
      adding({ ...newcomer.introduction, self_sig: forgeDevice(6, 4, 4).introduction.self_sig }),
      'invalid_entry: the device does not hold the key',
    ],
    [
      'a self_sig over another kem_pub (B02)',
      adding({ ...newcomer.introduction, kem_pub: forgeDevice(6).introduction.kem_pub }),
      'invalid_entry: the device does not hold the key',
    ],
    [
      'a device type that is unknown',
      adding({ ...newcomer.introduction, device_type: 'toaster' }),
      'invalid_entry: entry.device.device_type',
    ],
    ['an empty name (G08)', adding({ ...newcomer.introduction, name: '' }), 'invalid_entry: the device name is not a safe one'],
    [
      'a name with a control character (G08)',
      adding({ ...newcomer.introduction, name: 'a\u0007b' }),
      'invalid_entry: the device name is not a safe one',
    ],
    [
      'a name with a bidi override (G08)',
      { ...rename, fields: { rename: { device_id: phone.id, name: 'a\u202Eb' } } },
      'invalid_entry: the device name is not a safe one',
    ],
    [
      'a name with an unpaired surrogate (G08)',
      { ...rename, fields: { rename: { device_id: phone.id, name: 'a\uD800' } } },
      'invalid_entry: the device name is not a safe one',
    ],
    [
      'a name without bound (G08)',
      { ...rename, fields: { rename: { device_id: phone.id, name: long } } },
      'invalid_entry: the device name is not a safe one',
    ],
    [
      'a new name for a revoked device',
      { ...rename, fields: { rename: { device_id: tablet.id, name: 'x' } } },
      'invalid_entry: the renamed device is not active',
    ],
    [
      'a new name for a device that the log does not know',
      { ...rename, fields: { rename: { device_id: stranger.id, name: 'x' } } },
      'invalid_entry: the renamed device is not active',
    ],
    // revocations
    ['a revocation of nobody', revoking(), 'invalid_entry: a revocation names a device'],
    [
      'a revocation of a device that the log does not know',
      revoking({ device_id: stranger.id }),
      'invalid_entry: a revoked device was not active',
    ],
    ['a revocation of a revoked device', revoking({ device_id: tablet.id }), 'invalid_entry: a revoked device was not active'],
    [
      'a device revoked twice in one list',
      revoking({ device_id: phone.id }, { device_id: phone.id }),
      'invalid_entry: a revoked device was not active',
    ],
    [
      'the signer among the revoked',
      revoking({ device_id: phone.id }, { device_id: laptop.id }),
      'invalid_entry: the signer is among the revoked',
    ],
    [
      'heads without last_device_seq',
      revoking({ device_id: phone.id, heads: [head] }),
      'invalid_entry: last_device_seq and heads come together',
    ],
    [
      'last_device_seq without heads',
      revoking({ device_id: phone.id, last_device_seq: 4 }),
      'invalid_entry: last_device_seq and heads come together',
    ],
    [
      'a stream pinned twice',
      revoking({ device_id: phone.id, last_device_seq: 4, heads: [head, head] }),
      'invalid_entry: heads name a stream twice',
    ],
    [
      'recover that leaves a device in',
      { ...recover, to: [...recover.to, laptop.id], fields: { device: newcomer.introduction, revoked: [{ device_id: phone.id }] } },
      'invalid_entry: recover revokes all other devices',
    ],
    [
      'recover that revokes its own new device',
      { ...recover, fields: { device: newcomer.introduction, revoked: [...everyone, { device_id: newcomer.id }] } },
      'invalid_entry: a revoked device was not active',
    ],
    // epoch
    ['an epoch that an active device cannot open', { ...rotate, to: ['root', phone.id] }, 'invalid_entry: sealed is not exactly'],
    ['an epoch that the root cannot open', { ...rotate, to: [laptop.id, phone.id] }, 'invalid_entry: sealed is not exactly'],
    ['an epoch that the added device cannot open', { ...add, to: both }, 'invalid_entry: sealed is not exactly'],
    ['an epoch sealed to the device that it revokes (B03)', { ...revoke, to: both }, 'invalid_entry: sealed is not exactly'],
    ['an epoch sealed to a device revoked before (B03)', { ...rotate, to: [...both, tablet.id] }, 'invalid_entry: sealed is not exactly'],
    ['an epoch sealed to a stranger (B01)', { ...rotate, to: [...both, stranger.id] }, 'invalid_entry: sealed is not exactly'],
    [
      'a stranger in the place of a device (B01)',
      { ...rotate, to: ['root', phone.id, stranger.id] },
      'invalid_entry: sealed is not exactly',
    ],
    ['a recipient named twice', { ...rotate, to: [...both, 'root'] }, 'invalid_entry: sealed names a recipient twice'],
    ['add_device without prev_box', { ...add, prev_box: null }, 'invalid_entry: add_device has a prev_box'],
    ['revoke_device without prev_box', { ...revoke, prev_box: null }, 'invalid_entry: revoke_device has a prev_box'],
    ['rename_device without prev_box', { ...rename, prev_box: null }, 'invalid_entry: rename_device has a prev_box'],
  ]
  it.each(cases)('%s', async (_, plan, expected) => {
    expect(verdict(await verify(plan))).toContain(expected)
  })

  it('a revocation of the last device, so at least one stays', async () => {
    const alone = await logOf(forgeGenesis(laptop))
    const plan = { ...revoke, to: ['root'], fields: { revoked: [{ device_id: laptop.id }] } }
    expect(verdict(await verify(plan, alone))).toContain('invalid_entry: the signer is among the revoked')
  })

  it('every bit flip of body or signature (B01)', async () => {
    const entry = forgeEntry(scene, rotate)
    const flip = (bytes: Uint8Array, bit: number) => bytes.map((byte, i) => (i === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte))
    for (let bit = 0; bit < entry.sig.length * 8; bit += 5)
      expect(await verifyEntry(nodeCrypto, scene, USER_ID, { ...entry, sig: flip(entry.sig, bit) })).toMatchObject({ ok: false })
    for (let bit = 0; bit < entry.body.length * 8; bit += 37)
      expect(await verifyEntry(nodeCrypto, scene, USER_ID, { ...entry, body: flip(entry.body, bit) })).toMatchObject({ ok: false })
    expect(verdict(await verifyEntry(nodeCrypto, scene, USER_ID, { ...entry, sig: entry.sig.subarray(1) }))).toContain('signature')
  })

  it('an entry in the log of another account', async () => {
    const other = toBase64url(nodeCrypto.ed25519Public(new Uint8Array(32)))
    expect(verdict(await verifyEntry(nodeCrypto, scene, other, forgeEntry(scene, rotate)))).toContain('another account')
    expect(verdict(await verifyEntry(nodeCrypto, scene, other, forgeEntry(scene, { ...rotate, ...set('user_id', other) })))).toContain(
      'another account',
    )
  })

  it('anything after 2^32 entries', async () => {
    expect(verdict(await verify(rotate, { ...scene, log_seq: LIMITS.logSeqMax }))).toMatch(/^invalid_entry: entry.log_seq/)
  })
})

describe('a genesis is refused', () => {
  it.each<[string, Partial<EntryPlan>, string]>([
    ['signed by its own device', { signer: laptop }, `invalid_entry: ${laptop.id} may not sign genesis`],
    ['signed by a key that is not user_id', { signer: { id: 'root', seed: laptop.seed } }, 'invalid_entry: the signature does not hold'],
    ['with a log_seq above 0', set('log_seq', 1), 'log_conflict: expected log_seq 0'],
    ['with a prev_hash', set('prev_hash', toBase64url(new Uint8Array(32))), 'log_conflict: prev_hash'],
    ['of another type', { type: 'rotate_keys', signer: laptop }, 'invalid_entry: genesis is the first entry and no other'],
    [
      'with a prev_box',
      { edit: (body) => Object.assign(body['epoch'] as object, { prev_box: toBase64url(new Uint8Array(48)) }) },
      'invalid_entry: genesis has no prev_box',
    ],
    [
      "with the root's sign key as the device's",
      { fields: { root_kem_pub: ROOT_KEM_PUB, device: { ...laptop.introduction, sign_pub: USER_ID } } },
      'invalid_entry: the sign_pub was used',
    ],
    [
      "with the root's KEM key as the device's",
      { fields: { root_kem_pub: laptop.introduction.kem_pub, device: laptop.introduction } },
      'invalid_entry: the kem_pub was used',
    ],
    [
      'with another self_sig',
      { fields: { root_kem_pub: ROOT_KEM_PUB, device: forgeDevice(1, 1, 1, ROOT.seed).introduction } },
      'invalid_entry: the device does not hold',
    ],
    ['without a box for the root', { to: [laptop.id] }, 'invalid_entry: sealed is not exactly'],
    [
      'with a revocation',
      { fields: { root_kem_pub: ROOT_KEM_PUB, device: laptop.introduction, revoked: [] } },
      'invalid_entry: genesis has no field revoked',
    ],
  ])('%s', async (_, change, expected) => {
    expect(verdict(await verifyEntry(nodeCrypto, null, USER_ID, forgeGenesis(laptop, change)))).toContain(expected)
  })
})

/** Every path of a JSON value. */
function pathsOf(value: unknown, at: (string | number)[] = []): (string | number)[][] {
  if (typeof value !== 'object' || value === null) return [at]
  const inner = Object.entries(value).flatMap(([key, item]) => pathsOf(item, [...at, Array.isArray(value) ? Number(key) : key]))
  return at.length === 0 ? inner : [at, ...inner]
}

function replaceAt(
  body: unknown,
  path: (string | number)[],
  change: (parent: Record<string | number, unknown>, key: string | number) => void,
): void {
  let parent = body as Record<string | number, unknown>
  for (const step of path.slice(0, -1)) parent = parent[step] as Record<string | number, unknown>
  change(parent, path.at(-1)!)
}

describe('the shape of a body', () => {
  const pinned = revoking({ device_id: phone.id, last_device_seq: 4, heads: [head] })
  const plans = { add, pinned, rename, rotate, recover }

  it.each(Object.entries(plans))('no field of %s may be missing or of another kind', async (name, plan) => {
    const paths = pathsOf(JSON.parse(utf8Decode(forgeEntry(scene, plan).body)))
    expect(paths.length).toBeGreaterThan(10)
    for (const path of paths) {
      if (typeof path.at(-1) === 'string') {
        const missing = await verify({ ...plan, edit: (body) => replaceAt(body, path, (parent, key) => delete parent[key]) })
        expect(verdict(missing), `${name} without ${path.join('.')}`).toMatch(/^invalid_entry/)
      }
      for (const wrong of [null, -1, -0, 1.5, 2 ** 53, '', 'x', true, [], {}, [[]]]) {
        // recover may be without prev_box, an empty list of heads pins an empty past, created_at is not judged
        const text = JSON.stringify(wrong)
        const allowed =
          (path.at(-1) === 'prev_box' && wrong === null && (plan === rotate || plan === recover)) ||
          (path.at(-1) === 'heads' && text === '[]') ||
          (['name', 'stream_id'].includes(String(path.at(-1))) && wrong === 'x')
        if (allowed) continue
        const replaced = await verify({ ...plan, edit: (body) => replaceAt(body, path, (parent, key) => (parent[key] = wrong)) })
        const found = verdict(replaced)
        if (Object.is(wrong, -0)) continue // JSON.stringify writes it as 0
        expect(found, `${name} with ${path.join('.')} = ${text}`).toMatch(
          path[0] === 'type' || path[0] === 'v' ? /^(invalid_entry|unknown_version)/ : /^(invalid_entry|log_conflict)/,
        )
      }
    }
  })

  it('negative zero is not an integer', async () => {
    expect(verdict(await verify({ ...rotate, text: (json) => json.replace('"created_at":1764000000000', '"created_at":-0') }))).toContain(
      'created_at',
    )
  })
})

describe('a fold', () => {
  it('never changes the log that it was given, whatever the verdict', async () => {
    const before = structuredClone(scene)
    for (const plan of [add, revoke, rename, rotate, recover, { ...rotate, to: ['root'] }, { ...recover, to: ['root'] }]) await verify(plan)
    expect(structuredClone(scene)).toEqual(before)
  })

  it('names the first refused entry', async () => {
    const genesis = forgeGenesis(laptop)
    const verified = await verifyLog(nodeCrypto, USER_ID, [genesis, genesis])
    expect(verified).toMatchObject({ ok: false, code: 'log_conflict' })
  })

  it('of nothing is no log', async () => {
    expect(await verifyLog(nodeCrypto, USER_ID, [])).toMatchObject({ ok: false, code: 'invalid_entry' })
  })

  it('carries entries as exact bytes over the wire', () => {
    const entry = forgeEntry(scene, rotate)
    expect(decodeWireEntry(encodeWireEntry(entry, null))).toEqual(entry)
    expect(() => decodeWireEntry({ body: 'AA', sig: 'AA' })).toThrow(SealpostError)
  })
})

describe('no bytes make the entry decoder throw untyped', () => {
  const decode = (bytes: Uint8Array) => {
    try {
      decodeLogBody(decodeLogFrame(bytes))
    } catch (error) {
      if (!(error instanceof SealpostError) || (error.code !== 'invalid_entry' && error.code !== 'unknown_version')) throw error
    }
  }
  const samples = [add, revoke, rename, rotate, recover].map((plan) => forgeEntry(scene, plan).body)

  it('random bytes', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), decode), { numRuns: 15_000 })
  })

  it('valid bodies with bytes changed, left out or cut off', () => {
    const edit = fc.record({
      sample: fc.nat(4),
      at: fc.nat(4_000),
      cut: fc.nat(3),
      put: fc.uint8Array({ maxLength: 3 }),
      end: fc.boolean(),
    })
    fc.assert(
      fc.property(edit, ({ sample, at, cut, put, end }) => {
        const body = samples[sample]!
        const from = at % body.length
        decode(Uint8Array.from([...body.subarray(0, from), ...put, ...(end ? [] : body.subarray(from + cut))]))
      }),
      { numRuns: 15_000 },
    )
  })

  it('valid bodies with any JSON in the place of a field', () => {
    const values = samples.map((body) => JSON.parse(utf8Decode(body)))
    const paths = values.map((value) => pathsOf(value))
    fc.assert(
      fc.property(fc.nat(4), fc.nat(1_000), fc.jsonValue({ maxDepth: 2 }), (sample, which, json) => {
        const body = structuredClone(values[sample])
        const path = paths[sample]![which % paths[sample]!.length]!
        replaceAt(body, path, (parent, key) => (parent[key] = json))
        decode(utf8(JSON.stringify(body)))
      }),
      { numRuns: 10_000 },
    )
  })
})

describe('many entries at once', () => {
  it('are verified as one after another, without a copy of the log for each, and leave the log before them as it was', async () => {
    const entries: LogEntry[] = []
    const steps: DeviceLog[] = []
    const third = forgeDevice(6)
    let log = scene
    const plans: EntryPlan[] = [
      { type: 'rotate_keys', signer: phone, to: both },
      { type: 'add_device', signer: phone, to: [...both, third.id], fields: { device: third.introduction } },
      { type: 'rotate_keys', signer: third, to: [...both, third.id] },
    ]
    for (const plan of plans) {
      entries.push(forgeEntry(log, plan))
      log = await append(log, plan)
      steps.push(log)
    }
    const sizes = ({ log_seq, epochs, devices, used_keys }: DeviceLog) => [log_seq, epochs.length, devices.size, used_keys.size]
    expect(await verifyEntries(nodeCrypto, scene, USER_ID, entries)).toMatchObject({ ok: true, log })
    expect(await verifyEntries(nodeCrypto, scene, USER_ID, [])).toBeNull()
    expect(await verifyEntries(nodeCrypto, scene, USER_ID, [entries[0]!, entries[2]!])).toMatchObject({ ok: false, code: 'log_conflict' })
    expect(await verifyEntries(nodeCrypto, steps[0]!, USER_ID, entries.slice(1))).toMatchObject({ ok: true, log })
    expect([scene, ...steps].map(sizes)).toEqual([
      [3, 4, 3, 8],
      [4, 5, 3, 8],
      [5, 6, 4, 10],
      [6, 7, 4, 10],
    ])
  })
})
