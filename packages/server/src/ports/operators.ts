/** Those who run the relay: the audit log, admins, what they see and decide (docs/operations/). */
import type { Bytes, Role } from '@sealpost/protocol'
import type { AuditCheckpoint, AuditHead, AuditRow } from '../audit/chain.ts'
import type { AuditEntry } from '../audit/entry.ts'
import type { AccountBatch } from './retention.ts'

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
  events: number
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
  /** Ends the sessions and tokens of its devices, or of one; they prove themselves again. Null: there is no such account or device. */
  endSessions(user_id: string, device_id: string | null): Promise<{ user_no: number; device_ids: string[] } | null>
  setUserQuota(user_id: string, quota: { bytes: number | null; streams: number | null; devices: number | null }): Promise<boolean>
  readFigures(): Promise<Figures>
  readDatabaseFigures(): Promise<DatabaseFigures>
}
