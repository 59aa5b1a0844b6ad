/**
 * Makes `vectors/handshake.json`: a session, its rekey, a pairing, and what must be refused, with the code of each.
 * A second implementation of protocol.md §1, §4 and §10 on node:crypto alone; it imports nothing of `packages/`.
 *
 *   node vectors/make/handshake.ts
 */
import { createCipheriv, createHash, createPrivateKey, createPublicKey, diffieHellman, hkdfSync, pbkdf2Sync, sign } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'

type Field = string | number | Uint8Array | null

const seed = (byte: number, length = 32): Buffer => Buffer.alloc(length, byte)
const b64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
const hkdf = (ikm: Uint8Array, salt: Uint8Array, info: Uint8Array): Buffer => Buffer.from(hkdfSync('sha256', ikm, salt, info, 32))
const lp = (bytes: Uint8Array): Buffer => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}
const u64 = (value: number): Buffer => {
  const out = Buffer.alloc(8)
  out.writeBigUInt64BE(BigInt(value))
  return out
}
const tuple = (label: string, ...fields: Field[]): Buffer =>
  Buffer.concat(
    [Buffer.from(`sealpost/1 ${label}`), ...fields.map((f) => (f === null ? Buffer.alloc(0) : typeof f === 'string' ? Buffer.from(f) : typeof f === 'number' ? u64(f) : f))].map(lp),
  )
const privateKey = (oid: '70' | '6e', raw: Uint8Array) =>
  createPrivateKey({ key: Buffer.concat([Buffer.from(`302e020100300506032b65${oid}04220420`, 'hex'), raw]), format: 'der', type: 'pkcs8' })
const spki = (key: ReturnType<typeof privateKey>): Buffer => createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(-32)
const edPublic = (raw: Uint8Array): Buffer => spki(privateKey('70', raw))
const xPublic = (raw: Uint8Array): Buffer => spki(privateKey('6e', raw))
const edSign = (raw: Uint8Array, message: Uint8Array): Buffer => sign(null, message, privateKey('70', raw))
const exchange = (raw: Uint8Array, peer: Uint8Array): Buffer =>
  diffieHellman({
    privateKey: privateKey('6e', raw),
    publicKey: createPublicKey({ key: Buffer.concat([Buffer.from('302a300506032b656e032100', 'hex'), peer]), format: 'der', type: 'spki' }),
  })
