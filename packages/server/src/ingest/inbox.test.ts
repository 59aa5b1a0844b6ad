import { setTimeout as sleep } from 'node:timers/promises'
import { SealpostError } from '@sealpost/protocol'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Outcome, Submission } from '../core/state.ts'
import type { IngestStore, Run, StoredEvent, Verdict } from '../ports/store.ts'
import { createStore, type PostgresStore } from '../store/store.ts'
import { createAccount, makeRun, openSession, type TestAccount } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createInbox, type Inbox, type InboxBounds } from './inbox.ts'

const database = useDatabase()
let store: PostgresStore
let sql: Client

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
  sql = new Client(database.connection)
  await sql.connect()
})
afterAll(async () => {
  await sql.end()
  await store.close()
})

const BOUNDS: InboxBounds = {
  queue_bytes: 1e8,
  batch_events: 4_096,
  batch_bytes: 1e7,
  message_bytes: 1e6,
  lanes: () => 2,
  events_per_minute: () => 1e5,
}

/** The real store, with a record of the calls and a place to interfere. */
function watch(before: (runs: readonly Run[], patient: boolean) => Promise<void> | void = () => {}) {
  const calls: { runs: readonly Run[]; patient: boolean }[] = []
  const watched: IngestStore = {
    async ingest(runs, patient) {
      calls.push({ runs, patient })
      await before(runs, patient)
      return store.ingest(runs, patient)
    },
    readDuplicates: (...args) => store.readDuplicates(...args),
  }
  return { calls, watched }
}

type World = { inbox: Inbox; log: string[]; batches: { user_no: number; events: readonly StoredEvent[] }[] }

function open(ingest: IngestStore, bounds: Partial<InboxBounds> = {}, now = () => performance.now()): World {
  const world: World = { inbox: undefined as never, log: [], batches: [] }
  world.inbox = createInbox({
    store: ingest,
    bounds: { ...BOUNDS, ...bounds },
    committed: (user_no, events) => {
      world.log.push(`fan-out ${user_no}`)
      world.batches.push({ user_no, events })
    },
    failed: () => {},
    now,
    jitter: (min) => min,
  })
  return world
}

async function sender(account?: TestAccount, device_no = 1) {
  const of = account ?? (await createAccount(store, 2))
  const session_id = await openSession(store, of.user_no, device_no)
  const outcomes: Outcome[] = []
  return {
    account: of,
    outcomes,
    sink: { settled: (outcome: Outcome) => void outcomes.push(outcome) },
    run(first_seq: number, count: number, epoch = of.log_seq): Submission {
      const run = makeRun({ user_no: of.user_no, device_no, session_id, first_seq, epoch }, count)
      return { ...run, bytes: run.events.reduce((sum, event) => sum + event.client.length, 0) }
    },
  }
}

const acked = (outcomes: readonly Outcome[]): number[] =>
  outcomes.flatMap((outcome) => (outcome.is === 'acked' ? outcome.acks.flatMap((ack) => ack.rows.map((row) => row.device_seq)) : []))

