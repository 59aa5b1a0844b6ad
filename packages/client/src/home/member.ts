/**
 * One process of a home, whatever its role (protocol-free): as the leader it runs the engine, as a follower it asks the leader. When
 * the leader ends, a follower takes its place; what was asked meanwhile is asked again.
 *
 * Requests of followers are small JSON heads: `status`, `query`, `read_log`, `revoke`, `rename`, `add_device`, `move_server`. A
 * query's page travels as the server sent it and is verified by whoever asked.
 */
import { type DeviceIntroduction, EMPTY, ERROR, type ErrorCode, fromBase64url, SealpostError, toBase64url } from '@sealpost/protocol'
import { type AccountLog, openAccountLog } from '../log/account-log.ts'
import { toError } from '../failure.ts'
import { type Leader, openLeader } from './leader.ts'
import type { Decide } from '../log/log-append.ts'
import type { ConnectionState } from '../connection/machine.ts'
import { createShared } from '../mutex.ts'
import type { Notice } from '../notices.ts'
import type { Home, HomeMessage, Identity, LeaderLink, LeaderSeat, NewItem } from '../ports.ts'
import { revokedError } from '../log/own-revocation.ts'
import type { QueryPage, QueryRequest } from '../inbox/query-page.ts'
import { decideRename } from '../log/rename.ts'
import type { Presence } from './router.ts'
import { openServerClock, type ServerClock } from '../connection/server-clock.ts'
import { createTopic, orAborted, sleep, type Topic, within } from '../signal.ts'

export type MemberStatus = {
  state: ConnectionState
  last_error: SealpostError | null
  /** The engine has stopped and does not connect again by itself. */
  terminal: SealpostError | null
  /** What the engine told of last and goes on after (quota_exceeded, log_withheld …); null once an event was acked since. */
  trouble: SealpostError | null
  head_position: number | null
  /** ms to add to the clock of this device to get the server's; null: the leader is not sure of it. */
  clock_offset: number | null
  presence: Presence[]
}

export type AppendedEntry = { log_seq: number; entry_hash: Uint8Array }

export type Member = {
  readonly role: 'leader' | 'follower'
  /** Opened without a connection, or closed. */
  readonly alone: boolean
  readonly account: AccountLog
  /** The server's clock. */
  readonly time: ServerClock
  /** As stored: address and key of the server may change. */
  readonly identity: Identity
  readonly notices: Topic<Notice>
  /** Rows of the store changed: events, outcomes, log, or the status. */
  readonly changed: Topic<void>
  /** What is known now, without asking. */
  readonly status: MemberStatus
  refreshStatus(): Promise<MemberStatus>
  /** There is more in the outbox. */
  wake(): void
  /** Durable in the outbox when it resolves. */
  enqueue(items: readonly NewItem[]): Promise<void>
  query(request: QueryRequest, signal?: AbortSignal): Promise<QueryPage>
  /** `account` is as new as the server's log at the time of the call. Throws `unreachable`, `timeout`, `log_withheld`. */
  readLog(signal?: AbortSignal): Promise<void>
  revoke(device_id: string, signal?: AbortSignal): Promise<void>
  rename(device_id: string, name: string, signal?: AbortSignal): Promise<void>
  addDevice(device: DeviceIntroduction, signal?: AbortSignal): Promise<AppendedEntry>
  moveServer(server: string, signal?: AbortSignal): Promise<void>
  close(): Promise<void>
}

const OFFLINE: MemberStatus = {
  state: 'offline',
  last_error: null,
  terminal: null,
  trouble: null,
  head_position: null,
  clock_offset: null,
  presence: [],
}
const ASK_TRIES = 3
const RETAKE_MS = 1_000
const STATUS_MS = 5_000
/** A request may fail a moment before its link is known to be gone. */
const GONE_MS = 2_000
/** A successor cannot lead either. */
const FINAL: ReadonlySet<ErrorCode> = new Set(['device_revoked', 'not_paired', 'state_damaged', 'state_newer', 'log_fork'])

type Role = { is: 'leader'; seat: LeaderSeat; leader: Leader } | { is: 'follower'; link: LeaderLink } | { is: 'alone' }

