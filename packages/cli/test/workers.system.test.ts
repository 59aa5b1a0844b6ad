/**
 * `sealpost serve --workers`: several processes as one relay, on one machine and without Redis (docs/operations/workers.md). Everything here
 * is real: processes, sockets, PostgreSQL. A relay of these tests has a process group of its own, as one in a terminal has.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Sealpost } from '@sealpost/client'
import { openHome } from '@sealpost/client/node'
import { fromBase64url } from '@sealpost/protocol'
import { Client } from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createStore, type PostgresStore } from '../../server/src/store/store.ts'
import { createAccount, makeAccount, makeDevice, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { createTestDatabase, type TestDatabase } from '@sealpost/testing/components/test-database'
import { createDoor, type Door, freshAddress } from '@sealpost/testing/relays/configured-relays'
import { silent } from '@sealpost/testing/relays/silent-log'
import { connectRaw, makeRecord, type RawClient } from '@sealpost/testing/clients/raw-client'
import { makeRecords, takeAcks, takeEvents } from '@sealpost/testing/relays/socket-relay'
import { type Ended, type Program, ROOT, startSealpost } from '@sealpost/testing/components/programs'

type Relay = Program & { door: Door; data: string }

/** As a relay from a clone has it: many processes start here. */
const CACHE = { NODE_COMPILE_CACHE: join(ROOT, 'node_modules', '.cache', 'compiled') }
const START_MS = 60_000

let folder = ''
let database: TestDatabase
let store: PostgresStore
let sql: Client
const open = new Set<RawClient>()
const started = new Set<Program>()

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
  database = await createTestDatabase()
  store = await createStore({ connection: database.connection, log: silent })
  sql = new Client(database.connection)
  await sql.connect()
})
afterEach(async () => {
  await Promise.all([...open].map((client) => client.close()))
  open.clear()
})
afterAll(async () => {
  for (const program of started) program.kill('SIGKILL')
  await Promise.all([...started].map((program) => program.ended))
  await sql.end()
  await store.close()
  await database.drop()
  await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
})

/** On the database of this file, or with `DATABASE_URL` empty on an embedded one. */
async function startRelay(workers: number, env: NodeJS.ProcessEnv = {}): Promise<Relay> {
  const data = join(folder, env['DATABASE_URL'] === '' ? 'embedded' : env['DATABASE_URL'] === undefined ? 'data' : 'other')
  const standard = { DATABASE_URL: database.url, SEALPOST_ADMIN: 'off', SEALPOST_LOG_LEVEL: 'error', SEALPOST_TRUSTED_PROXIES: '127.0.0.1' }
  const args = ['serve', '--workers', String(workers), '--port', '0', '--data', data]
  const program = startSealpost(args, { env: { ...CACHE, ...standard, ...env }, ms_max: 240_000 })
  started.add(program)
  const [, url = '', key = ''] = await program.printed(/--server "(http:\S+)\/#([\w-]{43})"/, START_MS)
  return { ...program, data, door: createDoor({ url, server_key: fromBase64url(key, 32) }) }
}

/** Nothing of a process that is gone. */
function look(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch {
    return ''
  }
}

/** A process and all below it. */
function familyOf(pid: number): number[] {
  const children = look(pid, `task/${pid}/children`).split(' ').filter(Boolean).map(Number)
  return [pid, ...children.flatMap(familyOf)]
}

function workersOf({ pid }: Program): number[] {
  return familyOf(pid).filter((one) => look(one, 'cmdline').includes('workers/worker.'))
}

/** Of these, those that still run. */
const left = (pids: readonly number[]): number[] => pids.filter((pid) => /\) [^Z] /.test(look(pid, 'stat')))

async function connect(relay: Relay, account: TestAccount, device = 0): Promise<RawClient> {
  const client = await connectRaw(relay.door.raw(account, device))
  open.add(client)
  return client
}

