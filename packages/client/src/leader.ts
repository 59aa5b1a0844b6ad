/**
 * The leader of a home: puts log, outbox, receive path and connection together, and routes every message of the server to the
 * part that owns it. One per home (`Coordination`).
 *
 * Invariant: messages are routed in their order; the two parts that may have to wait for the device log (outbox, receive path)
 * run behind their own queues, so that the answer they wait for always gets through.
 */
import {
  CLOSE,
  type ClientAuthBody,
  decodeAcks,
  type ErrorCode,
  LIMITS,
  SealpostError,
  toBase64url,
  type WireEntry,
} from '@sealpost/protocol'
import { type AccountLog, openAccountLog } from './account-log.ts'
import { type Connection, createConnection, type Established, type SessionMessage } from './connection.ts'
import { type Inbox, openInbox, QUEUED_MAX } from './inbox.ts'
import { createLogAppender, type Decide } from './log-append.ts'
import type { ConnectionState } from './machine.ts'
import type { Notice } from './notices.ts'
import { batchLimits, openOutbox, type Outbox } from './outbox.ts'
import type { Home, Identity, OutcomeRow, Revocation, StoredHead } from './ports.ts'
import { look } from './repair.ts'
import { createRequests, refusal } from './requests.ts'
import { createRest } from './rest.ts'
import { decideRevocation } from './revoke.ts'
import { ROTATION_SPREAD_MS, rotationDue } from './rotation.ts'
import { createTopic, defer, orAborted, type Topic, within } from './signal.ts'
import { toUnit } from './backoff.ts'

const CLIENT = { name: '@sealpost/client', version: '0.1.0' } as const
const LOG_WAIT_MS = 10_000
const ACK_EVERY_MS = 5_000
const ROTATION_EVERY_MS = 3_600_000
const UNREADABLE_WAIT_MS = 3_000
const CONNECT_WAIT_MS = 20_000
/** Pages asked for and not yet stored. */
const PAGES_AHEAD = 3
const EPOCH_NOTE = 'epoch_began'
const FORCED_NOTE = 'rotation_forced'

export type Presence = { device_id: string; online: boolean; last_seen: number | null }

export type LeaderStatus = {
  state: ConnectionState
  last_error: SealpostError | null
  terminal: SealpostError | null
  head_position: number | null
}

/** A page of a query, as the server sent it: whoever asked verifies it. */
export type QueryPage = {
  after: number
  upto: number
  has_more: boolean
  continuation_token: string | null
  floor: number
  body: Uint8Array
}

export type QueryRequest = { after_position: number; streams: string[]; limit: number; continuation_token: string | null }

export type Leader = {
  readonly account: AccountLog
  readonly notices: Topic<Notice>
  readonly settled: Topic<readonly OutcomeRow[]>
  /** Rows were stored, or the outbox changed. */
  readonly changed: Topic<void>
  status(): LeaderStatus
  presence(): Presence[]
  start(): void
  /** The outbox has more. */
  pump(): void
  query(request: QueryRequest, signal?: AbortSignal): Promise<QueryPage>
  readonly clock_offset: number
  append(decide: Decide, signal?: AbortSignal): Promise<{ log_seq: number; entry_hash: Uint8Array } | null>
  revoke(device_id: string, signal?: AbortSignal): Promise<void>
  close(): Promise<void>
}

