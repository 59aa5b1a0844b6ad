/** The client of the admin listener against one that answers as a test says. */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { parseServerUrl, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterEach, describe, expect, it } from 'vitest'
import { openAdminClient } from './admin-client.ts'

const sign_seed = nodeCrypto.random(32)
const public_key = nodeCrypto.ed25519Public(sign_seed)
const server_key = nodeCrypto.random(32)
const key = {
  path: '/nonexistent',
  sign_seed,
  public_key,
  admin_id: 'A'.repeat(22),
  server_key_hash: createHash('sha256').update(server_key).digest(),
}

type Told = { status?: number; body: object; headers?: Record<string, string> }
let listening: Server | undefined
afterEach(() => new Promise<void>((resolve) => (listening === undefined ? resolve() : listening.close(() => resolve()))))

/** Gives out one token after another; what it is asked beside that is told by `answer`. */
async function listen(answer: (request: IncomingMessage, token: string) => Told): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = []
  let tokens = 0
  listening = createServer((request, response) => {
    const path = String(request.url)
    asked.push(path)
    const tell = ({ status = 200, body, headers = {} }: Told): void =>
      void response.writeHead(status, { 'content-type': 'application/json', connection: 'close', ...headers }).end(JSON.stringify(body))
    if (path === '/.well-known/sealpost.json') return tell({ body: { server_key: toBase64url(server_key) } })
    if (path === '/api/admin/token') return tell({ body: { access_token: `token${++tokens}` } })
    return tell(answer(request, String(request.headers.authorization).replace('Bearer ', '')))
  })
  await new Promise<void>((resolve) => listening?.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(listening.address() as AddressInfo).port}`, asked }
}
const open = (url: string, signal = new AbortController().signal) => openAdminClient(parseServerUrl(url), key, signal)
const problem = (status: number, code: string, more: Partial<Told> = {}): Told => ({
  status,
  body: { code, detail: `it is ${code}` },
  ...more,
})
const collect = async (rows: AsyncIterable<unknown>): Promise<unknown[]> => {
  const all = []
  for await (const row of rows) all.push(row)
  return all
}

describe('a token', () => {
  it('is asked for once, and anew when its time is over in the middle', async () => {
    let good = 'token1'
    const { url, asked } = await listen((_, token) => (token === good ? { body: { token } } : problem(401, 'unauthorized')))
    const client = await open(url)
    expect([await client.call('read_self'), await client.call('read_self')]).toEqual([{ token: 'token1' }, { token: 'token1' }])
    good = 'token2'
    expect(await client.call('read_self')).toEqual({ token: 'token2' })
    expect(asked.filter((path) => path === '/api/admin/token')).toHaveLength(2)
  })

  it('of whoever is no admin is asked for once more at most', async () => {
    const { url, asked } = await listen(() => problem(401, 'unauthorized'))
    const client = await open(url)
    await expect(client.call('read_self')).rejects.toMatchObject({ code: 'not_admin' })
    await expect(client.call('read_self')).rejects.toMatchObject({ code: 'not_admin' })
    expect(asked.filter((path) => path === '/api/admin/token')).toHaveLength(2)
  })

  it('is asked of the pinned relay alone: another gets nothing that is signed', async () => {
    const { url, asked } = await listen(() => ({ body: {} }))
    const other = { ...key, server_key_hash: nodeCrypto.random(32) }
    await expect(openAdminClient(parseServerUrl(url), other, new AbortController().signal)).rejects.toMatchObject({
      code: 'server_identity',
    })
    expect(asked).toEqual(['/.well-known/sealpost.json'])
  })
})

describe('a list', () => {
  const paged = (rows: number) => (request: IncomingMessage) => {
    const { searchParams } = new URL(String(request.url), 'http://x')
    const from = Number(searchParams.get('cursor') ?? 0)
    const limit = Number(searchParams.get('limit'))
    const users = Array.from({ length: Math.min(limit, rows - from) }, (_, i) => from + i)
    return { body: { users, next_cursor: from + limit < rows ? String(from + limit) : null } }
  }

  it('is read page by page to its end, and no further than is wanted', async () => {
    const { url, asked } = await listen(paged(2_500))
    const client = await open(url)
    expect(await collect(client.all('list_users', 'users'))).toHaveLength(2_500)
    expect(asked.slice(2)).toEqual([
      '/api/admin/users?limit=1000',
      '/api/admin/users?limit=1000&cursor=1000',
      '/api/admin/users?limit=1000&cursor=2000',
    ])
    expect(await collect(client.all('list_users', 'users', {}, { max: 3 }))).toEqual([0, 1, 2])
    expect(asked.slice(5)).toEqual(['/api/admin/users?limit=3'])
  })

  it('waits where it asked too often, until it may or is ended', async () => {
    let refusals = 1
    const answer = paged(2_500)
    const { url, asked } = await listen((request) =>
      String(request.url).includes('cursor') && refusals-- > 0
        ? problem(429, 'rate_limited', { headers: { 'retry-after': '1' } })
        : answer(request),
    )
    const client = await open(url)
    const began = performance.now()
    expect(await collect(client.all('list_users', 'users'))).toHaveLength(2_500)
    expect(performance.now() - began).toBeGreaterThan(900)
    expect(asked).toHaveLength(6)
    refusals = 1_000
    const ending = new AbortController()
    const ended = open(url, ending.signal).then((one) => collect(one.all('list_users', 'users')))
    setTimeout(() => ending.abort(), 100)
    await expect(ended).rejects.toMatchObject({ code: 'aborted' })
    // one call is told so at once
    refusals = 1
    await expect(client.call('list_users', { query: { cursor: '0', limit: '1' } })).rejects.toMatchObject({ code: 'rate_limited' })
  })
})

describe('an answer', () => {
  it.each<[string, Told, string]>([
    ['of a code that it does not know', problem(418, 'teapot'), 'invalid_request'],
    ['that says nothing', { status: 503, body: {} }, 'unavailable'],
    ['that is a list', { status: 500, body: [] }, 'unavailable'],
    ['of __proto__', { status: 400, body: JSON.parse('{"code":"__proto__"}') as object }, 'invalid_request'],
    ['that sends elsewhere', { status: 302, body: {}, headers: { location: 'http://127.0.0.1:1/' } }, 'unreachable'],
    ['that is too long', { body: { pad: 'x'.repeat(34_000_000) } }, 'unreachable'],
  ])('%s is one of ours', async (_, told, code) => {
    const { url } = await listen(() => told)
    await expect((await open(url)).call('read_self')).rejects.toMatchObject({ code })
  })
})
