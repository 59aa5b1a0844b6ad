/**
 * The words of the session machine (protocol.md §4, §5): what a connection can know (`State`), what can happen to it
 * (`Input`), and what it asks of its surroundings (`Effect`). Plain data; the rules are in `session.ts`.
 */
import type {
  AckRow,
  Bytes,
  ClientAuthBody,
  ClientHead,
  ClientHeadOf,
  CloseName,
  Cursor,
  ErrorCode,
  NackCode,
  ServerHead,
  ServerHeadOf,
  SessionKeys,
  Tip,
} from '@sealpost/protocol'
import type {
  AppendResult,
  DeviceRow,
  EstablishRequest,
  EstablishResult,
  Hint,
  Page,
  PageRequest,
  Reader,
  Run,
  StoredEvent,
  StoredLogEntry,
} from '../ports/store.ts'

/** The bounds a session works under; units in the names (`LIMITS` of the protocol has the defaults). */
export type Rules = {
  frame_bytes: number
  payload_bytes: number
  batch_events: number
  inflight_events: number
  inflight_bytes: number
  replay_events: number
  replay_events_default: number
  replay_pages: number
  /** Requests of a client that wait for an answer; above it nothing is read. */
  requests: number
  handshake_step_ms: number
  rekey_deadline_ms: number
  rekey_after_ms: number
  rekey_after_frames: number
  /** Between two rekeys that the client wishes. */
  rekey_rest_ms: number
}

// ---------------------------------------------------------------- states

/** The device that proved itself; `sign_pub` is empty where it did so by a token. */
export type Who = Pick<DeviceRow, 'user_no' | 'device_no' | 'user_id' | 'device_id' | 'sign_pub'>

export type State =
  /** Connected; nothing is known. */
  | { at: 'hello' }
  /** The client_hello is being answered. */
  | { at: 'answering' }
  /** Both hellos are out: there are keys, and no device yet. */
  | { at: 'proving'; keys: SessionKeys }
  /** The device is looked up and its signature checked. */
  | { at: 'authenticating'; keys: SessionKeys; auth: ClientAuthBody | null }
  /**
   * The device is known; the fence is being written, or for a reader only the cursor judged. `head`, `log_seq`: the highest position
   * and entry heard of meanwhile.
   */
  | {
      at: 'establishing'
      keys: SessionKeys | null
      auth: Pick<ClientAuthBody, 'cursor' | 'last_device_seq' | 'log_seq'>
      who: Who
      head: number
      log_seq: number
      /** Of a reader. */
      token_version: number | null
      /** Something was decided about the device meanwhile. */
      changed: boolean
    }
  /** The device was revoked: it gets the entries up to the revocation and nothing else. `dry`: the last read had none of them. */
  | {
      at: 'refusing'
      who: Who
      from_log_seq: number
      upto_log_seq: number
      session: { session_id: string; role: Role; position: number } | null
      dry: boolean
    }
  | Open
  | { at: 'closed'; name: CloseName | null }

/** A device writes: it has the fence. A reader is told what comes, beside the device's own session, and may send nothing. */
export type Role = 'device' | 'reader'

export type Open = {
  at: 'open'
  who: Who
  session_id: string
  history_id: string
  /**
   * `told`: the last entry of the device log that was sent. `wanted`: the last that has to be. `reading`: one read is out.
   */
  log: { told: number; wanted: number; reading: boolean }
  /** Messages that have to follow the entry `log_seq`. */
  after_log: readonly { log_seq: number; head: ServerHead }[]
  intake: Intake
  outbox: Outbox
  /** The page that is being read, or (with `page`) that waits for a log entry or an ack that has to go before it. */
  read: { job: Job | null; after: number; page: Page | null; token: string | null } | null
  /** What was committed while live delivery was being read from the store: it follows the page. */
  kept: { batches: readonly (readonly StoredEvent[])[]; bytes: number }
  jobs: readonly Job[]
  /** Who read last: live delivery and jobs take turns. */
  last_read: 'live' | 'job'
  /** Requests whose answers are long; the first is at work while `asking`. */
  asks: readonly Ask[]
  asking: boolean
  /** Requests without an answer, jobs and asks included. */
  requests: number
  /** A look at the device is out. `cut`: a run was; `again`: something was decided after the question. */
  checking: { cut: boolean; again: boolean } | null
  /** Of a reader: what it is entitled by. Null: by the fence. */
  token_version: number | null
  /** The other devices of the user that it was told are online. */
  online: readonly string[]
  /** Whether who is online was read, is being read, is being read while a hint came that is newer, or could not be: then the next round asks. */
  presence: 'read' | 'asked' | 'outdated' | 'due'
  /** Null for a reader: what it is open over is not sealed by the session. */
  keys: { th: Bytes; gen: number } | null
  rekey: Rekey
  /** The last rekey was less than `rekey_rest_ms` ago. */
  rested: boolean
  draining: boolean
}

