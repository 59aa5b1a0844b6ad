/** Store, gateway and raw clients of one test file, ended after it. */
import { decodeAcks, decodeRecords, type EventRecord } from '@sealpost/protocol'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import type { Store } from '../../../server/src/ports/store.ts'
import { createStore, type PostgresStore } from '../../../server/src/store/store.ts'
import { createAccount, type TestAccount, type TestDevice } from '../clients/store-accounts.ts'
import { useDatabase } from '../components/test-database.ts'
import { type GatewayOptions, startGateway, type TestGateway } from './gateway-server.ts'
import { silent } from './silent-log.ts'
import { connectRaw, makeRecord, type RawClient, type RawEvent, type RawOptions, startRaw } from '../clients/raw-client.ts'

export type Relay = {
  readonly store: PostgresStore
  readonly url: string
  readonly server_key: Uint8Array
  readonly gateway: TestGateway
  account(devices?: number): Promise<TestAccount>
  /** A session of the device that knows the whole log. */
  connect(account: TestAccount, device?: number, options?: Partial<RawOptions>): Promise<Awaited<ReturnType<typeof connectRaw>>>
  /** The options of such a session. */
  options(account: TestAccount, device?: TestDevice, options?: Partial<RawOptions>): RawOptions
  /** Both hellos and nothing more. */
  greet(account: TestAccount, device?: TestDevice): Promise<RawClient>
}

/** `wrap` puts something between gateway and store. */
export function useRelay(options: GatewayOptions = {}, wrap: (store: Store) => Store = (store) => store): Relay {
  const database = useDatabase()
  let store: PostgresStore | undefined
  let gateway: TestGateway | undefined
  const open = new Set<RawClient>()
  const there = <T>(value: T | undefined): T => {
    if (value === undefined) throw new Error('there from the first beforeAll on')
    return value
  }
  beforeAll(async () => {
    store = await createStore({ connection: database.connection, log: silent })
    gateway = await startGateway(wrap(store), options)
  })
  afterEach(async () => {
    await Promise.all([...open].map((client) => client.close()))
    open.clear()
    await expect.poll(() => there(gateway).relay.sessions.size()).toBe(0)
  })
  afterAll(async () => {
    await gateway?.close()
    await store?.close()
  })

  const relay: Relay = {
    get store() {
      return there(store)
    },
    get gateway() {
      return there(gateway)
    },
    get url() {
      return there(gateway).url
    },
    get server_key() {
      return there(gateway).server_key
    },
    account: (devices = 1) => createAccount(there(store), devices),
    options(account, device = account.devices[0], more = {}) {
      const { device_id, sign_seed } = there(device)
      const log_head = account.log_head === null ? null : Buffer.from(account.log_head).toString('base64url')
      return {
        url: relay.url,
        server_key: relay.server_key,
        identity: { user_id: account.user_id, device_id, sign_seed },
        ...more,
        auth: { log_seq: account.log_seq, log_head, ...more.auth },
      }
    },
    async connect(account, device = 0, more = {}) {
      const client = await connectRaw(relay.options(account, account.devices[device], more))
      open.add(client)
      return client
    },
    async greet(account, device) {
      const client = await startRaw(relay.options(account, device))
      open.add(client)
      return client
    },
  }
  return relay
}

/** Records of a device with numbers from `first` on. */
export function makeRecords(client: RawClient, first: number, count: number, event: RawEvent = {}): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => makeRecord(client.identity.device_id, first + i, event))
}

/** Waits until `count` events are acked; their rows in order. */
export async function takeAcks(client: RawClient, count: number): Promise<ReturnType<typeof decodeAcks>> {
  const rows: ReturnType<typeof decodeAcks> = []
  while (rows.length < count) rows.push(...decodeAcks((await client.next('ack')).body))
  return rows
}

/** Waits for `count` live records, and checks that each message continues at the one before. */
export async function takeEvents(client: RawClient, count: number, after: number): Promise<EventRecord[]> {
  const records: EventRecord[] = []
  let at = after
  while (records.length < count) {
    const { head, body } = await client.next('event')
    expect(head.after).toBe(at)
    at = head.upto
    records.push(...decodeRecords(body))
  }
  return records
}
