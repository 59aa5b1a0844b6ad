/** Arbitrary records, with and without a server part, tombstones among them. */
import * as fc from 'fast-check'
import type { EventRecord } from '../../../protocol/src/record.ts'

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const label = fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/)
const hash = bytes(32)
const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
export const anyRecord: fc.Arbitrary<EventRecord> = fc
  .record({
    server: fc.option(fc.record({ position: fc.maxSafeNat(), stream_seq: fc.maxSafeNat(), received_at: fc.maxSafeNat() })),
    event_id: fc.uuid(),
    device_id: fc.uuid(),
    device_seq: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    epoch: u32,
    ttl: fc.option(fc.integer({ min: 1, max: 0xffff_ffff })),
    prev_hash: fc.option(hash),
    stream_id: label,
    type: label,
    sig: bytes(64),
    rest: fc.oneof(
      fc.uint8Array({ maxLength: 200 }).map((payload) => ({ payload, payload_hash: null })),
      hash.map((payload_hash) => ({ payload: null, payload_hash })),
    ),
  })
  .map(({ rest, ...record }) => ({ ...record, ...rest }))
