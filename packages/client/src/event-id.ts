/** Ids of events: UUIDv7 (RFC 9562 §5.7) that rise within a process, also inside one millisecond (§6.2, method 1). */
import { bytesToUuid, type Bytes, viewOf } from '@sealpost/protocol'

const COUNTER_MAX = 0xfff
let last = { ms: 0, counter: 0 }

export function createEventId(now_ms: number, random: (length: number) => Bytes): string {
  if (now_ms > last.ms) last = { ms: now_ms, counter: 0 }
  else if (last.counter < COUNTER_MAX) last = { ms: last.ms, counter: last.counter + 1 }
  else last = { ms: last.ms + 1, counter: 0 }
  const bytes = random(16)
  const view = viewOf(bytes)
  view.setUint32(0, Math.floor(last.ms / 0x1_0000))
  view.setUint16(4, last.ms % 0x1_0000)
  view.setUint16(6, 0x7000 | last.counter)
  view.setUint8(8, 0x80 | (view.getUint8(8) & 0x3f))
  return bytesToUuid(bytes)
}
