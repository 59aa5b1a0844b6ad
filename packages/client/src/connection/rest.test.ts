import { SealpostError, tuple, utf8 } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import type { HttpRequest } from '../ports.ts'
import { createRest, followsChain } from './rest.ts'

const seeds = [1, 2, 3].map((byte) => new Uint8Array(32).fill(byte))
const keys = seeds.map((seed) => nodeCrypto.ed25519Public(seed))
const link = (from: number, to: number, not_before = 5) => ({
  key: keys[to]!,
  not_before,
  sig: nodeCrypto.ed25519Sign(seeds[from]!, tuple('server-key', keys[from]!, keys[to]!, not_before)),
})

const NOW = 1_000_000

function restWith(status: number, body: unknown, headers: Record<string, string> = {}) {
  const requests: HttpRequest[] = []
  const http = {
    stream: () => Promise.reject(new Error('not asked for')),
    request(request: HttpRequest) {
      requests.push(request)
      const media = status < 400 ? 'application/json' : 'application/problem+json'
      return Promise.resolve({
        status,
        headers: { 'content-type': media, ...headers },
        body: typeof body === 'string' ? utf8(body) : utf8(JSON.stringify(body)),
      })
    },
  }
  return { rest: createRest(http, 'https://x'), requests }
}

describe('a chain of server keys', () => {
  it('is followed from the pinned key, link by link, to the key in use', async () => {
    const chain = [link(0, 1), link(1, 2)]
    expect(await followsChain(nodeCrypto, keys[0]!, { server_key: keys[2]!, chain }, NOW)).toBe(true)
    expect(await followsChain(nodeCrypto, keys[1]!, { server_key: keys[2]!, chain }, NOW)).toBe(true)
    expect(await followsChain(nodeCrypto, keys[2]!, { server_key: keys[2]!, chain: [] }, NOW)).toBe(true)
  })

  it('a link that is not valid yet leads nowhere', async () => {
    const chain = [link(0, 1, NOW + 3_600_000)]
    expect(await followsChain(nodeCrypto, keys[0]!, { server_key: keys[1]!, chain }, NOW)).toBe(false)
    expect(await followsChain(nodeCrypto, keys[0]!, { server_key: keys[1]!, chain }, NOW + 3_600_000)).toBe(true)
  })

  it('a link that is missing, changed, or signed by another key leads nowhere', async () => {
    const to = keys[2]!
    for (const chain of [
      [],
      [link(1, 2)],
      [link(0, 1)],
      [link(0, 1), { ...link(1, 2), not_before: 6 }],
      [link(0, 1), link(0, 2)].slice(0, 1),
    ])
      expect(await followsChain(nodeCrypto, keys[0]!, { server_key: to, chain }, NOW)).toBe(false)
  })
})

describe('an answer of the server', () => {
  it('a problem becomes its code and sentence, anything else says what to do', async () => {
    const problem = { type: 'about:blank', status: 409, code: 'name_taken', detail: 'That name is taken.' }
    const assertion = { body: 'AA', sig: 'AA' }
    await expect(restWith(409, problem).rest.createToken(assertion)).rejects.toMatchObject({
      code: 'name_taken',
      message: 'That name is taken.',
    })
    await expect(restWith(400, { code: 'made_up' }).rest.createToken(assertion)).rejects.toMatchObject({ code: 'invalid_request' })
    await expect(restWith(200, { access_token: 7 }).rest.createToken(assertion)).rejects.toMatchObject({ code: 'unreachable' })
  })

  it.each([
    [200, '<html>', 'text/html; charset=utf-8'],
    [200, '{"hotspot":true}', 'text/plain'],
    [200, '{"server_key":', 'application/json'],
    [204, '', ''],
    [302, '', 'text/html'],
    [403, '<html>', 'text/html'],
    [407, '', 'text/html'],
    [429, 'slow down', 'text/plain'],
    [511, '<html>', 'text/html'],
  ])('that no relay gives is told as that, whatever was asked: %i %s', async (status, body, media) => {
    const { rest } = restWith(status, body, { 'content-type': media })
    const signed = { body: 'AA', sig: 'AA' }
    const calls = [
      rest.readServer(),
      rest.createToken(signed),
      rest.readLog(signed),
      rest.deleteUser(signed),
      rest.appendLog({ body: 'AA', sig: 'AA', boxes: {}, proof: signed }),
      ...(status === 204 ? [] : [rest.readSlot('m', 'join', 1), rest.putSlot('m', 'join', utf8('box'), null)]),
    ]
    for (const call of calls)
      await expect(call).rejects.toMatchObject({ code: 'unreachable', message: expect.stringContaining('in place of the relay') })
  })

  it('of a proxy without a server, or of another product, is unreachable too', async () => {
    const html = { 'content-type': 'text/html' }
    await expect(restWith(503, 'upstream', html).rest.createToken({ body: 'AA', sig: 'AA' })).rejects.toMatchObject({ code: 'unreachable' })
    await expect(restWith(404, '<html>', html).rest.readServer()).rejects.toMatchObject({ code: 'unreachable' })
    await expect(restWith(200, { product: 'of others' }).rest.readServer()).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('JSON of something else'),
    })
  })

  it('a refusal says how long to wait where the server said it, also as the cause of another error', async () => {
    const problem = { code: 'rate_limited', detail: 'Too many.' }
    const refused = async (told: string) => {
      const { rest } = restWith(429, problem, { 'retry-after': told })
      const cause: unknown = await rest.readServer().catch((error: unknown) => error)
      return new SealpostError('rate_limited', 'in other words', { cause }).retry_after_ms
    }
    expect(await refused('3540')).toBe(3_540_000)
    expect(await refused('99999999')).toBe(86_400_000)
    for (const told of ['', '-1', 'Wed, 21 Oct 2026 07:28:00 GMT']) expect(await refused(told)).toBeUndefined()
  })

  it('an empty slot is null, a filled one its bytes; the token goes into the header alone', async () => {
    expect(await restWith(404, { code: 'not_found' }).rest.readSlot('m', 'join', 25)).toBeNull()
    expect(await restWith(204, '').rest.readSlot('m', 'join', 25)).toBeNull()
    const read = restWith(200, 'bytes', { 'content-type': 'application/octet-stream' })
    expect(await read.rest.readSlot('m', 'join', 25)).toEqual(utf8('bytes'))
    const put = restWith(204, '')
    await put.rest.putSlot('m', 'offer', utf8('box'), 'secret-token')
    const requests = [...read.requests, ...put.requests]
    expect(requests.map((request) => [request.method, request.url])).toEqual([
      ['GET', 'https://x/api/pairing/m/join?wait=25'],
      ['PUT', 'https://x/api/pairing/m/offer'],
    ])
    expect(requests[1]?.headers?.['authorization']).toBe('Bearer secret-token')
  })
})
