import { LIMITS, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Log } from '../../telemetry/log.ts'
import type { SigningKeyStore } from '../../ports/store.ts'
import { createStore, type PostgresStore } from '../../store/store.ts'
import { createTestDatabase, query, type TestDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { KEY_SCHEDULE, kidOf, openSigningKeys } from './signing-keys.ts'
import { createTokens, type Tokens } from './tokens.ts'

const DAY_MS = 86_400_000
const secret = nodeCrypto.random(32)
const server_key = nodeCrypto.random(32)
const device = {
  user_id: toBase64url(nodeCrypto.random(32)),
  device_id: '7b1c2d3e-4f50-4162-8374-95a6b7c8d9ea',
  sign_pub: nodeCrypto.ed25519Public(nodeCrypto.random(32)),
  token_version: 0,
}

/** The clock of the database is one that these tests set. */
const MOVABLE_CLOCK = `
create table test_clock (ms int8 not null);
insert into test_clock values (1764000000000);
create or replace function clock_ms() returns int8 language sql volatile as 'select ms from test_clock'`

type Node = Awaited<ReturnType<typeof openSigningKeys>> & { tokens: Tokens }

let database: TestDatabase
let store: PostgresStore
let now: number
const nodes: Node[] = []

beforeEach(async () => {
  database = await createTestDatabase()
  await query(database.url, MOVABLE_CLOCK)
  store = await createStore({ connection: database.connection, log: silent })
  now = 1_764_000_000_000
})
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.close()))
  await store?.close()
  await database?.drop()
})

async function open(of: { secret?: Uint8Array; store?: SigningKeyStore; logger?: Log; purpose?: 'rest' | 'admin' } = {}): Promise<Node> {
  const keys = await openSigningKeys(of.store ?? store, of.secret ?? secret, of.logger ?? silent, { purpose: of.purpose })
  const node = { ...keys, tokens: createTokens(keys, server_key, () => now) }
  nodes.push(node)
  return node
}

/** Time goes by, and each node reads the keys as it does every minute. */
async function pass(ms: number, ...readers: Node[]): Promise<void> {
  now += ms
  await query(database.url, `update test_clock set ms = ${now}`)
  for (const node of readers) await node.refresh()
}

const kidsOf = async (node: Node) => (await node.jwks()).keys.map(({ kid }) => kid)
const signingOf = async (node: Node) => (await node.signing()).kid
const issue = async (node: Node) => (await node.tokens.issue(device)).access_token

