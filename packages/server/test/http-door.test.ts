/** What stands before every route: what a stranger may send, for how long, and how HTTP that is none is answered (R02, R05, R12). */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { ROUTES, type Route, type RouteName } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { boundConnections } from '../src/http/connections.ts'
import { CONTRACTS } from '../src/http/contracts.ts'
import { createRouter } from '../src/http/router.ts'
import { useEventServer } from '@sealpost/testing/relays/event-server'
import { silent } from '@sealpost/testing/relays/silent-log'
import { closed, sendRaw } from '@sealpost/testing/clients/raw-http'

const server = useEventServer()
const tokenRoutes = (Object.entries(ROUTES) as [RouteName, Route][]).filter(([, row]) => row.auth === 'token' && row.body !== 'none')

function checkProblem(answer: string, status: number, code: string): void {
  const [head = '', body = ''] = answer.split('\r\n\r\n', 2)
  expect(answer.match(/HTTP\/1\.1 \d/g)).toHaveLength(1)
  expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
  expect(head).toMatch(/content-type: application\/problem\+json/i)
  const problem = JSON.parse(body) as { status: number; code: string; request_id: string }
  expect(problem).toMatchObject({ status, code })
  expect(head.toLowerCase()).toContain(`x-request-id: ${problem.request_id}`)
  expect(answer).not.toMatch(/\bat .*\.[tj]s:|node_modules|HPE_|FST_|Client Error/)
}

const POST = 'POST /api/auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'

describe('requests that are none', () => {
  it.each([
    ['two lengths and chunks (CL+TE)', `${POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\n`],
    ['two lengths that differ', `${POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef`],
    ['a length that is no number', `${POST}Content-Length: 1e1\r\n\r\nabc`],
    ['a header without a colon', `${POST}Nonsense\r\n\r\n`],
    ['an obsolete line fold', `${POST}X-A: b\r\n c: d\r\nContent-Length: 0 0\r\n\r\n`],
    ['another protocol', 'EHLO relay.example\r\n\r\n'],
    ['an expectation that nobody knows', `${POST}Expect: foo\r\nContent-Length: 2\r\n\r\n{}`],
  ])('%s: one problem, then the connection ends', async (_, text) => {
    checkProblem((await sendRaw(server.url, text)).answer, 400, 'invalid_request')
  })

  it('headers above 16 KiB are refused', async () => {
    checkProblem(
      (await sendRaw(server.url, `GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(20_000)}\r\n\r\n`)).answer,
      431,
      'headers_too_large',
    )
  })

  it.each([
    ['without the subprotocol', '/api/socket', 400, 'invalid_request'],
    ['at another path', '/api/user', 404, 'not_found'],
  ])('an upgrade %s is refused as over REST', async (_, path, status, code) => {
    const headers =
      'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n'
    const { answer } = await sendRaw(server.url, `GET ${path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: given-by-me\r\n${headers}\r\n`)
    checkProblem(answer, status, code)
    expect(answer).toContain('"request_id":"given-by-me"')
  })
})

describe('requests that take their time', () => {
  it('headers have 5 s and a request 10 s, whatever is sent of it', { timeout: 20_000 }, async () => {
    const [nothing, headers, body] = await Promise.all([
      sendRaw(server.url, ''),
      sendRaw(server.url, 'GET /livez HTTP/1.1\r\nHost: x\r\n'),
      sendRaw(server.url, `${POST}Content-Length: 100\r\n\r\n{`),
    ])
    expect(nothing.ms).toBeLessThan(8_000)
    expect(headers.ms).toBeLessThan(8_000)
    checkProblem(headers.answer, 408, 'timeout')
    expect(body.ms).toBeGreaterThan(9_000)
    expect(body.ms).toBeLessThan(13_000)
    checkProblem(body.answer, 408, 'timeout')
  })

  it('who leaves in the middle of a request is no failure of the server', async () => {
    const { port, hostname } = new URL(server.url)
    const socket = connect(Number(port), hostname)
    await once(socket, 'connect')
    socket.write(`${POST}Content-Length: 100\r\n\r\n{`)
    socket.destroy()
    await closed(socket)
    expect((await fetch(`${server.url}/livez`)).status).toBe(200)
  })
})

it('a peer that holds its connection and sends nothing, or half a request, does not hold up the end', async () => {
  const addresses = { isProxy: () => true, limitedAddress: () => null }
  const app = createRouter({
    routes: { create_token: ROUTES.create_token },
    contracts: { create_token: CONTRACTS.create_token },
    answers: { create_token: async () => ({ empty: true }) },
    admit: async () => ({ problem: { code: 'unauthorized' } }),
    addresses,
    overloaded: () => null,
    takeAddress: async () => null,
    logger: silent,
    close_ms: 200,
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const peers = ['', 'GET /livez HTTP/1.1\r\nHost: x\r\n', `${POST}Content-Length: 100\r\n\r\n{`].map((text) => {
    const peer = connect(port, '127.0.0.1')
    peer.on('error', () => {})
    peer.write(text)
    return { open: once(peer, 'connect'), ended: closed(peer) }
  })
  await Promise.all(peers.map(({ open }) => open))
  await app.close()
  await Promise.all(peers.map(({ ended }) => ended))
})

describe('strangers', () => {
  it.each(tokenRoutes)('%s: without a token no body is read', async (_, row) => {
    const path = row.path.replace(/\{\w+\}/g, 'x')
    // a body of the full length is announced, and none of it sent: the answer comes all the same
    const { port, hostname } = new URL(server.url)
    const socket = connect(Number(port), hostname)
    socket.write(
      `${row.method} ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${row.bodyBytesMax}\r\n\r\n`,
    )
    const [answer] = (await once(socket, 'data')) as [Buffer]
    socket.destroy()
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 401 /)
  })

  it('no body that is taken from a stranger keeps the process for long', async () => {
    const bound = ROUTES.append_log.bodyBytesMax
    for (const body of [`[${'{},'.repeat(bound / 3 - 3)}{}]`, `[${'1,'.repeat(bound / 2 - 3)}1]`, '['.repeat(bound - 1)]) {
      const began = performance.now()
      const answer = await fetch(`${server.url}/api/log`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
      expect(answer.status).toBe(400)
      expect(performance.now() - began).toBeLessThan(500)
    }
  })
})

it.each([
  ['per peer', { total: 10, perPeer: 3, isExempt: () => false }],
  ['in the process', { total: 3, perPeer: 1, isExempt: () => true }],
])('connections are bounded %s, and a place that is free is given again', async (_, bounds) => {
  const http = createServer()
  boundConnections(http, bounds)
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  const { port } = http.address() as AddressInfo
  const open = async () => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    const ended = closed(socket)
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    // who has a place is answered, who has none is cut off
    const held = await Promise.race([new Promise<true>((resolve) => socket.once('data', () => resolve(true))), ended.then(() => false)])
    return { held, close: () => (socket.destroy(), ended) }
  }
  http.on('request', (_request, response) => response.end('x'))
  try {
    const held = [await open(), await open(), await open()]
    expect(held.map((one) => one.held)).toEqual([true, true, true])
    expect((await open()).held).toBe(false)
    await held[0]!.close()
    await expect.poll(async () => (await open()).held).toBe(true)
  } finally {
    http.closeAllConnections()
    http.close()
  }
})
