/**
 * One process of a home, whatever its role (protocol-free): as the leader it runs the engine, as a follower it asks the leader. When
 * the leader ends, a follower takes its place; what was asked meanwhile is asked again.
 *
 * Requests of followers are small JSON heads: `status`, `query`, `revoke`, `add_device`. A query's page travels as the server
 * sent it and is verified by whoever asked.
 */
import { type DeviceIntroduction, EMPTY, ERROR, type ErrorCode, fromBase64url, SealpostError, toBase64url } from '@sealpost/protocol'
import { type AccountLog, openAccountLog } from './account-log.ts'
import { type Leader, openLeader, type Presence, type QueryPage, type QueryRequest } from './leader.ts'
import type { Decide } from './log-append.ts'
import type { ConnectionState } from './machine.ts'
import type { Notice } from './notices.ts'
import type { Home, HomeMessage, Identity, LeaderLink, LeaderSeat } from './ports.ts'
import { createTopic, type Topic } from './signal.ts'

export type MemberStatus = {
  state: ConnectionState
  last_error: SealpostError | null
  /** The engine has stopped and does not connect again by itself. */
  terminal: SealpostError | null
  head_position: number | null
  clock_offset: number
  presence: Presence[]
}

export type AppendedEntry = { log_seq: number; entry_hash: Uint8Array }

export type Member = {
  readonly role: 'leader' | 'follower'
  readonly account: AccountLog
  readonly notices: Topic<Notice>
  /** Rows of the store changed: events, outcomes, log, or the status. */
  readonly changed: Topic<void>
  /** What is known now, without asking. */
  readonly status: MemberStatus
  refreshStatus(): Promise<MemberStatus>
  /** There is more in the outbox. */
  wake(): void
  query(request: QueryRequest, signal?: AbortSignal): Promise<QueryPage>
  revoke(device_id: string, signal?: AbortSignal): Promise<void>
  addDevice(device: DeviceIntroduction, signal?: AbortSignal): Promise<AppendedEntry>
  close(): Promise<void>
}

const OFFLINE: MemberStatus = { state: 'offline', last_error: null, terminal: null, head_position: null, clock_offset: 0, presence: [] }
const ASK_TRIES = 3

type Role = { is: 'leader'; seat: LeaderSeat; leader: Leader } | { is: 'follower'; link: LeaderLink } | { is: 'alone' }

/** `connect` false: reads and writes the store, asks nobody and leads nothing. */
export async function openMember(home: Home, identity: Identity, connect: boolean, signal?: AbortSignal): Promise<Member> {
  const notices = createTopic<Notice>()
  const changed = createTopic<void>()
  let role: Role = { is: 'alone' }
  let status = OFFLINE
  let closed = false
  let changing: Promise<void> = Promise.resolve()
  let account = await openAccountLog(home.crypto, home.store, home.clock, identity)

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
    const current = (await home.store.readIdentity()) ?? identity
    const leader = await openLeader(home, current)
    account = leader.account
    role = { is: 'leader', seat, leader }
    leader.notices.on((notice) => notices.emit(notice))
    leader.changed.on(() => {
      status = statusOf(leader)
      changed.emit()
      seat.wake()
    })
    seat.onWake(() => leader.pump())
    seat.onRequest((request, gone) => answerFollower(leader, request, gone))
    leader.start()
  }

  function follow(link: LeaderLink): void {
    role = { is: 'follower', link }
    link.onWake(() => {
      changed.emit()
      void refresh(link)
    })
    void refresh(link)
    link.wake()
    void link.ended.then(() => {
      if (closed) return
      changing = take().catch((error: unknown) => {
        notices.emit({ is: 'error', error: toError(error), terminal: false })
      })
    })
  }

  let refreshing: Promise<void> | null = null

  /** Status and log as the leader has them; one at a time, it is asked on every wake. */
  function refresh(link: LeaderLink): Promise<void> {
    refreshing ??= (async () => {
      try {
        const reply = await link.request({ head: { op: 'status' }, body: EMPTY })
        const before = status
        status = readStatus(reply.head)
        if (reply.head['log_seq'] !== account.log.log_seq) await account.refresh()
        if (status.state !== before.state) notices.emit({ is: 'state', state: status.state })
        if (status.terminal !== null && before.terminal === null) notices.emit({ is: 'error', error: status.terminal, terminal: true })
        changed.emit()
      } catch {
        // a leader that goes is noticed by `ended`
      } finally {
        refreshing = null
      }
    })()
    return refreshing
  }

  /** Asks whoever leads now; a leader that went before its answer is asked again as its successor. */
  async function ask<T>(asLeader: (leader: Leader) => Promise<T>, asFollower: (link: LeaderLink) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      await changing
      const now = role
      if (now.is === 'alone') throw new SealpostError('unreachable', 'this process was opened without a connection')
      if (now.is === 'leader') return asLeader(now.leader)
      try {
        return await asFollower(now.link)
      } catch (error) {
        const gone = await Promise.race([now.link.ended.then(() => true), Promise.resolve(false)])
        if (!gone || closed || tries >= ASK_TRIES || !(error instanceof SealpostError) || error.code !== 'unreachable') throw error
      }
    }
  }

  if (connect) await take(signal)

  return {
    get role() {
      return role.is === 'leader' ? 'leader' : 'follower'
    },
    get account() {
      return account
    },
    notices,
    changed,
    get status() {
      return role.is === 'leader' ? statusOf(role.leader) : status
    },
    async refreshStatus() {
      await changing
      if (role.is === 'follower') await refresh(role.link)
      return role.is === 'leader' ? statusOf(role.leader) : status
    },
    wake() {
      if (role.is === 'leader') role.leader.pump()
      else if (role.is === 'follower') role.link.wake()
    },
    query: (request, gone) =>
      ask(
        (leader) => leader.query(request, gone),
        async (link) => {
          const { head, body } = await link.request({ head: { op: 'query', ...request }, body: EMPTY }, gone)
          return { ...(head as Omit<QueryPage, 'body'>), body }
        },
      ),
    revoke: (device_id, gone) =>
      ask(
        (leader) => leader.revoke(device_id, gone),
        async (link) => {
          await link.request({ head: { op: 'revoke', device_id }, body: EMPTY }, gone)
        },
      ),
    addDevice: (device, gone) =>
      ask(
        (leader) => addDevice(leader, device, gone),
        async (link) => {
          const { head } = await link.request({ head: { op: 'add_device', device }, body: EMPTY }, gone)
          return { log_seq: Number(head['log_seq']), entry_hash: fromBase64url(String(head['entry_hash']), 32) }
        },
      ),
    async close() {
      closed = true
      await changing.catch(() => undefined)
      if (role.is === 'leader') {
        await role.leader.close()
        await role.seat.resign()
      } else if (role.is === 'follower') await role.link.close()
      role = { is: 'alone' }
      status = OFFLINE
    },
  }
}

