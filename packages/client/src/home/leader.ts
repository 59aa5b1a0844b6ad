/**
 * The leader of a home: puts log, outbox, receive path and connection together, and says what a session and its end mean to
 * them. One per home (`Coordination`).
 *
 * Invariant: the two parts that may have to wait for the device log (outbox, receive path) run behind their own queues, so that
 * the answer they wait for always gets through.
 */
import { type ClientAuthBody, LIMITS, SealpostError, toBase64url } from '@sealpost/protocol'
import { type AccountLog, openAccountLog } from '../log/account-log.ts'
import { type AlarmReason, createAlarms } from '../inbox/alarms.ts'
import { type Connection, createConnection, type Established } from '../connection/connection.ts'
import { type Inbox, openInbox, QUEUED_MAX } from '../inbox/inbox.ts'
import { createCursorAck } from '../inbox/cursor-ack.ts'
import { stopError, TERMINAL, toError, unreachableError } from '../failure.ts'
import { createKeyRotation } from '../log/key-rotation.ts'
import { createLogAppender, type LogAppender } from '../log/log-append.ts'
import { createLogReader } from '../log/log-reading.ts'
import type { ConnectionState } from '../connection/machine.ts'
import { createMutex } from '../mutex.ts'
import type { Notice } from '../notices.ts'
import { openOutbox, type Outbox } from '../outbox/outbox.ts'
import { batchLimits } from '../outbox/outbox-window.ts'
import { ownHeads } from '../outbox/own-events.ts'
import { wipeWhenRevoked } from '../log/own-revocation.ts'
import type { Home, Identity, NewItem } from '../ports.ts'
import { askPage, type QueryPage, type QueryRequest } from '../inbox/query-page.ts'
import { look } from './repair.ts'
import { createReplay } from '../inbox/replay.ts'
import { createRequests } from '../connection/requests.ts'
import { createRest } from '../connection/rest.ts'
import { decideRevocation } from '../log/revoke.ts'
import { createRouter, type Presence } from './router.ts'
import { hearing, type ServerClock } from '../connection/server-clock.ts'
import { proveServer } from '../connection/server-move.ts'
import { createTopic, orAborted, type Topic, until, within } from '../signal.ts'

const CLIENT = { name: '@sealpost/client', version: '0.1.0' } as const
const CONNECT_WAIT_MS = 20_000
/** Sessions that one call about the log may see end. */
const LOG_TRIES = 3
/** While a request for log entries is open the receive path may wait for its answer, so the socket is read further, up to here. */
const QUEUED_HOLDING_MAX = 4 * QUEUED_MAX

export type LeaderStatus = {
  state: ConnectionState
  last_error: SealpostError | null
  terminal: SealpostError | null
  head_position: number | null
}

export type Leader = {
  readonly account: AccountLog
  /** As stored now. */
  readonly identity: Identity
  readonly notices: Topic<Notice>
  /** Items of the outbox were decided; true: they are on the server. */
  readonly settled: Topic<boolean>
  /** Rows were stored, or the outbox changed. */
  readonly changed: Topic<void>
  status(): LeaderStatus
  presence(): Presence[]
  start(): void
  /** The outbox has more. */
  pump(): void
  /** Durable in the outbox when it resolves, in the order of the calls; sent at once when nothing stands before it. */
  enqueue(items: readonly NewItem[]): Promise<void>
  query(request: QueryRequest, signal?: AbortSignal): Promise<QueryPage>
  /** The device log is as new as the server's at the time of the call. Throws `unreachable`, `timeout`, `log_withheld`. */
  readLog(signal?: AbortSignal): Promise<void>
  append: LogAppender['append']
  revoke(device_id: string, signal?: AbortSignal): Promise<void>
  /** Connects to the server at that address from here on, once it has proved itself. Throws what `proveServer` does, and what has ended this device. */
  moveServer(server: string, signal?: AbortSignal): Promise<void>
  close(): Promise<void>
}

