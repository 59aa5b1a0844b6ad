/**
 * Makes `vectors/events.json`: pages of records and what a receiver must make of each.
 * A second implementation of protocol.md §1 and §3 on node:crypto alone; it imports nothing of `packages/`.
 *
 *   node vectors/make/events.ts
 */
import { createCipheriv, createHash, createPrivateKey, createPublicKey, hkdfSync, sign } from 'node:crypto'
import { writeFileSync } from 'node:fs'

type Field = string | number | Uint8Array | null
type Device = { device_id: string; seed: Buffer }
type Draft = {
  device: Device
  device_seq: number
  stream_id: string
  text?: string
  ttl?: number | null
  epoch?: number
  prev_hash?: Buffer | null
  ms?: number
  /** Departures from what an honest device does. */
  plaintext?: Buffer
  payload?: Buffer
  event_key?: Buffer
  sign_seed?: Buffer
}
type Event = ReturnType<typeof seal>

const fill = (byte: number, length = 32): Buffer => Buffer.alloc(length, byte)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const b64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
const uint = (value: number, length: number): Buffer => {
  const out = Buffer.alloc(8)
  out.writeBigUInt64BE(BigInt(value))
  return out.subarray(8 - length)
}
const lp = (bytes: Uint8Array): Buffer => Buffer.concat([uint(bytes.length, 4), bytes])
const toBytes = (field: Field): Uint8Array => {
  if (field === null) return Buffer.alloc(0)
  if (typeof field === 'number') return uint(field, 8)
  return typeof field === 'string' ? Buffer.from(field) : field
}
const tuple = (label: string, ...fields: Field[]): Buffer => Buffer.concat([`sealpost/1 ${label}`, ...fields].map(toBytes).map(lp))
const uuid = (text: string): Buffer => Buffer.from(text.replaceAll('-', ''), 'hex')
const privateKey = (seed: Uint8Array) =>
  createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]), format: 'der', type: 'pkcs8' })
const publicKey = (seed: Uint8Array): Buffer => createPublicKey(privateKey(seed)).export({ type: 'spki', format: 'der' }).subarray(-32)

// ---------------------------------------------------------------- the world

const NOW = 1_764_000_100_000
const MADE = 1_764_000_000_000
const user = publicKey(fill(0x01))
const epochs = [0, 1, 2].map((epoch) => ({ epoch, key: fill(0x40 + epoch), entry_hash: fill(0x50 + epoch) }))
const a: Device = { device_id: '7b1c2d3e-4f50-4162-8374-95a6b7c8d9ea', seed: fill(0x02) }
const b: Device = { device_id: '8c2d3e4f-5061-4273-9485-a6b7c8d9eafb', seed: fill(0x12) }
const c: Device = { device_id: '9d3e4f50-6172-4384-a596-b7c8d9eafb0c', seed: fill(0x22) }
const ghost: Device = { device_id: 'ae4f5061-7283-4495-b6a7-c8d9eafb0c1d', seed: fill(0x32) }

const eventKey = (device: Device, epoch: number): Buffer => {
  const { key, entry_hash } = epochs[epoch] as (typeof epochs)[number]
  return Buffer.from(hkdfSync('sha256', key, entry_hash, tuple('event-key', uuid(device.device_id)), 32))
}

/** Padmé by its definition (Nikitin et al. 2019), with logarithms. */
const padme = (length: number): number => {
  const e = Math.floor(Math.log2(length))
  const unit = 2 ** (e - (Math.floor(Math.log2(e)) + 1))
  return Math.ceil(length / unit) * unit
}
const pad = (data: Uint8Array): Buffer => {
  const plain = lp(data)
  return Buffer.concat([plain, Buffer.alloc(Math.max(32, padme(plain.length)) - plain.length)])
}

