/**
 * Events for clients that cannot hold a socket (protocol.md §10, R03): the same fence, intake, inbox, pages and sessions as the
 * gateway's. Bound: a message of `batch_events`, a page, and of streams that are followed what `relay/sessions/seats.ts` allows.
 */
import { type Cursor, encodeRecord, LIMITS, recordFromJson, SealpostError, toBase64url } from '@sealpost/protocol'
import { pageHead } from '../../core/delivery.ts'
import type { Bus, EstablishResult, SessionStore, Store } from '../../ports/store.ts'
import { appendRecords } from '../../relay/append.ts'
import { eventsToJson } from '../../relay/follow/event-objects.ts'
import { decodeFollowId } from '../../relay/follow/follow-id.ts'
import { follow } from '../../relay/follow/follower.ts'
import type { Relay } from '../../relay/relay.ts'
import { deviceKey } from '../../relay/load/work.ts'
import { type ProofDeps, proveDevice } from '../auth/prove-device.ts'
import type { Answer, RouteAnswers, RouteCall } from '../call.ts'
import type { Problem } from '../problems.ts'
import { standingProblem } from '../auth/standing.ts'
import type { EVENT_CONTRACTS } from './contracts.ts'

type Call<N extends keyof typeof EVENT_CONTRACTS> = RouteCall<typeof EVENT_CONTRACTS, N>

export type EventDeps = ProofDeps & {
  store: ProofDeps['store'] & SessionStore & Pick<Store, 'readTip' | 'history_id'>
  bus: Pick<Bus, 'publish'>
  relay: Relay
}

type Query = {
  after_position?: number | undefined
  event_id?: string | undefined
  received_at?: number | undefined
  history_id?: string | undefined
}

const START: Cursor = { position: 0, event_id: null, received_at: null, history_id: null }
const SEAT_RETRY_MS = 5_000

export function createEventRoutes(deps: EventDeps): RouteAnswers<typeof EVENT_CONTRACTS> {
  return {
    take_session: (call) => takeSession(deps, call),
    append_events: (call) => appendEvents(deps, call),
    read_events: (call) => readEvents(deps, call),
    follow_events: (call) => followEvents(deps, call),
  }
}

async function takeSession({ store, bus, relay, ...deps }: EventDeps, call: Call<'take_session'>): Promise<Answer> {
  const { last_device_seq = 0, ...signed } = call.body
  const device = await proveDevice({ ...deps, store }, signed, 'session')
  if ('problem' in device) return device
  const { user_no, device_no, user_id, device_id } = device
  const retry_after_ms = (await relay.rates.take('handshake_device', device_id)) ?? (await relay.rates.take('handshake_user', user_id))
  if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
  const session_id = crypto.randomUUID()
  // no entries of the log: who wants them reads it
  const request = { user_no, device_no, session_id, node_no: null, cursor: START, last_device_seq, log_seq: LIMITS.logSeqMax }
  const result = await relay.work.exclusively(deviceKey(device), async () => {
    const established = await store.establishSession(request)
    if (established.ok) bus.publish(user_no, { is: 'device', device_id, session_id })
    return established
  })
  if (!result.ok) return { problem: problemOf(result) }
  const { log_seq, log_head, history_id, head_position, floor, last_device_seq: last } = result.established
  return { json: { session_id, last_device_seq: last, log_seq, log_head: toBase64url(log_head), history_id, head_position, floor } }
}

async function appendEvents({ store, relay }: EventDeps, { caller, body }: Call<'append_events'>): Promise<Answer> {
  const records = body.events.map((event) => {
    const record = recordFromJson(caller.user_id, event)
    if (record.server !== null || record.payload === null)
      throw new SealpostError('invalid_message', 'an event is sent whole and without numbers')
    return encodeRecord(record)
  })
  const appended = await appendRecords(relay, caller, body.session_id, Buffer.concat(records))
  if (appended.is === 'answered') return { json: { acks: appended.acks, ...(appended.nack === null ? {} : { nack: appended.nack }) } }
  const device = await store.findDevice(caller.user_id, caller.device_id)
  if (device === null) return { problem: { code: 'account_gone' } }
  return standingProblem(device) ?? { problem: { code: 'superseded' } }
}