describe('signing keys (G23)', () => {
  it('go from next to active to retired to gone; no token in its life is refused on the way, and none of a key that is gone is taken', async () => {
    const node = await open()
    const [first, second] = await kidsOf(node)
    expect(await kidsOf(node)).toHaveLength(2)
    expect(await signingOf(node)).toBe(first)

    await pass(90 * DAY_MS - 1, node)
    expect(await signingOf(node)).toBe(first)
    const last = await issue(node)
    await pass(1, node)
    expect(await signingOf(node)).toBe(second)
    const [, , third] = await kidsOf(node)
    expect(await kidsOf(node)).toEqual([first, second, third])

    // the last token of the retired key is in force until it expires
    await pass(LIMITS.accessTokenSeconds * 1_000 - 1_000, node)
    expect(await node.tokens.verify(last)).not.toBeNull()
    expect(decodeProtectedHeader(await issue(node)).kid).toBe(second)
    expect(await kidsOf(node)).toContain(first)
    // ten minutes after that the key is gone
    await pass(601_000, node)
    expect(await kidsOf(node)).toContain(first)
    await pass(1_000, node)
    expect(await kidsOf(node)).toEqual([second, third])
    expect(await node.verifying(first!)).toBeNull()

    for (let round = 0; round < 4; round++) {
      const [active, next] = (await kidsOf(node)).slice(-2)
      await pass(90 * DAY_MS, node)
      expect(await signingOf(node)).toBe(next)
      await pass(KEY_SCHEDULE.retired_ms + 1, node)
      expect(await kidsOf(node)).not.toContain(active)
    }
  })

  it('a next key signs only after it was published for a day, so that no node meets it unprepared', async () => {
    const node = await open()
    const [first, second] = await kidsOf(node)
    await query(database.url, `update signing_key set created_at = ${now + 90 * DAY_MS - DAY_MS + 1} where active_at is null`)
    await pass(90 * DAY_MS, node)
    expect(await signingOf(node)).toBe(first)
    await pass(1, node)
    expect(await signingOf(node)).toBe(second)
  })

  it('a node that has not read for a minute takes the tokens of the new key and gives out good ones of the old', async () => {
    const [ahead, behind] = [await open(), await open()]
    await pass(90 * DAY_MS, ahead)
    expect(await signingOf(ahead)).not.toBe(await signingOf(behind))
    expect(await behind.tokens.verify(await issue(ahead))).not.toBeNull()
    const token = await issue(behind)
    await pass(60_000, ahead, behind)
    expect(await signingOf(ahead)).toBe(await signingOf(behind))
    await pass(LIMITS.accessTokenSeconds * 1_000 - 60_000, ahead, behind)
    expect(await ahead.tokens.verify(token)).not.toBeNull()
  })

  it('nodes with the same secrets have the same keys, also when they start together, and a restart keeps them', async () => {
    const started = await Promise.all([open(), open(), open(), open()])
    const kids = await kidsOf(started[0])
    expect(kids).toHaveLength(2)
    for (const node of started) {
      await node.refresh()
      expect(await kidsOf(node)).toEqual(kids)
      expect(await signingOf(node)).toBe(kids[0])
    }
    const token = await issue(started[0])
    for (const node of started) expect(await node.tokens.verify(token)).not.toBeNull()
    await Promise.all(started.map((node) => node.close()))
    const again = await open()
    expect(await kidsOf(again)).toEqual(kids)
    expect(await again.tokens.verify(token)).not.toBeNull()
  })

  it('nodes that rotate together retire one key once', async () => {
    const started = await Promise.all([open(), open(), open(), open()])
    now += 90 * DAY_MS
    await query(database.url, `update test_clock set ms = ${now}`)
    await Promise.all(started.map((node) => node.refresh()))
    const kids = await kidsOf(started[0])
    expect(kids).toHaveLength(3)
    for (const node of started) expect([await kidsOf(node), await signingOf(node)]).toEqual([kids, kids[1]])
  })

  it('other secrets are other keys: the old ones are dropped and verify nothing, on a node that still has them it is told', async () => {
    const told: unknown[] = []
    const before = await open({ logger: { ...silent, error: (object: unknown) => void told.push(object) } as Log })
    const token = await issue(before)
    const kids = await kidsOf(before)
    const after = await open({ secret: nodeCrypto.random(32) })
    expect(await after.tokens.verify(token)).toBeNull()
    expect(await kidsOf(after)).toHaveLength(2)
    for (const kid of await kidsOf(after)) expect(kids).not.toContain(kid)
    expect(told).toEqual([])
    await before.refresh()
    expect(told).toEqual([{ audit: 'signing_keys_replaced', purpose: 'rest' }])
  })

  it('each purpose has keys of its own', async () => {
    const rest = await open()
    const admin = await open({ purpose: 'admin' })
    expect((await kidsOf(rest)).filter((kid) => kid !== undefined)).toHaveLength(2)
    for (const kid of await kidsOf(admin)) expect(await kidsOf(rest)).not.toContain(kid)
    expect(await rest.tokens.verify(await issue(admin))).toBeNull()
    expect(await admin.tokens.verify(await issue(rest))).toBeNull()
  })

  it('an unknown kid is asked of the store, once a second at most, and by all that wait for the same answer', async () => {
    let reads = 0
    const counting: SigningKeyStore = {
      rotateSigningKeys: (...args) => {
        reads++
        return store.rotateSigningKeys(...args)
      },
    }
    const node = await open({ store: counting })
    const started = performance.now()
    let asked = 0
    while (performance.now() - started < 1_500) {
      const unknown = Array.from({ length: 20 }, () => node.verifying(toBase64url(nodeCrypto.random(12))))
      expect(new Set(await Promise.all(unknown))).toEqual(new Set([null]))
      asked += 20
    }
    expect(asked).toBeGreaterThan(100)
    expect(reads).toBeGreaterThanOrEqual(2)
    expect(reads).toBeLessThanOrEqual(2 + Math.floor((performance.now() - started) / 1_000))
  })

  it('a reading that fails leaves the keys in force and is told; the store holds no private key and JWKS gives none', async () => {
    let down = false
    const node = await open({
      store: { rotateSigningKeys: async (...args) => (down ? Promise.reject(new Error('down')) : store.rotateSigningKeys(...args)) },
    })
    const token = await issue(node)
    down = true
    await expect(node.refresh()).rejects.toThrow('down')
    expect(await node.tokens.verify(token)).not.toBeNull()
    down = false
    await node.refresh()

    const jwks = await node.jwks()
    for (const key of jwks.keys)
      expect(key).toEqual({
        kty: 'OKP',
        crv: 'Ed25519',
        alg: 'Ed25519',
        use: 'sig',
        x: expect.stringMatching(/^[\w-]{43}$/),
        kid: kidOf(Buffer.from(key.x!, 'base64url')),
      })
    const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), {
      algorithms: ['Ed25519'],
      currentDate: new Date(now),
    })
    expect(payload.sub).toBe(device.user_id)
    const { rows } = await store.pools.main.query('select to_jsonb(k) as row from signing_key k')
    const signing = await node.signing()
    expect(signing.kid).toBe(jwks.keys[0]!.kid)
    expect(Object.keys(rows[0].row).toSorted()).toEqual(['active_at', 'created_at', 'generation', 'public_key', 'purpose', 'retired_at'])
  })
})
