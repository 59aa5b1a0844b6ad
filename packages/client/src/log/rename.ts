/** Renaming a device (protocol.md §2). A device that is called so already is fine. */
import { SealpostError } from '@sealpost/protocol'
import type { Decide } from './log-append.ts'

export function decideRename(device_id: string, name: string): Decide {
  return (log) => {
    const device = log.devices.get(device_id)
    if (device === undefined) throw new SealpostError('not_found', 'there is no such device')
    if (device.revoked !== null) throw new SealpostError('invalid_request', 'a revoked device keeps the name that it had')
    return device.name === name ? null : { type: 'rename_device', device_id, name }
  }
}