/** What a session takes in. In flight = handed to the inbox and neither acked nor refused. */
export type Intake = {
  /** The device_seq to be handed over next. */
  next: number
  /** After a nack: higher numbers are discarded until `next` arrives. */
  discarding: boolean
  /** Own events up to here may be left out of what is delivered. */
  acked: number
  /** In flight. */
  events: number
  bytes: number
  /** The lowest number in flight, while `events` is above 0. */
  first: number
}

/** What a session has been given. Invariant: `told` ≤ `sent` ≤ `head`; every message continues at `told`. */
export type Outbox = {
  mode: 'live' | 'replay'
  /** All up to here was sent, or left out as the device's own. */
  sent: number
  /** `upto` of the last message. */
  told: number
  /** The entry at `sent`, known while `told` < `sent`. */
  tip: Tip | null
  /** The highest position that is known to exist. */
  head: number
  /** Too much is queued: no hint is taken, no page read. */
  full: boolean
}

export type Ask = ClientHeadOf<'log_request'> | ClientHeadOf<'tips_request'>

/** A replay_request at work; a query reads from `after` on and moves nothing. */
export type Job = {
  id: number
  query: boolean
  after: number
  limit: number
  pages: number
  streams: readonly string[] | null
  token: string | null
}

export type Rekey =
  | { at: 'none' }
  /** rekey_required is out. */
  | { at: 'asked' }
  | { at: 'answering' }
  | { at: 'proving'; keys: SessionKeys }
  | { at: 'checking'; keys: SessionKeys }

/**
 * `handshake`: one step of the client. `rekey_age`: the keys are old. `rekey_deadline`: they should be new by now. `message`: one
 * has begun and is not whole. `token`: that of a reader has expired.
 */
export type Timer = 'handshake' | 'rekey_age' | 'rekey_deadline' | 'rekey_rest' | 'message' | 'token'

// ---------------------------------------------------------------- inputs

/** What became of events that were handed over; `events` and `bytes` leave the flight with it. */
export type Outcome =
  | { is: 'acked'; acks: readonly { received_at: number; rows: readonly AckRow[] }[]; events: number; bytes: number }
  | {
      is: 'refused'
      code: NackCode
      device_seq: number
      expected: number
      /** The log entry that has to be told first (`stale_epoch`). */
      log_seq: number | null
      retry_after_ms: number | null
      events: number
      bytes: number
    }
  | { is: 'cut'; why: 'not_active' | 'fenced' }