const gcm = (key: Uint8Array, iv: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Buffer => {
  const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(aad)
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
}
const frame = (key: Uint8Array, gen: number, counter: number, message: Uint8Array): string =>
  hex(Buffer.concat([Buffer.of(gen), gcm(key, Buffer.concat([Buffer.alloc(4), u64(counter)]), Buffer.of(gen), message)]))
const message = (head: object | string, body: Uint8Array = Buffer.alloc(0)): Buffer =>
  Buffer.concat([lp(Buffer.from(typeof head === 'string' ? head : JSON.stringify(head))), body])

// ---------------------------------------------------------------- a session and its rekey

const known = JSON.parse(readFileSync(new URL('../protocol.json', import.meta.url), 'utf8'))
const serverSeed = seed(3)
const serverKey = edPublic(serverSeed)
const deviceSeed = seed(2)
const userId = b64(edPublic(seed(1)))
const deviceId = known.event.json.device_id as string
const sessionId = '00112233445566778899aabbccddeeff'

function exchangeKeys(prevTh: Uint8Array | null, clientSeed: Uint8Array, serverEph: Uint8Array, clientHello: string, body: string) {
  const th = sha256(tuple('hs', prevTh, Buffer.from(clientHello), Buffer.from(body)))
  const dh = exchange(clientSeed, xPublic(serverEph))
  return { th, dh, c2s: hkdf(dh, th, tuple('hs c2s')), s2c: hkdf(dh, th, tuple('hs s2c')), sig: edSign(serverSeed, tuple('hs server', th)) }
}
const clientHello = (eph: Uint8Array, nonce: Uint8Array, session?: string): string =>
  JSON.stringify({ type: 'client_hello', versions: [1], client_eph: b64(xPublic(eph)), client_nonce: b64(nonce), ...(session ? { session_id: session } : {}) })
const serverBody = (eph: Uint8Array, nonce: Uint8Array, gen: number, time: number, over: object = {}): string =>
  JSON.stringify({ type: 'server_hello', v: 1, server_eph: b64(xPublic(eph)), server_nonce: b64(nonce), server_key: b64(serverKey), server_time: time, gen, ...over })

const hello0 = clientHello(seed(7), seed(9))
const body0 = serverBody(seed(8), seed(0x0a), 0, 1_764_000_000_000)
const first = exchangeKeys(null, seed(7), seed(8), hello0, body0)
if (hex(first.th) !== known.handshake.th) throw new Error('this implementation disagrees with protocol.json')

const hello1 = clientHello(seed(0x17), seed(0x19), sessionId)
const body1 = serverBody(seed(0x18), seed(0x1a), 1, 1_764_003_600_000)
const second = exchangeKeys(first.th, seed(0x17), seed(0x18), hello1, body1)
const rekeyAuthBody = JSON.stringify({ user_id: userId, device_id: deviceId, session_id: sessionId })
const rekeySig = edSign(deviceSeed, tuple('hs client', second.th, Buffer.from(rekeyAuthBody)))
const authMessage = message({ type: 'client_auth', body: b64(Buffer.from(rekeyAuthBody)), sig: b64(rekeySig) })
const establishedMessage = message({ type: 'session_established', session_id: sessionId, gen: 1, rekey_after_s: 3600, rekey_after_frames: 1_048_576 })
const pingMessage = message({ type: 'ping', t: 1 })
const pongMessage = message({ type: 'pong', t: 1 })

const rekey = {
  session_id: sessionId,
  prev_th: hex(first.th),
  prev_key_c2s: hex(first.c2s),
  prev_key_s2c: hex(first.s2c),
  client_eph_seed: hex(seed(0x17)),
  server_eph_seed: hex(seed(0x18)),
  client_nonce: hex(seed(0x19)),
  server_nonce: hex(seed(0x1a)),
  server_sign_seed: hex(serverSeed),
  device_seed: hex(deviceSeed),
  gen: 1,
  client_hello: hello1,
  frame_client_hello: frame(first.c2s, 0, 2, message(hello1)),
  server_hello_body: body1,
  server_sig: hex(second.sig),
  frame_server_hello: frame(first.s2c, 0, 2, message({ type: 'server_hello', body: b64(Buffer.from(body1)), sig: b64(second.sig) })),
  th: hex(second.th),
  dh: hex(second.dh),
  key_c2s: hex(second.c2s),
  key_s2c: hex(second.s2c),
  client_auth_body: rekeyAuthBody,
  client_sig: hex(rekeySig),
  message_client_auth: hex(authMessage),
  frame_client_auth: frame(second.c2s, 1, 0, authMessage),
  message_session_established: hex(establishedMessage),
  frame_session_established: frame(second.s2c, 1, 0, establishedMessage),
  message_ping: hex(pingMessage),
  frame_ping: frame(second.c2s, 1, 1, pingMessage),
  message_pong: hex(pongMessage),
  frame_pong: frame(second.s2c, 1, 1, pongMessage),
}

// ---------------------------------------------------------------- a pairing

const code = 'K7QM-3XWP-9RTB-D2FH'
const k = pbkdf2Sync(code.replaceAll('-', ''), tuple('pair'), 200_000, 32, 'sha256')
const a2n = hkdf(k, Buffer.alloc(0), tuple('pair a2n'))
const n2a = hkdf(k, Buffer.alloc(0), tuple('pair n2a'))
const slotBox = (key: Uint8Array, label: string, iv: number, value: unknown): Buffer =>
  Buffer.concat([seed(iv, 12), gcm(key, seed(iv, 12), tuple(label), Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)))])
const nonce = seed(0x0b)
const newDeviceSeed = seed(0x22)
const newDeviceId = '5a0f8f6e-1b1a-4c55-9d3e-0a1b2c3d4e5f'
const kemPub = seed(0x0d, 1216)
const offer = {
  v: 1,
  user_id: userId,
  log_seq: 3,
  log_head: b64(seed(5)),
  server_key: b64(serverKey),
  commit: b64(sha256(tuple('pair-commit', nonce))),
  expires_at: 1_764_000_600_000,
}
const offerBox = slotBox(a2n, 'pair offer', 0x31, offer)
const uuidBytes = (uuid: string): Buffer => Buffer.from(uuid.replaceAll('-', ''), 'hex')
const join = {
  v: 1,
  offer_hash: b64(sha256(offerBox)),
  device: {
    device_id: newDeviceId,
    sign_pub: b64(edPublic(newDeviceSeed)),
    kem_pub: b64(kemPub),
    self_sig: b64(edSign(newDeviceSeed, tuple('device', Buffer.from(userId, 'base64url'), uuidBytes(newDeviceId), edPublic(newDeviceSeed), kemPub))),
    name: 'phone',
    device_type: 'mobile',
  },
}
const joinBox = slotBox(n2a, 'pair join', 0x32, join)
const reveal = { nonce: b64(nonce) }
const done = { log_seq: 4, entry_hash: b64(seed(0x0f)) }
const phrase = sha256(tuple('sas', sha256(offerBox), sha256(joinBox), nonce))
const emoji = JSON.parse(readFileSync(new URL('../emoji.json', import.meta.url), 'utf8')) as { emoji: string; name: string }[]
const indices = [...phrase.subarray(0, 4)].map((byte) => byte & 63)
const pairing = {
  note: 'kem_pub is filler: no box is sealed to it here',
  code,
  mailbox_id: b64(hkdf(k, Buffer.alloc(0), tuple('pair mailbox')).subarray(0, 16)),
  key_a2n: hex(a2n),
  key_n2a: hex(n2a),
  nonce: hex(nonce),
  slots: {
    offer: { json: JSON.stringify(offer), iv: hex(seed(0x31, 12)), box: hex(offerBox) },
    join: { json: JSON.stringify(join), iv: hex(seed(0x32, 12)), box: hex(joinBox) },
    reveal: { json: JSON.stringify(reveal), iv: hex(seed(0x33, 12)), box: hex(slotBox(a2n, 'pair reveal', 0x33, reveal)) },
    done: { json: JSON.stringify(done), iv: hex(seed(0x34, 12)), box: hex(slotBox(a2n, 'pair done', 0x34, done)) },
  },
  indices,
  emoji: indices.map((index) => emoji[index]?.emoji),
  names: indices.map((index) => emoji[index]?.name),
}

