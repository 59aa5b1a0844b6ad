/** Who may create accounts (G24): everybody, nobody, or whoever has an invite, which lets in as many as it says and not one more. */
import { toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { beforeEach, describe, expect, it } from 'vitest'
import { makeAccount, makeDevice, makeEntry, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { useAdminServer } from '@sealpost/testing/relays/admin-server'

const server = useAdminServer({ env: { SEALPOST_SIGNUP: 'closed' } })

const setSignup = (signup: string | null) => server.as('operator', 'set_signup', { json: { signup } })
const readSignup = async () => (await server.as('viewer', 'read_signup')).body
const invite = async (uses = 1, expires_in_s = 600) =>
  (await server.as('operator', 'create_invite', { json: { uses, expires_in_s, note: null } })).body as {
    invite: { invite_id: string }
    code: string
  }
const usesOf = async (invite_id: string): Promise<number> =>
  (await server.sql('select uses from invite where invite_id = $1', [invite_id]))[0].uses
const accounts = async (): Promise<number> => (await server.sql('select count(*)::int4 as n from account'))[0].n

type Genesis = { account: TestAccount; posted: object; proof(): Promise<object> }
function makeGenesis(): Genesis {
  const account = makeAccount()
  const device = makeDevice()
  const { entry, boxes } = makeEntry(account, { type: 'genesis', device })
  const posted = { body: toBase64url(entry.body), sig: toBase64url(entry.sig), boxes }
  account.devices = [device]
  return { account, posted, proof: () => server.door.assertion(account, 0, 'log') }
}
async function signUp(code?: string, { posted, proof }: Genesis = makeGenesis()): Promise<number | string> {
  const json = { ...posted, proof: await proof(), ...(code === undefined ? {} : { invite: code }) }
  const { status, body } = await server.door.ask('POST', '/api/log', { json })
  return status === 200 ? 200 : body.code
}

beforeEach(() => setSignup(null))

describe('sign-up', () => {
  it('is as configured, as an operator set it, and as configured again', async () => {
    expect(await readSignup()).toEqual({ signup: 'closed', by: 'configuration' })
    expect(await signUp()).toBe('signup_closed')
    await setSignup('open')
    expect(await readSignup()).toEqual({ signup: 'open', by: 'operator' })
    expect(await signUp()).toBe(200)
    await setSignup('invite')
    expect(await signUp()).toBe('signup_closed')
    await setSignup('closed')
    expect(await readSignup()).toEqual({ signup: 'closed', by: 'operator' })
    await setSignup('open')
    await setSignup(null)
    expect(await readSignup()).toEqual({ signup: 'closed', by: 'configuration' })
    expect(await signUp()).toBe('signup_closed')
  })

  it('that is closed is closed for invites too, and one that is open asks for none and uses none up', async () => {
    const { code, invite: made } = await invite()
    expect(await signUp(code)).toBe('signup_closed')
    await setSignup('open')
    expect(await signUp(code)).toBe(200)
    expect(await signUp('no invite at all')).toBe(200)
    expect(await usesOf(made.invite_id)).toBe(0)
    await setSignup('invite')
    expect(await signUp(code)).toBe(200)
    expect(await usesOf(made.invite_id)).toBe(1)
  })
})

describe('an invite', () => {
  beforeEach(() => setSignup('invite'))

  it('lets in as many as it says', async () => {
    const { code, invite: made } = await invite(3)
    const before = await accounts()
    for (const _ of [1, 2, 3]) expect(await signUp(code)).toBe(200)
    for (const _ of [4, 5]) expect(await signUp(code)).toBe('signup_closed')
    expect(await accounts()).toBe(before + 3)
    expect(await usesOf(made.invite_id)).toBe(3)
  })

  it('of one use lets in one of fifty who come at once', async () => {
    const { code, invite: made } = await invite(1)
    const before = await accounts()
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => signUp(code)))
    expect(outcomes.filter((outcome) => outcome === 200)).toHaveLength(1)
    expect(new Set(outcomes)).toEqual(new Set([200, 'signup_closed']))
    expect(await accounts()).toBe(before + 1)
    expect(await usesOf(made.invite_id)).toBe(1)
  })

  it('is used once by an account whose genesis comes again, also twenty times at once', async () => {
    const { code, invite: made } = await invite(5)
    const genesis = makeGenesis()
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => signUp(code, genesis)))
    expect(new Set(outcomes)).toEqual(new Set([200]))
    expect(await signUp(code, genesis)).toBe(200)
    // nor does it need one any more
    expect(await signUp(undefined, genesis)).toBe(200)
    expect(await signUp('another', genesis)).toBe(200)
    expect(await usesOf(made.invite_id)).toBe(1)
  })

  it('that expired, was revoked, or is none makes no account and is not used', async () => {
    const expired = await invite(5)
    await server.sql('update invite set expires_at = clock_ms() - 1 where invite_id = $1', [expired.invite.invite_id])
    const revoked = await invite(5)
    await server.as('operator', 'revoke_invite', { params: { invite_id: revoked.invite.invite_id } })
    await server.as('operator', 'revoke_invite', { params: { invite_id: revoked.invite.invite_id } })
    const good = await invite(5)
    const before = await accounts()
    const none = [toBase64url(nodeCrypto.random(16)), good.invite.invite_id, good.code.toLowerCase(), `${good.code}A`]
    for (const code of [expired.code, revoked.code, ...none]) expect(await signUp(code)).toBe('signup_closed')
    expect(await accounts()).toBe(before)
    for (const one of [expired, revoked, good]) expect(await usesOf(one.invite.invite_id)).toBe(0)
    expect(await server.sql('select from head h where not exists (select from account a where a.user_no = h.user_no)')).toEqual([])
  })

  it('is not used by an account that is refused for another reason', async () => {
    const { code, invite: made } = await invite(1)
    const { account, posted, proof } = makeGenesis()
    const bad = { account, posted: { ...posted, boxes: {} }, proof }
    expect(await signUp(code, bad)).toBe('invalid_entry')
    // a deleted account does not come back, invited or not
    const gone = makeGenesis()
    const other = await invite(1)
    expect(await signUp(other.code, gone)).toBe(200)
    await server.store.deleteAccount(gone.account.user_id, null)
    expect(await signUp(code, gone)).toBe('account_gone')
    expect(await usesOf(made.invite_id)).toBe(0)
    expect(await signUp(code)).toBe(200)
  })

  it('is for a genesis alone', async () => {
    const { code, invite: made } = await invite(1)
    const account = await server.account(1)
    const { entry, boxes } = makeEntry(account, { type: 'rotate_keys' })
    const json = {
      body: toBase64url(entry.body),
      sig: toBase64url(entry.sig),
      boxes,
      invite: code,
      proof: await server.door.assertion(account, 0, 'log'),
    }
    expect((await server.door.ask('POST', '/api/log', { json })).status).toBe(200)
    expect(await usesOf(made.invite_id)).toBe(0)
  })

  it('stands in the lists without its code, newest first, page by page', async () => {
    const made = []
    for (let i = 0; i < 7; i++) made.push(await invite(i + 1))
    const ids: string[] = []
    let text = ''
    for (let cursor: string | null = null; ; ) {
      const answer = await server.as('viewer', 'list_invites', { query: { limit: '3', ...(cursor === null ? {} : { cursor }) } })
      text += answer.text
      expect(answer.body.invites.length).toBeLessThanOrEqual(3)
      ids.push(...answer.body.invites.map(({ invite_id }: { invite_id: string }) => invite_id))
      cursor = answer.body.next_cursor
      if (cursor === null) break
    }
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids.slice(0, 7)).toEqual(made.map((one) => one.invite.invite_id).toReversed())
    for (const { code } of made) expect(text).not.toContain(code)
    const stored = JSON.stringify(await server.sql('select i::text from invite i'))
    for (const { code } of made) {
      expect(stored).not.toContain(code)
      expect(stored).not.toContain(Buffer.from(code).toString('hex'))
    }
  })

  it('leaves a trace: who made it, and that an account came by one', async () => {
    const { code, invite: made } = await invite(1)
    const genesis = makeGenesis()
    expect(await signUp(code, genesis)).toBe(200)
    const { body } = await server.as('viewer', 'list_audit', { query: { user_id: genesis.account.user_id } })
    expect(body.rows).toMatchObject([{ action: 'account_created', outcome: 'done', actor: 'root' }])
    expect(JSON.parse(body.rows[0].detail)).toEqual({ log_seq: 0, invited: true })
    const rows = await server.sql('select actor, detail from audit where target = $1', [`invite:${made.invite_id}`])
    expect(rows).toMatchObject([{ actor: expect.stringMatching(/^admin:/), detail: '{"uses":1,"expires_in_s":600,"note":null}' }])
  })
})
