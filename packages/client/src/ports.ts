/**
 * What the engine asks of the place it runs in: a durable store, the other processes of the same home, sockets, HTTP and
 * time. Small interfaces that state guarantees; `node/` implements them on Node, a browser can do so on IndexedDB, Web Locks
 * and the global WebSocket. Every method of the store is asynchronous for that reason, also where SQLite would answer at once.
 *
 * Invariant: each writing method of the store is ONE transaction, and when it resolves the write survives a power cut.
 * The engine relies on it: bytes leave only after `sealItems`, a cursor moves only together with its events.
 * Failures are `SealpostError`: `disk` (refused write), `state_damaged`, `state_newer`, `already_paired`.
 */
import type { Bytes, Crypto, DeviceType } from '@sealpost/protocol'

/** All that one device needs. `openHome` of `@sealpost/client/node` makes one from a folder. */
export interface Home {
  readonly store: DeviceStore
  readonly coordination: Coordination
  readonly transport: Transport
  readonly http: Http
  readonly clock: Clock
  readonly crypto: Crypto
  /** Ends coordination, then the store. The engine calls it in `Sealpost.close()`; calling it twice is harmless. */
  close(): Promise<void>
}

// ---------------------------------------------------------------- store: identity

export type Identity = {
  user_id: string
  device_id: string
  name: string
  device_type: DeviceType
  /** `https://host[:port]` (or http on loopback), no path, no pin. */
  server_url: string
  /** The pinned key, 32 bytes. */
  server_key: Bytes
  /** Private: Ed25519 seed and X-Wing seed, 32 bytes each. */
  sign_seed: Bytes
  kem_seed: Bytes
  created_at: number
}

/** What stays of a device after a verified revocation. */
export type Revocation = { user_id: string; device_id: string; by: string; by_name: string; at: number; log_seq: number }

/** One entry of the device log as stored: exact bytes, this device's box, and what was made of it. */
export type LogRow = {
  log_seq: number
  entry_hash: Bytes
  body: Bytes
  sig: Bytes
  /** Sealed epoch key for this device; null when the entry has none for it. */
  box: Bytes | null
  /** The opened epoch key; null as long as it was not opened. */
  epoch_key: Bytes | null
  /** ms, this device's clock: rotation rules count from here. */
  first_seen: number
}

// ---------------------------------------------------------------- store: outbox

/** `queued_at`: ms, this device's clock; the item's age counts from it. */
export type NewItem = { event_id: string; stream_id: string; type: string; ttl: number | null; data: Bytes; queued_at: number }

/** Items set aside that are kept whole: above either bound the oldest go. */
export const ASIDE_KEPT = { items: 10_000, bytes: 64 * 1_048_576 } as const

/** What is made when an item is sealed for sending (protocol.md §3). `record` has no server part and is sent verbatim on every retry. */
export type Sealed = { device_seq: number; epoch: number; event_hash: Bytes; record: Bytes }

/** An outbox item that waits to be sent. `event_id` is the one of the event, whatever it was queued as. `item_no` is the order of sending: 1, 2, 3 … over all processes, never reused. */
export type PendingItem = NewItem & { item_no: number; sealed: Sealed | null }

export type ItemAck = { event_id: string; device_seq: number; position: number; stream_seq: number; received_at: number }

/** `queued_id`: the `event_id` under which it was queued. A stamp that is corrected, or made anew, gives the event another one. */
export type OutcomeRow = { event_id: string; queued_id: string } & (
  | { state: 'pending' }
  | { state: 'acked'; position: number; stream_seq: number; received_at: number }
  /** Refused, and kept whole. */
  | { state: 'set_aside'; code: string }
  | { state: 'rejected'; code: string }
)

/** What the outbox holds, without the data. `code` null: it waits to be sent. `sealed`: its bytes may have left. */
export type OutboxRow = {
  item_no: number
  event_id: string
  queued_id: string
  stream_id: string
  type: string
  ttl: number | null
  bytes: number
  queued_at: number
  code: string | null
  sealed: boolean
}

// ---------------------------------------------------------------- store: receiving

/** `{position 0, nulls}` before anything was received. */
export type StoredCursor = { position: number; event_id: string | null; received_at: number | null; history_id: string | null }

/** `ChainHead` of the protocol package. */
export type StoredHead = { device_seq: number; event_hash: Bytes; epoch: number; position: number }

