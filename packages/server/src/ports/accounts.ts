/** Accounts, what is exported of them, and tokens (protocol.md §10). */
import type { Bytes } from '@sealpost/protocol'
import type { Origin } from '../audit/entry.ts'

// ---------------------------------------------------------------- accounts (protocol.md §10)

/** Times in ms; `revoked_log_seq` null = active. */
export type DeviceSummary = {
  device_id: string
  name: string
  device_type: 'mobile' | 'desktop' | 'web'
  added_log_seq: number
  revoked_log_seq: number | null
  online: boolean
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
  /** In place of the configuration; null = as configured. */
  quota_bytes: number | null
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
  kind: 'account' | 'device' | 'log_entry' | 'stream' | 'event' | 'refresh_family' | 'pairing' | 'audit'
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
  /** Ends the family, every access token and the fence of the device. */
  endFamily(user_no: number, device_no: number): Promise<void>
  /** Deletes expired families, at most `limit`. */
  sweepTokens(limit: number): Promise<number>
}

export interface SigningKeyStore {
  /** Makes, activates, retires and drops keys as is due; foreign ones (of other secrets) are dropped. All that is in force then. */
  rotateSigningKeys(purpose: string, publicKeyOf: (generation: number) => Bytes, schedule: KeySchedule): Promise<SigningKeyRow[]>
}
