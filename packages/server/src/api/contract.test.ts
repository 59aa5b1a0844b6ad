/** Every operation of the API document against a running server: what is answered is what the document says, member by member (G21). */
import { randomUUID } from 'node:crypto'
import { createAssertion, ROUTES, type Route, type RouteName, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Contract } from '../http/contract.ts'
import { CONTRACTS } from '../http/contracts.ts'
import { encodeFollowId } from '../relay/follow/follow-id.ts'
import {
  append,
  makeAccount,
  makeDevice,
  makeEntry,
  type TestAccount,
  type TestChange,
  wire,
} from '@sealpost/testing/clients/store-accounts'
import { type Asserted, bodyWith, PURPOSES } from '@sealpost/testing/clients/assertion'
import { type Ask, createContract, FAILURES, type Item } from '@sealpost/testing/contracts/rest-contract'
import { makeEventJson, useEventServer } from '@sealpost/testing/relays/event-server'
import { createWatchedStore, startHttpServer, type TestHttpServer } from '@sealpost/testing/relays/http-server'

const server = useEventServer()
const contract = createContract()
const drive = (name: RouteName, ask: Ask, expected: number | string) => contract.drive(server.url, name, ask, expected)

/** Takes no new accounts and shows no documents; its store is overtaken by others. */
let other: TestHttpServer
let store: ReturnType<typeof createWatchedStore>
const driveOther = (name: RouteName, ask: Ask, expected: number | string) => contract.drive(other.url, name, ask, expected)
beforeAll(async () => {
  store = createWatchedStore(server.store)
  other = await startHttpServer(store.store, { config: { signup: 'closed', docs: false } })
})
afterAll(() => other?.close())

const routes = Object.entries(ROUTES) as [RouteName, Route][]
const exampleOf = (name: RouteName): NonNullable<Contract['example']> => (CONTRACTS[name] as Contract).example ?? {}
const BOX = Buffer.from(exampleOf('put_offer').body as string, 'latin1')
const OTHER_BOX = new Uint8Array(40)
const newMailbox = () => ({ mailbox_id: toBase64url(nodeCrypto.random(16)) })

/** A request in the form of the document, with a token where one is asked for. */
function exampleAsk(name: RouteName, token: string): Ask {
  const { params = {}, body } = exampleOf(name)
  const row: Route = ROUTES[name]
  const content = row.body === 'json' ? { json: body } : row.body === 'bytes' ? { bytes: BOX } : {}
  return { params, ...content, ...(row.auth === 'token' ? { token } : {}) }
}

const rename = (account: TestAccount, device: number, name: string): TestChange => ({
  type: 'rename_device',
  rename: { device_id: account.devices[device]!.device_id, name },
})
const revoke = (account: TestAccount, device: number, last_device_seq?: number): TestChange => ({
  type: 'revoke_device',
  revoked: [{ device_id: account.devices[device]!.device_id, ...(last_device_seq === undefined ? {} : { last_device_seq, heads: [] }) }],
})
/** The entry as another version would make it. */
function asVersion(v: number, account: TestAccount, change: TestChange): object {
  const made = makeEntry(account, change)
  return wire({
    ...made,
    entry: { ...made.entry, body: Buffer.from(Buffer.from(made.entry.body).toString().replace('"v":1', `"v":${v}`)) },
  })
}
/** With bits behind the last byte. */
const misencoded = (entry: { sig: string }) => ({ ...entry, sig: `${entry.sig.slice(0, -1)}B` })
const deviceOf = (account: TestAccount, device: number) => ({ device_id: account.devices[device]!.device_id })

/** A device that was revoked after its token was given out. */
async function withRevoked(): Promise<TestAccount> {
  const account = await server.account(2)
  const { devices } = account
  await append(server.store, account, revoke(account, 1))
  account.devices = devices
  return account
}

