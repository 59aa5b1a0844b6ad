import { randomUUID } from 'node:crypto'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StoredEvent, Verdict } from '../ports.ts'
import { append, createAccount, makeEvent, makeRun, openSession, type TestAccount, type TestEvent } from '../testing/accounts.ts'
import { useDatabase } from '../testing/database.ts'
import { silent } from '../testing/log.ts'
import { createStore, type PostgresStore } from './store.ts'

const database = useDatabase()
let store: PostgresStore
let sql: Client

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent, streams_max: 5 })
  sql = new Client(database.connection)
  await sql.connect()
})
afterAll(async () => {
  await store.close()
  await sql.end()
})

type Sender = { account: TestAccount; user_no: number; device_no: number; session_id: string; epoch: number }

async function sender(device_no = 1, account?: TestAccount): Promise<Sender> {
  const of = account ?? (await createAccount(store, 2))
  return { account: of, user_no: of.user_no, device_no, session_id: await openSession(store, of.user_no, device_no), epoch: of.log_seq }
}

const run = ({ user_no, device_no, session_id, epoch }: Sender, first_seq: number, events: number | TestEvent[]) =>
  makeRun({ user_no, device_no, session_id, epoch, first_seq }, events)

async function ingestOne(...args: Parameters<typeof run>): Promise<Verdict> {
  return (await store.ingest([run(...args)], false))[0]!
}

function stored(verdict: Verdict | undefined): StoredEvent[] {
  if (verdict?.is !== 'stored') throw new Error(`not stored: ${JSON.stringify(verdict)}`)
  return verdict.events
}

describe('ingest', () => {
  it('G14: numbers of a user are contiguous over devices, those of a stream within it', async () => {
    const a = await sender(1)
    const b = await sender(2, a.account)
    const verdicts = await store.ingest(
      [run(b, 1, [{ stream_id: 'x' }, { stream_id: 'y' }, { stream_id: 'x' }]), run(a, 1, [{ stream_id: 'y' }, { stream_id: 'x' }])],
      false,
    )
    const numbers = verdicts.map((verdict) => stored(verdict).map((e) => [e.device_no, e.device_seq, e.position, e.stream_seq]))
    expect(numbers).toEqual([
      [
        [2, 1, 3, 2],
        [2, 2, 4, 2],
        [2, 3, 5, 3],
      ],
      [
        [1, 1, 1, 1],
        [1, 2, 2, 1],
      ],
    ])
  })
})