/** `connect` false: reads and writes the store, asks nobody and leads nothing. */
export async function openMember(home: Home, stored: Identity, connect: boolean, signal?: AbortSignal): Promise<Member> {
  const notices = createTopic<Notice>()
  const changed = createTopic<void>()
  let role: Role = { is: 'alone' }
  let status = OFFLINE
  let closed = false
  const closing = new AbortController()
  let changing: Promise<void> = Promise.resolve()
  let trouble: SealpostError | null = null
  const time = await openServerClock(home)
  let identity = stored
  let account = await openAccountLog(home.crypto, home.store, time, identity)

  async function take(waiting?: AbortSignal): Promise<void> {
    const seat = await home.coordination.lead(waiting)
    if (closed) {
      await (seat.role === 'leader' ? seat.resign() : seat.close())
      return
    }
    if (seat.role === 'follower') return follow(seat)
    try {
      await lead(seat)
    } catch (error) {
      // another process may do better, and this one must not keep it from trying
      await seat.resign()
      throw error
    }
  }

  async function lead(seat: LeaderSeat): Promise<void> {
    // what a leader before wrote is read now, not what this process saw as a follower
    const current = await home.store.readIdentity()
    if (current === null) {
      const revocation = await home.store.readRevocation()
      throw revocation === null ? new SealpostError('not_paired', 'this home holds no device any more') : revokedError(revocation)
    }
    const leader = await openLeader(home, current, time)
    account = leader.account
    role = { is: 'leader', seat, leader }
    leader.notices.on((notice) => {
      if (notice.is === 'error' && !notice.terminal) {
        trouble = notice.error
        changed.emit()
        seat.wake()
      }
      notices.emit(notice)
    })
    leader.settled.on((acked) => {
      if (acked) trouble = null
    })
    leader.changed.on(() => {
      changed.emit()
      seat.wake()
    })
    seat.onWake(() => leader.pump())
    seat.onRequest((request, gone) => answerFollower(leader, statusOf(leader, trouble, time), request, gone))
    leader.start()
  }

  function follow(link: LeaderLink): void {
    role = { is: 'follower', link }
    link.onWake(() => {
      changed.emit()
      void refresh()
    })
    void refresh()
    link.wake()
    void link.ended.then(() => {
      if (closed) return
      setStatus({ ...status, state: 'offline', presence: [] })
      changing = succeed()
    })
  }

  /** Leads or follows again; goes on trying until it does, is closed, or cannot ever. */
  async function succeed(): Promise<void> {
    for (;;) {
      try {
        return await take(closing.signal)
      } catch (error) {
        const known = toError(error)
        if (closed) return
        if (FINAL.has(known.code)) return setStatus({ ...status, terminal: known })
        trouble = known
        notices.emit({ is: 'error', error: known, terminal: false })
        await sleep(home.clock, RETAKE_MS, closing.signal).catch(() => undefined)
      }
    }
  }

  function setStatus(next: MemberStatus): void {
    const before = status
    status = next
    if (next.clock_offset !== null) time.hear(home.clock.now() + next.clock_offset)
    if (next.state !== before.state) notices.emit({ is: 'state', state: next.state })
    if (next.terminal !== null && before.terminal === null) notices.emit({ is: 'error', error: next.terminal, terminal: true })
    const { trouble: told } = next
    if (told !== null && (told.code !== before.trouble?.code || told.message !== before.trouble.message))
      notices.emit({ is: 'error', error: told, terminal: false })
    changed.emit()
  }

  /** Status and log as the leader has them now. */
  const refresh = createShared(async () => {
    if (role.is !== 'follower') return
    const { link } = role
    try {
      const late = (): SealpostError => new SealpostError('timeout', 'the leading process of this home does not answer')
      const reply = await within(home.clock, STATUS_MS, link.request({ head: { op: 'status' }, body: EMPTY }), late)
      if (reply.head['log_seq'] !== account.log.log_seq) await account.refresh()
      if (reply.head['server'] !== serverOf(identity)) await rereadIdentity()
      if (role.is === 'follower' && role.link === link && !closed) setStatus(readStatus(reply.head))
    } catch {
      // a leader that goes is noticed by `ended`; one that does not answer is asked again on the next wake
    }
  })

  /** What the leader read or changed of the device log is in the store: here as well when it resolves. */
  async function askAboutLog(link: LeaderLink, head: HomeMessage['head'], signal?: AbortSignal): Promise<HomeMessage['head']> {
    const reply = await link.request({ head, body: EMPTY }, signal)
    await account.refresh()
    return reply.head
  }

  async function rereadIdentity(): Promise<void> {
    identity = (await home.store.readIdentity()) ?? identity
  }

  /** Asks whoever leads now; a leader that went before its answer is asked again as its successor. */
  async function ask<T>(
    signal: AbortSignal | undefined,
    asLeader: (leader: Leader) => Promise<T>,
    asFollower: (link: LeaderLink) => Promise<T>,
  ): Promise<T> {
    for (let tries = 1; ; tries++) {
      await orAborted(changing, signal)
      const now = role
      if (now.is === 'alone') throw status.terminal ?? new SealpostError('unreachable', 'this process was opened without a connection')
      if (now.is === 'leader') return asLeader(now.leader)
      try {
        return await asFollower(now.link)
      } catch (error) {
        if (closed || !(error instanceof SealpostError) || error.code !== 'unreachable') throw error
        if (tries >= ASK_TRIES) throw status.terminal ?? error
        const gone = await Promise.race([now.link.ended.then(() => true), sleep(home.clock, GONE_MS, signal).then(() => false)])
        if (!gone) throw error
      }
    }
  }

  if (connect) await take(signal)

  return {
    get role() {
      return role.is === 'leader' ? 'leader' : 'follower'
    },
    get alone() {
      return role.is === 'alone'
    },
    get account() {
      return account
    },
    time,
    get identity() {
      return role.is === 'leader' ? role.leader.identity : identity
    },
    notices,
    changed,
    get status() {
      return role.is === 'leader' ? statusOf(role.leader, trouble, time) : status
    },
    async refreshStatus() {
      await refresh()
      return role.is === 'leader' ? statusOf(role.leader, trouble, time) : status
    },
    wake() {
      if (role.is === 'leader') role.leader.pump()
      else if (role.is === 'follower') role.link.wake()
    },
    async enqueue(items) {
      const now = role
      if (now.is === 'leader') return now.leader.enqueue(items)
      await home.store.enqueue(items)
      if (role.is === 'leader') role.leader.pump()
      else if (role.is === 'follower') role.link.wake()
    },
    query: (request, gone) =>
      ask(
        gone,
        (leader) => leader.query(request, gone),
        async (link) => {
          const { head, body } = await link.request({ head: { op: 'query', ...request }, body: EMPTY }, gone)
          return { ...(head as Omit<QueryPage, 'body'>), body }
        },
      ),
    readLog: (gone) =>
      ask(
        gone,
        (leader) => leader.readLog(gone),
        async (link) => {
          await askAboutLog(link, { op: 'read_log' }, gone)
        },
      ),
    revoke: (device_id, gone) =>
      ask(
        gone,
        (leader) => leader.revoke(device_id, gone),
        async (link) => {
          await askAboutLog(link, { op: 'revoke', device_id }, gone)
        },
      ),
    rename: (device_id, name, gone) =>
      ask(
        gone,
        async (leader) => {
          await leader.append(decideRename(device_id, name), gone)
        },
        async (link) => {
          await askAboutLog(link, { op: 'rename', device_id, name }, gone)
        },
      ),
    addDevice: (device, gone) =>
      ask(
        gone,
        (leader) => addDevice(leader, device, gone),
        async (link) => {
          const head = await askAboutLog(link, { op: 'add_device', device }, gone)
          return { log_seq: Number(head['log_seq']), entry_hash: fromBase64url(String(head['entry_hash']), 32) }
        },
      ),
    moveServer: (server, gone) =>
      ask(
        gone,
        (leader) => leader.moveServer(server, gone),
        async (link) => {
          await link.request({ head: { op: 'move_server', server }, body: EMPTY }, gone)
          await rereadIdentity()
        },
      ),
    async close() {
      closed = true
      closing.abort()
      await changing
      if (role.is === 'leader') {
        await role.leader.close()
        await role.seat.resign()
      } else if (role.is === 'follower') await role.link.close()
      role = { is: 'alone' }
      status = OFFLINE
    },
  }
}

