/**
 * The receive path (protocol.md §3, §5): messages with records, one after another: verify, open, store, then tell. Leader only.
 *
 * Invariants: `after` of a message is the `upto` of the one received before (checked on arrival, before anything waits); events,
 * chain heads and cursor of a message are one transaction, so a crash repeats a message or does not; the cursor moves only
 * with what it covers. A record of an unknown epoch holds the queue until the device log has come, 10 s at most.
 * Bound: the engine stops reading the socket above `QUEUED_MAX` messages.
 */
import {
  type Bytes,
  chainKey,
  type Crypto,
  decodeRecords,
  type EventRecord,
  type KnownChains,
  LIMITS,
  type Received,
  type ReceiveContext,
  receivePage,
  SealpostError,
  type Tip,
} from '@sealpost/protocol'
import type { AccountLog } from '../log/account-log.ts'
import { checkPositions, cursorAfter } from './cursor.ts'
import { withheld } from '../log/log-reading.ts'
import type { StreamNotice } from '../notices.ts'
import type { OwnEvents } from '../outbox/own-events.ts'
import type { Clock, DeviceStore, HeadChange, Identity, ReceiveState, StoredCursor, StoredHead } from '../ports.ts'
import { isSealedTo, ownRecords, toRows } from './received-rows.ts'
import type { ServerClock } from '../connection/server-clock.ts'
import { sleep } from '../signal.ts'

export const QUEUED_MAX = 16
const TRIM_EVERY = 50
/** The device that brings back entries has their other boxes only in the rotation that it sends right behind. */
const KEY_WAIT_MS = 5_000
const KEY_LOOK_MS = 100
const TRIM = { rows: 100_000, bytes: 128 * 1_048_576 }
const RESET_NOTE = 'reset_upto'

export type InboxPorts = {
  crypto: Crypto
  store: DeviceStore
  clock: Clock
  identity: Identity
  account: AccountLog
  time: ServerClock
  withOwn<T>(call: (own: OwnEvents) => Promise<T>): Promise<T>
  /** The own chains begin anew. */
  forgetOwnHeads(): Promise<void>
  /** A reset is stored: what is sent from here on belongs to the new history. */
  resetStored(): void
  /** Resolves when the entries that are missing here were applied. Throws `log_withheld`. */
  requestLog(): Promise<void>
  tell(notice: StreamNotice): void
  /** Resolves when the acks that came before are on disk: no cursor passes an own event that is still unacked there (protocol.md §5). */
  acksStored(): Promise<void>
  /** Rows or the cursor changed. `moved`: the cursor went on. */
  stored(moved: boolean): void
  /** The page with `has_more: false` is stored. */
  caughtUp(): void
  failed(error: unknown): void
}

export type RecordsMessage = {
  is: 'records'
  after: number
  upto: number
  tip?: Tip | null
  body: Bytes
  floor: number | null
  last: boolean
}
export type ResetMessage = {
  is: 'reset'
  reason: 'history_changed' | 'cursor_unknown'
  history_id: string
  head_position: number
  from_position: number
}

export type Inbox = {
  /** What is stored. */
  readonly cursor: StoredCursor
  readonly queued: number
  /** A session stands at the stored cursor. */
  begin(session: { history_id: string; floor: number }): void
  /** Forgets what was not begun yet. */
  end(): void
  /** False: the message does not follow the one before (`cursor_gap`). */
  offer(message: RecordsMessage | ResetMessage): boolean
  /** Resolves when nothing is being stored any more. */
  idle(): Promise<void>
}

