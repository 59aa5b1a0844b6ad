import { afterAll, beforeAll, expect, it } from 'vitest'
import { createAccount } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createStore, type PostgresStore } from '../store.ts'

/** Above a page of each kind. */
const ROWS = 1_203

const database = useDatabase()
let store: PostgresStore
beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
})
afterAll(() => store?.close())

it('B08: has every row of every kind, however many there are', async () => {
  const { user_no } = await createAccount(store)
  const fill = (text: string) => store.pools.main.query({ text, values: [user_no, ROWS] })
  await fill(
    `insert into device (user_no, device_no, device_id, active) select $1, n, gen_random_uuid(), false from generate_series(2, $2) n`,
  )
  await fill(`insert into device_profile (user_no, device_no, added_log_seq, device_type, name, sign_pub)
    select $1, n, 0, 'web', 'device ' || n, sha256(int4send(n)) from generate_series(2, $2) n`)
  await fill(`insert into refresh_family (user_no, device_no, created_at, expires_at, family_id, token_hash)
    select $1, n, 1, 2, gen_random_uuid(), sha256(int4send(n)) from generate_series(1, $2) n`)
  await fill(`insert into stream (user_no, stream_no, stream_id) select $1, n, 's' || n from generate_series(1, $2) n`)
  // of three mailboxes one has no slot, one has one, one has two: a page may end within a mailbox
  await fill(`insert into pairing (mailbox_id, user_no, expires_at, device_no) select 'box ' || n, $1, 1, 1 from generate_series(1, $2) n`)
  await fill(`insert into pairing_slot (mailbox_id, slot, box) select 'box ' || n, s.slot, '\\x01'
    from generate_series(1, $2) n, (values (1, 'offer'), (2, 'join')) s (least, slot) where n % 3 >= s.least and $1::int8 > 0`)

  const counts: Record<string, number> = {}
  const seen = new Set<string>()
  for await (const row of store.exportRows(user_no, (await store.readUser(user_no))!)) {
    counts[row.kind] = (counts[row.kind] ?? 0) + 1
    seen.add(JSON.stringify(row))
  }
  expect(counts).toEqual({ account: 1, device: ROWS, log_entry: 1, audit: 1, stream: ROWS, refresh_family: ROWS, pairing: (ROWS * 4) / 3 })
  expect(seen.size).toBe(Object.values(counts).reduce((sum, count) => sum + count, 0))
})
