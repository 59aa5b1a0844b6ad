/**
 * Every cell of who may do what for whom (G24; `docs/operations/admin-routes.md` shows them): each route of the list × each credential, on a
 * running relay. The list itself drives it: a new route is in it by being in the list. Whoever is let in gets what the document says, and
 * what was done is in the audit log; whoever is not has changed nothing.
 */
import { randomUUID } from 'node:crypto'
import { type AdminRoute, mayAct, ROLES, type Role } from '@sealpost/protocol'
import { beforeAll, describe, expect, it } from 'vitest'
import { admitAdmin } from '../src/admin/authority.ts'
import { CONTRACTS } from '../src/admin/contracts.ts'
import { makeAdminOpenApi } from '../src/api/admin-openapi.ts'
import { userHash } from '../src/audit/entry.ts'
import { thumbprint } from '../src/http/auth/jwt.ts'
import { NOBODYS, paramsOf, requestFor, ROUTES_OF_ADMINS } from '@sealpost/testing/clients/admin-requests'
import { type TestAdmin, useAdminServer } from '@sealpost/testing/relays/admin-server'
import { assertOf } from '@sealpost/testing/clients/assertion'
import { type Ask, createContract } from '@sealpost/testing/contracts/rest-contract'
import { freshAddress } from '@sealpost/testing/relays/configured-relays'
import { unaudited } from '@sealpost/testing/relays/silent-log'

const server = useAdminServer()
const contract = createContract(makeAdminOpenApi())
const routes = ROUTES_OF_ADMINS
const withToken = routes.flatMap(([name, row]) => (row.auth === 'token' ? [[name, row.role, row] as const] : []))

const CREDENTIALS = ['none', ...ROLES, 'removed', 'device'] as const
type Credential = (typeof CREDENTIALS)[number]
const admins = {} as Record<Role | 'removed', TestAdmin>
const tokens: Partial<Record<Credential, string>> = {}
const isRole = (credential: Credential): credential is Role => ROLES.some((role) => role === credential)

beforeAll(async () => {
  for (const role of [...ROLES, 'removed'] as const) {
    admins[role] = await server.admin(role === 'removed' ? 'owner' : role)
    tokens[role] = await server.token(admins[role])
  }
  await server.store.removeAdmin(admins.removed.admin_id)
  tokens.device = await server.door.token(await server.account(1))
})

const VOLATILE = ['audit', 'audit_head', 'audit_checkpoint', 'assertion', 'node']
/** All that there is, but for what was seen, who proved itself, and which process lives. */
async function digest(): Promise<string> {
  const tables: { name: string }[] = await server.sql(
    `select c.relname as name from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname <> all($1) order by 1`,
    [VOLATILE],
  )
  expect(tables.length).toBeGreaterThan(10)
  const parts = tables.map(
    ({ name }) =>
      `select '${name}' as name, count(*) as n, md5(string_agg(row, '' order by row)) as digest
         from (select md5((to_jsonb(t) - 'last_seen' - 'seen_position')::text) as row from ${name} t) x`,
  )
  return JSON.stringify(await server.sql(parts.join(' union all ')))
}

const traces = (request_id: string | undefined) =>
  server.sql('select actor, action, outcome, target, user_hash, detail, address from audit where request_id = $1 order by seq', [
    request_id,
  ])

describe('the list', () => {
  it('a route without a rule does not compile, is nobody’s, and there is none', async () => {
    const body = { body: 'none', bodyBytesMax: 0 } as const
    // @ts-expect-error -- whoever asks for a token says for which role
    const lawless: AdminRoute = { method: 'GET', path: '/api/admin/lawless', auth: 'token', says: '', ...body }
    // @ts-expect-error -- a role that is none
    const misspelt: AdminRoute = { method: 'GET', path: '/api/admin/lawless', auth: 'token', role: 'root', says: '', ...body }
    expect(lawless.path).toBe(misspelt.path)
    for (const [, role] of withToken) expect(ROLES).toContain(role)

    const owner = await server.store.findAdmin(admins.owner.admin_id)
    const store = { findAdmin: async () => owner }
    const claims = { admin_id: admins.owner.admin_id, jkt: await thumbprint(admins.owner.public_key) }
    const deps = { store, tokens: { verify: async () => claims }, limits: { take: async () => null }, audit: unaudited }
    const asking = { authorization: 'Bearer x', address: null, request_id: 'none' }
    for (const name of ['lawless', 'toString', '__proto__', 'live', 'create_admin_token'])
      expect(await admitAdmin(deps, name, asking), name).toMatchObject({ problem: { code: 'forbidden' } })
    expect(await admitAdmin(deps, 'remove_admin', asking)).toMatchObject({ caller: { role: 'owner' } })
  })

  it('each role may do what those before it may, and something more', () => {
    const counts = ROLES.map((role) => withToken.filter(([, least]) => mayAct(role, least)).length)
    expect(counts).toEqual(counts.toSorted((a, b) => a - b))
    expect(new Set(counts).size).toBe(ROLES.length)
    // who only looks changes nothing
    for (const [name, least, { method }] of withToken) expect([name, method === 'GET'], name).toEqual([name, least === 'viewer'])
    expect(withToken.filter(([, least]) => least === 'owner').map(([name]) => name)).toEqual([
      'rotate_signing_keys',
      'delete_user',
      'add_admin',
      'set_admin_role',
      'remove_admin',
    ])
  })
})

