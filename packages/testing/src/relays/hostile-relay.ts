/**
 * A relay in this process whose operator is the attacker: its PostgreSQL can be read, changed and swapped by SQL, its log is
 * kept, and devices are opened and closed around that. One world per test file; every test makes an account of its own.
 */
import { type Notice, Sealpost, type StreamEvent } from '@sealpost/client'
import { openHome } from '@sealpost/client/node'
import { decodeRecords, encodeRecord, type EventRecord, FLAG, fromBase64url, recordBytes, writeRecord } from '@sealpost/protocol'
import { readConfig, type RunningServer, startServer } from '@sealpost/server'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'
import { afterAll, afterEach, beforeAll } from 'vitest'
import { createLog } from '../../../server/src/telemetry/log.ts'
import { createTestDatabase, query, TEST_POSTGRES, type TestDatabase, withDatabase } from '../components/test-database.ts'
import { findFreePort } from '../components/free-port.ts'

export type Seat = {
  readonly name: string
  readonly dir: string
  /** device_id */
  readonly id: string
  /** The open device. */
  readonly device: Sealpost
  /** Notices of the device since it was opened last. */
  readonly notices: readonly Notice[]
  close(): Promise<void>
  open(): Promise<Sealpost>
}

export type RelayWorld = {
  readonly url: string
  readonly folder: string
  readonly database_url: string
  /** Everything the relay logged, at the level debug. */
  log(): string
  sql<R extends object = Record<string, unknown>>(text: string, values?: unknown[]): Promise<R[]>
  stop(): Promise<void>
  start(): Promise<void>
  /** A copy of the database as it is now; the relay is stopped for it and started again. */
  backUp(): Promise<string>
  /** The relay goes on with that copy. `restored`: as a dump restored elsewhere, whose history has another name. */
  swapTo(database_url: string, restored?: boolean): Promise<void>
  create(name: string): Promise<Seat & { recovery_words: string }>
  /** Another device of the account. */
  pair(existing: Seat, name: string): Promise<Seat>
  /** What the operator does to the stored events of an account: each record at `position`, decoded, is replaced by the answer. */
  tamper(user_id: string, position: number, change: (record: EventRecord) => EventRecord): Promise<void>
}