async function readEvents({ store, relay }: EventDeps, { caller, query }: Call<'read_events'>): Promise<Answer> {
  const { continuation_token: token = null, limit = relay.limits.replay_events_default } = query
  const streams = query.streams?.split(',') ?? null
  const cursor = await cursorOf(store, caller.user_no, query)
  let after = cursor.position
  let reset: { reason: string; from_position: number } | null = null
  // a token goes on from a page whose cursor was judged
  if (token === null) {
    const judged = await store.judgeCursor(caller, cursor)
    if (!judged.ok) return { problem: problemOf(judged) }
    const { mode, reset_reason, floor } = judged.established
    if (mode === 'reset') {
      after = floor
      reset = { reason: reset_reason ?? 'cursor_unknown', from_position: floor }
    }
  }
  const { history_id } = store
  const owner = { user_id: caller.user_id, device_id: caller.device_id, history_id }
  const job = { id: 0, query: true, after, limit, pages: 1, streams, token }
  const read = await relay.readPage({ user_no: caller.user_no, after, limit, own: null, streams, job, told: 0 }, owner)
  if (read.is === 'page_refused') {
    const invalid = read.code === 'invalid_token'
    return { problem: invalid ? { code: 'invalid_request', detail: 'the continuation_token is not valid here' } : { code: 'unavailable' } }
  }
  const { page } = read
  const head = pageHead(page, page.events, read.after, read.token)
  return { json: { ...head, history_id, ...(reset === null ? {} : { reset }), events: eventsToJson(caller.user_id, page.events) } }
}

async function followEvents({ store, relay }: EventDeps, call: Call<'follow_events'>): Promise<Answer> {
  const { caller, headers, query, address } = call
  if (relay.sessions.isDraining()) return { problem: { code: 'unavailable', detail: 'the server is draining' } }
  const left_ms = caller.token_expires_at - store.now()
  const id = headers['last-event-id']
  const asked = async () => ({ cursor: await cursorOf(store, caller.user_no, query), log_seq: query.log_seq ?? null })
  const place = id === undefined || id === '' ? await asked() : decodeFollowId(id)
  if (place === null) return { problem: { code: 'invalid_request', detail: 'last-event-id is not one of this server' } }
  if (relay.sessions.isDraining() || call.gone.aborted) return { problem: { code: 'unavailable' } }
  const seat = relay.seats.takeKnown(address, deviceKey(caller))
  if (seat === null) return { problem: { code: 'rate_limited', detail: 'too many streams are followed', retry_after_ms: SEAT_RETRY_MS } }
  return { take_over: (response) => follow(relay, response, { ...caller, place, left_ms, seat }) }
}

/** Where a query says to begin. A position alone is one of the store as it is now. Throws `invalid_request` for a part of a cursor. */
async function cursorOf(
  store: Pick<Store, 'readTip' | 'history_id'>,
  user_no: number,
  { after_position: position = 0, event_id, received_at, history_id }: Query,
): Promise<Cursor> {
  if (event_id !== undefined && received_at !== undefined && history_id !== undefined)
    return { position, event_id, received_at, history_id }
  if (event_id !== undefined || received_at !== undefined || history_id !== undefined)
    throw new SealpostError('invalid_request', 'event_id, received_at and history_id belong together')
  if (position === 0) return START
  const tip = await store.readTip(user_no, position)
  return { position, event_id: tip?.event_id ?? null, received_at: tip?.received_at ?? null, history_id: store.history_id }
}

function problemOf({ code }: Extract<EstablishResult, { ok: false }>): Problem {
  return { code: code === 'auth_failed' || code === 'reauthenticate' ? 'unauthorized' : code }
}
