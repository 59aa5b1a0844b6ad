/**
 * Nothing is done without a trace (G24): what cannot be written down is not done, and what was done is written down; no text of anybody
 * makes another line of it, and no secret or payload gets into it, into an answer of the listener of admins, or into the log.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { request } from 'node:http'
import { Writable } from 'node:stream'
import { type AdminRouteName, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { Client } from 'pg'
import { afterEach, describe, expect, it } from 'vitest'
import { createLog } from '../src/telemetry/log.ts'
import { requestFor, ROUTES_OF_ADMINS } from '@sealpost/testing/clients/admin-requests'
import { type AdminAsk, type AdminNode, useAdminServer } from '@sealpost/testing/relays/admin-server'
import { freshAddress } from '@sealpost/testing/relays/configured-relays'

const server = useAdminServer()
const routes = ROUTES_OF_ADMINS
const changing = routes.filter(([, { auth, method }]) => auth === 'token' && method !== 'GET').map(([name]) => name)
const actionsOf = (request_id: string) =>
  server.sql('select action, outcome, target, detail from audit where request_id = $1 order by seq', [request_id])

describe('when the audit log cannot be written', () => {
  /** The database refuses rows of these outcomes, as it does when it is short of room or busy. */
  const refuseRows = (when: string) =>
    server.sql(`create or replace function refuse_row() returns trigger language plpgsql as $f$
      begin if ${when} then raise exception 'no room' using errcode = '53100'; end if; return new; end $f$;
      create or replace trigger refuse_row before insert on audit for each row execute function refuse_row()`)
  afterEach(() => server.sql('drop trigger if exists refuse_row on audit'))

  const state = async (): Promise<string> => {
    const tables = ['account', 'admin', 'setting', 'invite', 'signing_key', 'device']
    const parts = tables.map((name) => `select '${name}' as name, md5(string_agg(t::text, '' order by t::text)) as digest from ${name} t`)
    return JSON.stringify(await server.sql(parts.join(' union all ')))
  }

  it.each(changing)('%s answers 503 and is not done', async (name) => {
    const ask = { ...(await requestFor(server, name)), token: await server.tokenOf('owner') }
    await refuseRows('true')
    const before = await state()
    expect(await server.ask(name, ask)).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    expect(await state()).toBe(before)
  })

  it('nobody gets a token, and who has one may look', async () => {
    const admin = await server.admin('owner')
    const token = await server.tokenOf('viewer')
    await refuseRows('true')
    expect(await server.ask('create_admin_token', { json: await server.assertion(admin) })).toMatchObject({ status: 503 })
    for (const name of ['list_users', 'list_audit'] as const) expect((await server.ask(name, { token })).status).toBe(200)
  })

  it('a row that another holds makes it wait, and then it is not done', async () => {
    const { user_id } = await server.account(1)
    const token = await server.tokenOf('operator')
    const holder = new Client(server.database.connection)
    await holder.connect()
    await holder.query('begin; select from audit_head for update')
    const answer = await server.ask('suspend_user', { token, params: { user_id }, json: {} })
    expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    await holder.query('rollback')
    await holder.end()
    expect((await server.as('viewer', 'read_user', { params: { user_id } })).body.suspended_at).toBeNull()
    expect(await actionsOf(answer.request_id)).toEqual([])
  })

  it('what was done and could not be written down any more is answered as done, and written down later', async () => {
    const { user_id } = await server.account(1)
    await server.tokenOf('operator')
    await refuseRows(`new.outcome <> 'begun'`)
    const { request_id } = await server.as('operator', 'suspend_user', { params: { user_id }, json: { reason: 'late' } })
    expect(await actionsOf(request_id)).toMatchObject([{ outcome: 'begun' }])
    expect((await server.store.readOperatedUser(user_id))?.suspended_at).not.toBeNull()
    await server.sql('drop trigger refuse_row on audit')
    // who looks at the log has what was noted written first
    await server.as('viewer', 'list_audit')
    expect(await actionsOf(request_id)).toMatchObject([{ outcome: 'begun' }, { outcome: 'done', detail: '{"reason":"late"}' }])
  })

  it('what failed is written down as failed', async () => {
    const { user_id, user_no } = await server.account(1)
    const token = await server.tokenOf('operator')
    const holder = new Client(server.database.connection)
    await holder.connect()
    await holder.query(`begin; select from account where user_no = ${user_no} for update`)
    const { status, request_id } = await server.ask('suspend_user', { token, params: { user_id }, json: {} })
    await holder.end()
    expect(status).toBe(503)
    const rows = await actionsOf(request_id)
    expect(rows.map(({ outcome, detail }) => [outcome, detail])).toEqual([
      ['begun', null],
      ['failed', '{"code":"unavailable"}'],
    ])
    expect((await server.store.readOperatedUser(user_id))?.suspended_at).toBeNull()
  })
})