describe('what all of a kind refuse', () => {
  it.each(routes)('%s: what it does not take, what is too large, and who does not show the right credential', async (name, row) => {
    const account = await server.account(1)
    const token = await server.token(account)
    const ask = exampleAsk(name, token)
    await drive(name, { ...ask, query: '?nonsense=1' }, 'invalid_request')
    const large = row.body === 'bytes' ? { bytes: new Uint8Array(row.bodyBytesMax + 1) } : { json: { body: 'A'.repeat(row.bodyBytesMax) } }
    if (row.method !== 'GET') await drive(name, { ...ask, ...large }, 'too_large')
    if (row.body === 'bytes') await drive(name, { ...ask, headers: { 'content-type': 'application/json' } }, 'invalid_request')
    if (row.auth === 'token') await drive(name, { ...ask, token: 'x' }, 'unauthorized')
    if (row.auth !== 'assertion') return
    const now = Date.now()
    const claims = { aud: toBase64url(server.server_key), user_id: account.user_id, signer: account.devices[0]!.device_id }
    const sign = (purpose: string, at: number) => createAssertion(nodeCrypto, account.devices[0]!.sign_seed, { ...claims, purpose }, at)
    const purpose = PURPOSES[name as Asserted]
    await drive(name, { json: bodyWith(name as Asserted, account, await sign('nothing', now)) }, 'unauthorized')
    await drive(name, { json: bodyWith(name as Asserted, account, await sign(purpose, now - 600_000)) }, 'expired')
  })
})

