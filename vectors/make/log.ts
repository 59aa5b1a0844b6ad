/**
 * Makes `vectors/device-log.json`: a device log of six entries with boxes, prev_box and epoch keys, device assertions, and
 * what must be refused, with the code of each. A second implementation of protocol.md §1, §2 and §10 on node:crypto and
 * @hpke/core; it imports nothing of `packages/`. HPKE is randomised, so every run makes other boxes: the file is frozen.
 *
 *   node vectors/make/log.ts
 */
import { createCipheriv, createHash, createPrivateKey, createPublicKey, hkdfSync, sign } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { Aes256Gcm, CipherSuite, HkdfSha256 } from '@hpke/core'
import { XWing } from '@hpke/hybridkem-x-wing'

type Field = string | number | Uint8Array | null

const b64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
const raw = (text: string): Buffer => Buffer.from(text, 'base64url')
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const uuid = (text: string): Buffer => Buffer.from(text.replaceAll('-', ''), 'hex')
const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
const hkdf = (ikm: Uint8Array, info: Uint8Array): Buffer => Buffer.from(hkdfSync('sha256', ikm, Buffer.alloc(0), info, 32))
const given = <T>(value: T | null | undefined): T => {
  if (value === null || value === undefined) throw new Error('missing')
  return value
}
const flip = (text: string, at: number): string => {
  const bytes = raw(text)
  bytes[at] = given(bytes[at]) ^ 1
  return b64(bytes)
}
const lp = (bytes: Uint8Array): Buffer => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}
const encodeField = (field: Field): Uint8Array => {
  if (field === null) return Buffer.alloc(0)
  if (typeof field === 'string') return Buffer.from(field, 'utf8')
  if (typeof field !== 'number') return field
  const out = Buffer.alloc(8)
  out.writeBigUInt64BE(BigInt(field))
  return out
}
const tuple = (label: string, ...fields: Field[]): Buffer =>
  Buffer.concat([lp(Buffer.from(`sealpost/1 ${label}`)), ...fields.map((field) => lp(encodeField(field)))])
const signingKey = (seed: Uint8Array) =>
  createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]), format: 'der', type: 'pkcs8' })
