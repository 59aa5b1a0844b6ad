/** Exports alone, on a real store and real sockets, for callers who say themselves who they are; and readers of them. */
import { ROUTES } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Client } from 'pg'
import { createMemoryBus } from '../../../server/src/bus/memory-bus.ts'
import type { Caller } from '../../../server/src/http/call.ts'
import { EXPORT_CONTRACTS } from '../../../server/src/http/export/contracts.ts'
import { createExportRoutes } from '../../../server/src/http/export/routes.ts'
import { createRouter } from '../../../server/src/http/router.ts'
import { createAddressRule } from '../../../server/src/limits/address.ts'
import type { RelayLimits } from '../../../server/src/relay/limits.ts'
import type { Relay } from '../../../server/src/relay/relay.ts'
import { createStore, type PostgresStore } from '../../../server/src/store/store.ts'
import { makeEvent, type TestAccount } from '../clients/store-accounts.ts'
import { silent } from './silent-log.ts'
import { openRelay } from './leased-relay.ts'

export type ExportServer = { store: PostgresStore; relay: Relay; port: number; close(): Promise<void> }

export async function startExportServer(url: string, limits: Partial<RelayLimits> = {}): Promise<ExportServer> {
  const store = await createStore({ connection: { connectionString: url }, log: silent })
  const bus = createMemoryBus()
  const relay = await openRelay({ store, bus, token_key: nodeCrypto.random(32), logger: silent, limits })
  const app = createRouter<Caller>({
    // a list of routes has one with a body
    routes: { export_user: { ...ROUTES.export_user, bodyBytesMax: 1 } },
    contracts: EXPORT_CONTRACTS,
    answers: createExportRoutes({ store, server_key: nodeCrypto.random(32), limits: relay.rates, relay, logger: silent }),
    admit: async (_, { authorization = '' }) => ({ caller: JSON.parse(Buffer.from(authorization, 'base64url').toString()) as Caller }),
    addresses: createAddressRule(['127.0.0.1']),
    overloaded: () => null,
    takeAddress: async () => null,
    logger: silent,
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  return {
    store,
    relay,
    port,
    async close() {
      await relay.drain()
      await app.close()
      await relay.close()
      await store.close()
      await bus.close()
    },
  }
}

/** As a token would say it. */
export function callerOf({ user_no, user_id, devices }: TestAccount, device = 0, lives_ms = 600_000): Caller {
  const device_id = devices[device]?.device_id ?? ''
  return { user_no, device_no: device + 1, user_id, device_id, token_version: 0, token_expires_at: Date.now() + lives_ms }
}

/** An answer of which nothing was read yet. */
export async function askForExport(port: number, caller: Caller, address?: string): Promise<IncomingMessage> {
  const authorization = Buffer.from(JSON.stringify(caller)).toString('base64url')
  const headers = { authorization, ...(address === undefined ? {} : { 'x-forwarded-for': address }) }
  const asked = request({ port, path: '/api/user/export', agent: false, headers }).end()
  asked.on('error', () => {})
  const [response] = (await once(asked, 'response')) as [IncomingMessage]
  response.on('error', () => {})
  return response
}

export type Read = { bytes: number; last_ms: number; whole: boolean }

/** Reads to the end, pausing after each piece; `last_ms`: when the last piece came, by `performance.now()`. */
export async function readSlowly(response: IncomingMessage, pause_ms: number): Promise<Read> {
  const read = { bytes: 0, last_ms: performance.now() }
  response.on('data', (piece: Buffer) => {
    read.bytes += piece.length
    read.last_ms = performance.now()
    if (pause_ms === 0) return
    response.pause()
    setTimeout(() => response.resume(), pause_ms)
  })
  // one that was broken off tells an error before it is closed
  if (!response.closed) await new Promise((resolve) => response.once('close', resolve))
  return { ...read, whole: response.complete }
}

/** Stores `count` times the same event of the first device: nothing looks into it but devices. */
export async function fillEvents(url: string, { user_no, log_seq }: TestAccount, count: number, payload_bytes: number): Promise<void> {
  const { client: record, flags } = makeEvent(1, { payload: nodeCrypto.random(payload_bytes), epoch: log_seq })
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    await client.query({ text: `insert into stream (user_no, stream_no, stream_id) values ($1, 1, 'main')`, values: [user_no] })
    await client.query({
      text: `insert into event (user_no, position, stream_seq, device_seq, received_at, stream_no, device_no, flags, record)
        select $1, n, n, n, clock_ms(), 1, 1, $3, $4 from generate_series(1, $2::int8) n`,
      values: [user_no, count, flags, record],
    })
    await client.query({
      text: `insert into head as h (user_no, stream_no, last, bytes) select $1, s, $2::int8, $2::int8 * $3::int8 from generate_series(0, 1) s
        on conflict (user_no, stream_no) do update set last = excluded.last, bytes = excluded.bytes`,
      values: [user_no, count, record.length],
    })
    await client.query({ text: 'update device set last_seq = $2 where user_no = $1 and device_no = 1', values: [user_no, count] })
  } finally {
    await client.end()
  }
}