export function useRelayWorld(): RelayWorld {
  let folder = ''
  let database: TestDatabase | undefined
  let database_url = ''
  let server: RunningServer | undefined
  let port = 0
  let log = ''
  let homes = 0
  const made: string[] = []
  let seats: Seat[] = []
  const logger = createLog('debug', { write: (line: string) => (log += line) })

  function makeSeat(name: string, dir: string, first: Sealpost): Seat {
    let device: Sealpost | null = null
    let notices: Notice[] = []
    const take = (opened: Sealpost): Sealpost => {
      notices = []
      opened.on((notice) => notices.push(notice))
      device = opened
      return opened
    }
    take(first)
    const seat: Seat = {
      name,
      dir,
      id: first.device_id,
      get device() {
        if (device === null) throw new Error(`${name} is closed`)
        return device
      },
      get notices() {
        return notices
      },
      async close() {
        await device?.close()
        device = null
      },
      open: async () => take(await Sealpost.open({ home: await openHome(dir) })),
    }
    seats.push(seat)
    return seat
  }

  const world: RelayWorld = {
    get url() {
      return `http://127.0.0.1:${port}`
    },
    get folder() {
      return folder
    },
    get database_url() {
      return database_url
    },
    log: () => log,
    async sql<R extends object>(text: string, values: unknown[] = []) {
      const client = new Client({ connectionString: database_url })
      await client.connect()
      try {
        return (await client.query<R>(text, values)).rows
      } finally {
        await client.end()
      }
    },
    async stop() {
      await server?.stop()
      server = undefined
    },
    async start() {
      port ||= await findFreePort()
      const config = readConfig({
        SEALPOST_ADMIN_PORT: '0',
        SEALPOST_PORT: String(port),
        SEALPOST_DATA: join(folder, 'data'),
        DATABASE_URL: database_url,
      })
      server = await startServer(config, { logger, test: true })
    },
    async backUp() {
      const { url } = JSON.parse(process.env[TEST_POSTGRES] ?? '') as { url: string }
      const from = new URL(database_url).pathname.slice(1)
      const name = `sealpost_copy_${randomBytes(8).toString('hex')}`
      await world.stop()
      await query(url, `create database ${name} template ${from}`)
      made.push(name)
      await world.start()
      return withDatabase(database_url, name)
    },
    async swapTo(to, restored = false) {
      await world.stop()
      database_url = to
      if (restored) await world.sql('update server_meta set store_id = gen_random_uuid()')
      await world.start()
    },
    async create(name) {
      const dir = join(folder, `${++homes}`)
      const { sealpost, recovery_words } = await Sealpost.create({
        home: await openHome(dir),
        server: world.url,
        name,
        device_type: 'desktop',
      })
      return Object.defineProperty(makeSeat(name, dir, sealpost), 'recovery_words', { value: recovery_words }) as Seat & {
        recovery_words: string
      }
    },
    async pair(existing, name) {
      const dir = join(folder, `${++homes}`)
      const home = await openHome(dir)
      const joined = Promise.withResolvers<Sealpost>()
      await existing.device.pair({
        onCode(code) {
          const options = { home, server: world.url, code, name, device_type: 'mobile', confirm: () => Promise.resolve(true) } as const
          Sealpost.join(options).then(joined.resolve, joined.reject)
        },
        confirm: () => Promise.resolve(true),
      })
      return makeSeat(name, dir, await joined.promise)
    },
    async tamper(user_id, position, change) {
      const user = Buffer.from(fromBase64url(user_id, 32))
      const [row] = await world.sql<{ user_no: string; flags: number; record: Buffer }>(
        'select e.user_no, e.flags, e.record from event e join account a using (user_no) where a.user_id = $1 and e.position = $2',
        [user, position],
      )
      if (row === undefined) throw new Error(`no event at ${position}`)
      const stored = recordOf(row.flags, row.record)
      // 4 bytes of length, then flags, then the client part
      const bytes = encodeRecord({ ...change(stored), server: null })
      await world.sql('update event set flags = $3, record = $4 where user_no = $1 and position = $2', [
        row.user_no,
        position,
        bytes[4],
        Buffer.from(bytes.subarray(5)),
      ])
    },
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealpost-world-'))
    database = await createTestDatabase()
    database_url = database.url
    await world.start()
  })
  afterEach(async () => {
    await Promise.all(seats.map((seat) => seat.close()))
    seats = []
  })
  afterAll(async () => {
    await world.stop()
    const { url } = JSON.parse(process.env[TEST_POSTGRES] ?? '') as { url: string }
    for (const name of made) await query(url, `drop database if exists ${name} with (force)`)
    await database?.drop()
    await rm(folder, { recursive: true, force: true })
  })
  return world
}

/** A stored client part as a record. */
export function recordOf(flags: number, client: Uint8Array): EventRecord {
  const out = new Uint8Array(recordBytes(flags & ~FLAG.server, client, NO_SERVER))
  writeRecord(out, 0, flags, client, NO_SERVER)
  const [record] = decodeRecords(out)
  if (record === undefined) throw new Error('not a record')
  return { ...record, server: null }
}

const NO_SERVER = { position: 0, stream_seq: 0, received_at: 0 }

export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Each text as an event, one after the other. */
export async function say(seat: Seat, stream_id: string, ...texts: string[]): Promise<void> {
  const stream = seat.device.stream(stream_id)
  const ids = await stream.enqueue(texts.map((text) => ({ data: bytesOf(text) })))
  await stream.outcome(ids, { signal: AbortSignal.timeout(10_000) })
}

/** What a person sees of it: the text of an event, or what is said in its place. */
export function show(event: StreamEvent): string {
  switch (event.is) {
    case 'event':
      return new TextDecoder().decode(event.data)
    case 'gap':
      return `gap ${event.reason} from ${event.from_device_seq}`
    case 'alarm':
      return `alarm ${event.reason}`
    case 'reset':
      return `reset ${event.reason}`
  }
}

/** What comes in the stream up to the event `last`, included; whatever came when 10 s have passed. */
export async function hear(seat: Seat, stream_id: string, last: string, from: 'last' | 'start' = 'last'): Promise<string[]> {
  const heard: string[] = []
  for await (const event of seat.device.stream(stream_id).events({ from, signal: AbortSignal.timeout(10_000) })) {
    heard.push(show(event))
    if (heard.at(-1) === last) break
  }
  return heard
}

/** What has come and comes within `ms`. */
export async function listen(seat: Seat, stream_id: string, ms: number, from: 'last' | 'start' = 'last'): Promise<string[]> {
  const heard: string[] = []
  for await (const event of seat.device.stream(stream_id).events({ from, signal: AbortSignal.timeout(ms) })) heard.push(show(event))
  return heard
}

/** Waits until `holds` says yes. */
export async function until(holds: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  const end = performance.now() + ms
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${holds.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
