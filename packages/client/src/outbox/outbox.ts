/**
 * The outbox at work (protocol.md §3, §4): takes pending items in order, has them sealed, sends them in batches, settles acks and
 * nacks. Leader only.
 *
 * Invariants: an item is sealed only while the session lets it be sent, and is on disk in its sealed form before the bytes
 * leave; a retry sends the same bytes; a number is given once the one before it is sealed and comes back when its item is
 * refused. An item that is refused for its own sake is set aside, and the others go on; what concerns the device or the account
 * holds all, and is told. A ttl counts by the server's clock from the time of queueing: the stamp is corrected at sealing. Nothing
 * is sealed while an announced entry of the device log is missing here: its key would be the old one. While `held` (the server
 * knows numbers that this device does not) nothing is sealed until the replay has shown which of our events are there; between
 * a reset and its being stored nothing leaves at all. One change at a time (`mutex`). Bound: `inflight_events`, `inflight_bytes`.
 */
import { type AckRow, type Bytes, concat, type Crypto, eventTimeMs, expiresAtMs, LIMITS, SealpostError } from '@sealpost/protocol'
import type { AccountLog } from '../log/account-log.ts'
import { createEventIdMaker } from './event-id.ts'
import { createMutex } from '../mutex.ts'
import {
  extendWindow,
  markSent,
  type Nack,
  nackError,
  nextBatch,
  openWindow,
  rewind,
  settleAcks,
  settleItems,
  settleNack,
  type Slot,
  truncate,
  type Window,
  type WindowLimits,
} from './outbox-window.ts'
import { findOwn, type OwnEvents } from './own-events.ts'
import type { Clock, DeviceStore, HeadChange, Identity, ItemAck, NewItem, PendingItem, Sealed, StoredHead } from '../ports.ts'
import { createSealer } from './sealer.ts'
import { CLOCK_SLACK_MS, type ServerClock } from '../connection/server-clock.ts'

export type OutboxPorts = {
  crypto: Crypto
  store: DeviceStore
  clock: Clock
  identity: Identity
  account: AccountLog
  /** The server's clock. */
  time: ServerClock
  /** False when the session is gone. */
  send(records: Bytes): boolean
  /** The server announced entries of the device log that are not here yet: the current epoch is not the one known. */
  logBehind(): boolean
  /** Asks the server for the entries that a `stale_epoch` speaks of. */
  wantLog(): Promise<void>
  /** `unreadable`: the current epoch does not open here; `old`: it may not be sealed under any more. */
  wantRotation(why: 'unreadable' | 'old'): void
  /** The session must begin anew: a handshake tells how things stand, and what time it is. */
  reconnect(): void
  fatal(error: SealpostError): void
  tell(error: SealpostError): void
  /** Items were decided; `acked`: they are on the server. */
  settled(acked: boolean): void
}

/** `resetting`: a `reset` follows. */
export type OutboxSession = { last_device_seq: number; limits: WindowLimits; caught_up: boolean; resetting: boolean }

export type Outbox = {
  readonly acked_device_seq: number
  /** Number of the next event to be sealed. */
  readonly next_seq: number
  readonly held: boolean
  begin(session: OutboxSession): Promise<void>
  end(): void
  /** There may be something to send. */
  pump(): void
  /**
   * Seals and stores new items in one transaction and sends them, when nothing else waits and the session stands. False, and
   * nothing is stored, when they have to wait their turn.
   */
  sendNow(items: readonly NewItem[]): Promise<boolean>
  onAcks(received_at: number, rows: readonly AckRow[]): Promise<void>
  onNack(nack: Nack): Promise<void>
  /** Own events came in the replay: nothing else changes the outbox while `call` looks at them and stores them. */
  withOwn<T>(call: (own: OwnEvents) => Promise<T>): Promise<T>
  /** The replay reached live. */
  caughtUp(): Promise<void>
  /** A reset arrived: nothing leaves until it is stored. */
  holdForReset(): void
  /** The next event of every stream has no `prev_hash` (protocol.md §3, `restart`), also what was sealed and is not on the server. */
  forgetHeads(): Promise<void>
  resetStored(): void
  /** Resolves when nothing of this outbox runs any more. */
  idle(): Promise<void>
}

