import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { startShippedHaproxy, startShippedNginx } from '@sealpost/testing/components/shipped-balancers'
import type { Proxy } from '@sealpost/testing/components/proxies'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { listen } from '@sealpost/testing/components/listen'

/** How often each of three relays was asked for something; they do as the header `do` says. */
let asked: number[] = []
let last: IncomingMessage
const relays: { port: number; end(): void }[] = []

beforeAll(async () => {
  for (let i = 0; i < 3; i++) relays.push(await listen(fakeRelay(i)))
})
afterAll(() => {
  for (const relay of relays) relay.end()
})
beforeEach(() => {
  asked = [0, 0, 0]
})

function fakeRelay(i: number): Server {
  const answer = (incoming: IncomingMessage, response: ServerResponse): void => {
    if (incoming.url === '/readyz') return void response.end()
    last = incoming
    asked[i] = (asked[i] ?? 0) + 1
    incoming.resume().once('end', () => {
      if (incoming.headers['do'] === 'drop') incoming.socket.destroy()
      else if (incoming.headers['do'] === '503') response.writeHead(503, { 'retry-after': '5' }).end('{"code":"unavailable"}')
      else if (incoming.headers['do'] === 'follow') response.write(': here\n\n')
      else response.end()
    })
  }
  const refuse = (_: IncomingMessage, socket: { end(text: string): void }): void => {
    asked[i] = (asked[i] ?? 0) + 1
    socket.end('HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
  }
  return createServer(answer).on('upgrade', refuse)
}

async function ask(balancer: Proxy, method: string, path: string, headers: Record<string, string> = {}): Promise<IncomingMessage> {
  const body = method === 'GET' ? '' : '{}'
  const asking = request({ port: balancer.port, method, path, agent: false, headers: { 'content-length': body.length, ...headers } })
  asking.end(body)
  const [response] = (await once(asking, 'response')) as [IncomingMessage]
  return response.resume()
}

/** HAProxy may come back to the last but one. */
function expectOthers(times: number): void {
  expect(asked.filter((count) => count > 0).length).toBeGreaterThanOrEqual(Math.min(times, 2))
}

const timesAsked = (): number => asked.reduce((sum, times) => sum + times, 0)
const UPGRADE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
}

/** `drop`: the relay was gone before it answered, whatever it had done by then. */
const RULES = [
  ['a look', 'GET', '/api/devices', 'drop', { haproxy: 3, nginx: 3 }],
  ['a slot, the same bytes of which are a success', 'PUT', '/api/pairing/a/offer', 'drop', { haproxy: 3, nginx: 3 }],
  ['an entry of the log, which is there once', 'PATCH', '/api/devices/a', 'drop', { haproxy: 3, nginx: 1 }],
  ['events, which have their numbers', 'POST', '/api/events', 'drop', { haproxy: 3, nginx: 1 }],
  ['an assertion, which opens one door once', 'POST', '/api/auth/token', 'drop', { haproxy: 1, nginx: 1 }],
  ['a look that is refused for now', 'GET', '/api/devices', '503', { haproxy: 3, nginx: 3 }],
  ['an assertion that is refused for now', 'POST', '/api/auth/token', '503', { haproxy: 1, nginx: 1 }],
] as const

for (const [name, start] of [
  ['haproxy', startShippedHaproxy],
  ['nginx', startShippedNginx],
] as const) {
  describeWith([name], `R07: ${name} as it is shipped`, () => {
    let balancer: Proxy
    beforeAll(async () => {
      balancer = await start(relays.map(({ port }) => port))
    })
    afterAll(() => balancer.stop())

    test.each(RULES)('tries elsewhere only what may be done twice: %s', async (_, method, path, what, times) => {
      const { statusCode } = await ask(balancer, method, path, { do: what })
      expect(statusCode).toBe(what === '503' ? 503 : 502)
      expect(timesAsked()).toBe(times[name])
      expectOthers(times[name])
    })

    test('a socket that one relay refuses is offered to the others', async () => {
      const refused = await ask(balancer, 'GET', '/api/socket', UPGRADE)
      expect(refused.statusCode).toBe(503)
      expect(refused.headers['retry-after']).toBe('5')
      expect(timesAsked()).toBe(3)
      expectOthers(3)
    })

    test('says where a request comes from behind what the client says itself', async () => {
      await ask(balancer, 'GET', '/livez', { 'x-forwarded-for': '192.0.2.1' })
      expect(last.headers['x-forwarded-for']).toBe('192.0.2.1, 127.0.0.1')
    })

    test('passes on each line of a followed stream as it comes', async () => {
      const response = await ask(balancer, 'GET', '/api/events/live', { do: 'follow' })
      const [line] = (await once(response, 'data', { signal: AbortSignal.timeout(2_000) })) as [Buffer]
      expect(line.toString()).toBe(': here\n\n')
      response.destroy()
    })
  })
}