describe('group commit', () => {
  it('what arrives together, and what arrives during a commit, is one batch each; runs of a device are merged', async () => {
    const { calls, watched } = watch()
    const { inbox, batches } = open(watched)
    const a = await sender()
    for (let i = 0; i < 5; i++) inbox.submit([a.run(1 + i * 2, 2)], a.sink)
    await inbox.idle()
    expect(calls.map(({ runs }) => runs.map((run) => [run.first_seq, run.events.length]))).toEqual([[[1, 10]]])
    expect(a.outcomes.length).toBe(1)
    expect(acked(a.outcomes)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    expect(batches.map(({ events }) => events.map((event) => event.position))).toEqual([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    expect(inbox.stats()).toMatchObject({ users: 0, bytes: 0, batches: 1, events: 10 })
  })

  it('who waits stays in its lane when their number changes: of a user one batch at a time, in order', async () => {
    const gates: (() => void)[] = []
    const going: number[] = []
    const overlaps: number[] = []
    let most = 0
    const { watched } = watch(async (runs) => {
      const users = [...new Set(runs.map((run) => run.user_no))]
      overlaps.push(...users.filter((user_no) => going.includes(user_no)))
      most = Math.max(most, gates.length + 1)
      going.push(...users)
      await new Promise<void>((resolve) => gates.push(resolve))
      for (const user_no of users) going.splice(going.indexOf(user_no), 1)
    })
    let lanes = 1
    const { inbox, batches } = open(watched, { lanes: () => lanes })
    const [first, a] = [await sender(), await sender()]
    let b = await sender()
    while (b.account.user_no % 2 === a.account.user_no % 2) b = await sender()
    const submit = (seq: number, ...senders: (typeof a)[]): void => {
      for (const one of senders) inbox.submit([one.run(seq, 1)], one.sink)
    }
    submit(1, first)
    await expect.poll(() => gates.length).toBe(1)
    submit(1, a, b)
    lanes = 2
    submit(2, a, b)
    await sleep(20)
    expect(gates.length).toBe(1)
    gates.shift()?.()
    await expect.poll(() => gates.length).toBe(1)
    submit(3, a, b)
    gates.shift()?.()
    await expect.poll(() => gates.length).toBe(1)
    gates.shift()?.()
    await inbox.idle()
    submit(4, a, b)
    await expect.poll(() => gates.length).toBe(2)
    for (const gate of gates.splice(0)) gate()
    await inbox.idle()
    expect({ most, overlaps }).toEqual({ most: 2, overlaps: [] })
    for (const { account, outcomes } of [a, b]) {
      expect(acked(outcomes)).toEqual([1, 2, 3, 4])
      const told = batches.filter(({ user_no }) => user_no === account.user_no).flatMap(({ events }) => events)
      expect(told.map((event) => event.position)).toEqual([1, 2, 3, 4])
    }
  })

  it('acks all of a batch before any of it is offered to others', async () => {
    const { watched } = watch()
    const world = open(watched)
    const a = await sender()
    const b = await sender(a.account, 2)
    for (const one of [a, b]) world.inbox.submit([one.run(1, 3)], { settled: () => void world.log.push('ack') })
    await world.inbox.idle()
    expect(world.log).toEqual(['ack', 'ack', `fan-out ${a.account.user_no}`])
    expect(world.batches[0]!.events.map((event) => event.position)).toEqual([1, 2, 3, 4, 5, 6])
  })

  it('a commit is bounded, and so is a fan-out message', async () => {
    const { calls, watched } = watch()
    const { inbox, batches } = open(watched, { batch_events: 4, message_bytes: 700 })
    const a = await sender()
    for (let i = 0; i < 4; i++) inbox.submit([a.run(1 + i * 2, 2)], a.sink)
    await inbox.idle()
    expect(calls.map(({ runs }) => runs.map((run) => run.events.length))).toEqual([[4], [4]])
    expect(batches.length).toBeGreaterThan(2)
    expect(batches.flatMap(({ events }) => events.map((event) => event.position))).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  })
})

describe('R11: refusals', () => {
  it('a refusal takes what waits behind it, and the flight is told so', async () => {
    const { watched } = watch()
    const { inbox } = open(watched)
    const a = await sender()
    const [stale, behind] = [a.run(1, 2, a.account.log_seq - 1), a.run(3, 4)]
    inbox.submit([stale], a.sink)
    inbox.submit([behind], a.sink)
    await inbox.idle()
    expect(a.outcomes).toEqual([
      {
        is: 'refused',
        code: 'stale_epoch',
        device_seq: 1,
        expected: 1,
        log_seq: a.account.log_seq,
        retry_after_ms: null,
        events: 6,
        bytes: stale.bytes + behind.bytes,
      },
    ])
    inbox.submit([a.run(5, 1)], a.sink)
    await inbox.idle()
    expect(a.outcomes[1]).toMatchObject({ code: 'sequence_gap', device_seq: 5, expected: 1 })
  })

  it('duplicates are acked by their first time of arrival, new ones behind them are stored, a conflict stops', async () => {
    const { watched } = watch()
    const { inbox } = open(watched)
    const a = await sender()
    const run = a.run(1, 4)
    const sizeOf = (events: Run['events']) => events.reduce((sum, event) => sum + event.client.length, 0)
    const part = (from: number, to: number): Submission => {
      const events = run.events.slice(from, to)
      return { ...run, first_seq: 1 + from, events, bytes: sizeOf(events) }
    }
    inbox.submit([part(0, 1)], a.sink)
    await inbox.idle()
    inbox.submit([part(1, 2)], a.sink)
    await inbox.idle()
    a.outcomes.length = 0
    inbox.submit([run], a.sink)
    await inbox.idle()
    expect(acked(a.outcomes)).toEqual([1, 2, 3, 4])
    inbox.submit([{ ...a.run(1, 4), events: [...run.events.slice(0, 2), ...a.run(3, 2).events] }], a.sink)
    await inbox.idle()
    expect(a.outcomes.at(-1)).toMatchObject({ is: 'refused', code: 'sequence_conflict', device_seq: 3, expected: 5 })
    expect(inbox.stats().bytes).toBe(0)
  })

  it('a fenced session, and a device that is not active, are cut without a nack', async () => {
    const { watched } = watch()
    const { inbox } = open(watched)
    const a = await sender()
    await sender(a.account, 1)
    inbox.submit([a.run(1, 1)], a.sink)
    inbox.submit([{ ...a.run(1, 1), device_no: 99 }], a.sink)
    await inbox.idle()
    expect(a.outcomes).toEqual(
      expect.arrayContaining([
        { is: 'cut', why: 'fenced' },
        { is: 'cut', why: 'not_active' },
      ]),
    )
  })

  it('above the bound of the process, and over the quota of a user, it refuses with a time to come again', async () => {
    const a = await sender()
    const tight = open(store, { queue_bytes: 100 })
    tight.inbox.submit([a.run(1, 5)], a.sink)
    expect(a.outcomes.pop()).toMatchObject({ code: 'unavailable', expected: 1, events: 5, retry_after_ms: 1_000 })
    const metered = open(store, { events_per_minute: () => 5 })
    metered.inbox.submit([a.run(1, 5)], a.sink)
    metered.inbox.submit([a.run(6, 1)], a.sink)
    expect(a.outcomes.pop()).toMatchObject({ code: 'rate_limited', expected: 6 })
    await metered.inbox.idle()
    expect(acked(a.outcomes)).toEqual([1, 2, 3, 4, 5])
  })

  it('a run that is refused at once takes those behind it in the message along: no gap is told', async () => {
    const a = await sender()
    const { inbox } = open(store, { events_per_minute: () => 5 })
    inbox.submit([a.run(1, 5), a.run(6, 3), a.run(9, 1)], a.sink)
    await inbox.idle()
    expect(a.outcomes).toMatchObject([
      { is: 'refused', code: 'rate_limited', device_seq: 6, expected: 6, events: 4 },
      { is: 'acked', events: 5 },
    ])
    expect(inbox.stats().bytes).toBe(0)
  })

  it('of a run above the quota of a user what fits is taken: one that is larger than a whole minute comes in too', async () => {
    const a = await sender()
    let now = 0
    const { inbox } = open(store, { events_per_minute: () => 4 }, () => now)
    inbox.submit([a.run(1, 6)], a.sink)
    await inbox.idle()
    expect(a.outcomes).toMatchObject([
      { is: 'refused', code: 'rate_limited', device_seq: 5, expected: 5, events: 2, retry_after_ms: 60_000 },
      { is: 'acked', events: 4 },
    ])
    now = 60_000
    inbox.submit([a.run(5, 2)], a.sink)
    await inbox.idle()
    expect(acked(a.outcomes)).toEqual([1, 2, 3, 4, 5, 6])
    expect(inbox.stats().bytes).toBe(0)
  })
})

it('remembers of a user only the minute that is going on, and a suspicion for some minutes', async () => {
  let now = 0
  const refused: Verdict = { is: 'fenced' }
  let fails = true
  const inbox = createInbox({
    store: {
      ingest: (runs) =>
        fails ? Promise.reject(Object.assign(new Error('bad'), { code: '22021' })) : Promise.resolve(runs.map(() => refused)),
      readDuplicates: () => Promise.resolve([]),
    },
    bounds: BOUNDS,
    committed: () => {},
    failed: () => {},
    now: () => now,
    jitter: (min) => min,
  })
  const submit = async (first: number, count: number): Promise<void> => {
    const events = [{ stream_id: 's', flags: 0, client: new Uint8Array(1), expires_at: 0, made_at: 0 }]
    const run = { device_no: 1, session_id: 's', first_seq: 1, epoch: 0, events, bytes: 1 }
    for (let user_no = first; user_no < first + count; user_no++) inbox.submit([{ ...run, user_no }], { settled: () => {} })
    await inbox.idle()
  }
  await submit(1, 100)
  expect(inbox.stats()).toMatchObject({ minutes: 100, suspects: 100 })
  now += 61_000
  fails = false
  await submit(1_001, 1)
  expect(inbox.stats()).toMatchObject({ minutes: 1, suspects: 100 })
  now += 600_000
  await submit(1_001, 1)
  expect(inbox.stats()).toMatchObject({ minutes: 1, suspects: 0 })
})

describe('trouble of one user', () => {
  it('a locked account goes back three times and is then committed alone and patiently; the others go on', async () => {
    const { calls, watched } = watch()
    const { inbox } = open(watched)
    const [a, b] = [await sender(), await sender()]
    const same = [a, b]
    await sql.query('begin')
    await sql.query('select 1 from account where user_no = $1 for no key update', [a.account.user_no])
    inbox.submit([a.run(1, 2)], a.sink)
    for (const one of same.slice(1)) inbox.submit([one.run(1, 2)], one.sink)
    await expect.poll(() => acked(b.outcomes).length).toBe(2)
    await expect.poll(() => calls.some(({ patient }) => patient)).toBe(true)
    inbox.submit([a.run(3, 1)], a.sink)
    expect(a.outcomes).toEqual([])
    await sql.query('commit')
    await inbox.idle()
    expect(acked(a.outcomes)).toEqual([1, 2, 3])
    const patient = calls.filter((call) => call.patient)
    expect(patient.length).toBe(1)
    expect(patient[0]!.runs.map((run) => run.user_no)).toEqual([a.account.user_no])
    expect(
      calls.filter((call) => !call.patient && call.runs.some((run) => run.user_no === a.account.user_no)).length,
    ).toBeGreaterThanOrEqual(3)
  })

  it('a lock that is held too long gives unavailable, not silence', async () => {
    const { inbox } = open(store)
    const a = await sender()
    await sql.query('begin')
    await sql.query('select 1 from account where user_no = $1 for no key update', [a.account.user_no])
    inbox.submit([a.run(1, 2)], a.sink)
    await inbox.idle()
    await sql.query('commit')
    expect(a.outcomes).toMatchObject([{ is: 'refused', code: 'unavailable', expected: 1, events: 2 }])
  })

  it('a run that the store cannot digest hurts its own user alone from the second time on', async () => {
    const poisoned = new Set<number>()
    const { calls, watched } = watch((runs) => {
      if (runs.some((run) => poisoned.has(run.user_no)))
        throw new SealpostError('internal', 'the store failed', { cause: Object.assign(new Error('check'), { code: '23514' }) })
    })
    const { inbox } = open(watched)
    const bad = await sender()
    const good = []
    while (good.length < 2) {
      const one = await sender()
      if (one.account.user_no % 2 === bad.account.user_no % 2) good.push(one)
    }
    poisoned.add(bad.account.user_no)
    for (const one of [bad, ...good]) inbox.submit([one.run(1, 1)], one.sink)
    await inbox.idle()
    for (const one of [bad, ...good]) expect(one.outcomes).toMatchObject([{ code: 'unavailable' }])
    for (const one of [bad, ...good]) inbox.submit([one.run(1, 1)], one.sink)
    await inbox.idle()
    for (const one of good) expect(acked(one.outcomes)).toEqual([1])
    expect(bad.outcomes.length).toBe(2)
    expect(calls.slice(1).every(({ runs }) => new Set(runs.map((run) => run.user_no)).size === 1)).toBe(true)
  })

  it('a store that cannot be reached makes nobody a suspect', async () => {
    let down = true
    const { calls, watched } = watch(() => {
      if (down) throw new SealpostError('unavailable', 'no connection')
    })
    const { inbox } = open(watched)
    const a = await sender()
    let b = await sender()
    while (b.account.user_no % 2 !== a.account.user_no % 2) b = await sender()
    for (const one of [a, b]) inbox.submit([one.run(1, 1)], one.sink)
    await inbox.idle()
    down = false
    for (const one of [a, b]) inbox.submit([one.run(1, 1)], one.sink)
    await inbox.idle()
    expect(calls.map(({ runs }) => runs.length)).toEqual([2, 2])
    for (const one of [a, b]) expect(acked(one.outcomes)).toEqual([1])
  })

  it('G14: four senders of one user, many small runs, random commits: per device FIFO, one order for all', async () => {
    const { inbox, batches } = open(store)
    const account = await createAccount(store, 4)
    const senders = await Promise.all([1, 2, 3, 4].map((device_no) => sender(account, device_no)))
    const next = [1, 1, 1, 1]
    for (let i = 0; i < 200; i++) {
      const n = (i * 7 + Math.floor(i / 13)) % 4
      const count = 1 + (i % 3)
      inbox.submit([senders[n]!.run(next[n]!, count)], senders[n]!.sink)
      next[n]! += count
      if (i % 9 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await inbox.idle()
    const events = batches.flatMap((batch) => batch.events)
    expect(events.map((event) => event.position)).toEqual(events.map((_, i) => i + 1))
    for (const [n, { outcomes }] of senders.entries()) {
      const expected = Array.from({ length: next[n]! - 1 }, (_, i) => i + 1)
      expect(acked(outcomes)).toEqual(expected)
      expect(events.filter((event) => event.device_no === n + 1).map((event) => event.device_seq)).toEqual(expected)
    }
  })
})
