/** What each route that changes something gives when it is sent twice (docs/decisions/0009). */
import { ROUTES, type RouteName, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import { makeEntry, type TestChange, wire } from '@sealpost/testing/clients/store-accounts'
import { makeEventJson, useEventServer } from '@sealpost/testing/relays/event-server'
import { roundsOf } from '@sealpost/testing/tier'

const server = useEventServer()

type Case = { twice(): Promise<[first: number, second: number]>; first: number; second: number; says: string }

const cases: Partial<Record<RouteName, Case>> = {}
const add = (name: RouteName, says: string, first: number, second: number, twice: Case['twice']): void => {
  cases[name] = { says, first, second, twice }
}
const both = async <T extends { status: number }>(send: () => Promise<T>, same?: (a: T, b: T) => void): Promise<[number, number]> => {
  const [a, b] = [await send(), await send()]
  same?.(a, b)
  return [a.status, b.status]
}
type Answered = { status: number; body: unknown }
const equal = (a: Answered, b: Answered): void => expect(b.body).toEqual(a.body)

add('append_events', 'the same numbers', 200, 200, async () => {
  const account = await server.account(1)
  const [token, session_id] = [await server.token(account), await server.session(account)]
  const events = [1, 2, 3].map((n) => makeEventJson(account, 0, n, {}).json)
  return both(() => server.ask('POST', '/api/events', token, { session_id, events }), equal)
})
add('append_log', 'the entry is there', 200, 200, async () => {
  const account = await server.account(1)
  const entry = wire(makeEntry(account, { type: 'rotate_keys' }))
  return both(async () => server.ask('POST', '/api/log', null, { ...entry, proof: await server.assertion(account, 0, 'log') }), equal)
})
for (const [name, method, change] of [
  ['rename_device', 'PATCH', (id: string): TestChange => ({ type: 'rename_device', rename: { device_id: id, name: 'x' } })],
  ['revoke_device', 'DELETE', (id: string): TestChange => ({ type: 'revoke_device', revoked: [{ device_id: id }] })],
] as const)
  add(name, 'the entry is there', 200, 200, async () => {
    const account = await server.account(2)
    const [token, id] = [await server.token(account), account.devices[1]!.device_id]
    const entry = wire(makeEntry(account, change(id)))
    return both(() => server.ask(method, `/api/devices/${id}`, token, entry), equal)
  })
add('create_token', 'the second family replaces the first', 200, 200, async () => {
  const account = await server.account(1)
  return both(async () => server.ask('POST', '/api/auth/token', null, await server.assertion(account, 0, 'token')))
})
add('refresh_token', 'the same refresh token', 200, 200, async () => {
  const account = await server.account(1)
  const { refresh_token } = (await server.ask('POST', '/api/auth/token', null, await server.assertion(account, 0, 'token'))).body
  return both(
    async () => server.ask('POST', '/api/auth/refresh', null, { ...(await server.assertion(account, 0, 'refresh')), refresh_token }),
    (a, b) => expect(b.body.refresh_token).toBe(a.body.refresh_token),
  )
})
add('logout', 'it was done', 204, 401, async () => {
  const token = await server.token(await server.account(1))
  return both(() => server.ask('POST', '/api/auth/logout', token))
})
add('delete_user', 'it was done', 200, 401, async () => {
  const account = await server.account(1)
  return both(async () => server.ask('DELETE', '/api/user', null, await server.assertion(account, 0, 'delete-account')))
})
add('take_session', 'the second session supersedes the first', 200, 200, async () => {
  const account = await server.account(1)
  return both(
    async () => server.ask('POST', '/api/events/session', null, await server.assertion(account, 0, 'session')),
    (a, b) => expect(b.body.session_id).not.toBe(a.body.session_id),
  )
})
for (const slot of ['offer', 'join', 'reveal', 'done'] as const)
  add(`put_${slot}`, 'the same bytes are there', 204, 204, async () => {
    const token = await server.token(await server.account(1))
    const mailbox = toBase64url(nodeCrypto.random(16))
    const put = (name: string, fill: number) =>
      fetch(`${server.url}/api/pairing/${mailbox}/${name}`, {
        method: 'PUT',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/octet-stream' },
        body: new Uint8Array(40).fill(fill),
      })
    if (slot !== 'offer') await put('offer', 0)
    const statuses = await both(() => put(slot, 1))
    expect((await put(slot, 2)).status).toBe(409)
    return statuses
  })
add('read_log', 'it changes nothing', 200, 200, async () => {
  const account = await server.account(1)
  return both(async () => server.ask('POST', '/api/log/read', null, await server.assertion(account, 0, 'log-read')), equal)
})

describe('a request whose answer was lost is sent again', () => {
  it('every route that says so is here', () => {
    const named = Object.entries(ROUTES).filter(([, row]) => 'again' in row)
    expect(Object.keys(cases).toSorted()).toEqual(named.map(([name]) => name).toSorted())
  })

  it.each(Object.entries(cases))('%s', async (_, { twice, first, second, says }) => {
    expect([await twice(), says]).toEqual([[first, second], says])
  })
})

/** As many renames as the log of an account takes in an hour; few enough at once that none waits for the database until it gives up. */
const ROUNDS = 25
const AT_ONCE = 8
const BATCHES = roundsOf({ quick: 1, system: 5 })

describe(`${ROUNDS * AT_ONCE * BATCHES} races each, over HTTP: one outcome`, { timeout: 120_000 }, () => {
  it('rename × rename: one entry is there, the other lost', async () => {
    for (let batch = 0; batch < BATCHES; batch++) {
      const accounts = await Promise.all(Array.from({ length: AT_ONCE }, () => server.account(2)))
      const tokens = await Promise.all(accounts.map((account) => server.token(account)))
      for (let round = 0; round < ROUNDS; round++)
        await Promise.all(
          accounts.map(async (account, i) => {
            const id = account.devices[1]!.device_id
            const names = [`left ${round}`, `right ${round}`]
            const entries = names.map((name) => wire(makeEntry(account, { type: 'rename_device', rename: { device_id: id, name } })))
            const answers = await Promise.all(entries.map((entry) => server.ask('PATCH', `/api/devices/${id}`, tokens[i]!, entry)))
            expect(answers.map(({ status, body }) => `${status} ${body.code ?? ''}`).toSorted()).toEqual(['200 ', '409 log_conflict'])
            const won = answers.findIndex(({ status }) => status === 200)
            const { log_seq, log_head, device } = answers[won]!.body
            expect(device.name).toBe(names[won])
            account.log_seq = log_seq
            account.log_head = Buffer.from(log_head, 'base64url')
          }),
        )
    }
  })

  it('join × join: one device is in the mailbox, the other is told so', async () => {
    const token = await server.token(await server.account(1))
    const creator = (await server.store.findDevice(...owner(token)))!
    for (let round = 0; round < ROUNDS * BATCHES; round++)
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          const mailbox_id = toBase64url(nodeCrypto.random(16))
          expect(await server.store.putSlot(mailbox_id, 'offer', new Uint8Array(40), creator)).toBe('ok')
          const boxes = [new Uint8Array(40).fill(1), new Uint8Array(40).fill(2)]
          const results = await Promise.all(
            boxes.map((body) =>
              fetch(`${server.url}/api/pairing/${mailbox_id}/join`, {
                method: 'PUT',
                headers: { 'content-type': 'application/octet-stream' },
                body,
              }),
            ),
          )
          expect(results.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([204, 409])
          const won = results.findIndex(({ status }) => status === 204)
          const read = await fetch(`${server.url}/api/pairing/${mailbox_id}/join`)
          expect(new Uint8Array(await read.arrayBuffer())).toEqual(boxes[won])
        }),
      )
  })
})

/** Whose token it is. */
function owner(token: string): [user_id: string, device_id: string] {
  const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
  return [claims.sub, claims.device_id]
}
