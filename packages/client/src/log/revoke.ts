/**
 * Revoking a device (protocol.md §2): its past is pinned by the last event of each of its streams, verified first. After two
 * refusals because it goes on sending, or when the tips are not complete or do not verify, without pins: revoking always ends.
 */
import { type Crypto, decodeRecords, type DeviceLog, LIMITS, receivePage, type RevocationPins, SealpostError } from '@sealpost/protocol'
import type { Decide } from './log-append.ts'
import type { Requests } from '../connection/requests.ts'

/** The signed body must stay below 64 KiB with the rest of the entry. */
const PINS_MAX = 200

export function decideRevocation(crypto: Crypto, requests: Requests, device_id: string, self: string, signal?: AbortSignal): Decide {
  return async (log, { heads_stale }) => {
    const device = log.devices.get(device_id)
    if (device === undefined) throw new SealpostError('not_found', 'there is no such device')
    if (device.revoked !== null) return null
    if (device_id === self)
      throw new SealpostError('invalid_request', 'a device does not revoke itself', {
        hint: 'revoke it from another device of the account: sealpost revoke NAME',
      })
    const pins = heads_stale >= 2 ? null : await readPins(crypto, requests, log, device_id, signal).catch(withoutPins)
    return { type: 'revoke_device', device_id, pins }
  }
}

/** What the server cannot or will not show keeps nobody from being revoked; only a lost connection is told. */
function withoutPins(error: unknown): null {
  if (error instanceof SealpostError && (error.code === 'unreachable' || error.code === 'aborted')) throw error
  return null
}

async function readPins(
  crypto: Crypto,
  requests: Requests,
  log: DeviceLog,
  device_id: string,
  signal: AbortSignal | undefined,
): Promise<RevocationPins | null> {
  const { head, body } = await requests.ask('tips', (id) => ({ type: 'tips_request', id, device_id }), { signal })
  if (!head.complete) return null
  const records = decodeRecords(body, LIMITS.tipsMax)
  if (records.length > PINS_MAX || records.some((record) => record.device_id !== device_id)) return null
  const page = await receivePage(crypto, { user_id: log.user_id, log, epoch_key: () => null, floor: 0, now_ms: 0 }, new Map(), records)
  if (page.unknown_epoch !== null || page.moved.size !== records.length) return null
  const heads = [...page.moved].map(([key, chain]) => ({
    stream_id: key.slice(device_id.length + 1),
    device_seq: chain.device_seq,
    event_hash: chain.event_hash,
  }))
  return { last_device_seq: head.last_device_seq, heads }
}
