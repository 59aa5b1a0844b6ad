import { SealpostError, tuple } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { describe, expect, it } from 'vitest'
import { NOW_MS, testDevice } from '@sealpost/testing/clients/honest-events'
import { look } from './repair.ts'
import type { Rest, ServerIdentity } from '../connection/rest.ts'
import { createServerClock } from '../connection/server-clock.ts'
import { createMemoryStore } from '@sealpost/testing/clients/memory-store'
import { createTestAccount, createTestClock, identityOf } from '@sealpost/testing/clients/clock-and-account'

const device = testDevice(1)
const seeds = [3, 4].map((byte) => new Uint8Array(32).fill(byte))
const [known, next] = seeds.map((seed) => nodeCrypto.ed25519Public(seed))

async function lookWith(why: 'auth' | 'identity', rest: Partial<Rest>) {
  const changes: unknown[] = []
  const identity = { ...identityOf(device), server_key: known! }
  const store = createMemoryStore()
  await store.createIdentity(identity, [])
  const found = look(
    {
      crypto: nodeCrypto,
      clock: createTestClock(),
      store,
      account: createTestAccount(device, [device]),
      identity: () => identity,
      rest: () => rest as Rest,
      time: createServerClock(createTestClock()),
      logChanged: () => Promise.resolve(),
      identityChanged: (change) => changes.push(change),
    },
    why,
  )
  return { found: await found, changes }
}

const server = (server_key: Uint8Array, not_before: number): Partial<Rest> => {
  const sig = nodeCrypto.ed25519Sign(seeds[0]!, tuple('server-key', known!, next!, not_before))
  const identity: ServerIdentity = { server_key, chain: [{ key: next!, not_before, sig }] }
  return { readServer: () => Promise.resolve(identity) }
}

describe('looking over REST why a session did not come about', () => {
  it('a key that the chain leads to is taken over; the same key, or one that is not valid yet, is server_identity', async () => {
    expect(await lookWith('identity', server(next!, NOW_MS))).toEqual({ found: 'connect', changes: [{ server_key: next }] })
    expect(await lookWith('identity', server(known!, NOW_MS))).toEqual({ found: 'server_identity', changes: [] })
    expect(await lookWith('identity', server(next!, NOW_MS + 3_600_000))).toEqual({ found: 'server_identity', changes: [] })
  })

  it('an account that was deleted is said to be gone; a server that cannot answer now is asked again', async () => {
    const gone = new SealpostError('account_gone', 'deleted')
    expect((await lookWith('auth', { readLog: () => Promise.reject(gone) })).found).toBe('account_gone')
    expect(
      await lookWith('auth', { readLog: () => Promise.reject(new SealpostError('unavailable', 'later')) }).catch((e: unknown) => e),
    ).toMatchObject({ code: 'unavailable' })
  })
})
