import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { nodeCrypto } from '@sealpost/protocol/node'
import { append, createAccount, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import {
  askForExport,
  callerOf,
  type ExportServer,
  fillEvents,
  readSlowly,
  startExportServer,
} from '@sealpost/testing/relays/export-server'

const PAYLOAD = 262_144
const STALLED_MS = 1_500
const limits = { outboundHighBytes: 64 * 1_024, outboundLowBytes: 16 * 1_024, tickMs: 50 }

const database = useDatabase()
const open = new Set<IncomingMessage>()
let patient: ExportServer
let impatient: ExportServer

beforeAll(async () => {
  patient = await startExportServer(database.url, limits)
  impatient = await startExportServer(database.url, { ...limits, stalledMs: STALLED_MS })
})
afterEach(() => {
  for (const response of open) response.destroy()
  open.clear()
})
afterAll(() => Promise.all([patient, impatient].map((server) => server?.close())))

async function ask(server: ExportServer, ...who: [caller: ReturnType<typeof callerOf>, address?: string]): Promise<IncomingMessage> {
  const response = await askForExport(server.port, ...who)
  open.add(response)
  return response
}

async function large(devices: number, megabytes: number): Promise<TestAccount> {
  const account = await createAccount(patient.store, devices)
  await fillEvents(database.url, account, megabytes * 4, PAYLOAD)
  return account
}

describe('who reads', () => {
  it('R12: nothing is cut off and gives its seat back, so that nobody keeps all others out', async () => {
    const accounts = await Promise.all(Array.from({ length: 8 }, () => large(1, 12)))
    const other = await createAccount(patient.store)
    const stuck = await Promise.all(accounts.map((account, i) => ask(impatient, callerOf(account), `192.0.2.${i}`)))
    expect(stuck.map((response) => response.statusCode)).toEqual(stuck.map(() => 200))
    const refused = await ask(impatient, callerOf(other), '192.0.2.9')
    expect(refused).toMatchObject({ statusCode: 503, headers: { 'retry-after': '10' } })
    await expect.poll(async () => (await ask(impatient, callerOf(other), '192.0.2.9')).statusCode, { timeout: 5_000 }).toBe(200)
    await expect.poll(() => impatient.relay.outbound.bytes, { timeout: 10_000 }).toBe(0)
    for (const response of stuck) expect((await readSlowly(response, 0)).whole).toBe(false)
  })

  it('slowly has all of it, also when it takes longer than a stall may', async () => {
    const account = await large(1, 12)
    const began = performance.now()
    const read = await readSlowly(await ask(impatient, callerOf(account)), 8)
    expect(read).toMatchObject({ whole: true })
    expect(read.bytes).toBeGreaterThan(12 * 1_048_576)
    expect(performance.now() - began).toBeGreaterThan(STALLED_MS)
  })

  it('R12: from one address at most two, however many accounts', async () => {
    const accounts = await Promise.all(Array.from({ length: 3 }, () => large(1, 12)))
    const asked = async (i: number, address: string) => (await ask(patient, callerOf(accounts[i]!), address)).statusCode
    expect(await asked(0, '192.0.2.1')).toBe(200)
    expect(await asked(1, '192.0.2.1')).toBe(200)
    expect(await asked(2, '192.0.2.1')).toBe(429)
    expect(await asked(0, '192.0.2.2')).toBe(429)
    expect(await asked(2, '192.0.2.2')).toBe(200)
  })
})

describe('R01, C4: an export in the middle ends within a second', { timeout: 60_000 }, () => {
  let account: TestAccount
  beforeAll(async () => {
    account = await large(6, 48)
  })

  async function tokenFamily(device_no: number): Promise<{ rotate(generation: number): Promise<unknown> }> {
    const { store } = patient
    const family_id = randomUUID()
    const hashes = [0, 1, 2].map(() => nodeCrypto.random(32))
    await store.startFamily(account.user_no, device_no, { family_id, token_hash: hashes[0]! }, 600_000)
    return {
      rotate: (generation) => {
        const ask = { family_id, generation, token_hash: hashes[generation]!, next_hash: hashes[generation + 1]! }
        return store.rotateFamily(account.user_no, device_no, ask, { grace_ms: 0, lifetime_ms: 600_000 })
      },
    }
  }

  const ends: Record<string, (device: number) => Promise<unknown>> = {
    'the device is revoked': (device) =>
      append(patient.store, account, { type: 'revoke_device', revoked: [{ device_id: account.devices[device]!.device_id }] }),
    'the device logs out': (device) => patient.store.endFamily(account.user_no, device + 1),
    'a refresh token is used twice': async (device) => {
      const family = await tokenFamily(device + 1)
      await family.rotate(0)
      await family.rotate(1)
      expect(await family.rotate(0)).toEqual({ is: 'reused' })
    },
    'the device is suspended': (device) => patient.store.suspendDevice(account.user_id, account.devices[device]!.device_id, true),
    'the account is deleted': () => patient.store.deleteAccount(account.user_id, null),
  }
  // the revocation takes a device out of the list
  const order: [name: string, device: number][] = [
    ['the device logs out', 1],
    ['a refresh token is used twice', 2],
    ['the device is suspended', 3],
    ['the device is revoked', 5],
    ['the account is deleted', 0],
  ]

  it.each(order)('when %s', async (name, device) => {
    const reading = readSlowly(await ask(patient, callerOf(account, device)), 4)
    await sleep(300)
    await ends[name]!(device)
    const ended = performance.now()
    const read = await reading
    expect(read.whole).toBe(false)
    expect(read.last_ms - ended).toBeLessThan(1_000)
    expect(performance.now() - ended).toBeLessThan(2_000)
  })

  it('when the token ends; and none begins with one that has ended', async () => {
    const own = await large(1, 48)
    const began = performance.now()
    const read = await readSlowly(await ask(patient, callerOf(own, 0, 600)), 4)
    expect(read.whole).toBe(false)
    expect(read.bytes).toBeGreaterThan(0)
    expect(read.last_ms - began).toBeLessThan(1_600)
    expect((await ask(patient, callerOf(own, 0, -1))).statusCode).toBe(401)
  })

  it('when the relay is drained, after the time that is given to all', async () => {
    const own = await large(1, 48)
    const server = await startExportServer(database.url, { ...limits, drainSpreadMs: 0, drainMs: 300 })
    const reading = readSlowly(await ask(server, callerOf(own)), 4)
    await sleep(100)
    const began = performance.now()
    await server.close()
    expect(performance.now() - began).toBeLessThan(2_000)
    expect((await reading).whole).toBe(false)
  })
})
