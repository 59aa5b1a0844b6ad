/** What is kept, and how long (protocol.md §3). */

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
