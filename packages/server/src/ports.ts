/**
 * What the parts of the server ask of each other: small interfaces that state guarantees. Adapters implement them
 * (`store/` on PostgreSQL, `bus/` in memory); the composition root (`server.ts`) wires them.
 *
 * `user_no`, `device_no` and `stream_no` are the store's internal numbers; `user_id` lives in `account` alone.
 */
import type { AuditCheckpoint, AuditHead, AuditRow } from './audit/chain.ts'
import type { AuditEntry, Origin } from './audit/entry.ts'
import type { Bytes, CloseName, Cursor, LogEntry, LogResultCode, PairingSlot, Role, ServerPart, Tip } from '@sealpost/protocol'

// ---------------------------------------------------------------- ingest (protocol.md §6)

/** One event of a run: what the store needs beside the client part, which it keeps verbatim. */
export type RunEvent = {
  stream_id: string
  flags: number
  client: Bytes
  /** ms; 0 = no ttl. */
  expires_at: number
  /** ms of the event_id when the event has a ttl, else 0. */
  made_at: number
}

/** Events of one device, contiguous from `first_seq`, of one session and one epoch. At most one run per device in a batch. */
export type Run = { user_no: number; device_no: number; session_id: string; first_seq: number; epoch: number; events: readonly RunEvent[] }

/** An event after the commit: its numbers and the bytes to relay. */
export type StoredEvent = ServerPart & { device_no: number; device_seq: number; stream_no: number; flags: number; client: Bytes }

export type Verdict =
  /** Committed; `events` in order of `device_seq`. */
  | { is: 'stored'; events: StoredEvent[] }
  /** The account row is locked by another writer: put the run back; alone (`patient`) after the third time. */
  | { is: 'busy' }
  | { is: 'not_active' }
  | { is: 'fenced' }
  /** `first_seq` ≤ the highest stored number: ask `readDuplicates`. */
  | { is: 'not_next'; expected_seq: number }
  | { is: 'gap'; expected_seq: number }
  | { is: 'stale_epoch'; expected_seq: number; log_seq: number }
  /** The event at `index` breaks the ttl rule by the database's clock; nothing of the run is stored. */
  | { is: 'event_expired' | 'clock_skew'; index: number; expected_seq: number }
  /** The stream limit of the user is reached by the event at `index`, or its stored bytes (`index` 0); nothing of the run is stored. */
  | { is: 'quota_exceeded'; index: number; expected_seq: number }

export type DuplicateVerdict =
  | { is: 'duplicate'; device_seq: number; position: number; stream_seq: number; received_at: number }
  /** Removed by retention: acked with position and stream_seq 0. */
  | { is: 'swept'; device_seq: number }
  | { is: 'conflict'; device_seq: number }

export interface IngestStore {
  /** One transaction, one round trip (new streams apart). Verdicts in the order of `runs`. Good runs commit though others are refused. */
  ingest(runs: readonly Run[], patient: boolean): Promise<Verdict[]>
  /** For events whose number is not above the highest stored one: same `event_id` and `sig` → duplicate. */
  readDuplicates(
    user_no: number,
    device_no: number,
    events: readonly { device_seq: number; flags: number; client: Bytes }[],
  ): Promise<DuplicateVerdict[]>
}

// ---------------------------------------------------------------- reading (protocol.md §5, §7)

export type PageRequest = {
  user_no: number
  /** Exclusive. */
  after: number
  /** Records at most. */
  limit: number
  /** Encoded records at most, in bytes; at least one record is returned when there is one. */
  bytes: number
  /** Own events to leave out: those of this device up to this number. */
  own: { device_no: number; upto_seq: number } | null
  /** Only these streams (queries). */
  streams: readonly string[] | null
}

/** "All that is for you in (after, upto] is in `events`." */
export type Page = {
  events: StoredEvent[]
  upto: number
  /** The entry at `upto`; null when retention took it or `upto` is 0. */
  tip: Tip | null
  head_position: number
  floor: number
}