/** The process that has the session of a device. */
async function pidOf(account: TestAccount, device: number): Promise<number> {
  const { rows } = await sql.query<{ figures: string }>(
    `select n.figures from device d join node n on n.node_no = d.session_node where d.user_no = $1 and d.device_id = $2`,
    [account.user_no, account.devices[device]?.device_id],
  )
  return (JSON.parse(rows[0]?.figures ?? '{}') as { pid: number }).pid
}

/** Sessions of the first devices of an account, each at another worker than the others. */
async function connectApart(relay: Relay, account: TestAccount, devices: number): Promise<RawClient[]> {
  const clients: RawClient[] = []
  const pids = new Set<number>()
  for (let device = 0; device < devices; device++) {
    for (let attempt = 0; ; attempt++) {
      expect(attempt).toBeLessThan(50)
      const client = await connect(relay, account, device)
      const pid = await pidOf(account, device)
      if (!pids.has(pid)) {
        pids.add(pid)
        clients.push(client)
        break
      }
      await client.close()
    }
  }
  return clients
}

const percentile = (values: readonly number[], part: number): number =>
  values.toSorted((x, y) => x - y)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? Number.NaN

describe('three workers', { timeout: 120_000 }, () => {
  let relay!: Relay
  beforeAll(async () => {
    relay = await startRelay(3)
  }, 2 * START_MS)
  afterAll(async () => {
    relay?.kill('SIGTERM')
    await relay?.ended
  })

  it('are three nodes, and what a device sends at one arrives at the others at once, in order, each once', async () => {
    expect(workersOf(relay)).toHaveLength(3)
    expect(await relay.door.ask('GET', '/readyz')).toMatchObject({ body: { status: 'ready' } })
    const account = await createAccount(store, 3)
    const clients = await connectApart(relay, account, 3)
    const [sender, ...receivers] = clients as [RawClient, RawClient, RawClient]
    const waits: number[] = []
    for (let i = 1; i <= 50; i++) {
      const began = performance.now()
      sender.sendRecords(makeRecord(sender.identity.device_id, i, { epoch: account.log_seq }))
      await Promise.all(
        receivers.map(async (receiver) => {
          await takeEvents(receiver, 1, i - 1)
          waits.push(performance.now() - began)
        }),
      )
    }
    // the rounds that compare with the store take two seconds
    expect(percentile(waits, 0.5)).toBeLessThan(1_000)
  })

  it('carry bursts of large events from one to the other, all of them', async () => {
    const account = await createAccount(store, 2)
    const [sender, receiver] = (await connectApart(relay, account, 2)) as [RawClient, RawClient]
    const payload = new Uint8Array(50_000)
    for (let first = 1; first <= 200; first += 10)
      sender.sendRecords(...makeRecords(sender, first, 10, { epoch: account.log_seq, payload }))
    const records = await takeEvents(receiver, 200, 0)
    expect(records.map(({ device_seq }) => device_seq)).toEqual(Array.from({ length: 200 }, (_, i) => i + 1))
  })

  it('show one presence, which follows a device from one to the other at once', async () => {
    const account = await createAccount(store, 2)
    const [laptop, phone] = (await connectApart(relay, account, 2)) as [RawClient, RawClient]
    const says = async (online: boolean): Promise<void> => {
      const { device_id } = phone.identity
      await laptop.next('presence', ({ head }) => head.devices.some((one) => one.device_id === device_id && one.online === online))
    }
    await says(true)
    const waits: number[] = []
    for (let next: RawClient | null = phone; waits.length < 5; next = await connect(relay, account, 1)) {
      if (next !== phone) await says(true)
      const began = performance.now()
      await next.close()
      await says(false)
      waits.push(performance.now() - began)
    }
    // the rounds of presence come every 4 s
    expect(percentile(waits, 0.5)).toBeLessThan(1_000)
  })

  it('R01: a revocation that one takes closes sockets of the others at once', async () => {
    const account = await createAccount(store, 8)
    const clients: RawClient[] = []
    for (let device = 1; device < 8; device++) clients.push(await connect(relay, account, device))
    const waits: number[] = []
    for (const client of clients.reverse()) {
      const began = performance.now()
      const revoked = [{ device_id: client.identity.device_id }]
      const closed = client.closed.then(({ code }) => [code, performance.now() - began] as const)
      const { status } = await relay.door.postEntry(account, { type: 'revoke_device', revoked })
      account.devices.pop()
      const [code, ms] = await closed
      expect([code, status]).toEqual([4403, 200])
      waits.push(ms)
    }
    // two of three are at another worker than the request
    expect(percentile(waits, 0.5)).toBeLessThan(1_000)
  })

  it('R12: a limit holds for all of them together', async () => {
    const from = freshAddress()
    const create = (): Promise<{ status: number }> =>
      relay.door.postEntry(makeAccount(), { type: 'genesis', device: makeDevice() }, { from })
    const answers = await Promise.all(Array.from({ length: 25 }, create))
    expect(answers.map(({ status }) => status).filter((status) => status === 200)).toHaveLength(10)
    expect(answers.map(({ status }) => status).filter((status) => status === 429)).toHaveLength(15)
  })

  it('one that is killed under load is started again; its devices go to the others and catch up, and nothing acked is lost', async () => {
    const lines = Array.from({ length: 400 }, (_, i) => `line ${i}`)
    const { laptop, phone, close } = await pairDevices(relay)
    try {
      const heard: string[] = []
      const ending = AbortSignal.timeout(60_000)
      const hearing = (async () => {
        for await (const event of phone.stream('lines').events({ from: 'start', signal: ending })) {
          heard.push(event.is === 'event' ? new TextDecoder().decode(event.data) : event.is)
          if (heard.length === lines.length) return
        }
      })()
      const before = workersOf(relay)
      const sending = (async () => {
        for (let i = 0; i < lines.length; i += 4) {
          const data = lines.slice(i, i + 4).map((line) => ({ data: new TextEncoder().encode(line) }))
          await laptop.stream('lines').outcome(await laptop.stream('lines').enqueue(data), { signal: ending })
        }
      })()
      for (const pid of before.slice(0, 2)) {
        await sleep(200)
        process.kill(pid, 'SIGKILL')
      }
      await Promise.all([sending, hearing])
      expect(heard).toEqual(lines)
      await expect.poll(() => workersOf(relay).length, { timeout: 20_000 }).toBe(3)
      expect(workersOf(relay).filter((pid) => before.includes(pid))).toHaveLength(1)
      await expect.poll(async () => (await relay.door.ask('GET', '/readyz')).status).toBe(200)
    } finally {
      await close()
    }
  })

  it('R07: SIGTERM to all processes under load: every session is told to go, all that was acked is stored, no process is left, 0', async () => {
    const accounts = await Promise.all(Array.from({ length: 6 }, () => createAccount(store, 1)))
    const senders = await Promise.all(accounts.map((account) => connect(relay, account)))
    const loads = senders.map((sender, i) => sendUntilClosed(sender, accounts[i] as TestAccount))
    await sleep(500)
    const family = familyOf(relay.pid)
    expect(family).toHaveLength(4)
    relay.kill('SIGTERM')
    const { code } = await relay.ended
    expect(code).toBe(0)
    expect(left(family)).toEqual([])
    for (const [i, load] of loads.entries()) {
      const { acked, closed } = await load
      expect([closed.code, acked.length > 0]).toEqual([1001, true])
      const { rows } = await sql.query<{ seq: number }>('select device_seq::int4 as seq from event where user_no = $1', [
        accounts[i]?.user_no,
      ])
      const stored = new Set(rows.map(({ seq }) => seq))
      expect(acked.filter((seq) => !stored.has(seq))).toEqual([])
    }
    // those that were killed in other tests could not give theirs back
    const { rows } = await sql.query<{ pid: number }>(`select (figures::json ->> 'pid')::int4 as pid from node`)
    expect(rows.filter(({ pid }) => family.includes(pid))).toEqual([])
  })
})

