/**
 * Where each message of the server goes, in the order of their arrival (protocol.md §5), and what is known from passing them on:
 * the head of the stream, who is online, how often the server left something out.
 *
 * Invariant: nothing waits here but entries of the device log; outbox and receive path have queues of their own.
 */
import { type AckRow, decodeAcks, SealpostError } from '@sealpost/protocol'
import type { AlarmReason } from '../inbox/alarms.ts'
import type { Connection, SessionMessage } from '../connection/connection.ts'
import type { Inbox } from '../inbox/inbox.ts'
import type { LogReader } from '../log/log-reading.ts'
import type { Outbox } from '../outbox/outbox.ts'
import type { Replay } from '../inbox/replay.ts'
import { refusal, type Requests } from '../connection/requests.ts'

export type Presence = { device_id: string; online: boolean; last_seen: number | null; suspended?: boolean }

export type RouterPorts = {
  connection: Connection
  requests: Requests
  replay: Replay
  inbox: Inbox
  outbox: Outbox
  log: LogReader
  /** Somebody came or went. */
  presenceChanged(): void
  raise(reason: AlarmReason): void
  failed(error: unknown): void
}

export type Router = {
  /** Of the stream, as the server said last; null before the first session. */
  readonly head_position: number | null
  /** Resolves when the acks that arrived so far are stored. */
  readonly acksStored: Promise<void>
  presence(): Presence[]
  begin(head_position: number): void
  route(message: SessionMessage): Promise<void> | void
  /** The server sends all of it by itself: parts left out before count no more. */
  complete(): void
  /** The session is gone. */
  end(): void
}

export function createRouter(ports: RouterPorts): Router {
  const { connection, requests, replay, inbox, outbox, log } = ports
  const presence = new Map<string, Presence>()
  let head_position: number | null = null
  let gaps = 0
  let acksStored: Promise<void> = Promise.resolve()

  function onAcks(received_at: number, acks: AckRow[]): void {
    for (const { position } of acks) head_position = Math.max(head_position ?? 0, position)
    acksStored = outbox.onAcks(received_at, acks).catch(ports.failed)
  }

  function route(message: SessionMessage): Promise<void> | void {
    const { head } = message
    switch (head.type) {
      case 'ack':
        connection.progress()
        return onAcks(head.received_at, decodeAcks(message.body))
      case 'nack':
        void outbox.onNack(head).catch(ports.failed)
        return
      case 'event':
        head_position = Math.max(head_position ?? 0, head.upto)
        return offer({ is: 'records', after: head.after, upto: head.upto, ...tipOf(head), body: message.body, floor: null, last: false })
      case 'replay_response':
        if (!replay.take(head)) return void requests.answer({ head, body: message.body })
        head_position = head.head_position
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
        return replay.ask()
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
        return replay.begin()
      case 'log_entry':
        return log.apply([{ body: head.body, sig: head.sig, box: head.box }])
      case 'log_result':
      case 'log_entries':
      case 'tips':
        requests.answer(message as never)
        return
      case 'presence':
        for (const device of head.devices) presence.set(device.device_id, device)
        ports.presenceChanged()
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
    if (gaps === 2) ports.raise('cursor_gap')
    connection.reconnect(error)
  }

  function onError(id: number | null, code: string): void {
    if (id !== null && requests.refuse(id, code)) return
    const refused = id === null ? null : replay.refused(id, code)
    if (refused === 'again') return
    if (refused !== null) return connection.reconnect(refused)
    connection.reconnect(refusal(code))
  }

  return {
    get head_position() {
      return head_position
    },
    get acksStored() {
      return acksStored
    },
    presence: () => [...presence.values()],
    begin(position) {
      head_position = position
    },
    route,
    complete() {
      gaps = 0
    },
    end: () => presence.clear(),
  }
}

function tipOf(head: { tip?: { event_id: string; received_at: number } | null }): {
  tip?: { event_id: string; received_at: number } | null
} {
  return head.tip === undefined ? {} : { tip: head.tip }
}
