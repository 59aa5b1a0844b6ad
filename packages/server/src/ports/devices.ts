/** Devices: their sessions, the device log, the mailboxes by which they come in (protocol.md §2, §4, §10). */
import type { Bytes, Cursor, LogEntry, LogResultCode, PairingSlot } from '@sealpost/protocol'
import type { Origin } from '../audit/entry.ts'
import type { StoredEvent } from './events.ts'

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
}

export type EstablishRequest = {
  user_no: number
  device_no: number
  session_id: string
  /** Of this process, which has it open; null: nobody has, it is for requests. */
  node_no: number | null
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

/** `last_seen` in ms; null = never. `suspended`: by an operator. */
export type PresenceRow = { device_id: string; online: boolean; last_seen: number | null; suspended: boolean }

/** `follower_node`: of this process, while the device follows by REST over it. */
export type Contact = { user_no: number; device_no: number; position: number; follower_node: number | null }

export interface SessionStore {
  findDevice(user_id: string, device_id: string): Promise<DeviceRow | null>
  /** Writes the fence under the account's lock and reads heads, numbers and the cursor's entry in the same transaction. */
  establishSession(request: EstablishRequest): Promise<EstablishResult>
  /** The same without a fence, for who only reads; no entries. Its token is judged again with it. */
  judgeCursor(reader: Reader, cursor: Cursor): Promise<EstablishResult>
  /** Ends the fence if it is still this session. True: the device is offline now. */
  endSession(user_no: number, device_no: number, session_id: string, seen: { position: number }): Promise<boolean>
  /** The device follows by REST over this node, or no longer does. True: it is offline now. */
  setFollower(reader: Pick<Reader, 'user_no' | 'device_no'>, node_no: number, follows: boolean): Promise<boolean>
  readPresence(user_no: number): Promise<PresenceRow[]>
  /** Of many users in one query; who has no device online is left out. */
  readOnline(user_nos: readonly number[]): Promise<Map<number, string[]>>
  /** Coalesced: last time each of these devices was seen. */
  touchDevices(rows: readonly Contact[]): Promise<void>
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