export interface ReadStore {
  /** Looks at 10,000 positions at most; `upto` says how far it got. Reads the primary only (C7). */
  readPage(request: PageRequest): Promise<Page>
  /** `event_id` and `received_at` of the entry at a position. */
  readTip(user_no: number, position: number): Promise<Tip | null>
  /** Heads of many users in one query; accounts that are not there are left out. */
  readHeads(user_nos: readonly number[]): Promise<Map<number, { position: number; log_seq: number; standing: number }>>
}

// ---------------------------------------------------------------- devices and sessions (protocol.md §4)

export type DeviceRow = {
  user_no: number
  device_no: number
  user_id: string
  device_id: string
  sign_pub: Bytes
  /** Account and device are active. */
  active: boolean
  /** Set when the device was revoked: the entry that did it. */
  revoked_log_seq: number | null
  account_active: boolean
  /** The fence: the session that may write; null when none may. */
  session_id: string | null
  /** Access tokens of another version are ended. */
  token_version: number
  /** Raised by what an operator decides about the account or its devices. */
  standing: number
}

export type EstablishRequest = {
  user_no: number
  device_no: number
  session_id: string
  cursor: Cursor
  /** What the client knows as acked: the stored high-water mark becomes the greater of both. */
  last_device_seq: number
  /** The client's log position: entries above it are returned. Null = none. */
  log_seq: number | null
}

export type Established = {
  log_seq: number
  log_head: Bytes
  history_id: string
  head_position: number
  floor: number
  last_device_seq: number
  /** The client claimed more than the store had, in an unchanged history: a loss (logged as `acked_event_missing`). */
  acked_event_missing: boolean
  mode: 'live' | 'replay' | 'reset'
  /** Set when mode is `reset`. */
  reset_reason: 'history_changed' | 'cursor_unknown' | null
  entries: StoredLogEntry[]
}

export type EstablishResult =
  | { ok: true; established: Established }
  /** `reauthenticate`: the tokens of the reader were ended. */
  | { ok: false; code: 'device_revoked' | 'suspended' | 'auth_failed' | 'account_gone' | 'reauthenticate' }

/** Who only reads, and the version of the token that let it in. */
export type Reader = Pick<DeviceRow, 'user_no' | 'device_no' | 'token_version'>

export interface SessionStore {
  findDevice(user_id: string, device_id: string): Promise<DeviceRow | null>
  /** Writes the fence under the account's lock and reads heads, numbers and the cursor's entry in the same transaction. */
  establishSession(request: EstablishRequest): Promise<EstablishResult>
  /** The same without a fence, for who only reads; no entries. Its token is judged again with it. */
  judgeCursor(reader: Reader, cursor: Cursor): Promise<EstablishResult>
  /** Ends the fence if it is still this session. */
  endSession(user_no: number, device_no: number, session_id: string, seen: { position: number }): Promise<void>
  /** Coalesced: last time each of these devices was seen. */
  readPresence(user_no: number): Promise<{ device_id: string; last_seen: number | null; suspended: boolean }[]>
  touchDevices(rows: readonly { user_no: number; device_no: number; position: number }[]): Promise<void>
}

// ---------------------------------------------------------------- device log (protocol.md §2)

export type StoredLogEntry = { log_seq: number; body: Bytes; sig: Bytes; box: Bytes | null }

export type AppendRequest = {
  user_id: string
  entry: LogEntry
  boxes: Record<string, string>
  /** Restore of entries that a client knows (own box only, no pin, name or rate check). */
  repair: boolean
  /** What genesis needs beside the entry: the sign-up rule was checked by the caller. */
  allow_genesis: boolean
  /** With it a genesis uses up one use of this invite, or is `signup_closed`. */
  invite_hash?: Bytes | null
  /** Whence it came, for the audit log; null by a socket. */
  origin?: Origin | null
}

