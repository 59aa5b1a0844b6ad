/**
 * Epoch keys and their boxes (protocol.md §2). A box is `enc(1120) || ct(48)`, HPKE with info
 * `tuple("epoch-key", user_id, log_seq, prev_hash, to)`; its SHA-256 and the key's commitment are in the signed entry, so
 * a key is taken only when both match. `prev_box` carries E_(n−1) under E_n, for devices that join later.
 */
import { type Bytes, EMPTY, equalBytes, fromBase64url, uuidToBytes } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import type { DeviceLog, LogEpoch } from './device-log.ts'
import { SealpostError } from './errors.ts'
import { hpkeOpen, hpkeSeal } from './kem.ts'
import { tuple } from './tuple.ts'

export type EpochPlace = { user_id: string; log_seq: number; prev_hash: Bytes | null }

/** The prev box key seals one message in its life. */
const ZERO_IV = new Uint8Array(12)

/** Opens the box of `to` (device_id or `root`) at epoch `log_seq`; throws `invalid_box`. */
export async function openEpochKey(
  crypto: Crypto,
  log: DeviceLog,
  log_seq: number,
  to: string,
  kem_seed: Bytes,
  box: Bytes,
): Promise<Bytes> {
  const epoch = epochAt(log, log_seq)
  const expected = epoch.sealed.get(to)
  if (expected === undefined) throw new SealpostError('invalid_box', 'the entry has no box for this recipient')
  if (!equalBytes(await crypto.sha256(box), expected)) throw new SealpostError('invalid_box', 'the box is not the one that was signed')
  const place = { user_id: log.user_id, log_seq, prev_hash: epoch.prev_hash }
  return checkCommit(crypto, epoch, log_seq, await hpkeOpen(kem_seed, boxInfo(place, to), box))
}

/** E_(n−1) out of the `prev_box` of epoch n, or null when older epochs are closed; throws `invalid_box`. */
export async function previousEpochKey(crypto: Crypto, log: DeviceLog, log_seq: number, epoch_key: Bytes): Promise<Bytes | null> {
  const { prev_box } = epochAt(log, log_seq)
  if (prev_box === null) return null
  const key = await prevBoxKey(crypto, log_seq, epoch_key)
  let previous: Bytes
  try {
    previous = await crypto.aesGcmOpen(key, ZERO_IV, EMPTY, prev_box)
  } catch (cause) {
    throw new SealpostError('invalid_box', 'the key of the epoch before does not open', { cause })
  }
  return checkCommit(crypto, epochAt(log, log_seq - 1), log_seq - 1, previous)
}

/** Are these exactly the boxes that the newest entry of `log` signed? */
export async function checkBoxes(crypto: Crypto, log: DeviceLog, boxes: Readonly<Record<string, string>>): Promise<boolean> {
  const { sealed } = epochAt(log, log.log_seq)
  const given = Object.entries(boxes)
  if (given.length !== sealed.size) return false
  for (const [to, box] of given) if (!(await checkBox(crypto, log, log.log_seq, to, box))) return false
  return true
}

/** Is this the box that the entry `log_seq` signed for `to`? */
export async function checkBox(crypto: Crypto, log: DeviceLog, log_seq: number, to: string, box: string): Promise<boolean> {
  const expected = log.epochs[log_seq]?.sealed.get(to)
  if (expected === undefined) return false
  try {
    return equalBytes(await crypto.sha256(fromBase64url(box)), expected)
  } catch (error) {
    if (error instanceof SealpostError) return false
    throw error
  }
}

export async function sealEpochKey(kem_pub: Bytes, place: EpochPlace, to: string, epoch_key: Bytes): Promise<Bytes> {
  return hpkeSeal(kem_pub, boxInfo(place, to), epoch_key)
}

export async function sealPreviousEpochKey(crypto: Crypto, log_seq: number, epoch_key: Bytes, previous: Bytes): Promise<Bytes> {
  return crypto.aesGcmSeal(await prevBoxKey(crypto, log_seq, epoch_key), ZERO_IV, EMPTY, previous)
}

export async function commitEpochKey(crypto: Crypto, log_seq: number, epoch_key: Bytes): Promise<Bytes> {
  return crypto.sha256(tuple('epoch-commit', log_seq, epoch_key))
}

function boxInfo({ user_id, log_seq, prev_hash }: EpochPlace, to: string): Bytes {
  return tuple('epoch-key', fromBase64url(user_id, 32), log_seq, prev_hash, to === 'root' ? 'root' : uuidToBytes(to))
}

async function prevBoxKey(crypto: Crypto, log_seq: number, epoch_key: Bytes): Promise<Bytes> {
  return crypto.hkdf(epoch_key, EMPTY, tuple('prev-box', log_seq))
}

async function checkCommit(crypto: Crypto, epoch: LogEpoch, log_seq: number, epoch_key: Bytes): Promise<Bytes> {
  if (!equalBytes(await commitEpochKey(crypto, log_seq, epoch_key), epoch.commit))
    throw new SealpostError('invalid_box', 'the epoch key is not the one that was signed')
  return epoch_key
}

function epochAt(log: DeviceLog, log_seq: number): LogEpoch {
  const epoch = log.epochs[log_seq]
  if (epoch === undefined) throw new SealpostError('invalid_box', 'the log has no such epoch')
  return epoch
}
