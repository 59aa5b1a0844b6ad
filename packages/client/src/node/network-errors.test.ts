import { createServer as createPlainServer } from 'node:http'
import { createServer, type Server } from 'node:net'
import { createServer as createTlsServer, getCACertificates, setDefaultCACertificates } from 'node:tls'
import { SealpostError } from '@sealpost/protocol'
import { makeCertificate } from '@sealpost/testing/components/certificate'
import { findFreePort } from '@sealpost/testing/components/free-port'
import { listen } from '@sealpost/testing/components/listen'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { closeError } from '../failure.ts'
import { nodeHttp } from './http.ts'
import { networkError } from './network-errors.ts'
import { nodeTransport } from './transport.ts'

const YEAR_MS = 365 * 86_400_000
const at = (years: number): Date => new Date(Date.now() + years * YEAR_MS)

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})
const system = getCACertificates('default')
afterAll(() => setDefaultCACertificates(system))

async function portOf(server: Server): Promise<number> {
  const { port, end } = await listen(server)
  ends.push(end)
  return port
}

/** A TLS server with this certificate, which this process trusts if it is told to. */
async function tlsServer(from: Date, to: Date, trusted: boolean, host?: string): Promise<number> {
  const { key, cert } = makeCertificate(from, to, host)
  setDefaultCACertificates(trusted ? [...system, cert] : system)
  return portOf(createTlsServer({ key, cert }, (socket) => socket.on('error', () => {})))
}

/** What each way tells of an address: REST, and the socket of a device. */
const WAYS = {
  REST: (url: string) => nodeHttp.request({ method: 'GET', url, timeout_ms: 60_000 }).catch((error: unknown) => error),
  'the socket': (url: string) =>
    new Promise((resolve) => {
      nodeTransport.connect(url.replace('http', 'ws'), ['sealpost.1'], {
        opened() {},
        text() {},
        binary() {},
        closed: (code, _reason, cause) => resolve(closeError(code, cause, url)),
      })
    }),
}

type Case = { address(): Promise<string> | string; says: RegExp; hint: RegExp }

const CASES: Record<string, Case> = {
  'a port where nothing listens': {
    address: async () => `http://127.0.0.1:${await findFreePort()}`,
    says: /nothing listens there/,
    hint: /server runs/,
  },
  'a name that is not in the DNS': {
    address: () => 'https://sealpost.invalid',
    says: /its name is not known in the DNS|no name server answers/,
    hint: /address of the server/,
  },
  'a certificate that signs itself': {
    address: async () => `https://127.0.0.1:${await tlsServer(at(-1), at(1), false)}`,
    says: /its certificate is signed by itself/,
    hint: /NODE_EXTRA_CA_CERTS/,
  },
  'a certificate that has expired': {
    address: async () => `https://127.0.0.1:${await tlsServer(at(-2), at(-1), true)}`,
    says: /its certificate has expired/,
    hint: /clock of this machine/,
  },
  'a certificate that is not valid yet': {
    address: async () => `https://127.0.0.1:${await tlsServer(at(1), at(2), true)}`,
    says: /its certificate is not valid yet/,
    hint: /clock of this machine/,
  },
  'a certificate for another name': {
    address: async () => `https://localhost:${await tlsServer(at(-1), at(1), true, 'relay.example')}`,
    says: /its certificate is for another name/,
    hint: /name that the certificate holds/,
  },
  'https where plain HTTP is spoken': {
    address: async () => `https://127.0.0.1:${await portOf(createPlainServer())}`,
    says: /does not speak TLS/,
    hint: /port/,
  },
  'a port of another protocol': {
    address: async () => `http://127.0.0.1:${await portOf(createServer((socket) => socket.end('220 mail.example ESMTP\r\n')))}`,
    says: /does not speak HTTP/,
    hint: /port/,
  },
  'a server that hangs up': {
    address: async () => `http://127.0.0.1:${await portOf(createServer((socket) => socket.destroy()))}`,
    says: /the connection was broken off/,
    hint: /try again/,
  },
}

describe.each(Object.entries(WAYS))('%s', (_, ask) => {
  test.each(Object.entries(CASES))('of %s the first cause is told, and what to do', async (_, { address, says, hint }) => {
    expect(await ask(await address())).toMatchObject({
      code: 'unreachable',
      message: expect.stringMatching(says),
      hint: expect.stringMatching(hint),
    })
  })

  test('of a name with several addresses, the cause at one of them is told', () => {
    const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })
    const error = new TypeError('fetch failed', { cause: new AggregateError([refused, refused]) })
    expect(networkError(error)?.message).toMatch(/nothing listens there/)
    expect(networkError(new Error('of another kind'))).toBeUndefined()
    expect(networkError(new SealpostError('disk', 'not of the network'))).toBeUndefined()
  })
})

describe('a sign-in page in place of the socket', () => {
  test.each([
    [200, 'text/html'],
    [302, 'text/html'],
    [511, 'text/html'],
    [407, ''],
  ])('is told as that: %i', async (status, media) => {
    const portal = createPlainServer().on('upgrade', (_request, socket) =>
      socket.end(`HTTP/1.1 ${status} No\r\ncontent-type: ${media}\r\nlocation: http://portal.example/\r\n\r\n<html>`),
    )
    expect(await WAYS['the socket'](`http://127.0.0.1:${await portOf(portal)}`)).toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('in place of the relay'),
      hint: expect.stringContaining('sign in'),
    })
  })
})
