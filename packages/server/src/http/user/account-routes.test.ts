import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type LogChange, toBase64url } from '@sealpost/protocol'
import { Client } from 'pg'
import { afterEach, describe, expect, it } from 'vitest'
import type { Hint } from '../../ports/store.ts'
import { addTestDevice, assertAs, createTestAccount, extendAccount, type TestAccount } from '@sealpost/testing/clients/signing-account'
import { useRest } from '@sealpost/testing/relays/injected-rest'
import { wire } from '@sealpost/testing/clients/store-accounts'

const rest = useRest()
const unsubscribes: (() => void)[] = []
afterEach(() => unsubscribes.splice(0).forEach((end) => end()))

async function hintsOf(account: TestAccount): Promise<Hint[]> {
  const { user_no } = (await rest.store.findDevice(account.user_id, account.device.device_id))!
  const heard: Hint[] = []
  unsubscribes.push(rest.bus.subscribe(user_no, (hint) => heard.push(hint)))
  return heard
}

/** An account with a phone beside the laptop. */
async function withPhone(): Promise<{ account: TestAccount; token: string; phone: TestAccount['device'] }> {
  const account = await rest.registered()
  const { device: phone, built } = await addTestDevice(account, 'phone')
  expect(await rest.postEntry(account, built)).toMatchObject({ status: 200 })
  return { account, token: await rest.tokenOf(account), phone }
}

async function rows(sql: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: rest.url })
  await client.connect()
  try {
    return (await client.query(sql, values)).rows
  } finally {
    await client.end()
  }
}

/** Every table and column of the database in which the account can be found, by the catalogue: a new table cannot be forgotten. */
async function tracesOf(user_no: number, texts: readonly string[], bytes: readonly Uint8Array[]): Promise<string[]> {
  const columns = await rows(`select table_name as t, column_name as c, data_type as d from information_schema.columns
    where table_schema = 'public' and table_name in (select table_name from information_schema.tables where table_type = 'BASE TABLE' and table_schema = 'public')`)
  const found: string[] = []
  for (const { t, c, d } of columns as { t: string; c: string; d: string }[]) {
    const test =
      c === 'user_no'
        ? [`"${c}" = $1`, user_no]
        : d === 'bytea'
          ? [`exists (select from unnest($1::bytea[]) x where position(x in "${c}") > 0)`, bytes]
          : d === 'text' || d === 'uuid'
            ? [`"${c}"::text = any($1::text[])`, texts]
            : null
    if (test !== null && (await rows(`select 1 from "${t}" where ${String(test[0])} limit 1`, [test[1]])).length > 0)
      found.push(`${t}.${c}`)
  }
  return found.sort()
}

