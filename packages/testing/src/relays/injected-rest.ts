/** REST on a real store for one test file, asked without a socket; ended after it. */
import { type NewEntry, type SignedObject } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { FastifyInstance, InjectOptions } from 'fastify'
import { afterAll, beforeAll, expect } from 'vitest'
import { createMemoryBus } from '../../../server/src/bus/memory-bus.ts'
import { createHttp, type HttpDeps } from '../../../server/src/http/http.ts'
import type { Bus } from '../../../server/src/ports/store.ts'
import type { Relay, RelayDeps } from '../../../server/src/relay/relay.ts'
import { createStore, type PostgresStore } from '../../../server/src/store/store.ts'
import { assertAs, createTestAccount, type TestAccount } from '../clients/signing-account.ts'
import { wire } from '../clients/store-accounts.ts'
import { useDatabase } from '../components/test-database.ts'
import { documents } from './documents.ts'
import { fixedKeys } from './fixed-keys.ts'
import { silent, unaudited } from './silent-log.ts'
import { openRelay } from './leased-relay.ts'

// oxlint-disable-next-line typescript/no-explicit-any -- what an answer holds is what the tests look at
export type Asked = { status: number; body: any; text: string; headers: Record<string, string | string[] | number | undefined> }

export type Rest = {
  readonly app: FastifyInstance
  readonly store: PostgresStore
  readonly bus: Bus
  readonly relay: Relay
  readonly server_key: Uint8Array
  readonly url: string
  ask(options: InjectOptions): Promise<Asked>
  /** With the token of a device; `payload` as JSON. */
  as(
    token: string,
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    url: string,
    payload?: object,
    headers?: Record<string, string>,
  ): Promise<Asked>
  post(url: string, payload: object): Promise<Asked>
  postEntry(account: TestAccount, built: NewEntry, proof?: SignedObject): Promise<Asked>
  /** An account that the server knows. */
  registered(name?: string): Promise<TestAccount>
  tokenOf(account: TestAccount, signer?: TestAccount['device']): Promise<string>
}

export function useRest(over: Partial<HttpDeps> = {}, relayed: Partial<Pick<RelayDeps, 'rates' | 'limits'>> = {}): Rest {
  const database = useDatabase()
  const server_key = nodeCrypto.ed25519Public(nodeCrypto.random(32))
  const bus = createMemoryBus()
  let made: { store: PostgresStore; relay: Relay; app: FastifyInstance } | undefined
  const there = () => {
    if (made === undefined) throw new Error('there from the first beforeAll on')
    return made
  }
  beforeAll(async () => {
    const store = await createStore({ connection: database.connection, log: silent })
    const relay = await openRelay({ store, bus, token_key: nodeCrypto.random(32), logger: silent, ...relayed })
    const app = createHttp({
      documents,
      audit: unaudited,
      store,
      bus,
      relay,
      keys: fixedKeys([nodeCrypto.random(32)]),
      secrets: { server_key, jwt_sign_seed: nodeCrypto.random(32) },
      config: { signup: 'open', trusted_proxies: [], clock_skew_ms: 300_000, quota_bytes: null, docs: true },
      draining: () => false,
      degraded: () => false,
      logger: silent,
      ...over,
    })
    made = { store, relay, app }
  })
  afterAll(async () => {
    await made?.app.close()
    await made?.relay.close()
    await made?.store.close()
    await bus.close()
  })

  const rest: Rest = {
    get app() {
      return there().app
    },
    get store() {
      return there().store
    },
    get relay() {
      return there().relay
    },
    get url() {
      return database.url
    },
    bus,
    server_key,
    async ask(options) {
      const response = await there().app.inject(options)
      const isJson =
        /json(?!l)\b/.test(String(response.headers['content-type'])) && !String(response.headers['content-type']).includes('ndjson')
      return { status: response.statusCode, body: isJson ? response.json() : undefined, text: response.payload, headers: response.headers }
    },
    as: (token, method, url, payload, headers = {}) =>
      rest.ask({ method, url, headers: { authorization: `Bearer ${token}`, ...headers }, ...(payload === undefined ? {} : { payload }) }),
    post: (url, payload) => rest.ask({ method: 'POST', url, payload }),
    postEntry: async (account, built, proof) =>
      rest.post('/api/log', { ...wire(built), proof: proof ?? (await assertAs(account, server_key, 'log')) }),
    async registered(name) {
      const account = await createTestAccount(name)
      expect(await rest.postEntry(account, account.entries[0]!)).toMatchObject({ status: 200, body: { log_seq: 0 } })
      return account
    },
    async tokenOf(account, signer = account.device) {
      const { status, body } = await rest.post('/api/auth/token', await assertAs(account, server_key, 'token', { signer }))
      expect(status).toBe(200)
      return body.access_token
    },
  }
  return rest
}