// ---------------------------------------------------------------- what must be refused

const helloOf = (over: object): string => JSON.stringify({ ...JSON.parse(hello0), ...over })
const signed = (body: string, key: Uint8Array = serverSeed, hello = hello0) => ({
  client_hello: hello,
  body: b64(Buffer.from(body)),
  sig: b64(edSign(key, tuple('hs server', sha256(tuple('hs', null, Buffer.from(hello), Buffer.from(body)))))),
})
const genuine = signed(body0)
const otherServer = seed(0x23)
const flip = (text: string, at: number): string => {
  const bytes = Buffer.from(text, 'hex')
  const place = at < 0 ? bytes.length + at : at
  bytes[place] = (bytes[place] ?? 0) ^ 1
  return hex(bytes)
}
const authBody = known.handshake.client_auth_body as string
const authOf = (body: string, th: Uint8Array = first.th, key: Uint8Array = deviceSeed) => ({ body: b64(Buffer.from(body)), sig: b64(edSign(key, tuple('hs client', th, Buffer.from(body)))) })
const without = (json: string, field: string): string => {
  const { [field]: _, ...rest } = JSON.parse(json)
  return JSON.stringify(rest)
}
const f0 = known.handshake.frame_client_auth as string
const f1 = known.handshake.frame_event as string

