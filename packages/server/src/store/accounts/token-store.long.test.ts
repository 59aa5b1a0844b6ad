import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createRefreshTokens, hashToken } from '../../http/auth/refresh-tokens.ts'
import type { FamilyRotation } from '../../ports/store.ts'
import { append, createAccount, openSession, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { roundsOf } from '@sealpost/testing/tier'
import { createStore, type PostgresStore } from '../store.ts'

const GRACE_MS = 30_000
const LIFETIME_MS = 30 * 86_400_000
const RULES = { grace_ms: GRACE_MS, lifetime_ms: LIFETIME_MS }

const database = useDatabase()
const refresh_tokens = createRefreshTokens(nodeCrypto.random(32))
/** Two nodes on one database. */
let nodes: [PostgresStore, PostgresStore]

beforeAll(async () => {
  const open = () => createStore({ connection: database.connection, log: silent })
  nodes = [await open(), await open()]
})
afterAll(() => Promise.all(nodes.map((node) => node.close())))

const query = async (text: string, values: unknown[] = []) => (await nodes[0].pools.main.query(text, values)).rows
const ownerOf = (account: TestAccount) => ({ user_id: account.user_id, device_id: account.devices[0]!.device_id })

type Family = { account: TestAccount; family_id: string }

async function startFamily(account: TestAccount): Promise<Family> {
  const family_id = randomUUID()
  const token_hash = hashToken(refresh_tokens.create(ownerOf(account), family_id, 0))
  expect(await nodes[0].startFamily(account.user_no, 1, { family_id, token_hash }, LIFETIME_MS)).not.toBeNull()
  return { account, family_id }
}
const begin = async (): Promise<Family> => startFamily(await createAccount(nodes[0]))

/** Presents the token of that generation. */
function present({ account, family_id }: Family, generation: number, node = nodes[0]): Promise<FamilyRotation> {
  const hash = (at: number) => hashToken(refresh_tokens.create(ownerOf(account), family_id, at))
  const ask = { family_id, generation, token_hash: hash(generation), next_hash: hash(generation + 1) }
  return node.rotateFamily(account.user_no, 1, ask, RULES)
}
const versionOf = async ({ account }: Family) => (await nodes[0].findDevice(account.user_id, account.devices[0]!.device_id))?.token_version
/** As if so much time had gone by since the last rotation. */
const age = ({ account }: Family, ms: number) =>
  query('update refresh_family set rotated_at = rotated_at - $2::int8 where user_no = $1', [account.user_no, ms])

describe('a family of refresh tokens (G23)', () => {
  it('goes on by one generation with each use of the current token', async () => {
    const family = await begin()
    for (let generation = 0; generation < 5; generation++)
      expect(await present(family, generation)).toEqual({ is: 'rotated', generation: generation + 1, token_version: 0 })
  })

  it('a lost answer is given again within 30 s, as often as it is asked for', async () => {
    const family = await begin()
    await present(family, 0)
    await age(family, GRACE_MS - 1_000)
    for (let i = 0; i < 3; i++) expect(await present(family, 0)).toEqual({ is: 'repeated', generation: 1, token_version: 0 })
    expect(await present(family, 1)).toMatchObject({ is: 'rotated', generation: 2 })
  })

  it('a token that comes again after 30 s ends the family, the access tokens and the session of the device', async () => {
    const family = await begin()
    const { user_no } = family.account
    await openSession(nodes[0], user_no, 1)
    await present(family, 0)
    await age(family, GRACE_MS + 1)
    expect(await present(family, 0)).toEqual({ is: 'reused' })
    expect(await versionOf(family)).toBe(1)
    expect(await query('select session_id from device where user_no = $1', [user_no])).toEqual([{ session_id: null }])
    for (const generation of [0, 1, 2]) expect(await present(family, generation)).toEqual({ is: 'unknown' })
    expect(await versionOf(family)).toBe(1)
  })

  it('a token older than the previous one ends them however soon it comes', async () => {
    const family = await begin()
    await present(family, 0)
    await present(family, 1)
    expect(await present(family, 0)).toEqual({ is: 'reused' })
    expect(await present(family, 2)).toEqual({ is: 'unknown' })
    expect(await versionOf(family)).toBe(1)
  })

  it('ends nobody else: neither another device of the account nor another account', async () => {
    const account = await createAccount(nodes[0], 2)
    const family = await startFamily(account)
    const second = { family_id: randomUUID(), token_hash: nodeCrypto.random(32) }
    await nodes[0].startFamily(account.user_no, 2, second, LIFETIME_MS)
    const session_id = await openSession(nodes[0], account.user_no, 2)
    await present(family, 0)
    await present(family, 1)
    expect(await present(family, 0)).toEqual({ is: 'reused' })
    expect(await nodes[0].findDevice(account.user_id, account.devices[1]!.device_id)).toMatchObject({ token_version: 0, session_id })
    const ask = { ...second, generation: 0, next_hash: nodeCrypto.random(32) }
    expect(await nodes[0].rotateFamily(account.user_no, 2, ask, RULES)).toMatchObject({ is: 'rotated' })
  })

  it('a token of a family that was replaced is told as such and ends nothing', async () => {
    const earlier = await begin()
    await present(earlier, 0)
    const family = await startFamily(earlier.account)
    for (const current of [0, 1, 2, 3]) {
      for (const generation of [0, 1, 2, 3, 4]) expect(await present(earlier, generation)).toEqual({ is: 'replaced' })
      expect(await present(family, current)).toMatchObject({ is: 'rotated' })
    }
    expect(await versionOf(family)).toBe(0)
  })

  it('a token with another hash, from a generation to come, or of nobody is unknown and ends nothing', async () => {
    const family = await begin()
    const { user_no } = family.account
    const ask = { family_id: family.family_id, generation: 0, token_hash: nodeCrypto.random(32), next_hash: nodeCrypto.random(32) }
    expect(await nodes[0].rotateFamily(user_no, 1, ask, RULES)).toEqual({ is: 'unknown' })
    expect(await present(family, 7)).toEqual({ is: 'unknown' })
    expect(await nodes[0].rotateFamily(user_no, 2, ask, RULES)).toEqual({ is: 'unknown' })
    expect(await nodes[0].rotateFamily(2 ** 40, 1, ask, RULES)).toEqual({ is: 'unknown' })
    expect(await present(family, 0)).toMatchObject({ is: 'rotated' })
  })

  it('is over when nothing was refreshed for its lifetime, and is swept then, a bounded number at a time', async () => {
    const families = await Promise.all([begin(), begin(), begin()])
    const alive = await begin()
    const ended = families.map(({ account }) => account.user_no)
    await query('update refresh_family set expires_at = clock_ms() where user_no = any($1::int8[])', [ended])
    expect(await present(families[0], 0)).toEqual({ is: 'unknown' })
    expect(await nodes[0].sweepTokens(2)).toBe(2)
    expect(await nodes[0].sweepTokens(2)).toBe(1)
    expect(await nodes[0].sweepTokens(2)).toBe(0)
    expect(await present(alive, 0)).toMatchObject({ is: 'rotated' })
  })

  it('logout ends the family, the access tokens and the session of the device', async () => {
    const family = await begin()
    const { user_no } = family.account
    await openSession(nodes[0], user_no, 1)
    await nodes[0].endFamily(user_no, 1)
    expect(await present(family, 0)).toEqual({ is: 'unknown' })
    expect(await versionOf(family)).toBe(1)
    expect(await query('select session_id from device where user_no = $1', [user_no])).toEqual([{ session_id: null }])
  })

  it('a revoked device and a suspended account have none, and get none (R01)', async () => {
    const account = await createAccount(nodes[0], 2)
    const suspended = await begin()
    const second = account.devices[1]!
    const family_id = randomUUID()
    const token_hash = nodeCrypto.random(32)
    expect(await nodes[0].startFamily(account.user_no, 2, { family_id, token_hash }, LIFETIME_MS)).toEqual({ token_version: 0 })
    await append(nodes[0], account, { type: 'revoke_device', revoked: [{ device_id: second.device_id }] })
    await query('update account set active = false where user_no = $1', [suspended.account.user_no])
    const ask = { family_id, generation: 0, token_hash, next_hash: nodeCrypto.random(32) }
    expect(await nodes[0].rotateFamily(account.user_no, 2, ask, RULES)).toEqual({ is: 'unknown' })
    expect(await nodes[0].startFamily(account.user_no, 2, { family_id, token_hash }, LIFETIME_MS)).toBeNull()
    expect(await present(suspended, 0)).toEqual({ is: 'unknown' })
    expect(await nodes[0].startFamily(suspended.account.user_no, 1, { family_id, token_hash }, LIFETIME_MS)).toBeNull()
  })

  it('what is stored is of no use: no column of any table holds a token, and its hashes are not taken for one', async () => {
    const family = await begin()
    const { account, family_id } = family
    await present(family, 0)
    const owner = ownerOf(account)
    const texts = [0, 1].map((generation) => refresh_tokens.create(owner, family_id, generation))
    const dumped: string[] = []
    for (const { name } of await query(`select table_name as name from information_schema.tables where table_schema = 'public'`))
      for (const { row } of await query(`select to_jsonb(t)::text as row from "${name}" t`)) dumped.push(row)
    const dump = dumped.join('\n')
    expect(dump).toContain(family_id)
    for (const token of texts) {
      expect(refresh_tokens.read(token, owner)).not.toBeNull()
      const bytes = Buffer.from(token, 'base64url')
      for (const form of [token, bytes.toString('hex'), bytes.subarray(20).toString('hex'), bytes.subarray(20).toString('base64url')])
        expect(dump).not.toContain(form)
    }
    const [row] = await query('select token_hash, previous_hash from refresh_family where user_no = $1', [account.user_no])
    for (const hash of [row.token_hash, row.previous_hash]) {
      const head = Buffer.from(texts[1]!, 'base64url').subarray(0, 20)
      expect(refresh_tokens.read(toBase64url(Buffer.concat([head, hash])), owner)).toBeNull()
    }
  })
})

/** Calls that wait until all are there, and are let go together. */
function createBarrier(parties: number): () => Promise<void> {
  let there = 0
  let open = Promise.withResolvers<void>()
  return async () => {
    const mine = open
    if (++there === parties) {
      there = 0
      open = Promise.withResolvers()
      mine.resolve()
    }
    await mine.promise
  }
}

const USERS = 8
const ROUNDS = roundsOf({ quick: 15, system: 125 })

/**
 * USERS accounts side by side, ROUNDS rounds each, two calls on two nodes let go together; in turns one of them is late by up to
 * the time that the other took lately, so that they meet at every point of it and each comes first often.
 */
async function race<A, B>(
  prepare: (account: TestAccount) => Promise<Family>,
  a: (family: Family, round: number) => Promise<A>,
  b: (family: Family, round: number) => Promise<B>,
  judge: (result: [A, B], family: Family, round: number) => Promise<void>,
): Promise<void> {
  const accounts = await Promise.all(Array.from({ length: USERS }, () => createAccount(nodes[0])))
  const families = await Promise.all(accounts.map(prepare))
  const lately = [2, 2]
  await Promise.all(
    families.map(async (family, user) => {
      const meet = createBarrier(2)
      for (let round = 0; round < ROUNDS; round++) {
        const go = async <T>(which: 0 | 1, work: () => Promise<T>): Promise<T> => {
          await meet()
          if ((round + user) % 2 === which) await sleep((lately[1 - which]! * (round % 11)) / 10)
          const began = performance.now()
          const result = await work()
          lately[which] = 0.9 * lately[which]! + 0.1 * (performance.now() - began)
          return result
        }
        await judge(await Promise.all([go(0, () => a(family, round)), go(1, () => b(family, round))]), family, round)
      }
    }),
  )
}

describe(`${USERS * ROUNDS} races each (G23)`, { timeout: 60_000 }, () => {
  it('refresh × refresh: one rotates, the other is told the same generation; never a reuse', async () => {
    const firsts = [0, 0]
    await race(
      startFamily,
      (family, round) => present(family, round, nodes[0]),
      (family, round) => present(family, round, nodes[1]),
      async ([a, b], _, round) => {
        expect([a.is, b.is].toSorted()).toEqual(['repeated', 'rotated'])
        for (const told of [a, b]) expect(told).toMatchObject({ generation: round + 1, token_version: 0 })
        firsts[a.is === 'rotated' ? 0 : 1]!++
      },
    )
    expect(firsts[0]! + firsts[1]!).toBe(USERS * ROUNDS)
    expect(Math.min(...firsts)).toBeGreaterThan(0)
  })

  it('reuse × refresh: the family is dead afterwards, whoever came first', async () => {
    let afterwards = 0
    await race(
      startFamily,
      (family) => present(family, 0, nodes[0]),
      (family) => present(family, 2, nodes[1]),
      async ([reuse, refresh], family, round) => {
        // the first two generations are used up in the round before
        if (round === 0) expect([reuse.is, refresh.is]).toEqual(['rotated', 'unknown'])
        else {
          expect(reuse).toEqual({ is: 'reused' })
          expect(['rotated', 'unknown']).toContain(refresh.is)
          afterwards += refresh.is === 'unknown' ? 1 : 0
          for (const generation of [2, 3]) expect(await present(family, generation)).toEqual({ is: 'unknown' })
          expect(await versionOf(family)).toBe(round)
        }
        family.family_id = (await startFamily(family.account)).family_id
        for (const generation of [0, 1]) await present(family, generation)
      },
    )
    expect(afterwards).toBeGreaterThan(0)
    expect(afterwards).toBeLessThan(USERS * (ROUNDS - 1))
  })

  it('logout × new family: a token that is given out is of the version in force, or logout came last', async () => {
    await race(
      startFamily,
      (family) => nodes[0].endFamily(family.account.user_no, 1),
      async ({ account }) => {
        const token_hash = nodeCrypto.random(32)
        const started = await nodes[1].startFamily(account.user_no, 1, { family_id: randomUUID(), token_hash }, LIFETIME_MS)
        return { token_version: started?.token_version, token_hash }
      },
      async ([, { token_version, token_hash }], family) => {
        const now = await versionOf(family)
        const kept = await query('select from refresh_family where user_no = $1 and token_hash = $2', [family.account.user_no, token_hash])
        expect(kept.length).toBe(token_version === now ? 1 : 0)
        expect([now, now! - 1]).toContain(token_version)
      },
    )
  })
})
