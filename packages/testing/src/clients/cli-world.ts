/** A relay and devices for the tests of the command: the relay in this process, the commands as processes of their own. */
import { chmod, cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readConfig, type RunningServer, startServer } from '@sealpost/server'
import { afterAll, beforeAll } from 'vitest'
import { silent } from '../relays/silent-log.ts'
import { createTestDatabase } from '../components/test-database.ts'
import { findFreePort } from '../components/free-port.ts'
import { type Ended, type ProgramOptions, startSealpost } from '../components/programs.ts'
import { pairTwoDevices } from './two-devices.ts'

export { sealpost, startSealpost } from '../components/programs.ts'

export type TestRelay = {
  url: string
  database_url: string
  secrets_file: string
  port: number
  server_key: Uint8Array
  stop(): Promise<void>
  start(env?: Record<string, string>): Promise<void>
}

export type World = {
  /** 0700, gone at the end. */
  readonly folder: string
  readonly relay: TestRelay
  /** Two homes of one account. Tests that harm a home make their own with `addDevice` or `init`. */
  readonly laptop: string
  readonly phone: string
  /** A third home of the account. */
  addDevice(name: string): Promise<string>
}

/** One relay and one account with two devices for the tests of a file. */
export function useWorld(): World {
  let world: (World & { end(): Promise<void> }) | undefined
  const get = (): World => {
    if (world === undefined) throw new Error('the world is there from the first beforeAll on')
    return world
  }
  beforeAll(async () => {
    world = await makeWorld()
  })
  afterAll(() => world?.end())
  return {
    get folder() {
      return get().folder
    },
    get relay() {
      return get().relay
    },
    get laptop() {
      return get().laptop
    },
    get phone() {
      return get().phone
    },
    addDevice: (name) => get().addDevice(name),
  }
}

/** Runs the command to its end, whatever its exit code. */
export function run(args: readonly string[], options?: ProgramOptions): Promise<Ended> {
  return startSealpost(args, options).ended
}

/** Loaded before the command (`--import`): the device's clock is wrong from the first line on. */
export function wrongClock(ms: number): string {
  return `data:text/javascript,${encodeURIComponent(`const now = Date.now; Date.now = () => now() + ${ms}`)}`
}

/** A copy of a home that no process uses, private as the original. */
export async function copyHome(home: string, to: string): Promise<string> {
  await cp(home, to, { recursive: true })
  await chmod(to, 0o700)
  return to
}

async function makeWorld(): Promise<World & { end(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'sealpost-cli-'))
  const database = await createTestDatabase()
  let server: RunningServer | null = null
  const port = await findFreePort()
  const start = async (env: Record<string, string> = {}): Promise<void> => {
    const config = readConfig({
      SEALPOST_ADMIN_PORT: '0',
      SEALPOST_PORT: String(port),
      SEALPOST_DATA: join(folder, 'data'),
      DATABASE_URL: database.url,
      ...env,
    })
    server = await startServer(config, { logger: silent, test: true })
  }
  await start()
  const relay: TestRelay = {
    database_url: database.url,
    secrets_file: join(folder, 'data', 'secrets.json'),
    get url() {
      return `http://127.0.0.1:${port}`
    },
    get port() {
      return port
    },
    get server_key() {
      if (server === null) throw new Error('the relay is stopped')
      return server.server_key
    },
    start,
    async stop() {
      await server?.stop()
      server = null
    },
  }
  const { laptop, phone } = await pairTwoDevices(relay.url, folder)
  return {
    folder,
    relay,
    laptop,
    phone,
    async addDevice(name) {
      const home = join(folder, name)
      using pair = startSealpost(['pair', '--home', laptop, '--yes'])
      const [code] = await pair.printed(/[0-9A-Z]{4}(-[0-9A-Z]{4}){3}/)
      const joined = await run(['join', code, '--home', home, '--server', relay.url, '--name', name, '--yes'])
      if (joined.code !== 0 || (await pair.ended).code !== 0) throw new Error(`no pairing:\n${joined.stderr}`)
      return home
    },
    async end() {
      await relay.stop()
      await database.drop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