async function answerFollower(leader: Leader, request: HomeMessage, signal: AbortSignal): Promise<HomeMessage> {
  const { head } = request
  switch (head['op']) {
    case 'status': {
      const { state, last_error, terminal, head_position, clock_offset, presence } = statusOf(leader)
      const status = { state, head_position, clock_offset, presence, last_error: toWire(last_error), terminal: toWire(terminal) }
      return { head: { ...status, log_seq: leader.account.log.log_seq }, body: EMPTY }
    }
    case 'query': {
      const { body, ...page } = await leader.query(head as unknown as QueryRequest, signal)
      return { head: page, body }
    }
    case 'revoke':
      await leader.revoke(String(head['device_id']), signal)
      return { head: {}, body: EMPTY }
    case 'add_device': {
      const added = await addDevice(leader, head['device'] as DeviceIntroduction, signal)
      return { head: { log_seq: added.log_seq, entry_hash: toBase64url(added.entry_hash) }, body: EMPTY }
    }
    default:
      throw new SealpostError('invalid_request', 'the leader of this home is of another version')
  }
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

function statusOf(leader: Leader): MemberStatus {
  return { ...leader.status(), clock_offset: leader.clock_offset, presence: leader.presence() }
}

type WireError = { code: string; message: string } | null

function toWire(error: SealpostError | null): WireError {
  return error === null ? null : { code: error.code, message: error.message }
}

function fromWire(value: unknown): SealpostError | null {
  if (typeof value !== 'object' || value === null || !('code' in value) || !('message' in value)) return null
  const { code, message } = value
  const known = typeof code === 'string' && Object.hasOwn(ERROR, code) ? (code as ErrorCode) : 'internal'
  return new SealpostError(known, String(message))
}

function readStatus(head: Record<string, unknown>): MemberStatus {
  const { state, head_position, clock_offset, presence } = head
  return {
    state: state === 'connecting' || state === 'replaying' || state === 'live' ? state : 'offline',
    head_position: typeof head_position === 'number' ? head_position : null,
    clock_offset: typeof clock_offset === 'number' ? clock_offset : 0,
    presence: Array.isArray(presence) ? (presence as Presence[]) : [],
    last_error: fromWire(head['last_error']),
    terminal: fromWire(head['terminal']),
  }
}

function toError(error: unknown): SealpostError {
  return error instanceof SealpostError ? error : new SealpostError('internal', 'a failure inside', { cause: error })
}
