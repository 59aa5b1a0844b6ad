/**
 * What the listener of admins answers is what its OpenAPI document says (G24): each outcome of each route is driven on a running relay, and
 * whatever else comes in is refused in the same words, with nothing of the inside.
 */
import { randomUUID } from 'node:crypto'
import { type AdminRouteName, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CONTRACTS } from '../src/admin/contracts.ts'
import { makeAdminOpenApi } from '../src/api/admin-openapi.ts'
import type { Contract } from '../src/http/contract.ts'
import { NOBODYS, paramsOf, requestFor, ROUTES_OF_ADMINS } from '@sealpost/testing/clients/admin-requests'
import { type TestAdmin, useAdminServer } from '@sealpost/testing/relays/admin-server'
import { createContract, FAILURES } from '@sealpost/testing/contracts/rest-contract'
import { freshAddress } from '@sealpost/testing/relays/configured-relays'
import { type FuzzRequest, type Known, requestOf } from '@sealpost/testing/forgeries/schema-values'

/** One admin asks for more than it may in a minute. */
const server = useAdminServer({ env: { SEALPOST_LIMIT_ADMIN: '1000000000' } })
const contract = createContract(makeAdminOpenApi())
const routes = ROUTES_OF_ADMINS
let owner: TestAdmin
let token = ''
beforeAll(async () => {
  owner = await server.admin('owner')
  token = await server.token(owner)
})

type Ask = Parameters<typeof contract.drive>[2]
const headers = () => ({ 'x-forwarded-for': freshAddress() })
const drive = (name: AdminRouteName, ask: Ask, expected: number | string) =>
  contract.drive(server.admin_url, name, { token, ...ask, headers: { ...headers(), ...ask.headers } }, expected)

describe('every operation, as the document says', () => {
  it.each(routes)('%s: done, and all that its kind refuses', async (name, row) => {
    const request = await requestFor(server, name)
    if (row.auth === 'assertion') await drive(name, { json: await server.assertion(owner) }, 200)
    else await drive(name, request, CONTRACTS[name].answer.status)
    const { example = {} }: Contract = CONTRACTS[name]
    const query = new URLSearchParams(example.query as Record<string, string> | undefined)
    if (query.size > 0) await drive(name, { ...request, query: `?${query.toString()}` }, 200)
    await drive(name, { ...request, query: '?nonsense=1' }, 'invalid_request')
    if (row.method !== 'GET') await drive(name, { ...request, json: { reason: 'A'.repeat(row.bodyBytesMax) } }, 'too_large')
    if (row.auth === 'token') {
      await drive(name, { ...request, token: 'x' }, 'unauthorized')
      if (row.role !== 'viewer') await drive(name, { ...request, token: await server.tokenOf('viewer') }, 'forbidden')
    }
    for (const param of paramsOf(name).filter((one) => one in NOBODYS))
      await drive(name, { ...request, params: { ...request.params, [param]: NOBODYS[param]!() } }, 'not_found')
  })

  it('assertions that do not hold', async () => {
    await drive('create_admin_token', { json: await server.assertion(owner, 310_000) }, 'expired')
    await drive('create_admin_token', { json: await server.assertion(owner, -310_000) }, 'expired')
    const { sign_seed } = await server.admin('owner')
    await drive('create_admin_token', { json: await server.assertion({ ...owner, sign_seed: nodeCrypto.random(32) }) }, 'unauthorized')
    await drive('create_admin_token', { json: await server.assertion({ ...owner, sign_seed }) }, 200)
  })

  it('admins that are there already, and the last owner', async () => {
    const { name, public_key, role, admin_id } = await server.admin('operator')
    const key = toBase64url(public_key)
    // sent again it is a success
    await drive('add_admin', { json: { name, public_key: key, role } }, 200)
    await drive('add_admin', { json: { name, public_key: key, role: 'viewer' } }, 'admin_exists')
    await drive('add_admin', { json: { name: `${name}2`, public_key: key, role } }, 'admin_exists')
    await drive('add_admin', { json: { name, public_key: toBase64url(nodeCrypto.random(32)), role } }, 'admin_exists')
    const params = { admin_id }
    await drive('remove_admin', { params }, 200)
    await drive('remove_admin', { params }, 200)
    await drive('set_admin_role', { params, json: { role: 'owner' } }, 'not_found')
    // who was removed stays so
    await drive('add_admin', { json: { name, public_key: key, role } }, 'admin_exists')
    // the name is free again
    await drive('add_admin', { json: { name, public_key: toBase64url(nodeCrypto.random(32)), role } }, 200)

    await server.sql(`update admin set removed_at = 1 where role = 'owner' and admin_id <> $1`, [owner.admin_id])
    for (const role of ['viewer', 'operator'])
      await drive('set_admin_role', { params: { admin_id: owner.admin_id }, json: { role } }, 'last_owner')
    await drive('set_admin_role', { params: { admin_id: owner.admin_id }, json: { role: 'owner' } }, 200)
    await drive('remove_admin', { params: { admin_id: owner.admin_id } }, 'last_owner')
  })

  it('documents that are known already, or not there', async () => {
    for (const name of ['read_openapi', 'read_docs', 'read_docs_file'] as const) {
      const { params = {} } = CONTRACTS[name].example as { params?: Record<string, string> }
      const { headers: given } = await drive(name, { params }, 200)
      await drive(name, { params, headers: { 'if-none-match': given.get('etag')! } }, 304)
    }
    await drive('read_docs_file', { params: { file: 'no-such.css' } }, 'not_found')
    expect((await drive('read_openapi', {}, 200)).body).toEqual(JSON.parse(JSON.stringify(makeAdminOpenApi())))
  })

  it('a listener that is told to serve no documents to devices serves its own', async () => {
    const node = await server.node({ env: { SEALPOST_DOCS: 'off' } })
    for (const path of ['/openapi.json', '/docs']) {
      expect((await fetch(`${node.door.url}${path}`)).status).toBe(404)
      expect((await fetch(`${node.admin_url}${path}`)).status).toBe(200)
    }
    await node.stop()
  })
})

