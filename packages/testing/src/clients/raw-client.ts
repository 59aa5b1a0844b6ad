/**
 * The protocol by hand over a real WebSocket: no reconnecting, no checks of its own, every message as it came. For tests of
 * the server, also with a client that breaks the rules.
 */
import { randomUUID } from 'node:crypto'
import {
  type Bytes,
  type ClientAuthBody,
  type ClientHead,
  type Cursor,
  createClientAuth,
  decodeHello,
  decodeRecords,
  decodeServerMessage,
  encodeMessage,
  encodeRecord,
  type EventRecord,
  finishServerHello,
  genOf,
  OpenCipher,
  SealCipher,
  type ServerHeadOf,
  type ServerMessage,
  type ServerType,
  type SessionKeys,
  startHandshake,
  utf8Decode,
} from '@sealpost/protocol'
import { nodeCrypto, type SyncAesGcmKey } from '@sealpost/protocol/node'
import type { Socket } from 'node:net'
import { type ClientOptions, WebSocket } from 'ws'
import { makeEventId } from './store-accounts.ts'

export type RawIdentity = { user_id: string; device_id: string; sign_seed: Bytes }

export type RawOptions = {
  /** `http://…` or `ws://…`, without path. */
  url: string
  server_key: Bytes
  identity: RawIdentity
  /** What differs in client_auth. */
  auth?: Partial<ClientAuthBody>
  socket?: ClientOptions
  /** ms to wait for anything. */
  patience?: number
}

export type Closed = { code: number; reason: string }
type MessageOf<T extends ServerType> = Extract<ServerMessage, { head: { type: T } }> & { head: ServerHeadOf<T> }

const PATIENCE_MS = 8_000
export const NO_CURSOR: Cursor = { position: 0, event_id: null, received_at: null, history_id: null }

/** A socket before and beneath the session: frames as bytes. */
export class RawSocket {
  /** With the socket beneath, for what no client should do. */
  readonly ws: WebSocket & { _socket?: Socket }
  readonly opened: Promise<void>
  readonly closed: Promise<Closed>
  /** HTTP status of a refused upgrade. */
  readonly refused: Promise<number>
  readonly #frames: { data: Buffer; binary: boolean }[] = []
  #take: (() => void) | null = null
  #isClosed = false

  constructor(url: string, options: ClientOptions = {}, protocols: string[] = ['sealpost.1'], path = '/api/socket') {
    this.ws = new WebSocket(`${url.replace(/^http/, 'ws')}${path}`, protocols, { maxPayload: 16 * 1_048_576, ...options })
    const opened = Promise.withResolvers<void>()
    const closed = Promise.withResolvers<Closed>()
    const refused = Promise.withResolvers<number>()
    this.opened = opened.promise
    this.closed = closed.promise
    this.refused = refused.promise
    opened.promise.catch(() => {})
    this.ws.on('open', () => opened.resolve())
    this.ws.on('message', (data: Buffer, binary: boolean) => {
      this.#frames.push({ data, binary })
      this.#take?.()
    })
    this.ws.on('unexpected-response', (request, response) => {
      refused.resolve(response.statusCode ?? 0)
      request.destroy()
    })
    this.ws.on('error', (error) => opened.reject(error))
    this.ws.on('close', (code, reason) => {
      this.#isClosed = true
      closed.resolve({ code, reason: reason.toString() })
      this.#take?.()
    })
  }

  /** The next frame; null when the socket is closed. */
  async frame(): Promise<{ data: Buffer; binary: boolean } | null> {
    for (;;) {
      const frame = this.#frames.shift()
      if (frame !== undefined) return frame
      if (this.#isClosed) return null
      await new Promise<void>((resolve) => {
        this.#take = resolve
      })
    }
  }

  send(data: Bytes | string): void {
    this.ws.send(data)
  }

  close(): Promise<Closed> {
    this.ws.terminate()
    return this.closed
  }
}

/** A session: messages of the server wait in `received` until `next` takes them. */
export class RawClient {
  readonly socket: RawSocket
  readonly identity: RawIdentity
  /** In the order of arrival, not taken yet. */
  readonly received: ServerMessage[] = []
  /** Types of all messages so far. */
  readonly types: string[] = []
  keys: SessionKeys
  session_id = ''
  readonly #options: RawOptions
  #sealer: SealCipher<SyncAesGcmKey>
  #opener: OpenCipher<SyncAesGcmKey>
  #nextOpener: OpenCipher<SyncAesGcmKey> | null = null
  #wake: (() => void)[] = []
  #ended: Closed | null = null

  constructor(socket: RawSocket, keys: SessionKeys, options: RawOptions) {
    this.socket = socket
    this.keys = keys
    this.identity = options.identity
    this.#options = options
    this.#sealer = new SealCipher(nodeCrypto.aesGcmKey(keys.c2s), keys.gen)
    this.#opener = new OpenCipher(nodeCrypto.aesGcmKey(keys.s2c), keys.gen)
    void this.#pull()
  }

  get closed(): Promise<Closed> {
    return this.socket.closed
  }

  send(head: ClientHead, body?: Bytes): void {
    this.sendSealed(encodeMessage(head, body))
  }

