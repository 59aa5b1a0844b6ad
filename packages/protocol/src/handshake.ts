/**
 * The handshake, both ends side by side (protocol.md §4): SIGMA with four messages, and the same four again as a rekey
 * inside the sealed channel.
 *
 *   th    = SHA256(tuple("hs", previous th or empty, JSON bytes of client_hello, server_hello.body bytes))
 *   sig_s = Ed25519(server_key, tuple("hs server", th))             k_dir = HKDF(dh, th, tuple("hs c2s" | "hs s2c"))
 *   sig_c = Ed25519(device_sign, tuple("hs client", th, client_auth.body bytes))
 *
 * Invariant: each side signs the raw bytes of both hellos, so nothing that either end read can have been changed on the
 * way. Ephemeral seeds and shared secrets are wiped as soon as the keys are derived.
 */
import { type Bytes, equalBytes, fromBase64url, parseJson, toBase64url, utf8, viewOf } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'
import { type ClientHeadOf, decodeHello, SHAPES, type ServerHeadOf } from './messages.ts'
import { check, type Of } from './schema.ts'
import { signObject, verifyObject } from './signed.ts'
import { tuple } from './tuple.ts'

export const PROTOCOL_VERSION = 1

/** What both ends hold after the two hellos: transcript hash and one 32-byte key per direction. */
export type SessionKeys = { th: Bytes; c2s: Bytes; s2c: Bytes; gen: number }

/** The client between its hello and the server's. `hello` are the JSON bytes to send: as a text frame, or as the head of a sealed message in a rekey. */
export type ClientHandshake = { hello: Bytes; eph_seed: Bytes; prev_th: Bytes | null; gen: number }

export type ClientAuthBody = Of<typeof SHAPES.client_auth>
export type RekeyAuthBody = Of<typeof SHAPES.client_auth_rekey>

/** A rekey of a session: the transcript hash of its current keys and the generation to come. */
export type RekeyBasis = { session_id: string; prev_th: Bytes; gen: number }

// ---------------------------------------------------------------- client

export async function startHandshake(crypto: Crypto, rekey?: RekeyBasis): Promise<ClientHandshake> {
  const eph_seed = crypto.random(32)
  const head: ClientHeadOf<'client_hello'> = {
    type: 'client_hello',
    versions: [PROTOCOL_VERSION],
    client_eph: toBase64url(await crypto.x25519Public(eph_seed)),
    client_nonce: toBase64url(crypto.random(32)),
    ...(rekey === undefined ? {} : { session_id: rekey.session_id }),
  }
  return { hello: utf8(JSON.stringify(head)), eph_seed, prev_th: rekey?.prev_th ?? null, gen: checkGen(rekey?.gen ?? 0) }
}

/**
 * Checks the server's answer and derives the keys; usable once. `server_time` is in ms. Throws `server_identity` (another key
 * than the pinned one), `invalid_signature`, `unsupported_version`, `invalid_message`.
 */
export async function finishServerHello(
  crypto: Crypto,
  state: ClientHandshake,
  server_hello: ServerHeadOf<'server_hello'>,
  pinned_server_key: Bytes,
): Promise<SessionKeys & { server_time: number }> {
  try {
    const bodyBytes = decoded(server_hello.body)
    const th = await transcriptHash(crypto, state.prev_th, state.hello, bodyBytes)
    if (!(await crypto.ed25519Verify(pinned_server_key, tuple('hs server', th), decoded(server_hello.sig, 64)))) {
      // the bytes are not vouched for: they are looked at only to say which of the two failures this is
      throw namesOtherKey(bodyBytes, pinned_server_key)
        ? otherKey()
        : new SealpostError('invalid_signature', "the server's signature does not hold")
    }
    const body = checkServerHello(bodyBytes)
    if (!equalBytes(fromBase64url(body.server_key, 32), pinned_server_key)) throw otherKey()
    if (body.gen !== state.gen) throw new SealpostError('invalid_message', 'server_hello.gen is not the generation to come')
    const keys = await deriveKeys(crypto, state.eph_seed, fromBase64url(body.server_eph, 32), th, state.gen)
    return { ...keys, server_time: body.server_time }
  } finally {
    state.eph_seed.fill(0)
  }
}

/** The client's proof, bound to this channel by the transcript hash. A full body opens a session, the short one rekeys it. */
export async function createClientAuth(
  crypto: Crypto,
  keys: SessionKeys,
  sign_seed: Bytes,
  body: ClientAuthBody | RekeyAuthBody,
): Promise<ClientHeadOf<'client_auth'>> {
  return { type: 'client_auth', ...(await signObject(crypto, 'hs client', keys.th, sign_seed, body)) }
}

// ---------------------------------------------------------------- server

/**
 * Answers the JSON bytes of a client_hello, exactly as received. Without `rekey` the hello must name no session; with it, that
 * session. Throws `unsupported_version`, or `invalid_message` for all else, a low-order key included.
 */
