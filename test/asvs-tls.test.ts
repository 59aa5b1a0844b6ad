/**
 * TLS as a client meets it (OWASP ASVS 5.0, V12; `docs/asvs.md`): the SDK and the connection to the database against peers that show a
 * certificate of nobody, an old version of the protocol, or no TLS at all. Nothing that is secret leaves before the peer was verified.
 */
import { createServer as createHttps } from 'node:https'
import { createServer, type Server } from 'node:net'
import { createSecureContext, TLSSocket } from 'node:tls'
import { afterEach, describe, expect, test } from 'vitest'
import { nodeHttp } from '../packages/client/src/node/http.ts'
import { nodeTransport } from '../packages/client/src/node/transport.ts'
import { openExternalDatabase } from '../packages/server/src/store/postgres/database.ts'
import { silent } from '@sealpost/testing/relays/silent-log'
import { makeCertificate } from '@sealpost/testing/components/certificate'
import { listen as listenOn } from '@sealpost/testing/components/listen'
import { parseServerUrl } from '@sealpost/protocol'

/** Of nobody. */
const identity = makeCertificate(new Date('2020-01-01'), new Date('2090-01-01'))
const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

async function listen(server: Server): Promise<number> {
  const { port, end } = await listenOn(server)
  ends.push(end)
  return port
}

/** The codes along the chain of causes. */
function codesOf(error: unknown): string[] {
  if (!(error instanceof Error)) return []
  const code = 'code' in error && typeof error.code === 'string' ? [error.code] : []
  return [...code, ...codesOf(error.cause)]
}

// ---------------------------------------------------------------- the SDK

describe('the SDK', () => {
  async function startHttps(options: object = {}): Promise<{ url: string; seen: string[] }> {
    const seen: string[] = []
    const server = createHttps({ ...identity, ...options }, (request, response) => {
      seen.push(`${request.method} ${request.url} ${request.headers.authorization}`)
      response.end('{}')
    })
    server.on('tlsClientError', () => {})
    server.on('upgrade', (request, socket) => {
      seen.push(`upgrade ${request.url}`)
      socket.destroy()
    })
    return { url: `https://127.0.0.1:${await listen(server)}`, seen }
  }
  const get = (url: string): Promise<unknown> =>
    nodeHttp.request({ method: 'GET', url: `${url}/api/user`, headers: { authorization: 'Bearer canary' }, timeout_ms: 5_000 }).then(
      () => null,
      (error: unknown) => error,
    )

  test('says nothing to a server whose certificate nobody vouches for, neither by request nor by socket (12.2.1, 12.3.2)', async () => {
    const { url, seen } = await startHttps()
    const error = await get(url)
    expect(error).toMatchObject({ code: 'unreachable' })
    expect(codesOf(error)).toContain('DEPTH_ZERO_SELF_SIGNED_CERT')
    const closed = await new Promise<{ code: number; cause: unknown }>((resolve) => {
      nodeTransport.connect(`${url.replace('https', 'wss')}/api/socket`, ['sealpost.1'], {
        opened: () => resolve({ code: 0, cause: null }),
        text: () => {},
        binary: () => {},
        closed: (code, _reason, cause) => resolve({ code, cause }),
      })
    })
    expect(closed.code).toBe(1006)
    expect(codesOf(closed.cause)).toContain('DEPTH_ZERO_SELF_SIGNED_CERT')
    expect(seen).toEqual([])
  })

  test('speaks TLS 1.2 and 1.3 and nothing older (12.1.1)', async () => {
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const { url } = await startHttps({ minVersion: version, maxVersion: version })
      // so far that the certificate is looked at
      expect([version, codesOf(await get(url))]).toEqual([version, expect.arrayContaining(['DEPTH_ZERO_SELF_SIGNED_CERT'])])
    }
    for (const version of ['TLSv1', 'TLSv1.1'] as const) {
      const { url } = await startHttps({ minVersion: version, maxVersion: version, ciphers: 'ALL:@SECLEVEL=0' })
      const codes = codesOf(await get(url))
      expect([version, codes.join(' ')]).toEqual([version, expect.stringMatching(/^unreachable .*(PROTOCOL|VERSION|ECONNRESET)/)])
    }
  })

  test('offers suites with forward secrecy and authenticated encryption first, and no broken one (12.1.2)', async () => {
    const { url } = await startHttps()
    const hello = await new Promise<number[]>((resolve, reject) => {
      const server = createServer((socket) => socket.once('data', (data) => (resolve(suitesIn(data)), socket.destroy())))
      listen(server).then((port) => get(url.replace(/:\d+$/, `:${port}`)), reject)
    })
    // RFC 8446 B.4: 0x13xx are those of TLS 1.3; RFC 5289, 7905: ECDHE with GCM or ChaCha20
    expect(hello.slice(0, 3).every((suite) => suite >> 8 === 0x13)).toBe(true)
    expect(hello[3]).toSatisfy((suite: number) => suite >> 8 === 0xc0 || suite >> 8 === 0xcc)
    // NULL, export, RC4, DES, 3DES, anonymous
    const broken = new Set([
      0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x09, 0x0a, 0x0b, 0x0d, 0x10, 0x13, 0x16, 0x18, 0x1b, 0x34, 0x3a, 0xc007, 0xc008, 0xc011,
      0xc012,
    ])
    expect(hello.filter((suite) => broken.has(suite))).toEqual([])
  })

  test('takes a plain address for this machine alone (4.4.1, 12.2.1)', () => {
    for (const url of ['http://relay.example', 'http://10.0.0.1', 'http://127.0.0.1.evil.example', 'ws://relay.example', 'http://[::2]'])
      expect(() => parseServerUrl(url), url).toThrow(expect.objectContaining({ code: 'invalid_request' }))
    expect(parseServerUrl('https://relay.example').url).toBe('https://relay.example')
    expect(parseServerUrl('http://127.0.0.1:8787').url).toBe('http://127.0.0.1:8787')
  })

  /** RFC 8446 §4.1.2 inside of a record. */
  function suitesIn(data: Buffer): number[] {
    expect([data[0], data[5]]).toEqual([22, 1])
    const session = 5 + 4 + 2 + 32
    const at = session + 1 + (data[session] ?? 0)
    return Array.from({ length: data.readUInt16BE(at) / 2 }, (_, i) => data.readUInt16BE(at + 2 + 2 * i))
  }
})

