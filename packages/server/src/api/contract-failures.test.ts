/** What any operation may answer, however right its request is, as the document says: the store fails, or there is too much (G21, R02, R12). */
import { ROUTES, type Route, type RouteName, SealpostError, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RATES, type RateRule } from '../limits/rules.ts'
import { createStore, type PostgresStore } from '../store/store.ts'
import {
  createAccount,
  makeAccount,
  makeDevice,
  makeEntry,
  type TestAccount,
  type TestChange,
  wire,
} from '@sealpost/testing/clients/store-accounts'
import { type Ask, createContract, FAILURES } from '@sealpost/testing/contracts/rest-contract'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { makeEventJson } from '@sealpost/testing/relays/event-server'
import {
  addressOf,
  createWatchedStore,
  type HttpServerOptions,
  startHttpServer,
  type TestHttpServer,
} from '@sealpost/testing/relays/http-server'
import { fixedKeys } from '@sealpost/testing/relays/fixed-keys'
import { silent } from '@sealpost/testing/relays/silent-log'

const database = useDatabase()
const contract = createContract()
const started: TestHttpServer[] = []
let store: PostgresStore
let watched: ReturnType<typeof createWatchedStore>
/** Its store fails when it is told to. */
let failing: TestHttpServer
let keysFail = false

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
  watched = createWatchedStore(store)
  const keys = fixedKeys([nodeCrypto.random(32)])
  const jwks = () => (keysFail ? Promise.reject(new Error('no keys')) : keys.jwks())
  failing = await start({ keys: { ...keys, jwks } }, watched.store)
})
afterAll(async () => {
  await Promise.all(started.map((server) => server.close()))
  await store?.close()
})

async function start(options: HttpServerOptions = {}, on = store as Parameters<typeof startHttpServer>[0]): Promise<TestHttpServer> {
  const server = await startHttpServer(on, options)
  started.push(server)
  return server
}

const routes = Object.entries(ROUTES) as [RouteName, Route][]
const limited = routes.filter(([, row]) => row.unlimited !== true)
const BOX = new Uint8Array(40)
let asked = 0
/** An address of its own for each request. */
const from = () => ({ 'x-forwarded-for': addressOf(20_000 + asked++) })
const newMailbox = () => toBase64url(nodeCrypto.random(16))

/** A right request for each operation, of an account of its own. */
const RIGHT: { readonly [N in RouteName]?: (server: TestHttpServer, account: TestAccount, token: string) => Promise<Ask> } = {
  append_log: async (server, account) => ({
    json: { ...wire(makeEntry(account, { type: 'rotate_keys' })), proof: await server.assertion(account, 0, 'log') },
  }),
  read_log: async (server, account) => ({ json: await server.assertion(account, 0, 'log-read') }),
  create_token: async (server, account) => ({ json: await server.assertion(account, 0, 'token') }),
  refresh_token: async (server, account) => {
    const granted = await ask(server, 'create_token', { json: await server.assertion(account, 0, 'token') })
    return { json: { ...(await server.assertion(account, 0, 'refresh')), refresh_token: granted['refresh_token'] } }
  },
  read_device: async (_, account) => ({ params: { device_id: account.devices[0]!.device_id } }),
  rename_device: async (_, account) =>
    change(account, { type: 'rename_device', rename: { device_id: account.devices[1]!.device_id, name: 'x' } }),
  revoke_device: async (_, account) => change(account, { type: 'revoke_device', revoked: [{ device_id: account.devices[1]!.device_id }] }),
  delete_user: async (server, account) => ({ json: await server.assertion(account, 0, 'delete-account') }),
  take_session: async (server, account) => ({ json: await server.assertion(account, 0, 'session') }),
  append_events: async (server, account) => {
    const { session_id } = await ask(server, 'take_session', { json: await server.assertion(account, 0, 'session') })
    return { json: { session_id, events: [makeEventJson(account, 0, 1, {}).json] } }
  },
  follow_events: async () => ({ query: '?after_position=1' }),
  put_offer: async () => ({ params: { mailbox_id: newMailbox() }, bytes: BOX }),
  put_join: async (server, _, token) => ({ params: await opened(server, token), bytes: BOX }),
  put_reveal: async (server, _, token) => ({ params: await opened(server, token), bytes: BOX }),
  put_done: async (server, _, token) => ({ params: await opened(server, token), bytes: BOX }),
  read_slot: async (server, _, token) => ({ params: { ...(await opened(server, token)), slot: 'offer' } }),
  read_docs_file: async () => ({ params: { file: 'start.js' } }),
}

