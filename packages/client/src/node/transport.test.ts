import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { WebSocketServer } from 'ws'
import { nodeHttp } from './http.ts'
import { nodeTransport } from './transport.ts'

let server: Server
let sockets: Set<Socket>
let url: string

beforeEach(async () => {
  server = createServer()
  sockets = new Set()
  server.on('connection', (socket) => sockets.add(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(async () => {
  for (const socket of sockets) socket.destroy()
  server.close()
  await once(server, 'close')
})

type Heard = { events: unknown[]; closed: Promise<void>; connection: ReturnType<typeof nodeTransport.connect> }

function listen(address: string): Heard {
  const events: unknown[] = []
  const closed = Promise.withResolvers<void>()
  const connection = nodeTransport.connect(address, ['sealpost.1'], {
    opened: () => events.push('opened'),
    text: (text) => events.push(text),
    binary: (bytes) => events.push(bytes),
    closed: (code) => {
      events.push(code)
      closed.resolve()
    },
  })
  return { events, closed: closed.promise, connection }
}

describe('the socket', () => {
  test('keeps the order of frames, opened first, closed once and last', async () => {
    const relay = new WebSocketServer({ server, handleProtocols: () => 'sealpost.1' })
    relay.on('connection', (socket) => {
      socket.send('hello')
      socket.send(Buffer.from([1, 2]))
      socket.on('message', (data, isBinary) => {
        socket.send(data, { binary: isBinary })
        socket.close(4403, 'bye')
      })
    })
    const { events, closed, connection } = listen(url.replace('http', 'ws'))
    await expect.poll(() => events.length).toBe(3)
    connection.sendBinary(new Uint8Array([3]))
    await closed
    expect(events).toEqual(['opened', 'hello', new Uint8Array([1, 2]), new Uint8Array([3]), 4403])
    connection.sendText('too late')
    connection.close()
  })

  test('pause stops reading, resume goes on', async () => {
    const relay = new WebSocketServer({ server, handleProtocols: () => 'sealpost.1' })
    relay.on('connection', (socket) => socket.on('message', () => socket.send('answer')))
    const { events, connection, closed } = listen(url.replace('http', 'ws'))
    await expect.poll(() => events).toEqual(['opened'])
    connection.pause()
    connection.sendText('question')
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(events).toEqual(['opened'])
    connection.resume()
    await expect.poll(() => events).toEqual(['opened', 'answer'])
    connection.pause()
    connection.close()
    await closed
  })

  test('is 1006 when nobody listens, when the subprotocol is not echoed, and for an address that is none', async () => {
    const refusing = new WebSocketServer({ server, handleProtocols: () => false })
    for (const address of [url.replace('http', 'ws'), 'ws://127.0.0.1:1', 'ws://']) {
      const { events, closed } = listen(address)
      await closed
      expect(events).toEqual([1006])
    }
    refusing.close()
  })

  test('a frame above the limit ends it', async () => {
    const relay = new WebSocketServer({ server, handleProtocols: () => 'sealpost.1' })
    relay.on('connection', (socket) => socket.send(Buffer.alloc(1_048_577)))
    const { events, closed } = listen(url.replace('http', 'ws'))
    await closed
    expect(events.at(0)).toBe('opened')
    expect(events).toHaveLength(2)
  })

  test('a server that does not answer the close is left after 2 s', async () => {
    const relay = new WebSocketServer({ server, handleProtocols: () => 'sealpost.1' })
    relay.on('connection', (socket) => socket.pause())
    const { events, closed, connection } = listen(url.replace('http', 'ws'))
    await expect.poll(() => events).toEqual(['opened'])
    connection.close()
    await closed
    expect(events).toEqual(['opened', 1006])
  })
})

describe('http', () => {
  test('any status is an answer; no redirect is followed', async () => {
    server.on('request', (request, response) => {
      const body: Buffer[] = []
      request.on('data', (part: Buffer) => body.push(part))
      request.on('end', () =>
        response.writeHead(302, { location: '/elsewhere', 'x-a': 'b' }).end(`${request.method} ${Buffer.concat(body).toString()}`),
      )
    })
    const answer = await nodeHttp.request({
      method: 'PUT',
      url,
      body: Buffer.from('x'),
      headers: { 'content-type': 'a/b' },
      timeout_ms: 5_000,
    })
    expect(answer).toMatchObject({ status: 302, headers: { 'x-a': 'b' } })
    expect(Buffer.from(answer.body).toString()).toBe('PUT x')
  })

  test('unreachable, timeout, aborted and too_large are told apart', async () => {
    server.on('request', (request, response) => {
      if (request.url === '/large') response.end(Buffer.alloc(9 * 1_048_576))
    })
    const request = { method: 'GET', timeout_ms: 5_000 } as const
    await expect(nodeHttp.request({ ...request, url: 'http://127.0.0.1:1' })).rejects.toMatchObject({ code: 'unreachable' })
    await expect(nodeHttp.request({ ...request, url, timeout_ms: 50 })).rejects.toMatchObject({ code: 'timeout' })
    await expect(nodeHttp.request({ ...request, url, signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ code: 'aborted' })
    await expect(nodeHttp.request({ ...request, url: `${url}/large` })).rejects.toMatchObject({ code: 'too_large' })
  })
})