/** Key: `${device_id}/${stream_id}`, as in the protocol package; own chains too (the last acked event of each stream). */
export type HeadChange = { key: string /** Null removes the chain. */; head: StoredHead | null }

/** What the receive path keeps. `history_id` of the cursor is the timeline that all positions belong to. */
export type ReceiveState = {
  cursor: StoredCursor
  heads: ReadonlyMap<string, StoredHead>
  /** Highest own number known as acked; 0 at first. */
  acked_device_seq: number
}

/** A row of the local buffer, in the order in which it was stored. `position` 0 where a notice has none. */
export type ReceivedItem =
  | {
      is: 'event'
      position: number
      stream_id: string
      stream_seq: number
      event_id: string
      type: string
      device_id: string
      received_at: number
      /** Seconds; null = none. */
      ttl: number | null
      data: Bytes
    }
  /** `stream_id` null: a notice for every stream. */
  | {
      is: 'notice'
      position: number
      stream_id: string | null
      /** JSON text of a gap, an alarm or a reset; of a reset the store knows that positions begin anew behind it (`isReset`). */
      notice: string
    }

/** `row_no`: 1, 2, 3 …, given by the store in `commitReceived`, never reused, also not after a reset or a trim. */
export type ReceivedRow = ReceivedItem & { row_no: number }

export type AlarmRow = { position: number; device_id: string; reason: string; at: number }

/** One message (page or live batch): everything of it is stored together or not at all. */
export type ReceivedCommit = {
  items: readonly ReceivedItem[]
  /** Absent: the cursor stays (hand-over during a reset, alarms). */
  cursor?: StoredCursor
  /** Changed chain heads only. */
  heads: readonly HeadChange[]
  /** Own events met in the stream: the outbox items with these event_ids become `acked`; unknown ids are ignored. */
  acks: readonly ItemAck[]
  /** Raises `acked_device_seq`; a lower value changes nothing. */
  acked_device_seq?: number
  alarms: readonly AlarmRow[]
}

/** Rows with `row_no` ≤ `trimmed_row` are gone; their positions since the last reset among them are ≤ `trimmed_position`. `last_row` 0 = nothing ever stored. */
export type ReceivedEdges = { trimmed_row: number; trimmed_position: number; last_row: number }

/** Where a consumer of a stream stands: all up to `done_*` was taken; up to `handed_row` it may have been seen before a crash. */
export type ConsumerState = { done_row: number; done_position: number; handed_row: number }

/** Rows kept at most in the buffer. Whoever is further behind fills the hole by a query. */
export type TrimBounds = { rows: number; bytes: number }

/**
 * The durable state of one device. Several processes may have it open: any of them reads, adds outbox items and moves its
 * consumers; everything else is written by the leader alone (see `Coordination`). Reads see all writes that resolved
 * before in any process.
 */
export interface DeviceStore {
  // ------------------------------ identity
  /** Null: no device here (never paired, or revoked and wiped). */
  readIdentity(): Promise<Identity | null>
  /** Identity and first log entries together. Throws `already_paired` when a device lives here; a former revocation is forgotten and everything of the former device removed. */
  createIdentity(identity: Identity, entries: readonly LogRow[]): Promise<void>
  /** Follows a chain of server keys, a move of the server, or a rename. */
  updateIdentity(change: Partial<Pick<Identity, 'server_url' | 'server_key' | 'name'>>): Promise<void>
  /** Removes both private keys, all epoch keys and boxes, plaintexts and sealed bytes of the outbox, and the received buffer, and remembers who did it; null: the account was deleted from here, nothing is remembered. Best effort against recovery from disk (secure_delete, checkpoint). */
  wipe(revocation: Revocation | null): Promise<void>
  readRevocation(): Promise<Revocation | null>

  // ------------------------------ device log (protocol.md §2)
  /** All entries, ascending from 0 without holes. Throws `state_damaged` when they are fewer than the high-water mark says. */
  readLog(): Promise<LogRow[]>
  /** Appends the next entries and raises the high-water mark with them; throws `log_fork` when a known `log_seq` has another `entry_hash` (the same one again is fine), `state_damaged` on a hole. */
  appendLog(rows: readonly LogRow[]): Promise<void>
  saveEpochKeys(keys: readonly { log_seq: number; epoch_key: Bytes }[]): Promise<void>

