/**
 * A home on Node: one private folder with the state of one device (`sealpost.sqlite`), the lock of the leading process and
 * its Unix socket. Nothing is connected before the engine asks.
 */
import { join } from 'node:path'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { Home } from '../ports.ts'
import { nodeClock } from './clock.ts'
import { createCoordination } from './coordination.ts'
import { openDeviceStore } from './device-store.ts'
import { FILES, openHomeFolder } from './home-folder.ts'
import { nodeHttp } from './http.ts'
import { nodeTransport } from './transport.ts'

/**
 * Opens the folder, or makes it (0700). Throws `insecure_permissions` when others can read it, `state_newer`,
 * `state_damaged`, `disk`.
 */
export async function openHome(dir: string): Promise<Home> {
  const folder = openHomeFolder(dir)
  const store = openDeviceStore(join(folder, FILES.state))
  const coordination = createCoordination(folder)
  return {
    store,
    coordination,
    transport: nodeTransport,
    http: nodeHttp,
    clock: nodeClock,
    crypto: nodeCrypto,
    close: async () => {
      await coordination.close()
      await store.close()
    },
  }
}