let made = 0
function seal(draft: Draft) {
  const { device, device_seq, stream_id, ttl = null, epoch = 0, prev_hash = null, ms = MADE } = draft
  made += 1
  const event_id = `${hex(uint(ms, 6)).replace(/^(.{8})/, '$1-')}-7000-8000-${hex(uint(made, 6))}`
  const header = tuple('event', user, uuid(device.device_id), uuid(event_id), device_seq, stream_id, 'app', ttl, epoch, prev_hash)
  const iv = fill(0x60 + made, 12)
  const data = Buffer.from(draft.text ?? `text ${made}`)
  const cipher = createCipheriv('aes-256-gcm', draft.event_key ?? eventKey(device, epoch), iv).setAAD(header)
  const sealed = Buffer.concat([cipher.update(draft.plaintext ?? pad(data)), cipher.final(), cipher.getAuthTag()])
  const payload = draft.payload ?? Buffer.concat([iv, sealed])
  const event_hash = sha256(tuple('event-hash', header, sha256(payload)))
  const sig = sign(null, tuple('event-sig', event_hash), privateKey(draft.sign_seed ?? device.seed))
  return { event_id, device_id: device.device_id, device_seq, stream_id, type: 'app', ttl, epoch, prev_hash, data, header, payload, event_hash, sig }
}

/** A record as delivered at `position`; `edit` changes fields after they were signed. */
function record(event: Event, position: number, edit: Partial<Event> & { tombstone?: boolean; flags?: number; type_bytes?: Buffer } = {}): Buffer {
  const e = { ...event, ...edit }
  const flags = edit.flags ?? (e.ttl === null ? 0 : 1) | (e.prev_hash === null ? 0 : 2) | 4 | (edit.tombstone ? 8 : 0)
  return lp(
    Buffer.concat([
      Buffer.of(flags),
      uint(position, 8),
      uint(position, 8),
      uint(MADE + position, 8),
      uuid(e.event_id),
      uuid(e.device_id),
      uint(e.device_seq, 8),
      uint(e.epoch, 4),
      e.ttl === null ? Buffer.alloc(0) : uint(e.ttl, 4),
      e.prev_hash ?? Buffer.alloc(0),
      Buffer.of(e.stream_id.length),
      Buffer.from(e.stream_id),
      Buffer.of((edit.type_bytes ?? Buffer.from(e.type)).length),
      edit.type_bytes ?? Buffer.from(e.type),
      e.sig,
      edit.tombstone ? sha256(e.payload) : lp(e.payload),
    ]),
  )
}

// ---------------------------------------------------------------- what a receiver must say

const opened = (event: Event) => ({ is: 'event', event_id: event.event_id, data: hex(event.data) })
const expired = (event: Event) => ({ is: 'expired', event_id: event.event_id })
const gap = (event: Event, position: number, from_device_seq: number, reason: string) => ({
  is: 'gap',
  stream_id: event.stream_id,
  device_id: event.device_id,
  from_device_seq,
  reason,
  position,
})
const alarm = (event: Pick<Event, 'device_id' | 'stream_id'>, position: number, reason: string) => ({
  is: 'alarm',
  position,
  device_id: event.device_id,
  stream_id: event.stream_id,
  reason,
})
const head = (event: Event, position: number) => ({
  device_id: event.device_id,
  stream_id: event.stream_id,
  device_seq: event.device_seq,
  event_hash: hex(event.event_hash),
  epoch: event.epoch,
  position,
})

// ---------------------------------------------------------------- pages

const one = seal({ device: a, device_seq: 1, stream_id: 'clip', text: 'hello' })
const two = seal({ device: a, device_seq: 2, stream_id: 'notes', text: '' })
const three = seal({ device: a, device_seq: 3, stream_id: 'clip', ttl: 60, prev_hash: one.event_hash })
const four = seal({ device: a, device_seq: 4, stream_id: 'notes', epoch: 1, prev_hash: two.event_hash, text: 'x'.repeat(300) })
const five = seal({ device: a, device_seq: 5, stream_id: 'clip', ttl: 3600, epoch: 1, prev_hash: three.event_hash })
const pinned = seal({ device: c, device_seq: 2, stream_id: 'clip', prev_hash: fill(0x71) })

