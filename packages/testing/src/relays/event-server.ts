/** Sockets and REST on one relay, one HTTP server and a real store, for one test file: what both send and follow meets here. */
import { createAssertion, decodeRecords, type EventJson, recordToJson, type SignedObject, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { createMemoryBus } from '../../../server/src/bus/memory-bus.ts'
import { createGateway } from '../../../server/src/gateway/gateway.ts'
import type { GatewayLimits } from '../../../server/src/gateway/limits.ts'
import { createHttp } from '../../../server/src/http/http.ts'
import type { Bus } from '../../../server/src/ports/store.ts'
import type { Relay } from '../../../server/src/relay/relay.ts'
import { createStore, type PostgresStore } from '../../../server/src/store/store.ts'
import { createAccount, type TestAccount, type TestDevice } from '../clients/store-accounts.ts'
import { useDatabase } from '../components/test-database.ts'
import { documents } from './documents.ts'
import { fixedKeys } from './fixed-keys.ts'
import { silent, unaudited } from './silent-log.ts'
import { connectRaw, makeRecord, type RawEvent, type RawOptions } from '../clients/raw-client.ts'
import { openRelay } from './leased-relay.ts'

// oxlint-disable-next-line typescript/no-explicit-any -- what an answer holds is what the tests look at
export type Answered = { status: number; body: any; headers: Record<string, string> }

export type EventServer = {
  readonly store: PostgresStore
  readonly relay: Relay
  readonly bus: Bus
  readonly url: string
  readonly server_key: Uint8Array
  account(devices?: number): Promise<TestAccount>
  connect(account: TestAccount, device?: number, options?: Partial<RawOptions>): Promise<Awaited<ReturnType<typeof connectRaw>>>
  assertion(account: TestAccount, device: number, purpose: string): Promise<SignedObject>
  token(account: TestAccount, device?: number): Promise<string>
  ask(method: string, path: string, token: string | null, body?: unknown): Promise<Answered>
  /** A session over REST; fails when it is refused. */
  session(account: TestAccount, device?: number, last_device_seq?: number): Promise<string>
  follow(token: string, query?: string, last_id?: string): Promise<Followed>
}

export function useEventServer(limits: Partial<GatewayLimits> = {}): EventServer {
  const database = useDatabase()
  const seed = nodeCrypto.random(32)
  const server_key = nodeCrypto.ed25519Public(seed)
  const bus = createMemoryBus()
  const open = new Set<{ close(): unknown }>()
  let made: { store: PostgresStore; relay: Relay; url: string; close(): Promise<void> } | undefined
  const there = () => {
    if (made === undefined) throw new Error('there from the first beforeAll on')
    return made
  }
  beforeAll(async () => {
    const store = await createStore({ connection: database.connection, log: silent })
    const relay = await openRelay({ store, bus, token_key: nodeCrypto.random(32), logger: silent, limits })
    const config = { signup: 'open' as const, trusted_proxies: [], clock_skew_ms: 300_000, quota_bytes: null, docs: true }
    const secrets = { server_key, jwt_sign_seed: nodeCrypto.random(32) }
    const keys = fixedKeys([nodeCrypto.random(32)])
    const http = createHttp({
      documents,
      audit: unaudited,
      store,
      bus,
      relay,
      keys,
      secrets,
      config,
      draining: () => false,
      degraded: () => false,
      logger: silent,
    })
    const gateway = createGateway({
      relay,
      secrets: { server_sign_seed: seed, server_key },
      config: { origins: [], trusted_proxies: [], rekey_after_ms: 3_600_000, rekey_after_frames: 1_048_576 },
      limits,
    })
    gateway.attach(http.server)
    await http.listen({ host: '127.0.0.1', port: 0 })
    const { port } = http.server.address() as AddressInfo
    const close = async (): Promise<void> => {
      await relay.drain()
      await gateway.close()
      await http.close()
      await relay.close()
      await store.close()
      await bus.close()
    }
    made = { store, relay, url: `http://127.0.0.1:${port}`, close }
  })
  afterEach(async () => {
    await Promise.all([...open].map((one) => one.close()))
    open.clear()
    await expect.poll(() => there().relay.sessions.size()).toBe(0)
  })
  afterAll(() => made?.close())

  const server: EventServer = {
    get store() {
      return there().store
    },
    get relay() {
      return there().relay
    },
    bus,
    server_key,
    get url() {
      return there().url
    },
    account: (devices = 1) => createAccount(there().store, devices),
    async connect(account, device = 0, more = {}) {
      const { device_id, sign_seed } = deviceOf(account, device)
      const log_head = account.log_head === null ? null : toBase64url(account.log_head)
      const client = await connectRaw({
        url: server.url,
        server_key,
        identity: { user_id: account.user_id, device_id, sign_seed },
        ...more,
        auth: { log_seq: account.log_seq, log_head, ...more.auth },
      })
      open.add(client)
      return client
    },
    assertion(account, device, purpose) {
      const { device_id, sign_seed } = deviceOf(account, device)
      const claims = { purpose, aud: toBase64url(server_key), user_id: account.user_id, signer: device_id }
      return createAssertion(nodeCrypto, sign_seed, claims, Date.now())
    },
    async token(account, device = 0) {
      const { body } = await server.ask('POST', '/api/auth/token', null, await server.assertion(account, device, 'token'))
      return body.access_token
    },
    async ask(method, path, token, body) {
      const headers: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' }
      if (token !== null) headers.authorization = `Bearer ${token}`
      const answer = await fetch(`${server.url}${path}`, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
      const text = await answer.text()
      return { status: answer.status, body: text === '' ? undefined : JSON.parse(text), headers: Object.fromEntries(answer.headers) }
    },
    async session(account, device = 0, last_device_seq) {
      const signed = await server.assertion(account, device, 'session')
      const claim = last_device_seq === undefined ? {} : { last_device_seq }
      const { status, body } = await server.ask('POST', '/api/events/session', null, { ...signed, ...claim })
      if (status !== 200) throw new Error(`no session: ${status} ${JSON.stringify(body)}`)
      return body.session_id
    },
    async follow(token, query = '', last_id) {
      const followed = new Followed(`${server.url}/api/events/live${query}`, token, last_id)
      open.add(followed)
      await followed.answered
      return followed
    },
  }
  return server
}

/** An event as it is sent over REST, and the same as a record. */
export function makeEventJson(
  account: TestAccount,
  device: number,
  device_seq: number,
  event: RawEvent = {},
): { json: object; record: Uint8Array } {
  const record = makeRecord(deviceOf(account, device).device_id, device_seq, { epoch: account.log_seq, ...event })
  return { json: toJson(account.user_id, record), record }
}

export function toJson(user_id: string, record: Uint8Array): Omit<EventJson, 'position' | 'stream_seq' | 'received_at'> {
  const [decoded] = decodeRecords(record)
  if (decoded === undefined) throw new Error('a record')
  const { position: _p, stream_seq: _s, received_at: _r, ...json } = recordToJson(user_id, decoded)
  return json
}

// oxlint-disable-next-line typescript/no-explicit-any -- what an event holds is what the tests look at
export type ServerSentEvent = { type: string; id: string | null; retry: string | null; data: any }

const PATIENCE_MS = 8_000

/** A stream that is followed: events wait in `received` until `next` takes them. */
export class Followed {
  readonly received: ServerSentEvent[] = []
  readonly answered: Promise<IncomingMessage>
  readonly ended: Promise<void>
  status = 0
  comments = 0
  /** Of what was taken. */
  last_id: string | null = null
  #response: IncomingMessage | null = null
  readonly #request: ClientRequest
  #text = ''
  #wake: (() => void)[] = []
  #isEnded = false

  constructor(url: string, token: string, last_id?: string) {
    const headers = { authorization: `Bearer ${token}`, ...(last_id === undefined ? {} : { 'last-event-id': last_id }) }
    const ended = Promise.withResolvers<void>()
    this.ended = ended.promise
    this.#request = request(url, { headers, agent: false })
    this.answered = new Promise((resolve, reject) => {
      this.#request.on('error', (error) => {
        reject(error)
        this.#end(ended.resolve)
      })
      this.#request.on('response', (response) => {
        this.#response = response
        this.status = response.statusCode ?? 0
        response.setEncoding('utf8')
        response.on('data', (text: string) => this.#read(text))
        response.on('error', () => {})
        response.on('close', () => this.#end(ended.resolve))
        resolve(response)
      })
    })
    this.#request.end()
  }

  pause(): void {
    this.#response?.pause()
  }

  resume(): void {
    this.#response?.resume()
  }

  async close(): Promise<void> {
    this.#request.destroy()
    await this.ended
  }

  /** Takes the next event of this type (that fits), whatever came between. */
  async next(type: string, fits: (event: ServerSentEvent) => boolean = () => true): Promise<ServerSentEvent> {
    const until = performance.now() + PATIENCE_MS
    for (;;) {
      const at = this.received.findIndex((event) => event.type === type && fits(event))
      const [found] = at >= 0 ? this.received.splice(at, 1) : []
      if (found !== undefined) {
        this.last_id = found.id ?? this.last_id
        return found
      }
      const left = until - performance.now()
      if (this.#isEnded || left <= 0) throw new Error(`no ${type}; there is: ${this.received.map((event) => event.type).join(', ')}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  /** Takes events until `count` records came; fails when a message does not continue at the one before. */
  async records(count: number, after: number): Promise<EventJson[]> {
    const all: EventJson[] = []
    let at = after
    while (all.length < count) {
      const { data } = await this.next('event')
      expect(data.after).toBe(at)
      at = data.upto
      all.push(...data.events)
    }
    return all
  }

  #read(text: string): void {
    const blocks = `${this.#text}${text}`.split('\n\n')
    this.#text = blocks.pop() ?? ''
    for (const block of blocks) {
      const fields = new Map<string, string>()
      for (const line of block.split('\n')) {
        const colon = line.indexOf(':')
        if (colon === 0) this.comments += 1
        else if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).replace(/^ /, ''))
      }
      const id = fields.get('id') ?? null
      const data = fields.get('data')
      if (data !== undefined)
        this.received.push({ type: fields.get('event') ?? 'message', id, retry: fields.get('retry') ?? null, data: JSON.parse(data) })
    }
    for (const wake of this.#wake.splice(0)) wake()
  }

  #end(tell: () => void): void {
    this.#isEnded = true
    for (const wake of this.#wake.splice(0)) wake()
    tell()
  }
}

function deviceOf(account: TestAccount, device: number): TestDevice {
  const found = account.devices[device]
  if (found === undefined) throw new Error(`device ${device} of the account`)
  return found
}