const READ_BYTES = 1_048_576
/** A server that refuses an epoch and shows no newer one is not asked again at once. */
const STALE_PAUSE_MS = 30_000
/** `heads`: own chains of the store, by stream. */
export async function openOutbox(ports: OutboxPorts, acked: number, heads: ReadonlyMap<string, StoredHead>): Promise<Outbox> {
  const { store, clock, time, identity, account } = ports
  const makeEventId = createEventIdMaker(ports.crypto)
  const turns = createMutex()
  let working = 0
  const mutex: typeof turns = (call) => {
    working++
    return turns(call).finally(() => working--)
  }
  let acked_device_seq = acked
  let window = await loadWindow(store, acked)
  const sealer = createSealer(ports, heads, window)
  let session: OutboxSession | null = null
  let held = false
  let resetting = false
  /** The server's number when the session began: what lies above was not stored before. */
  let server_seq = acked
  /** Set by a conflict; the next session replays before it seals. */
  let mustReconcile = false
  let conflicts = 0
  /** Pauses since the last ack. */
  let pauses = 0
  let seenOwn = 0
  let ackedBefore = acked
  let pumping = false
  let again = false
  let cancelPause: (() => void) | null = null

  function replaceWindow(next: Window): void {
    window = next
    sealer.restart(window)
  }

  function pump(): void {
    again = true
    if (pumping) return
    pumping = true
    void run()
  }

  async function run(): Promise<void> {
    try {
      while (again) {
        again = false
        while (await mutex(pumpOnce)) again = false
      }
    } catch (error) {
      ports.fatal(error instanceof SealpostError ? error : new SealpostError('internal', 'the outbox failed', { cause: error }))
    }
    // in the same turn as the last look at `again`
    pumping = false
  }

  /** One batch; true when there may be another. */
  async function pumpOnce(): Promise<boolean> {
    if (session === null || held || resetting || cancelPause !== null) return false
    const { limits } = session
    const batch = nextBatch(window, limits)
    if (batch.length > 0) {
      if (!ports.send(concat(...batch.map((slot) => slot.sealed.record)))) return false
      window = markSent(window, batch.length)
      return true
    }
    if (window.sent < window.slots.length || window.slots.length >= limits.inflight_events) return false
    const room = Math.min(limits.batch_events, limits.inflight_events - window.slots.length)
    const items = await store.readPending(window.slots.at(-1)?.item_no ?? 0, room, READ_BYTES)
    return items.length > 0 && sealAll(items)
  }

  async function sealAll(items: readonly PendingItem[]): Promise<boolean> {
    if (ports.logBehind()) return false
    // the clock of this device was changed: another handshake tells the time that a ttl counts by
    if (!time.sure && items.some((item) => item.ttl !== null)) {
      ports.reconnect()
      return false
    }
    const key = await sealer.readKey()
    if (key === 'unreadable' || key === 'old') {
      ports.wantRotation(key)
      return false
    }
    const slots: Slot[] = []
    const expired: PendingItem[] = []
    for (const item of items) {
      const event_id = stampOf(item)
      const expires_at = expiresAtMs({ ...item, event_id })
      if (expires_at !== null && expires_at <= time.now()) {
        if (slots.length > 0) break
        expired.push(item)
        continue
      }
      if (expired.length > 0) break
      const device_seq = window.next_seq + slots.length
      const { item_no, stream_id } = item
      slots.push({ item_no, event_id, stream_id, sealed: await sealer.seal({ ...item, event_id }, device_seq, key) })
    }
    if (expired.length > 0) {
      await setAside(expired, 'event_expired')
      return true
    }
    // the session ended or was reset while we sealed: the numbers were told to nobody
    if (session === null || held || resetting) {
      sealer.restart(window)
      return false
    }
    if (await store.sealItems(slots.map(({ item_no, event_id, sealed }) => ({ item_no, event_id, ...sealed })))) {
      window = extendWindow(window, slots)
    } else sealer.restart(window)
    return true
  }

  /** The id with the time of queueing by the server's clock: what this device's clock has shown since then is the item's age. */
  function stampOf({ event_id, ttl, queued_at }: NewItem): string {
    if (ttl === null) return event_id
    const stamp = time.now() - Math.max(0, clock.now() - queued_at)
    return Math.abs(eventTimeMs(event_id) - stamp) <= CLOCK_SLACK_MS ? event_id : makeEventId(stamp)
  }

  async function sendNow(items: readonly NewItem[]): Promise<boolean> {
    if (session === null || held || resetting || cancelPause !== null || window.sent < window.slots.length) return false
    if (ports.logBehind()) return false
    const { limits } = session
    if (items.reduce((bytes, item) => bytes + item.data.length, 0) > READ_BYTES) return false
    if (items.length > limits.batch_events || window.slots.length + items.length > limits.inflight_events) return false
    if (items.some((item) => item.ttl !== null && !(time.sure && stampOf(item) === item.event_id))) return false
    const key = await sealer.readKey()
    if (key === 'unreadable' || key === 'old') return false
    try {
      const sealed: (NewItem & { sealed: Sealed })[] = []
      for (const item of items) sealed.push({ ...item, sealed: await sealer.seal(item, window.next_seq + sealed.length, key) })
      const item_nos = await store.enqueueSealed(sealed, window.slots.at(-1)?.item_no ?? 0)
      if (item_nos === null) return false
      const slots = sealed.map(({ event_id, stream_id, sealed: form }, i) => ({
        item_no: item_nos[i] ?? 0,
        event_id,
        stream_id,
        sealed: form,
      }))
      window = extendWindow(window, slots)
      return true
    } finally {
      sealer.restart(window)
    }
  }

  async function setAside(items: readonly { item_no: number }[], code: string): Promise<void> {
    await store.setAsideItems(items.map(({ item_no }) => ({ item_no, code })))
    ports.settled(false)
  }

  async function onAcks(received_at: number, rows: readonly AckRow[]): Promise<void> {
    const settled = settleAcks(window, rows)
    if (settled.acked.length === 0) return
    conflicts = 0
    pauses = 0
    const moved = new Map<string, StoredHead>()
    const acks: ItemAck[] = []
    for (const { slot, row } of settled.acked) {
      const { device_seq, event_hash, epoch } = slot.sealed
      moved.set(slot.stream_id, { device_seq, event_hash, epoch, position: row.position })
      acks.push({ event_id: slot.event_id, device_seq, position: row.position, stream_seq: row.stream_seq, received_at })
    }
    const first = settled.window.slots[0]
    const upto = first === undefined ? settled.window.next_seq - 1 : first.sealed.device_seq - 1
    await store.ackItems(acks, Math.max(acked_device_seq, upto), headChanges(identity.device_id, moved))
    acked_device_seq = Math.max(acked_device_seq, upto)
    sealer.moveHeads(moved)
    window = settled.window
    ports.settled(true)
  }

  async function onNack(nack: Nack): Promise<void> {
    const { window: next, action } = settleNack(window, nack)
    window = next
    switch (action.do) {
      case 'resend':
        return
      case 'pause':
        // one that passes with the next try is nobody's concern
        if (++pauses > 1) ports.tell(nackError(nack))
        pause(action.ms)
        return
      case 'hold':
        ports.tell(nackError(nack))
        await giveBack(action.from)
        pause(action.ms)
        return
      case 'reseal': {
        if (account.log.log_seq <= action.epoch) await ports.wantLog()
        if (account.log.log_seq <= action.epoch) {
          // sealed anew at once it would be the same
          ports.tell(new SealpostError('log_withheld', 'the server speaks of a newer entry of the device log and does not show it'))
          pause(STALE_PAUSE_MS)
        }
        await giveBack(action.from)
        return
      }
      case 'restamp': {
        const slot = window.slots[action.index]
        if (slot === undefined) return
        // as this device understands the server's clock its stamp is right: sealed anew it would be refused again
        if (time.sure && eventTimeMs(slot.event_id) - time.now() <= CLOCK_SLACK_MS) return refuse(action.index, 'clock_skew')
        await giveBack(action.index)
        if (!time.sure) ports.reconnect()
        return
      }
      case 'set_aside':
        return refuse(action.index, action.code)
      case 'reconcile':
        conflicts++
        if (conflicts >= 2) {
          ports.fatal(new SealpostError('state_diverged', 'the state of this device and of the server do not fit together'))
          return
        }
        mustReconcile = true
        held = true
        ports.reconnect()
    }
  }

  /** The server said that nothing from this slot on is stored: all of it is sealed anew. */
  async function giveBack(index: number): Promise<void> {
    const slot = window.slots[index]
    if (slot === undefined) return
    await store.unsealItems(slot.item_no)
    replaceWindow(truncate(window, index))
  }

  async function refuse(index: number, code: string): Promise<void> {
    const slot = window.slots[index]
    if (slot === undefined) return
    await setAside([slot], code)
    replaceWindow(truncate(window, index))
  }

  function pause(ms: number): void {
    cancelPause?.()
    cancelPause = clock.setTimer(ms, () => {
      cancelPause = null
      pump()
    })
  }

  /** What is left after the replay is not on the server: it is sealed anew behind what is there. */
  async function finishReconcile(): Promise<void> {
    if (session === null) return
    const first = window.slots[0]
    if (first !== undefined) await store.unsealItems(first.item_no)
    // numbers that the replay did not show: their hashes are unknown, so the chains begin anew
    const complete = seenOwn >= session.last_device_seq - ackedBefore
    if (!complete) await forget()
    acked_device_seq = Math.max(acked_device_seq, session.last_device_seq)
    replaceWindow(openWindow([], acked_device_seq))
    held = false
    mustReconcile = false
    pump()
  }

  function adopt(seen: number, acks: readonly ItemAck[], moved: ReadonlyMap<string, StoredHead>, upto: number): void {
    seenOwn += seen
    sealer.moveHeads(moved)
    acked_device_seq = Math.max(acked_device_seq, upto)
    const next = settleItems(window, new Set(acks.map((ack) => ack.event_id)))
    replaceWindow(next.next_seq > acked_device_seq ? next : { ...next, next_seq: acked_device_seq + 1 })
    ports.settled(true)
  }

  async function forget(): Promise<void> {
    const removed = [...sealer.heads.keys()].map((stream_id) => ({ key: `${identity.device_id}/${stream_id}`, head: null }))
    sealer.forgetHeads(window)
    if (removed.length > 0) await store.ackItems([], acked_device_seq, removed)
  }

  async function beginChainsAnew(): Promise<void> {
    await forget()
    const from = window.slots.findIndex((slot, i) => i >= window.sent && slot.sealed.device_seq > server_seq)
    const first = window.slots[from]
    if (first === undefined) return
    await store.unsealItems(first.item_no)
    replaceWindow(truncate(window, from))
  }

  return {
    get acked_device_seq() {
      return acked_device_seq
    },
    get next_seq() {
      return window.next_seq
    },
    get held() {
      return held
    },
    begin(opened) {
      resetting = opened.resetting
      return mutex(async () => {
        session = opened
        server_seq = opened.last_device_seq
        window = rewind(window)
        seenOwn = 0
        ackedBefore = acked_device_seq
        const sealed_high = window.next_seq - 1
        held = mustReconcile || opened.last_device_seq > sealed_high
        if (held && opened.caught_up) await finishReconcile()
        else pump()
      })
    },
    end() {
      session = null
      cancelPause?.()
      cancelPause = null
    },
    pump,
    async sendNow(items) {
      // whatever holds the outbox may wait for the server: a new item does not
      if (working > 0) return false
      const sent = await mutex(() => sendNow(items))
      if (sent) pump()
      return sent
    },
    onAcks: (received_at, rows) => mutex(() => onAcks(received_at, rows)).then(pump),
    onNack: (nack) => mutex(() => onNack(nack)).then(pump),
    withOwn: (call) =>
      mutex(() => call({ acked_device_seq, heads: sealer.heads, find: (event_ids) => findOwn(store, event_ids), adopt })).finally(pump),
    caughtUp: () => mutex(() => (held ? finishReconcile() : Promise.resolve())),
    holdForReset() {
      resetting = true
    },
    forgetHeads: () => mutex(beginChainsAnew),
    resetStored() {
      resetting = false
      pump()
    },
    idle: () => mutex(() => Promise.resolve()),
  }
}

async function loadWindow(store: DeviceStore, acked: number): Promise<Window> {
  const slots: Slot[] = []
  for (;;) {
    const items = await store.readPending(slots.at(-1)?.item_no ?? 0, LIMITS.inflightEventsMax, LIMITS.inflightBytesMax)
    for (const { item_no, event_id, stream_id, sealed } of items) {
      if (sealed === null) return openWindow(slots, acked)
      slots.push({ item_no, event_id, stream_id, sealed })
    }
    if (items.length === 0) return openWindow(slots, acked)
  }
}

function headChanges(device_id: string, heads: ReadonlyMap<string, StoredHead>): HeadChange[] {
  return [...heads].map(([stream_id, head]) => ({ key: `${device_id}/${stream_id}`, head }))
}
