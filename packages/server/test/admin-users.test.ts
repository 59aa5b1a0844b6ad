/** Accounts, devices and sessions as those who run the relay see them (G24): each once, page by page, also while more come and go. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeAccount, makeDevice, makeEntry } from '@sealpost/testing/clients/store-accounts'
import { useAdminServer } from '@sealpost/testing/relays/admin-server'
import { connectRaw, type RawClient } from '@sealpost/testing/clients/raw-client'

const server = useAdminServer()
const ids: string[] = []
let token = ''
const open: RawClient[] = []
beforeAll(async () => {
  token = await server.tokenOf('viewer')
  for (let i = 0; i < 253; i++) ids.push(await signUp())
}, 60_000)
afterAll(() => Promise.all(open.map((client) => client.close())))

async function signUp(): Promise<string> {
  const account = makeAccount()
  await server.store.appendEntry(makeEntry(account, { type: 'genesis', device: makeDevice() }))
  return account.user_id
}

type Query = Record<string, string>
/** All pages; `between` is done between two of them. */
async function pages(name: 'list_users' | 'list_sessions', member: string, query: Query, between?: () => Promise<unknown>) {
  // oxlint-disable-next-line typescript/no-explicit-any -- what a list holds is what the tests look at
  const all: any[] = []
  for (let cursor: string | null = null; ; ) {
    const { body } = await server.ask(name, { token, query: { ...query, ...(cursor === null ? {} : { cursor }) } })
    all.push(...body[member])
    expect(body[member].length).toBeLessThanOrEqual(Number(query['limit'] ?? 100))
    cursor = body.next_cursor
    if (cursor === null) return all
    await between?.()
  }
}

describe('accounts', () => {
  it.each(['7', '100', '253', '1000'])('are each there once, oldest first, in pages of %s', async (limit) => {
    const all = await pages('list_users', 'users', { limit })
    expect(all.map(({ user_id }) => user_id)).toEqual(ids)
  })

  it('also while some go and others come', async () => {
    const going = ids.slice(100, 120)
    const came: string[] = []
    const all = await pages('list_users', 'users', { limit: '30' }, async () => {
      const next = going.pop()
      if (next !== undefined) await server.store.deleteAccount(next, null)
      came.push(await signUp())
    })
    const seen = all.map(({ user_id }) => user_id)
    expect(new Set(seen).size).toBe(seen.length)
    const gone = new Set(ids.slice(100, 120))
    for (const id of ids.filter((one) => !gone.has(one))) expect(seen).toContain(id)
    // who comes while it is read is at its end
    for (const id of came.slice(0, -1)) expect(seen).toContain(id)
    ids.splice(0, ids.length, ...(await pages('list_users', 'users', {})).map(({ user_id }) => user_id))
  })

  it('by state', async () => {
    const suspended = [ids[3]!, ids[150]!]
    for (const user_id of suspended) await server.as('operator', 'suspend_user', { params: { user_id }, json: {} })
    const only = async (state: string) => (await pages('list_users', 'users', { state, limit: '100' })).map(({ user_id }) => user_id)
    expect(await only('suspended')).toEqual(suspended)
    expect(await only('active')).toEqual(ids.filter((id) => !suspended.includes(id)))
    const { body } = await server.ask('read_figures', { token })
    expect(body.suspended).toBe(2)
  })

  it('one of them is what it is in the list', async () => {
    const { body } = await server.ask('read_user', { token, params: { user_id: ids[5]! } })
    const all = await pages('list_users', 'users', {})
    expect(body).toEqual(all.find(({ user_id }) => user_id === ids[5]))
    expect(body).toMatchObject({ devices: 1, events: 0, stored_bytes: 0, log_seq: 0, quota: { bytes: null, streams: null, devices: null } })
    expect(body).not.toHaveProperty('user_no')
  })
})

describe('sessions', () => {
  it('are listed as they are, of one account, and page by page', async () => {
    const [mine, theirs] = [await server.account(3), await server.account(1)]
    for (const [account, device] of [
      [mine, 0],
      [mine, 1],
      [mine, 2],
      [theirs, 0],
    ] as const)
      open.push(await connectRaw(server.door.raw(account, device)))
    const all = await pages('list_sessions', 'sessions', { limit: '3' })
    expect(all).toHaveLength(4)
    expect(all.map(({ session_id }) => session_id)).toEqual(open.map(({ session_id }) => session_id))
    const own = await pages('list_sessions', 'sessions', { user_id: mine.user_id, limit: '2' })
    expect(own.map(({ device_id }) => device_id)).toEqual(mine.devices.map(({ device_id }) => device_id))
    for (const session of own) expect(session).toMatchObject({ role: 'device', position: 0, log_seq: mine.log_seq, user_id: mine.user_id })
    const { body } = await server.ask('list_sessions', { token, query: { user_id: mine.user_id, limit: '1' } })
    expect(body.total).toBe(3)
    const devices = await server.ask('list_user_devices', { token, params: { user_id: theirs.user_id } })
    expect(devices.body.devices).toMatchObject([{ device_id: theirs.devices[0]!.device_id, state: 'active', has_session: true }])
    // the first of them goes between two pages
    const seen = await pages('list_sessions', 'sessions', { limit: '2' }, async () => {
      await open.shift()?.close()
      await expect.poll(async () => (await server.ask('list_sessions', { token })).body.total).toBe(open.length)
    })
    expect(seen.map(({ session_id }) => session_id)).toEqual(all.map(({ session_id }) => session_id))
    await open.pop()!.close()
    await expect.poll(async () => (await server.ask('list_sessions', { token })).body.total).toBe(open.length)
    expect((await server.ask('list_sessions', { token, query: { user_id: theirs.user_id } })).body.sessions).toEqual([])
  })
})