const chain = {
  name: 'five events over two streams, the third a tombstone whose ttl is over',
  heads: [],
  floor: 0,
  records: hex(Buffer.concat([record(one, 1), record(two, 2), record(three, 3, { tombstone: true }), record(four, 4), record(five, 5)])),
  events: [one, two, three, four, five].map((e) => ({ header: hex(e.header), payload_hash: hex(sha256(e.payload)), event_hash: hex(e.event_hash), sig: hex(e.sig) })),
  items: [opened(one), opened(two), gap(three, 3, 3, 'expired'), expired(three), opened(four), opened(five)],
  heads_after: [head(five, 5), head(four, 4)],
}

const next = { device: a, device_seq: 6, stream_id: 'clip', epoch: 1, prev_hash: five.event_hash }
const honest = seal({ ...next, ttl: 3600 })
const flipped = Buffer.from(honest.payload)
flipped[20] = (flipped[20] ?? 0) ^ 1
const after = (name: string, event: Event, items: object[], edit: Parameters<typeof record>[2] = {}, floor = 0) => ({
  name,
  heads: [head(five, 5)],
  floor,
  records: hex(record(event, 9, edit)),
  items,
})
const refused = (name: string, event: Event, reason: string, edit: Parameters<typeof record>[2] = {}) =>
  after(name, event, [alarm({ ...event, ...edit }, 9, reason)], edit)

const foreignKey = seal({ ...next, event_key: eventKey(b, 1) })
const dirty = seal({ ...next, plaintext: Buffer.concat([lp(Buffer.from('dirty')), Buffer.alloc(22), Buffer.of(1)]) })
const loose = seal({ ...next, plaintext: Buffer.concat([lp(Buffer.from('loose')), Buffer.alloc(64 - 9)]) })
const long = seal({ ...next, plaintext: Buffer.concat([uint(29, 4), Buffer.alloc(28)]) })
const short = seal({ ...next, payload: fill(0x77, 27) })
const forged = seal({ ...next, sign_seed: b.seed })
const stale = seal({ ...next, device_seq: 5 })
const fell = seal({ ...next, epoch: 0 })
const foreign = seal({ ...next, device: ghost, prev_hash: null })
const early = seal({ device: b, device_seq: 1, stream_id: 'clip', epoch: 0 })
const late = seal({ device: c, device_seq: 1, stream_id: 'clip', epoch: 2 })
const above = seal({ device: c, device_seq: 3, stream_id: 'clip', prev_hash: pinned.event_hash })
const unlisted = seal({ device: c, device_seq: 1, stream_id: 'notes' })
const rewritten = seal({ device: c, device_seq: 2, stream_id: 'clip', prev_hash: fill(0x71) })
const missing = seal({ ...next, device_seq: 8, prev_hash: fill(0x72) })
const restarted = seal({ ...next, prev_hash: null })
const over = seal({ ...next, ttl: 60 })
const kept = seal({ ...next, ttl: 3600 })

const pages = [
  chain,
  after('the next event of a known chain', honest, [opened(honest)]),
  after('up to the pin of a revoked device', pinned, [opened(pinned)]),
  after('an event past its ttl', over, [gap(over, 9, 6, 'expired'), expired(over)]),
  after('a tombstone whose ttl is not over', kept, [gap(kept, 9, 6, 'retention'), expired(kept)], { tombstone: true }),
  after('a missing event that nothing explains', missing, [gap(missing, 9, 6, 'unexplained'), opened(missing)]),
  after('a missing event that can lie below the floor', missing, [gap(missing, 9, 6, 'retention'), opened(missing)], {}, 6),
  after('no prev_hash on a known chain', restarted, [gap(restarted, 9, 6, 'restart'), opened(restarted)]),
]