describe('every operation, as the document says', () => {
  it('what the server is', async () => {
    for (const name of ['read_server', 'live', 'ready', 'read_jwks'] as const) await drive(name, {}, 200)
  })

  it('its documents: whole, known already, or not there', async () => {
    for (const name of ['read_openapi', 'read_asyncapi', 'read_docs', 'read_docs_file'] as const) {
      const { params = {} } = exampleOf(name)
      const { headers } = await drive(name, { params }, 200)
      const etag = headers.get('etag')!
      for (const tag of [etag, `W/${etag}`, `"other", ${etag}`, '*']) await drive(name, { params, headers: { 'if-none-match': tag } }, 304)
      await drive(name, { params, headers: { 'if-none-match': '"other"' } }, 200)
      await driveOther(name, { params }, 'not_found')
    }
    for (const file of ['swagger-ui.css', 'start.js', '']) await drive('read_docs_file', { params: { file } }, 200)
    await drive('read_docs_file', { params: { file: 'swagger-ui-bundle.js.map' } }, 'not_found')
    await drive('read_docs_file', { params: { file: 'UPPER' } }, 'invalid_request')
  })

  it('the page is there with a slash and without, and offers to send nothing', async () => {
    const [plain, slash] = await Promise.all(['/docs', '/docs/'].map(async (path) => (await fetch(`${server.url}${path}`)).text()))
    expect(slash).toBe(plain)
    for (const [, path] of plain!.matchAll(/(?:href|src)="([^"]+)"/g)) expect((await fetch(`${server.url}${path}`)).status, path).toBe(200)
    expect(await (await fetch(`${server.url}/docs/start.js`)).text()).toContain('supportedSubmitMethods: []')
  })

  it('tokens', async () => {
    const account = await server.account(1)
    const assert = (purpose: string) => server.assertion(account, 0, purpose)
    const { body } = await drive('create_token', { json: await assert('token') }, 200)
    const { body: next } = await drive('refresh_token', { json: { ...(await assert('refresh')), refresh_token: body.refresh_token } }, 200)
    await drive('refresh_token', { json: { ...(await assert('refresh')), refresh_token: 'AAAA' } }, 'invalid_token')
    await drive('logout', { token: next.access_token }, 204)
    const revoked = await withRevoked()
    await drive('create_token', { json: await server.assertion(revoked, 1, 'token') }, 'device_revoked')
    await drive('refresh_token', { json: { ...(await server.assertion(revoked, 1, 'refresh')), refresh_token: 'AAAA' } }, 'device_revoked')
  })

  it('the device log', async () => {
    const account = await server.account(2)
    const proof = () => server.assertion(account, 0, 'log')
    const post = async (entry: object, expected: number | string) =>
      drive('append_log', { json: { ...entry, proof: await proof() } }, expected)
    const postChange = (change: TestChange, expected: number | string) => post(wire(makeEntry(account, change)), expected)
    await postChange(rename(account, 1, account.devices[0]!.name), 'name_taken')
    await post(wire({ ...makeEntry(account, rename(account, 1, 'x')), boxes: {} }), 'invalid_entry')
    await post(asVersion(2, account, rename(account, 1, 'x')), 'unknown_version')
    await post(misencoded(wire(makeEntry(account, rename(account, 1, 'x')))), 'invalid_encoding')
    const session_id = await server.session(account, 1)
    const events = [makeEventJson(account, 1, 1, {}).json]
    await drive('append_events', { token: await server.token(account, 1), json: { session_id, events } }, 200)
    await postChange(revoke(account, 1, 0), 'heads_stale')
    const entry = wire(makeEntry(account, rename(account, 1, 'a phone')))
    await post(entry, 200)
    await postChange(rename(account, 1, 'another'), 'log_conflict')
    await drive('read_log', { json: await server.assertion(account, 0, 'log-read') }, 200)

    const stranger = makeAccount()
    const asRoot = (purpose: string) =>
      createAssertion(
        nodeCrypto,
        stranger.root_seed,
        { purpose, aud: toBase64url(server.server_key), user_id: stranger.user_id, signer: 'root' },
        Date.now(),
      )
    await drive('read_log', { json: await asRoot('log-read') }, 'not_found')
    const recovery = makeEntry(
      { ...account, user_id: stranger.user_id, root_seed: stranger.root_seed },
      { type: 'recover', device: makeDevice() },
    )
    await drive('append_log', { json: { ...wire(recovery), proof: await asRoot('log') } }, 'not_found')
    const device = makeDevice()
    const genesis = wire(makeEntry(stranger, { type: 'genesis', device }))
    const introduced = { ...stranger, devices: [device] }
    await driveOther('append_log', { json: { ...genesis, proof: await other.assertion(introduced, 0, 'log') } }, 'signup_closed')
    await drive('append_log', { json: { ...genesis, proof: await asRoot('log') } }, 200)
    await server.store.deleteAccount(stranger.user_id, null)
    await drive('append_log', { json: { ...genesis, proof: await asRoot('log') } }, 'account_gone')
    await drive('read_log', { json: await asRoot('log-read') }, 'account_gone')
  })

  it('devices', async () => {
    const account = await server.account(3)
    const foreign = await server.account(2)
    const token = await server.token(account)
    await drive('list_devices', { token, query: '?revoked=true' }, 200)
    await drive('read_connection_status', { token }, 200)
    const params = deviceOf(account, 1)
    const before = await drive('read_device', { token, params }, 200)
    await drive('read_device', { token, params: { device_id: randomUUID() } }, 'not_found')

    type Change = 'rename_device' | 'revoke_device'
    const change = (name: Change, what: TestChange, expected: number | string, more: Ask = {}) =>
      drive(name, { token, params, json: wire(makeEntry(account, what)), ...more }, expected)
    await change('rename_device', rename(account, 1, account.devices[0]!.name), 'name_taken')
    await change('rename_device', rename(account, 2, 'x'), 'invalid_entry')
    const both = [
      ['rename_device', rename(account, 1, 'x'), rename(foreign, 1, 'x')],
      ['revoke_device', revoke(account, 1), revoke(foreign, 1)],
    ] as const
    for (const [name, own, theirs] of both) {
      await drive(name, { token, params, json: wire(makeEntry(foreign, theirs)) }, 'forbidden')
      await drive(name, { token, params: { device_id: randomUUID() }, json: wire(makeEntry(account, own)) }, 'not_found')
      await change(name, own, 'precondition_failed', { headers: { 'if-match': '"no"' } })
      await drive(name, { token, params, json: asVersion(2, account, own) }, 'unknown_version')
      await drive(name, { token, params, json: misencoded(wire(makeEntry(account, own))) }, 'invalid_encoding')
      await drive(name, { token, params, json: wire({ ...makeEntry(account, own), boxes: {} }) }, 'invalid_entry')
      const late = makeEntry({ ...account, log_seq: account.log_seq - 1, log_head: new Uint8Array(32) }, own)
      await drive(name, { token, params, json: wire(late) }, 'log_conflict')
    }
    const { body } = await change('rename_device', rename(account, 1, 'pocket'), 200, {
      headers: { 'if-match': before.headers.get('etag')! },
    })
    account.log_seq = body.log_seq
    account.log_head = Buffer.from(body.log_head, 'base64url')

    const session_id = await server.session(account, 1)
    const sent = makeEventJson(account, 1, 1, {}).json
    await drive('append_events', { token: await server.token(account, 1), json: { session_id, events: [sent] } }, 200)
    await change('revoke_device', revoke(account, 1, 0), 'heads_stale')
    await change('revoke_device', revoke(account, 1), 200)
  })

  it('events', async () => {
    const account = await server.account(2)
    const token = await server.token(account)
    const assert = (purpose: string) => server.assertion(account, 0, purpose)
    const { body: session } = await drive('take_session', { json: { ...(await assert('session')), last_device_seq: 0 } }, 200)
    await drive('take_session', { json: await server.assertion(await withRevoked(), 1, 'session') }, 'device_revoked')
    const { session_id } = session
    const events = [1, 2, 4].map((n) => makeEventJson(account, 0, n, {}).json)
    const send = (sent: object[], expected: number | string, as = session_id) =>
      drive('append_events', { token, json: { session_id: as, events: sent } }, expected)
    const acked = await send(events, 200)
    expect(acked.body).toMatchObject({ acks: [{ position: 1 }, { position: 2 }], nack: { code: 'sequence_gap' } })
    await send(events.slice(0, 1), 'superseded', randomUUID())
    await send([{ ...events[0], user_id: toBase64url(new Uint8Array(32)) }], 'invalid_message')
    // the last character has bits that no byte has
    await send([{ ...events[0], encrypted_payload: 'AB' }], 'invalid_encoding')
    const page = await drive('read_events', { token, query: '?limit=1' }, 200)
    await drive('read_events', { token, query: `?limit=1&continuation_token=${page.body.continuation_token}` }, 200)
    await drive('read_events', { token, query: '?streams=nothing' }, 200)
    const { event_id, received_at } = page.body.events[0]
    const cursor = `event_id=${event_id}&received_at=${received_at}&history_id=${page.body.history_id}`
    await drive('read_events', { token, query: `?after_position=1&${cursor}` }, 200)
    expect((await drive('read_events', { token, query: `?after_position=2&${cursor}` }, 200)).body.reset).toBeDefined()
  })

  it('a stream that is followed, each kind of message', async () => {
    const account = await server.account(2)
    const token = await server.token(account, 1)
    const follow = (until: string, ask: Ask = {}) => drive('follow_events', { token, until, ...ask }, 200)
    const session_id = await server.session(account)
    const events = [makeEventJson(account, 0, 1, {}).json]
    await drive('append_events', { token: await server.token(account), json: { session_id, events } }, 200)
    await follow('event', { query: '?after_position=0' })
    await follow('log_entry', { query: '?log_seq=0' })
    const { device_id } = account.devices[0]!
    await server.store.suspendDevice(account.user_id, device_id, true)
    const presence = (await follow('presence')).items.find(({ event }) => event === 'presence')
    expect((presence!['data'] as { devices: object[] }).devices).toContainEqual(expect.objectContaining({ device_id, suspended: true }))
    const nowhere = { position: 1, event_id: randomUUID(), received_at: 1, history_id: server.store.history_id }
    await follow('reset', { headers: { 'last-event-id': encodeFollowId({ cursor: nowhere, log_seq: 1 }) } })
    await drive('follow_events', { token, headers: { 'last-event-id': '%' } }, 'invalid_request')

    const drained = await startHttpServer(server.store)
    // who is there is told first: from then on the session is open
    const opened = Promise.withResolvers<void>()
    const heard = ({ event }: Item): void => void (event === 'presence' && opened.resolve())
    const ask = { token: await drained.token(account, 1), until: 'closed', heard }
    const ending = contract.drive(drained.url, 'follow_events', ask, 200)
    await opened.promise
    await drained.close()
    expect((await ending).items.slice(-2)).toMatchObject([{ event: 'going_away' }, { event: 'closed', data: { name: 'draining' } }])
  })

  it('pairing', async () => {
    const account = await server.account(2)
    const [token, foreign] = [await server.token(account), await server.token(account, 1)]
    const params = newMailbox()
    for (const slot of ['put_join', 'put_reveal', 'put_done'] as const) await drive(slot, { token, params, bytes: BOX }, 'not_found')
    await drive('put_offer', { token, params, bytes: BOX }, 204)
    await drive('put_offer', { token: foreign, params, bytes: BOX }, 'slot_taken')
    for (const slot of ['put_join', 'put_reveal', 'put_done'] as const) {
      await drive(slot, { token, params, bytes: BOX }, 204)
      await drive(slot, { token, params, bytes: OTHER_BOX }, 'slot_taken')
    }
    // what the document shows as sent is what it shows as read
    expect((await drive('read_slot', { params: { ...params, slot: 'join' } }, 200)).body).toBe(exampleOf('put_join').body)
    await drive('read_slot', { params: { ...newMailbox(), slot: 'join' } }, 'not_found')
  })

  it('the account: its figures, each kind of line of its export, its end', async () => {
    const account = await server.account(2)
    const token = await server.token(account)
    const session_id = await server.session(account)
    await drive('append_events', { token, json: { session_id, events: [makeEventJson(account, 0, 1, {}).json] } }, 200)
    await drive('put_offer', { token, params: newMailbox(), bytes: BOX }, 204)
    await drive('read_user', { token }, 200)
    const { items } = await drive('export_user', { token }, 200)
    const counts: Record<string, number> = {}
    for (const { kind } of items.slice(1, -1)) counts[kind!] = (counts[kind!] ?? 0) + 1
    expect([items[0]!.kind, items.at(-1)]).toEqual(['export', { kind: 'end', counts }])
    await drive('delete_user', { json: await server.assertion(await withRevoked(), 1, 'delete-account') }, 'device_revoked')
    await drive('delete_user', { json: await server.assertion(account, 0, 'delete-account') }, 200)
  })
})