export type AppendResult =
  | {
      ok: true
      log_seq: number
      log_head: Bytes
      user_no: number
      already_known: boolean
      revoked: { device_no: number; device_id: string }[]
    }
  | {
      ok: false
      code: LogResultCode | 'account_gone' | 'suspended' | 'not_found'
      log_seq: number
      log_head: Bytes | null
      reason?: string
      /** Of `rate_limited`. */
      retry_after_ms?: number
    }

export interface LogStore {
  /** Verifies with the protocol's verifier and appends under the account's lock: compare-and-swap on (log_seq, prev_hash). */
  appendEntry(request: AppendRequest): Promise<AppendResult>
  /** Entries from `from_log_seq` on with the boxes of `recipient` (`device_id` or `root`), oldest first. */
  readEntries(
    user_no: number,
    recipient: string,
    from_log_seq: number,
    limit: number,
  ): Promise<{ entries: StoredLogEntry[]; has_more: boolean }>
  /** Who may sign an assertion for this account: the key of a device (also a revoked one) or of the root. */
  findSigner(
    user_id: string,
    signer: string,
  ): Promise<{ user_no: number; device_no: number | null; sign_pub: Bytes; active: boolean } | null>
  /** Its id is remembered, so that nothing brings it back. */
  isDeleted(user_id: string): Promise<boolean>
  /** The last record of each stream of a device, as tombstones, 300 at most. */
  readTips(user_no: number, device_id: string): Promise<{ last_device_seq: number; complete: boolean; records: StoredEvent[] } | null>
}

// ---------------------------------------------------------------- REST: mailboxes, assertions

export interface PairingStore {
  /** `slot_taken` when filled, `not_found` when the mailbox does not exist or has expired, `forbidden` for a foreign creator. */
  putSlot(
    mailbox_id: string,
    slot: PairingSlot,
    box: Bytes,
    creator: { user_no: number; device_no: number } | null,
  ): Promise<'ok' | 'slot_taken' | 'not_found' | 'forbidden'>
  readSlot(mailbox_id: string, slot: PairingSlot): Promise<Bytes | null>
  /** Deletes expired mailboxes and assertion ids, at most `limit` of each. */
  sweepExpired(limit: number): Promise<number>
}

export interface AssertionStore {
  /** False when this jti was used before (within 600 s). */
  rememberAssertion(jti: string, user_id: string): Promise<boolean>
}

// ---------------------------------------------------------------- accounts (protocol.md §10)

/** Times in ms; `revoked_log_seq` null = active. */
export type DeviceSummary = {
  device_id: string
  name: string
  device_type: 'mobile' | 'desktop' | 'web'
  added_log_seq: number
  revoked_log_seq: number | null
  last_seen: number | null
}

export type UserSummary = {
  user_id: Bytes
  created_at: number
  last_activity: number | null
  log_seq: number
  log_head: Bytes
  floor: number
  head_position: number
  stored_bytes: number
  /** How many there are. */
  devices: number
  streams: number
  events: number
}

/** For the audit log; by default the device or the root itself. */
export type DeletedBy = { actor?: string; origin: Origin }

export interface AccountStore {
  /** Active ones, or also the newest of the revoked; oldest first. */
  listDevices(user_no: number, include_revoked: boolean): Promise<DeviceSummary[]>
  readDevice(user_no: number, device_id: string): Promise<DeviceSummary | null>
  readLogHead(user_no: number): Promise<{ log_seq: number; log_head: Bytes } | null>
  readUser(user_no: number): Promise<UserSummary | null>
  /**
   * Deletes all of it in one transaction and remembers the hash of its id; the rows per table. By a device that is active at that
   * moment, or (null) by the root. Null: there is no such account or device.
   */
  deleteAccount(
    user_id: string,
    device_id: string | null,
    by?: DeletedBy,
  ): Promise<{ user_no: number; counts: Record<string, number> } | null>
}

/** One line of an export (docs/export.md). */
export type ExportRow = {
  kind: 'account' | 'device' | 'log_entry' | 'stream' | 'event' | 'refresh_family' | 'pairing'
  [name: string]: unknown
}