describe('what only looks', () => {
  it('is noted, also when it is refused', async () => {
    const viewer = await server.admin('viewer')
    const token = await server.token(viewer)
    expect((await server.ask('list_users', { token })).status).toBe(200)
    expect((await server.ask('list_users', { token, query: { cursor: 'x' } })).body).toMatchObject({ code: 'invalid_request' })
    expect((await server.ask('read_user', { token, params: { user_id: toBase64url(nodeCrypto.random(32)) } })).status).toBe(404)
    expect((await server.ask('suspend_user', { token, params: { user_id: toBase64url(nodeCrypto.random(32)) }, json: {} })).status).toBe(
      403,
    )
    const { body } = await server.as('owner', 'list_audit', { query: { admin_id: viewer.admin_id } })
    expect(body.rows.map(({ action, outcome, target }: Record<string, unknown>) => [action, outcome, target])).toEqual([
      ['create_admin_token', 'done', null],
      ['list_users', 'done', null],
      ['list_users', 'refused', null],
      ['read_user', 'refused', null],
      ['role_refused', 'refused', 'suspend_user'],
    ])
  })
})

describe('texts of people', () => {
  const ODD: [string, string][] = [
    ['a line end', 'a\nb'],
    ['a carriage return', 'a\rb'],
    ['a NUL', 'a\0b'],
    ['an escape', 'a\u001b[2Jb'],
    ['a C1 control', 'a\u009bb'],
    ['a turn of direction', 'a\u202eb'],
    ['an isolate', 'a\u2066b'],
    ['a line separator', 'a\u2028b'],
    ['a paragraph separator', 'a\u2029b'],
    ['a zero-width blank', 'a\u200bb'],
    ['a byte order mark', '\ufeffab'],
    ['a tag', 'a\u{e0041}b'],
    ['half a surrogate pair', 'a\ud800b'],
    ['an invisible letter', 'a\u3164b'],
  ]

  it.each(ODD)('%s is in no name, reason or note', async (_, text) => {
    const { user_id, devices } = await server.account(1)
    const owner = await server.tokenOf('owner')
    const device = { user_id, device_id: devices[0]!.device_id }
    const before = await server.sql('select count(*)::int4 as n from admin')
    const asks: [AdminRouteName, AdminAsk][] = [
      ['add_admin', { json: { name: text, role: 'viewer', public_key: toBase64url(nodeCrypto.random(32)) } }],
      ['create_invite', { json: { uses: 1, expires_in_s: 60, note: text } }],
      ['suspend_user', { params: { user_id }, json: { reason: text } }],
      ['suspend_device', { params: device, json: { reason: text } }],
    ]
    for (const [name, ask] of asks) {
      const answer = await server.ask(name, { ...ask, token: owner })
      expect([name, answer.status, answer.body.code]).toEqual([name, 400, 'invalid_request'])
      expect(answer.text).not.toContain(text)
      expect(await actionsOf(answer.request_id)).toEqual([])
    }
    expect(await server.sql('select count(*)::int4 as n from admin')).toEqual(before)
  })

  it('what is written in any script is a name and a reason; a name is taken whatever its case', async () => {
    const owner = await server.tokenOf('owner')
    const add = (name: string) =>
      server.ask('add_admin', { token: owner, json: { name, role: 'viewer', public_key: toBase64url(nodeCrypto.random(32)) } })
    for (const name of ['Zoë Ångström', 'Владимир', '山田 太郎', 'o.brien@example.org', 'n7'])
      expect([name, (await add(name)).status]).toEqual([name, 200])
    expect((await add('O.BRIEN@example.org')).body.code).toBe('admin_exists')
    for (const name of ['', ' ada', '-ada', '.', 'a'.repeat(65), '<b>', '"', 'a/b'])
      expect([name, (await add(name)).status]).toEqual([name, 400])
    const { user_id } = await server.account(1)
    const reason = 'Missbrauch: „Ärger“, 迷惑 & <b>"x"</b> — 4711 🙂'
    const { request_id } = await server.as('operator', 'suspend_user', { params: { user_id }, json: { reason } })
    for (const { detail } of await actionsOf(request_id)) expect(JSON.parse(detail)).toEqual({ reason })
  })
})

