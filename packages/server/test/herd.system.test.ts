/**
 * Many come at once (R12): at the door as many come in as the rate says and the others are told when to come again; behind it those that
 * catch up leave room for whoever comes. How it is counted is in `relay/load/admission.test.ts` and `relay/replay/pages.test.ts`.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { RELAY_LIMITS } from '../src/relay/limits.ts'
import { freshAddress, useDoors } from '@sealpost/testing/relays/configured-relays'
import { makeRecords, takeAcks, useRelay } from '@sealpost/testing/relays/socket-relay'

describe('at the door', () => {
  const doors = useDoors()
  const RATE = 20

  it('R12: of three times the rate as many as the rate come in at once; the others are told when, and are in when they come then', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_HANDSHAKES: `${RATE}` })
    const began = performance.now()
    const tries: number[] = []
    const admitted: number[] = []
    async function come(): Promise<void> {
      for (let tried = 1; ; tried++) {
        const { status, headers, body } = await door.upgrade(freshAddress())
        if (status === 101) {
          tries.push(tried)
          return void admitted.push(performance.now() - began)
        }
        const problem = JSON.parse(body)
        expect([status, headers['content-type']]).toEqual([503, 'application/problem+json'])
        expect(problem).toMatchObject({ type: 'urn:sealpost:problem:overloaded', status: 503, code: 'overloaded' })
        expect(problem.request_id).toBe(headers['x-request-id'])
        expect(headers['retry-after']).toBe(`${Math.ceil(problem.retry_after_ms / 1_000)}`)
        // two rates wait: two seconds, and one of jitter
        expect(problem.retry_after_ms).toBeLessThan(3_500)
        await sleep(problem.retry_after_ms)
      }
    }
    await Promise.all(Array.from({ length: 3 * RATE }, come))
    expect(tries.filter((tried) => tried === 1).length).toBeGreaterThanOrEqual(RATE)
    for (const [i, at] of admitted.entries()) expect(i + 1).toBeLessThanOrEqual(RATE * (at / 1_000 + 1) + 1)
    expect(admitted.at(-1)).toBeLessThan(8_000)
    expect(Math.max(...tries)).toBeLessThanOrEqual(4)
  })

  it('R12: one address that asks above its own rate takes no room from the others', async () => {
    const door = await doors.open({ SEALPOST_LIMIT_HANDSHAKES: '4', SEALPOST_LIMIT_HANDSHAKE_ADDRESS: '1' })
    const crowd = freshAddress()
    const answers = await Promise.all(Array.from({ length: 40 }, () => door.upgrade(crowd)))
    const count = (code: number): number => answers.filter(({ status }) => status === code).length
    expect([count(101), count(429)]).toEqual([1, 39])
    const others = await Promise.all(Array.from({ length: 3 }, () => door.upgrade(freshAddress())))
    expect(others.map(({ status }) => status)).toEqual([101, 101, 101])
  })
})

describe('behind it', () => {
  const PAGE_MS = 200
  const reading = { now: 0, most: 0, done: 0 }
  const relay = useRelay({}, (inner) => ({
    ...inner,
    now: inner.now,
    get history_id() {
      return inner.history_id
    },
    async readPage(request) {
      reading.now += 1
      reading.most = Math.max(reading.most, reading.now)
      try {
        // slow where it counts: with a connection to the database in hand
        await relay.store.pools.main.query('select pg_sleep($1)', [PAGE_MS / 1_000])
        return await inner.readPage(request)
      } finally {
        reading.now -= 1
        reading.done += 1
      }
    },
  }))

  it('a handshake does not wait behind 50 devices that catch up', async () => {
    const accounts = await Promise.all(Array.from({ length: 10 }, () => relay.account(6)))
    await Promise.all(
      accounts.map(async (account) => {
        const sender = await relay.connect(account, 5)
        sender.sendRecords(...makeRecords(sender, 1, 1, { epoch: account.log_seq }))
        await takeAcks(sender, 1)
      }),
    )
    const behind = await Promise.all(accounts.flatMap((account) => [0, 1, 2, 3, 4].map((device) => relay.connect(account, device))))
    const pages = behind.map((client) => client.replay())
    await expect.poll(() => reading.now, { interval: 5 }).toBe(RELAY_LIMITS.pageReadsMax)
    const newcomer = await relay.account()
    for (let i = 0; i < 5; i++) {
      const began = performance.now()
      const client = await relay.connect(newcomer)
      // behind all of them it would be 2.5 s
      expect(performance.now() - began).toBeLessThan(1_000)
      await client.close()
    }
    expect(reading.done).toBeLessThan(behind.length)
    expect((await Promise.all(pages)).map(({ records }) => records.length)).toEqual(behind.map(() => 1))
    expect(reading.most).toBe(RELAY_LIMITS.pageReadsMax)
  })
})
