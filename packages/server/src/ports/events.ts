/** Events: how they come in, are read, and are told of (protocol.md §5, §6, §7). */
import type { Bytes, CloseName, ServerPart, Tip } from '@sealpost/protocol'

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