describe('a worker that still starts when all are told to stop', { timeout: 120_000 }, () => {
  it('gives up and ends in good order: no node is left behind', async () => {
    const own = await createTestDatabase()
    const relay = await startRelay(2, { DATABASE_URL: own.url })
    const [killed = 0, other = 0] = workersOf(relay)
    process.kill(killed, 'SIGKILL')
    await expect.poll(() => workersOf(relay).filter((pid) => pid !== other && pid !== killed), { timeout: 20_000 }).toHaveLength(1)
    const starting = workersOf(relay).find((pid) => pid !== other) as number
    process.kill(starting, 'SIGSTOP')
    process.kill(relay.pid, 'SIGTERM')
    await expect.poll(() => left([other]), { timeout: 20_000 }).toEqual([])
    process.kill(starting, 'SIGCONT')
    const { code, stderr } = await relay.ended
    expect([code, stderr.match(/"pid":\d+,"code":.*/g)]).toEqual([0, [expect.stringContaining('SIGKILL')]])
    const client = new Client(own.connection)
    await client.connect()
    const { rows } = await client.query<{ pid: number }>(`select (figures::json ->> 'pid')::int4 as pid from node`)
    await client.end()
    await own.drop()
    expect(rows).toEqual([{ pid: killed }])
  })
})

