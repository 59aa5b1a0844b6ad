/**
 * Whole relays as their environment says, one after another on one database, met over HTTP and sockets: what an operator sets is seen
 * where strangers come in. Loopback is a trusted proxy here, so a request comes from where its test says, or from an address of its own.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text as readText } from 'node:stream/consumers'
import { createAssertion, fromBase64url, type SignedObject, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterAll, afterEach, beforeAll } from 'vitest'
import { readConfig } from '../../../server/src/config/config.ts'
import { type RunningServer, startServer } from '../../../server/src/server.ts'
import { createStore, type PostgresStore } from '../../../server/src/store/store.ts'
import { createAccount, makeEntry, type TestAccount, type TestChange } from '../clients/store-accounts.ts'
import { type TestDatabase, useDatabase } from '../components/test-database.ts'
import { silent } from './silent-log.ts'
import { type RawOptions, RawSocket } from '../clients/raw-client.ts'

export type Ask = { from?: string; token?: string; json?: unknown; bytes?: Uint8Array<ArrayBuffer> }
// oxlint-disable-next-line typescript/no-explicit-any -- what an answer holds is what the tests look at
export type DoorAnswer = { status: number; headers: Headers; body: any }

export type Door = {
  readonly url: string
  readonly server_key: Uint8Array
  ask(method: string, path: string, options?: Ask): Promise<DoorAnswer>
  /** Asks for a socket and leaves it at once when it is given; `body` is of a refusal. */
  upgrade(from: string): Promise<{ status: number; headers: Record<string, unknown>; body: string }>
  /** For `connectRaw` and `startRaw`. */
  raw(account: TestAccount, device?: number, from?: string): RawOptions
  socket(from: string): RawSocket
  assertion(account: TestAccount, signer: number | 'root', purpose: string): Promise<SignedObject>
  token(account: TestAccount, device?: number): Promise<string>
  /** Posts the next entry; the account moves on when it was taken. */
  postEntry(account: TestAccount, change: TestChange, options?: { repair?: boolean; from?: string }): Promise<DoorAnswer>
}

export type Doors = {
  readonly database: TestDatabase
  /** Beside the relay. */
  account(devices?: number): Promise<TestAccount>
  /** Ended after the test. */
  open(env?: Record<string, string>): Promise<Door>
}

export function useDoors(): Doors {
  const database = useDatabase()
  let folder = ''
  let store: PostgresStore | undefined
  const running: RunningServer[] = []
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 's-'))
    store = await createStore({ connection: database.connection, log: silent })
  })
  afterEach(async () => {
    await Promise.all(running.splice(0).map((server) => server.stop()))
  })
  afterAll(async () => {
    await store?.close()
    await rm(folder, { recursive: true, force: true })
  })

  return {
    database,
    account(devices = 1) {
      if (store === undefined) throw new Error('there from the first beforeAll on')
      return createAccount(store, devices)
    },
    async open(env = {}) {
      const standard = { SEALPOST_PORT: '0', SEALPOST_DATA: folder, DATABASE_URL: database.url, SEALPOST_TRUSTED_PROXIES: '127.0.0.1' }
      const server = await startServer(readConfig({ ...standard, ...env }), { logger: silent, test: true })
      running.push(server)
      return createDoor(server)
    },
  }
}

let addresses = 0
/** An address that no test has had. */
export function freshAddress(): string {
  addresses += 1
  return `198.18.${addresses >> 8}.${addresses & 255}`
}

export function createDoor({ url, server_key }: Pick<RunningServer, 'url' | 'server_key'>): Door {
  const door: Door = {
    url,
    server_key,
    async ask(method, path, { from = freshAddress(), token, json, bytes } = {}) {
      const headers: Record<string, string> = { 'x-forwarded-for': from }
      if (token !== undefined) headers['authorization'] = `Bearer ${token}`
      if (json !== undefined) headers['content-type'] = 'application/json'
      if (bytes !== undefined) headers['content-type'] = 'application/octet-stream'
      const body = json === undefined ? bytes : JSON.stringify(json)
      const answer = await fetch(`${url}${path}`, { method, headers, ...(body === undefined ? {} : { body }) })
      const text = await answer.text()
      const isJson = /\bjson(?!l)/.test(answer.headers.get('content-type') ?? '')
      return { status: answer.status, headers: answer.headers, body: isJson ? JSON.parse(text) : text }
    },
    upgrade: (from) =>
      new Promise((resolve, reject) => {
        const headers = {
          connection: 'Upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': '13',
          'sec-websocket-key': Buffer.from(nodeCrypto.random(16)).toString('base64'),
          'sec-websocket-protocol': 'sealpost.1',
          'x-forwarded-for': from,
        }
        const asked = request(`${url}/api/socket`, { headers, agent: false })
        asked.on('error', reject)
        asked.on('upgrade', (response, socket) => {
          socket.destroy()
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: '' })
        })
        asked.on('response', (response) => {
          const { statusCode: status = 0, headers } = response
          readText(response).then((body) => resolve({ status, headers, body }), reject)
        })
        asked.end()
      }),
    raw(account, device = 0, from = freshAddress()) {
      const { device_id, sign_seed } = account.devices[device]!
      return {
        url,
        server_key,
        identity: { user_id: account.user_id, device_id, sign_seed },
        auth: { log_seq: account.log_seq, log_head: account.log_head === null ? null : toBase64url(account.log_head) },
        socket: { headers: { 'x-forwarded-for': from } },
      }
    },
    socket: (from) => new RawSocket(url, { headers: { 'x-forwarded-for': from } }),
    assertion(account, signer, purpose) {
      const [id, seed] =
        signer === 'root' ? ['root', account.root_seed] : [account.devices[signer]!.device_id, account.devices[signer]!.sign_seed]
      const claims = { purpose, aud: toBase64url(server_key), user_id: account.user_id, signer: id }
      return createAssertion(nodeCrypto, seed, claims, Date.now())
    },
    async token(account, device = 0) {
      const { body } = await door.ask('POST', '/api/auth/token', { json: await door.assertion(account, device, 'token') })
      return body.access_token
    },
    async postEntry(account, change, { repair = false, from = freshAddress() } = {}) {
      const { entry, boxes } = makeEntry(account, change)
      const proof = await door.assertion(account, account.devices.length === 0 ? 'root' : 0, 'log')
      const posted = { body: toBase64url(entry.body), sig: toBase64url(entry.sig), proof, ...(repair ? { boxes: {}, repair } : { boxes }) }
      const answer = await door.ask('POST', '/api/log', { from, json: posted })
      if (answer.status !== 200) return answer
      account.log_seq = answer.body.log_seq
      account.log_head = fromBase64url(answer.body.log_head)
      if ('device' in change) account.devices.push(change.device)
      return answer
    },
  }
  return door
}