  sendSealed(message: Bytes): void {
    this.socket.send(this.#sealer.seal(message))
  }

  sendRecords(...records: Bytes[]): void {
    this.send({ type: 'event' }, Buffer.concat(records))
  }

  /** Takes the next message of this type (that fits), whatever came between; fails when it does not come. */
  async next<T extends ServerType>(type: T, fits: (message: MessageOf<T>) => boolean = () => true): Promise<MessageOf<T>> {
    const patience = this.#options.patience ?? PATIENCE_MS
    const until = performance.now() + patience
    for (;;) {
      const at = this.received.findIndex((message) => message.head.type === type && fits(message as MessageOf<T>))
      if (at >= 0) return this.received.splice(at, 1)[0] as MessageOf<T>
      const left = until - performance.now()
      const came = this.received.map((message) => message.head.type).join(', ')
      if (this.#ended !== null) throw new Error(`closed ${this.#ended.code} ${this.#ended.reason} before ${type}; there is: ${came}`)
      if (left <= 0) throw new Error(`no ${type} within ${patience} ms; there is: ${came}`)
      await this.#changed(left)
    }
  }

  /** One page: the response and its records. */
  async replay(
    request: Partial<Extract<ClientHead, { type: 'replay_request' }>> = {},
  ): Promise<{ head: ServerHeadOf<'replay_response'>; records: EventRecord[] }> {
    const id = request.id ?? Math.floor(performance.now() * 1000) % 2 ** 31
    this.send({ type: 'replay_request', last_ack_device_seq: 0, ...request, id })
    const { head, body } = await this.next('replay_response', (message) => message.head.id === id)
    return { head, records: decodeRecords(body) }
  }

  /** Pages to the end. */
  async replayAll(limit = 1_000): Promise<EventRecord[]> {
    const all: EventRecord[] = []
    for (;;) {
      const { head, records } = await this.replay({ limit })
      all.push(...records)
      if (!head.has_more) return all
    }
  }

  /** Renews the keys; data may be sent before and after. */
  async rekey(): Promise<void> {
    const { session_id, identity } = this
    const gen = this.keys.gen + 1
    const hello = await startHandshake(nodeCrypto, { session_id, prev_th: this.keys.th, gen })
    const length = Buffer.alloc(4)
    length.writeUInt32BE(hello.hello.length)
    this.sendSealed(Buffer.concat([length, hello.hello]))
    const answer = await this.next('server_hello')
    const keys = await finishServerHello(nodeCrypto, hello, answer.head, this.#options.server_key)
    const { user_id, device_id, sign_seed } = identity
    const auth = await createClientAuth(nodeCrypto, keys, sign_seed, { user_id, device_id, session_id })
    this.#nextOpener = new OpenCipher(nodeCrypto.aesGcmKey(keys.s2c), keys.gen)
    this.#sealer = new SealCipher(nodeCrypto.aesGcmKey(keys.c2s), keys.gen)
    this.keys = keys
    this.send(auth)
    await this.next('session_established', (message) => message.head.gen === gen)
  }

  close(): Promise<Closed> {
    return this.socket.close()
  }

  async #pull(): Promise<void> {
    for (let frame = await this.socket.frame(); frame !== null; frame = await this.socket.frame()) {
      if (this.#nextOpener !== null && genOf(frame.data) === this.#nextOpener.gen) {
        this.#opener = this.#nextOpener
        this.#nextOpener = null
      }
      const message = decodeServerMessage(this.#opener.open(frame.data))
      this.received.push(message)
      this.types.push(message.head.type)
      for (const wake of this.#wake.splice(0)) wake()
    }
    this.#ended = await this.socket.closed
    for (const wake of this.#wake.splice(0)) wake()
  }

  #changed(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }
}

/** Both hellos; the session is not proven yet. */
export async function startRaw(options: RawOptions): Promise<RawClient> {
  const socket = new RawSocket(options.url, options.socket)
  await socket.opened
  const hello = await startHandshake(nodeCrypto)
  socket.send(utf8Decode(hello.hello))
  const frame = await socket.frame()
  if (frame === null) throw new Error(`closed ${(await socket.closed).code} before server_hello`)
  const keys = await finishServerHello(nodeCrypto, hello, decodeHello('server_hello', frame.data), options.server_key)
  return new RawClient(socket, keys, options)
}

/** client_auth with what `options.auth` changes. */
export async function proveRaw(client: RawClient, options: RawOptions): Promise<void> {
  const { user_id, device_id, sign_seed } = options.identity
  const body: ClientAuthBody = {
    user_id,
    device_id,
    log_seq: null,
    log_head: null,
    cursor: NO_CURSOR,
    last_device_seq: 0,
    features: [],
    client: { name: 'raw', version: '0' },
    ...options.auth,
  }
  client.send(await createClientAuth(nodeCrypto, client.keys, sign_seed, body))
}

/** A whole handshake; fails when the server closes instead. */
export async function connectRaw(options: RawOptions): Promise<RawClient & { established: ServerHeadOf<'session_established'> }> {
  const client = await startRaw(options)
  await proveRaw(client, options)
  const { head } = await client.next('session_established')
  client.session_id = head.session_id
  return Object.assign(client, { established: head })
}

export type RawEvent = {
  epoch?: number
  stream_id?: string
  type?: string
  payload?: Bytes
  ttl?: number
  event_id?: string
  made_at?: number
}

/** A record as a client sends it. Signature and link are random: the server looks at neither. */
export function makeRecord(device_id: string, device_seq: number, event: RawEvent = {}): Bytes {
  return encodeRecord({
    server: null,
    event_id: event.event_id ?? makeEventId(event.made_at ?? Date.now()),
    device_id,
    device_seq,
    epoch: event.epoch ?? 0,
    ttl: event.ttl ?? null,
    prev_hash: null,
    stream_id: event.stream_id ?? 'main',
    type: event.type ?? 'app',
    sig: nodeCrypto.random(64),
    payload: event.payload ?? nodeCrypto.random(60),
    payload_hash: null,
  })
}

export function randomIdentity(): RawIdentity {
  const sign_seed = nodeCrypto.random(32)
  return { user_id: Buffer.from(nodeCrypto.random(32)).toString('base64url'), device_id: randomUUID(), sign_seed }
}