describe('devices', () => {
  it('R03: one device, no events, nobody connected: the lists are there and say so', async () => {
    const account = await rest.registered()
    const token = await rest.tokenOf(account)
    expect((await rest.as(token, 'GET', '/api/devices')).body).toEqual({
      devices: [
        {
          device_id: account.device.device_id,
          name: 'laptop',
          device_type: 'desktop',
          added_log_seq: 0,
          revoked_log_seq: null,
          online: false,
          last_seen: null,
          this_device: true,
        },
      ],
      log_seq: 0,
      log_head: toBase64url(account.log.log_head),
    })
    expect((await rest.as(token, 'GET', '/api/connection-status')).body).toMatchObject({ online: 0, devices: [{ online: false }] })
    expect((await rest.as(token, 'GET', '/api/user')).body).toMatchObject({
      user_id: account.user_id,
      devices: 1,
      streams: 0,
      events: 0,
      stored_bytes: 0,
      head_position: 0,
      floor: 0,
    })
  })

  it('R10: a device of another account and one that nobody has are the same 404', async () => {
    const { token } = await withPhone()
    const other = await withPhone()
    for (const method of ['GET', 'PATCH', 'DELETE'] as const) {
      const payload = method === 'GET' ? undefined : wire(other.account.entries[1]!)
      const [foreign, unknown] = await Promise.all(
        [other.phone.device_id, randomUUID()].map((id) => rest.as(token, method, `/api/devices/${id}`, payload)),
      )
      expect(foreign).toMatchObject({ status: 404, body: { code: 'not_found' } })
      expect({ ...unknown!.body, request_id: '' }).toEqual({ ...foreign!.body, request_id: '' })
    }
  })

  it('a rename is a signed entry: it changes name and ETag, is told to the sessions, and may be sent again', async () => {
    const { account, token, phone } = await withPhone()
    const heard = await hintsOf(account)
    const before = await rest.as(token, 'GET', `/api/devices/${phone.device_id}`)
    const built = await extendAccount(account, { type: 'rename_device', device_id: phone.device_id, name: 'pocket' })
    const ask = () =>
      rest.as(token, 'PATCH', `/api/devices/${phone.device_id}`, wire(built), { 'if-match': String(before.headers['etag']) })
    const first = await ask()
    expect(first).toMatchObject({ status: 200, body: { log_seq: 2, device: { name: 'pocket', this_device: false } } })
    expect(first.headers['etag']).not.toBe(before.headers['etag'])
    expect(heard).toContainEqual({ is: 'log', history_id: rest.store.history_id, log_seq: 2, revoked: [] })
    expect(await ask()).toMatchObject({ status: 200, body: first.body })
    const next = await extendAccount(account, { type: 'rename_device', device_id: phone.device_id, name: 'other' })
    const late = { 'if-match': String(before.headers['etag']) }
    expect(await rest.as(token, 'PATCH', `/api/devices/${phone.device_id}`, wire(next), late)).toMatchObject({
      status: 412,
      body: { code: 'precondition_failed' },
    })
    expect((await rest.as(token, 'GET', `/api/devices/${phone.device_id}`)).body.name).toBe('pocket')
  })

  it('G05: a name that another device has is 409, also in other case; G08: an unsafe one is refused', async () => {
    const { account, token, phone } = await withPhone()
    const log = account.log
    for (const [name, status, code] of [
      ['LapTop', 409, 'name_taken'],
      ['a\u202Eb', 422, 'invalid_entry'],
      ['x'.repeat(51), 422, 'invalid_entry'],
    ] as const) {
      account.log = log
      const built = await extendAccount(account, { type: 'rename_device', device_id: phone.device_id, name }).catch(() => null)
      // what the verifier itself refuses cannot even be built
      if (built === null) continue
      expect(await rest.as(token, 'PATCH', `/api/devices/${phone.device_id}`, wire(built))).toMatchObject({ status, body: { code } })
      account.epoch_key = account.entries.at(-2)!.epoch_key
      account.entries.pop()
    }
  })

  it('G06, G08: the database itself refuses other types, empty, overlong and unprintable names', async () => {
    const { account } = await withPhone()
    const { user_no } = (await rest.store.findDevice(account.user_id, account.device.device_id))!
    for (const change of [
      `device_type = 'toaster'`,
      `name = ''`,
      `name = repeat('x', 513)`,
      `name = 'a' || chr(8238)`,
      `name = 'a' || chr(10)`,
    ])
      await expect(rows(`update device_profile set ${change} where user_no = $1`, [user_no])).rejects.toThrow(/check constraint/)
  })

  it('a revocation is a signed entry: tokens of the device die at once, its sessions are told (R01)', async () => {
    const { account, token, phone } = await withPhone()
    const stolen = await rest.tokenOf(account, phone)
    const heard = await hintsOf(account)
    const built = await extendAccount(account, { type: 'revoke_device', device_id: phone.device_id, pins: null })
    expect(await rest.as(token, 'DELETE', `/api/devices/${phone.device_id}`, wire(built))).toMatchObject({
      status: 200,
      body: { log_seq: 2, device: { revoked_log_seq: 2, online: false } },
    })
    expect(heard).toContainEqual({ is: 'log', history_id: rest.store.history_id, log_seq: 2, revoked: [phone.device_id] })
    expect(await rest.as(stolen, 'GET', '/api/user')).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
    expect((await rest.as(token, 'GET', '/api/devices')).body.devices).toHaveLength(1)
    expect((await rest.as(token, 'GET', '/api/devices?revoked=true')).body.devices).toHaveLength(2)
  })

  const ifMatch = async (how: 'PATCH' | 'DELETE') => {
    const { account, token, phone } = await withPhone()
    const url = `/api/devices/${phone.device_id}`
    const change: LogChange =
      how === 'DELETE'
        ? { type: 'revoke_device', device_id: phone.device_id, pins: null }
        : { type: 'rename_device', device_id: phone.device_id, name: 'pocket' }
    const etag = String((await rest.as(token, 'GET', url)).headers['etag'])
    const built = wire(await extendAccount(account, change))
    return { etag, ask: (given: string) => rest.as(token, how, url, built, { 'if-match': given }) }
  }

  it.each(['PATCH', 'DELETE'] as const)('%s with If-Match is refused unless it names the device as it is', async (how) => {
    const { etag, ask } = await ifMatch(how)
    expect(etag).toMatch(/^"[\w-]{22}"$/)
    for (const other of [`W/${etag}`, '"x"', etag.slice(1, -1), `"x", W/${etag}`, '"*"', `${etag.slice(0, -1)}x"`, `"x" ${etag}`, ','])
      expect(await ask(other), other).toMatchObject({ status: 412, body: { code: 'precondition_failed' } })
    expect(await ask(`"x" , ${etag},W/"y"`)).toMatchObject({ status: 200 })
    // sent again it is a success, though the device is another one by it
    expect(await ask(etag)).toMatchObject({ status: 200 })
  })

  it.each(['PATCH', 'DELETE'] as const)('%s with If-Match: * takes any device that is there', async (how) => {
    const { ask } = await ifMatch(how)
    expect(await ask(' * ')).toMatchObject({ status: 200 })
  })

  it('no revocation without a key, without the signature, by a flag, or by an entry that means something else', async () => {
    const { account, token, phone } = await withPhone()
    const other = await withPhone()
    const url = `/api/devices/${phone.device_id}`
    const base = { ...account, entries: [...account.entries] }
    const good = await extendAccount(base, { type: 'revoke_device', device_id: phone.device_id, pins: null })
    const { sig, ...unsigned } = wire(good)
    const foreign = { ...wire(good), sig: wire(other.account.entries[0]!).sig }
    const renamed = await extendAccount({ ...account, entries: [] }, { type: 'rename_device', device_id: phone.device_id, name: 'x' })
    const ofLaptop = await extendAccount(
      { ...account, entries: [] },
      { type: 'revoke_device', device_id: account.device.device_id, pins: null },
      phone,
    )
    for (const [payload, status] of [
      [undefined, 400],
      [unsigned, 400],
      [{ ...wire(good), active: false }, 400],
      [{ revoked: true, status: 'revoked' }, 400],
      [foreign, 422],
      [wire(renamed), 422],
      [wire(ofLaptop), 422],
      [wire(await extendAccount(other.account, { type: 'revoke_device', device_id: other.phone.device_id, pins: null })), 403],
    ] as const)
      expect((await rest.as(token, 'DELETE', url, payload)).status).toBe(status)
    expect(await rest.ask({ method: 'DELETE', url, payload: wire(good) })).toMatchObject({ status: 401 })
    expect((await rest.as(token, 'GET', url)).body.revoked_log_seq).toBeNull()
    expect(sig).toHaveLength(86)
  })
})

