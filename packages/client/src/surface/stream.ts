/**
 * One stream as the application sees it: sending into the outbox and reading in order.
 *
 * Reading goes over the store's buffer: a consumer keeps its own place there, fills what was trimmed meanwhile by a query, and
 * follows. Promise (C2): each event exactly once while the process lives; after a crash the last ones may come again, marked
 * `redelivered`. Bound: 256 events or 1 MiB read ahead.
 */
import { type Bytes, eventTimeMs, expiresAtMs, LABEL, LIMITS, type Received, SealpostError } from '@sealpost/protocol'
import { createEventIdMaker } from '../outbox/event-id.ts'
import { eventRow, isSealedTo } from '../inbox/received-rows.ts'
import type { Member } from '../home/member.ts'
import { isReset, type StreamNotice } from '../notices.ts'
import type { ConsumerState, Home, Identity, NewItem, OutcomeRow, ReceivedItem } from '../ports.ts'
import { queryStream } from '../home/query.ts'
import { defer, orAborted, throwIfAborted } from '../signal.ts'

/** What `send` resolves to: the event is on the server's disk. */
export type Ack = { event_id: string; position: number; stream_seq: number; received_at: number }
export type Outcome =
  | { event_id: string; state: 'acked' }
  /** Refused for its own sake, and kept: `sealpost.outbox` sends it again or drops it. */
  | { event_id: string; state: 'set_aside'; code: string }
  /** Gone for good: dropped (`aborted`), or refused and no longer kept. */
  | { event_id: string; state: 'rejected'; code: string }
  /** Decided so long ago that the outcome is no longer kept. */
  | { event_id: string; state: 'forgotten' }

export type OutgoingEvent = {
  data: Uint8Array
  /** Default `app`. */
  type?: string
  /** Seconds, at least 1. */
  ttl?: number
}

export type StreamEvent =
  | {
      is: 'event'
      event_id: string
      position: number
      stream_id: string
      stream_seq: number
      type: string
      data: Bytes
      from: { device_id: string; name: string }
      /** ms, the server's clock. */
      received_at: number
      /** ms, the sender's clock. */
      sent_at: number
      /** It may have been handed over before a crash of this process. */
      redelivered: boolean
    }
  | StreamNotice

export type Stream = {
  readonly stream_id: string
  /**
   * Queued durably at once; resolves when the event is on the server's disk. Throws what the server refused it for, a terminal
   * error of the engine, or `aborted`. It stays in the outbox: one that was refused is set aside there, and every other is sent later.
   */
  send(data: Uint8Array, o?: { type?: string; ttl?: number; signal?: AbortSignal }): Promise<Ack>
  /**
   * Durable in the outbox, all or nothing; returns the event_ids in order and does not wait for the server. An event with a ttl that was queued
   * while the clock of this device was wrong, or that is sent again by `sealpost.outbox`, reaches other devices under another event_id.
   */
  enqueue(items: readonly OutgoingEvent[]): Promise<string[]>
  /** Waits until each is acked, set aside or rejected; in the order asked. Throws `not_found` for what was never queued here. */
  outcome(event_ids: readonly string[], o?: { signal?: AbortSignal }): Promise<Outcome[]>
  /**
   * `last` (default): where this consumer stopped. `now`: only what comes after the first session of this process began.
   * `start`: all there is on the server, then what comes. Never the events of this device. Ends quietly with the signal.
   */
  events(o?: { from?: 'start' | 'last' | 'now'; signal?: AbortSignal; consumer?: string }): AsyncGenerator<StreamEvent, void, undefined>
}

type Forgotten = Extract<Outcome, { state: 'forgotten' }>

const READ_EVENTS = 256
const READ_BYTES = 1_048_576
/** More than outcomes are kept: older ones were asked for, or never will be. */
const QUEUED_KEPT = 200_000
/** Wakes are hints: now and then a reader looks by itself. */
const LOOK_MS = 1_000

