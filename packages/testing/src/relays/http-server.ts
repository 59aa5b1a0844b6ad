/** REST as it is configured, listening, over a store that fails or is overtaken when a test says so. */
import type { AddressInfo } from 'node:net'
import { createAssertion, type SignedObject, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { createMemoryBus } from '../../../server/src/bus/memory-bus.ts'
import { createHttp, type HttpDeps } from '../../../server/src/http/http.ts'
import { createRateLimits, type Rates } from '../../../server/src/limits/rate-limits.ts'
import type { Store } from '../../../server/src/ports/store.ts'
import type { Relay } from '../../../server/src/relay/relay.ts'
import type { TestAccount } from '../clients/store-accounts.ts'
import { documents } from './documents.ts'
import { fixedKeys } from './fixed-keys.ts'
import { silent, unaudited } from './silent-log.ts'
import { openRelay } from './leased-relay.ts'

export type HttpServerOptions = {
  config?: Partial<HttpDeps['config']>
  rates?: Rates
  keys?: HttpDeps['keys']
  /** Of the relay: what it says of its load. */
  overloaded?: Relay['overloaded']
  draining?: () => boolean
}

export type TestHttpServer = {
  url: string
  relay: Relay
  /** Made `early_ms` ago. */
  assertion(account: TestAccount, device: number, purpose: string, early_ms?: number): Promise<SignedObject>
  token(account: TestAccount, device?: number): Promise<string>
  close(): Promise<void>
}

/** Loopback is a trusted proxy here: a request comes from where its `x-forwarded-for` says. */
export async function startHttpServer(store: Store, options: HttpServerOptions = {}): Promise<TestHttpServer> {
  const server_key = nodeCrypto.ed25519Public(nodeCrypto.random(32))
  const bus = createMemoryBus()
  const rates = createRateLimits(options.rates)
  const relay = await openRelay({ store, bus, token_key: nodeCrypto.random(32), logger: silent, rates })
  const http = createHttp({
    documents,
    audit: unaudited,
    store,
    bus,
    relay: { ...relay, ...(options.overloaded === undefined ? {} : { overloaded: options.overloaded }) },
    keys: options.keys ?? fixedKeys([nodeCrypto.random(32)]),
    secrets: { server_key, jwt_sign_seed: nodeCrypto.random(32) },
    config: {
      signup: 'open',
      trusted_proxies: ['127.0.0.1'],
      clock_skew_ms: 300_000,
      quota_bytes: null,
      docs: true,
      ...options.config,
    },
    draining: options.draining ?? (() => false),
    degraded: () => false,
    logger: silent,
  })
  await http.listen({ host: '127.0.0.1', port: 0 })
  const url = `http://127.0.0.1:${(http.server.address() as AddressInfo).port}`

  const server: TestHttpServer = {
    url,
    relay,
    assertion: (account, device, purpose, early_ms = 0) => {
      const signer = account.devices[device]
      if (signer === undefined) throw new Error(`device ${device} of the account`)
      const claims = { purpose, aud: toBase64url(server_key), user_id: account.user_id, signer: signer.device_id }
      return createAssertion(nodeCrypto, signer.sign_seed, claims, Date.now() - early_ms)
    },
    async token(account, device = 0) {
      const body = JSON.stringify(await server.assertion(account, device, 'token'))
      const headers = { 'content-type': 'application/json', 'x-forwarded-for': addressOf(counter++) }
      const answer = (await (await fetch(`${url}/api/auth/token`, { method: 'POST', headers, body })).json()) as { access_token: string }
      return answer.access_token
    },
    async close() {
      await relay.drain()
      await http.close()
      await relay.close()
      await bus.close()
    },
  }
  return server
}

let counter = 0
/** Of the networks for documentation and benchmarks: one for each number up to 65,535. */
export function addressOf(number: number): string {
  return `198.18.${number >> 8}.${number & 255}`
}

/** What is told of each call that a request makes of the store, before it is made. */
export type Call = { method: string; number: number }
/** Calls of timers, not of requests; the others are no promises. */
const UNTOLD = new Set(['touchDevices', 'compareSessions', 'readOnline', 'holdLease', 'endLease', 'now', 'exportRows', 'close'])

/** The store, with `before` ahead of every call since it was set: it may throw, or do what another does at that moment. */
export function createWatchedStore(store: Store): { store: Store; watch(before: (call: Call) => Promise<void>): () => void } {
  let before: ((call: Call) => Promise<void>) | null = null
  let number = 0
  const watched = new Proxy(store, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key)
      if (typeof value !== 'function') return value
      const call = value.bind(target) as (...args: unknown[]) => unknown
      if (UNTOLD.has(String(key))) return call
      return async (...args: unknown[]) => {
        number += 1
        await before?.({ method: String(key), number })
        return call(...args)
      }
    },
  })
  return {
    store: watched,
    watch(next) {
      before = next
      number = 0
      return () => {
        before = null
      }
    },
  }
}
