/**
 * A home on Node: one private folder with the state of one device (`sealpost.sqlite`), the lock of the leading process and
 * its Unix socket. Nothing is connected before the engine asks.
 */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { Home } from '../ports.ts'
import { nodeClock } from './clock.ts'
import { createCoordination } from './coordination.ts'
import { openDeviceStore } from './device-store.ts'
import { FILES, openHomeFolder } from './home-folder.ts'
import { nodeHttp } from './http.ts'
import { damaged } from './state-database.ts'
import { nodeTransport } from './transport.ts'

/**
 * Opens the folder, or makes it (0700). Throws `insecure_permissions` when others can read it, `state_newer`,
 * `state_damaged`, `disk`.
 */
export async function openHome(dir: string): Promise<Home> {
  const folder = openHomeFolder(dir)
  refuseLostState(folder)
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

/** The lock is made after the state: where it stands alone, the state was lost, and a fresh one would hide that. */
function refuseLostState(folder: string): void {
  const state = join(folder, FILES.state)
  if (statSync(join(folder, FILES.lock), { throwIfNoEntry: false }) === undefined) return
  if ((statSync(state, { throwIfNoEntry: false })?.size ?? 0) === 0) throw damaged(state, 'it is missing or empty')
}
