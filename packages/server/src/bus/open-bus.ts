/** Which bus a process has: its own alone, or one over a wire to the other processes of the relay. */
import type { Bytes } from '@sealpost/protocol'
import type { Log } from '../telemetry/log.ts'
import type { Bus } from '../ports/store.ts'
import { createMemoryBus } from './memory-bus.ts'
import { createSharedBus } from './shared-bus.ts'
import type { OpenWire } from './wire.ts'

export function openBus(wire: OpenWire | null, key: Bytes, logger: Log): Bus {
  const failed = (err: unknown): void => logger.error({ err }, 'a hint was not taken')
  return wire === null ? createMemoryBus(failed) : createSharedBus({ open: wire, key, failed })
}
