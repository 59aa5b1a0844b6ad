/** Every cell of the access matrix, on a running server with a real database (G23, R10). */
import { createHmac, randomUUID } from 'node:crypto'
import { createAssertion, ROUTES, type Route, type RouteName, type SignedObject, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { decodeJwt, decodeProtectedHeader, importJWK, SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { ASSERTIONS, type AssertionKind, FOREIGN, RIGHT_BY_ID, TOKENS, type TokenKind } from '../src/http/auth/access-matrix.ts'
import type { Contract } from '../src/http/contract.ts'
import { CONTRACTS } from '../src/http/contracts.ts'
import { encodeFollowId } from '../src/relay/follow/follow-id.ts'
import { append, makeAccount, makeEntry, type TestAccount, type TestDevice, wire } from '@sealpost/testing/clients/store-accounts'
import { type Asserted, bodyWith, PURPOSES } from '@sealpost/testing/clients/assertion'
import { makeEventJson, useEventServer } from '@sealpost/testing/relays/event-server'

const server = useEventServer()
const routes = Object.entries(ROUTES) as [RouteName, Route][]
const b64 = (value: object | Uint8Array): string =>
  value instanceof Uint8Array ? toBase64url(value) : Buffer.from(JSON.stringify(value)).toString('base64url')
const bytes = new Uint8Array(40).fill(1)

type Answer = { status: number; body: { code?: string; [name: string]: unknown } }

async function send(
  row: Route,
  contract: Contract,
  o: { headers?: Record<string, string>; query?: string; params?: Record<string, string>; body?: unknown },
): Promise<Answer> {
  const params = o.params ?? contract.example?.params ?? {}
  const url = `${server.url}${row.path.replace(/\{(\w+)\}/g, (_, name: string) => params[name] ?? '')}${o.query ?? ''}`
  const json = o.body ?? contract.example?.body
  const payload = row.body === 'bytes' ? bytes : json === undefined ? undefined : JSON.stringify(json)
  const type = row.body === 'bytes' ? 'application/octet-stream' : 'application/json'
  const response = await fetch(url, {
    method: row.method,
    headers: { ...(payload === undefined ? {} : { 'content-type': type }), ...o.headers },
    ...(payload === undefined ? {} : { body: payload }),
  })
  const text = await response.text()
  return { status: response.status, body: text.startsWith('{') ? JSON.parse(text) : {} }
}

async function forge(token: string, header: object, claims: object): Promise<string> {
  const seed = nodeCrypto.random(32)
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: b64(nodeCrypto.ed25519Public(seed)), d: b64(seed) }
  const key = await importJWK(jwk, 'Ed25519')
  const protectedHeader = { ...(decodeProtectedHeader(token) as { alg: string }), ...header }
  return new SignJWT({ ...decodeJwt(token), ...claims }).setProtectedHeader(protectedHeader).sign(key)
}

/** One of each kind; everything that was done to an account was done before. */
async function makeTokens(): Promise<Record<TokenKind, { headers?: Record<string, string>; query?: string }>> {
  const account = await server.account(2)
  const gone = await server.account(1)
  const [token, ofRevoked, ofDeleted, ofLogout] = [
    await server.token(account),
    await server.token(account, 1),
    await server.token(gone),
    await server.token(await server.account(1)),
  ]
  await append(server.store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[1]!.device_id }] })
  await server.store.deleteAccount(gone.user_id, null)
  expect((await server.ask('POST', '/api/auth/logout', ofLogout)).status).toBe(204)
  const { body: granted } = await server.ask('POST', '/api/auth/token', null, await server.assertion(account, 0, 'token'))
  const [head = '', claims = '', sig = ''] = token.split('.')
  const unsigned = `${b64({ ...decodeProtectedHeader(token), alg: 'none' })}.${claims}.`
  const hs = `${b64({ ...decodeProtectedHeader(token), alg: 'HS256' })}.${claims}`
  const { keys } = (await server.ask('GET', '/.well-known/jwks.json', null)).body
  const mac = createHmac('sha256', Buffer.from(keys[0].x, 'base64url')).update(hs).digest('base64url')
  const other = await server.account(1)
  const bearer = (text: string) => ({ headers: { authorization: `Bearer ${text}` } })
  const assertion = await server.assertion(account, 0, 'token')
  return {
    none: {},
    malformed: { headers: { authorization: 'Token abc' } },
    expired: bearer(await forge(token, {}, { iat: 1, exp: 601 })),
    unsigned: bearer(unsigned),
    symmetric: bearer(`${hs}.${mac}`),
    own_key: bearer(await forge(token, { jku: `${server.url}/jwks.json`, jwk: { kty: 'OKP', crv: 'Ed25519', x: b64(bytes) } }, {})),
    other_server: bearer(await forge(token, {}, { iss: 'sealpost:other' })),
    other_audience: bearer(await forge(token, {}, { aud: 'sealpost:admin' })),
    other_subject: bearer(`${head}.${b64(Object.assign(decodeJwt(token), { sub: other.user_id }))}.${sig}`),
    refresh_token: bearer(granted.refresh_token),
    assertion: bearer(`${assertion.body}.${assertion.sig}`),
    in_query: { query: `?access_token=${granted.access_token}` },
    identity_headers: {
      headers: {
        'x-user-id': account.user_id,
        'x-device-id': account.devices[0]!.device_id,
        'x-forwarded-user': account.user_id,
        'x-auth-request-user': account.user_id,
        cookie: `token=${granted.access_token}`,
      },
    },
    revoked_device: bearer(ofRevoked),
    deleted_account: bearer(ofDeleted),
    after_logout: bearer(ofLogout),
  }
}

