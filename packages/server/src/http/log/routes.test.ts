import { LIMITS, type NewEntry, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createStore, type PostgresStore } from '../../store/store.ts'
import { assertAs, createTestAccount, extendAccount, type TestAccount } from '@sealpost/testing/clients/signing-account'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import type { Answer } from '../call.ts'
import { createLogRoutes, type LogRouteDeps } from './routes.ts'
import { createRateLimits } from '../../limits/rate-limits.ts'

const database = useDatabase()
const server_key = nodeCrypto.ed25519Public(nodeCrypto.random(32))
let store: PostgresStore

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
})
afterAll(() => store.close())

type Over = { repair?: boolean; address?: string | null; proof_at?: number }

function start(over: Partial<LogRouteDeps> = {}) {
  const limits = createRateLimits()
  const skew_ms = LIMITS.clockSkewMs
  const routes = createLogRoutes({ store, server_key, skew_ms, bus: { publish: () => {} }, signup: () => 'open', limits, ...over })
  const post = async (account: TestAccount, built: NewEntry, { repair = false, address = null, proof_at }: Over = {}): Promise<Answer> => {
    const own = built.boxes[account.device.device_id] ?? ''
    const proof = await assertAs(account, server_key, 'log', { now_ms: proof_at ?? store.now() })
    const boxes = repair ? { [account.device.device_id]: own } : built.boxes
    const entry = { body: toBase64url(built.entry.body), sig: toBase64url(built.entry.sig) }
    const body = { ...entry, boxes, proof, repair }
    const request = {
      params: undefined,
      query: undefined,
      headers: undefined,
      caller: null,
      request_id: 'a request',
      gone: new AbortController().signal,
    }
    return routes.append_log({ ...request, body, address })
  }
  return { limits, post }
}

const renamed = (account: TestAccount, name: string) =>
  extendAccount(account, { type: 'rename_device', device_id: account.device.device_id, name })
const spend = async ({ limits }: ReturnType<typeof start>, rule: 'repair' | 'repair_address' | 'genesis', key: string, times: number) => {
  for (let i = 0; i < times; i++) expect(await limits.take(rule, key)).toBeNull()
}
const limited = { problem: { code: 'rate_limited', retry_after_ms: expect.any(Number) } }

describe('bounds of POST /api/log', () => {
  it('R12: a repair brings back 2,000 entries an hour per user, and is refused beyond; what is known or refused does not count', async () => {
    const account = await createTestAccount()
    const [genesis] = account.entries
    const on = start()
    await spend(on, 'repair', account.user_id, 1_998)
    expect(await on.post(account, genesis!, { repair: true })).toMatchObject({ json: { log_seq: 0 } })
    for (let i = 0; i < 3; i++) expect(await on.post(account, genesis!, { repair: true })).toMatchObject({ json: { log_seq: 0 } })
    await renamed(account, 'one')
    const ahead = await renamed(account, 'two')
    for (let i = 0; i < 3; i++) expect(await on.post(account, ahead, { repair: true })).toMatchObject({ problem: { code: 'log_conflict' } })
    expect(await on.post(account, account.entries[1]!, { repair: true })).toMatchObject({ json: { log_seq: 1 } })
    expect(await on.post(account, ahead, { repair: true })).toEqual(limited)
    // the way without a repair has a bound of its own
    expect(await on.post(account, ahead)).toMatchObject({ json: { log_seq: 2 } })
    const other = await createTestAccount()
    expect(await on.post(other, other.entries[0]!, { repair: true })).toMatchObject({ json: { log_seq: 0 } })
  })

  it('R12: an address posts 2,000 repairs an hour, whatever becomes of them', async () => {
    const account = await createTestAccount()
    const [genesis] = account.entries
    const on = start()
    await spend(on, 'repair_address', '203.0.113.9', 1_999)
    const from = (address: string) => on.post(account, genesis!, { repair: true, address })
    expect(await from('203.0.113.9')).toMatchObject({ json: { log_seq: 0 } })
    expect(await from('203.0.113.9')).toEqual(limited)
    expect(await from('203.0.113.10')).toMatchObject({ json: { log_seq: 0 } })
  })

  it('a genesis that is known is fine, whatever sign-up and rate say of new accounts', async () => {
    const account = await createTestAccount()
    const [genesis] = account.entries
    expect(await start().post(account, genesis!)).toMatchObject({ json: { log_seq: 0 } })
    const on = start({ signup: () => 'closed' })
    await spend(on, 'genesis', '203.0.113.9', 10)
    for (const repair of [false, true])
      expect(await on.post(account, genesis!, { repair, address: '203.0.113.9' })).toMatchObject({ json: { log_seq: 0 } })
    const stranger = await createTestAccount()
    expect(await on.post(stranger, stranger.entries[0]!)).toEqual({ problem: { code: 'signup_closed' } })
  })

  it('C5: by its genesis a device learns that its account was deleted, whatever sign-up and rate say of new accounts', async () => {
    const account = await createTestAccount()
    const [genesis] = account.entries
    expect(await start().post(account, genesis!)).toMatchObject({ json: { log_seq: 0 } })
    expect(await store.deleteAccount(account.user_id, null)).not.toBeNull()
    const closed = start({ signup: () => 'closed' })
    const spent = start()
    await spend(spent, 'genesis', '203.0.113.9', 10)
    for (const on of [closed, spent])
      for (const repair of [false, true])
        expect(await on.post(account, genesis!, { repair, address: '203.0.113.9' })).toEqual({ problem: { code: 'account_gone' } })
  })

  it('G07: how far the clock of a device may be off is configured, and an assertion is remembered for as long as it is fresh', async () => {
    const account = await createTestAccount()
    const [genesis] = account.entries
    const at = (skew_ms: number, offset: number) => start({ skew_ms }).post(account, genesis!, { proof_at: store.now() + offset })
    for (const offset of [-3_590_000, 3_590_000]) expect(await at(3_600_000, offset)).toMatchObject({ json: { log_seq: 0 } })
    for (const offset of [-3_610_000, 3_610_000]) await expect(at(3_600_000, offset)).rejects.toMatchObject({ code: 'expired' })
    await expect(at(10_000, -20_000)).rejects.toMatchObject({ code: 'expired' })
    const lax = await createStore({ connection: database.connection, log: silent, clock_skew_ms: 3_600_000 })
    const kept = async (jti: string, by: PostgresStore) => {
      expect(await by.rememberAssertion(jti, account.user_id)).toBe(true)
      const { rows } = await store.pools.main.query('select max(expires_at) - clock_ms() as ms from assertion')
      return Math.round(rows[0].ms / 1000)
    }
    expect(await kept('one', store)).toBe(600)
    expect(await kept('two', lax)).toBe(7_200)
    await lax.close()
  })
})
