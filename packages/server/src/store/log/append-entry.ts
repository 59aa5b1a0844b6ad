/**
 * Appends to the device log (protocol.md §2): compare-and-swap on (log_seq, prev_hash). The entry is verified against the
 * log as it is stored, before any lock is taken; under the account's row lock nothing is computed, only compared: if the
 * account still stands where the entry was verified, it is appended with all it means for devices, names and boxes, in
 * one transaction; otherwise it has lost the race. A revocation clears the session in that transaction, so that no batch
 * of the device commits after it (C4, R01).
 *
 * Isolation: read committed. Locks: the account row first, then devices and profiles by number.
 * Bounds: the rate of `log-rate.ts`, `devices_max` active devices.
 */
import { createHash } from 'node:crypto'
import {
  activeDevices,
  type Bytes,
  checkBox,
  checkBoxes,
  type Crypto,
  type DeviceLog,
  equalBytes,
  fromBase64url,
  hashEntry,
  isSafeDeviceName,
  LIMITS,
  type LogBody,
  SealpostError,
  type Verified,
  verifyEntry,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { ClientBase, Pool } from 'pg'
import type { AppendRequest, AppendResult } from '../../ports/store.ts'
import { auditEntries } from '../../audit/log-entries.ts'
import { useInvite } from '../operators/admin-store.ts'
import { appendAudit } from '../operators/audit-store.ts'
import { waitForTurn } from './log-rate.ts'
import { inTurn, withClient, withTransaction } from '../postgres/pool.ts'
import { ROOT_NO } from './read-log.ts'
import { createVerifiedLogs } from './verified-logs.ts'

type Accepted = Extract<Verified, { ok: true }>
type Refused = Extract<AppendResult, { ok: false }>
type AccountRow = { user_no: number; log_seq: number; log_head: Buffer; active: boolean; quota_devices: number | null }

const ACCOUNT = 'select a.user_no, a.log_seq, a.log_head, a.active, a.quota_devices from account a where a.user_id = $1::bytea'
const FIND_ACCOUNT = { name: 'find_account', text: ACCOUNT }
const LOCK_ACCOUNT = { name: 'lock_account', text: `${ACCOUNT} for no key update` }
const IS_DELETED = { name: 'is_deleted', text: 'select from deleted_account d where d.user_id_hash = $1::bytea' }
const ENTRY_HASH = { name: 'entry_hash', text: 'select e.entry_hash from log_entry e where e.user_no = $1::int8 and e.log_seq = $2::int8' }

/** Of two that create the same account at once, the second waits here, and then finds the first's. */
const CREATE_ACCOUNT = {
  name: 'create_account',
  text: `with made as (
    insert into account (user_id, log_seq, log_head, created_at) values ($1::bytea, 0, $2::bytea, clock_ms())
    on conflict (user_id) do nothing returning user_no)
  insert into head (user_no, stream_no, last) select m.user_no, 0, 0 from made m returning user_no`,
}

const NAME_OWNER = {
  name: 'name_owner',
  text: `select d.device_id from device_profile p join device d on d.user_no = p.user_no and d.device_no = p.device_no
 where p.user_no = $1::int8 and p.name_key = $2::text`,
}

const LAST_SEQ = {
  name: 'last_device_seq',
  text: 'select d.last_seq from device d where d.user_no = $1::int8 and d.device_id = $2::uuid for no key update',
}

const IS_SUSPENDED = {
  name: 'is_suspended',
  text: `select from device d join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where d.user_no = $1::int8 and d.device_id = $2::uuid and p.suspended_at is not null`,
}

const INSERT_ENTRY = {
  name: 'insert_entry',
  text: `insert into log_entry (user_no, log_seq, stored_at, body, sig, entry_hash)
  values ($1::int8, $2::int8, clock_ms(), $3::bytea, $4::bytea, $5::bytea)`,
}

const ADVANCE = { name: 'advance_log', text: 'update account set log_seq = $2::int8, log_head = $3::bytea where user_no = $1::int8' }

const INSERT_DEVICE = {
  name: 'insert_device',
  text: `with made as (
    insert into device (user_no, device_no, device_id)
    select $1::int8, coalesce(max(d.device_no), 0) + 1, $2::uuid from device d where d.user_no = $1::int8 returning device_no)
  insert into device_profile (user_no, device_no, added_log_seq, device_type, name, name_key, sign_pub)
  select $1::int8, m.device_no, $3::int8, $4::text, $5::text, $6::text, $7::bytea from made m`,
}

const REVOKE = {
  name: 'revoke_devices',
  text: `with revoked as (
    update device d set active = false, session_id = null where d.user_no = $1::int8 and d.device_id = any($2::uuid[])
    returning d.device_no, d.device_id),
  closed as (
    update device_profile p set revoked_log_seq = $3::int8, name_key = null from revoked r where p.user_no = $1::int8 and p.device_no = r.device_no)
  select r.device_no, r.device_id from revoked r order by r.device_no`,
}

/** Whom a stored entry revoked: for an answer that was lost, and with it the end of their sessions. */
const REVOKED_BY = {
  name: 'revoked_by_entry',
  text: `select d.device_no, d.device_id from device_profile p join device d on d.user_no = p.user_no and d.device_no = p.device_no
 where p.user_no = $1::int8 and p.revoked_log_seq = $2::int8 order by d.device_no`,
}

const RENAME = {
  name: 'rename_device',
  text: `update device_profile p set name = $3::text, name_key = $4::text from device d
 where d.user_no = $1::int8 and d.device_id = $2::uuid and p.user_no = d.user_no and p.device_no = d.device_no`,
}

const INSERT_BOX = {
  name: 'insert_box',
  text: `insert into log_box (user_no, log_seq, recipient, box)
  select $1::int8, $2::int8, coalesce(d.device_no, ${ROOT_NO}), $4::bytea
    from (select $3::uuid as device_id) r left join device d on d.user_no = $1::int8 and d.device_id = r.device_id
  on conflict (user_no, recipient, log_seq) do nothing`,
}

const crypto: Crypto = nodeCrypto

export function createAppendEntry(pool: Pool, devices_max: number): (request: AppendRequest) => Promise<AppendResult> {
  const logs = createVerifiedLogs()

  return async (request) => {
    const user_id = Buffer.from(fromBase64url(request.user_id, 32))
    const entry_hash = await hashEntry(crypto, request.entry.body)
    const before = await withClient(pool, async (client) => {
      const account = await readAccount(client, FIND_ACCOUNT, user_id)
      if (account === null) return { account, log: null, known: null, deleted: await isDeleted(client, user_id) }
      const known = await findKnown(client, account, request, entry_hash)
      return { account, log: known === null ? await logs.load(client, account, request.user_id) : null, known, deleted: false }
    })
    if (before.known !== null) return before.known
    if (before.deleted) return refuse('account_gone', null)
    if (before.account === null && !request.allow_genesis) return refuse('not_found', null)

    const verified = await verifyEntry(crypto, before.log, request.user_id, request.entry)
    if (!verified.ok) {
      const code = verified.code === 'log_conflict' ? 'log_conflict' : 'invalid_entry'
      // an account that is not there has no log to be in conflict with
      return before.account === null && code === 'log_conflict' ? refuse('not_found', null) : refuse(code, before.log, verified.reason)
    }
    const fault = await judgeEntry(request, verified, before.account?.quota_devices ?? devices_max)
    if (fault !== null) return refuse('invalid_entry', before.log, fault)

    const write = (): Promise<AppendResult> => withTransaction(pool, (client) => append(client, request, user_id, before.log, verified))
    const result = await (before.account === null ? write() : inTurn(pool, before.account.user_no, write))
    if (result.ok && !result.already_known) logs.remember(result.user_no, verified.log)
    return result
  }
}

/** What the server asks of an entry beside the verifier's rules; null when nothing is wrong. */
async function judgeEntry({ boxes, repair }: AppendRequest, { log, body }: Accepted, devices_max: number): Promise<string | null> {
  if (repair) {
    // the entries that a client brings back hold its own box alone
    for (const [to, box] of Object.entries(boxes))
      if (!(await checkBox(crypto, log, log.log_seq, to, box))) return 'a box is not the one that was signed'
  } else {
    if (!(await checkBoxes(crypto, log, boxes))) return 'the boxes are not exactly those that were signed'
    const name = nameOf(body)
    if (name !== null && !isSafeDeviceName(name.name)) return 'the device name is not a safe one'
  }
  // an account that has more already keeps them, and may do all but add another
  const max = body.type === 'add_device' && !repair ? devices_max : LIMITS.devicesPerUserMax
  return activeDevices(log).length > max ? `an account has at most ${max} devices` : null
}

/** Under the account's lock; writes nothing unless everything holds. */
async function append(
  client: ClientBase,
  request: AppendRequest,
  user_id: Buffer,
  log: DeviceLog | null,
  verified: Accepted,
): Promise<AppendResult> {
  const { body, entry_hash } = verified
  let user_no: number
  if (log === null) {
    // a deletion that committed since keeps the account from coming back; one that is under way holds the row
    const made = (await client.query<{ user_no: number }>({ ...CREATE_ACCOUNT, values: [user_id, entry_hash] })).rows[0]
    if (made === undefined) return lostRace(client, request, user_id, entry_hash)
    if (await isDeleted(client, user_id)) {
      await client.query({ text: 'delete from head where user_no = $1::int8', values: [made.user_no] })
      await client.query({ text: 'delete from account where user_no = $1::int8', values: [made.user_no] })
      return refuse('account_gone', null)
    }
    const { invite_hash = null } = request
    // undoes the account as well
    if (invite_hash !== null && !(await useInvite(client, invite_hash)))
      throw new SealpostError('signup_closed', 'the invite is not one, or is used up')
    user_no = made.user_no
  } else {
    const account = await readAccount(client, LOCK_ACCOUNT, user_id)
    if (account === null) return refuse((await isDeleted(client, user_id)) ? 'account_gone' : 'not_found', null)
    if (!account.active) return refuse('suspended', account)
    if (account.log_seq !== log.log_seq || !equalBytes(account.log_head, log.log_head))
      return lostRace(client, request, user_id, entry_hash)
    user_no = account.user_no
    if (!(await mayWrite(client, user_no, body.signer))) return refuse('suspended', account)
    const refused = request.repair ? null : await judgeUnderLock(client, account, log, body)
    if (refused !== null) return refused
  }

  await client.query({ ...INSERT_ENTRY, values: [user_no, body.log_seq, request.entry.body, request.entry.sig, entry_hash] })
  if (log !== null) await client.query({ ...ADVANCE, values: [user_no, body.log_seq, entry_hash] })
  const revoked = await applyToDevices(client, user_no, body, request.repair)
  for (const [to, box] of Object.entries(request.boxes)) {
    const values = [user_no, body.log_seq, to === 'root' ? null : to, Buffer.from(fromBase64url(box))]
    await client.query({ ...INSERT_BOX, values })
  }
  for (const row of auditEntries(request, body)) await appendAudit(client, row)
  return { ok: true, log_seq: body.log_seq, log_head: entry_hash, user_no, already_known: false, revoked }
}

/** An operator may have suspended the signer: the log knows nothing of it. */
async function mayWrite(client: ClientBase, user_no: number, signer: string): Promise<boolean> {
  if (signer === 'root') return true
  return (await client.query({ ...IS_SUSPENDED, values: [user_no, signer] })).rowCount === 0
}

/** The rules that hold by what is stored: the rate, the names, the pins. */
async function judgeUnderLock(client: ClientBase, account: AccountRow, log: DeviceLog, body: LogBody): Promise<Refused | null> {
  const retry_after_ms = await waitForTurn(client, account.user_no, log, body)
  if (retry_after_ms > 0) return { ...refuse('rate_limited', account), retry_after_ms }
  const name = nameOf(body)
  // `recover` frees the names of the devices that it revokes
  if (name !== null && body.type !== 'recover') {
    const owner = await findNameOwner(client, account.user_no, name.name)
    if (owner !== null && owner !== name.device_id) return refuse('name_taken', account)
  }
  for (const { device_id, pins } of revocationsOf(body)) {
    if (pins === null) continue
    const row = (await client.query<{ last_seq: number }>({ ...LAST_SEQ, values: [account.user_no, device_id] })).rows[0]
    if (row !== undefined && row.last_seq > pins.last_device_seq) return refuse('heads_stale', account)
  }
  return null
}

async function applyToDevices(client: ClientBase, user_no: number, body: LogBody, repair: boolean) {
  const gone = revocationsOf(body).map(({ device_id }) => device_id)
  const revoked =
    gone.length === 0
      ? []
      : (await client.query<{ device_no: number; device_id: string }>({ ...REVOKE, values: [user_no, gone, body.log_seq] })).rows
  const name = nameOf(body)
  if (name === null) return revoked
  // an entry that comes back may bring a name that was given away since: the log rules, the device goes without a reserved name
  const owner = repair ? await findNameOwner(client, user_no, name.name) : null
  const key = owner === null || owner === name.device_id ? nameKey(name.name) : null
  if (body.type === 'rename_device') await client.query({ ...RENAME, values: [user_no, name.device_id, name.name, key] })
  if ('device' in body) {
    const { device_id, device_type, sign_pub } = body.device
    await client.query({ ...INSERT_DEVICE, values: [user_no, device_id, body.log_seq, device_type, name.name, key, sign_pub] })
  }
  return revoked
}

/** The account moved on between the verification and the lock: known already, or a conflict. */
async function lostRace(client: ClientBase, request: AppendRequest, user_id: Buffer, entry_hash: Bytes): Promise<AppendResult> {
  const account = await readAccount(client, FIND_ACCOUNT, user_id)
  if (account === null) return refuse('not_found', null)
  return (await findKnown(client, account, request, entry_hash)) ?? refuse('log_conflict', account)
}

/** An entry that is stored already is a success: the answer to it was lost, and what it means may not have been told. */
async function findKnown(client: ClientBase, account: AccountRow, request: AppendRequest, entry_hash: Bytes): Promise<AppendResult | null> {
  const log_seq = readLogSeq(request.entry.body)
  if (log_seq === null || log_seq > account.log_seq) return null
  const row = (await client.query<{ entry_hash: Buffer }>({ ...ENTRY_HASH, values: [account.user_no, log_seq] })).rows[0]
  if (row === undefined || !equalBytes(row.entry_hash, entry_hash)) return null
  const { user_no } = account
  const { rows: revoked } = await client.query<{ device_no: number; device_id: string }>({ ...REVOKED_BY, values: [user_no, log_seq] })
  return { ok: true, log_seq: account.log_seq, log_head: account.log_head, user_no, already_known: true, revoked }
}

/** Where the body says it belongs, without judging it; what it is worth is in its hash. */
function readLogSeq(body: Bytes): number | null {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
    const log_seq = typeof value === 'object' && value !== null && 'log_seq' in value ? value.log_seq : null
    return typeof log_seq === 'number' && Number.isSafeInteger(log_seq) && log_seq >= 0 ? log_seq : null
  } catch {
    return null
  }
}