describe('secrets', { timeout: 60_000 }, () => {
  const canary = (): string => `canary${randomBytes(12).toString('hex')}`

  /** As it is: no client of ours would send some of this. */
  async function raw(node: AdminNode, method: string, path: string, headers: Record<string, string>, body?: string): Promise<string> {
    const { hostname, port } = new URL(node.admin_url)
    const sent = request({ method, host: hostname, port, path, headers, agent: false })
    sent.end(body)
    const [answer] = await once(sent, 'response')
    let text = JSON.stringify(answer.headers)
    for await (const part of answer) text += String(part)
    return text
  }

  it('are in no answer, no row of the audit log and no line of the log, by whatever field they came', async () => {
    const password = canary()
    const role = `canary_${randomBytes(6).toString('hex')}`
    await server.sql(`create role ${role} login superuser password '${password}'`)
    const url = new URL(server.database.url)
    url.username = role
    url.password = password
    let log = ''
    const out = new Writable({
      write(chunk, _, then) {
        log += String(chunk)
        then()
      },
    })
    const node = await server.node({ env: { DATABASE_URL: url.href }, logger: createLog('debug', out) })
    try {
      const owner = await server.admin('owner')
      const operator = await server.admin('operator')
      const signed = await node.assertion(owner)
      const granted = await node.ask('create_admin_token', { json: signed })
      const token = granted.body.access_token as string
      const { code } = (await node.ask('create_invite', { token, json: { uses: 1, expires_in_s: 60, note: null } })).body
      const account = await server.account(1)
      const device_token = await node.door.token(account)

      const evil = canary()
      const injected = `${evil}\r\n{"level":60,"msg":"${evil}"}`
      let answers = ''
      for (const [name, row] of routes) {
        const ask = await requestFor(server, name)
        if (name !== 'delete_user' || row.auth === 'token') answers += (await node.ask(name, { ...ask, token })).text
        const path = row.path.replace(/\{\w+\}/g, encodeURIComponent(injected))
        const headers = {
          'x-forwarded-for': freshAddress(),
          'content-type': 'application/json',
          'user-agent': evil,
          referer: `https://${evil}.example/`,
          cookie: `a=${evil}`,
          'x-request-id': `${evil} x`,
        }
        for (const authorization of [`Bearer ${token}`, `Bearer ${evil}`, `Basic ${evil}`, `Bearer ${device_token}`])
          for (const where of [path, `${row.path}?${encodeURIComponent(injected)}=${encodeURIComponent(injected)}`])
            answers += await raw(
              node,
              row.method,
              where,
              { ...headers, authorization },
              row.body === 'none' ? undefined : JSON.stringify(injected),
            )
      }
      expect(answers.length).toBeGreaterThan(100_000)

      const audit = JSON.stringify(await server.sql('select a.* from audit a'))
      expect(audit).toContain(`admin:${owner.admin_id}`)
      const lines = log.trimEnd().split('\n')
      expect(lines.length).toBeGreaterThan(100)
      for (const line of lines) expect(JSON.parse(line)).toMatchObject({ level: expect.any(Number), msg: expect.any(String) })
      const { readFile } = await import('node:fs/promises')
      const secrets = JSON.parse(await readFile(server.secrets_file, 'utf8')) as Record<string, string>
      const never: Record<string, string> = {
        password,
        token,
        signature: token.split('.')[2]!,
        assertion: signed.sig,
        device_token,
        code,
        owner: toBase64url(owner.sign_seed),
        operator: toBase64url(operator.sign_seed),
        ...Object.fromEntries(Object.entries(secrets).filter(([, value]) => typeof value === 'string')),
      }
      expect(Object.keys(never)).toEqual(expect.arrayContaining(['server_sign_seed', 'token_key', 'jwt_sign_seed']))
      for (const [what, secret] of Object.entries(never))
        for (const [where, text] of Object.entries({ answers, audit, log }))
          expect([what, where, text.includes(secret)]).toEqual([what, where, false])
      for (const [where, text] of Object.entries({ answers, audit, log })) expect([where, text.includes(evil)]).toEqual([where, false])
      const { variables } = (await node.ask('read_config', { token })).body
      expect(variables.find(({ name }: { name: string }) => name === 'DATABASE_URL')).toMatchObject({
        value: null,
        is_set: true,
        secret: true,
      })
    } finally {
      await node.stop()
      await server.sql(`drop owned by ${role}; drop role ${role}`)
    }
  })
})