export async function openLeader(home: Home, stored: Identity, time: ServerClock): Promise<Leader> {
  const { store, clock, crypto } = home
  let identity = stored
  const notices = createTopic<Notice>()
  const settled = createTopic<boolean>()
  const changed = createTopic<void>()
  const account = await openAccountLog(crypto, store, time, identity)
  // an entry that revokes this device counts also when the process ended right behind it
  const revoked = await wipeWhenRevoked(store, account, identity)
  if (revoked !== null) throw revoked
  const received = await store.readReceiveState()
  const requests = createRequests(clock, (head) => connection.send(head))

  let session: Established | null = null
  let terminal: SealpostError | null = null
  const ending = new AbortController()
  const opened = createTopic<void>()
  const inOrder = createMutex()

  const alarms = createAlarms({
    store,
    clock,
    device_id: identity.device_id,
    position: () => inbox.cursor.position,
    tell: (notice) => notices.emit(notice),
  })

  const log = createLogReader({
    clock,
    account,
    requests,
    async applied(log_seqs) {
      for (const log_seq of log_seqs) logChanged(log_seq)
      await checkOwnRevocation()
    },
    asked: () => connection.relieve(),
    failed: report,
  })

  const outbox: Outbox = await openOutbox(
    {
      crypto,
      store,
      clock,
      identity,
      account,
      time,
      send: (records) => session !== null && connection.send({ type: 'event' }, records),
      logBehind: () => log.behind,
      wantLog: () => log.request(),
      wantRotation: (why) => rotation.want(why),
      reconnect: () => connection.reconnect(null),
      fatal,
      tell,
      settled(acked) {
        settled.emit(acked)
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
      time,
      withOwn: (call) => outbox.withOwn(call),
      forgetOwnHeads: () => outbox.forgetHeads(),
      resetStored: () => outbox.resetStored(),
      requestLog: () => log.request(),
      acksStored: () => router.acksStored,
      tell: (notice) => notices.emit(notice),
      stored(moved) {
        if (moved) connection.progress()
        // a page that fills the hole does not: what matters is that the server now sends all of it by itself
        if (moved && connection.state === 'live') router.complete()
        connection.relieve()
        replay.ask()
        cursorAck.schedule()
        changed.emit()
      },
      caughtUp() {
        if (session === null) return
        replay.end()
        connection.caughtUp()
        void outbox.caughtUp().catch(report)
      },
      failed(error) {
        const known = toError(error)
        if (TERMINAL.has(known.code)) return fatal(known)
        if (known.code === 'log_withheld') tell(known)
        connection.fault(known)
      },
    },
    received,
  )

  const appender = createLogAppender({
    crypto,
    identity,
    account,
    requests,
    time,
    readLog: () => log.read(),
    changed: logChanged,
  })

  const rotation = createKeyRotation({
    crypto,
    store,
    clock,
    time,
    account,
    appender,
    online: () => session !== null && !log.behind,
    nextSeq: () => outbox.next_seq,
    readable: () => outbox.pump(),
    unreadable: () => tell(new SealpostError('epoch_unreadable', 'the key of the current epoch cannot be opened on this device')),
    failed: report,
  })

  const replay = createReplay({
    requests,
    send: (head) => connection.send(head),
    acked: () => outbox.acked_device_seq,
    queued: () => inbox.queued,
    limit: () => session?.limits.replay_events ?? LIMITS.replayEventsDefault,
  })

  const connection: Connection = createConnection({
    crypto,
    clock,
    transport: home.transport,
    identity: () => identity,
    heard: (server_ms) => time.hear(server_ms),
    authBody,
    established,
    begin,
    message: (message) => router.route(message),
    ended() {
      session = null
      replay.end()
      log.end()
      requests.end()
      inbox.end()
      outbox.end()
      router.end()
      cursorAck.end()
    },
    check: (why) =>
      look(
        {
          crypto,
          clock,
          store,
          account,
          identity: () => identity,
          rest: () => createRest(hearing(home.http, time), identity.server_url, ending.signal),
          time,
          logChanged: checkOwnRevocation,
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
    congested: () => inbox.queued >= (log.waiting ? QUEUED_HOLDING_MAX : QUEUED_MAX),
  })

  const cursorAck = createCursorAck(
    {
      clock,
      online: () => session !== null,
      position: () => inbox.cursor.position,
      send: (position) => connection.send({ type: 'ack', position }),
    },
    received.cursor.position,
  )

  const router = createRouter({
    connection,
    requests,
    replay,
    inbox,
    outbox,
    log,
    presenceChanged: () => changed.emit(),
    raise,
    failed: report,
  })

  // ---------------------------------------------------------------- session

  async function authBody(): Promise<ClientAuthBody> {
    await inbox.idle()
    await outbox.idle()
    const { log_seq, log_head } = account.log
    return {
      user_id: identity.user_id,
      device_id: identity.device_id,
      log_seq,
      log_head: toBase64url(log_head),
      cursor: inbox.cursor,
      last_device_seq: outbox.acked_device_seq,
      features: [],
      client: CLIENT,
    }
  }

  function established(head: Established): { behind: boolean } {
    log.announce(head.log_seq, head.log_head)
    return { behind: head.log_seq < account.log.log_seq }
  }

  function begin(head: Established): void {
    session = head
    router.begin(head.head_position)
    inbox.begin({ history_id: head.history_id, floor: head.floor })
    const live = head.mode === 'live'
    const opening = { limits: batchLimits(head.limits), caught_up: live, resetting: head.mode === 'reset' }
    void outbox.begin({ last_device_seq: head.last_device_seq, ...opening }).catch(report)
    if (head.mode === 'replay') replay.begin()
    rotation.schedule()
    opened.emit()
  }

  // ---------------------------------------------------------------- device log

  function logChanged(log_seq: number): void {
    notices.emit({ is: 'log', log_seq })
    changed.emit()
    outbox.pump()
    if (session !== null) rotation.schedule()
  }

  async function checkOwnRevocation(): Promise<void> {
    if (terminal?.code === 'device_revoked') return
    const error = await wipeWhenRevoked(store, account, identity)
    if (error !== null) fatal(error)
  }

  // ---------------------------------------------------------------- ends

  function fatal(error: SealpostError): void {
    terminal ??= error
    connection.fatal(error)
  }

  /** What went wrong and does not end it; what every process of the home has to know is an alarm besides. */
  function tell(error: SealpostError): void {
    notices.emit({ is: 'error', error, terminal: false })
    if (error.code === 'log_withheld' || error.code === 'epoch_unreadable') raise(error.code)
  }

  function raise(reason: AlarmReason): void {
    alarms.raise(reason).catch(report)
  }

  function report(error: unknown): void {
    const known = toError(error)
    if (ending.signal.aborted || known.code === 'unreachable' || known.code === 'aborted') return
    if (TERMINAL.has(known.code)) return fatal(known)
    tell(known)
    if (known.code === 'log_withheld') connection.reconnect(known)
  }

  /** Resolves when a session stands; throws what ended it for good, or `unreachable`. */
  async function untilOpen(signal?: AbortSignal): Promise<void> {
    if (session !== null) return
    const late = (): SealpostError => connection.last_error ?? unreachableError(identity.server_url)
    await until(
      opened,
      () => terminal ?? (ending.signal.aborted ? unreachableError(identity.server_url) : session !== null),
      (met) => within(clock, CONNECT_WAIT_MS, orAborted(met, signal), late),
    )
  }

  /** Calls again in the next session when one ends before the answer. */
  async function overSessions<T>(signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      await untilOpen(signal)
      try {
        return await call()
      } catch (error) {
        const lost = error instanceof SealpostError && error.code === 'unreachable'
        if (!lost || ending.signal.aborted || tries === LOG_TRIES) throw error
      }
    }
  }

  /** A session that ends before the answer leaves it open whether the entry is stored: the log of the next one shows it. */
  const append: LogAppender['append'] = (decide, signal) => overSessions(signal, () => appender.append(decide, signal))

  async function moveServer(server: string, signal?: AbortSignal): Promise<void> {
    // what is wrong with this device is wrong at every address
    if (terminal !== null && terminal.code !== 'server_identity' && TERMINAL.has(terminal.code)) throw terminal
    const server_url = await proveServer(home, identity, server, signal)
    await store.updateIdentity({ server_url })
    identity = { ...identity, server_url }
    if (ending.signal.aborted) return
    terminal = null
    connection.end()
    connection.start()
  }

  return {
    account,
    get identity() {
      return identity
    },
    notices,
    settled,
    changed,
    status: () => ({ state: connection.state, last_error: connection.last_error, terminal, head_position: router.head_position }),
    presence: () => router.presence(),
    start: () => connection.start(),
    pump: () => outbox.pump(),
    enqueue: (items) =>
      inOrder(async () => {
        if (await outbox.sendNow(items)) return
        await store.enqueue(items)
        outbox.pump()
      }),
    async query(request, signal) {
      await untilOpen(signal)
      return askPage(requests, request, session?.limits.replay_events, signal)
    },
    readLog: (signal) => overSessions(signal, () => orAborted(log.read(), signal)),
    append,
    async revoke(device_id, signal) {
      await append(decideRevocation(crypto, requests, device_id, identity.device_id, signal), signal)
    },
    moveServer,
    async close() {
      ending.abort()
      opened.emit()
      rotation.end()
      log.end()
      connection.end()
      await inbox.idle()
      await outbox.idle()
    },
  }
}
