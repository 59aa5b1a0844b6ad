/**
 * What an operator can end, what the audit log tells of those who were refused, and how far the two listeners are apart (OWASP ASVS 5.0:
 * 3.5.4, 7.4.5, 9.2.4, 13.4.5, 16.2.3, 16.3; `docs/asvs.md`). Each role on each route is in `admin-matrix.test.ts`.
 */
import { randomUUID } from 'node:crypto'
import { dirname } from 'node:path'
import { ADMIN_ROUTES, type AdminRoute, CLOSE, ROUTES, type Route, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import { deviceName, userHash } from '../src/audit/entry.ts'
import { readConfig } from '../src/config/config.ts'
import { startServer } from '../src/server.ts'
import { useAdminServer } from '@sealpost/testing/relays/admin-server'
import { freshAddress } from '@sealpost/testing/relays/configured-relays'
import { silent } from '@sealpost/testing/relays/silent-log'
import { connectRaw, makeRecord, proveRaw, startRaw } from '@sealpost/testing/clients/raw-client'

const server = useAdminServer({ env: { SEALPOST_LIMIT_OFFER: '1' } })

type Row = {
  action: string
  actor: string
  outcome: string
  target: string | null
  user_hash: string | null
  request_id: string
  address: string
  detail: string
}
const rowsOf = async (action: string, request_id: string): Promise<Row[]> => {
  const { body } = await server.as('viewer', 'list_audit', { query: { action, order: 'newest' } })
  return (body.rows as Row[]).filter((row) => row.request_id === request_id)
}

describe('an operator ends sessions (7.4.5)', () => {
  it('of a device, which is shut out until it is resumed, its account too; those of others go on', async () => {
    const [account, other] = [await server.account(2), await server.account()]
    const [a, b, c] = [server.door.raw(account, 0), server.door.raw(account, 1), server.door.raw(other)]
    const [first, second, third] = [await connectRaw(a), await connectRaw(b), await connectRaw(c)]
    const token = await server.door.token(account)
    const { user_id, devices } = account
    const params = { user_id, device_id: devices[0]!.device_id }

    await server.as('operator', 'suspend_device', { params, json: {} })
    expect(await first.closed).toMatchObject({ code: CLOSE.suspended.code })
    expect((await server.door.ask('GET', '/api/user', { token })).body.code).toBe('suspended')
    const again = await startRaw(a)
    await proveRaw(again, a)
    expect(await again.closed).toMatchObject({ code: CLOSE.suspended.code })
    await server.as('operator', 'resume_device', { params, json: {} })
    const back = await connectRaw(a)

    await server.as('operator', 'suspend_user', { params: { user_id }, json: {} })
    for (const session of [back, second]) expect(await session.closed).toMatchObject({ code: CLOSE.suspended.code })
    third.sendRecords(makeRecord(third.identity.device_id, 1, { epoch: other.log_seq }))
    await third.next('ack')
    await third.close()
  })

  it('without shutting anybody out', async () => {
    const account = await server.account()
    const options = server.door.raw(account)
    const session = await connectRaw(options)
    await server.as('operator', 'disconnect_user', { params: { user_id: account.user_id }, json: {} })
    expect(await session.closed).toMatchObject({ code: CLOSE.reauthenticate.code })
    await (await connectRaw(options)).close()
  })
})

describe('what was refused is in the audit log, with its request and address', () => {
  const ask = (
    method: string,
    path: string,
    headers: Record<string, string>,
    json?: object,
  ): Promise<{ status: number; request_id: string; from: string }> => {
    const [request_id, from] = [randomUUID(), freshAddress()]
    const body = json === undefined ? {} : { body: JSON.stringify(json) }
    const all = {
      ...headers,
      'x-request-id': request_id,
      'x-forwarded-for': from,
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
    }
    return fetch(server.door.url + path, { method, headers: all, ...body }).then(({ status }) => ({ status, request_id, from }))
  }

  it('a token that is none, and where it came from (16.3.1, 16.3.2)', async () => {
    const { status, request_id, from } = await ask('GET', '/api/user', { authorization: 'Bearer canary' })
    expect(status).toBe(401)
    const [row, ...more] = await rowsOf('token_refused', request_id)
    expect(more).toEqual([])
    expect(row).toMatchObject({ actor: 'stranger', outcome: 'refused', target: 'read_user', address: from })
    expect(JSON.stringify(row)).not.toContain('canary')
  })

  it('an assertion of another key, and one that comes again (16.3.1, 16.3.3)', async () => {
    const [account, other] = [await server.account(), await server.account()]
    const forged = { ...(await server.door.assertion(account, 0, 'token')), sig: (await server.door.assertion(other, 0, 'token')).sig }
    const good = await server.door.assertion(account, 0, 'token')
    expect((await ask('POST', '/api/auth/token', {}, good)).status).toBe(200)
    for (const json of [forged, good]) {
      const { status, request_id, from } = await ask('POST', '/api/auth/token', {}, json)
      expect(status).toBe(401)
      expect(await rowsOf('assertion_refused', request_id)).toMatchObject([{ outcome: 'refused', target: 'create_token', address: from }])
    }
  })

  it('an admin’s token that is none, a role that may not, and a token that was given (16.3.1, 16.3.2)', async () => {
    const refused = await server.ask('list_users', { token: 'canary' })
    expect(refused.status).toBe(401)
    expect(await rowsOf('admin_token_refused', refused.request_id)).toMatchObject([{ outcome: 'refused', target: 'list_users' }])
    const admin = await server.admin('viewer')
    const granted = await server.ask('create_admin_token', { json: await server.assertion(admin) })
    const actor = `admin:${admin.admin_id}`
    expect(await rowsOf('create_admin_token', granted.request_id)).toMatchObject([{ actor, outcome: 'done' }])
    const forbidden = await server.ask('rotate_signing_keys', { token: granted.body.access_token, json: { purpose: 'rest' } })
    expect(forbidden.status).toBe(403)
    expect(await rowsOf('role_refused', forbidden.request_id)).toMatchObject([{ actor, outcome: 'refused', target: 'rotate_signing_keys' }])
  })

  it('a limit that was reached (16.3.3)', async () => {
    const account = await server.account()
    const token = await server.door.token(account)
    const bytes = new Uint8Array(40)
    const offer = () => server.door.ask('PUT', `/api/pairing/${toBase64url(nodeCrypto.random(16))}/offer`, { token, bytes })
    expect((await offer()).status).toBe(204)
    expect((await offer()).status).toBe(429)
    const { body } = await server.as('viewer', 'list_audit', { query: { action: 'rate_limited', user_id: account.user_id } })
    expect(body.rows).toMatchObject([{ outcome: 'refused', target: 'limit:offer' }])
  })
})

it('what is done to accounts and devices is in the audit log by hashes of their ids, and to be read by admins alone (16.2.3, 16.4.2)', async () => {
  const account = await server.account()
  const { user_id } = account
  const params = { user_id, device_id: account.devices[0]!.device_id }
  const { request_id } = await server.as('operator', 'suspend_device', { params, json: {} })
  const rows = await rowsOf('suspend_device', request_id)
  const target = deviceName(params.device_id)
  expect(rows).toMatchObject([
    { outcome: 'done', target },
    { outcome: 'begun', target },
  ])
  expect(rows[0]!.user_hash).toBe(userHash(user_id).toString('base64url'))
  expect(JSON.stringify(rows)).not.toMatch(new RegExp(`${params.device_id}|${user_id}`))
  for (const token of [undefined, await server.door.token(await server.account())])
    expect((await server.ask('list_audit', token === undefined ? {} : { token })).status).toBe(401)
})

describe('the two listeners', () => {
  const paths = (rows: readonly Route[]) => new Set(rows.map(({ method, path }) => `${method} ${path.replace(/\{\w+\}/g, 'x')}`))
  const [own, admins] = [paths(Object.values(ROUTES)), paths(Object.values(ADMIN_ROUTES) as AdminRoute[])]

  it('are two origins, and neither has a route of the other but what is open to all (3.5.4)', async () => {
    expect(new URL(server.admin_url).origin).not.toBe(new URL(server.door.url).origin)
    const open = (Object.values(ROUTES) as Route[]).filter(({ auth }) => auth === 'none').map(({ path }) => path)
    for (const [url, others, known] of [
      [server.door.url, admins, own],
      [server.admin_url, own, admins],
    ] as const)
      for (const route of [...others].filter((one) => !known.has(one))) {
        const [method = '', path = ''] = route.split(' ')
        const { status } = await fetch(url + path, { method, headers: { 'x-forwarded-for': freshAddress() } })
        expect([url, route, status]).toEqual([url, route, 404])
      }
    expect(
      [...admins].filter((one) => own.has(one)).every((one) => open.some((path) => one === `GET ${path.replace(/\{\w+\}/g, 'x')}`)),
    ).toBe(true)
  })

  it('take no token of each other (9.2.3, 9.2.4)', async () => {
    const device = await server.door.token(await server.account())
    const owner = await server.tokenOf('owner')
    expect((await server.ask('read_self', { token: owner })).status).toBe(200)
    expect((await server.door.ask('GET', '/api/user', { token: device })).status).toBe(200)
    expect((await server.ask('read_self', { token: device })).status).toBe(401)
    expect((await server.door.ask('GET', '/api/user', { token: owner })).status).toBe(401)
    const [one, other] = [device, owner].map((token) => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()).aud)
    expect(one).not.toEqual(other)
  })

  it('is one where nobody wants the other (13.4.5)', async () => {
    const env = { SEALPOST_PORT: '0', SEALPOST_ADMIN: 'off', DATABASE_URL: server.database.url, SEALPOST_SECRETS_FILE: server.secrets_file }
    const alone = await startServer(readConfig({ ...env, SEALPOST_DATA: dirname(server.secrets_file) }), { logger: silent, test: true })
    try {
      expect(alone.admin_url).toBeNull()
    } finally {
      await alone.stop()
    }
  })
})
