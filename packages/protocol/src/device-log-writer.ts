/**
 * Writes entries of the device log (protocol.md §2). Each brings a fresh epoch key, sealed to exactly the devices that
 * are active after it and to the root. What is built goes through the verifier before it is handed out, so nothing leaves
 * that the other end would refuse.
 */
import { type Bytes, fromBase64url, toBase64url, utf8 } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import { activeDevices, type DeviceLog, type LogEntry, verifyEntry } from './device-log.ts'
import type { RevocationPins } from './device-log-body.ts'
import { isSafeDeviceName } from './device-name.ts'
import { commitEpochKey, sealEpochKey, sealPreviousEpochKey } from './epoch-key.ts'
import { SealpostError, unreachable } from './errors.ts'
import type { DeviceIntroduction } from './keys.ts'
import { tuple } from './tuple.ts'

export type LogChange =
  | { type: 'genesis'; root_kem_pub: Bytes; device: DeviceIntroduction }
  | { type: 'add_device'; device: DeviceIntroduction }
  | { type: 'revoke_device'; device_id: string; pins: RevocationPins | null }
  | { type: 'rename_device'; device_id: string; name: string }
  | { type: 'rotate_keys' }
  | { type: 'recover'; device: DeviceIntroduction }

/** `boxes`: recipient (device_id or `root`) → box as base64url. */
export type NewEntry = { entry: LogEntry; boxes: Record<string, string>; epoch_key: Bytes; entry_hash: Bytes; log_seq: number }

/**
 * Builds and signs the next entry of `log` (null: a genesis). `prev_epoch_key` may be null only in `genesis`, `rotate_keys`
 * and `recover`; null closes the older epochs to later devices. Throws `invalid_entry` for a change that breaks a rule.
 */
export async function buildEntry(
  crypto: Crypto,
  log: DeviceLog | null,
  user_id: string,
  signer: { id: string; seed: Bytes },
  change: LogChange,
  prev_epoch_key: Bytes | null,
  now_ms: number,
): Promise<NewEntry> {
  checkName(change)
  const place = { user_id, log_seq: log === null ? 0 : log.log_seq + 1, prev_hash: log?.log_head ?? null }
  const epoch_key = crypto.random(32)

  const boxes: Record<string, string> = {}
  const sealed: { to: string; box_hash: string }[] = []
  for (const [to, kem_pub] of recipientsAfter(log, change)) {
    const box = await sealEpochKey(kem_pub, place, to, epoch_key)
    boxes[to] = toBase64url(box)
    sealed.push({ to, box_hash: toBase64url(await crypto.sha256(box)) })
  }
  const prev_box = prev_epoch_key === null ? null : await sealPreviousEpochKey(crypto, place.log_seq, epoch_key, prev_epoch_key)

  const body = utf8(
    JSON.stringify({
      v: 1,
      user_id,
      created_at: now_ms,
      log_seq: place.log_seq,
      prev_hash: place.prev_hash === null ? null : toBase64url(place.prev_hash),
      type: change.type,
      signer: signer.id,
      ...changeFields(log, change),
      epoch: {
        commit: toBase64url(await commitEpochKey(crypto, place.log_seq, epoch_key)),
        sealed,
        prev_box: prev_box === null ? null : toBase64url(prev_box),
      },
    }),
  )
  const entry = { body, sig: await crypto.ed25519Sign(signer.seed, tuple('log', null, body)) }
  const verified = await verifyEntry(crypto, log, user_id, entry)
  if (!verified.ok) throw new SealpostError('invalid_entry', verified.reason)
  return { entry, boxes, epoch_key, entry_hash: verified.entry_hash, log_seq: place.log_seq }
}

function checkName(change: LogChange): void {
  const name = change.type === 'rename_device' ? change.name : 'device' in change ? change.device.name : undefined
  if (name !== undefined && !isSafeDeviceName(name)) throw new SealpostError('invalid_entry', 'the device name is not a safe one')
}

/** Who is active after the change, and the root: recipient → public key. */
function recipientsAfter(log: DeviceLog | null, change: LogChange): Map<string, Bytes> {
  const root_kem_pub = change.type === 'genesis' ? change.root_kem_pub : log?.root_kem_pub
  if (root_kem_pub === undefined) throw new SealpostError('invalid_entry', 'a log has a genesis')
  const out = new Map([['root', root_kem_pub]])
  if (log !== null && change.type !== 'recover') for (const { device_id, kem_pub } of activeDevices(log)) out.set(device_id, kem_pub)
  if (change.type === 'revoke_device') out.delete(change.device_id)
  if ('device' in change) out.set(change.device.device_id, fromBase64url(change.device.kem_pub))
  return out
}

function changeFields(log: DeviceLog | null, change: LogChange): object {
  switch (change.type) {
    case 'genesis':
      return { root_kem_pub: toBase64url(change.root_kem_pub), device: change.device }
    case 'add_device':
      return { device: change.device }
    case 'revoke_device':
      return { revoked: [{ device_id: change.device_id, ...pinFields(change.pins) }] }
    case 'rename_device':
      return { rename: { device_id: change.device_id, name: change.name } }
    case 'rotate_keys':
      return {}
    case 'recover':
      return { device: change.device, revoked: log === null ? [] : activeDevices(log).map(({ device_id }) => ({ device_id })) }
    default:
      return unreachable(change)
  }
}

function pinFields(pins: RevocationPins | null): object {
  if (pins === null) return {}
  return {
    last_device_seq: pins.last_device_seq,
    heads: pins.heads.map((head) => ({ ...head, event_hash: toBase64url(head.event_hash) })),
  }
}
