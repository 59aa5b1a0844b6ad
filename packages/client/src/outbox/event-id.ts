/** Ids of events: UUIDv7 (RFC 9562 §5.7) that rise within one maker, also inside one millisecond and when the clock goes back a little. */
import { type Crypto, viewOf } from '@sealpost/protocol'
import { V7Generator } from 'uuidv7'

/** `now_ms` is the device's clock. */
export type EventIdMaker = (now_ms: number) => string

export function createEventIdMaker(crypto: Crypto): EventIdMaker {
  const generator = new V7Generator({ nextUint32: () => viewOf(crypto.random(4)).getUint32(0) })
  return (now_ms) => generator.generateOrResetWithTs(now_ms).toString()
}