describe('every cell', () => {
  it.each(withToken)('%s, for %s and above', async (name, least, row) => {
    const refused = CREDENTIALS.filter((credential) => !isRole(credential) || !mayAct(credential, least))
    const ask = await requestFor(server, name)
    const before = await digest()
    for (const credential of refused) {
      const headers = { ...ask.headers, 'x-request-id': randomUUID() }
      const token = tokens[credential]
      const code = isRole(credential) ? 'forbidden' : 'unauthorized'
      const { body } = await contract.drive(server.admin_url, name, { ...ask, headers, ...(token === undefined ? {} : { token }) }, code)
      // it says no more than that
      if (code === 'forbidden') expect(body.detail).toBe(`this asks for the role ${least}, and yours is ${credential}`)
      else expect(body.detail).toBeUndefined()
      expect([credential, await digest()]).toEqual([credential, before])
      expect((await traces(headers['x-request-id'])).filter(({ outcome }) => outcome !== 'refused')).toEqual([])
    }

    for (const role of ROLES.filter((one) => mayAct(one, least))) {
      const own = await requestFor(server, name)
      const token = tokens[role]!
      const { body } = await contract.drive(server.admin_url, name, { ...own, token }, CONTRACTS[name].answer.status)
      if (row.method === 'GET') continue
      const actor = `admin:${admins[role].admin_id}`
      const rows = (await traces(own.headers['x-request-id'])).filter(({ action }) => action === name)
      expect(rows.map(({ outcome }) => outcome)).toEqual(['begun', 'done'])
      for (const one of rows) {
        expect(one).toMatchObject({ actor, address: own.headers['x-forwarded-for'] })
        expect(one.user_hash).toEqual(own.params['user_id'] === undefined ? null : userHash(own.params['user_id']))
      }
      expectTarget(rows, own, body)
    }
  })

  /** What was acted on is named from the beginning, or at the end when it was made. */
  function expectTarget(rows: { target: string | null; user_hash: unknown; detail: string | null }[], ask: Ask, body: object): void {
    const [begun, done] = rows
    const { user_id: _, device_id, ...others } = ask.params ?? {}
    const [[param, value] = []] = Object.entries(others)
    if (device_id !== undefined) expect(begun?.target).toMatch(/^device:[\w-]{22}$/)
    else if (param !== undefined) expect(begun?.target).toBe(`${param.replace(/_id$/, '').replace('rule', 'limit')}:${value}`)
    else if ('admin_id' in body) expect(done?.target).toBe(`admin:${String(body.admin_id)}`)
    else if ('invite' in body) expect(done?.target).toBe(`invite:${(body.invite as { invite_id: string }).invite_id}`)
    else if (begun?.user_hash === null) expect(JSON.parse(begun.detail ?? '{}')).toMatchObject(ask.json as object)
  }

  it.each(withToken.filter(([name]) => paramsOf(name).some((param) => param in NOBODYS)))(
    '%s, about what is not there',
    async (name, least, row) => {
      const ask = await requestFor(server, name)
      const of = Object.keys(ask.params).filter((param) => param in NOBODYS)
      for (const param of of) {
        const before = await digest()
        const headers = { ...ask.headers, 'x-request-id': randomUUID() }
        const params = { ...ask.params, [param]: NOBODYS[param]!() }
        await contract.drive(server.admin_url, name, { ...ask, params, headers, token: tokens[least]! }, 'not_found')
        expect(await digest()).toBe(before)
        if (row.method === 'GET') continue
        const rows = await traces(headers['x-request-id'])
        expect(rows.map(({ outcome }) => outcome)).toEqual(['begun', 'refused'])
        expect(JSON.parse(rows[1].detail)).toMatchObject({ code: 'not_found' })
      }
    },
  )

  it.each(routes.filter(([, { auth }]) => auth === 'none'))('%s, which is open to all', async (name) => {
    for (const credential of CREDENTIALS) {
      const token = tokens[credential]
      await contract.drive(server.admin_url, name, { ...(await requestFor(server, name)), ...(token === undefined ? {} : { token }) }, 200)
    }
  })

  it('create_admin_token, by whose assertion', async () => {
    expect(routes.filter(([, { auth }]) => auth === 'assertion').map(([name]) => name)).toEqual(['create_admin_token'])
    const drive = (json: object, expected: number | string, token?: string) => {
      const headers = { 'x-forwarded-for': freshAddress() }
      return contract.drive(server.admin_url, 'create_admin_token', { json, headers, ...(token === undefined ? {} : { token }) }, expected)
    }
    for (const role of ROLES) expect((await drive(await server.assertion(admins[role]), 200)).body.role).toBe(role)
    await drive(await server.assertion(admins.removed), 'unauthorized')
    const account = await server.account(1)
    await drive(await assertOf(account, server.server_key, 'token'), 'invalid_request')
    // a token is nothing here, whosever it is
    await drive({}, 'invalid_request', tokens.owner)
    await drive(await server.assertion(admins.removed), 'unauthorized', tokens.owner)
  })
})
