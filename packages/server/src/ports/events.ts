/** Events: how they come in, are read, and are told of (protocol.md §5, §6, §7). */
import type { Bytes, ServerPart, Tip } from '@sealpost/protocol'

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
  | { is: 'quota_exceeded' | 'too_many_streams'; index: number; expected_seq: number }

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

/** What a session was told, and by what it is one: the fence for a device, the version of its token for a reader. */
export type SessionPlace = {
  user_no: number
  device_no: number
  position: number
  log_seq: number
  by: { session_id: string } | { token_version: number }
}

/** `same`: all is as it was told. `entitled`: it may go on. */
export type SessionStanding = { is: 'same' } | { is: 'gone' } | { is: 'moved'; position: number; log_seq: number; entitled: boolean }

export interface ReadStore {
  /** Looks at 10,000 positions at most; `upto` says how far it got. Reads the primary only (C7). */
  readPage(request: PageRequest): Promise<Page>
  /** `event_id` and `received_at` of the entry at a position. */
  readTip(user_no: number, position: number): Promise<Tip | null>
  /** Compares many sessions with the store in one query; the answers in the order of the questions. */
  compareSessions(sessions: readonly SessionPlace[]): Promise<SessionStanding[]>
}

// ---------------------------------------------------------------- bus: hints between sessions and nodes (protocol.md §7)

/**
 * What is told to all sessions of a user. A hint: lost, doubled, late or reordered ones change latency only. So what it says is a
 * fact that stays one (`committed` and `log` of a history, `deleted`), or only that the store is to be asked (`device`).
 */
export type Hint =
  | { is: 'committed'; history_id: string; events: readonly StoredEvent[] }
  | { is: 'log'; history_id: string; log_seq: number; revoked: readonly string[] }
  /** What this device may do has changed, or which session may do it: `session_id`, where it is one that was opened. */
  | { is: 'device'; device_id: string; session_id?: string }
  | { is: 'presence'; device_id: string; online: boolean; last_seen: number; suspended?: boolean }
  /** The account is gone: its sessions end with 4410. */
  | { is: 'deleted' }

/** Whether hints of other nodes arrive; `alone`: there is no way by which they could. */
export type Reach = 'alone' | 'up' | 'down'

export interface Bus {
  /** Never throws and never blocks; order per user is kept on one node. Subscribers on this node have it before it returns. */
  publish(user_no: number, hint: Hint): void
  /** Returns the way to unsubscribe; after it no hint arrives. */
  subscribe(user_no: number, receive: (hint: Hint) => void): () => void
  /** Users whose hints are received here (G13). */
  subscriptions(): number
  reach(): Reach
  /** Told of every change. At `up`, hints may have been lost before. */
  onReach(listener: (reach: Reach) => void): void
  close(): Promise<void>
}