const signPublic = (seed: Uint8Array): Buffer => createPublicKey(signingKey(seed)).export({ type: 'spki', format: 'der' }).subarray(-32)
const edSign = (seed: Uint8Array, message: Uint8Array): Buffer => sign(null, message, signingKey(seed))
const gcm = (key: Uint8Array, iv: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Buffer => {
  const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(aad)
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
}

const kem = new XWing()
const suite = new CipherSuite({ kem, kdf: new HkdfSha256(), aead: new Aes256Gcm() })
const kemPublic = async (seed: Uint8Array): Promise<Buffer> =>
  Buffer.from(await kem.serializePublicKey((await kem.generateKeyPairDerand(Uint8Array.from(seed))).publicKey))
const hpkeSeal = async (publicKey: Uint8Array, info: Uint8Array, plaintext: Uint8Array): Promise<Buffer> => {
  const sender = await suite.createSenderContext({
    recipientPublicKey: await kem.deserializePublicKey(Uint8Array.from(publicKey).buffer),
    info: Uint8Array.from(info).buffer,
  })
  const sealed = await sender.seal(Uint8Array.from(plaintext).buffer)
  return Buffer.concat([new Uint8Array(sender.enc), new Uint8Array(sealed)])
}

// ---------------------------------------------------------------- keys: seeds are repeated bytes

const recoverySeed = Buffer.alloc(32, 0x0c)
const rootSeed = hkdf(recoverySeed, tuple('root-sign'))
const rootKemSeed = hkdf(recoverySeed, tuple('root-kem'))
const rootKem = await kemPublic(rootKemSeed)
const userId = signPublic(rootSeed)

type Device = {
  device_id: string
  sign_seed: Buffer
  kem_seed: Buffer
  sign_pub: Buffer
  kem_pub: Buffer
  name: string
  device_type: string
}
const device = async (device_id: string, byte: number, name: string, device_type: string): Promise<Device> => {
  const sign_seed = Buffer.alloc(32, byte)
  const kem_seed = Buffer.alloc(32, byte + 0x80)
  return { device_id, sign_seed, kem_seed, sign_pub: signPublic(sign_seed), kem_pub: await kemPublic(kem_seed), name, device_type }
}
const laptop = await device('7b1c2d3e-4f50-4162-8374-95a6b7c8d9ea', 0x21, 'laptop', 'desktop')
const phone = await device('1f0e2d3c-4b5a-4978-8796-a5b4c3d2e1f0', 0x22, 'phone', 'mobile')
const tablet = await device('a0b1c2d3-e4f5-4607-9829-3a4b5c6d7e8f', 0x23, 'tablet', 'web')
const ghost = await device('deadbeef-0000-4000-8000-000000000001', 0x24, 'ghost', 'desktop')

const introduce = (d: Device, selfSeed = d.sign_seed) => ({
  device_id: d.device_id,
  sign_pub: b64(d.sign_pub),
  kem_pub: b64(d.kem_pub),
  self_sig: b64(edSign(selfSeed, tuple('device', userId, uuid(d.device_id), d.sign_pub, d.kem_pub))),
  name: d.name,
  device_type: d.device_type,
})

// ---------------------------------------------------------------- entries

type Place = { log_seq: number; prev_hash: Buffer | null; previous: Buffer | null }
type Made = { body: string; sig: string; boxes: Record<string, string>; epoch_key: string; entry_hash: string }
type Plan = {
  signer: 'root' | Device
  fields: Record<string, unknown>
  to: ('root' | Device)[]
  /** what makes it invalid */
  body?: (body: Record<string, unknown>) => void
  sealInfo?: (to: string) => Buffer
  sealKey?: Buffer
  prevBox?: (key: Buffer) => Buffer | null
  signSeed?: Buffer
  label?: string
}

const infoOf = (place: Place, to: string, user: Uint8Array = userId) =>
  tuple('epoch-key', user, place.log_seq, place.prev_hash, to === 'root' ? 'root' : uuid(to))

const make = async (place: Place, plan: Plan): Promise<Made> => {
  const epochKey = sha256(Buffer.from(`epoch key ${place.log_seq}`))
  const boxes: Record<string, string> = {}
  const sealed: { to: string; box_hash: string }[] = []
  for (const recipient of plan.to) {
    const to = recipient === 'root' ? 'root' : recipient.device_id
    const box = await hpkeSeal(
      recipient === 'root' ? rootKem : recipient.kem_pub,
      (plan.sealInfo ?? ((x) => infoOf(place, x)))(to),
      plan.sealKey ?? epochKey,
    )
    boxes[to] = b64(box)
    sealed.push({ to, box_hash: b64(sha256(box)) })
  }
  const boxKey = hkdf(epochKey, tuple('prev-box', place.log_seq))
  const standard = (key: Buffer) => (place.previous === null ? null : gcm(key, Buffer.alloc(12), Buffer.alloc(0), place.previous))
  const prevBox = (plan.prevBox ?? standard)(boxKey)
  const body: Record<string, unknown> = {
    v: 1,
    user_id: b64(userId),
    created_at: 1_764_000_000_000 + place.log_seq * 1000,
    log_seq: place.log_seq,
    prev_hash: place.prev_hash === null ? null : b64(place.prev_hash),
    signer: plan.signer === 'root' ? 'root' : plan.signer.device_id,
    ...plan.fields,
    epoch: {
      commit: b64(sha256(tuple('epoch-commit', place.log_seq, epochKey))),
      sealed,
      prev_box: prevBox === null ? null : b64(prevBox),
    },
  }
  plan.body?.(body)
  const bytes = Buffer.from(JSON.stringify(body))
  const signSeed = plan.signSeed ?? (plan.signer === 'root' ? rootSeed : plan.signer.sign_seed)
  return {
    body: b64(bytes),
    sig: b64(edSign(signSeed, tuple(plan.label ?? 'log', null, bytes))),
    boxes,
    epoch_key: hex(epochKey),
    entry_hash: hex(sha256(tuple('log-entry', bytes))),
  }
}

const pins = {
  last_device_seq: 41,
  heads: [
    { stream_id: 'main', device_seq: 41, event_hash: b64(Buffer.alloc(32, 5)) },
    { stream_id: 'clip', device_seq: 7, event_hash: b64(Buffer.alloc(32, 6)) },
  ],
}
const all = ['root', laptop, phone, tablet] as const
const plans: Plan[] = [
  { signer: 'root', fields: { type: 'genesis', root_kem_pub: b64(rootKem), device: introduce(laptop) }, to: ['root', laptop] },
  { signer: laptop, fields: { type: 'add_device', device: introduce(phone) }, to: ['root', laptop, phone] },
  {
    signer: phone,
    fields: { type: 'rename_device', rename: { device_id: laptop.device_id, name: 'studio 🎛️' }, later_field: 'kept' },
    to: ['root', laptop, phone],
  },
  { signer: phone, fields: { type: 'add_device', device: introduce(tablet) }, to: [...all] },
  { signer: laptop, fields: { type: 'revoke_device', revoked: [{ device_id: tablet.device_id, ...pins }] }, to: ['root', laptop, phone] },
  { signer: phone, fields: { type: 'rotate_keys' }, to: ['root', laptop, phone] },
]
const placeAfter = (made: Made[], count: number): Place => {
  const last = made[count - 1]
  return {
    log_seq: count,
    prev_hash: last === undefined ? null : Buffer.from(last.entry_hash, 'hex'),
    previous: last === undefined ? null : Buffer.from(last.epoch_key, 'hex'),
  }
}
const entries: Made[] = []
for (const plan of plans) entries.push(await make(placeAfter(entries, entries.length), plan))

// ---------------------------------------------------------------- entries that are refused: after the first `after` entries

const rotate = { signer: phone, fields: { type: 'rotate_keys' }, to: ['root', laptop, phone] } satisfies Plan
const refused: { name: string; code: string; after: number; plan: Plan }[] = [
  {
    name: 'signed by a device that the log does not know',
    code: 'invalid_entry',
    after: 2,
    plan: { signer: ghost, fields: { type: 'add_device', device: introduce(ghost) }, to: ['root', laptop, phone, ghost] },
  },
  { name: "signed with a key that is not the signer's", code: 'invalid_entry', after: 2, plan: { ...rotate, signSeed: ghost.sign_seed } },
  { name: 'signed with the label of an assertion', code: 'invalid_entry', after: 2, plan: { ...rotate, label: 'assertion' } },
  { name: 'signed by a revoked device', code: 'invalid_entry', after: 6, plan: { ...rotate, signer: tablet } },
  { name: 'a rotation signed by the root', code: 'invalid_entry', after: 6, plan: { ...rotate, signer: 'root' } },
  { name: 'log_seq leaves one out', code: 'log_conflict', after: 6, plan: { ...rotate, body: (b) => (b['log_seq'] = 7) } },
  {
    name: 'prev_hash is that of another entry',
    code: 'log_conflict',
    after: 6,
    plan: { ...rotate, body: (b) => (b['prev_hash'] = b64(Buffer.from(given(entries[4]).entry_hash, 'hex'))) },
  },
  { name: 'v is 2', code: 'unknown_version', after: 6, plan: { ...rotate, body: (b) => (b['v'] = 2) } },
  { name: 'a type of a later version', code: 'unknown_version', after: 6, plan: { ...rotate, fields: { type: 'set_recovery' } } },
  {
    name: 'a device with the sign_pub of an older one',
    code: 'invalid_entry',
    after: 6,
    plan: {
      signer: phone,
      fields: { type: 'add_device', device: introduce({ ...ghost, sign_seed: tablet.sign_seed, sign_pub: tablet.sign_pub }) },
      to: ['root', laptop, phone, ghost],
    },
  },
  {
    name: 'self_sig by another key',
    code: 'invalid_entry',
    after: 6,
    plan: { signer: phone, fields: { type: 'add_device', device: introduce(ghost, phone.sign_seed) }, to: ['root', laptop, phone, ghost] },
  },
  {
    name: 'the signer revokes itself',
    code: 'invalid_entry',
    after: 6,
    plan: { signer: phone, fields: { type: 'revoke_device', revoked: [{ device_id: phone.device_id }] }, to: ['root', laptop] },
  },
  {
    name: 'the revoked device still gets the epoch key',
    code: 'invalid_entry',
    after: 6,
    plan: { signer: laptop, fields: { type: 'revoke_device', revoked: [{ device_id: phone.device_id }] }, to: ['root', laptop, phone] },
  },
  { name: 'sealed leaves the root out', code: 'invalid_entry', after: 6, plan: { ...rotate, to: [laptop, phone] } },
  {
    name: 'heads without last_device_seq',
    code: 'invalid_entry',
    after: 6,
    plan: { signer: laptop, fields: { type: 'revoke_device', revoked: [{ device_id: phone.device_id, heads: [] }] }, to: ['root', laptop] },
  },
  {
    name: 'a revocation without prev_box',
    code: 'invalid_entry',
    after: 6,
    plan: {
      signer: laptop,
      fields: { type: 'revoke_device', revoked: [{ device_id: phone.device_id }] },
      to: ['root', laptop],
      prevBox: () => null,
    },
  },
  {
    name: 'recover leaves a device in',
    code: 'invalid_entry',
    after: 6,
    plan: {
      signer: 'root',
      fields: { type: 'recover', device: introduce(ghost), revoked: [{ device_id: phone.device_id }] },
      to: ['root', laptop, ghost],
    },
  },
  {
    name: 'a name with a bidi override',
    code: 'invalid_entry',
    after: 6,
    plan: {
      signer: phone,
      fields: { type: 'rename_device', rename: { device_id: phone.device_id, name: 'pho\u202Een' } },
      to: ['root', laptop, phone],
    },
  },
]
const invalidEntries: object[] = []
for (const { name, code, after, plan } of refused) {
  const { body, sig } = await make(placeAfter(entries, after), plan)
  invalidEntries.push({ name, code, after, body, sig })
}
invalidEntries.push({
  name: 'a bit of the signature flipped',
  code: 'invalid_entry',
  after: 5,
  body: given(entries[5]).body,
  sig: flip(given(entries[5]).sig, 40),
})

// ---------------------------------------------------------------- boxes that do not open: the entry itself is valid, after all six

const end = placeAfter(entries, 6)
const boxCases: { name: string; plan: Plan; box?: (made: Made) => string }[] = [
  { name: 'info with another recipient', plan: { ...rotate, sealInfo: () => infoOf(end, 'root') } },
  { name: 'info with another log_seq', plan: { ...rotate, sealInfo: (to) => infoOf({ ...end, log_seq: 5 }, to) } },
  { name: 'info with another prev_hash', plan: { ...rotate, sealInfo: (to) => infoOf({ ...end, prev_hash: Buffer.alloc(32) }, to) } },
  { name: 'info with another user_id', plan: { ...rotate, sealInfo: (to) => infoOf(end, to, Buffer.alloc(32)) } },
  { name: 'a key that is not the committed one', plan: { ...rotate, sealKey: Buffer.alloc(32, 9) } },
  { name: 'the box of another recipient', plan: rotate, box: (made) => given(made.boxes[laptop.device_id]) },
  { name: 'a bit of the box flipped', plan: rotate, box: (made) => flip(given(made.boxes[phone.device_id]), 1150) },
]
const invalidBoxes: object[] = []
for (const { name, plan, box } of boxCases) {
  const made = await make(end, plan)
  invalidBoxes.push({
    name,
    code: 'invalid_box',
    after: 6,
    body: made.body,
    sig: made.sig,
    to: phone.device_id,
    box: (box ?? ((m: Made) => given(m.boxes[phone.device_id])))(made),
  })
}

const before = given(end.previous)
const zero = Buffer.alloc(12)
const none = Buffer.alloc(0)
const prevCases: { name: string; prevBox: (key: Buffer) => Buffer }[] = [
  { name: 'sealed with an iv other than zero', prevBox: (key) => gcm(key, Buffer.alloc(12, 1), none, before) },
  { name: 'sealed with an aad', prevBox: (key) => gcm(key, zero, Buffer.from('x'), before) },
  {
    name: 'sealed with the key of another number',
    prevBox: () => gcm(hkdf(sha256(Buffer.from('epoch key 6')), tuple('prev-box', 5)), zero, none, before),
  },
  { name: 'not the key that the entry before committed to', prevBox: (key) => gcm(key, zero, none, Buffer.alloc(32, 9)) },
  { name: 'a bit flipped', prevBox: (key) => raw(flip(b64(gcm(key, zero, none, before)), 3)) },
]
const invalidPrevBoxes: object[] = []
for (const { name, prevBox } of prevCases) {
  const { body, sig, epoch_key } = await make(end, { ...rotate, prevBox })
  invalidPrevBoxes.push({ name, code: 'invalid_box', after: 6, body, sig, epoch_key })
}

// ---------------------------------------------------------------- assertions

const serverKey = b64(signPublic(Buffer.alloc(32, 3)))
const now = 1_764_000_100_000
const claims = {
  purpose: 'token',
  aud: serverKey,
  user_id: b64(userId),
  signer: laptop.device_id,
  iat: now,
  jti: b64(Buffer.alloc(16, 0x0a)),
}
const assert = (name: string, value: object | string, seed: Buffer = laptop.sign_seed, label = 'assertion', sign_pub = laptop.sign_pub) => {
  const body = Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
  return { name, body: b64(body), sig: b64(edSign(seed, tuple(label, null, body))), sign_pub: hex(sign_pub) }
}
const { jti: _, ...withoutJti } = claims
const assertions = {
  expected: { purpose: 'token', aud: serverKey, now_ms: now },
  valid: [
    assert('by a device', claims),
    assert('299 s old, with a field of a later version', { ...claims, iat: now - 299_000, later_field: 1 }),
    assert('by the root, with from_log_seq', { ...claims, signer: 'root', from_log_seq: 3 }, rootSeed, 'assertion', userId),
  ],
  invalid: [
    { ...assert('signed by another device', claims, phone.sign_seed), code: 'invalid_signature' },
    { ...assert('signed with the label of a log entry', claims, laptop.sign_seed, 'log'), code: 'invalid_signature' },
    {
      ...assert('the body edited after signing', claims),
      body: b64(Buffer.from(JSON.stringify({ ...claims, iat: now + 1 }))),
      code: 'invalid_signature',
    },
    { ...assert('for another server', { ...claims, aud: b64(Buffer.alloc(32, 9)) }), code: 'unauthorized' },
    { ...assert('for another purpose', { ...claims, purpose: 'log-read' }), code: 'unauthorized' },
    { ...assert('301 s old', { ...claims, iat: now - 301_000 }), code: 'expired' },
    { ...assert('301 s ahead', { ...claims, iat: now + 301_000 }), code: 'expired' },
    { ...assert('without jti', withoutJti), code: 'invalid_message' },
    { ...assert('not JSON', '{"purpose":'), code: 'invalid_message' },
    { ...assert('above 4 KiB', { ...claims, padding: 'x'.repeat(4096) }), code: 'invalid_message' },
  ],
}

writeFileSync(
  new URL('../device-log.json', import.meta.url),
  `${JSON.stringify(
    {
      note: 'made with node:crypto and @hpke/core (HPKE is randomised: for opening); seeds, keys and hashes in hex, wire fields in base64url; `after`: how many entries of `entries` come first',
      recovery_seed: hex(recoverySeed),
      user_id: b64(userId),
      root_kem_seed: hex(rootKemSeed),
      devices: [laptop, phone, tablet].map(({ device_id, sign_seed, kem_seed }) => ({
        device_id,
        sign_seed: hex(sign_seed),
        kem_seed: hex(kem_seed),
      })),
      entries,
      invalid: { entries: invalidEntries, boxes: invalidBoxes, prev_boxes: invalidPrevBoxes },
      assertions,
    },
    null,
    1,
  )}\n`,
)
process.stdout.write(`${entries.length} entries, ${invalidEntries.length + invalidBoxes.length + invalidPrevBoxes.length} refused\n`)
