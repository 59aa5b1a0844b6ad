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
  type DeviceLog,
  type EventRecord,
  type KnownChains,
  LIMITS,
  type Received,
  type ReceiveContext,
  receivePage,
  SealpostError,
  type Tip,
} from '@sealpost/protocol'
import type { AccountLog } from './account-log.ts'
import type { StreamNotice } from './notices.ts'
import type { OwnEvents } from './outbox.ts'
import type {
  AlarmRow,
  Clock,
  DeviceStore,
  HeadChange,
  Identity,
  ItemAck,
  ReceivedItem,
  ReceiveState,
  StoredCursor,
  StoredHead,
} from './ports.ts'
import { sleep } from './signal.ts'

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
  clockOffset(): number
  withOwn<T>(call: (own: OwnEvents) => Promise<T>): Promise<T>
  /** The own chains begin anew. */
  forgetOwnHeads(): Promise<void>
  /** A reset is stored: what is sent from here on belongs to the new history. */
  resetStored(): void
  /** Resolves when the entries from there on were applied. Throws `log_withheld`. */
  requestLog(from_log_seq: number): Promise<void>
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
      now_ms: clock.now() + ports.clockOffset(),
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
    if (account.log.log_seq < epoch) await ports.requestLog(account.log.log_seq + 1)
    if (account.log.log_seq < epoch)
      throw new SealpostError('log_withheld', 'the server withholds entries of the device log; nothing of it is handed over')
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

/** Its key was sealed to this device: an event of it that stays closed is missing here, and not by intent. */
export function isSealedTo(log: DeviceLog, epoch: number, device_id: string): boolean {
  return log.epochs[epoch]?.sealed.has(device_id) === true
}

const NOTHING_OWN = { waiting: new Set<string>(), known: new Set<string>() }

function toPosition(note: unknown): number {
  return typeof note === 'number' && Number.isSafeInteger(note) ? note : 0
}

/** Positions rise inside (after, upto]; anything else would let a server slip records behind a cursor. */
export function checkPositions(records: readonly EventRecord[], range: { after: number; upto: number }): void {
  let last = range.after
  for (const record of records) {
    const position = record.server?.position ?? 0
    if (position <= last || position > range.upto)
      throw new SealpostError('invalid_message', 'records outside of the range that the message names')
    last = position
  }
}

/** The entry at `upto` is the last record, or the one that `tip` names; nothing named: retention took it. */
export function cursorAfter(
  cursor: StoredCursor,
  message: { upto: number; tip?: Tip | null },
  records: readonly EventRecord[],
  history_id: string | null,
): StoredCursor {
  if (message.upto === cursor.position) return { ...cursor, history_id }
  const last = records.at(-1)
  if (last?.server?.position === message.upto)
    return { position: message.upto, event_id: last.event_id, received_at: last.server.received_at, history_id }
  if (message.tip === undefined) throw new SealpostError('invalid_message', 'the entry where the message ends is not named')
  const tip: Tip | null = message.tip
  return { position: message.upto, event_id: tip?.event_id ?? null, received_at: tip?.received_at ?? null, history_id }
}

function ownRecords(items: readonly Received[], device_id: string): EventRecord[] {
  const out: EventRecord[] = []
  for (const item of items) {
    if ((item.is === 'event' || item.is === 'expired' || item.is === 'closed') && item.record.device_id === device_id) out.push(item.record)
  }
  return out
}

type Parts = { rows: ReceivedItem[]; acks: ItemAck[]; alarms: AlarmRow[]; notices: StreamNotice[] }

/** What a page of verified items comes to: rows for the buffer, acks for the outbox, alarms. */
export function toRows(
  items: readonly Received[],
  device_id: string,
  own: { waiting: ReadonlySet<string>; known: ReadonlySet<string> },
  now_ms: number,
  sealedToUs: (epoch: number) => boolean = () => false,
): Parts {
  const parts: Parts = { rows: [], acks: [], alarms: [], notices: [] }
  const notify = (notice: StreamNotice, stream_id: string | null, position: number): void => {
    parts.notices.push(notice)
    parts.rows.push({ is: 'notice', position, stream_id, notice: JSON.stringify(notice) })
  }
  for (const item of items) {
    switch (item.is) {
      case 'event':
      case 'expired':
      case 'closed': {
        const { record } = item
        if (record.server === null) break
        if (record.device_id === device_id && own.known.has(record.event_id)) {
          const { position, stream_seq, received_at } = record.server
          if (own.waiting.has(record.event_id))
            parts.acks.push({ event_id: record.event_id, device_seq: record.device_seq, position, stream_seq, received_at })
        } else if (item.is === 'event') parts.rows.push(eventRow(record, item.data))
        else if (item.is === 'closed' && sealedToUs(record.epoch)) {
          const alarm = { position: record.server.position, device_id: record.device_id, reason: 'epoch_unreadable' }
          notify({ is: 'alarm', ...alarm }, record.stream_id, alarm.position)
          parts.alarms.push({ ...alarm, at: now_ms })
        }
        break
      }
      case 'gap': {
        const { stream_id, device_id: sender, from_device_seq, reason, position } = item
        notify({ is: 'gap', stream_id, device_id: sender, from_device_seq, reason, position }, stream_id, position)
        if (reason === 'unexplained') parts.alarms.push({ position, device_id: sender, reason: 'unexplained_gap', at: now_ms })
        break
      }
      case 'alarm': {
        const { position, device_id: sender, reason } = item
        notify({ is: 'alarm', position, device_id: sender, reason }, item.stream_id, position)
        parts.alarms.push({ position, device_id: sender, reason, at: now_ms })
      }
    }
  }
  return parts
}

export function eventRow(record: EventRecord, data: Bytes): ReceivedItem {
  return {
    is: 'event',
    position: record.server?.position ?? 0,
    stream_id: record.stream_id,
    stream_seq: record.server?.stream_seq ?? 0,
    event_id: record.event_id,
    type: record.type,
    device_id: record.device_id,
    received_at: record.server?.received_at ?? 0,
    ttl: record.ttl,
    data,
  }
}