describe('tokens', () => {
  it('each kind on each route is refused in the same words', { timeout: 60_000 }, async () => {
    const tokens = await makeTokens()
    const answers = new Set<string>()
    for (const [name, row] of routes.filter(([, route]) => route.auth === 'token'))
      for (const [kind, { status, code }] of Object.entries(TOKENS) as [TokenKind, (typeof TOKENS)[TokenKind]][]) {
        const answer = await send(row, CONTRACTS[name], tokens[kind])
        expect([name, kind, answer.status, answer.body.code]).toEqual([name, kind, status, code])
        answers.add(JSON.stringify({ ...answer.body, request_id: '' }))
      }
    expect(answers.size).toBe(1)
  })
})

describe('assertions', () => {
  const assertAs = (
    account: TestAccount,
    { device_id, sign_seed }: TestDevice,
    purpose: string,
    aud = server.server_key,
    now = Date.now(),
    user_id = account.user_id,
  ) => createAssertion(nodeCrypto, sign_seed, { purpose, aud: b64(aud), user_id, signer: device_id }, now)

  it('every route that asks for one is here', () => {
    expect(
      routes
        .filter(([, row]) => row.auth === 'assertion')
        .map(([name]) => name)
        .toSorted(),
    ).toEqual(Object.keys(PURPOSES).toSorted())
  })

  it.each(Object.keys(PURPOSES) as Asserted[])('%s takes the right one alone, and it once', async (name) => {
    const account = await server.account(2)
    const other = await server.account(1)
    const [first, second] = account.devices as [TestDevice, TestDevice]
    const purpose = PURPOSES[name]
    const { body: granted } = await server.ask('POST', '/api/auth/token', null, await assertAs(account, first, 'token'))
    const make: Record<AssertionKind, () => Promise<SignedObject>> = {
      other_purpose: () => assertAs(account, first, purpose === 'token' ? 'log-read' : 'token'),
      other_server: () => assertAs(account, first, purpose, nodeCrypto.random(32)),
      other_signature: async () => ({ ...(await assertAs(account, first, purpose)), sig: (await assertAs(account, second, purpose)).sig }),
      unknown_signer: () => assertAs(account, { ...first, device_id: randomUUID() }, purpose),
      unknown_account: () => assertAs(account, first, purpose, server.server_key, Date.now(), b64(nodeCrypto.random(32))),
      replayed: async () => {
        const signed = await assertAs(account, first, purpose)
        await server.store.rememberAssertion(JSON.parse(Buffer.from(signed.body, 'base64url').toString()).jti, account.user_id)
        return signed
      },
      stale: () => assertAs(account, first, purpose, server.server_key, Date.now() - 310_000),
      early: () => assertAs(account, first, purpose, server.server_key, Date.now() + 310_000),
    }
    const row: Route = ROUTES[name]
    const ask = async (signed: SignedObject) => send(row, CONTRACTS[name], { body: bodyWith(name, account, signed, granted.refresh_token) })
    for (const [kind, { status, code }] of Object.entries(ASSERTIONS) as [AssertionKind, (typeof ASSERTIONS)[AssertionKind]][]) {
      const answer = await ask(await make[kind]())
      expect([kind, answer.status, answer.body.code]).toEqual([kind, status, code])
    }
    // another account's device can sign what it likes about this one
    const stranger = await ask(await assertAs(account, other.devices[0]!, purpose))
    expect([stranger.status, stranger.body.code]).toEqual([401, 'unauthorized'])
    const good = await assertAs(account, first, purpose)
    expect((await ask(good)).status).toBe(200)
    if (name !== 'delete_user') expect((await ask(good)).status).toBe(401)
  })

  it('the root gets no token and no session', async () => {
    const account = await server.account(1)
    for (const name of ['create_token', 'refresh_token', 'take_session'] as const) {
      const claims = { purpose: PURPOSES[name], aud: b64(server.server_key), user_id: account.user_id, signer: 'root' }
      const signed = await createAssertion(nodeCrypto, account.root_seed, claims, Date.now())
      expect((await send(ROUTES[name], CONTRACTS[name], { body: bodyWith(name, account, signed, 'AAAA') })).status).toBe(401)
    }
  })
})

