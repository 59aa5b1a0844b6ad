/**
 * What every answer of a running server has in common, whatever was asked (OWASP ASVS 5.0, V1, V3, V4, V13, V14, V15; `docs/asvs.md`):
 * routes with and without credentials, methods and paths that are not there, upgrades, and bytes that are no request.
 */
import { request } from 'node:http'
import { ROUTES, type Route, type RouteName, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import type { Contract } from '../src/http/contract.ts'
import { CONTRACTS } from '../src/http/contracts.ts'
import { append } from '@sealpost/testing/clients/store-accounts'
import { makeEventJson, useEventServer } from '@sealpost/testing/relays/event-server'
import { sendRaw } from '@sealpost/testing/clients/raw-http'

const server = useEventServer()
const routes = Object.entries(ROUTES) as [RouteName, Route][]

type Seen = { what: string; status: number; headers: Map<string, string[]>; body: string }

/** The path goes out as it is: no client of ours tidies it up. A stream that does not end is left after its head. */
function ask(method: string, path: string, headers: Record<string, string | string[]> = {}, body?: string | Uint8Array): Promise<Seen> {
  const { hostname, port } = new URL(server.url)
  return new Promise((resolve, reject) => {
    const sent = request({ method, host: hostname, port, path, headers, agent: false }, (answer) => {
      const parts: Buffer[] = []
      const isStream = answer.headers['content-type']?.startsWith('text/event-stream') === true
      const done = (): void => {
        const found = new Map<string, string[]>()
        for (let i = 0; i < answer.rawHeaders.length; i += 2) {
          const name = (answer.rawHeaders[i] ?? '').toLowerCase()
          found.set(name, [...(found.get(name) ?? []), answer.rawHeaders[i + 1] ?? ''])
        }
        resolve({ what: `${method} ${path}`, status: answer.statusCode ?? 0, headers: found, body: Buffer.concat(parts).toString() })
        if (isStream) sent.destroy()
      }
      answer.on('data', (part: Buffer) => parts.push(part))
      answer.on('end', done)
      answer.on('error', () => {})
      if (isStream) done()
    })
    sent.on('error', reject)
    if (body !== undefined) sent.setHeader('content-length', Buffer.byteLength(body))
    sent.end(body)
  })
}

const raw = async (text: string): Promise<string> => (await sendRaw(server.url, text, 3_000)).answer

const pathOf = (row: Route, params: Readonly<Record<string, string>> = {}): string =>
  row.path.replace(/\{(\w+)\}/g, (_, name: string) => params[name] ?? '')

function examplePath(name: RouteName): string {
  const contract: Contract = CONTRACTS[name]
  return pathOf(ROUTES[name], contract.example?.params)
}

/** Every route: as a stranger, with a token and good parameters where that is enough, and with a body that is none. */
async function everyAnswer(): Promise<Seen[]> {
  const account = await server.account(2)
  const authorization = `Bearer ${await server.token(account)}`
  const session_id = await server.session(account)
  const mailbox = toBase64url(nodeCrypto.random(16))
  const seen: Seen[] = []
  seen.push(
    await ask(
      'PUT',
      `/api/pairing/${mailbox}/offer`,
      { authorization, 'content-type': 'application/octet-stream' },
      '<script>alert(1)</script>',
    ),
    await ask('GET', `/api/pairing/${mailbox}/offer`),
    await ask(
      'POST',
      '/api/events',
      { authorization, 'content-type': 'application/json' },
      JSON.stringify({ session_id, events: [makeEventJson(account, 0, 1).json] }),
    ),
    await ask('POST', '/api/auth/token', json, JSON.stringify(await server.assertion(account, 1, 'token'))),
    await ask('POST', '/api/log/read', json, JSON.stringify(await server.assertion(account, 1, 'log-read'))),
  )
  for (const [name, row] of routes) {
    const contract: Contract = CONTRACTS[name]
    const path = name === 'read_device' ? `/api/devices/${account.devices[1]?.device_id}` : pathOf(row, contract.example?.params)
    seen.push(await ask(row.method, path))
    seen.push(
      await ask(
        row.method,
        path,
        row.body === 'none' ? { authorization } : { authorization, ...json },
        row.body === 'none' ? undefined : '{',
      ),
    )
  }
  for (const path of ['/', '/nowhere', '/docs/', '/docs/nowhere', '/api', '/%', `/${'a'.repeat(5_000)}`]) seen.push(await ask('GET', path))
  for (const method of ['HEAD', 'OPTIONS', 'TRACE', 'PURGE', 'PROPFIND']) seen.push(await ask(method, '/api/user', { authorization }))
  return seen
}

const json = { 'content-type': 'application/json' }
let made: Promise<Seen[]> | undefined
/** Asked once, looked at by many. */
const answers = (): Promise<Seen[]> => (made ??= everyAnswer())
const only = (seen: Seen, name: string): string | undefined => {
  const values = seen.headers.get(name) ?? []
  expect([seen.what, name, values.length]).toEqual([seen.what, name, Math.min(values.length, 1)])
  return values[0]
}

describe('every answer', { timeout: 60_000 }, () => {
  it('is one of many kinds: what is looked at here succeeds, is refused, and is not there', async () => {
    const statuses = new Set((await answers()).map((seen) => seen.status))
    for (const status of [200, 204, 400, 401, 404]) expect(statuses).toContain(status)
    expect(Math.max(...statuses)).toBeLessThan(500)
    expect((await answers()).length).toBeGreaterThan(2 * routes.length)
  })

  it('with a body says its media type, which is the true one (4.1.1)', async () => {
    for (const seen of await answers()) {
      const type = only(seen, 'content-type')
      if (seen.body === '') continue
      expect([seen.what, type]).toEqual([
        seen.what,
        expect.stringMatching(
          /^(application\/(problem\+json|json|octet-stream|x-ndjson|jwk-set\+json)|text\/(html|css|javascript|event-stream))\b/,
        ),
      ])
      if (/json\b(?!l)/.test(type ?? '') && !type?.includes('ndjson')) expect(() => JSON.parse(seen.body)).not.toThrow()
      if (type?.includes('ndjson')) for (const line of seen.body.trim().split('\n')) expect(() => JSON.parse(line)).not.toThrow()
      if (type?.startsWith('text/html')) expect(seen.body).toMatch(/^<!doctype html>/)
    }
  })

  it('says nosniff (3.4.4)', async () => {
    for (const seen of await answers()) expect([seen.what, only(seen, 'x-content-type-options')]).toEqual([seen.what, 'nosniff'])
  })

  it('is not kept by anybody, but for documents and public keys that are the same for all (14.2.2, 14.3.2)', async () => {
    for (const seen of await answers()) {
      const cache = only(seen, 'cache-control')
      const isPublic = seen.status === 200 && /^GET \/(openapi\.json|asyncapi\.json|docs|\.well-known\/jwks\.json)/.test(seen.what)
      expect([seen.what, seen.status, cache]).toEqual([
        seen.what,
        seen.status,
        isPublic ? expect.stringMatching(/^public, max-age=/) : 'no-store',
      ])
    }
  })

  it('sets no cookie, and none that is sent counts (3.3.1, 3.3.2, 3.3.3, 3.3.4)', async () => {
    for (const seen of await answers()) expect([seen.what, seen.headers.has('set-cookie')]).toEqual([seen.what, false])
    const token = await server.token(await server.account())
    for (const cookie of [`token=${token}`, `__Host-session=${token}`, `authorization=Bearer ${token}`])
      expect((await ask('GET', '/api/user', { cookie })).status).toBe(401)
  })

  it('names neither software nor version', async () => {
    for (const seen of await answers()) {
      for (const name of ['server', 'x-powered-by', 'via', 'x-aspnet-version', 'x-generator'])
        expect([seen.what, seen.headers.has(name)]).toEqual([seen.what, false])
      if (seen.status >= 400) expect(seen.body).not.toMatch(/fastify|node\.?js|postgres|\d+\.\d+\.\d+|\bat .*\.[tj]s:/i)
    }
  })

  it('is no redirect, neither to https nor elsewhere (3.7.2, 4.1.2)', async () => {
    for (const seen of await answers()) {
      expect([seen.what, seen.status >= 300 && seen.status < 400]).toEqual([seen.what, false])
      expect(seen.headers.has('location')).toBe(false)
    }
    for (const path of [
      '//evil.example',
      '//evil.example/%2f..',
      '/\\evil.example',
      '/docs?url=https://evil.example',
      '/?next=https://evil.example',
    ])
      expect((await ask('GET', path)).headers.has('location')).toBe(false)
  })

  it('lets no other origin read it or ask with credentials (3.4.2, 3.5.2)', async () => {
    const token = await server.token(await server.account())
    const asked = [...(await answers())]
    for (const origin of ['https://evil.example', 'null', 'http://127.0.0.1', server.url])
      for (const [name, row] of routes) {
        const headers = {
          origin,
          'access-control-request-method': row.method,
          'access-control-request-headers': 'authorization, content-type',
        }
        const preflight = await ask('OPTIONS', examplePath(name), headers)
        expect([preflight.what, preflight.status]).toEqual([preflight.what, 404])
        asked.push(preflight)
        if (row.method === 'GET') asked.push(await ask('GET', examplePath(name), { origin, authorization: `Bearer ${token}` }))
      }
    for (const seen of asked)
      expect([seen.what, [...seen.headers.keys()].filter((name) => name.startsWith('access-control-'))]).toEqual([seen.what, []])
  })
})

describe('requests that a page of another origin can send without asking first (3.5.1, 3.5.2)', () => {
  it.each(['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', ''])(
    'a body of %j is taken by no route',
    async (type) => {
      const account = await server.account()
      for (const [name, row] of routes.filter(([, { body }]) => body !== 'none')) {
        const headers = { authorization: `Bearer ${await server.token(account)}`, ...(type === '' ? {} : { 'content-type': type }) }
        const body = name === 'create_token' ? JSON.stringify(await server.assertion(account, 0, 'token')) : '{}'
        const seen = await ask(row.method, examplePath(name), headers, body)
        expect([seen.what, seen.status]).toEqual([seen.what, 400])
      }
    },
  )

  it('no method is taken from a header, a query or a form (3.5.3)', async () => {
    const account = await server.account(2)
    const authorization = `Bearer ${await server.token(account)}`
    for (const method of ['DELETE', 'POST', 'PATCH']) {
      expect((await ask('GET', '/api/user', { authorization, 'x-http-method-override': method, 'x-http-method': method })).status).toBe(200)
      expect((await ask('GET', `/api/user?_method=${method}`, { authorization })).status).toBe(400)
    }
    expect((await ask('GET', '/api/user', { authorization })).status).toBe(200)
  })
})

describe('methods', () => {
  it('GET changes nothing: no route that changes something has it, nor answers to it (3.5.3)', async () => {
    const account = await server.account(2)
    const authorization = `Bearer ${await server.token(account)}`
    for (const [name, row] of routes) {
      if (row.method === 'GET') expect([name, row.again]).toEqual([name, undefined])
      const path = row.path.replace(/\{device_id\}/, account.devices[1]?.device_id ?? '')
      if (routes.some(([, other]) => other.method === 'GET' && other.path === row.path)) continue
      if (path.includes('{')) continue
      for (const method of ['GET', 'HEAD', 'OPTIONS'])
        expect([path, (await ask(method, path, { authorization })).status]).toEqual([path, 404])
    }
    expect(JSON.parse((await ask('GET', '/api/user', { authorization })).body)).toMatchObject({ devices: 2, log_seq: account.log_seq })
  })

  it('TRACE and whatever is not in the list is refused, and nothing of the request comes back (13.4.4)', async () => {
    for (const method of ['TRACE', 'TRACK', 'CONNECT', 'DEBUG', 'PROPFIND', 'GARBAGE', 'get']) {
      const target = method === 'CONNECT' ? 'evil.example:443' : '/livez'
      const answer = await raw(`${method} ${target} HTTP/1.1\r\nHost: x\r\nX-Canary: canary-7f3a\r\nConnection: close\r\n\r\n`)
      // an upgrade that nobody takes and a method that the parser does not know end the connection
      expect([method, answer]).toEqual([method, expect.stringMatching(/^(HTTP\/1\.1 4\d\d |$)/)])
      expect(answer).not.toContain('canary-7f3a')
    }
  })
})

describe('the page of the documents', () => {
  it('runs scripts of this server alone, nothing in line, in no frame of others, and sends no referrer (3.4.3, 3.4.5, 3.4.6)', async () => {
    for (const path of ['/docs', '/docs/start.js', '/docs/swagger-ui.css', '/docs/swagger-ui-bundle.js', '/openapi.json']) {
      const seen = await ask('GET', path)
      expect(seen.status).toBe(200)
      const policy = new Map(
        (only(seen, 'content-security-policy') ?? '').split(';').map((part) => {
          const [name = '', ...values] = part.trim().split(' ')
          return [name, values.join(' ')]
        }),
      )
      expect(policy.get('default-src')).toBe("'none'")
      expect(policy.get('script-src')).toBe("'self'")
      expect(policy.get('object-src') ?? policy.get('default-src')).toBe("'none'")
      expect(policy.get('base-uri')).toBe("'none'")
      expect(policy.get('frame-ancestors')).toBe("'none'")
      expect(policy.get('form-action')).toBe("'none'")
      expect([...policy.values()].join(' ')).not.toMatch(/unsafe-eval|https?:|\*/)
      expect(only(seen, 'referrer-policy')).toBe('no-referrer')
    }
    const { body } = await ask('GET', '/docs')
    for (const [, attributes = '', inside = ''] of body.matchAll(/<script([^>]*)>([^<]*)<\/script>/g)) {
      expect(inside).toBe('')
      expect(attributes).toMatch(/^ src="\/?docs\/[a-z-]+\.js"$/)
    }
    expect(body).not.toMatch(/\son\w+=|javascript:|https?:\/\/|<(object|embed|applet|iframe|base|form)\b/i)
  })

  it('shows a stranger nothing that the API document does not say, and calls nothing by itself (13.4.5)', async () => {
    const start = (await ask('GET', '/docs/start.js')).body
    expect(start).toMatch(/supportedSubmitMethods: \[\]/)
    expect(start).toMatch(/validatorUrl: null/)
    expect((await ask('GET', '/docs?url=https://evil.example/openapi.json')).status).toBe(400)
  })
})

describe('what was stored by others', () => {
  it('comes back as the bytes that they are, for no browser to run (3.2.1, 3.2.2, 5.3.1)', async () => {
    const authorization = `Bearer ${await server.token(await server.account())}`
    const mailbox = toBase64url(nodeCrypto.random(16))
    const page = '<!doctype html><script>alert(document.domain)</script>'
    const headers = { authorization, 'content-type': 'application/octet-stream' }
    expect((await ask('PUT', `/api/pairing/${mailbox}/offer`, headers, page)).status).toBe(204)
    const seen = await ask('GET', `/api/pairing/${mailbox}/offer`, { accept: 'text/html', 'sec-fetch-dest': 'document' })
    expect(seen.body).toBe(page)
    expect(only(seen, 'content-type')).toBe('application/octet-stream')
    expect(only(seen, 'x-content-type-options')).toBe('nosniff')
  })

  it('JSON and lines of JSON keep their form whatever a name holds (1.1.2, 1.2.1, 1.2.3)', async () => {
    const account = await server.account(2)
    const name = `"},{"x":1}</script><b>&amp;'; drop table device`
    const { device_id } = account.devices[1] ?? { device_id: '' }
    await append(server.store, account, { type: 'rename_device', rename: { device_id, name } })
    const authorization = `Bearer ${await server.token(account)}`
    const { devices } = JSON.parse((await ask('GET', '/api/devices', { authorization })).body)
    expect(devices.map((device: { name: string }) => device.name)).toContain(name)
    expect(devices).toHaveLength(2)
    const lines = (await ask('GET', '/api/user/export', { authorization })).body.trim().split('\n')
    for (const line of lines) expect(() => JSON.parse(line)).not.toThrow()
    expect(JSON.parse((await ask('GET', `/api/devices/${device_id}`, { authorization })).body)).toMatchObject({ name })
  })

  it('an answer has no more members than its contract names (15.3.1)', async () => {
    const account = await server.account(2)
    const authorization = `Bearer ${await server.token(account)}`
    for (const name of [
      'list_devices',
      'read_device',
      'read_user',
      'read_connection_status',
      'read_jwks',
      'read_server',
      'read_events',
    ] as const) {
      const path = name === 'read_device' ? `/api/devices/${account.devices[1]?.device_id}` : ROUTES[name].path
      const { body } = await ask('GET', path, { authorization })
      const { answer } = CONTRACTS[name] as Contract
      if (!('schema' in answer) || answer.schema === undefined) throw new Error(`${name} has a schema`)
      // the contracts are strict: a member more is a failure
      expect([name, answer.schema.safeParse(JSON.parse(body)).error?.issues ?? []]).toEqual([name, []])
      expect([name, answer.schema.safeParse({ ...JSON.parse(body), user_no: 1 }).success]).toEqual([name, false])
      expect(body).not.toMatch(/"(user_no|device_no|token_version|token_hash|session_hash|name_key)"/)
    }
  })
})

describe('what is asked for', () => {
  it('is decoded once, and judged in its decoded form (1.1.1)', async () => {
    const account = await server.account()
    const authorization = `Bearer ${await server.token(account)}`
    const { device_id } = account.devices[0] ?? { device_id: '' }
    const once = Array.from(device_id, (letter) => `%${letter.charCodeAt(0).toString(16)}`).join('')
    expect((await ask('GET', `/api/devices/${once.slice(0, 60)}${device_id.slice(20)}`, { authorization })).status).toBe(200)
    const twice = once.replaceAll('%', '%25').slice(0, 50)
    for (const path of [
      `/api/devices/${twice}${device_id.slice(10)}`,
      `/api/devices/${device_id}%00`,
      `/api/devices/${device_id.toUpperCase().replace(/[A-F]/, '%ff')}`,
      '/api/devices/%c0%ae%c0%ae',
    ]) {
      const { status } = await ask('GET', path, { authorization })
      expect([path, status >= 400 && status < 500]).toEqual([path, true])
    }
  })

  it.each([
    '/docs/../package.json',
    '/docs/..%2f..%2fpackage.json',
    '/docs/%2e%2e/%2e%2e/secrets.json',
    '/docs/....//secrets.json',
    '/docs/package.json',
    '/docs/swagger-ui.css%00.js',
    '/docs/swagger-ui.css/',
    '/../../../../etc/passwd',
    '/.git/config',
    '/.git/HEAD',
    '/.svn/entries',
    '/.env',
    '/secrets.json',
    '/package.json',
    '/node_modules/',
    '/',
    '/metrics',
    '/debug',
    '/admin',
    '/console',
    '/server-status',
  ])('%s is not there: no folder is listed and no file is served that is not in the list (5.3.2, 13.4.1, 13.4.3, 13.4.5)', async (path) => {
    const seen = await ask('GET', path)
    // a name that no file may have is told apart from one that is not there
    expect([400, 404]).toContain(seen.status)
    expect(JSON.parse(seen.body)).toMatchObject({ code: seen.status === 404 ? 'not_found' : 'invalid_request' })
  })

  it('a parameter that comes twice is refused, and a query never stands for a body or a header (15.3.7)', async () => {
    const account = await server.account()
    const token = await server.token(account)
    const authorization = `Bearer ${token}`
    for (const query of [
      'limit=1&limit=2',
      'after_position=0&after_position=1',
      'limit[]=1',
      'limit[a]=1',
      'limit=1;limit=2',
      'Limit=1',
      'unknown=1',
    ])
      expect([query, (await ask('GET', `/api/events?${query}`, { authorization })).status]).toEqual([query, 400])
    expect((await ask('GET', '/api/events?limit=1', { authorization })).status).toBe(200)
    const { body, sig } = await server.assertion(account, 0, 'token')
    expect((await ask('POST', `/api/auth/token?body=${body}&sig=${sig}`, json, '{}')).status).toBe(400)
    // two credentials are none
    const two = await raw(
      `GET /api/user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nAuthorization: ${authorization}\r\nConnection: close\r\n\r\n`,
    )
    expect(two).toMatch(/^HTTP\/1\.1 401 /)
  })

  it('numbers keep to their bounds (1.4.2)', async () => {
    const authorization = `Bearer ${await server.token(await server.account())}`
    for (const value of ['-1', '1e3', '0x10', '1.5', ' 1', '9007199254740993', '18446744073709551616', 'NaN', 'Infinity', '٣', '']) {
      const { status } = await ask('GET', `/api/events?after_position=${encodeURIComponent(value)}`, { authorization })
      expect([value, status]).toEqual([value, 400])
    }
  })
})

describe('headers that only a proxy may set (4.1.3, 15.3.4)', () => {
  it('give no identity and no address to who is no trusted proxy', async () => {
    const account = await server.account()
    for (const name of [
      'x-user-id',
      'x-device-id',
      'x-forwarded-user',
      'x-remote-user',
      'x-auth-request-user',
      'x-original-url',
      'x-rewrite-url',
    ])
      expect([name, (await ask('GET', '/api/user', { [name]: account.user_id })).status]).toEqual([name, 401])
    expect((await ask('GET', '/nowhere', { 'x-original-url': '/livez', 'x-rewrite-url': '/livez' })).status).toBe(404)
    // who says of itself to be another one each time is counted as one: it stands in the way of nobody's limit but its own
    const peers = await Promise.all(
      Array.from({ length: 700 }, (_, i) => ask('GET', '/.well-known/sealpost.json', { 'x-forwarded-for': `198.51.100.${i % 250}` })),
    )
    const refused = peers.filter((seen) => seen.status === 429).length
    expect(refused).toBeGreaterThanOrEqual(90)
  })
})