export async function answerClientHello(
  crypto: Crypto,
  hello: Bytes,
  server: { sign_seed: Bytes; server_key: Bytes },
  now_ms: number,
  rekey?: RekeyBasis,
): Promise<{ hello: ServerHeadOf<'server_hello'>; keys: SessionKeys }> {
  const head = readClientHello(hello)
  if (head.session_id !== rekey?.session_id) throw new SealpostError('invalid_message', 'client_hello.session_id is not of this session')
  const gen = checkGen(rekey?.gen ?? 0)
  const eph_seed = crypto.random(32)
  try {
    const body: Of<typeof SHAPES.server_hello> = {
      type: 'server_hello',
      v: PROTOCOL_VERSION,
      server_eph: toBase64url(await crypto.x25519Public(eph_seed)),
      server_nonce: toBase64url(crypto.random(32)),
      server_key: toBase64url(server.server_key),
      server_time: now_ms,
      gen,
    }
    const bodyBytes = utf8(JSON.stringify(body))
    const th = await transcriptHash(crypto, rekey?.prev_th ?? null, hello, bodyBytes)
    const keys = await deriveKeys(crypto, eph_seed, fromBase64url(head.client_eph, 32), th, gen)
    const sig = await crypto.ed25519Sign(server.sign_seed, tuple('hs server', th))
    return { hello: { type: 'server_hello', body: toBase64url(bodyBytes), sig: toBase64url(sig) }, keys }
  } finally {
    eph_seed.fill(0)
  }
}

/** Parses a first-contact or rekey hello; throws `unsupported_version` or `invalid_message`. */
export function readClientHello(hello: Bytes): ClientHeadOf<'client_hello'> {
  if (hello.length > LIMITS.handshakeFrameBytesMax) throw new SealpostError('invalid_message', 'client_hello is too long')
  const head = typed(() => decodeHello('client_hello', hello))
  if (!head.versions.includes(PROTOCOL_VERSION)) throw new SealpostError('unsupported_version', 'no common protocol version')
  return head
}

/** Parses only: who claims to be there. The proof is `verifyClientAuth`. Throws `invalid_message`. */
export function readClientAuth(head: ClientHeadOf<'client_auth'>): ClientAuthBody {
  return typed(() => check(SHAPES.client_auth, parseJson(fromBase64url(head.body)), 'client_auth'))
}

/** Parses only, as `readClientAuth`. Throws `invalid_message`. */
export function readRekeyAuth(head: ClientHeadOf<'client_auth'>): RekeyAuthBody {
  return typed(() => check(SHAPES.client_auth_rekey, parseJson(fromBase64url(head.body)), 'client_auth'))
}

/** False when the device did not sign this body on this channel. */
export async function verifyClientAuth(
  crypto: Crypto,
  keys: SessionKeys,
  head: ClientHeadOf<'client_auth'>,
  sign_pub: Bytes,
): Promise<boolean> {
  return (await verifyObject(crypto, 'hs client', keys.th, sign_pub, head)) !== null
}

/** The JSON bytes of a hello inside a sealed message (`u32be(len) || head`), as the transcript wants them. Throws `invalid_message`. */
export function helloOf(message: Bytes): Bytes {
  if (message.length < 4 || viewOf(message).getUint32(0) !== message.length - 4)
    throw new SealpostError('invalid_message', 'a hello is a head without a body')
  return message.subarray(4)
}

// ---------------------------------------------------------------- shared

async function transcriptHash(crypto: Crypto, prev_th: Bytes | null, client_hello: Bytes, server_body: Bytes): Promise<Bytes> {
  return crypto.sha256(tuple('hs', prev_th, client_hello, server_body))
}

async function deriveKeys(crypto: Crypto, seed: Bytes, peer: Bytes, th: Bytes, gen: number): Promise<SessionKeys> {
  const dh = await crypto.x25519(seed, peer)
  if (equalBytes(dh, new Uint8Array(32))) throw new SealpostError('invalid_message', 'the key exchange failed')
  const c2s = await crypto.hkdf(dh, th, tuple('hs c2s'))
  const s2c = await crypto.hkdf(dh, th, tuple('hs s2c'))
  dh.fill(0)
  return { th, c2s, s2c, gen }
}

function checkServerHello(bytes: Bytes): Of<typeof SHAPES.server_hello> {
  const value = typed(() => parseJson(bytes))
  // a version of its own comes first: what the other fields of a later version look like is not known
  if (typeof value === 'object' && value !== null && 'v' in value && Number.isSafeInteger(value.v) && value.v !== PROTOCOL_VERSION)
    throw new SealpostError('unsupported_version', 'the server chose a version that was not offered')
  return check(SHAPES.server_hello, value, 'server_hello')
}

function namesOtherKey(bytes: Bytes, pinned: Bytes): boolean {
  try {
    const value = parseJson(bytes)
    const key = typeof value === 'object' && value !== null && 'server_key' in value ? value.server_key : undefined
    return typeof key === 'string' && !equalBytes(fromBase64url(key, 32), pinned)
  } catch {
    return false
  }
}

function otherKey(): SealpostError {
  return new SealpostError('server_identity', 'the server does not have the key that this account knows')
}

function checkGen(gen: number): number {
  if (!Number.isInteger(gen) || gen < 0 || gen > LIMITS.genMax)
    throw new SealpostError('invalid_message', 'there is no such generation of keys')
  return gen
}

function decoded(text: string, length?: number): Bytes {
  return typed(() => fromBase64url(text, length))
}

/** On this path every malformed input is one failure, whatever layer noticed it. */
function typed<T>(read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (cause instanceof SealpostError && cause.code === 'invalid_encoding')
      throw new SealpostError('invalid_message', cause.message, { cause })
    throw cause
  }
}
