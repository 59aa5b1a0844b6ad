/** A gateway on a real HTTP server and a real store, for one test file. */
import { createServer, type Server } from 'node:http'
import type { Bytes } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { createMemoryBus } from '../bus/memory-bus.ts'
import { createGateway, type Gateway, type GatewayDeps } from '../gateway/gateway.ts'
import type { Bus, Store } from '../ports.ts'
import { silent } from './log.ts'

export type TestGateway = {
  url: string
  server_key: Bytes
  bus: Bus
  gateway: Gateway
  http: Server
  close(): Promise<void>
}

export async function startGateway(store: Store, options: Partial<GatewayDeps> = {}): Promise<TestGateway> {
  const server_sign_seed = nodeCrypto.random(32)
  const server_key = nodeCrypto.ed25519Public(server_sign_seed)
  const bus = options.bus ?? createMemoryBus()
  const gateway = createGateway({
    store,
    bus,
    secrets: { server_sign_seed, server_key, token_key: nodeCrypto.random(32) },
    config: { origins: [], trusted_proxies: [], rekey_after_ms: 3_600_000, rekey_after_frames: 1_048_576 },
    logger: silent,
    ...options,
  })
  const http = createServer()
  gateway.attach(http)
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  const address = http.address()
  if (address === null || typeof address === 'string') throw new Error('not listening')
  return {
    url: `http://127.0.0.1:${address.port}`,
    server_key,
    bus,
    gateway,
    http,
    async close() {
      await gateway.close()
      http.closeAllConnections()
      await new Promise((resolve) => http.close(resolve))
      await bus.close()
    },
  }
}