export interface ExportStore {
  /** All that is held, up to where the account stood in `user`. Throws `account_gone` when it is deleted meanwhile. */
  exportRows(user_no: number, user: UserSummary): AsyncIterable<ExportRow>
}

// ---------------------------------------------------------------- tokens (protocol.md §10)

export type FamilyRotation =
  /** The presented token was the current one and is used up; `generation` is that of the new one. */
  | { is: 'rotated'; generation: number; token_version: number }
  /** It was used up a moment ago: the answer was lost and is given again. */
  | { is: 'repeated'; generation: number; token_version: number }
  /** It was used up before: the family, the access tokens and the fence of the device are ended. */
  | { is: 'reused' }
  /** Of an earlier family of the device: another took its place. */
  | { is: 'replaced' }
  /** Of no family in force. */
  | { is: 'unknown' }

/** A key that signs tokens; times in ms. Not active yet: next. Retired: it verifies what it signed. */
export type SigningKeyRow = {
  generation: number
  public_key: Bytes
  created_at: number
  active_at: number | null
  retired_at: number | null
}

/** How long a key signs at least, how long it is published before, how long it verifies after; ms. */
export type KeySchedule = { active_ms: number; published_ms: number; retired_ms: number }

export interface TokenStore {
  /** Begins a family of refresh tokens in place of the one the device had. Null: the device is not active. */
  startFamily(
    user_no: number,
    device_no: number,
    family: { family_id: string; token_hash: Bytes },
    lifetime_ms: number,
  ): Promise<{ token_version: number } | null>
  /** Uses up a token whose MAC holds; one outcome among those who come at the same time. */
  rotateFamily(
    user_no: number,
    device_no: number,
    ask: { family_id: string; generation: number; token_hash: Bytes; next_hash: Bytes },
    rules: { grace_ms: number; lifetime_ms: number },
  ): Promise<FamilyRotation>
  /** Ends the family and every access token of the device. */
  endFamily(user_no: number, device_no: number): Promise<void>
  /** Deletes expired families, at most `limit`. */
  sweepTokens(limit: number): Promise<number>
}

export interface SigningKeyStore {
  /** Makes, activates, retires and drops keys as is due; foreign ones (of other secrets) are dropped. All that is in force then. */
  rotateSigningKeys(purpose: string, publicKeyOf: (generation: number) => Bytes, schedule: KeySchedule): Promise<SigningKeyRow[]>
}

// ---------------------------------------------------------------- retention (protocol.md §3)

/** Events of the stream of that name are kept whole for so long, of every user. */
export type StreamRule = { stream_id: string; age_ms: number }

/** What is kept, and how long; null = no such rule. Ages by the time of receipt, bytes as stored. */
export type RetentionRules = {
  /** Older events are removed. */
  age_ms: number | null
  /** Older events of these streams become tombstones. */
  streams: readonly StreamRule[]
  /** Above it the oldest events of a stream become tombstones. */
  stream_bytes: number | null
  /** Of all users together: above it the largest accounts lose their oldest events. */
  bytes: number | null
  /** Older tombstones are removed where nothing whole stands before them. */
  tombstone_ms: number | null
  /** After it the boxes of a revoked device, and what tells of its activity, are removed. */
  revoked_ms: number | null
}

/** A batch of another node is under way; nothing was done. */
export type Taken = { is: 'taken' }
/** What one batch did; `more`: the same call may find more. `held`: another writer has the account; nothing was done. */
export type AccountBatch = { is: 'done'; rows: number; bytes: number; more: boolean } | { is: 'held' } | Taken
/** An account, and whether a rule has work there. */
export type AccountDue = { user_no: number; due: boolean }