describe('G04: deleting an account', () => {
  it('deletes every row, answers with counts, tells the sessions, and never lets the genesis back', async () => {
    const { account, token, phone } = await withPhone()
    const device = (await rest.store.findDevice(account.user_id, account.device.device_id))!
    const mailbox = toBase64url(new Uint8Array(16).fill(9))
    const offer = { authorization: `Bearer ${token}`, 'content-type': 'application/octet-stream' }
    expect(
      await rest.ask({ method: 'PUT', url: `/api/pairing/${mailbox}/offer`, payload: Buffer.alloc(40), headers: offer }),
    ).toMatchObject({
      status: 204,
    })
    const texts = [account.user_id, account.device.device_id, phone.device_id, mailbox]
    const bytes = [Buffer.from(account.user_id, 'base64url'), account.device.sign_pub, phone.sign_pub]
    expect(await tracesOf(device.user_no, texts, bytes)).toEqual(
      expect.arrayContaining(['account.user_id', 'device.device_id', 'log_entry.user_no', 'pairing.mailbox_id', 'refresh_family.user_no']),
    )
    const heard = await hintsOf(account)
    const answer = await rest.ask({
      method: 'DELETE',
      url: '/api/user',
      payload: await assertAs(account, rest.server_key, 'delete-account'),
    })
    expect(answer).toMatchObject({ status: 200, body: { deleted: { account: 1, device: 2, log_entry: 2, log_box: 5, pairing_slot: 1 } } })
    expect(heard).toEqual([{ is: 'deleted' }])
    expect(await tracesOf(device.user_no, texts, bytes)).toEqual([])
    expect(await rest.as(token, 'GET', '/api/user')).toMatchObject({ status: 401 })
    expect(await rest.postEntry(account, account.entries[0]!)).toMatchObject({ status: 410, body: { code: 'account_gone' } })
    const read = async (of: TestAccount, signer: TestAccount['device'] | 'root') =>
      rest.post('/api/log/read', await assertAs(of, rest.server_key, 'log-read', { signer }))
    // the root proves itself, for it is the account's name; nobody else learns that there was an account
    expect(await read(account, 'root')).toMatchObject({ status: 410, body: { code: 'account_gone' } })
    expect(await read(account, phone)).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
    expect(await read(await createTestAccount(), 'root')).toMatchObject({ status: 404, body: { code: 'not_found' } })
    const impostor = { ...(await createTestAccount()), user_id: account.user_id }
    expect(await read(impostor, 'root')).toMatchObject({ status: 401, body: { code: 'unauthorized' } })
  })

  it('takes the root, no other purpose, no token, no revoked device, nobody else', async () => {
    const { account, token, phone } = await withPhone()
    const other = await rest.registered()
    const remove = async (payload: object | undefined, headers: Record<string, string> = {}) =>
      rest.ask({ method: 'DELETE', url: '/api/user', headers, ...(payload === undefined ? {} : { payload }) })
    const built = await extendAccount(account, { type: 'revoke_device', device_id: phone.device_id, pins: null })
    expect(await rest.postEntry(account, built)).toMatchObject({ status: 200 })
    expect(await remove(undefined, { authorization: `Bearer ${token}` })).toMatchObject({ status: 400 })
    expect(await remove(await assertAs(account, rest.server_key, 'token'))).toMatchObject({ status: 401 })
    expect(await remove(await assertAs(account, rest.server_key, 'delete-account', { signer: phone }))).toMatchObject({
      status: 403,
      body: { code: 'device_revoked' },
    })
    expect(await remove(await assertAs(account, rest.server_key, 'delete-account', { signer: other.device }))).toMatchObject({
      status: 401,
    })
    expect((await rest.as(token, 'GET', '/api/user')).status).toBe(200)
    expect(await remove(await assertAs(account, rest.server_key, 'delete-account', { signer: 'root' }))).toMatchObject({ status: 200 })
  })
})

