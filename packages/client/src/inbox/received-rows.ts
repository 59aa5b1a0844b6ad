/**
 * What verified records come to (protocol.md §3): rows for the buffer, acks for the outbox, alarms and notices. Pure.
 *
 * Invariants: an own event that this device remembers is never a row again, it is an ack while it waits; an event that stays
 * closed is an alarm only when its key was sealed to this device.
 */
import type { Bytes, DeviceLog, EventRecord, Received } from '@sealpost/protocol'
import type { StreamNotice } from '../notices.ts'
import type { AlarmRow, ItemAck, ReceivedItem } from '../ports.ts'

type Parts = { rows: ReceivedItem[]; acks: ItemAck[]; alarms: AlarmRow[]; notices: StreamNotice[] }

/** What a page of verified items comes to: rows for the buffer, acks for the outbox, alarms. */
export function toRows(
  items: readonly Received[],
  device_id: string,
  own: { waiting: ReadonlySet<string>; known: ReadonlySet<string> },
  now_ms: number,
  sealedToUs: (epoch: number) => boolean,
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

export function ownRecords(items: readonly Received[], device_id: string): EventRecord[] {
  const out: EventRecord[] = []
  for (const item of items) {
    if ((item.is === 'event' || item.is === 'expired' || item.is === 'closed') && item.record.device_id === device_id) out.push(item.record)
  }
  return out
}

/** Its key was sealed to this device: an event of it that stays closed is missing here, and not by intent. */
export function isSealedTo(log: DeviceLog, epoch: number, device_id: string): boolean {
  return log.epochs[epoch]?.sealed.has(device_id) === true
}
