/** Devices that send honest events, and the log that knows them: what the tests of the receiver begin from. */
import type { Bytes } from '../../../protocol/src/bytes.ts'
import type { DeviceLog, LogDevice } from '../../../protocol/src/device-log.ts'
import type { RevocationPins } from '../../../protocol/src/device-log-body.ts'
import { eventHeader, eventKey, type SealInput, sealEvent } from '../../../protocol/src/event.ts'
import { nodeCrypto } from '../../../protocol/src/node.ts'
import type { ReceiveContext } from '../../../protocol/src/receiver.ts'
import { decodeRecords, type EventRecord } from '../../../protocol/src/record.ts'
import { tuple } from '../../../protocol/src/tuple.ts'

export const NOW_MS = 1_764_000_100_000
export const USER_ID = 'iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w'

export type TestDevice = {
  device_id: string
  sign_seed: Bytes
  added: number
  revoked: { log_seq: number; pins: RevocationPins | null } | null
}
/** A record without a server part, and its hash. */
export type TestEvent = { record: EventRecord; event_hash: Bytes; data: Bytes }

export const fill = (byte: number, length = 32): Bytes => new Uint8Array(length).fill(byte)

export function testDevice(n: number, more: Partial<TestDevice> = {}): TestDevice {
  return {
    device_id: `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`,
    sign_seed: fill(0x80 + n),
    added: 0,
    revoked: null,
    ...more,
  }
}

export const epochKey = (epoch: number): Bytes => fill(0x40 + epoch)
const entryHash = (epoch: number): Bytes => fill(0x50 + epoch)

export function testLog(log_seq: number, devices: readonly TestDevice[]): DeviceLog {
  const known = devices.map(({ device_id, sign_seed, added, revoked }): [string, LogDevice] => [
    device_id,
    {
      device_id,
      sign_pub: nodeCrypto.ed25519Public(sign_seed),
      kem_pub: fill(0, 1216),
      name: device_id,
      device_type: 'desktop',
      added,
      revoked: revoked === null ? null : { ...revoked, by: 'root', created_at: 0 },
    },
  ])
  return {
    user_id: USER_ID,
    root_kem_pub: fill(0, 1216),
    log_seq,
    log_head: entryHash(log_seq),
    devices: new Map(known),
    epochs: Array.from({ length: log_seq + 1 }, (_, epoch) => ({
      entry_hash: entryHash(epoch),
      commit: fill(0),
      sealed: new Map(),
      prev_box: null,
      prev_hash: null,
    })),
    used_keys: new Set(),
  }
}

export function testContext(log: DeviceLog, more: Partial<ReceiveContext> = {}): ReceiveContext {
  return { user_id: log.user_id, log, epoch_key: epochKey, floor: 0, now_ms: NOW_MS, ...more }
}

let made = 0

/** A UUIDv7 of that time. */
export function eventIdAt(ms: number): string {
  made += 1
  const time = ms.toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${made.toString(16).padStart(12, '0')}`
}

/** One event; what `input` does not say is honest. */
export async function sealTestEvent(device: TestDevice, input: Partial<SealInput> & { device_seq: number }): Promise<TestEvent> {
  const epoch = input.epoch ?? 0
  const data = input.data ?? new TextEncoder().encode(`data ${input.device_seq}`)
  const { record, event_hash } = await sealEvent(nodeCrypto, {
    user_id: USER_ID,
    device_id: device.device_id,
    sign_seed: device.sign_seed,
    event_key: await eventKey(nodeCrypto, epochKey(epoch), entryHash(epoch), device.device_id),
    epoch,
    event_id: eventIdAt(NOW_MS - 1000),
    stream_id: 'main',
    type: 'app',
    ttl: null,
    prev_hash: null,
    data,
    ...input,
  })
  const [decoded] = decodeRecords(record)
  if (decoded === undefined) throw new Error('no record')
  return { record: decoded, event_hash, data }
}

/** The record with its hash and signature made anew, whatever it holds. */
export function signTestRecord(device: TestDevice, record: EventRecord): EventRecord {
  const payloadHash = record.payload === null ? record.payload_hash : nodeCrypto.sha256(record.payload)
  const hash = nodeCrypto.sha256(tuple('event-hash', eventHeader(USER_ID, record), payloadHash))
  return { ...record, sig: nodeCrypto.ed25519Sign(device.sign_seed, tuple('event-sig', hash)) }
}

/** Events of one device, sent one after another in the streams named, each linked to the one before it in its stream. */
export async function sealChain(
  device: TestDevice,
  streams: readonly string[],
  more: (i: number) => Partial<SealInput> = () => ({}),
): Promise<TestEvent[]> {
  const heads = new Map<string, Bytes>()
  const out: TestEvent[] = []
  for (const [i, stream_id] of streams.entries()) {
    const event = await sealTestEvent(device, { device_seq: i + 1, stream_id, prev_hash: heads.get(stream_id) ?? null, ...more(i) })
    heads.set(stream_id, event.event_hash)
    out.push(event)
  }
  return out
}

/** As delivered: numbered in the order given. */
export function deliver(events: readonly { record: EventRecord }[], first = 1): EventRecord[] {
  return events.map(({ record }, i) => ({ ...record, server: { position: first + i, stream_seq: first + i, received_at: NOW_MS } }))
}

export function entomb(record: EventRecord): EventRecord {
  if (record.payload === null) return record
  return { ...record, payload: null, payload_hash: nodeCrypto.sha256(record.payload) }
}