describe('B08: export', () => {
  const linesOf = (text: string): Record<string, unknown>[] =>
    text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))

  it('has a line for every row that is held, and ends with their counts', async () => {
    const { account, token } = await withPhone()
    const { status, text, headers } = await rest.as(token, 'GET', '/api/user/export')
    expect({ status, type: headers['content-type'] }).toEqual({ status: 200, type: 'application/x-ndjson' })
    const lines = linesOf(text)
    expect(lines[0]).toMatchObject({ kind: 'export', format: 1, user_id: account.user_id })
    expect(lines.at(-1)).toEqual({ kind: 'end', counts: { account: 1, audit: 2, device: 2, log_entry: 2, refresh_family: 1 } })
    const entries = lines.filter((line) => line['kind'] === 'log_entry')
    expect(entries.map(({ body, sig, boxes }) => ({ body, sig, boxes }))).toEqual(account.entries.map(wire))
  })

  it('two at once: the second is told to come back, and when the first is over the next is served', async () => {
    const { token } = await withPhone()
    const ask = async (): Promise<number> => (await rest.as(token, 'GET', '/api/user/export')).status
    const client = new Client({ connectionString: rest.url })
    await client.connect()
    try {
      // until then no export can be over
      await client.query('begin; lock table event in access exclusive mode')
      const both = [ask(), ask()]
      expect(await Promise.race(both)).toBe(429)
      await client.query('commit')
      expect((await Promise.all(both)).toSorted((x, y) => x - y)).toEqual([200, 429])
    } finally {
      await client.end()
    }
    expect(await ask()).toBe(200)
  })

  it('whoever leaves gives the seat back, however early that is', async () => {
    await rest.app.listen({ host: '127.0.0.1', port: 0 })
    const { port } = rest.app.server.address() as AddressInfo
    const tokens = await Promise.all(Array.from({ length: 9 }, async () => rest.tokenOf(await rest.registered())))
    const cut = async (token: string, after_ms: number): Promise<void> => {
      const socket = connect(port, '127.0.0.1').on('error', () => {})
      await once(socket, 'connect')
      socket.write(`GET /api/user/export HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n\r\n`)
      await sleep(after_ms)
      socket.destroy()
    }
    for (let ms = 0; ms < 8; ms++) await Promise.all(tokens.map((token) => cut(token, ms)))
    for (const token of tokens)
      await expect.poll(async () => (await rest.as(token, 'GET', '/api/user/export')).status, { timeout: 5_000 }).toBe(200)
  })
})