export function openStream(home: Home, identity: Identity, member: Member, stream_id: string): Stream {
  if (!LABEL.test(stream_id)) throw new SealpostError('invalid_request', 'a stream is named by 1 to 64 of A-Z a-z 0-9 . _ : -')
  const { store, clock, crypto } = home
  const makeEventId = createEventIdMaker(crypto)
  /** Known to have been pending: when the outbox knows such an event no longer, it was decided. Until its outcome was asked for. */
  const queued = new Set<string>()

  function toItem({ data, type = 'app', ttl }: OutgoingEvent): NewItem {
    if (data.length > LIMITS.payloadDataBytesMax)
      throw new SealpostError('payload_too_large', `the payload has ${data.length} bytes, the limit is ${LIMITS.payloadDataBytesMax}`)
    if (!LABEL.test(type)) throw new SealpostError('invalid_request', 'a type has 1 to 64 of A-Z a-z 0-9 . _ : -')
    if (ttl !== undefined && (!Number.isSafeInteger(ttl) || ttl < LIMITS.ttlSecondsMin || ttl > 0xffff_ffff))
      throw new SealpostError('invalid_request', 'a ttl is a whole number of seconds, at least 1')
    return { event_id: makeEventId(member.time.now()), stream_id, type, ttl: ttl ?? null, data, queued_at: clock.now() }
  }

  async function enqueue(items: readonly OutgoingEvent[]): Promise<string[]> {
    const made = items.map(toItem)
    if (made.length === 0) return []
    if (member.status.terminal?.code === 'device_revoked') throw member.status.terminal
    await member.enqueue(made)
    for (const { event_id } of made) queued.add(event_id)
    for (const event_id of queued) {
      if (queued.size <= QUEUED_KEPT) break
      queued.delete(event_id)
    }
    return made.map((item) => item.event_id)
  }

  async function settle(event_ids: readonly string[], signal?: AbortSignal): Promise<(OutcomeRow | Forgotten)[]> {
    const done = new Map<string, OutcomeRow>()
    let open = new Set(event_ids)
    await watch(home, member, signal, async () => {
      const rows = await store.readOutcomes([...open])
      const pending = new Set<string>()
      for (const row of rows) {
        for (const id of [row.queued_id, row.event_id])
          if (row.state === 'pending') pending.add(id)
          else done.set(id, row)
      }
      for (const event_id of open) {
        if (done.has(event_id) || pending.has(event_id) || queued.has(event_id)) continue
        throw new SealpostError('not_found', 'there is no such event in the outbox of this device')
      }
      open = new Set([...open].filter((event_id) => pending.has(event_id)))
      for (const event_id of open) queued.add(event_id)
      if (open.size === 0) return true
      if (member.status.terminal !== null) throw member.status.terminal
      return false
    })
    for (const event_id of event_ids) queued.delete(event_id)
    return event_ids.flatMap((event_id): (OutcomeRow | Forgotten)[] => [done.get(event_id) ?? { event_id, state: 'forgotten' }])
  }

  return {
    stream_id,
    async send(data, o = {}) {
      throwIfAborted(o.signal)
      const [event_id = ''] = await enqueue([
        { data, ...(o.type === undefined ? {} : { type: o.type }), ...(o.ttl === undefined ? {} : { ttl: o.ttl }) },
      ])
      const [row] = await settle([event_id], o.signal)
      if (row?.state === 'set_aside' || row?.state === 'rejected') throw rejection(row.code)
      if (row?.state !== 'acked') throw new SealpostError('internal', 'an event has no outcome')
      return { event_id: row.event_id, position: row.position, stream_seq: row.stream_seq, received_at: row.received_at }
    },
    enqueue,
    async outcome(event_ids, o = {}) {
      const rows = await settle(event_ids, o.signal)
      return rows.flatMap((row, i): Outcome[] => {
        const event_id = event_ids[i] ?? row.event_id
        if (row.state === 'acked' || row.state === 'forgotten') return [{ event_id, state: row.state }]
        return row.state === 'pending' ? [] : [{ event_id, state: row.state, code: row.code }]
      })
    },
    events: (o = {}) => readEvents(home, identity, member, stream_id, o),
  }
}

/** Calls `look` at first and whenever rows changed, until it says true. */
export async function watch(home: Home, member: Member, signal: AbortSignal | undefined, look: () => Promise<boolean>): Promise<void> {
  let dirty = true
  let wake = defer<void>()
  const off = member.changed.on(() => {
    dirty = true
    wake.resolve()
  })
  try {
    for (;;) {
      throwIfAborted(signal)
      dirty = false
      wake = defer<void>()
      if (await look()) return
      if (dirty) continue
      const cancel = home.clock.setTimer(LOOK_MS, () => wake.resolve())
      try {
        await orAborted(wake.promise, signal)
      } finally {
        cancel()
      }
    }
  } finally {
    off()
  }
}