/** Each change is one bounded transaction that waits for no lock. Stored bytes are counted exactly. */
export interface RetentionStore {
  /**
   * Expired events (by the tolerance for clocks) with `expires_at` above `after` become tombstones. `skipped`: those of accounts
   * that other writers hold; `last`: `after` of the next call, null when there was nothing.
   */
  sweepExpiredEvents(after: number): Promise<{ is: 'done'; rows: number; bytes: number; skipped: number; last: number | null } | Taken>
  /** Removes the oldest events of a user that a rule takes, as a prefix of its positions; `bytes`: what it may keep. */
  removePrefix(user_no: number, rule: Pick<RetentionRules, 'age_ms' | 'tombstone_ms' | 'bytes'>): Promise<AccountBatch>
  /** The oldest events of single streams become tombstones, until the rules hold. */
  sweepStreams(user_no: number, rules: readonly StreamRule[], stream_bytes: number | null): Promise<AccountBatch>
  /** `next`: `after` of the next call, null when all were looked at. */
  clearRevoked(
    older_ms: number,
    after: { user_no: number; device_no: number },
  ): Promise<{ is: 'done'; rows: number; next: { user_no: number; device_no: number } | null } | Taken>
  /** The next accounts by number, with whether `removePrefix` by age has work. */
  findAgedAccounts(after: number, limit: number, rule: Pick<RetentionRules, 'age_ms' | 'tombstone_ms'>): Promise<AccountDue[]>
  /** The next accounts by number, with whether `sweepStreams` has work. */
  findRuledAccounts(after: number, limit: number, rules: readonly StreamRule[], stream_bytes: number | null): Promise<AccountDue[]>
  /** The next accounts by number, with their stored bytes. */
  readSizes(after: number, limit: number): Promise<{ user_no: number; bytes: number }[]>
}

// ---------------------------------------------------------------- audit (docs/operations/audit.md)

export type AuditFilter = { action?: string | undefined; actor?: string | undefined; user_id?: string | undefined }

export interface AuditStore {
  /** Appends in one transaction; resolves when they are on disk. What belongs to a change of the store is appended with the change. */
  appendAudit(entries: readonly AuditEntry[]): Promise<void>
  /** Rows after `from` (exclusive), or before it when the newest come first; 1,000 at most. */
  readAudit(from: number, newest_first: boolean, filter: AuditFilter, limit: number): Promise<AuditRow[]>
  /** Of one moment. */
  readAuditEnds(): Promise<{ head: AuditHead; checkpoints: AuditCheckpoint[] }>
  /** Signs the head when `due.rows` were appended since the last checkpoint, or any and `due.ms` have passed; null when not. */
  addAuditCheckpoint(sign: (bytes: Bytes) => Bytes, due: { rows: number; ms: number }): Promise<{ seq: number; hash: string } | null>
  /** Removes rows up to the oldest checkpoint behind them, when that is so old. */
  removeOldAudit(older_ms: number): Promise<AccountBatch>
}

// ---------------------------------------------------------------- operators (docs/operations/admin.md)

/** Times in ms. */
export type AdminRow = {
  admin_id: string
  name: string
  role: Role
  public_key: Bytes
  created_at: number
  removed_at: number | null
}

export type InviteRow = {
  invite_id: string
  created_at: number
  expires_at: number
  revoked_at: number | null
  uses_max: number
  uses: number
  note: string | null
}

export type OwnerChange = 'ok' | 'not_found' | 'last_owner'

export interface AdminStore {
  /** Also one who was removed. */
  findAdmin(admin_id: string): Promise<AdminRow | null>
  listAdmins(): Promise<AdminRow[]>
  /** `exists`: of another role or name, removed, or the name is taken; with `first`, also when there is an owner. */
  addAdmin(
    admin: { admin_id: string; role: Role; name: string; public_key: Bytes },
    first: boolean,
  ): Promise<{ is: 'ok' } | { is: 'exists' }>
  setAdminRole(admin_id: string, role: Role): Promise<OwnerChange>
  removeAdmin(admin_id: string): Promise<OwnerChange>
  /** Values are JSON. */
  readSettings(): Promise<{ name: string; value: string; changed_at: number }[]>
  /** Null takes it away. */
  setSetting(name: string, value: string | null): Promise<void>
  /** Newest first. */
  listInvites(before: { created_at: number; invite_id: string } | null, limit: number): Promise<InviteRow[]>
  addInvite(invite: { invite_id: string; lifetime_ms: number; uses_max: number; note: string | null; code_hash: Bytes }): Promise<InviteRow>
  revokeInvite(invite_id: string): Promise<boolean>
  /** Deletes invites that ended long ago, at most `limit`. */
  sweepInvites(limit: number): Promise<number>
}

