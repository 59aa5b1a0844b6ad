/** What is no request is told so, and nothing of the inside with it (R02, R05). */
import { ROUTES, type Route, type RouteName, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import type { Contract } from '../src/http/contract.ts'
import { CONTRACTS } from '../src/http/contracts.ts'
import { parseJsonBody } from '../src/http/json-body.ts'
import { type DoorAnswer, useDoors } from '@sealpost/testing/relays/configured-relays'
import { useEventServer } from '@sealpost/testing/relays/event-server'
import { roundsOf } from '@sealpost/testing/tier'

const server = useEventServer()
/** Beside it, for what counts by address. */
const doors = useDoors()
const jsonRoutes = (Object.entries(ROUTES) as [RouteName, Route][]).filter(([, row]) => row.body === 'json')
const INSIDE = /\bat .*\.[tj]s:|node_modules|\/src\/|select |insert |ECONN|postgres|stack/i

function check(status: number, headers: Headers, text: string, expected?: number): void {
  expect(status).toBeGreaterThanOrEqual(400)
  expect(status).toBeLessThan(500)
  if (expected !== undefined) expect(status).toBe(expected)
  expect(headers.get('content-type')).toContain('application/problem+json')
  const problem = JSON.parse(text)
  expect(problem).toMatchObject({ status, code: expect.stringMatching(/^[a-z_]+$/), request_id: headers.get('x-request-id') })
  expect(text).not.toMatch(INSIDE)
}

async function post(row: Route, contract: Contract, token: string, body: string | Uint8Array, type = 'application/json') {
  const path = row.path.replace(/\{(\w+)\}/g, (_, name: string) => contract.example?.params?.[name] ?? '')
  const headers: Record<string, string> = { authorization: `Bearer ${token}`, ...(type === '' ? {} : { 'content-type': type }) }
  const response = await fetch(`${server.url}${path}`, { method: row.method, headers, body })
  return { status: response.status, headers: response.headers, text: await response.text() }
}

const example = (name: RouteName): Record<string, unknown> => (CONTRACTS[name] as Contract).example?.body as Record<string, unknown>

describe('bodies', () => {
  it.each(jsonRoutes)('%s: whatever is wrong with the body is a 4xx problem', { timeout: 60_000 }, async (name, row) => {
    const token = await server.token(await server.account(1))
    const contract: Contract = CONTRACTS[name]
    const good = example(name)
    const text = JSON.stringify(good)
    const [first = ''] = Object.keys(good)
    const bad: [what: string, body: string | Uint8Array, type?: string][] = [
      ...['role', 'is_admin', 'active', 'status', 'revoked', 'user_no', 'constructor', 'toString'].map((member): [string, string] => [
        `the member ${member}`,
        JSON.stringify({ ...good, [member]: true }),
      ]),
      ['__proto__', `{"__proto__":{"admin":true},${text.slice(1)}`],
      ['a doubled key', `{${JSON.stringify(first)}:1,${text.slice(1)}`],
      ['the same twice', `{${JSON.stringify(first)}:${JSON.stringify(good[first])},${text.slice(1)}`],
      ['depth', `{"a":${'['.repeat(5_000)}${']'.repeat(5_000)}}`],
      ['an array', `[${text}]`],
      ['null', 'null'],
      ['nothing', ''],
      ['a cut end', text.slice(0, -1)],
      ['something behind it', `${text}x`],
      ['a byte order mark', `\uFEFF${text}`],
      ['bad UTF-8', Buffer.concat([Buffer.from(text.slice(0, -1)), Buffer.from(',"x":"\xff"}', 'latin1')])],
      ['NUL', text.replace('{', '{\u0000')],
      ['a number above 2^53', `{"last_device_seq":9007199254740993,${text.slice(1)}`],
      ['1e400', `{"last_device_seq":1e400,${text.slice(1)}`],
      ['-0', `{"last_device_seq":-0,${text.slice(1)}`],
      ['a fraction', `{"last_device_seq":1.5,${text.slice(1)}`],
      ['a lone surrogate', JSON.stringify({ ...good, [first]: 'x' }).replace('"x"', '"\\ud800"')],
      ['another type', text, 'text/plain'],
      ['a form', 'a=b', 'application/x-www-form-urlencoded'],
      ['xml', '<a/>', 'application/xml'],
      ['no type', text, ''],
    ]
    for (const [what, body, type] of bad) {
      const answer = await post(row, contract, token, body, type)
      expect([what, Math.floor(answer.status / 100)]).toEqual([what, 4])
      check(answer.status, answer.headers, answer.text)
    }
    const huge = await post(row, contract, token, JSON.stringify({ body: 'A'.repeat(row.bodyBytesMax) }))
    check(huge.status, huge.headers, huge.text, 413)
  })

  it('what two parsers could read in two ways is not read at all', () => {
    for (const text of [
      '{"a":1,"a":2}',
      '{"a":1,"a":1}',
      '{"a":1,"\\u0061":2}',
      '{"a":":","b":{"c":1,"c":2}}',
      '{"a":{"__proto__":1}}',
      '9007199254740992',
      '1.0e5',
      '-0',
      '0.1',
      '{a:1}',
      "'a'",
      '01',
      '+1',
      'NaN',
    ])
      expect(() => parseJsonBody(Buffer.from(text)), text).toThrow(expect.objectContaining({ code: 'invalid_request' }))
    expect(parseJsonBody(Buffer.from('{"a":[1,"b",null,true,{"c":-7}]}'))).toEqual({ a: [1, 'b', null, true, { c: -7 }] })
    expect(parseJsonBody(new Uint8Array())).toBeUndefined()
  })
})

describe('R05: the request id', () => {
  it.each([
    ['abc-DEF_123.4', true],
    ['short', false],
    ['with space in it', false],
    ['x'.repeat(129), false],
    ['evil{"a":1}', false],
  ])('%s is taken: %s', async (given, taken) => {
    for (const path of ['/livez', '/api/user', '/nowhere']) {
      const response = await fetch(`${server.url}${path}`, { headers: { 'x-request-id': given } })
      const id = response.headers.get('x-request-id')
      expect(id === given).toBe(taken)
      expect(id).toMatch(/^[A-Za-z0-9._-]{8,128}$/)
      if (path !== '/livez') expect(((await response.json()) as { request_id: string }).request_id).toBe(id)
    }
  })
})

/** Each guesses 100 times. */
const CLIENTS = roundsOf({ quick: 20, system: 100 })

it('B02: guesses at pairing mailboxes find none, by reading or by joining, and who guesses is stopped', {
  timeout: 60_000,
}, async () => {
  const door = await doors.open({ SEALPOST_LIMIT_MAILBOX_MISS: '60' })
  const token = await door.token(await doors.account())
  const slot = (slot: 'offer' | 'join', mailbox: string): string => `/api/pairing/${mailbox}/${slot}`
  const newMailbox = (): string => toBase64url(nodeCrypto.random(16))
  const bytes = new Uint8Array(40)
  const mailbox = newMailbox()
  expect((await door.ask('PUT', slot('offer', mailbox), { token, bytes })).status).toBe(204)

  const statuses = new Map<string, number>()
  for (let round = 0; round < 100; round++) {
    // each client reads and joins in turn
    const reads = round % 2 === 0
    const guess = (from: string): Promise<DoorAnswer> =>
      reads ? door.ask('GET', slot('offer', newMailbox()), { from }) : door.ask('PUT', slot('join', newMailbox()), { from, bytes })
    for (const { status } of await Promise.all(Array.from({ length: CLIENTS }, (_, client) => guess(`203.0.113.${client}`)))) {
      const kind = `${reads ? 'read' : 'join'} ${status}`
      statuses.set(kind, (statuses.get(kind) ?? 0) + 1)
    }
  }
  expect(Object.fromEntries(statuses)).toEqual({
    'read 404': 30 * CLIENTS,
    'join 404': 30 * CLIENTS,
    'read 429': 20 * CLIENTS,
    'join 429': 20 * CLIENTS,
  })
  // who was stopped does not even learn of the one that is there
  for (const guessed of [slot('offer', mailbox), slot('offer', newMailbox())])
    expect((await door.ask('GET', guessed, { from: '203.0.113.1' })).status).toBe(429)
  expect((await door.ask('PUT', slot('join', mailbox), { from: '203.0.113.1', bytes })).status).toBe(429)
  expect((await door.ask('GET', slot('offer', mailbox))).status).toBe(200)
  expect((await door.ask('PUT', slot('join', mailbox), { bytes })).status).toBe(204)
})