// ---------------------------------------------------------------- the database

describe('the connection to the database', () => {
  /** Answers the request for TLS and keeps what comes then: `S` begins TLS, `N` says that there is none. */
  async function startDatabase(answer: 'S' | 'N'): Promise<{ port: number; heard: () => string }> {
    let heard = ''
    const server = createServer((socket) => {
      socket.once('data', (request) => {
        // 80877103: https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest
        if (request.readInt32BE(4) !== 80877103) {
          heard += request.toString('latin1')
          return
        }
        socket.write(answer)
        if (answer === 'N') {
          socket.on('data', (data) => (heard += data.toString('latin1')))
          return
        }
        const secure = new TLSSocket(socket, { isServer: true, secureContext: createSecureContext(identity) })
        secure.on('error', () => {})
        secure.on('data', (data) => (heard += data.toString('latin1')))
      })
    })
    return { port: await listen(server), heard: () => heard }
  }

  test.each([
    ['S', 'verify-full'],
    ['S', 'require'],
    ['S', 'verify-ca'],
    ['N', 'verify-full'],
    ['N', 'require'],
  ] as const)(
    'a server that answers %s to sslmode=%s and cannot show who it is hears neither name nor password (12.3.1, 12.3.2, 12.3.4)',
    async (answer, mode) => {
      const { port, heard } = await startDatabase(answer)
      const url = `postgresql://canary-user:canary-password@127.0.0.1:${port}/canary-database?sslmode=${mode}`
      await expect(openExternalDatabase(url, silent, 0)).rejects.toMatchObject({ code: 'invalid_config' })
      expect(heard()).toBe('')
    },
  )

  test('without TLS the same server does hear them: what is looked for is found', async () => {
    const { port, heard } = await startDatabase('N')
    const url = `postgresql://canary-user:canary-password@127.0.0.1:${port}/canary-database`
    const given = new AbortController()
    const opening = openExternalDatabase(url, silent, 60_000, given.signal)
    opening.catch(() => {})
    await expect.poll(heard).toContain('canary-user')
    given.abort()
    await expect(opening).rejects.toMatchObject({ code: 'aborted' })
  })
})
