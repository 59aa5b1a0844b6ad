/** What a browser is told with every answer. OWASP ASVS 5.0: 3.4.1, 3.4.3, 3.4.4, 3.4.6, 4.1.1. */
import { describe, expect, it } from 'vitest'
import { useEventServer } from '@sealpost/testing/relays/event-server'
import { sendRaw } from '@sealpost/testing/clients/raw-http'
import { startHttpServer } from '@sealpost/testing/relays/http-server'

const server = useEventServer()

const raw = async (text: string): Promise<string> => (await sendRaw(server.url, text, 3_000)).answer

const upgrade = (path: string, more = ''): string =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n${more}\r\n`
const SUBPROTOCOL = 'Sec-WebSocket-Protocol: sealpost.1\r\n'

describe('every answer, also of what is no request of a route', () => {
  it.each(['/docs', '/docs/swagger-ui.css', '/docs/start.js'])('%s says its charset (4.1.1)', async (path) => {
    expect((await fetch(server.url + path)).headers.get('content-type')).toMatch(/^text\/\w+; charset=utf-8$/)
  })

  it.each([
    ['an upgrade of another path', upgrade('/nowhere')],
    ['an upgrade without the subprotocol', upgrade('/api/socket')],
    ['an upgrade from another origin', upgrade('/api/socket', `${SUBPROTOCOL}Origin: https://evil.example\r\n`)],
    ['an upgrade whose key is none', upgrade('/api/socket', SUBPROTOCOL).replace('AAAAAAAAAAAAAAAAAAAAAA==', 'x')],
    ['two lengths', 'POST /api/log HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef'],
    ['headers that are too long', `GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(20_000)}\r\n\r\n`],
    ['no HTTP', 'garbage\r\n\r\n'],
  ])('%s is refused with nosniff and a type with its charset (3.4.4, 4.1.1)', async (_, text) => {
    const answer = await raw(text)
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /)
    expect(answer).toMatch(/\r\nX-Content-Type-Options: nosniff\r\n/i)
    if (/\r\nContent-Type: text\//i.test(answer)) expect(answer).toMatch(/\r\nContent-Type: text\/\w+; charset=utf-8\r\n/i)
  })

  it.each(['/api/user', '/nowhere', '/.well-known/sealpost.json', '/livez'])(
    '%s stands in no frame and loads nothing (3.4.3, 3.4.6)',
    async (path) => {
      const policy = (await fetch(server.url + path)).headers.get('content-security-policy') ?? ''
      expect(policy).toContain("frame-ancestors 'none'")
      expect(policy).toContain("default-src 'none'")
    },
  )
})

describe('where devices come by https', () => {
  const paths = ['/api/user', '/nowhere', '/livez', '/.well-known/sealpost.json', '/docs', '/docs/swagger-ui.css']

  it('every answer of a route says for a year to come by nothing else (3.4.1)', async () => {
    const secure = await startHttpServer(server.store, { config: { public_url: 'https://relay.example' } })
    try {
      for (const path of paths) {
        const [, seconds = ''] =
          /^max-age=(\d+)$/.exec((await fetch(secure.url + path)).headers.get('strict-transport-security') ?? '') ?? []
        expect([path, Number(seconds) >= 31_536_000]).toEqual([path, true])
      }
    } finally {
      await secure.close()
    }
  })

  it('and nothing of it where they come by http', async () => {
    const plain = await startHttpServer(server.store, { config: { public_url: 'http://127.0.0.1:8787' } })
    try {
      for (const path of paths) expect((await fetch(plain.url + path)).headers.has('strict-transport-security')).toBe(false)
    } finally {
      await plain.close()
    }
  })
})