export type OperatedUser = {
  user_no: number
  user_id: string
  created_at: number
  suspended_at: number | null
  last_activity: number | null
  log_seq: number
  floor: number
  head_position: number
  stored_bytes: number
  devices: number
  /** In place of the configuration; null = as configured. */
  quota_bytes: number | null
  quota_streams: number | null
  quota_devices: number | null
}

export type OperatedDevice = {
  device_id: string
  name: string
  device_type: 'mobile' | 'desktop' | 'web'
  active: boolean
  suspended_at: number | null
  revoked_log_seq: number | null
  last_seen: number | null
  /** It holds the fence: some node has a session of it. */
  has_session: boolean
}

/** Of `accounts`, `devices` and `events` the estimates of the database. */
export type Figures = { accounts: number; suspended: number; devices: number; events: number; database_bytes: number }

export type DatabaseFigures = {
  version: string
  bytes: number
  fsync: string
  synchronous_commit: string
  full_page_writes: string
  connections_max: number
  connections: number
  schema_version: number
}

/** What an operator sees of accounts, and decides; no payload and no log entry is among it. */
export interface OperatedStore {
  /** By `user_no` above `after`; `suspended` null = all. */
  listUsers(after: number, suspended: boolean | null, limit: number): Promise<OperatedUser[]>
  readOperatedUser(user_id: string): Promise<OperatedUser | null>
  listOperatedDevices(user_id: string): Promise<OperatedDevice[]>
  /** Shuts out, or lets in again; null: there is no such account. */
  suspendUser(user_id: string, suspended: boolean): Promise<{ user_no: number; device_ids: string[] } | null>
  /** Null: there is no such device, or it was revoked. */
  suspendDevice(user_id: string, device_id: string, suspended: boolean): Promise<{ user_no: number; device_ids: string[] } | null>
  setUserQuota(user_id: string, quota: { bytes: number | null; streams: number | null; devices: number | null }): Promise<boolean>
  readFigures(): Promise<Figures>
  readDatabaseFigures(): Promise<DatabaseFigures>
}

// ---------------------------------------------------------------- the whole store

export interface Store
  extends IngestStore,
    ReadStore,
    SessionStore,
    LogStore,
    PairingStore,
    AssertionStore,
    TokenStore,
    SigningKeyStore,
    AccountStore,
    ExportStore,
    RetentionStore,
    AuditStore,
    AdminStore,
    OperatedStore {
  readonly history_id: string
  /** Resolves when one trivial query was answered in time. */
  ping(): Promise<void>
  /** ms, the database's clock, estimated locally between round trips. */
  now(): number
  close(): Promise<void>
}

// ---------------------------------------------------------------- bus: hints between sessions and nodes (protocol.md §7)

/** What is told to all sessions of a user. A hint: lost, doubled or late ones change latency only. */
export type Hint =
  | { is: 'committed'; events: readonly StoredEvent[] }
  | { is: 'log'; log_seq: number; revoked: readonly string[] }
  | { is: 'superseded'; device_id: string; session_id: string }
  | { is: 'presence'; device_id: string; online: boolean; last_seen: number; suspended?: boolean }
  /** The account is gone: its sessions end with 4410. */
  | { is: 'deleted' }
  /** The live session of this device is to end with this code. */
  | { is: 'ended'; device_id: string; name: CloseName }

export interface Bus {
  /** Never throws and never blocks; order per user is kept on one node. */
  publish(user_no: number, hint: Hint): void
  /** Returns the way to unsubscribe; after it no hint arrives. */
  subscribe(user_no: number, receive: (hint: Hint) => void): () => void
  close(): Promise<void>
}