export async function openLeader(home: Home, stored: Identity): Promise<Leader> {
  const { store, clock, crypto } = home
  let identity = stored
  const notices = createTopic<Notice>()
  const settled = createTopic<readonly OutcomeRow[]>()
  const changed = createTopic<void>()
  const account = await openAccountLog(crypto, store, clock, identity)
  const received = await store.readReceiveState()
  const requests = createRequests(clock, (head) => connection.send(head))
  const presence = new Map<string, Presence>()

  let session: Established | null = null
  let head_position: number | null = null
  let terminal: SealpostError | null = null
  let gaps = 0
  /** `pending`: a page is asked for and has not arrived. */
  let replay: { id: number; token: string | undefined; pending: boolean; more: boolean } | null = null
  let acked_position = received.cursor.position
  let cancelAck: (() => void) | null = null
  let cancelRotation: (() => void) | null = null
  let cancelKeyWait: (() => void) | null = null
  let logWanted: Promise<void> | null = null
  let closed = false
  const opened = createTopic<void>()

  const serverNow = (): number => clock.now() + connection.clock_offset

  const outbox: Outbox = await openOutbox(
    {
      crypto,
      store,
      clock,
      identity,
      account,
      clockOffset: () => connection.clock_offset,
      send: (records) => session !== null && connection.send({ type: 'event' }, records),
      wantLog: () => requestLog(account.log.log_seq + 1),
      wantRotation: (why) => (why === 'unreadable' ? waitForKey() : void rotate(false).catch(report)),
      reconcile: () => connection.reconnect(null),
      fatal,
      tell: (error) => notices.emit({ is: 'error', error, terminal: false }),
      settled(outcomes) {
        settled.emit(outcomes)
        changed.emit()
      },
    },
    received.acked_device_seq,
    ownHeads(received.heads, identity.device_id),
  )

  const inbox: Inbox = await openInbox(
    {
      crypto,
      store,
      clock,
      identity,
      account,
      clockOffset: () => connection.clock_offset,
      withOwn: (call) => outbox.withOwn(call),
      forgetOwnHeads: () => outbox.forgetHeads(),
      resetStored: () => outbox.resetStored(),
      requestLog,
      tell: (notice) => notices.emit(notice),
      stored() {
        connection.relieve()
        askReplay()
        scheduleAck()
        changed.emit()
      },
      caughtUp() {
        if (session === null) return
        replay = null
        gaps = 0
        connection.caughtUp()
        void outbox.caughtUp().catch(report)
      },
      failed(error) {
        const known = toError(error)
        if (known.code === 'log_withheld') notices.emit({ is: 'error', error: known, terminal: false })
        if (TERMINAL.has(known.code)) fatal(known)
        else connection.reconnect(known)
      },
    },
    received,
  )

  const appender = createLogAppender({ crypto, identity, account, requests, serverNow, requestLog, changed: logChanged })

  const connection: Connection = createConnection({
    crypto,
    clock,
    transport: home.transport,
    identity: () => identity,
    authBody,
    established,
    begin,
    message: route,
    ended() {
      session = null
      replay = null
      requests.end()
      inbox.end()
      outbox.end()
      presence.clear()
      cancelAck?.()
      cancelAck = null
    },
    check: (why) =>
      look(
        {
          crypto,
          clock,
          store,
          account,
          identity: () => identity,
          rest: () => createRest(home.http, identity.server_url),
          serverNow,
          async logChanged() {
            await checkOwnRevocation()
          },
          identityChanged(change) {
            identity = { ...identity, ...change }
          },
        },
        why,
      ),
    stateChanged(state) {
      notices.emit({ is: 'state', state })
      opened.emit()
      changed.emit()
    },
    stopped(code, error) {
      terminal ??= error ?? stopError(code)
      notices.emit({ is: 'error', error: terminal, terminal: true })
      opened.emit()
      changed.emit()
    },
    congested: () => inbox.queued >= QUEUED_MAX,
  })

  // ---------------------------------------------------------------- session

  async function authBody(): Promise<ClientAuthBody> {
    await inbox.idle()
    await outbox.idle()
    const { log } = account
    return {
      user_id: identity.user_id,
      device_id: identity.device_id,
      log_seq: log.log_seq,
      log_head: toBase64url(log.log_head),
      cursor: inbox.cursor,
      last_device_seq: outbox.acked_device_seq,
      features: [],
      client: CLIENT,
    }
  }

  function established(head: Established): { behind: boolean } {
    const { log } = account
    if (head.log_seq === log.log_seq && head.log_head !== toBase64url(log.log_head))
      throw new SealpostError('log_fork', 'the server has another device log than this device; nothing more is sent')
    return { behind: head.log_seq < log.log_seq }
  }

  function begin(head: Established): void {
    session = head
    head_position = head.head_position
    inbox.begin({ history_id: head.history_id, floor: head.floor })
    const live = head.mode === 'live'
    const opening = { limits: batchLimits(head.limits), caught_up: live, resetting: head.mode === 'reset' }
    void outbox.begin({ last_device_seq: head.last_device_seq, ...opening }).catch(report)
    if (live) gaps = 0
    if (head.mode === 'replay') beginReplay()
    scheduleRotation()
    opened.emit()
  }

  function route(message: SessionMessage): Promise<void> | void {
    const { head } = message
    switch (head.type) {
      case 'ack':
        void outbox.onAcks(head.received_at, decodeAcks(message.body)).catch(report)
        return
      case 'nack':
        void outbox.onNack(head).catch(report)
        return
      case 'event':
        head_position = Math.max(head_position ?? 0, head.upto)
        return offer({ is: 'records', after: head.after, upto: head.upto, ...tipOf(head), body: message.body, floor: null, last: false })
      case 'replay_response':
        if (head.id !== replay?.id) return void requests.answer({ head, body: message.body })
        head_position = head.head_position
        replay.pending = false
        replay.token = head.continuation_token
        replay.more = head.has_more
        offer({
          is: 'records',
          after: head.after,
          upto: head.upto,
          ...tipOf(head),
          body: message.body,
          floor: head.floor,
          last: !head.has_more,
        })
        // page n + 1 is on its way while page n is verified
        return askReplay()
      case 'reset':
        head_position = head.head_position
        connection.reset()
        outbox.holdForReset()
        offer({
          is: 'reset',
          reason: head.reason,
          history_id: head.history_id,
          head_position: head.head_position,
          from_position: head.from_position,
        })
        return beginReplay()
      case 'log_entry':
        return applyEntries([{ body: head.body, sig: head.sig, box: head.box }])
      case 'log_result':
      case 'log_entries':
      case 'tips':
        requests.answer(message as never)
        return
      case 'presence':
        for (const device of head.devices) presence.set(device.device_id, device)
        changed.emit()
        return
      case 'error':
        return onError(head.id ?? null, head.code)
    }
  }

  function offer(message: Parameters<Inbox['offer']>[0]): void {
    if (inbox.offer(message)) return
    gaps++
    const error = new SealpostError(
      'invalid_message',
      'the server left out a part of the stream; connecting again from the last event stored',
    )
    if (gaps > 1) notices.emit({ is: 'alarm', position: inbox.cursor.position, device_id: identity.device_id, reason: 'cursor_gap' })
    connection.reconnect(error)
  }

  function beginReplay(): void {
    replay = { id: requests.nextId(), token: undefined, pending: false, more: true }
    sendReplay(replay)
  }

  /** Asks for the next page once the last one arrived and not too many wait to be stored. */
  function askReplay(): void {
    if (replay === null || replay.pending || !replay.more || inbox.queued >= PAGES_AHEAD) return
    replay.id = requests.nextId()
    sendReplay(replay)
  }

  function sendReplay(of: NonNullable<typeof replay>): void {
    of.pending = true
    connection.send({
      type: 'replay_request',
      id: of.id,
      last_ack_device_seq: outbox.acked_device_seq,
      limit: Math.min(LIMITS.replayEventsMax, session?.limits.replay_events ?? LIMITS.replayEventsDefault),
      ...(of.token === undefined ? {} : { continuation_token: of.token }),
    })
    of.token = undefined
  }

  function onError(id: number | null, code: string): void {
    if (id !== null && requests.refuse(id, code)) return
    if (id !== null && id === replay?.id && code === 'invalid_token') return beginReplay()
    connection.reconnect(refusal(code))
  }

  function scheduleAck(): void {
    if (cancelAck !== null || session === null || inbox.cursor.position <= acked_position) return
    cancelAck = clock.setTimer(
      ACK_EVERY_MS,
      () => {
        cancelAck = null
        acked_position = inbox.cursor.position
        connection.send({ type: 'ack', position: acked_position })
      },
      true,
    )
  }

  // ---------------------------------------------------------------- device log

  async function applyEntries(entries: readonly WireEntry[]): Promise<void> {
    const { applied, missing } = await account.apply(entries)
    for (const { log_seq } of applied) logChanged(log_seq)
    if (applied.length > 0) await checkOwnRevocation()
    if (missing !== null) void requestLog(missing.from_log_seq).catch(report)
  }

  function logChanged(log_seq: number): void {
    notices.emit({ is: 'log', log_seq })
    changed.emit()
    outbox.pump()
    if (session !== null) scheduleRotation()
  }

  /** Wipes the keys when an entry that verified says so. */
  async function checkOwnRevocation(): Promise<void> {
    const revoked = account.log.devices.get(identity.device_id)?.revoked ?? null
    if (revoked === null || terminal?.code === 'device_revoked') return
    const revocation: Revocation = {
      user_id: identity.user_id,
      device_id: identity.device_id,
      by: revoked.by,
      by_name: account.deviceName(revoked.by),
      at: revoked.created_at,
      log_seq: revoked.log_seq,
    }
    terminal = revokedError(revocation)
    await store.wipe(revocation)
    identity.sign_seed.fill(0)
    identity.kem_seed.fill(0)
    fatal(terminal)
  }

  /** All entries from there on; throws `log_withheld` when they do not come within 10 s. */
  function requestLog(from_log_seq: number): Promise<void> {
    logWanted ??= readLogPages(from_log_seq).finally(() => {
      logWanted = null
    })
    return logWanted
  }

  async function readLogPages(from_log_seq: number): Promise<void> {
    let from = from_log_seq
    for (;;) {
      let page
      try {
        page = await requests.ask('log_entries', (id) => ({ type: 'log_request', id, from_log_seq: from }), { ms: LOG_WAIT_MS })
      } catch (error) {
        if (error instanceof SealpostError && error.code === 'timeout')
          throw new SealpostError('log_withheld', 'the server withholds entries of the device log; nothing of it is handed over', {
            cause: error,
          })
        throw error
      }
      await applyEntries(page.head.entries)
      from += page.head.entries.length
      if (!page.head.has_more || page.head.entries.length === 0) return
    }
  }

  // ---------------------------------------------------------------- rotation

  function scheduleRotation(): void {
    cancelRotation?.()
    cancelRotation = clock.setTimer(ROTATION_EVERY_MS, scheduleRotation, true)
    void rotationDueNow()
      .then(async (due) => {
        if (due === null || session === null || closed) return undefined
        if (due === 'now') return (await account.sealingKey()) === null ? waitForKey() : rotate(false)
        cancelRotation?.()
        cancelRotation = clock.setTimer(ROTATION_SPREAD_MS * toUnit(crypto.random(6)), () => void rotate(false).catch(report), true)
        return undefined
      })
      .catch(report)
  }

  async function rotationDueNow(): Promise<'now' | 'soon' | null> {
    const { log_seq } = account.log
    const key = await account.sealingKey()
    const began = toRecord(await store.readNote(EPOCH_NOTE))
    if (began['epoch'] !== log_seq) await store.writeNote(EPOCH_NOTE, { epoch: log_seq, device_seq: outbox.next_seq })
    const from = began['epoch'] === log_seq && typeof began['device_seq'] === 'number' ? began['device_seq'] : outbox.next_seq
    const forced = await store.readNote(FORCED_NOTE)
    return rotationDue(
      {
        first_seen: account.rows[log_seq]?.first_seen ?? clock.now(),
        own_events: outbox.next_seq - from,
        readable: key !== null,
        last_forced: typeof forced === 'number' ? forced : null,
      },
      clock.now(),
    )
  }

  /** Whoever brings back entries to a restored server rotates right behind, and hands the older keys on: a rotation from here would not. */
  function waitForKey(): void {
    cancelKeyWait ??= clock.setTimer(UNREADABLE_WAIT_MS, () => {
      cancelKeyWait = null
      if (session === null || closed) return
      account
        .sealingKey()
        .then((key) => (key === null ? rotate(true) : outbox.pump()))
        .catch(report)
    })
  }

  async function rotate(unreadable: boolean): Promise<void> {
    if ((await rotationDueNow()) === null) {
      if (unreadable)
        notices.emit({
          is: 'error',
          error: new SealpostError('epoch_unreadable', 'the key of the current epoch cannot be opened on this device'),
          terminal: false,
        })
      return
    }
    if ((await account.sealingKey()) === null) await store.writeNote(FORCED_NOTE, clock.now())
    const epoch = account.log.log_seq
    // another device may have been faster: then there is nothing left to renew
    await appender.append((log) => (log.log_seq === epoch ? { type: 'rotate_keys' } : null))
  }

  // ---------------------------------------------------------------- ends

  function fatal(error: SealpostError): void {
    terminal ??= error
    connection.fatal(error)
  }

  function report(error: unknown): void {
    const known = toError(error)
    if (closed || known.code === 'unreachable' || known.code === 'aborted') return
    if (TERMINAL.has(known.code)) return fatal(known)
    notices.emit({ is: 'error', error: known, terminal: false })
    if (known.code === 'log_withheld' || known.code === 'disk') connection.reconnect(known)
  }

  /** Resolves when a session stands; throws what ended it for good, or `unreachable`. */
  async function untilOpen(signal?: AbortSignal): Promise<void> {
    if (session !== null) return
    const open = defer<void>()
    const look = (): void => {
      if (terminal !== null) open.reject(terminal)
      else if (session !== null) open.resolve()
    }
    const off = opened.on(look)
    look()
    try {
      const late = (): SealpostError =>
        connection.last_error ?? new SealpostError('unreachable', `the server at ${identity.server_url} cannot be reached`)
      await within(clock, CONNECT_WAIT_MS, orAborted(open.promise, signal), late)
    } finally {
      off()
    }
  }

  return {
    account,
    notices,
    settled,
    changed,
    status: () => ({ state: connection.state, last_error: connection.last_error, terminal, head_position }),
    presence: () => [...presence.values()],
    start: () => connection.start(),
    pump: () => outbox.pump(),
    async query(request, signal) {
      await untilOpen(signal)
      const { head, body } = await requests.ask(
        'replay_response',
        (id) => ({
          type: 'replay_request',
          id,
          last_ack_device_seq: 0,
          query: true,
          after_position: request.after_position,
          streams: request.streams,
          limit: Math.min(request.limit, session?.limits.replay_events ?? LIMITS.replayEventsDefault),
          ...(request.continuation_token === null ? {} : { continuation_token: request.continuation_token }),
        }),
        { signal },
      )
      const { after, upto, has_more, floor } = head
      return { after, upto, has_more, floor, continuation_token: head.continuation_token ?? null, body }
    },
    get clock_offset() {
      return connection.clock_offset
    },
    async append(decide, signal) {
      await untilOpen(signal)
      return appender.append(decide, signal)
    },
    async revoke(device_id, signal) {
      await untilOpen(signal)
      await appender.append(decideRevocation(crypto, requests, device_id, identity.device_id, signal), signal)
    },
    async close() {
      closed = true
      cancelRotation?.()
      cancelRotation = null
      cancelKeyWait?.()
      cancelKeyWait = null
      connection.end()
      await inbox.idle()
      await outbox.idle()
    },
  }
}