export async function openInbox(ports: InboxPorts, state: ReceiveState): Promise<Inbox> {
  const { crypto, store, clock, identity, account } = ports
  /** Chains of the other devices; the own ones are the outbox's. */
  const heads = new Map([...state.heads].filter(([key]) => !key.startsWith(identity.device_id)))
  let cursor = state.cursor
  let reset_upto = toPosition(await store.readNote(RESET_NOTE))
  let received_upto = cursor.position
  let history_id = cursor.history_id
  let floor = 0
  let queue: (RecordsMessage | ResetMessage)[] = []
  let running: Promise<void> | null = null
  let commits = 0
  let session_no = 0
  const unreadable = new Set<number>()

  async function run(): Promise<void> {
    // a message is worked on only while its session lives: a later session begins at the stored cursor
    for (let message = queue.shift(); message !== undefined; message = queue.shift()) {
      try {
        if (message.is === 'reset') await applyReset(message)
        else await applyRecords(message)
      } catch (error) {
        queue = []
        ports.failed(error)
      }
    }
    running = null
  }

  async function idle(): Promise<void> {
    const current = running
    if (current === null) return
    await current
    // offered while we waited
    await idle()
  }

  async function applyRecords(message: RecordsMessage): Promise<void> {
    const records = decodeRecords(message.body, LIMITS.replayEventsMax)
    checkPositions(records, message)
    if (message.floor !== null) floor = Math.max(floor, message.floor)
    const own = records.some((record) => record.device_id === identity.device_id)
    const before = cursor.position
    await ports.acksStored()
    const notices = own ? await ports.withOwn((view) => receive(message, records, view)) : await receive(message, records, null)
    for (const notice of notices) ports.tell(notice)
    ports.stored(cursor.position > before)
    if (message.last) ports.caughtUp()
    if (++commits % TRIM_EVERY === 0) await store.trimReceived(TRIM)
  }

  async function receive(message: RecordsMessage, all: readonly EventRecord[], own: OwnEvents | null): Promise<StreamNotice[]> {
    const moved = new Map<string, StoredHead>()
    const prefix = `${identity.device_id}/`
    const chains: KnownChains = {
      get: (key) => moved.get(key) ?? (key.startsWith(prefix) ? own?.heads.get(key.slice(prefix.length)) : heads.get(key)),
    }
    let rest = all.filter((record) => !isKnown(message, record, chains, own))
    const items: Received[] = []
    while (rest.length > 0) {
      await account.openKeys(rest.map((record) => record.epoch).filter((epoch) => epoch <= account.log.log_seq))
      await holdForKeys(rest)
      const page = await receivePage(crypto, context(), chains, rest)
      for (const item of page.items) items.push(item)
      for (const [key, head] of page.moved) moved.set(key, head)
      if (page.unknown_epoch === null) break
      rest = rest.slice(page.unknown_epoch.index)
      await holdForEpoch(page.unknown_epoch.epoch)
    }
    const found = own === null ? NOTHING_OWN : await own.find(ownRecords(items, identity.device_id).map((record) => record.event_id))
    const parts = toRows(items, identity.device_id, found, clock.now(), (epoch) => isSealedTo(account.log, epoch, identity.device_id))
    const next = cursorAfter(cursor, message, all, history_id)
    const ownHeads = new Map<string, StoredHead>()
    let upto = own?.acked_device_seq ?? 0
    for (const [key, head] of moved) {
      if (!key.startsWith(identity.device_id)) continue
      ownHeads.set(key.slice(identity.device_id.length + 1), head)
      upto = Math.max(upto, head.device_seq)
    }
    const changes: HeadChange[] = [...moved].map(([key, head]) => ({ key, head }))
    await store.commitReceived({
      items: parts.rows,
      cursor: next,
      heads: changes,
      acks: parts.acks,
      ...(own === null ? {} : { acked_device_seq: upto }),
      alarms: parts.alarms,
    })
    for (const [key, head] of moved) if (!key.startsWith(identity.device_id)) heads.set(key, head)
    cursor = next
    own?.adopt(ownRecords(items, identity.device_id).length, parts.acks, ownHeads, upto)
    if (reset_upto > 0 && message.upto >= reset_upto) {
      reset_upto = 0
      await store.writeNote(RESET_NOTE, 0)
    }
    return parts.notices
  }

  /** Records that this device has had: own ones it knows as acked; after a reset, those at or below the known head of their chain. */
  function isKnown(message: RecordsMessage, record: EventRecord, chains: KnownChains, own: OwnEvents | null): boolean {
    if (record.device_id === identity.device_id && own !== null && record.device_seq <= own.acked_device_seq) return true
    if (message.after >= reset_upto) return false
    return record.device_seq <= (chains.get(chainKey(record))?.device_seq ?? 0)
  }

  function context(): ReceiveContext {
    return {
      user_id: identity.user_id,
      log: account.log,
      epoch_key: (epoch) => account.epochKey(epoch),
      floor,
      now_ms: ports.time.now(),
    }
  }

  /** A key that was sealed to this device and is not there may come with the next entry; it is waited for once. */
  async function holdForKeys(records: readonly EventRecord[]): Promise<void> {
    const missing = records
      .map((record) => record.epoch)
      .find((epoch) => !unreadable.has(epoch) && isSealedTo(account.log, epoch, identity.device_id) && account.epochKey(epoch) === null)
    if (missing === undefined) return
    const began = session_no
    for (let waited = 0; waited < KEY_WAIT_MS && account.epochKey(missing) === null; waited += KEY_LOOK_MS) {
      await sleep(clock, KEY_LOOK_MS)
      if (session_no !== began) throw new SealpostError('unreachable', 'the session ended while a key was waited for')
      await account.openKeys([missing])
    }
    if (account.epochKey(missing) === null) unreadable.add(missing)
    await holdForKeys(records)
  }

  async function holdForEpoch(epoch: number): Promise<void> {
    if (account.log.log_seq < epoch) await ports.requestLog()
    if (account.log.log_seq < epoch) throw withheld()
  }

  async function applyReset(message: ResetMessage): Promise<void> {
    const notice: StreamNotice = { is: 'reset', reason: message.reason }
    ports.tell(notice)
    if (message.reason === 'history_changed') await ports.forgetOwnHeads()
    await store.writeNote(RESET_NOTE, message.head_position)
    reset_upto = message.head_position
    const next = { position: message.from_position, event_id: null, received_at: null, history_id: message.history_id }
    await store.commitReceived({
      items: [{ is: 'notice', position: 0, stream_id: null, notice: JSON.stringify(notice) }],
      cursor: next,
      heads: [],
      acks: [],
      alarms: [],
    })
    cursor = next
    ports.resetStored()
    ports.stored(false)
  }

  return {
    get cursor() {
      return cursor
    },
    get queued() {
      return queue.length + (running === null ? 0 : 1)
    },
    begin(session) {
      received_upto = cursor.position
      history_id = session.history_id
      floor = session.floor
    },
    end() {
      session_no++
      queue = []
    },
    offer(message) {
      if (message.is === 'records') {
        if (message.after !== received_upto || message.upto < message.after) return false
        received_upto = message.upto
      } else {
        received_upto = message.from_position
        history_id = message.history_id
      }
      queue.push(message)
      running ??= run()
      return true
    },
    idle,
  }
}

const NOTHING_OWN = { waiting: new Set<string>(), known: new Set<string>() }

function toPosition(note: unknown): number {
  return typeof note === 'number' && Number.isSafeInteger(note) ? note : 0
}
