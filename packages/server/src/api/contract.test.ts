/** Every operation of the API document against a running server: what is answered is what the document says, member by member (G21). */
import { randomUUID } from 'node:crypto'
import { createAssertion, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { afterAll, describe, expect, it } from 'vitest'
import { append, makeAccount, makeDevice, makeEntry, type TestAccount, type TestChange } from '../testing/accounts.ts'
import { createDocsRoutes } from '../http/docs-routes.ts'
import { makeEventJson, useEventServer } from '../testing/event-server.ts'
import { makeOpenApi } from './openapi.ts'
import type { Operation } from './operations.ts'

const server = useEventServer()
const openapi = makeOpenApi()
const operations = new Map(
  Object.entries(openapi.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => [operation.operationId as string, { path, method, operation }]),
  ),
)
const ajv = new Ajv2020({ strict: false })
addFormats.default(ajv)
ajv.addSchema(openapi.components.schemas['Problem']!, '#/components/schemas/Problem')

/** `operation code`, or `operation status` of a success. */
const seen = new Set<string>()

type Ask = {
  token?: string
  params?: Record<string, string>
  query?: string
  headers?: Record<string, string>
  json?: unknown
  bytes?: Uint8Array
}
// oxlint-disable-next-line typescript/no-explicit-any -- what an answer holds is what the tests look at
type Answered = { status: number; body: any; headers: Headers }