async function readAccount(client: ClientBase, query: { name: string; text: string }, user_id: Buffer): Promise<AccountRow | null> {
  return (await client.query<AccountRow>({ ...query, values: [user_id] })).rows[0] ?? null
}

export async function isDeleted(client: ClientBase, user_id: Buffer): Promise<boolean> {
  const { rowCount } = await client.query({ ...IS_DELETED, values: [createHash('sha256').update(user_id).digest()] })
  return rowCount === 1
}

async function findNameOwner(client: ClientBase, user_no: number, name: string): Promise<string | null> {
  const { rows } = await client.query<{ device_id: string }>({ ...NAME_OWNER, values: [user_no, nameKey(name)] })
  return rows[0]?.device_id ?? null
}

function nameOf(body: LogBody): { device_id: string; name: string } | null {
  if (body.type === 'rename_device') return body.rename
  return 'device' in body ? body.device : null
}

function revocationsOf(body: LogBody) {
  return 'revoked' in body ? body.revoked : []
}

/** Names that differ only in case or composition look the same in a list of devices. Upper case first: ß and ss fold to one. */
export function nameKey(name: string): string {
  return name.normalize('NFC').toUpperCase().toLowerCase().normalize('NFC')
}

function refuse(code: Refused['code'], at: { log_seq: number; log_head: Bytes } | null, reason?: string): Refused {
  return { ok: false, code, log_seq: at?.log_seq ?? 0, log_head: at?.log_head ?? null, ...(reason === undefined ? {} : { reason }) }
}