export type Input =
  /** The WebSocket is there. */
  | { is: 'opened' }
  /** A reader whose token, of that version, was accepted. `log_seq`: entries above it are to be told; null = those to come. */
  | { is: 'joined'; who: Who; token_version: number; cursor: Cursor; log_seq: number | null }
  /** The text frame of a handshake. */
  | { is: 'hello'; json: Bytes }
  /** A sealed frame, opened and decoded; `json` are the bytes of its head. */
  | { is: 'message'; head: ClientHead; body: Bytes; json: Bytes; gen: number }
  | { is: 'bad_frame' }
  | { is: 'too_large' }
  | { is: 'overflow' }
  | { is: 'stalled' }
  /** The socket is gone. */
  | { is: 'gone' }
  | { is: 'timer'; timer: Timer }
  | { is: 'rekey_due'; reason: string }
  | { is: 'backlog'; full: boolean }
  | { is: 'drain'; retry_after_ms: number }
  // answers to effects
  | { is: 'hello_answered'; hello: ServerHeadOf<'server_hello'>; keys: SessionKeys }
  | { is: 'hello_refused'; code: 'unsupported_version' | 'bad_frame' }
  | { is: 'authenticated'; device: DeviceRow | null; auth: ClientAuthBody | null; valid: boolean }
  | { is: 'established'; session_id: string; result: EstablishResult | { ok: false; code: 'rate_limited' } }
  | { is: 'rekey_checked'; valid: boolean }
  | { is: 'log_read'; entries: readonly StoredLogEntry[]; has_more: boolean }
  | { is: 'device_checked'; device: DeviceRow | null }
  /** `after`: where the page begins; a query's token may have said so. */
  | { is: 'page'; page: Page; after: number; token: string | null }
  | { is: 'page_refused'; code: ErrorCode }
  | { is: 'settled'; outcome: Outcome }
  | { is: 'appended'; id: number; result: AppendResult }
  /** The answer to a request, or the failure of an append, ready to be sent. */
  | { is: 'answer'; to: 'ask' | 'append'; head: ServerHead; events?: readonly StoredEvent[] }
  | { is: 'presence'; devices: ServerHeadOf<'presence'>['devices'] }
  /** The store could not do what an effect asked for. */
  | { is: 'failed'; what: 'handshake' | 'log' | 'device' | 'presence' }
  // hints
  | { is: 'hint'; hint: Hint }
  /** The position of the user and the newest entry of the device log, as the store has them, and whether the session may go on. */
  | { is: 'head'; position: number; log_seq: number; entitled: boolean }
  /** The devices of the user that are online, as the store has them. */
  | { is: 'online'; device_ids: readonly string[] }
  /** The store has another past than the one this session was told of. */
  | { is: 'restored' }

// ---------------------------------------------------------------- effects

/** Events of one run on their way into the inbox. */
export type Submission = Run & { bytes: number }

/** What the shell has to read for a page. */
export type PageAsk = Omit<PageRequest, 'bytes'> & { job: Job | null; told: number }

export type Effect =
  | { do: 'answer_hello'; json: Bytes; rekey: { prev_th: Bytes; gen: number; session_id: string } | null }
  | { do: 'authenticate'; head: ClientHeadOf<'client_auth'>; keys: SessionKeys }
  | { do: 'check_rekey'; head: ClientHeadOf<'client_auth'>; keys: SessionKeys; who: Who; session_id: string }
  /** Hints of this user are wanted from now on. */
  | { do: 'subscribe'; user_no: number }
  | { do: 'establish'; who: Who; request: Omit<EstablishRequest, 'session_id' | 'node_no'> }
  /** The same without a fence. */
  | { do: 'join'; reader: Reader; cursor: Cursor }
  /** The session is open: it is to be announced, and that of a device fences the ones before it. */
  | { do: 'open'; who: Who; session_id: string; role: Role }
  /** The opposite of `open`; `position` is what was sent. */
  | { do: 'leave'; who: Who; session_id: string; role: Role; position: number }
  | { do: 'send_text'; head: ServerHeadOf<'server_hello'> }
  | { do: 'send'; head: ServerHead; body?: Bytes }
  /** Records behind a head. `whole`: the batch, when nothing of it is left out, so that its bytes can be shared. */
  | { do: 'send_events'; head: ServerHead; events: readonly StoredEvent[]; whole: boolean }
  /** Frames of the next generation may come from now on. */
  | { do: 'expect_keys'; keys: SessionKeys }
  /** What is sent from now on is sealed with these keys. */
  | { do: 'use_keys'; keys: SessionKeys }
  /** Runs of one message, in order. */
  | { do: 'submit'; runs: readonly Submission[] }
  | { do: 'read_log'; who: Who; from_log_seq: number }
  | { do: 'check_device'; who: Who }
  | { do: 'read_page'; ask: PageAsk }
  | { do: 'read_presence'; who: Who }
  | { do: 'append'; who: Who; head: ClientHeadOf<'log_append'> }
  | { do: 'read_entries'; who: Who; head: ClientHeadOf<'log_request'> }
  | { do: 'read_tips'; who: Who; head: ClientHeadOf<'tips_request'> }
  /** What the client says it has taken over. */
  | { do: 'seen'; who: Who; position: number }
  /** Within a second nothing of the socket is left, whatever happens until then (C4). */
  | { do: 'cut_off' }
  | { do: 'arm'; timer: Timer; ms: number }
  | { do: 'disarm'; timer: Timer }
  | { do: 'close'; name: CloseName }

export type Step = { state: State; effects: Effect[] }