describe('what came between the credential and the route', () => {
  /** Asks while somebody deletes the account, or revokes the device, right before this call of the store. */
  async function overtaken(
    name: RouteName,
    method: string,
    by: 'deletion' | 'revocation',
    make: (account: TestAccount) => Promise<Ask>,
    expected: string,
  ) {
    const account = await server.account(2)
    const ask = await make(account)
    const token = await other.token(account, 1)
    const unwatch = store.watch(async (call) => {
      if (call.method !== method || call.number === 1) return
      unwatch()
      if (by === 'deletion') await server.store.deleteAccount(account.user_id, null)
      else await append(server.store, account, revoke(account, 1))
    })
    await driveOther(name, { ...(ROUTES[name].auth === 'token' ? { token } : {}), ...ask }, expected)
  }
  const changeOf = (change: TestChange, account: TestAccount): Ask => ({
    params: deviceOf(account, 1),
    json: wire(makeEntry(account, change)),
  })
  const sending = async (account: TestAccount): Promise<Ask> => ({
    json: { session_id: await server.session(account, 1), events: [makeEventJson(account, 1, 1, {}).json] },
  })
  const taking = async (account: TestAccount): Promise<Ask> => ({ json: await other.assertion(account, 1, 'session') })

  it.each<[RouteName, string, 'deletion' | 'revocation', (account: TestAccount) => Promise<Ask>, string]>([
    ['rename_device', 'appendEntry', 'deletion', async (account) => changeOf(rename(account, 1, 'x'), account), 'account_gone'],
    ['revoke_device', 'appendEntry', 'deletion', async (account) => changeOf(revoke(account, 1), account), 'account_gone'],
    ['read_events', 'judgeCursor', 'deletion', async () => ({}), 'account_gone'],
    ['read_events', 'judgeCursor', 'revocation', async () => ({}), 'device_revoked'],
    ['take_session', 'establishSession', 'deletion', taking, 'account_gone'],
    ['append_events', 'ingest', 'deletion', sending, 'account_gone'],
    ['append_events', 'ingest', 'revocation', sending, 'device_revoked'],
  ])('%s: before %s, a %s', overtaken)
})

afterAll(() => {
  // what may fail in all of them, and who asks too much: contract-failures.test.ts
  const here = (_: string, outcome: string): boolean => !FAILURES.has(outcome)
  expect(contract.missing(here), 'outcomes of the document that nothing drove').toEqual([])
})