async function drive(
  name: string,
  { token, params = {}, query = '', headers = {}, json, bytes }: Ask,
  expected: number | string,
): Promise<Answered> {
  const { path, method, operation } = operations.get(name)!
  const url = `${server.url}${path.replace(/\{(\w+)\}/g, (_, key: string) => params[key] ?? '')}${query}`
  const body = bytes ?? (json === undefined ? undefined : JSON.stringify(json))
  const type =
    bytes === undefined
      ? json === undefined
        ? {}
        : { 'content-type': 'application/json' }
      : { 'content-type': 'application/octet-stream' }
  const ending = new AbortController()
  const response = await fetch(url, {
    method: method.toUpperCase(),
    headers: { ...type, ...headers, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    ...(body === undefined ? {} : { body: body as string }),
    signal: ending.signal,
  })
  const media = (response.headers.get('content-type') ?? '').split(';')[0]!
  const text = media === 'text/event-stream' ? '' : await response.text()
  if (media === 'text/event-stream') ending.abort()
  const parsed: unknown = /[/+]json$/.test(media) ? JSON.parse(text) : undefined
  check(name, operation, response, media, parsed)
  const outcome = response.status < 400 ? response.status : (parsed as { code: string }).code
  seen.add(`${name} ${outcome}`)
  expect(outcome, `${name}: ${text.slice(0, 300)}`).toBe(expected)
  return { status: response.status, body: parsed, headers: response.headers }
}

function check(name: string, operation: Operation, response: Response, media: string, body: unknown): void {
  const described = operation.responses[response.status]
  expect(described, `${name} answers ${response.status}, which the document does not have`).toBeDefined()
  for (const header of Object.keys(described!.headers)) {
    const hasAny = header !== 'retry-after' || JSON.stringify(body).includes('retry_after_ms')
    if (hasAny) expect(response.headers.get(header), `${name}: the header ${header}`).not.toBeNull()
  }
  if (described!.content === undefined) return expect(response.status).toBe(204)
  const content = described!.content[media]
  expect(content, `${name} answers ${media}, which the document does not have`).toBeDefined()
  if (content!.schema === undefined || body === undefined) return
  expect(
    ajv.validate(content!.schema, body),
    `${name} ${response.status}: ${ajv.errorsText()}\n${JSON.stringify(body).slice(0, 500)}`,
  ).toBe(true)
  if (response.status >= 400) expect(Object.keys(content!.examples ?? {}), name).toContain((body as { code: string }).code)
}

const wire = ({ entry, boxes }: ReturnType<typeof makeEntry>) => ({ body: toBase64url(entry.body), sig: toBase64url(entry.sig), boxes })

async function change(
  account: TestAccount,
  name: string,
  token: string,
  device: number,
  what: TestChange,
  expected: number | string,
  headers = {},
) {
  const params = { device_id: account.devices[device]!.device_id }
  return drive(name, { token, params, headers, json: wire(makeEntry(account, what)) }, expected)
}

const rename = (account: TestAccount, device: number, name: string): TestChange => ({
  type: 'rename_device',
  rename: { device_id: account.devices[device]!.device_id, name },
})
const revoke = (account: TestAccount, device: number, last_device_seq?: number): TestChange => ({
  type: 'revoke_device',
  revoked: [{ device_id: account.devices[device]!.device_id, ...(last_device_seq === undefined ? {} : { last_device_seq, heads: [] }) }],
})
/** A device that was revoked after its token was given out. */
async function withRevoked(): Promise<TestAccount> {
  const account = await server.account(2)
  const device = account.devices[1]!
  await append(server.store, account, revoke(account, 1))
  account.devices = [account.devices[0]!, device]
  return account
}

describe('every operation, as the document says', () => {
  it('what the server is', async () => {
    await drive('read_server', {}, 200)
    await drive('live', {}, 200)
    await drive('ready', {}, 200)
    await drive('read_jwks', {}, 200)
    await drive('read_openapi', {}, 200)
    await drive('read_asyncapi', {}, 200)
    await drive('read_docs', {}, 200)
    for (const file of ['swagger-ui.css', 'swagger-ui-bundle.js', 'start.js']) await drive('read_docs_file', { params: { file } }, 200)
    await drive('read_docs_file', { params: { file: 'swagger-ui-bundle.js.map' } }, 'not_found')
    await drive('read_docs_file', { params: { file: 'UPPER' } }, 'invalid_request')
  })

  it('a relay that serves no documents has none', async () => {
    const off = createDocsRoutes(false)
    for (const name of ['read_openapi', 'read_asyncapi', 'read_docs'] as const) {
      expect(await (off[name] as () => Promise<unknown>)()).toEqual({ problem: { code: 'not_found' } })
      seen.add(`${name} not_found`)
    }
  })

  it('tokens', async () => {
    const account = await server.account(1)
    const assert = (purpose: string) => server.assertion(account, 0, purpose)
    const { body } = await drive('create_token', { json: await assert('token') }, 200)
    const { body: next } = await drive('refresh_token', { json: { ...(await assert('refresh')), refresh_token: body.refresh_token } }, 200)
    await drive('refresh_token', { json: { ...(await assert('refresh')), refresh_token: 'AAAA' } }, 'invalid_token')
    await drive('logout', { token: next.access_token }, 204)
    await drive('logout', { token: next.access_token }, 'unauthorized')
    const revoked = await withRevoked()
    for (const [name, more] of [
      ['create_token', {}],
      ['refresh_token', { refresh_token: 'AAAA' }],
    ] as const) {
      const purpose = name === 'create_token' ? 'token' : 'refresh'
      await drive(name, { json: { ...(await assert('log')), ...more } }, 'unauthorized')
      await drive(name, { json: { ...(await server.assertion(revoked, 1, purpose)), ...more } }, 'device_revoked')
      await drive(name, { json: {} }, 'invalid_request')
      await drive(name, { json: { body: 'A'.repeat(20_000) } }, 'too_large')
    }
  })

  it('the device log', async () => {
    const account = await server.account(2)
    const proof = () => server.assertion(account, 0, 'log')
    const post = async (what: TestChange, expected: number | string) =>
      drive('append_log', { json: { ...wire(makeEntry(account, what)), proof: await proof() } }, expected)
    await post(rename(account, 1, account.devices[0]!.name), 'name_taken')
    const unboxed = { ...makeEntry(account, rename(account, 1, 'x')), boxes: {} }
    await drive('append_log', { json: { ...wire(unboxed), proof: await proof() } }, 'invalid_entry')
    const session_id = await server.session(account, 1)
    const events = [makeEventJson(account, 1, 1, {}).json]
    await drive('append_events', { token: await server.token(account, 1), json: { session_id, events } }, 200)
    await post(revoke(account, 1, 0), 'heads_stale')
    const nobody = makeEntry({ ...account, user_id: toBase64url(new Uint8Array(32)) }, rename(account, 1, 'x'))
    await drive('append_log', { json: { ...wire(nobody), proof: await proof() } }, 'unauthorized')
    const entry = makeEntry(account, rename(account, 1, 'a phone'))
    await drive('append_log', { json: { ...wire(entry), proof: await proof() } }, 200)
    await post(rename(account, 1, 'another'), 'log_conflict')
    await drive('append_log', { json: { ...wire(entry), proof: await server.assertion(account, 0, 'token') } }, 'unauthorized')
    await drive('append_log', { json: { ...wire(entry), proof: await proof(), role: 'admin' } }, 'invalid_request')
    await drive('append_log', { json: { body: 'A'.repeat(300_000) } }, 'too_large')
    await drive('read_log', { json: await server.assertion(account, 0, 'log-read') }, 200)
    await drive('read_log', { json: await server.assertion(account, 0, 'log') }, 'unauthorized')
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
    await drive('read_log', { json: { body: 1 } }, 'invalid_request')
    await drive('read_log', { json: { body: 'A'.repeat(20_000) } }, 'too_large')
  })

  it('devices', async () => {
    const account = await server.account(3)
    const other = await server.account(2)
    const token = await server.token(account)
    await drive('list_devices', { token, query: '?revoked=true' }, 200)
    await drive('list_devices', { token, query: '?revoked=maybe' }, 'invalid_request')
    await drive('list_devices', {}, 'unauthorized')
    await drive('read_connection_status', { token }, 200)
    await drive('read_connection_status', {}, 'unauthorized')
    const params = { device_id: account.devices[1]!.device_id }
    const before = await drive('read_device', { token, params }, 200)
    await drive('read_device', { token, params: { device_id: randomUUID() } }, 'not_found')
    await drive('read_device', { token, params: { device_id: 'x' } }, 'invalid_request')
    await drive('read_device', { params }, 'unauthorized')

    const etag = { 'if-match': before.headers.get('etag')! }
    await change(account, 'rename_device', token, 1, rename(account, 1, account.devices[0]!.name), 'name_taken')
    await change(account, 'rename_device', token, 1, rename(account, 2, 'x'), 'invalid_entry')
    await change(account, 'rename_device', token, 1, rename(account, 1, 'x'), 'precondition_failed', { 'if-match': '"no"' })
    await drive('rename_device', { token, params, json: wire(makeEntry(other, rename(other, 1, 'x'))) }, 'forbidden')
    await drive(
      'rename_device',
      { token, params: { device_id: randomUUID() }, json: wire(makeEntry(account, rename(account, 1, 'x'))) },
      'not_found',
    )
    const first = makeEntry(account, rename(account, 1, 'pocket'))
    const conflict = makeEntry(account, rename(account, 1, 'bag'))
    const renamed = await drive('rename_device', { token, params, headers: etag, json: wire(first) }, 200)
    await drive('rename_device', { token, params, json: wire(conflict) }, 'log_conflict')
    account.log_seq = renamed.body.log_seq
    account.log_head = Buffer.from(renamed.body.log_head, 'base64url')

    const session_id = await server.session(account, 1)
    const sent = makeEventJson(account, 1, 1, {}).json
    await drive('append_events', { token: await server.token(account, 1), json: { session_id, events: [sent] } }, 200)
    await change(account, 'revoke_device', token, 1, revoke(account, 1, 0), 'heads_stale')
    await change(account, 'revoke_device', token, 2, revoke(account, 1), 'invalid_entry')
    await drive('revoke_device', { token, params, json: wire(makeEntry(other, revoke(other, 1))) }, 'forbidden')
    await drive(
      'revoke_device',
      { token, params: { device_id: randomUUID() }, json: wire(makeEntry(account, revoke(account, 1))) },
      'not_found',
    )
    await drive('revoke_device', { token, params, json: wire(conflict) }, 'invalid_entry')
    await drive('revoke_device', { token, params, json: wire({ ...makeEntry(account, revoke(account, 1)), boxes: {} }) }, 'invalid_entry')
    const late = makeEntry({ ...account, log_seq: account.log_seq - 1, log_head: new Uint8Array(32) }, revoke(account, 1))
    await drive('revoke_device', { token, params, json: wire(late) }, 'log_conflict')
    await change(account, 'revoke_device', token, 1, revoke(account, 1), 200)
    for (const name of ['rename_device', 'revoke_device']) {
      await drive(name, { params, json: wire(conflict) }, 'unauthorized')
      await drive(name, { token, params, json: { status: 'revoked' } }, 'invalid_request')
      await drive(name, { token, params, json: { body: 'A'.repeat(300_000) } }, 'too_large')
    }
  })

  it('events', async () => {
    const account = await server.account(2)
    const token = await server.token(account)
    const assert = (purpose: string) => server.assertion(account, 0, purpose)
    const { body: session } = await drive('take_session', { json: { ...(await assert('session')), last_device_seq: 0 } }, 200)
    await drive('take_session', { json: await assert('token') }, 'unauthorized')
    await drive('take_session', { json: [] }, 'invalid_request')
    await drive('take_session', { json: { body: 'A'.repeat(20_000) } }, 'too_large')
    await drive('take_session', { json: await server.assertion(await withRevoked(), 1, 'session') }, 'device_revoked')
    const { session_id } = session
    const events = [1, 2, 4].map((n) => makeEventJson(account, 0, n, {}).json)
    const acked = await drive('append_events', { token, json: { session_id, events } }, 200)
    expect(acked.body).toMatchObject({ acks: [{ position: 1 }, { position: 2 }], nack: { code: 'sequence_gap' } })
    await drive('append_events', { token, json: { session_id: randomUUID(), events: events.slice(0, 1) } }, 'superseded')
    await drive('append_events', { token, json: { session_id, events: [] } }, 'invalid_request')
    await drive('append_events', { json: { session_id, events } }, 'unauthorized')
    await drive('append_events', { token, json: { session_id, events: ['A'.repeat(1_100_000)] } }, 'too_large')
    const strange = { ...events[0], user_id: toBase64url(new Uint8Array(32)) }
    await drive('append_events', { token, json: { session_id, events: [strange] } }, 'invalid_message')
    const page = await drive('read_events', { token, query: '?limit=1' }, 200)
    await drive('read_events', { token, query: `?limit=1&continuation_token=${page.body.continuation_token}` }, 200)
    await drive('read_events', { token, query: '?streams=nothing' }, 200)
    const { event_id, received_at } = page.body.events[0]
    const cursor = `event_id=${event_id}&received_at=${received_at}&history_id=${page.body.history_id}`
    await drive('read_events', { token, query: `?after_position=1&${cursor}` }, 200)
    await drive('read_events', { token, query: `?after_position=2&${cursor}` }, 200)
    await drive('read_events', { token, query: '?limit=0' }, 'invalid_request')
    await drive('read_events', {}, 'unauthorized')
    await drive('follow_events', { token, query: `?after_position=1&${cursor}` }, 200)
    await drive('follow_events', { token, headers: { 'last-event-id': '%' } }, 'invalid_request')
    await drive('follow_events', {}, 'unauthorized')
  })

  it('pairing', async () => {
    const account = await server.account(2)
    const [token, foreign] = [await server.token(account), await server.token(account, 1)]
    const params = { mailbox_id: toBase64url(crypto.getRandomValues(new Uint8Array(16))) }
    const nowhere = { mailbox_id: toBase64url(crypto.getRandomValues(new Uint8Array(16))) }
    const bytes = new Uint8Array(40).fill(1)
    const others = new Uint8Array(40).fill(2)
    for (const slot of ['put_join', 'put_reveal', 'put_done']) await drive(slot, { token, params, bytes }, 'not_found')
    await drive('put_offer', { token, params, bytes }, 204)
    await drive('put_offer', { token: foreign, params, bytes }, 'slot_taken')
    await drive('put_join', { params, bytes }, 204)
    await drive('put_join', { params, bytes: others }, 'slot_taken')
    for (const slot of ['put_reveal', 'put_done']) {
      await drive(slot, { token: foreign, params, bytes }, 'forbidden')
      await drive(slot, { token, params, bytes }, 204)
      await drive(slot, { token, params, bytes: others }, 'slot_taken')
      await drive(slot, { params, bytes }, 'unauthorized')
    }
    await drive('put_offer', { params, bytes }, 'unauthorized')
    for (const slot of ['put_offer', 'put_join', 'put_reveal', 'put_done']) {
      await drive(slot, { token, params, json: {} }, 'invalid_request')
      await drive(slot, { token, params, bytes: new Uint8Array(5_000) }, 'too_large')
    }
    await drive('read_slot', { params: { ...params, slot: 'join' } }, 200)
    await drive('read_slot', { params: { ...nowhere, slot: 'join' } }, 'not_found')
    await drive('read_slot', { params: { ...params, slot: 'other' } }, 'invalid_request')
  })

  it('the account', async () => {
    const account = await server.account(1)
    const token = await server.token(account)
    await drive('read_user', { token }, 200)
    await drive('read_user', {}, 'unauthorized')
    await drive('export_user', { token }, 200)
    await drive('export_user', {}, 'unauthorized')
    await drive('delete_user', { json: await server.assertion(account, 0, 'token') }, 'unauthorized')
    await drive('delete_user', { json: { confirm: true } }, 'invalid_request')
    await drive('delete_user', { json: { body: 'A'.repeat(20_000) } }, 'too_large')
    await drive('delete_user', { json: await server.assertion(await withRevoked(), 1, 'delete-account') }, 'device_revoked')
    await drive('delete_user', { json: await server.assertion(account, 0, 'delete-account') }, 200)
    const genesis = makeEntry({ ...account, log_seq: -1, log_head: null, devices: [] }, { type: 'genesis', device: makeDevice() })
    await drive('append_log', { json: { ...wire(genesis), proof: await server.assertion(account, 0, 'log') } }, 'unauthorized')
  })
})

/** Refusals that this file does not drive, and where they are. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  internal: 'failures of the server: http/router.test.ts',
  unavailable: 'the database is gone: http/router.test.ts',
  rate_limited: 'R12: limits/, http/log-routes.test.ts',
  overloaded: 'R12: limits/limits.test.ts',
  expired: 'clocks: http/router.test.ts',
  account_gone: 'races with a deletion: store/deletion.test.ts, http/account-routes.test.ts',
  signup_closed: 'http/router.test.ts',
  unknown_version: 'http/router.test.ts',
  invalid_encoding: 'http/event-routes.test.ts',
  'append_events device_revoked': 'a revocation between token and inbox: http/event-routes.test.ts',
}

afterAll(() => {
  const missing: string[] = []
  for (const [name, { operation }] of operations)
    for (const [status, { content }] of Object.entries(operation.responses)) {
      const codes = Number(status) < 400 ? [status] : Object.keys(content?.['application/problem+json']?.examples ?? {})
      for (const code of codes)
        if (!seen.has(`${name} ${code}`) && !Object.hasOwn(ELSEWHERE, code) && !Object.hasOwn(ELSEWHERE, `${name} ${code}`))
          missing.push(`${name} ${code}`)
    }
  expect(missing, 'operations and refusals of the document that nothing drove').toEqual([])
})
