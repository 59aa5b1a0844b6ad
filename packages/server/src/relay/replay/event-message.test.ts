import { decodeRecords, decodeServerMessage, encodeRecord } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { expect, it } from 'vitest'
import type { StoredEvent } from '../../ports/store.ts'
import { createEventEncoder } from './event-message.ts'

function stored(position: number, size = 40): StoredEvent {
  const record = encodeRecord({
    server: null,
    event_id: '01890000-0000-7000-8000-000000000001',
    device_id: '00000000-0000-4000-8000-00000000000a',
    device_seq: position,
    epoch: 0,
    ttl: null,
    prev_hash: null,
    stream_id: 'main',
    type: 'app',
    sig: nodeCrypto.random(64),
    payload: nodeCrypto.random(size),
    payload_hash: null,
  })
  return {
    position,
    stream_seq: position,
    received_at: 5,
    device_no: 1,
    device_seq: position,
    stream_no: 1,
    flags: record[4]!,
    client: record.subarray(5),
  }
}

it('a batch that goes out whole from one position is built once', () => {
  const encoder = createEventEncoder()
  const batch = [stored(1), stored(2, 200_000), stored(3)]
  const head = { type: 'event' as const, after: 0, upto: 3 }
  const first = encoder.encode(head, batch, true)
  expect(encoder.encode({ ...head }, batch, true)).toBe(first)
  // a build of another session in between does not disturb it
  encoder.encode({ ...head, upto: 2 }, batch.slice(0, 2), false)
  expect(encoder.encode(head, batch, true)).toBe(first)
  expect(encoder.stats()).toEqual({ built: 2, shared: 2 })
  const message = decodeServerMessage(first)
  expect(message.head).toEqual(head)
  expect(decodeRecords(message.body).map((record) => record.server)).toEqual(
    [1, 2, 3].map((n) => ({ position: n, stream_seq: n, received_at: 5 })),
  )
})

it('from another position, or for another batch, it is built anew', () => {
  const encoder = createEventEncoder()
  const [one, two] = [[stored(1)], [stored(2)]]
  const heads = [
    decodeServerMessage(encoder.encode({ type: 'event', after: 0, upto: 1 }, one, true)).head,
    decodeServerMessage(encoder.encode({ type: 'event', after: 9, upto: 1 }, one, true)).head,
    decodeServerMessage(encoder.encode({ type: 'event', after: 9, upto: 2 }, two, true)).head,
  ]
  expect(heads).toMatchObject([{ after: 0 }, { after: 9 }, { upto: 2 }])
  expect(encoder.stats()).toEqual({ built: 3, shared: 0 })
})