describe('workers over an embedded PostgreSQL', { timeout: 120_000 }, () => {
  const embedded = { DATABASE_URL: '' }

  it('SIGUSR1 opens the inspector of no process, and all go on', async () => {
    const relay = await startRelay(2)
    const family = familyOf(relay.pid)
    expect(family.length).toBeGreaterThanOrEqual(3)
    for (const pid of family) process.kill(pid, 'SIGUSR1')
    for (let i = 0; i < 4; i++) expect((await fetch(`${relay.door.url}/readyz`)).status).toBe(200)
    // what opens it is another thread
    await sleep(500)
    expect(familyOf(relay.pid)).toEqual(family)
    relay.kill('SIGTERM')
    expect(await relay.ended).toMatchObject({ code: 0, stderr: '' })
  })

  it('end by one Ctrl-C to all of them with 0, and with SIGKILL to the first process too; none is left, nor PostgreSQL', async () => {
    const first = await startRelay(2, embedded)
    const family = familyOf(first.pid)
    expect(workersOf(first)).toHaveLength(2)
    first.kill('SIGINT')
    expect((await first.ended).code).toBe(0)
    expect(left(family)).toEqual([])

    const second = await startRelay(2, embedded)
    const again = familyOf(second.pid)
    process.kill(second.pid, 'SIGKILL')
    expect((await second.ended).signal).toBe('SIGKILL')
    await expect.poll(() => left(again), { timeout: 10_000 }).toEqual([])
  })

  it('a second Ctrl-C ends all of them at once, with 130', async () => {
    const relay = await startRelay(2, { ...embedded, SEALPOST_DRAIN_NOTICE_S: '15' })
    const family = familyOf(relay.pid)
    relay.kill('SIGINT')
    relay.kill('SIGTERM')
    await expect.poll(async () => (await relay.door.ask('GET', '/readyz')).status, { timeout: 10_000 }).toBe(503)
    // within a second it is the same one
    await sleep(1_100)
    expect(left(workersOf(relay))).toHaveLength(2)
    relay.kill('SIGINT')
    expect((await relay.ended).code).toBe(130)
    await expect.poll(() => left(family), { timeout: 10_000 }).toEqual([])
  })

  it('one that is frozen holds a stop up for its time and no longer, and PostgreSQL ends in good order after it', async () => {
    const relay = await startRelay(2, { ...embedded, SEALPOST_STOP_S: '2' })
    const family = familyOf(relay.pid)
    const [frozen = 0] = workersOf(relay)
    process.kill(frozen, 'SIGSTOP')
    const began = performance.now()
    process.kill(relay.pid, 'SIGTERM')
    const { code, stderr } = await relay.ended
    // it would be frozen for ever
    expect(performance.now() - began).toBeLessThan(15_000)
    expect([code, stderr]).toEqual([1, expect.stringContaining('a worker did not stop in time')])
    expect(left(family)).toEqual([])
  })

  it('a start fails as a whole, as that of one process: a port that is taken, another key, a number that is none', async () => {
    const start = async (...args: string[]): Promise<Ended> => {
      const standard = { env: { ...CACHE, SEALPOST_ADMIN: 'off', SEALPOST_LOG_LEVEL: 'error' } }
      const program = startSealpost(['serve', '--data', join(folder, 'embedded'), ...args], standard)
      started.add(program)
      return program.ended
    }
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    const { port } = taken.address() as AddressInfo
    const refused = await start('--workers', '3', '--port', String(port))
    taken.close()
    expect([refused.code, refused.stdout.toString()]).toEqual([3, ''])
    expect(refused.stderr).toMatch(`port ${port} of 127.0.0.1 is taken`)

    const foreign = await createTestDatabase()
    const client = new Client(foreign.connection)
    await client.connect()
    await client.query('update server_meta set server_key_hash = $1', [createHash('sha256').update('another').digest()])
    await client.end()
    expect((await start('--workers', '2', '--port', '0', '--database-url', foreign.url)).code).toBe(5)
    await foreign.drop()

    const mistaken = await start('--workers', 'all')
    expect([mistaken.code, mistaken.stderr]).toEqual([2, expect.stringContaining('--workers: expected a whole number from 1 to 256')])
  })

  it('the relay ends with an error when a worker ends again and again', async () => {
    const relay = await startRelay(2, { ...embedded, SEALPOST_LOG_LEVEL: 'silent' })
    const family = familyOf(relay.pid)
    const killed = new Set<number>()
    const isOver = (): Promise<boolean> => Promise.race([relay.ended.then(() => true), sleep(20, false)])
    while (!(await isOver())) {
      for (const pid of workersOf(relay).filter((one) => !killed.has(one))) {
        process.kill(pid, 'SIGKILL')
        killed.add(pid)
      }
    }
    const { code, stderr } = await relay.ended
    expect([code, killed.size]).toEqual([1, expect.toSatisfy((count: number) => count >= 5 && count <= 10)])
    expect(stderr).toMatch('a worker ended 5 times in a row, soon after its start (SIGKILL)')
    expect(left([...family, ...killed])).toEqual([])
  })
})

