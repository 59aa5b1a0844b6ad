/** A real relay on a database of its own, and homes of devices in temporary folders, for the tests of one file. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { readConfig } from '../../../server/src/config/config.ts'
import { type RunningServer, startServer } from '../../../server/src/server.ts'
import { useDatabase } from '../components/test-database.ts'
import { silent } from './silent-log.ts'
import { findFreePort } from '../components/free-port.ts'
import { type Home, Sealpost, type StreamEvent } from '../../../client/src/index.ts'
import { openHome } from '../../../client/src/node.ts'

export type Relay = {
  readonly url: string
  readonly server: RunningServer
  readonly folder: string
  /** URL of the database of this file. */
  readonly database: string
  /** Stops the server; `start` brings it back on the same port and data. */
  stop(): Promise<void>
  start(env?: Record<string, string>): Promise<void>
  home(name: string): Promise<Home>
  /** Folder of the latest home of that name. */
  last(name: string): string | undefined
  /** Closed after the test. */
  keep<T extends { close(): Promise<void> }>(closable: T): T
  create(name: string): Promise<{ sealpost: Sealpost; recovery_words: string }>
  /** A second device of the account, paired. */
  pair(existing: Sealpost, name: string, wrap?: (home: Home) => Home): Promise<Sealpost>
}

export function useRelay(): Relay {
  const database = useDatabase()
  let folder = ''
  let server: RunningServer | undefined
  let port = 0
  let open: { close(): Promise<void> }[] = []
  let homes = 0
  const folders = new Map<string, string>()

  const relay: Relay = {
    get url() {
      return running().url
    },
    get server() {
      return running()
    },
    get database() {
      return database.url
    },
    get folder() {
      return folder
    },
    async stop() {
      await server?.stop()
      server = undefined
    },
    async start(env = {}) {
      port ||= await findFreePort()
      const config = readConfig({
        SEALPOST_ADMIN_PORT: '0',
        SEALPOST_PORT: String(port),
        SEALPOST_DATA: join(folder, 'data'),
        DATABASE_URL: database.url,
        ...env,
      })
      server = await startServer(config, { logger: silent, test: true })
    },
    home(name) {
      const path = join(folder, `${name}-${++homes}`)
      folders.set(name, path)
      return openHome(path)
    },
    last: (name) => folders.get(name),
    keep(closable) {
      open.push(closable)
      return closable
    },
    async create(name) {
      const made = await Sealpost.create({ home: await relay.home(name), server: relay.url, name, device_type: 'desktop' })
      relay.keep(made.sealpost)
      return made
    },
    async pair(existing, name, wrap = (home) => home) {
      const home = wrap(await relay.home(name))
      const joined = Promise.withResolvers<Sealpost>()
      await existing.pair({
        onCode(code) {
          Sealpost.join({ home, server: relay.url, code, name, device_type: 'mobile', confirm: () => Promise.resolve(true) }).then(
            joined.resolve,
            joined.reject,
          )
        },
        confirm: () => Promise.resolve(true),
      })
      return relay.keep(await joined.promise)
    },
  }

  function running(): RunningServer {
    if (server === undefined) throw new Error('the relay is not running')
    return server
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sc-'))
    await relay.start()
  })
  afterEach(async () => {
    await Promise.all(open.map((closable) => closable.close()))
    open = []
  })
  afterAll(async () => {
    await relay.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  return relay
}

export const text = (event: StreamEvent): string => (event.is === 'event' ? new TextDecoder().decode(event.data) : event.is)
export const bytes = (of: string): Uint8Array => new TextEncoder().encode(of)
export const settled = (call: () => unknown) => expect.poll(call, { timeout: 10_000, interval: 20 })

export async function take(events: AsyncIterable<StreamEvent>, count: number): Promise<StreamEvent[]> {
  const out: StreamEvent[] = []
  for await (const event of events) {
    out.push(event)
    if (out.length >= count) break
  }
  return out
}