async function* readEvents(
  home: Home,
  identity: Identity,
  member: Member,
  stream_id: string,
  o: { from?: 'start' | 'last' | 'now'; signal?: AbortSignal; consumer?: string },
): AsyncGenerator<StreamEvent, void, undefined> {
  const { store } = home
  const { signal, from = 'last', consumer = 'default' } = o
  const before = await store.readConsumer(consumer, stream_id)
  const edges = await store.readReceivedEdges()
  let done: ConsumerState = before ?? { done_row: 0, done_position: 0, handed_row: 0 }
  // an orderly end handed over nothing beyond what was done, whatever was read ahead
  const ended_note = `ended/${consumer}/${stream_id}`
  const handed_before = (await store.readNote(ended_note)) === done.handed_row ? done.done_row : done.handed_row
  let read_ahead = done.handed_row
  let dirty = false
  /** What is left out of the rows to come: events up to `position`, notices up to `row`. A reset behind `row` ends it: positions begin anew. */
  let shown: { row: number; position: number } | null = null

  try {
    if (from === 'now') {
      const { cursor } = await store.readReceiveState()
      done = { done_row: edges.last_row, done_position: cursor.position, handed_row: edges.last_row }
      // what waits on the server at the first session is not of now
      const position = await firstHead(home, member, signal)
      if (position !== null) shown = { row: edges.last_row, position }
    }
    if (from === 'start') {
      let upto = 0
      for await (const page of queryStream(home, identity, member, { stream_id, after: 0, upto: null }, signal)) {
        for (const item of page.items) {
          const event = toStreamEvent(item, member, identity.device_id)
          if (event !== null && !isOwn(event, identity)) yield event
        }
        upto = page.upto
      }
      shown = { row: (await store.readReceivedEdges()).last_row, position: upto }
      // rows from before are older than the query
      done = { done_row: edges.last_row, done_position: upto, handed_row: edges.last_row }
    }
    for (;;) {
      // what the buffer has lost meanwhile
      const { trimmed_row, trimmed_position } = await store.readReceivedEdges()
      if (done.done_row < trimmed_row) {
        // a place beyond what was trimmed is of the history before a reset that was trimmed too
        const again = shown === null && done.done_position > trimmed_position
        const after = again ? 0 : Math.max(done.done_position, shown?.position ?? 0)
        if (again) done = { ...done, done_position: 0 }
        if (after < trimmed_position) {
          const range = { stream_id, after, upto: trimmed_position }
          for await (const page of queryStream(home, identity, member, range, signal)) {
            for (const item of page.items) {
              const event = toStreamEvent(item, member, identity.device_id)
              if (event === null || event.is === 'reset' || isOwn(event, identity)) continue
              const before = done
              done = { ...done, done_position: Math.max(done.done_position, event.position) }
              try {
                yield again && event.is === 'event' ? { ...event, redelivered: true } : event
              } catch (error) {
                done = before
                throw error
              }
            }
            done = { ...done, done_position: Math.max(done.done_position, Math.min(page.upto, trimmed_position)) }
            // the hole may be large: the next run goes on behind this page
            await store.saveConsumer(consumer, stream_id, done)
          }
        }
        done = {
          done_row: trimmed_row,
          done_position: Math.max(done.done_position, trimmed_position),
          handed_row: Math.max(done.handed_row, trimmed_row),
        }
        await store.saveConsumer(consumer, stream_id, done)
      }
      const rows = await store.readReceived(stream_id, done.done_row, READ_EVENTS, READ_BYTES)
      const last = rows.at(-1)
      if (last === undefined) {
        if (dirty) await store.saveConsumer(consumer, stream_id, done)
        dirty = false
        const row = done.done_row
        await watch(home, member, signal, async () => {
          if ((await store.readReceived(stream_id, row, 1, 1)).length > 0) return true
          if (member.status.terminal !== null) throw member.status.terminal
          return false
        })
        continue
      }
      // the leading process stores an entry before an event that needs it; this one may not have read it yet
      if (rows.some((row) => row.is === 'event' && !member.account.log.devices.has(row.device_id))) await member.account.refresh()
      // before they are handed over: after a crash they are known as possibly seen
      await store.saveConsumer(consumer, stream_id, { ...done, handed_row: last.row_no })
      read_ahead = last.row_no
      dirty = true
      for (const row of rows) {
        throwIfAborted(signal)
        const before = done
        done = {
          done_row: row.row_no,
          done_position:
            row.is === 'notice' && row.position === 0 ? positionAfter(row.notice, done) : Math.max(done.done_position, row.position),
          handed_row: Math.max(done.handed_row, row.row_no),
        }
        if (shown !== null) {
          if (row.is === 'notice' ? row.row_no <= shown.row : row.position <= shown.position) continue
          if (row.is === 'notice' && isReset(row.notice)) shown = null
        }
        const event = toEvent(row, member, member.time.now(), row.row_no <= handed_before && from === 'last')
        if (event === null) continue
        try {
          yield event
        } catch (error) {
          // thrown into the iterator: this event was not taken
          done = { ...before, handed_row: done.handed_row }
          throw error
        }
      }
      await store.saveConsumer(consumer, stream_id, done)
    }
  } catch (error) {
    if (!(error instanceof SealpostError && error.code === 'aborted' && signal?.aborted === true)) throw error
  } finally {
    await store.saveConsumer(consumer, stream_id, done)
    if (read_ahead > done.done_row) await store.writeNote(ended_note, read_ahead)
  }
}

