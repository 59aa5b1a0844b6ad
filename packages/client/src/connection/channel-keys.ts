/**
 * The keys of one connection (protocol.md §4): handshake, record layer, rekey. Takes and gives bytes; knows no socket and no
 * state of the session.
 *
 * Invariants: a server_hello answers one client_hello, once; frames are sealed under the new keys from `switchTo` on and opened
 * under them from the first frame of their generation on, which `fresh` marks until `establish`.
 */
import {
  type Bytes,
  type ClientAuthBody,
  type ClientHandshake,
  concat,
  type Crypto,
  createClientAuth,
  decodeHello,
  encodeMessage,
  finishServerHello,
  genOf,
  OpenCipher,
  SealCipher,
  SealpostError,
  type ServerHeadOf,
  type SessionKeys,
  startHandshake,
  utf8,
  viewOf,
} from '@sealpost/protocol'
import type { Identity } from '../ports.ts'

/** Keys that a server_hello gave and the client_auth that answers it, not sealed yet. */
export type Proof = { keys: SessionKeys & { server_time: number }; auth: Bytes }

export type ChannelKeys = {
  /** A client_hello waits for its server_hello. */
  readonly asked: boolean
  /** Generation of what arrives; null before the first handshake. */
  readonly gen: number | null
  /** The first frame of a generation says that it is established, and nothing else. */
  readonly fresh: boolean
  /** As many frames are sealed, or opened, as the server allows under one key. */
  readonly seal_used: boolean
  readonly open_used: boolean
  /** The text of client_hello. */
  startHello(): Promise<string>
  /** Verifies the server and takes the keys. The time of the server, Unix ms. */
  finishHello(text: string): Promise<number>
  /** client_auth of the first handshake. */
  prove(body: ClientAuthBody): Promise<Bytes>
  /** The message that asks for new keys. */
  startRekey(session_id: string): Promise<Bytes>
  finishRekey(head: ServerHeadOf<'server_hello'>, session_id: string): Promise<Proof>
  switchTo(keys: SessionKeys): void
  establish(frames_max: number): void
  seal(message: Bytes): Bytes | Promise<Bytes>
  open(frame: Bytes): Bytes | Promise<Bytes>
}

/** `identity`: as stored now, the pinned key may change between connections. */
export function createChannelKeys(crypto: Crypto, identity: () => Identity): ChannelKeys {
  let handshake: ClientHandshake | null = null
  let keys: SessionKeys | null = null
  let seal: SealCipher | null = null
  let open: OpenCipher | null = null
  /** Of the generation to come: the server switches with its session_established. */
  let next: { open: OpenCipher; keys: SessionKeys } | null = null
  let fresh = false
  let frames_max = Number.POSITIVE_INFINITY

  function finish(head: () => ServerHeadOf<'server_hello'>): ReturnType<typeof finishServerHello> {
    if (handshake === null) throw new SealpostError('invalid_message', 'a server_hello that nobody asked for')
    const answered = handshake
    handshake = null
    return finishServerHello(crypto, answered, head(), identity().server_key)
  }

  function current(): SessionKeys {
    if (keys === null) throw new SealpostError('internal', 'there are no keys before the handshake')
    return keys
  }

  return {
    get asked() {
      return handshake !== null
    },
    get gen() {
      return keys?.gen ?? null
    },
    get fresh() {
      return fresh
    },
    get seal_used() {
      return (seal?.counter ?? 0) >= frames_max
    },
    get open_used() {
      return (open?.counter ?? 0) >= frames_max
    },
    async startHello() {
      handshake = await startHandshake(crypto)
      return new TextDecoder().decode(handshake.hello)
    },
    async finishHello(text) {
      const given = await finish(() => decodeHello('server_hello', utf8(text)))
      keys = given
      seal = new SealCipher(crypto.aesGcmKey(given.c2s), given.gen)
      open = new OpenCipher(crypto.aesGcmKey(given.s2c), given.gen)
      return given.server_time
    },
    async prove(body) {
      return encodeMessage(await createClientAuth(crypto, current(), identity().sign_seed, body))
    },
    async startRekey(session_id) {
      const { th, gen } = current()
      handshake = await startHandshake(crypto, { session_id, prev_th: th, gen: gen + 1 })
      const length = new Uint8Array(4)
      viewOf(length).setUint32(0, handshake.hello.length)
      return concat(length, handshake.hello)
    },
    async finishRekey(head, session_id) {
      const { sign_seed, user_id, device_id } = identity()
      const given = await finish(() => head)
      return { keys: given, auth: encodeMessage(await createClientAuth(crypto, given, sign_seed, { user_id, device_id, session_id })) }
    },
    switchTo(given) {
      seal = new SealCipher(crypto.aesGcmKey(given.c2s), given.gen)
      next = { open: new OpenCipher(crypto.aesGcmKey(given.s2c), given.gen), keys: given }
    },
    establish(max) {
      fresh = false
      frames_max = max
    },
    seal(message) {
      if (seal === null) throw new SealpostError('internal', 'there are no keys before the handshake')
      return seal.seal(message)
    },
    open(frame) {
      if (next !== null && genOf(frame) === next.open.gen) {
        open = next.open
        keys = next.keys
        next = null
        fresh = true
      }
      if (open === null) throw new SealpostError('invalid_message', 'a sealed frame before the handshake')
      return open.open(frame)
    },
  }
}