/** Of the problem, or of what a good answer says. */
function codeOf({ body }: Answer): unknown {
  return body.code ?? (body['nack'] as { code: string } | undefined)?.code ?? ('reset' in body ? 'reset' : undefined)
}

/** All but what differs from one request to the next. */
function shown({ status, body }: Answer): object {
  return { status, ...body, request_id: '' }
}

describe('ids of others (R10)', () => {
  async function followed(token: string, query?: string, last_id?: string) {
    const stream = await server.follow(token, query, last_id)
    return { status: stream.status, next: (type: string) => stream.next(type) }
  }

  it('are answered as ids that nobody has', async () => {
    const [mine, theirs] = [await server.account(1), await server.account(2)]
    const [token, foreign] = [await server.token(mine), await server.token(theirs)]
    const headers = { authorization: `Bearer ${token}` }
    const session_id = await server.session(mine)
    const theirSession = await server.session(theirs)
    await server.ask('POST', '/api/events', foreign, {
      session_id: theirSession,
      events: [1, 2].map((n) => makeEventJson(theirs, 0, n, {}).json),
    })
    const granted = (await server.ask('POST', '/api/auth/token', null, await server.assertion(theirs, 0, 'token'))).body
    const mailbox = toBase64url(nodeCrypto.random(16))
    await send(ROUTES.put_offer, CONTRACTS.put_offer, { params: { mailbox_id: mailbox }, headers: { authorization: `Bearer ${foreign}` } })
    const rename = (account: TestAccount) =>
      wire(makeEntry(account, { type: 'rename_device', rename: { device_id: theirs.devices[0]!.device_id, name: 'x' } }))
    const device = (id: string) => ({ params: { device_id: id }, body: rename(mine) })
    const own = { params: { device_id: mine.devices[0]!.device_id }, body: rename(theirs) }
    const event = makeEventJson(theirs, 0, 1, {}).json
    const page = (await server.ask('GET', '/api/events?limit=1', foreign)).body
    const { continuation_token } = page
    const [{ event_id, received_at }] = page.events
    const { history_id } = server.store
    const place = (event: string) => `?after_position=1&event_id=${event}&received_at=${received_at}&history_id=${history_id}`
    const followId = (event: string) =>
      encodeFollowId({ cursor: { position: 1, event_id: event, received_at, history_id }, log_seq: theirs.log_seq })
    const eventOf = (device_id: string) => ({ ...makeEventJson(mine, 0, 1, {}).json, device_id })
    const entryOf = async (account: TestAccount) => ({
      ...wire(makeEntry(account, { type: 'rotate_keys' }, theirs.devices[0])),
      proof: await server.assertion(mine, 0, 'log'),
    })
    type Cell = { params?: Record<string, string>; query?: string; last_id?: string; body?: unknown }
    const nobody = { ...makeAccount(), devices: theirs.devices }
    /** By the id, or by route and id where the routes differ: what is of others, and what is of nobody. */
    const cells: Record<string, [foreign: Cell, nobodys: Cell | null]> = {
      device_id: [device(theirs.devices[0]!.device_id), device(randomUUID())],
      body: [own, null],
      'append_log body': [{ body: await entryOf(theirs) }, { body: await entryOf(nobody) }],
      session_id: [
        { body: { session_id: theirSession, events: [makeEventJson(mine, 0, 1, {}).json] } },
        { body: { session_id: randomUUID(), events: [makeEventJson(mine, 0, 1, {}).json] } },
      ],
      user_id: [{ body: { session_id, events: [event] } }, { body: { session_id, events: [{ ...event, user_id: nobody.user_id }] } }],
      'events.device_id': [
        { body: { session_id, events: [eventOf(theirs.devices[0]!.device_id)] } },
        { body: { session_id, events: [eventOf(randomUUID())] } },
      ],
      continuation_token: [
        { query: `?continuation_token=${continuation_token}` },
        { query: `?continuation_token=${toBase64url(nodeCrypto.random(48))}` },
      ],
      cursor: [{ query: place(event_id) }, { query: place(randomUUID()) }],
      'last-event-id': [{ last_id: followId(event_id) }, { last_id: followId(randomUUID()) }],
      refresh_token: [
        { body: { ...(await server.assertion(mine, 0, 'refresh')), refresh_token: granted.refresh_token } },
        { body: { ...(await server.assertion(mine, 0, 'refresh')), refresh_token: toBase64url(nodeCrypto.random(52)) } },
      ],
      mailbox_id: [{ params: { mailbox_id: mailbox } }, { params: { mailbox_id: toBase64url(nodeCrypto.random(16)) } }],
    }
    const ask = async (route: RouteName, { body, query, last_id, params }: Cell): Promise<Answer> => {
      if (route === 'follow_events') {
        const { status, next } = await followed(token, query, last_id)
        return { status, body: { reset: (await next('reset')).data } }
      }
      const given = { headers, ...(query === undefined ? {} : { query }), ...(params === undefined ? {} : { params }) }
      return send(ROUTES[route], CONTRACTS[route], { ...given, ...((ROUTES[route] as Route).body === 'none' ? {} : { body }) })
    }
    for (const { route, id, status, code } of FOREIGN) {
      const [theirCell, nobodys] = cells[`${route} ${id}`] ?? cells[id]!
      const answer = await ask(route, theirCell)
      expect([route, id, answer.status, codeOf(answer)]).toEqual([route, id, status, code])
      if (nobodys === null) continue
      expect(shown(await ask(route, nobodys)), `${route} ${id}`).toEqual(shown(answer))
    }
    // what was tried did nothing: the family of the other device is whole
    expect(
      (
        await server.ask('POST', '/api/auth/refresh', null, {
          ...(await server.assertion(theirs, 0, 'refresh')),
          refresh_token: granted.refresh_token,
        })
      ).status,
    ).toBe(200)
    expect((await server.ask('GET', '/api/user', token)).body).toMatchObject({ events: 0, devices: 1 })
  })

  it('a mailbox is open to whoever knows its id, and no other tells that it is there', async () => {
    const [token, foreign] = [await server.token(await server.account(1)), await server.token(await server.account(1))]
    for (const { route, known, unknown } of RIGHT_BY_ID) {
      const ask = async (mailbox_id: string, as: string, name: RouteName = route): Promise<number> => {
        const params = { mailbox_id, slot: 'offer' }
        return (await send(ROUTES[name], CONTRACTS[name], { params, headers: { authorization: `Bearer ${as}` } })).status
      }
      const mailbox = toBase64url(nodeCrypto.random(16))
      expect(await ask(mailbox, foreign, 'put_offer')).toBe(204)
      expect([route, await ask(mailbox, token), await ask(toBase64url(nodeCrypto.random(16)), token)]).toEqual([route, known, unknown])
    }
  })

  it('a stolen access token changes nothing: no device, no session, no account', async () => {
    const account = await server.account(2)
    const token = await server.token(account)
    const headers = { authorization: `Bearer ${token}` }
    const thief = await server.account(1)
    const params = { device_id: account.devices[1]!.device_id }
    const unsigned = {
      ...wire(makeEntry(account, { type: 'revoke_device', revoked: [{ device_id: params.device_id }] })),
      sig: b64(new Uint8Array(64)),
    }
    const byThief = wire(makeEntry(account, { type: 'revoke_device', revoked: [{ device_id: params.device_id }] }, thief.devices[0]))
    for (const body of [unsigned, byThief])
      expect((await send(ROUTES.revoke_device, CONTRACTS.revoke_device, { params, headers, body })).status).toBe(422)
    const stolen = await createAssertion(
      nodeCrypto,
      thief.devices[0]!.sign_seed,
      { purpose: 'session', aud: b64(server.server_key), user_id: account.user_id, signer: account.devices[0]!.device_id },
      Date.now(),
    )
    expect((await send(ROUTES.take_session, CONTRACTS.take_session, { headers, body: stolen })).status).toBe(401)
    expect((await send(ROUTES.delete_user, CONTRACTS.delete_user, { headers, body: stolen })).status).toBe(401)
    expect((await server.ask('GET', '/api/user', token)).body).toMatchObject({ devices: 2, log_seq: 1 })
  })
})