async function answerFollower(leader: Leader, known: MemberStatus, request: HomeMessage, signal: AbortSignal): Promise<HomeMessage> {
  const { head } = request
  switch (head['op']) {
    case 'status': {
      const { last_error, terminal, trouble, ...plain } = known
      const status = { ...plain, last_error: toWire(last_error), terminal: toWire(terminal), trouble: toWire(trouble) }
      return { head: { ...status, log_seq: leader.account.log.log_seq, server: serverOf(leader.identity) }, body: EMPTY }
    }
    case 'query': {
      const { body, ...page } = await leader.query(head as unknown as QueryRequest, signal)
      return { head: page, body }
    }
    case 'read_log':
      await leader.readLog(signal)
      return { head: {}, body: EMPTY }
    case 'revoke':
      await leader.revoke(String(head['device_id']), signal)
      return { head: {}, body: EMPTY }
    case 'rename':
      await leader.append(decideRename(String(head['device_id']), String(head['name'])), signal)
      return { head: {}, body: EMPTY }
    case 'add_device': {
      const added = await addDevice(leader, head['device'] as DeviceIntroduction, signal)
      return { head: { log_seq: added.log_seq, entry_hash: toBase64url(added.entry_hash) }, body: EMPTY }
    }
    case 'move_server':
      await leader.moveServer(String(head['server']), signal)
      return { head: {}, body: EMPTY }
    default:
      throw new SealpostError('invalid_request', 'the leading process of this home is of another version', {
        hint: 'end it, then try again: all processes of a home run one version of sealpost',
      })
  }
}