async function right(server: TestHttpServer, name: RouteName): Promise<Ask> {
  const account = await createAccount(store, 2)
  const token = await server.token(account)
  const own = await RIGHT[name]?.(server, account, token)
  return { ...(ROUTES[name].auth === 'token' ? { token } : {}), headers: from(), ...own }
}

function change(account: TestAccount, what: TestChange): Ask {
  return { params: { device_id: account.devices[1]!.device_id }, json: wire(makeEntry(account, what)) }
}

async function opened(server: TestHttpServer, token: string): Promise<{ mailbox_id: string }> {
  const mailbox_id = newMailbox()
  await ask(server, 'put_offer', { params: { mailbox_id }, bytes: BOX, token })
  return { mailbox_id }
}

async function ask(server: TestHttpServer, name: RouteName, what: Ask): Promise<Record<string, unknown>> {
  const { body } = await contract.drive(server.url, name, { headers: from(), ...what }, name === 'put_offer' ? 204 : 200)
  return body as Record<string, unknown>
}

const ERRORS = {
  internal: () => new Error('a secret of the inside'),
  unavailable: () => new SealpostError('unavailable', 'the database does not answer'),
} as const

/** Where a failing store is no refusal. */
const ELSE: Readonly<Record<string, string>> = {
  'read_events readPage': 'unavailable',
  // the batch is tried again, and then what is not stored is told in the answer
  'append_events ingest': '200',
  // the stream has begun, and ends
  'follow_events judgeCursor': '200',
  // the next flush writes it again
  'follow_events setFollower': '200',
  // the next round reads it again
  'follow_events readPresence': '200',
}

describe('each call of the store that an operation makes fails in turn', () => {
  it.each(routes.filter(([name]) => name !== 'ready'))('%s', { timeout: 60_000 }, async (name) => {
    for (const [code, makeError] of Object.entries(ERRORS))
      for (let failed = true, at = 1; failed; at++) {
        const what = await right(failing, name)
        failed = false
        let method = ''
        const unwatch = watched.watch(async (call) => {
          if (call.number !== at) return
          failed = true
          method = call.method
          throw makeError()
        })
        const answer = await contract.tell(failing.url, name, what)
        unwatch()
        if (failed) expect([method, answer.outcome]).toEqual([method, ELSE[`${name} ${method}`] ?? code])
        else expect(answer.status).toBeLessThan(300)
        expect(answer.text).not.toMatch(/secret|\.ts:/)
      }
  })

  it('ready', async () => {
    // the answer is kept for a second: one failure is all that can be seen
    const unwatch = watched.watch(() => Promise.reject(ERRORS.internal()))
    await contract.drive(failing.url, 'ready', {}, 'unavailable')
    unwatch()
  })

  it('the keys of tokens', async () => {
    keysFail = true
    await contract.drive(failing.url, 'read_jwks', { headers: from() }, 'internal')
    keysFail = false
  })

  it('a relay that is draining opens no stream and takes no work', async () => {
    const server = await start({ draining: () => true })
    await contract.drive(server.url, 'ready', {}, 'unavailable')
    const token = await server.token(await createAccount(store, 1))
    await server.relay.drain()
    await contract.drive(server.url, 'follow_events', { token }, 'unavailable')
  })
})

describe('an operator shut it out (G24)', () => {
  it.each(routes.filter(([, row]) => row.auth !== 'none'))('%s', async (name) => {
    for (const state of ['account', 'device']) {
      const account = await createAccount(store, 2)
      const token = await failing.token(account)
      const what = {
        ...(ROUTES[name].auth === 'token' ? { token } : {}),
        headers: from(),
        ...(await RIGHT[name]?.(failing, account, token)),
      }
      if (state === 'account') await store.suspendUser(account.user_id, true)
      else await store.suspendDevice(account.user_id, account.devices[0]!.device_id, true)
      await contract.drive(failing.url, name, what, 'suspended')
    }
  })
})