/** Two devices of one account, by the SDK. */
async function pairDevices(relay: Relay): Promise<{ laptop: Sealpost; phone: Sealpost; close(): Promise<void> }> {
  const server = relay.door.url
  const created = await Sealpost.create({ home: await openHome(join(folder, 'laptop')), server, name: 'laptop', device_type: 'desktop' })
  const laptop = created.sealpost
  const home = await openHome(join(folder, 'phone'))
  const joined = Promise.withResolvers<Sealpost>()
  const confirm = (): Promise<boolean> => Promise.resolve(true)
  await laptop.pair({
    onCode(code) {
      Sealpost.join({ home, server, code, name: 'phone', device_type: 'mobile', confirm }).then(joined.resolve, joined.reject)
    },
    confirm,
  })
  const phone = await joined.promise
  return {
    laptop,
    phone,
    async close() {
      await Promise.all([laptop.close(), phone.close()])
    },
  }
}

/** Sends as fast as it is acked, until the server closes; the numbers that were acked. */
async function sendUntilClosed(sender: RawClient, account: TestAccount): Promise<{ acked: number[]; closed: { code: number } }> {
  const acked: number[] = []
  try {
    for (let next = 1; ; next += 8) {
      sender.sendRecords(...makeRecords(sender, next, 8, { epoch: account.log_seq }))
      acked.push(...(await takeAcks(sender, 8)).map(({ device_seq }) => device_seq))
    }
  } catch {
    // what came before the end counts, also without the rest of its eight
  }
  for (const { head } of sender.received) if (head.type === 'nack') throw new Error(`nack ${JSON.stringify(head)}`)
  return { acked, closed: await sender.closed }
}