/** After a reset positions begin anew. */
function positionAfter(notice: string, done: ConsumerState): number {
  return isReset(notice) ? 0 : done.done_position
}

/** The newest position when the first session of this process began; null without a connection of its own. */
async function firstHead(home: Home, member: Member, signal: AbortSignal | undefined): Promise<number | null> {
  let head = (await member.refreshStatus()).head_position
  if (head !== null || member.alone) return head
  await watch(home, member, signal, async () => {
    head = member.status.head_position
    if (member.status.terminal !== null) throw member.status.terminal
    return head !== null
  })
  return head
}

/** Live, the events of this device never come back to it; out of the server's store they are left out as well. */
function isOwn(event: StreamEvent, identity: Identity): boolean {
  return event.is === 'event' && event.from.device_id === identity.device_id
}

function toStreamEvent(item: Received, member: Member, reader: string): StreamEvent | null {
  switch (item.is) {
    case 'event':
      return toEvent(eventRow(item.record, item.data), member, 0, false)
    case 'gap': {
      const { stream_id, device_id, from_device_seq, reason, position } = item
      return { is: 'gap', stream_id, device_id, from_device_seq, reason, position }
    }
    case 'closed': {
      const { epoch, device_id, server } = item.record
      if (!isSealedTo(member.account.log, epoch, reader)) return null
      return { is: 'alarm', position: server?.position ?? 0, device_id, reason: 'epoch_unreadable' }
    }
    case 'alarm':
      return { is: 'alarm', position: item.position, device_id: item.device_id, reason: item.reason }
    default:
      return null
  }
}

/** Null: it expired while it waited here. */
function toEvent(row: ReceivedItem, member: Member, now_ms: number, redelivered: boolean): StreamEvent | null {
  if (row.is === 'notice') return JSON.parse(row.notice) as StreamNotice
  const expires_at = expiresAtMs(row)
  if (expires_at !== null && expires_at <= now_ms) return null
  const { event_id, position, stream_id, stream_seq, type, data, device_id, received_at } = row
  const from = { device_id, name: member.account.deviceName(device_id) }
  return {
    is: 'event',
    event_id,
    position,
    stream_id,
    stream_seq,
    type,
    data,
    from,
    received_at,
    sent_at: eventTimeMs(event_id),
    redelivered,
  }
}

function rejection(code: string): SealpostError {
  switch (code) {
    case 'event_expired':
      return new SealpostError(code, 'the event expired before the server had it; it is set aside in the outbox')
    case 'clock_skew':
      return new SealpostError(code, 'the server refuses the time of the event; it is set aside in the outbox')
    case 'payload_too_large':
      return new SealpostError(code, `the payload is above what this server takes (${LIMITS.payloadDataBytesMax} bytes)`)
    case 'too_many_streams':
      return new SealpostError(
        code,
        'the account has as many streams as the server allows, and this would be another; the event is set aside',
      )
    case 'aborted':
      return new SealpostError(code, 'the event was dropped from the outbox')
    default:
      return new SealpostError('invalid_event', 'the server refused the event; it is set aside in the outbox')
  }
}