  // ------------------------------ outbox (protocol.md §3, §4)
  /** Durable when it resolves; all or nothing; `item_no`s in the order given. Any process. */
  enqueue(items: readonly NewItem[]): Promise<void>
  /**
   * The same with their sealed forms, in one transaction, for a leader that sends at once. Null, and nothing is stored, when a
   * pending item with `item_no` > `after_item` is there already: it goes first. Returns the `item_no`s.
   */
  enqueueSealed(items: readonly (NewItem & { sealed: Sealed })[], after_item: number): Promise<number[] | null>
  /** Pending items with `item_no` > `after_item`, ascending; ends at `limit` items or when their data exceed `bytes` (at least one if there is one). */
  readPending(after_item: number, limit: number, bytes: number): Promise<PendingItem[]>
  /**
   * Sealed forms of pending items, before the bytes leave, under these `event_id`s. Overwrites an older sealed form. False, and
   * nothing is stored, when one of the items does not wait any more: another process dropped it.
   */
  sealItems(rows: readonly (Sealed & { item_no: number; event_id: string })[]): Promise<boolean>
  /** Takes the sealed form from all pending items with `item_no` ≥ `from_item`: their numbers are given back. */
  unsealItems(from_item: number): Promise<void>
  /** Items become `acked` (data and sealed bytes removed, outcome kept), `acked_device_seq` rises, own heads move: together. */
  ackItems(acks: readonly ItemAck[], acked_device_seq: number, heads: readonly HeadChange[]): Promise<void>
  /**
   * Pending items become `set_aside` with their code (data kept, sealed bytes removed), and all pending items behind the first of them
   * lose their sealed form: together. Above `ASIDE_KEPT` the oldest that are set aside become `rejected`, and their data is gone.
   */
  setAsideItems(rows: readonly { item_no: number; code: string }[]): Promise<void>
  /** Items that were set aside are queued anew, as the last ones and under a new `event_id`; the others are left out. Returns the `queued_id`s. Any process. */
  renewItems(rows: readonly { queued_id: string; event_id: string }[], queued_at: number): Promise<string[]>
  /** Items that are set aside, or pending and not sealed, become `rejected` with `aborted`, and their data is gone; the others are left out. Returns the `queued_id`s. Any process. */
  dropItems(queued_ids: readonly string[]): Promise<string[]>
  /** What is pending or set aside, ascending from behind `after_item`. Any process. */
  readOutbox(after_item: number, limit: number): Promise<OutboxRow[]>
  /** By `event_id` or `queued_id`, in the order asked; an unknown or forgotten id is left out. At least the latest 100,000 outcomes are kept. Any process. */
  readOutcomes(event_ids: readonly string[]): Promise<OutcomeRow[]>
  countOutbox(): Promise<{ pending: number; set_aside: number; rejected: number; last_item: number; first_pending: number | null }>

  // ------------------------------ receiving (protocol.md §3, §5)
  readReceiveState(): Promise<ReceiveState>
  commitReceived(commit: ReceivedCommit): Promise<void>
  /** Rows of this stream (and notices for every stream) with `row_no` > `after_row`, ascending; ends like `readPending`. Any process. */
  readReceived(stream_id: string, after_row: number, limit: number, bytes: number): Promise<ReceivedRow[]>
  readReceivedEdges(): Promise<ReceivedEdges>
  /** Drops the oldest rows above the bounds and moves the edges. The leader calls it now and then. */
  trimReceived(bounds: TrimBounds): Promise<void>
  /** Any process. */
  readConsumer(consumer: string, stream_id: string): Promise<ConsumerState | null>
  /** Raises `handed_row`; `done_row` and `done_position` move together when `done_row` is above the stored one; at the same row `done_position` is raised. Any process. May be flushed with the next durable write: losing it makes events come again, marked `redelivered`. `handed_row` must not be lost to a killed process (a power cut may). */
  saveConsumer(consumer: string, stream_id: string, state: ConsumerState): Promise<void>
  readAlarms(limit: number): Promise<AlarmRow[]>
  countAlarms(): Promise<number>

  // ------------------------------ small facts (JSON values, ≤ 64 KiB each)
  /** Undefined when it was never written. */
  readNote(key: string): Promise<unknown>
  writeNote(key: string, value: unknown): Promise<void>