const TERMINAL: ReadonlySet<ErrorCode> = new Set([
  'log_fork',
  'unknown_version',
  'invalid_entry',
  'device_revoked',
  'state_damaged',
  'state_diverged',
  'server_identity',
])

export function revokedError(revocation: Revocation): SealpostError {
  const day = new Date(revocation.at).toISOString().slice(0, 10)
  return new SealpostError(
    'device_revoked',
    `this device was revoked by "${revocation.by_name}" on ${day}; pair it again with: sealpost join`,
  )
}

function stopError(code: ErrorCode): SealpostError {
  switch (code) {
    case 'unauthorized':
      return new SealpostError(code, 'the server does not accept this device; if it was revoked, pair it again with: sealpost join')
    case 'superseded':
      return new SealpostError(
        code,
        'another session of this device took over; was this folder copied to a second machine? Pair that machine as a device of its own',
      )
    case 'account_gone':
      return new SealpostError(code, 'this account was deleted on the server')
    case 'server_identity':
      return new SealpostError(code, "the server's key is not the one that this account knows; nothing was sent")
    case 'unsupported_version':
      return new SealpostError(code, 'this version and the server have no protocol version in common; update the older one')
    case 'invalid_message':
      return new SealpostError(
        code,
        `the server closed the connection five times in a row as damaged (${CLOSE.bad_frame.code}); nothing more is tried`,
      )
    default:
      return refusal(code)
  }
}

function ownHeads(heads: ReadonlyMap<string, StoredHead>, device_id: string): Map<string, StoredHead> {
  const out = new Map<string, StoredHead>()
  for (const [key, head] of heads) if (key.startsWith(`${device_id}/`)) out.set(key.slice(device_id.length + 1), head)
  return out
}

function tipOf(head: { tip?: { event_id: string; received_at: number } | null }): {
  tip?: { event_id: string; received_at: number } | null
} {
  return head.tip === undefined ? {} : { tip: head.tip }
}

function toError(error: unknown): SealpostError {
  return error instanceof SealpostError ? error : new SealpostError('internal', 'a failure inside', { cause: error })
}

function toRecord(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
