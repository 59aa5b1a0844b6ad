/** B08: there is no column of an account that an export leaves out without a reason. The lists are held to the database. */
import { expect, it } from 'vitest'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { EXPORT_LINE } from '../../http/export/contracts.ts'
import { createStore } from '../store.ts'

const database = useDatabase()

/** Where a column is in an export, or (behind a colon) why it is in none. */
const COLUMNS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  account: {
    user_no: ': a number inside the database, deleted with the account',
    log_seq: 'account.log_seq',
    floor: 'account.floor',
    created_at: 'account.created_at',
    active: ': follows of suspended_at',
    user_id: 'export.user_id',
    log_head: 'account.log_head',
    quota_bytes: 'account.quota_bytes',
    quota_streams: 'account.quota_streams',
    quota_devices: 'account.quota_devices',
    suspended_at: 'account.suspended_at',
  },
  device: {
    user_no: ': as in account',
    last_seq: 'device.last_device_seq',
    swept_seq: 'device.swept_device_seq',
    session_id: ': a secret of the session; device.has_session says that there is one',
    device_no: ': a number inside the database',
    active: ': follows of revoked_log_seq and suspended_at',
    device_id: 'device.device_id',
    session_node: ': a number of the process that has the session, which outlives no restart',
  },
  device_profile: {
    user_no: ': as in account',
    device_no: ': as in device',
    added_log_seq: 'device.added_log_seq',
    revoked_log_seq: 'device.revoked_log_seq',
    last_seen: 'device.last_seen',
    seen_position: 'device.seen_position',
    device_type: 'device.device_type',
    name: 'device.name',
    name_key: ': the name, folded',
    sign_pub: 'device.sign_pub',
    token_version: 'device.token_version',
    cleared_at: 'device.cleared_at',
    suspended_at: 'device.suspended_at',
    follower_node: ': as session_node, of what is followed over REST',
  },
  head: {
    user_no: ': as in account',
    stream_no: ': as in stream',
    last: 'stream.stream_seq',
    bytes: 'stream.stored_bytes',
    swept: 'stream.swept_position',
  },
  stream: { user_no: ': as in account', stream_no: ': a number inside the database', stream_id: 'stream.stream_id' },
  event: {
    user_no: ': as in account',
    position: 'event.position',
    stream_seq: 'event.stream_seq',
    device_seq: 'event.device_seq',
    received_at: 'event.received_at',
    stream_no: 'event.stream_id',
    device_no: 'event.device_id',
    expires_at: 'event.ttl',
    flags: ': the form of the record, which the members show',
    record: 'event.encrypted_payload',
  },
  log_entry: {
    user_no: ': as in account',
    log_seq: 'log_entry.log_seq',
    stored_at: 'log_entry.stored_at',
    body: 'log_entry.body',
    sig: 'log_entry.sig',
    entry_hash: ': SHA-256 of the body',
  },
  log_box: { user_no: ': as in account', log_seq: 'log_entry.log_seq', recipient: 'log_entry.boxes', box: 'log_entry.boxes' },
  pairing: {
    mailbox_id: 'pairing.mailbox_id',
    user_no: ': as in account',
    expires_at: 'pairing.expires_at',
    device_no: 'pairing.device_id',
  },
  pairing_slot: { mailbox_id: 'pairing.mailbox_id', slot: 'pairing.slot', box: 'pairing.box' },
  refresh_family: {
    user_no: ': as in account',
    created_at: 'refresh_family.created_at',
    expires_at: 'refresh_family.expires_at',
    rotated_at: 'refresh_family.rotated_at',
    device_no: 'refresh_family.device_id',
    generation: 'refresh_family.generation',
    family_id: 'refresh_family.family_id',
    token_hash: ': of a secret',
    previous_hash: ': of a secret',
  },
  audit: {
    seq: 'audit.seq',
    at: 'audit.at',
    actor: 'audit.actor',
    action: 'audit.action',
    outcome: 'audit.outcome',
    target: 'audit.target',
    request_id: 'audit.request_id',
    address: 'audit.address',
    detail: 'audit.detail',
    user_hash: ': SHA-256 of export.user_id',
    hash: ': of the rows of all accounts together',
  },
}

/** Tables in which nothing leads to an account. */
const OTHERS: Readonly<Record<string, string>> = {
  deleted_account: 'hashes of ids that are no more',
  assertion: 'hashes over account and id, for ten minutes; they lead back to nobody',
  server_meta: 'of the server',
  sealpost_migration: 'of the schema',
  sealpost_function: 'of the schema',
  signing_key: 'of the server',
  admin: 'of those who run the relay',
  setting: 'of the relay',
  node: 'of the processes of the relay',
  invite: 'of the relay; who came by one is not written down',
  audit_head: 'of the audit log',
  audit_checkpoint: 'of the audit log',
}

it('every column is exported, or it is said why not; and what is said to be exported is in the contract', async () => {
  const store = await createStore({ connection: database.connection, log: silent })
  const { rows } = await store.pools.main.query<{ table_name: string; column_name: string }>(
    `select c.table_name, c.column_name from information_schema.columns c where c.table_schema = 'public' order by 1, 2`,
  )
  await store.close()
  const tables = Object.groupBy(rows, ({ table_name }) => table_name)
  expect(Object.keys(tables).toSorted()).toEqual([...Object.keys(COLUMNS), ...Object.keys(OTHERS)].toSorted())
  for (const [table, known] of Object.entries(COLUMNS))
    expect([table, tables[table]!.map(({ column_name }) => column_name).toSorted()]).toEqual([table, Object.keys(known).toSorted()])

  const members = new Set(
    EXPORT_LINE.options.flatMap((option) => {
      const [kind] = option.shape.kind.values
      return Object.keys(option.shape).map((member) => `${kind}.${member}`)
    }),
  )
  for (const known of Object.values(COLUMNS))
    for (const place of Object.values(known)) if (!place.startsWith(':')) expect([place, members.has(place)]).toEqual([place, true])
})
