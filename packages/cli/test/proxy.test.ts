/** `NODE_USE_ENV_PROXY=1`: everything that a command sends takes the proxy of the environment, sockets too. */
import { writeFile } from 'node:fs/promises'
import { createServer as createHttpServer } from 'node:http'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { run, useWorld } from '@sealpost/testing/clients/cli-world'
import { makeCertificate } from '@sealpost/testing/components/certificate'
import { listen } from '@sealpost/testing/components/listen'
import { afterAll, beforeAll, expect, test } from 'vitest'

const world = useWorld()
/** No DNS knows it: only who goes through the proxy gets there. */
const HOST = 'relay.sealpost.invalid'

/** What the proxy was asked for. */
const asked: string[] = []
const ends: (() => void)[] = []
let env: NodeJS.ProcessEnv
let tls_port: number

beforeAll(async () => {
  const certificate = makeCertificate(new Date(Date.now() - 86_400_000), new Date(Date.now() + 86_400_000), HOST)
  const front = await listen(
    createTlsServer({ key: certificate.key, cert: certificate.cert }, (socket) => {
      const relay = createConnection(world.relay.port, '127.0.0.1')
      for (const one of [socket, relay]) one.on('error', () => {})
      socket.pipe(relay).pipe(socket)
    }),
  )
  const proxy = await listen(
    createHttpServer().on('connect', (request, socket) => {
      asked.push(request.url ?? '')
      const there = createConnection(front.port, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
        socket.pipe(there).pipe(socket)
      })
      for (const one of [socket, there]) one.on('error', () => {})
    }),
  )
  ends.push(front.end, proxy.end)
  tls_port = front.port
  const ca = join(world.folder, 'ca.pem')
  await writeFile(ca, certificate.cert)
  env = { NODE_USE_ENV_PROXY: '1', HTTPS_PROXY: `http://127.0.0.1:${proxy.port}`, NODE_EXTRA_CA_CERTS: ca }
})
afterAll(() => {
  for (const end of ends) end()
})

test('init, send and status go through the proxy', async () => {
  const home = join(world.folder, 'behind a proxy')
  const server = `https://${HOST}:${tls_port}`
  const words = join(world.folder, 'behind.txt')
  const made = await run(['init', '--home', home, '--server', server, '--name', 'behind', '--recovery-file', words], { env })
  expect([made.code, made.stderr]).toEqual([0, expect.any(String)])
  const before = asked.length
  expect(before).toBeGreaterThan(0)
  const sent = await run(['send', '--home', home], { env, input: 'by the socket' })
  expect([sent.code, sent.stderr]).toEqual([0, 'sent 1\n'])
  expect(asked.length).toBeGreaterThan(before)
  expect(new Set(asked)).toEqual(new Set([`${HOST}:${tls_port}`]))
})

test('NO_PROXY names hosts that are asked directly', async () => {
  const home = join(world.folder, 'direct')
  const before = asked.length
  const server = `https://127.0.0.1:${tls_port}`
  const direct = { ...env, NO_PROXY: '127.0.0.1' }
  const words = join(world.folder, 'direct.txt')
  const made = await run(['init', '--home', home, '--server', server, '--name', 'direct', '--recovery-file', words], { env: direct })
  expect([made.code, made.stderr]).toEqual([0, expect.any(String)])
  const sent = await run(['send', '--home', home], { env: direct, input: 'directly' })
  expect(sent.code).toBe(0)
  expect(asked.length).toBe(before)
})

test('a proxy that is not there is told as the cause (69)', async () => {
  const home = join(world.folder, 'no proxy')
  const args = [
    'init',
    '--home',
    home,
    '--server',
    `https://${HOST}:${tls_port}`,
    '--name',
    'x',
    '--recovery-file',
    join(world.folder, 'x.txt'),
  ]
  const ended = await run(args, { env: { ...env, HTTPS_PROXY: 'http://127.0.0.1:1' } })
  expect([ended.code, ended.stderr]).toEqual([69, expect.stringMatching(/cannot be reached: nothing listens there\n {2}\S/)])
})

test('a sign-in page in place of the relay is told as that, by every command (69)', async () => {
  const { url, port } = world.relay
  await world.relay.stop()
  const portal = createHttpServer((_request, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Sign in</h1>'))
  portal.on('upgrade', (_request, socket) => socket.end('HTTP/1.1 302 Found\r\nlocation: http://portal.example/\r\n\r\n'))
  portal.listen(port, '127.0.0.1')
  try {
    const named = ['--server', url, '--name', 'x', '--yes']
    for (const args of [
      ['token', '--home', world.laptop],
      ['export', '-', '--home', world.laptop],
      ['init', '--home', join(world.folder, 'portal'), ...named.slice(0, 4), '--recovery-file', join(world.folder, 'portal.txt')],
      ['join', '0000-0000-0000-0000', '--home', join(world.folder, 'portal 2'), ...named],
      ['revoke', 'phone', '--home', world.laptop],
      ['tail', '--home', world.laptop, '--stream', 'portal', '--idle-exit', '1'],
    ]) {
      const ended = await run(args)
      expect([args[0], ended.code, ended.stderr]).toEqual([
        args[0],
        args[0] === 'join' ? expect.toBeOneOf([3, 69]) : 69,
        expect.any(String),
      ])
      if (args[0] !== 'join' && args[0] !== 'tail')
        expect(ended.stderr).toMatch(/something else answered in place of the relay.*\n {2}.*sign in/)
    }
  } finally {
    portal.closeAllConnections()
    await new Promise((resolve) => portal.close(resolve))
    await world.relay.start()
  }
})
