/**
 * A session that is followed over an HTTP answer (protocol.md §10; the event streams of HTML §9.2): the outlet of a reader. Each
 * message of the session is one event of the stream; those that move it carry the `id` to go on from.
 *
 * Bound: what is queued is that of `outflow.ts`, as for a socket; the stream ends with the token that opened it.
 */
import { CLOSE, type CloseName, type Cursor, type ServerHead, type Tip } from '@sealpost/protocol'
import type { ServerResponse } from 'node:http'
import { tipOf } from '../../core/batch.ts'
import type { StoredEvent } from '../../ports/store.ts'
import { eventsToText } from './event-objects.ts'
import { encodeFollowId, type FollowPlace } from './follow-id.ts'
import { createOutflow } from '../load/outflow.ts'
import { AT_ONCE, createTimers, CUT_OFF_MS, type Listener, type Outlet } from '../sessions/outlet.ts'
import type { Relay } from '../relay.ts'
import type { Seat } from '../sessions/seats.ts'
import { createSessionRun } from '../sessions/session-run.ts'

export type FollowAsk = {
  user_no: number
  device_no: number
  user_id: string
  device_id: string
  /** Of the token. */
  token_version: number
  place: FollowPlace
  /** ms left of the token. */
  left_ms: number
  /** Given back when nothing of the stream is left. */
  seat: Seat
}

/** What a client waits before it comes back, unless it is told otherwise. */
const RETRY_MS = 3_000

/** Takes the response over; it ends by itself. */
export function follow(relay: Relay, response: ServerResponse, ask: FollowAsk): void {
  const { user_no, device_no, user_id, device_id, token_version, place, seat } = ask
  const run = createSessionRun(relay, {
    attach: (listener) => ({ outlet: createFollower(response, listener, relay, ask), channel: null }),
    authenticated: () => {},
    gone(ended) {
      seat.leave()
      relay.sessions.remove(ended)
    },
  })
  relay.sessions.add(run)
  const who = { user_no, device_no, user_id, device_id, sign_pub: new Uint8Array() }
  run.input({ is: 'joined', who, token_version, cursor: place.cursor, log_seq: place.log_seq })
  if (response.destroyed) run.input({ is: 'gone' })
}

function createFollower(
  response: ServerResponse,
  listener: Listener,
  { limits, outbound }: Pick<Relay, 'limits' | 'outbound'>,
  { user_id, place, left_ms }: Pick<FollowAsk, 'user_id' | 'place' | 'left_ms'>,
): Outlet {
  let now = performance.now()
  const endsAt = now + left_ms
  let beatAt = now + limits.heartbeatMs
  let closeAt = Number.POSITIVE_INFINITY
  let cutOffAt = Number.POSITIVE_INFINITY
  let cursor: Cursor = place.cursor
  let log_seq = place.log_seq
  const timers = createTimers(listener)
  const { socket } = response
  const outflow = createOutflow({
    buffered: () => (response.destroyed ? 0 : response.writableLength),
    socket: socket ?? { bytesWritten: 0, writableLength: 0 },
    limits,
    outbound,
    changed: (full) => listener.input({ is: 'backlog', full }),
  })
  const closing = (): boolean => closeAt !== Number.POSITIVE_INFINITY

  response.on('error', () => {})
  response.on('drain', () => outflow.check(now))
  response.once('close', () => {
    closeAt = 0
    outflow.release()
    listener.input({ is: 'gone' })
  })
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'x-accel-buffering': 'no' })
  response.write(`retry: ${RETRY_MS}\n\n`)

  function write(text: string): void {
    if (closing() || response.destroyed) return
    response.write(text)
    beatAt = now + limits.heartbeatMs
    outflow.check(now)
  }

  /** One that moves the reader: it is gone on from here. */
  function writeMoved(type: string, data: string): void {
    const { history_id } = cursor
    const id = history_id === null ? '' : `id: ${encodeFollowId({ cursor: { ...cursor, history_id }, log_seq })}\n`
    write(`event: ${type}\n${id}data: ${data}\n\n`)
  }

  function move(position: number, tip: Tip | null): void {
    cursor = { ...cursor, position, event_id: tip?.event_id ?? null, received_at: tip?.received_at ?? null }
  }

  return {
    authenticated(opened) {
      cursor = { ...cursor, history_id: opened.history_id }
      log_seq = opened.log_seq
    },
    send({ type, ...data }: ServerHead) {
      const text = JSON.stringify(data)
      switch (type) {
        case 'log_entry':
          log_seq = log_seq === null ? null : log_seq + 1
          return writeMoved(type, text)
        case 'reset': {
          const { from_position, history_id } = data as Extract<ServerHead, { type: 'reset' }>
          cursor = { ...cursor, history_id }
          move(from_position, null)
          return writeMoved(type, text)
        }
        case 'going_away':
          return write(`event: ${type}\nretry: ${(data as Extract<ServerHead, { type: 'going_away' }>).retry_after_ms}\ndata: ${text}\n\n`)
        case 'presence':
          return write(`event: ${type}\ndata: ${text}\n\n`)
        case 'event':
          return this.sendEvents({ type, ...data } as ServerHead, [], false)
        default:
          throw new TypeError(`a reader is told of no ${type}`)
      }
    },
    sendEvents(head: ServerHead, events: readonly StoredEvent[], whole: boolean) {
      if (head.type !== 'event') throw new TypeError(`a reader is told of no ${head.type}`)
      if (closing()) return
      const { after, upto, tip } = head
      const last = events.at(-1)
      move(upto, tip ?? (last?.position === upto ? tipOf(last) : null))
      const told = JSON.stringify({ after, upto, ...(tip === undefined ? {} : { tip }) })
      writeMoved('event', `${told.slice(0, -1)},"events":${eventsToText(user_id, events, whole)}}`)
    },
    arm: timers.arm,
    disarm: timers.disarm,
    hold: () => {},
    pump: () => {},
    close(name: CloseName) {
      if (closing()) return
      const { code, says } = CLOSE[name]
      write(`event: closed\ndata: ${JSON.stringify({ code, name, says })}\n\n`)
      closeAt = performance.now() + (AT_ONCE.has(name) ? Math.min(limits.closeMs, CUT_OFF_MS) : limits.closeMs)
      response.end()
    },
    cutOff() {
      cutOffAt = Math.min(cutOffAt, performance.now() + CUT_OFF_MS)
    },
    terminate: () => void response.destroy(),
    tick(at: number) {
      now = at
      if (now >= closeAt || now >= cutOffAt) return void response.destroy()
      if (closing()) return
      outflow.check(now)
      if (outflow.isStalled(now)) return listener.input({ is: 'stalled' })
      if (now >= endsAt) return listener.input({ is: 'timer', timer: 'token' })
      timers.tick(now)
      if (now < beatAt || closing()) return
      write(':\n\n')
      if (outflow.bytes() === 0) listener.alive()
    },
  }
}