describe('too much (R12)', () => {
  it('each operation sends away who asks too often, and everyone when there is no room', async () => {
    const [strict, full] = [await start({ rates: { rest_address: 1 } }), await start({ overloaded: () => 1_500 })]
    for (const [name] of limited) {
      const headers = from()
      await fetch(`${strict.url}/.well-known/sealpost.json`, { headers })
      await contract.drive(strict.url, name, { headers, ...exampleAsk(name) }, 'rate_limited')
      await contract.drive(full.url, name, exampleAsk(name), 'overloaded')
    }
  })

  it.each<[RateRule, RouteName]>([
    ['rest_address', 'read_server'],
    ['rest_user', 'read_user'],
    ['rest_device', 'read_user'],
    ['handshake_user', 'take_session'],
    ['handshake_device', 'take_session'],
    ['genesis', 'append_log'],
    ['repair', 'append_log'],
    ['repair_address', 'append_log'],
    ['mailbox', 'read_slot'],
    ['mailbox_miss', 'read_slot'],
    ['mailbox_miss', 'put_join'],
    ['offer', 'put_offer'],
    ['export', 'export_user'],
  ])('%s: %s', async (rule, name) => {
    const server = await start({ rates: { ...Object.fromEntries(Object.keys(RATES).map((each) => [each, 1_000])), [rule]: 1 } })
    const account = await createAccount(store, 1)
    const token = await server.token(account)
    const headers = from()
    const params = { mailbox_id: newMailbox(), slot: 'offer' }
    const make = async (): Promise<Ask> => {
      if (rule === 'genesis') return newAccount(server)
      if (rule.startsWith('repair')) {
        const { json } = await RIGHT.append_log!(server, account, token)
        return { json: { ...(json as object), repair: true } }
      }
      const own = await RIGHT[name]?.(server, account, token)
      return { ...own, ...(rule.startsWith('mailbox') ? { params } : {}) }
    }
    const once = async () => ({ headers, ...(ROUTES[name].auth === 'token' ? { token } : {}), ...(await make()) })
    await contract.tell(server.url, name, await once())
    await contract.drive(server.url, name, await once(), 'rate_limited')
  })

  it('more entries of the log than an account may have, and more streams than a device', async () => {
    const server = await start()
    const account = await createAccount(store, 1)
    const token = await server.token(account)
    for (let entries = 1; ; entries++) {
      const { outcome, body } = await contract.tell(server.url, 'append_log', {
        headers: from(),
        ...(await RIGHT.append_log!(server, account, token)),
      })
      if (outcome === 'rate_limited') break
      expect([outcome, entries < 100]).toEqual(['200', true])
      account.log_seq = body.log_seq
      account.log_head = Buffer.from(body.log_head, 'base64url')
    }
    const many = Array.from({ length: server.relay.limits.followersPerDeviceMax }, () => new AbortController())
    for (const { signal } of many) await fetch(`${server.url}/api/events/live`, { headers: { authorization: `Bearer ${token}` }, signal })
    await contract.drive(server.url, 'follow_events', { token }, 'rate_limited')
    for (const one of many) one.abort()
  })
})

/** In the form of the document; who is sent away is sent away before anything is read. */
function exampleAsk(name: RouteName): Ask {
  const params = { device_id: 'x', mailbox_id: 'x', slot: 'x', file: 'x' }
  return { params, ...(ROUTES[name].body === 'bytes' ? { bytes: BOX } : ROUTES[name].body === 'json' ? { json: {} } : {}) }
}

async function newAccount(server: TestHttpServer): Promise<Ask> {
  const account = { ...makeAccount(), devices: [makeDevice()] }
  const genesis = makeEntry(account, { type: 'genesis', device: account.devices[0]! })
  return { json: { ...wire(genesis), proof: await server.assertion(account, 0, 'log') } }
}

/** Nothing is asked that could fail: a constant, or a document that is made of constants. */
const INFALLIBLE: ReadonlySet<string> = new Set(['read_server', 'live', 'read_openapi', 'read_asyncapi', 'read_docs', 'read_docs_file'])
/** One kind of failure becomes the other. */
const ONE_KIND: Readonly<Record<string, string>> = {
  'read_jwks unavailable': 'keys are held in the process: a failure is one of the inside',
  'ready internal': 'whatever is wrong with the database, it is not there',
}

afterAll(() => {
  const isDriven = (name: string, outcome: string): boolean =>
    FAILURES.has(outcome) &&
    !(INFALLIBLE.has(name) && (outcome === 'internal' || outcome === 'unavailable')) &&
    !Object.hasOwn(ONE_KIND, `${name} ${outcome}`)
  expect(contract.missing(isDriven), 'failures of the document that nothing drove').toEqual([])
})