const invalid = [
  refused('a bit of the payload flipped', honest, 'invalid_signature', { payload: flipped }),
  refused('ttl removed', honest, 'invalid_signature', { ttl: null }),
  refused('ttl changed', honest, 'invalid_signature', { ttl: 7200 }),
  refused('moved to another stream', honest, 'invalid_signature', { stream_id: 'notes' }),
  refused('another type', honest, 'invalid_signature', { type: 'ppa' }),
  refused('said to be of another device', honest, 'invalid_signature', { device_id: b.device_id }),
  refused('a later device_seq', honest, 'invalid_signature', { device_seq: 7 }),
  refused('another epoch', honest, 'invalid_signature', { epoch: 2 }),
  refused('link removed', honest, 'invalid_signature', { prev_hash: null }),
  refused('another event_id', honest, 'invalid_signature', { event_id: two.event_id }),
  refused('signed by another device of the account', forged, 'invalid_signature'),
  refused('a tombstone of other bytes', honest, 'invalid_signature', { tombstone: true, payload: flipped }),
  refused('sealed under the key of another device', foreignKey, 'decrypt_failed'),
  refused('a payload too short to hold a plaintext', short, 'decrypt_failed'),
  refused('a padding byte that is not zero', dirty, 'invalid_padding'),
  refused('padded to another length', loose, 'invalid_padding'),
  refused('data longer than the plaintext', long, 'invalid_padding'),
  refused('a device_seq that does not rise', stale, 'sequence_not_rising'),
  refused('an epoch below the one before', fell, 'epoch_fell'),
  refused('a device that the log does not know', foreign, 'unknown_device'),
  refused('an epoch before the device was added', early, 'inactive_device'),
  refused('an epoch from the revocation on', late, 'inactive_device'),
  refused('above the pin', above, 'outside_pins'),
  refused('a stream without a pin', unlisted, 'outside_pins'),
  refused('another event at the pin', rewritten, 'pin_mismatch'),
]

const sent = seal({ device: a, device_seq: 1, stream_id: 'clip', ttl: 1 })
const encodings = [
  { name: 'ttl 0', code: 'invalid_message', hex: hex(record(sent, 1, { ttl: 0 })) },
  { name: 'device_seq 0', code: 'invalid_message', hex: hex(record(sent, 1, { device_seq: 0 })) },
  { name: 'empty stream_id', code: 'invalid_message', hex: hex(record(sent, 1, { stream_id: '' })) },
  { name: 'stream_id of 65 characters', code: 'invalid_message', hex: hex(record(sent, 1, { stream_id: 's'.repeat(65) })) },
  { name: 'a space in type', code: 'invalid_message', hex: hex(record(sent, 1, { type: 'a b' })) },
  { name: 'a byte above 127 in type', code: 'invalid_message', hex: hex(record(sent, 1, { type_bytes: Buffer.of(0x61, 0xe9) })) },
  { name: 'position above 2^53-1', code: 'invalid_message', hex: hex(record(sent, 2 ** 53)) },
  { name: 'tombstone flag over a payload', code: 'invalid_message', hex: hex(record(sent, 1, { flags: 13 })) },
  { name: 'prev_hash flag without one', code: 'invalid_message', hex: hex(record(sent, 1, { flags: 7 })) },
]

const world = {
  note: 'made with node:crypto; each page stands alone: heads known before, records as delivered, items to be said; data and bytes in hex',
  user_id: b64(user),
  log_seq: 2,
  now_ms: NOW,
  epochs: epochs.map(({ epoch, key, entry_hash }) => ({ epoch, key: hex(key), entry_hash: hex(entry_hash) })),
  devices: [
    { device_id: a.device_id, sign_pub: hex(publicKey(a.seed)), added: 0, revoked: null },
    { device_id: b.device_id, sign_pub: hex(publicKey(b.seed)), added: 1, revoked: null },
    {
      device_id: c.device_id,
      sign_pub: hex(publicKey(c.seed)),
      added: 0,
      revoked: { log_seq: 2, last_device_seq: 2, heads: [{ stream_id: 'clip', device_seq: 2, event_hash: hex(pinned.event_hash) }] },
    },
  ],
}
writeFileSync(new URL('../events.json', import.meta.url), `${JSON.stringify({ ...world, pages, invalid, encodings }, null, 1)}\n`)