describe('bad input', () => {
  const INSIDE = /\bat .*\.[tj]s:|node_modules|\/src\/|syntax error|duplicate key|pg_|stack/i
  const refused = async (name: AdminRouteName, ask: Parameters<typeof server.ask>[1], what: string): Promise<void> => {
    const answer = await server.ask(name, { token, ...ask })
    const at = `${name}, ${what}: ${answer.text.slice(0, 200)}`
    expect(answer.status, at).toBeGreaterThanOrEqual(400)
    expect(answer.status, at).toBeLessThan(500)
    expect(answer.headers.get('content-type'), at).toMatch(/^application\/problem\+json/)
    expect(answer.text.replace(/"[\w-]{22,}"/g, '""'), at).not.toMatch(INSIDE)
  }

  it.each(routes.filter(([, row]) => row.body === 'json'))('%s takes no other body', async (name) => {
    const { params, json = {} } = await requestFor(server, name)
    const good = name === 'create_admin_token' ? await server.assertion(owner) : json
    const text = JSON.stringify(good)
    const withMore = (more: string): string => (text === '{}' ? `{${more}}` : text.replace('{', `{${more},`))
    const bodies: Record<string, string | Uint8Array> = {
      'no body': '',
      'no JSON': '{',
      'a list': '[]',
      null: 'null',
      'a text': '"x"',
      'a number': '7',
      'an unknown member': withMore('"admin":true'),
      'a role that nobody asked for':
        name === 'add_admin' || name === 'set_admin_role' ? withMore('"admin_role":"owner"') : withMore('"role":"owner"'),
      __proto__: withMore('"__proto__":{"role":"owner"}'),
      constructor: withMore('"constructor":{"prototype":{"role":"owner"}}'),
      'a member twice': `${text.slice(0, -1)}${text === '{}' ? '"reason":"a","reason":"b"' : `,${text.slice(1)}`}`,
      'bad UTF-8': Buffer.concat([Buffer.from(withMore('"reason":"')), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]),
      'UTF-16': Buffer.from(text, 'utf16le'),
      'a byte order mark': `\ufeff${text}`,
      'too deep': withMore(`"reason":${'['.repeat(50)}${']'.repeat(50)}`),
      'more than a megabyte': `{"reason":"${'x'.repeat(1_100_000)}"}`,
    }
    for (const [what, body] of Object.entries(bodies)) await refused(name, { params, body }, what)
    await refused(name, { params, body: text, headers: { 'content-type': 'text/plain' } }, 'another type')

    const WRONG = [
      'null',
      'true',
      '-1',
      '0.5',
      '9007199254740993',
      '1e3',
      '1e400',
      '-0',
      '""',
      '[]',
      '{}',
      '"\\u0000"',
      '"\\ud800"',
      `"${'x'.repeat(300)}"`,
    ]
    const members = good as Record<string, unknown>
    for (const [member, right] of Object.entries(members)) {
      const others = Object.entries(members).filter(([other]) => other !== member)
      for (const wrong of WRONG) {
        // what the document takes in this place
        const parsed = wrong === '1e400' ? null : (JSON.parse(wrong) as unknown)
        const takes =
          CONTRACTS[name as 'set_limit'].body.safeParse({ ...members, [member]: parsed }).success && !/e|\./.test(wrong) && wrong !== '-0'
        if (takes) continue
        const rest = others.map(([other, value]) => `,${JSON.stringify(other)}:${JSON.stringify(value)}`).join('')
        await refused(
          name,
          { params, body: `{${JSON.stringify(member)}:${wrong}${rest}}` },
          `${member} ${wrong.slice(0, 20)} in place of ${JSON.stringify(right)}`,
        )
      }
    }
  })

  it.each(routes.filter(([name]) => paramsOf(name).length > 0))('%s takes no other path', async (name) => {
    const { params, json } = await requestFor(server, name)
    const bodyOf = json === undefined ? {} : { json }
    for (const param of Object.keys(params))
      for (const odd of [
        '__proto__',
        'constructor',
        '..%2f',
        '../../etc/passwd',
        ' ',
        '\0',
        'ä',
        '%',
        `' or 1=1 --`,
        'A'.repeat(64),
        'A'.repeat(2_000),
        '\u202e',
      ])
        await refused(name, { params: { ...params, [param]: odd }, ...bodyOf }, `${param} ${odd.slice(0, 20)}`)
  })

  it.each(routes.filter(([name]) => 'query' in CONTRACTS[name]))('%s takes no other query', async (name) => {
    const { params } = await requestFor(server, name)
    const { query }: Contract = CONTRACTS[name]
    for (const member of Object.keys(query!.shape))
      for (const odd of [
        '',
        ' ',
        '-1',
        '0',
        '01',
        '1.5',
        '1e3',
        '1001',
        '9007199254740993',
        'NaN',
        '\0',
        '\u202e',
        'x'.repeat(300),
        '%',
        '%00',
      ])
        await refused(name, { params, query: { [member]: odd } }, `${member}=${odd.slice(0, 20)}`)
    for (const search of ['?limit=1&limit=2', '?__proto__=1', '?limit[]=1', '?limit[$gt]=1']) {
      const answer = await fetch(`${server.admin_url}${contract.operations.get(name)!.path}${search}`, {
        headers: { ...headers(), authorization: `Bearer ${token}` },
      })
      expect([search, answer.status]).toEqual([search, 400])
    }
    for (const cursor of [
      'AAAA',
      toBase64url(Buffer.from('-1')),
      toBase64url(Buffer.from('9007199254740993')),
      toBase64url(Buffer.from('1 or 1=1')),
      toBase64url(Buffer.from(`1 ${'-'.repeat(36)}`)),
      toBase64url(Buffer.from(`9007199254740993 ${randomUUID()}`)),
    ])
      if ('cursor' in query!.shape) await refused(name, { params, query: { cursor } }, `cursor ${cursor}`)
  })

  it('whatever is made of the document: no failure, and nothing that the document does not have', { timeout: 60_000 }, async () => {
    const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)
    const account = await server.account(2)
    const ids = [account.devices[0]!.device_id, account.devices[1]!.device_id, randomUUID()]
    const outcomes = new Map<string, number>()
    const send = async (name: string, { url, payload, method, headers: given }: FuzzRequest): Promise<void> => {
      const response = await fetch(`${server.admin_url}${url}`, {
        method,
        headers: { ...given, ...headers() },
        ...(payload === undefined || method === 'GET' ? {} : { body: payload as string }),
      })
      const text = await response.text()
      const isProblem = response.headers.get('content-type')?.startsWith('application/problem+json') === true
      const outcome = isProblem ? (JSON.parse(text) as { code: string }).code : String(response.status)
      const at = `FUZZ_SEED=${seed} ${name}: ${method} ${url} ${String(payload).slice(0, 500)} → ${text.slice(0, 300)}`
      expect(response.status, at).toBeLessThan(500)
      if (isProblem) expect(text.replace(/"[\w-]{22,}"/g, '""'), at).not.toMatch(INSIDE)
      const { responses } = contract.operations.get(name)!.operation
      const examples = responses[response.status]?.content?.['application/problem+json']?.examples
      // an address of no route any more
      if (outcome !== 'not_found')
        expect(isProblem ? Object.hasOwn(examples ?? {}, outcome) : Object.hasOwn(responses, outcome), at).toBe(true)
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    }
    const known: Known = { ids, token, files: ['swagger-ui.css'] }
    // a rate that is set to 1 stands in the way of what comes after it
    const last = ['set_limit', 'rotate_signing_keys']
    const all = [...contract.operations].toSorted(([a], [b]) => last.indexOf(a) - last.indexOf(b))
    for (const [i, [name, { path, method, operation }]] of all.entries()) {
      const requests = fc.sample(requestOf(path, method, operation, known), { numRuns: 60, seed: seed + i })
      await Promise.all(
        Array.from({ length: 6 }, async (_, lane) => {
          for (let at = lane; at < requests.length; at += 6) await send(name, requests[at]!)
        }),
      )
    }
    expect(outcomes.get('200')).toBeGreaterThan(300)
    for (const code of ['invalid_request', 'not_found', 'unauthorized']) expect(outcomes.get(code), code).toBeGreaterThan(30)
  })
})

afterAll(() => {
  expect(
    contract.missing((_, outcome) => !FAILURES.has(outcome)),
    'outcomes of the document that nothing drove',
  ).toEqual([])
})
