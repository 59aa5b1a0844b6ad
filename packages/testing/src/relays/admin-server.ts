/**
 * Whole relays with their listeners of admins, on one database, for one test file: admins of each role with their keys and tokens, and every
 * route by its name. Loopback is a trusted proxy here: each request comes from an address of its own, so that no rate stands in the way.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomUUID } from 'node:crypto'
import {
  ADMIN_ROUTES,
  type AdminRouteName,
  adminIdOf,
  adminRoutePath,
  type Bytes,
  createAdminAssertion,
  type Role,
  type SignedObject,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterAll, beforeAll } from 'vitest'
import { readConfig } from '../../../server/src/config/config.ts'
import type { Log } from '../../../server/src/telemetry/log.ts'
import { type RunningServer, startServer } from '../../../server/src/server.ts'
import type { LogLevel } from '../../../server/src/config/settings.ts'
import { createStore, type PostgresStore } from '../../../server/src/store/store.ts'
import { createAccount, type TestAccount } from '../clients/store-accounts.ts'
import { type TestDatabase, useDatabase } from '../components/test-database.ts'
import { createDoor, type Door, freshAddress } from './configured-relays.ts'
import { silent } from './silent-log.ts'

export type TestAdmin = { admin_id: string; name: string; role: Role; sign_seed: Bytes; public_key: Bytes }

export type AdminAsk = {
  token?: string
  params?: Record<string, string>
  query?: Record<string, string>
  json?: unknown
  /** As it is, in place of `json`. */
  body?: string | Uint8Array
  headers?: Record<string, string>
}
// oxlint-disable-next-line typescript/no-explicit-any -- what an answer holds is what the tests look at
export type AdminAnswer = { status: number; body: any; text: string; headers: Headers; request_id: string }

/** One relay: what devices reach, and what admins do. */
export type AdminNode = {
  readonly door: Door
  readonly admin_url: string
  readonly server_key: Uint8Array
  ask(name: AdminRouteName, ask?: AdminAsk): Promise<AdminAnswer>
  assertion(admin: TestAdmin, early_ms?: number): Promise<SignedObject>
  token(admin: TestAdmin): Promise<string>
  stop(): Promise<void>
}

export type NodeOptions = { env?: Record<string, string>; logger?: Log; setLogLevel?: (level: LogLevel) => void }

export type AdminServer = AdminNode & {
  readonly database: TestDatabase
  /** Beside the relay. */
  readonly store: PostgresStore
  readonly secrets_file: string
  account(devices?: number): Promise<TestAccount>
  /** A new one. */
  admin(role: Role): Promise<TestAdmin>
  /** The token of one that is made once for each role. */
  tokenOf(role: Role): Promise<string>
  /** As an admin of this role; fails when it is refused. */
  as(role: Role, name: AdminRouteName, ask?: AdminAsk): Promise<AdminAnswer>
  // oxlint-disable-next-line typescript/no-explicit-any -- as above
  sql(text: string, values?: unknown[]): Promise<any[]>
  /** Another relay on the same database, with the same secrets. */
  node(options?: NodeOptions): Promise<AdminNode>
}

export function useAdminServer(options: NodeOptions = {}): AdminServer {
  const database = useDatabase()
  const running: RunningServer[] = []
  let folder = ''
  let made: { store: PostgresStore; node: AdminNode } | undefined
  const tokens = new Map<Role, Promise<string>>()
  const there = () => {
    if (made === undefined) throw new Error('there from the first beforeAll on')
    return made
  }

  async function node({ env = {}, logger = silent, setLogLevel }: NodeOptions = {}): Promise<AdminNode> {
    const config = readConfig({
      SEALPOST_PORT: '0',
      SEALPOST_DATA: join(folder, randomUUID().slice(0, 8)),
      SEALPOST_SECRETS_FILE: join(folder, 'secrets.json'),
      SEALPOST_ADMIN: 'on',
      SEALPOST_ADMIN_PORT: '0',
      SEALPOST_TRUSTED_PROXIES: '127.0.0.1',
      DATABASE_URL: database.url,
      ...env,
    })
    const server = await startServer(config, { logger, test: true, ...(setLogLevel === undefined ? {} : { setLogLevel }) })
    running.push(server)
    return createNode(server)
  }
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 's-'))
    made = { node: await node(options), store: await createStore({ connection: database.connection, log: silent }) }
  })
  afterAll(async () => {
    await made?.store.close()
    await Promise.all(running.map((server) => server.stop()))
    await rm(folder, { recursive: true, force: true })
  })

  const server: AdminServer = {
    database,
    get store() {
      return there().store
    },
    get secrets_file() {
      return join(folder, 'secrets.json')
    },
    get door() {
      return there().node.door
    },
    get admin_url() {
      return there().node.admin_url
    },
    get server_key() {
      return there().node.server_key
    },
    ask: (name, ask) => there().node.ask(name, ask),
    assertion: (admin, early_ms) => there().node.assertion(admin, early_ms),
    token: (admin) => there().node.token(admin),
    stop: () => there().node.stop(),
    account: (devices = 1) => createAccount(there().store, devices),
    async admin(role) {
      const sign_seed = nodeCrypto.random(32)
      const public_key = nodeCrypto.ed25519Public(sign_seed)
      const admin_id = await adminIdOf(nodeCrypto, public_key)
      const name = `${role} ${admin_id.replace(/\W/g, '')}`
      const added = await there().store.addAdmin({ admin_id, role, name, public_key }, false)
      if (added.is !== 'ok') throw new Error(added.is)
      return { admin_id, name, role, sign_seed, public_key }
    },
    async tokenOf(role) {
      const token = tokens.get(role) ?? server.admin(role).then(server.token)
      tokens.set(role, token)
      return token
    },
    async as(role, name, ask = {}) {
      const answer = await server.ask(name, { ...ask, token: await server.tokenOf(role) })
      if (answer.status >= 400) throw new Error(`${name}: ${answer.status} ${answer.text}`)
      return answer
    },
    sql: async (text, values = []) => (await there().store.pools.main.query<Record<string, unknown>>(text, values)).rows,
    node,
  }
  return server
}

function createNode(server: RunningServer): AdminNode {
  const { admin_url, server_key } = server
  if (admin_url === null) throw new Error('there is no listener of admins')
  const one: AdminNode = {
    door: createDoor(server),
    admin_url,
    server_key,
    async ask(name, { token, params, query = {}, json, body, headers = {} } = {}) {
      const request_id = randomUUID()
      const content = body ?? (json === undefined ? undefined : JSON.stringify(json))
      const search = Object.keys(query).length === 0 ? '' : `?${new URLSearchParams(query).toString()}`
      const answer = await fetch(`${admin_url}${adminRoutePath(name, params)}${search}`, {
        method: ADMIN_ROUTES[name].method,
        headers: {
          'x-forwarded-for': freshAddress(),
          'x-request-id': request_id,
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(content === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(content === undefined ? {} : { body: content as string }),
      })
      const text = await answer.text()
      const isJson = /[/+]json\b/.test(answer.headers.get('content-type') ?? '')
      return { status: answer.status, body: isJson ? JSON.parse(text) : undefined, text, headers: answer.headers, request_id }
    },
    assertion: (admin, early_ms = 0) => createAdminAssertion(nodeCrypto, admin.sign_seed, server_key, Date.now() - early_ms),
    async token(admin) {
      const { status, body, text } = await one.ask('create_admin_token', { json: await one.assertion(admin) })
      if (status !== 200) throw new Error(`no token: ${status} ${text}`)
      return body.access_token
    },
    stop: () => server.stop(),
  }
  return one
}