  close(): Promise<void>
}

// ---------------------------------------------------------------- the processes of one home

/** A request between processes of a home: a JSON head and bytes. Both ends bound it to 2 MiB. */
export type HomeMessage = { head: Record<string, unknown>; body: Bytes }

/**
 * One process per home leads: it holds the connection and writes what only the leader writes. Leadership is a lock that
 * dies with the process (never a file that stays), so at no time two processes lead.
 */
export interface Coordination {
  /** Becomes the leader, or finds the one there is; retries for a while when a leader is just coming or going, then throws `timeout`. */
  lead(signal?: AbortSignal): Promise<LeaderSeat | LeaderLink>
}

/** This process leads. */
export interface LeaderSeat {
  readonly role: 'leader'
  /** Tells every follower that rows changed. Coalesced, never throws; a hint: followers also look by themselves now and then. */
  wake(): void
  /** Called for each wake of a follower (coalesced). */
  onWake(listener: () => void): void
  /** Answers requests of followers, several at a time. A thrown SealpostError arrives there with its code and sentence, any other error as `internal`. `signal` aborts when the follower gives up or goes. Set before the first request is read. */
  onRequest(answer: (request: HomeMessage, signal: AbortSignal) => Promise<HomeMessage>): void
  /** Gives the seat up; followers notice at once. */
  resign(): Promise<void>
}

/** Another process leads. */
export interface LeaderLink {
  readonly role: 'follower'
  /** Tells the leader that there is something in the outbox. Never throws. */
  wake(): void
  /** Called for each wake of the leader (coalesced). */
  onWake(listener: () => void): void
  /** Throws what the leader threw; `unreachable` when the leader goes before the answer; `aborted` with the signal. */
  request(message: HomeMessage, signal?: AbortSignal): Promise<HomeMessage>
  /** Resolves when the leader is gone (or `close` was called): the time to call `lead` again. */
  readonly ended: Promise<void>
  close(): Promise<void>
}

// ---------------------------------------------------------------- sockets, HTTP, time

/**
 * A WebSocket that keeps the order of frames. `connect` returns at once; handlers are called one at a time, `opened` first,
 * `closed` exactly once and last (1006 when it never opened, was lost, or the subprotocol was not echoed).
 */
export interface Transport {
  connect(url: string, protocols: readonly string[], handlers: TransportHandlers): Connection
}

export type TransportHandlers = {
  opened(): void
  text(text: string): void
  binary(bytes: Bytes): void
  closed(code: number, reason: string, cause?: unknown): void
}

export interface Connection {
  sendText(text: string): void
  /** The array is not touched again by the caller. Nothing happens when the socket is not open. */
  sendBinary(bytes: Bytes): void
  /** Bytes handed over and not yet written to the network. */
  readonly buffered_amount: number
  /** Stops and resumes reading: back-pressure on the server while the store works. Without effect where the platform cannot (browsers). */
  pause(): void
  resume(): void
  /** Closing handshake; ended by force 2 s later. */
  close(code?: number, reason?: string): void
}

export type HttpRequest = {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  url: string
  headers?: Record<string, string>
  body?: Bytes
  /** Until the whole answer is read. */
  timeout_ms: number
  signal?: AbortSignal
}
export type HttpResponse = { status: number; headers: Record<string, string>; body: Bytes }
/** The body as it comes; it throws `unreachable` when it is broken off, `timeout` when nothing comes for as long as the request says. */
export type HttpStream = { status: number; headers: Record<string, string>; body: AsyncIterable<Bytes> }

export interface Http {
  /** Any status is an answer. Throws `unreachable` (no answer), `timeout`, `aborted`, `too_large` (answer above 8 MiB). No redirects. */
  request(request: HttpRequest): Promise<HttpResponse>
  /** An answer of any length; `timeout_ms` is for each wait. To leave the body before its end ends the request. */
  stream(request: HttpRequest): Promise<HttpStream>
}

export interface Clock {
  /** ms since 1970. May jump. */
  now(): number
  /** ms, never goes back. */
  mono(): number
  /** Calls once after `ms`; returns the way to cancel. Such a timer alone does not keep a process alive when `background` is set. */
  setTimer(ms: number, call: () => void, background?: boolean): () => void
}