/** What of the identity may change while processes run. */
function serverOf({ server_url, server_key }: Identity): string {
  return `${server_url}/#${toBase64url(server_key)}`
}

async function addDevice(leader: Leader, device: DeviceIntroduction, signal: AbortSignal | undefined): Promise<AppendedEntry> {
  const decide: Decide = (log) => (log.devices.has(device.device_id) ? null : { type: 'add_device', device })
  const added = await leader.append(decide, signal)
  if (added !== null) return added
  // asked twice: the first answer was lost with its leader
  const { log } = leader.account
  const log_seq = log.devices.get(device.device_id)?.added
  const entry_hash = log_seq === undefined ? undefined : log.epochs[log_seq]?.entry_hash
  if (log_seq === undefined || entry_hash === undefined) throw new SealpostError('internal', 'the new device is not in the log')
  return { log_seq, entry_hash }
}

function statusOf(leader: Leader, trouble: SealpostError | null, time: ServerClock): MemberStatus {
  return { ...leader.status(), trouble, clock_offset: time.sure ? time.offset : null, presence: leader.presence() }
}

type WireError = { code: string; message: string; hint: string | undefined } | null

function toWire(error: SealpostError | null): WireError {
  return error === null ? null : { code: error.code, message: error.message, hint: error.hint }
}

function fromWire(value: unknown): SealpostError | null {
  if (typeof value !== 'object' || value === null || !('code' in value) || !('message' in value)) return null
  const { code, message } = value
  const hint = 'hint' in value && typeof value.hint === 'string' ? value.hint : undefined
  const known = typeof code === 'string' && Object.hasOwn(ERROR, code) ? (code as ErrorCode) : 'internal'
  return new SealpostError(known, String(message), { hint })
}

function readStatus(head: Record<string, unknown>): MemberStatus {
  const { state, head_position, clock_offset, presence } = head
  return {
    state: state === 'connecting' || state === 'replaying' || state === 'live' ? state : 'offline',
    head_position: typeof head_position === 'number' ? head_position : null,
    clock_offset: typeof clock_offset === 'number' ? clock_offset : null,
    presence: Array.isArray(presence) ? (presence as Presence[]) : [],
    last_error: fromWire(head['last_error']),
    terminal: fromWire(head['terminal']),
    trouble: fromWire(head['trouble']),
  }
}
