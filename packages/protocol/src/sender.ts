/**
 * Whether the device log lets a device have sent an event (protocol.md §2, §3): active at the event's epoch, or revoked
 * later and inside the pins of its revocation.
 *
 * Pins: records up to a pin stand as they verify, at the pin the hash must match, above it or in a stream that is not listed
 * nothing stands. A revocation without pins lets its device's earlier epochs stand as they are stored.
 */
import { type Bytes, equalBytes } from './bytes.ts'
import type { DeviceLog } from './device-log.ts'
import type { RevocationPins } from './device-log-body.ts'
import type { EventFields } from './event-header.ts'

export type SenderFault = 'unknown_device' | 'inactive_device' | 'outside_pins' | 'pin_mismatch'

/** Null when the device may have sent it; the signature is checked elsewhere. */
export function findSenderFault(log: DeviceLog, event: EventFields, event_hash: Bytes): SenderFault | null {
  const device = log.devices.get(event.device_id)
  if (device === undefined) return 'unknown_device'
  if (event.epoch < device.added) return 'inactive_device'
  if (device.revoked === null) return null
  if (event.epoch >= device.revoked.log_seq) return 'inactive_device'
  return device.revoked.pins === null ? null : findPinFault(device.revoked.pins, event, event_hash)
}

function findPinFault(pins: RevocationPins, event: EventFields, event_hash: Bytes): SenderFault | null {
  const pin = pins.heads.find((head) => head.stream_id === event.stream_id)
  if (pin === undefined || event.device_seq > pin.device_seq || event.device_seq > pins.last_device_seq) return 'outside_pins'
  return event.device_seq === pin.device_seq && !equalBytes(pin.event_hash, event_hash) ? 'pin_mismatch' : null
}
