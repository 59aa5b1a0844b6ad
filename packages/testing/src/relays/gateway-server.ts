/** Relay and gateway on a real HTTP server and a real store, for one test file. */
import { createServer, type Server } from 'node:http'
import type { Bytes } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { createMemoryBus } from '../../../server/src/bus/memory-bus.ts'
import { createGateway, type Gateway, type GatewayDeps } from '../../../server/src/gateway/gateway.ts'
import type { GatewayLimits } from '../../../server/src/gateway/limits.ts'
import type { Bus, Store } from '../../../server/src/ports/store.ts'
import type { Relay } from '../../../server/src/relay/relay.ts'
import { silent } from './silent-log.ts'
import { openRelay } from './leased-relay.ts'

export type GatewayOptions = { bus?: Bus; config?: Partial<GatewayDeps['config']>; limits?: Partial<GatewayLimits> }

export type TestGateway = {
  url: string
  server_key: Bytes
  bus: Bus
  relay: Relay
  gateway: Gateway
  http: Server
  close(): Promise<void>
}

export async function startGateway(store: Store, options: GatewayOptions = {}): Promise<TestGateway> {
  const server_sign_seed = nodeCrypto.random(32)
  const server_key = nodeCrypto.ed25519Public(server_sign_seed)
  const bus = options.bus ?? createMemoryBus()
  const { limits = {} } = options
  const relay = await openRelay({ store, bus, token_key: nodeCrypto.random(32), logger: silent, limits })
  const gateway = createGateway({
    relay,
    secrets: { server_sign_seed, server_key },
    config: { origins: [], trusted_proxies: [], rekey_after_ms: 3_600_000, rekey_after_frames: 1_048_576, ...options.config },
    limits,
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
    relay,
    gateway,
    http,
    async close() {
      await gateway.close()
      await relay.close()
      http.closeAllConnections()
      await new Promise((resolve) => http.close(resolve))
      await bus.close()
    },
  }
}