const invalid = {
  client_hello: [
    { name: 'versions without 1', json: helloOf({ versions: [2] }), code: 'unsupported_version' },
    { name: 'no versions', json: without(hello0, 'versions'), code: 'invalid_message' },
    { name: 'ephemeral key of low order (zero)', json: helloOf({ client_eph: b64(seed(0)) }), code: 'invalid_message' },
    { name: 'ephemeral key of 31 bytes', json: helloOf({ client_eph: b64(seed(7, 31)) }), code: 'invalid_message' },
    { name: 'a session_id outside a rekey', json: hello1, code: 'invalid_message' },
    { name: 'another type', json: helloOf({ type: 'ping', t: 1 }), code: 'invalid_message' },
    { name: 'not JSON', json: hello0.slice(0, -1), code: 'invalid_message' },
  ],
  server_hello: [
    { name: 'body edited after signing (server_time)', ...genuine, body: b64(Buffer.from(serverBody(seed(8), seed(0x0a), 0, 1_764_000_000_001))), code: 'invalid_signature' },
    { name: 'ephemeral swapped after signing', ...genuine, body: b64(Buffer.from(serverBody(seed(0x28), seed(0x0a), 0, 1_764_000_000_000))), code: 'invalid_signature' },
    { name: 'answer to another client_hello', ...genuine, client_hello: clientHello(seed(7), seed(0x29)), code: 'invalid_signature' },
    { name: 'signed by a key that is not pinned', ...signed(serverBody(seed(8), seed(0x0a), 0, 1_764_000_000_000, { server_key: b64(edPublic(otherServer)) }), otherServer), code: 'server_identity' },
    { name: 'the pinned key names another one', ...signed(serverBody(seed(8), seed(0x0a), 0, 1_764_000_000_000, { server_key: b64(edPublic(otherServer)) })), code: 'server_identity' },
    { name: 'version 2 chosen', ...signed(serverBody(seed(8), seed(0x0a), 0, 1_764_000_000_000, { v: 2 })), code: 'unsupported_version' },
    { name: 'generation 1 in a first handshake', ...signed(serverBody(seed(8), seed(0x0a), 1, 1_764_000_000_000)), code: 'invalid_message' },
    { name: 'ephemeral key of low order (zero)', ...signed(serverBody(seed(8), seed(0x0a), 0, 1_764_000_000_000, { server_eph: b64(seed(0)) })), code: 'invalid_message' },
    { name: 'signature of 63 bytes', ...genuine, sig: b64(seed(1, 63)), code: 'invalid_message' },
  ],
  client_auth: [
    { name: 'body edited after signing', ...authOf(authBody), body: b64(Buffer.from(authBody.replace('"log_seq":3', '"log_seq":4'))), code: 'invalid_signature' },
    { name: 'of another session', ...authOf(authBody, second.th), code: 'invalid_signature' },
    { name: 'signed by another device', ...authOf(authBody, first.th, newDeviceSeed), code: 'invalid_signature' },
    { name: 'the server signature in place of the client one', body: b64(Buffer.from(authBody)), sig: b64(first.sig), code: 'invalid_signature' },
    { name: 'no device_id', ...authOf(without(authBody, 'device_id')), code: 'invalid_message' },
    { name: 'device_id in upper case', ...authOf(authBody.replace(deviceId, deviceId.toUpperCase())), code: 'invalid_message' },
    { name: 'a rekey body in a first handshake', ...authOf(rekeyAuthBody), code: 'invalid_message' },
  ],
  frame: [
    { name: 'replayed', key: hex(first.c2s), gen: 0, before: [f0], frame: f0, code: 'decrypt_failed' },
    { name: 'one frame left out', key: hex(first.c2s), gen: 0, before: [], frame: f1, code: 'decrypt_failed' },
    { name: 'a bit of the ciphertext flipped', key: hex(first.c2s), gen: 0, before: [f0], frame: flip(f1, 10), code: 'decrypt_failed' },
    { name: 'a bit of the tag flipped', key: hex(first.c2s), gen: 0, before: [f0], frame: flip(f1, -1), code: 'decrypt_failed' },
    { name: 'sent back to its sender', key: hex(first.s2c), gen: 0, before: [], frame: f0, code: 'decrypt_failed' },
    { name: 'of the older generation after a rekey', key: hex(second.c2s), gen: 1, before: [rekey.frame_client_auth], frame: f1, code: 'invalid_message' },
    { name: 'relabelled as the new generation', key: hex(second.c2s), gen: 1, before: [rekey.frame_client_auth], frame: `01${f1.slice(2)}`, code: 'decrypt_failed' },
    { name: 'too short for a tag', key: hex(first.c2s), gen: 0, before: [], frame: f0.slice(0, 32), code: 'invalid_message' },
    { name: 'empty', key: hex(first.c2s), gen: 0, before: [], frame: '', code: 'invalid_message' },
  ],
  pairing: [
    { name: 'sealed under another code', slot: 'offer', box: hex(slotBox(seed(0x41), 'pair offer', 0x35, offer)), code: 'invalid_box' },
    { name: 'the offer reflected as the join', slot: 'join', box: hex(offerBox), code: 'invalid_box' },
    { name: 'the label of another slot', slot: 'done', box: pairing.slots.reveal.box, code: 'invalid_box' },
    { name: 'a bit flipped', slot: 'join', box: flip(hex(joinBox), 40), code: 'invalid_box' },
    { name: 'too short', slot: 'reveal', box: hex(seed(0, 27)), code: 'invalid_box' },
    { name: 'too long', slot: 'reveal', box: hex(slotBox(a2n, 'pair reveal', 0x36, { ...reveal, x: 'x'.repeat(4096) })), code: 'invalid_box' },
    { name: 'a version 2 offer', slot: 'offer', box: hex(slotBox(a2n, 'pair offer', 0x37, { ...offer, v: 2 })), code: 'invalid_message' },
    { name: 'no commit', slot: 'offer', box: hex(slotBox(a2n, 'pair offer', 0x38, without(JSON.stringify(offer), 'commit'))), code: 'invalid_message' },
    { name: 'not JSON', slot: 'done', box: hex(slotBox(a2n, 'pair done', 0x39, '{')), code: 'invalid_message' },
  ],
}

const out = {
  note: "made by vectors/make/handshake.ts with node:crypto alone; label prefix 'sealpost/1 '; seeds and nonces are repeated bytes, all values hex unless they are JSON text or base64url inside it",
  rekey,
  pairing,
  pinned_server_key: hex(serverKey),
  device_sign_pub: hex(edPublic(deviceSeed)),
  invalid,
}
writeFileSync(new URL('../handshake.json', import.meta.url), `${JSON.stringify(out, null, 1)}\n`)
