/**
 * A node that is frozen (SIGSTOP: a pause of the garbage collector or of a virtual machine, only longer) and wakes commits nothing on what
 * it remembers: the locked rows decide. FREEZE_S makes it longer than the lease, the timeouts of PostgreSQL and of sockets.
 */
import { decodeAcks, decodeRecords, LIMITS } from '@sealpost/protocol'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { TestAccount } from '@sealpost/testing/clients/store-accounts'
import { useAdminServer } from '@sealpost/testing/relays/admin-server'
import { freshAddress } from '@sealpost/testing/relays/configured-relays'
import { connectRaw, makeRecord, type RawClient } from '@sealpost/testing/clients/raw-client'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { type RedisServer, startRedis } from '@sealpost/testing/components/redis'
import { type Relay, startRelay } from '@sealpost/testing/components/programs'

const FREEZE_MS = Number(process.env['FREEZE_S'] ?? 12) * 1_000

describeWith(['redis-server'], 'a node that was frozen', () => {
  let redis: RedisServer
  let frozen: Relay
  let folder = ''
  const relay = useAdminServer()
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 's-'))
    redis = await startRedis()
    frozen = await startRelay(join(folder, 'data'), {
      DATABASE_URL: relay.database.url,
      SEALPOST_SECRETS_FILE: relay.secrets_file,
      SEALPOST_ADMIN: 'off',
      SEALPOST_TRUSTED_PROXIES: '127.0.0.1',
      REDIS_URL: redis.url,
    })
  })
  afterAll(async () => {
    frozen?.kill('SIGCONT')
    frozen?.kill('SIGTERM')
    await frozen?.ended
    await redis?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  /** The second device of a new account at the node that will be frozen; it sends one event every 10 ms, and takes what is acked. */
  async function sender(): Promise<{
    account: TestAccount
    client: RawClient
    follower: RawClient
    acked: number[]
    sent(): number
    stop(): void
  }> {
    const account = await relay.account(2)
    // live from the first event on
    const follower = await connectRaw({ ...relay.door.raw(account, 0), patience: FREEZE_MS + 30_000 })
    const client = await connectRaw({ ...relay.door.raw(account, 1), url: frozen.url, patience: FREEZE_MS + 30_000 })
    const acked: number[] = []
    const records: Uint8Array[] = []
    const sending = setInterval(() => {
      if (records.length - acked.length >= LIMITS.inflightEventsMax / 2) return
      const record = makeRecord(account.devices[1]!.device_id, records.length + 1, { epoch: account.log_seq })
      records.push(record)
      client.sendRecords(record)
    }, 10)
    void (async () => {
      for (;;) for (const { device_seq } of decodeAcks((await client.next('ack')).body)) acked.push(device_seq)
    })().catch(() => {})
    // a statement whose answer came too late is not known to have committed: the same bytes again
    void (async () => {
      for (;;) for (const record of records.slice((await client.next('nack')).head.expected_device_seq - 1)) client.sendRecords(record)
    })().catch(() => {})
    void client.closed.then(() => clearInterval(sending))
    return { account, client, follower, acked, sent: () => records.length, stop: () => clearInterval(sending) }
  }
  const storedOf = async ({ user_no }: TestAccount): Promise<number[]> =>
    (await relay.sql('select device_seq from event where user_no = $1 order by position', [user_no])).map((row) => Number(row.device_seq))

  it(
    'R01: commits nothing of whom was revoked, suspended, deleted or superseded meanwhile, tells them, and goes on for the others',
    async () => {
      const [revoked, suspended, superseded, deleted, fine] = await Promise.all([sender(), sender(), sender(), sender(), sender()])
      const all = [revoked, suspended, superseded, deleted, fine]
      await expect.poll(() => all.every(({ acked }) => acked.length > 20), { timeout: 15_000 }).toBe(true)
      process.kill(frozen.pid, 'SIGSTOP')
      await sleep(500)

      const { device_id } = revoked.account.devices[1]!
      expect((await relay.door.postEntry(revoked.account, { type: 'revoke_device', revoked: [{ device_id }] })).status).toBe(200)
      await relay.as('operator', 'suspend_user', { params: { user_id: suspended.account.user_id }, json: {} })
      const newer = await connectRaw(relay.door.raw(superseded.account, 1))
      const confirmed = await relay.door.assertion(deleted.account, 0, 'delete-account')
      expect((await relay.door.ask('DELETE', '/api/user', { json: confirmed, from: freshAddress() })).status).toBe(200)
      const decided = [revoked, suspended, superseded, deleted]
      const before = await Promise.all(decided.map(({ account }) => storedOf(account)))
      await sleep(FREEZE_MS)
      // what they sent meanwhile lies in the sockets of the node
      expect(decided.every(({ sent, acked }) => sent() > acked.length + 20)).toBe(true)

      process.kill(frozen.pid, 'SIGCONT')
      const woken = performance.now()
      const codes = await Promise.all(
        decided.map(async ({ client }) => (await Promise.race([client.closed, sleep(15_000, { code: 0 })])).code),
      )
      expect(performance.now() - woken).toBeLessThan(5_000)
      expect(codes).toEqual([4403, 4457, 4409, 4410])
      fine.stop()
      await expect.poll(() => fine.acked.length, { timeout: 20_000 }).toBe(fine.sent())
      expect(await Promise.all(decided.map(({ account }) => storedOf(account)))).toEqual(before)
      expect(before[3]).toEqual([])
      for (const [i, { acked }] of decided.entries()) if (i !== 3) expect(before[i]).toEqual(expect.arrayContaining(acked))

      // the others: all that was acked is stored, in order, and arrives once
      const expected = Array.from({ length: fine.sent() }, (_, i) => i + 1)
      expect([fine.acked, await storedOf(fine.account)]).toEqual([expected, expected])
      const arrived: number[] = []
      while (arrived.length < expected.length)
        arrived.push(...decodeRecords((await fine.follower.next('event')).body).map((record) => record.device_seq))
      expect(arrived).toEqual(expected)
      await Promise.all([newer, fine.client, ...all.map(({ follower }) => follower)].map((client) => client.close()))
    },
    FREEZE_MS + 60_000,
  )
})
