/**
 * THE verifier of the device log (protocol.md §2), the one both ends run: a pure fold of entries into the state of an
 * account. A given log is never mutated; a refused entry changes nothing. Order of checks, cheap ones first:
 *
 *   size, JSON, `v`, frame → user_id → next log_seq and prev_hash → signer → signature → type → shape
 *   → the rules of the type → keys never used before → self_sig → sealed set, prev_box
 */
import { type Bytes, equalBytes, fromBase64url, toBase64url } from './bytes.ts'
import type { Crypto } from './crypto.ts'
import {
  decodeLogBody,
  decodeLogFrame,
  isLogEntryType,
  type LogBody,
  type LogBodyDevice,
  type LogBodyFrame,
  type Revocation,
  type RevocationPins,
} from './device-log-body.ts'
import { SealpostError } from './errors.ts'
import { introductionBytes } from './keys.ts'
import type { DeviceType } from './messages.ts'
import { tuple } from './tuple.ts'

/** The exact bytes that were signed, and their signature. */
export type LogEntry = { body: Bytes; sig: Bytes }
/** A row of `log_entry` and `log_entries`; `box` is the reader's, null if the entry has none for it. */
export type WireEntry = { body: string; sig: string; box: string | null }

export type LogDevice = {
  device_id: string
  sign_pub: Bytes
  kem_pub: Bytes
  name: string
  device_type: DeviceType
  /** log_seq of the entry that brought it */
  added: number
  /** `by`: device_id or `root` */
  revoked: { log_seq: number; by: string; created_at: number; pins: RevocationPins | null } | null
}

/** `sealed`: recipient (device_id or `root`) → SHA-256 of its box. `prev_hash` is part of the boxes' HPKE info. */
export type LogEpoch = {
  entry_hash: Bytes
  commit: Bytes
  sealed: ReadonlyMap<string, Bytes>
  prev_box: Bytes | null
  prev_hash: Bytes | null
}

export type DeviceLog = {
  user_id: string
  root_kem_pub: Bytes
  log_seq: number
  /** entry_hash of the newest entry */
  log_head: Bytes
  devices: ReadonlyMap<string, LogDevice>
  /** index = log_seq = epoch */
  epochs: readonly LogEpoch[]
  /** every public key that was ever in use, as base64url */
  used_keys: ReadonlySet<string>
}

/** `log_conflict`: the entry is not the next one of this log. */
export type Verified =
  | { ok: true; log: DeviceLog; body: LogBody; entry_hash: Bytes }
  | { ok: false; code: 'invalid_entry' | 'unknown_version' | 'log_conflict'; reason: string }

/** Verifies `entry` as the next one of `log`; with null, as the genesis of `user_id`. */
export async function verifyEntry(crypto: Crypto, log: DeviceLog | null, user_id: string, entry: LogEntry): Promise<Verified> {
  return verifyNext(crypto, log, user_id, entry, copyState(log))
}

/** Verifies a whole log from genesis; the answer is that of the newest entry, or of the first refused one. */
export async function verifyLog(crypto: Crypto, user_id: string, entries: readonly LogEntry[]): Promise<Verified> {
  return (await verifyEntries(crypto, null, user_id, entries)) ?? { ok: false, code: 'invalid_entry', reason: 'a log has a genesis' }
}

/** Verifies entries that follow `log`, which is copied once and not for each of them. Null when there are none; else as `verifyLog`. */
export async function verifyEntries(
  crypto: Crypto,
  log: DeviceLog | null,
  user_id: string,
  entries: readonly LogEntry[],
): Promise<Verified | null> {
  const state = copyState(log)
  let newest: Verified | null = null
  let before = log
  for (const entry of entries) {
    newest = await verifyNext(crypto, before, user_id, entry, state)
    if (!newest.ok) return newest
    before = newest.log
  }
  return newest
}

export function activeDevices(log: DeviceLog): LogDevice[] {
  return [...log.devices.values()].filter((device) => device.revoked === null)
}

export async function hashEntry(crypto: Crypto, body: Bytes): Promise<Bytes> {
  return crypto.sha256(tuple('log-entry', body))
}

/** Text to bytes; throws `invalid_encoding`. */
export function decodeWireEntry(wire: { body: string; sig: string }): LogEntry {
  return { body: fromBase64url(wire.body), sig: fromBase64url(wire.sig, 64) }
}

export function encodeWireEntry(entry: LogEntry, box: string | null): WireEntry {
  return { body: toBase64url(entry.body), sig: toBase64url(entry.sig), box }
}

function checkPlace(log: DeviceLog | null, user_id: string, frame: LogBodyFrame): void {
  if (frame.user_id !== user_id || (log !== null && log.user_id !== user_id)) throw refuse('the entry belongs to another account')
  const next = log === null ? 0 : log.log_seq + 1
  if (frame.log_seq !== next) throw conflict(`expected log_seq ${next}`)
  if (log === null ? frame.prev_hash !== null : frame.prev_hash === null || !equalBytes(frame.prev_hash, log.log_head))
    throw conflict('prev_hash is not the head of this log')
  if ((frame.type === 'genesis') !== (log === null)) throw refuse('genesis is the first entry and no other')
}

/** The key of the signer, who is active before the entry, or the root where it may sign. */
function signerKey(log: DeviceLog | null, frame: LogBodyFrame): Bytes {
  const rootSigns = frame.type === 'genesis' || frame.type === 'recover'
  if (isLogEntryType(frame.type) && (frame.signer === 'root') !== rootSigns) throw refuse(`${frame.signer} may not sign ${frame.type}`)
  if (frame.signer === 'root') return fromBase64url(frame.user_id, 32)
  const signer = log?.devices.get(frame.signer)
  if (signer === undefined || signer.revoked !== null) throw refuse('the signer is not an active device')
  return signer.sign_pub
}

/** What grows with a log; `log` itself is never written to. */
type State = { devices: Map<string, LogDevice>; epochs: LogEpoch[]; used_keys: Set<string> }

function copyState(log: DeviceLog | null): State {
  return { devices: new Map(log?.devices), epochs: [...(log?.epochs ?? [])], used_keys: new Set(log?.used_keys) }
}

/** `state` holds what `log` holds; it moves on to the entry, and is of no use when the entry is refused. */
async function verifyNext(crypto: Crypto, log: DeviceLog | null, user_id: string, entry: LogEntry, state: State): Promise<Verified> {
  try {
    const frame = decodeLogFrame(entry.body)
    checkPlace(log, user_id, frame)
    const signed = tuple('log', null, entry.body)
    if (!(await crypto.ed25519Verify(signerKey(log, frame), signed, entry.sig))) throw refuse('the signature does not hold')
    const body = decodeLogBody(frame)
    const entry_hash = await hashEntry(crypto, entry.body)
    return { ok: true, log: await applyBody(crypto, log, body, entry_hash, state), body, entry_hash }
  } catch (error) {
    if (!(error instanceof SealpostError)) throw error
    if (error.code === 'invalid_entry' || error.code === 'unknown_version' || error.code === 'log_conflict')
      return { ok: false, code: error.code, reason: error.message }
    throw error
  }
}

async function applyBody(crypto: Crypto, log: DeviceLog | null, body: LogBody, entry_hash: Bytes, state: State): Promise<DeviceLog> {
  const root_kem_pub = body.type === 'genesis' ? body.root_kem_pub : log?.root_kem_pub
  if (root_kem_pub === undefined) throw refuse('a log has a genesis')
  const { devices, epochs, used_keys } = state
  if (log === null) used_keys.add(body.user_id).add(toBase64url(root_kem_pub))
  // the newest epoch was sealed to exactly the devices that were active: no need to look at all that ever were
  const before = [...(epochs.at(-1)?.sealed.keys() ?? [])].filter((to) => to !== 'root')

  if (body.type === 'revoke_device' || body.type === 'recover') revoke(devices, before, body, body.revoked)
  if (body.type === 'rename_device') rename(devices, body.rename)
  if (body.type === 'genesis' || body.type === 'add_device' || body.type === 'recover') {
    takeKeys(devices, used_keys, body.device)
    const introduction = introductionBytes(body.user_id, body.device.device_id, body.device.sign_pub, body.device.kem_pub)
    if (!(await crypto.ed25519Verify(body.device.sign_pub, introduction, body.device.self_sig)))
      throw refuse('the device does not hold the key that it shows')
    const { self_sig: _, ...device } = body.device
    devices.set(device.device_id, { ...device, added: body.log_seq, revoked: null })
    before.push(device.device_id)
  }

  const active = before.filter((device_id) => devices.get(device_id)?.revoked === null)
  epochs.push(readEpoch(active, body, entry_hash))
  return { user_id: body.user_id, root_kem_pub, log_seq: body.log_seq, log_head: entry_hash, devices, epochs, used_keys }
}

function revoke(
  devices: Map<string, LogDevice>,
  active: readonly string[],
  body: LogBody & { type: 'revoke_device' | 'recover' },
  revoked: Revocation[],
): void {
  if (body.type === 'revoke_device' && revoked.length === 0) throw refuse('a revocation names a device')
  for (const { device_id, pins } of revoked) {
    const device = devices.get(device_id)
    // a device named twice is no longer active the second time
    if (device === undefined || device.revoked !== null) throw refuse('a revoked device was not active')
    if (device_id === body.signer) throw refuse('the signer is among the revoked devices')
    if (pins !== null && new Set(pins.heads.map((head) => head.stream_id)).size !== pins.heads.length)
      throw refuse('heads name a stream twice')
    devices.set(device_id, { ...device, revoked: { log_seq: body.log_seq, by: body.signer, created_at: body.created_at, pins } })
  }
  if (body.type === 'recover' && active.some((device_id) => devices.get(device_id)?.revoked === null))
    throw refuse('recover revokes all other devices')
}

function rename(devices: Map<string, LogDevice>, { device_id, name }: { device_id: string; name: string }): void {
  const device = devices.get(device_id)
  if (device === undefined || device.revoked !== null) throw refuse('the renamed device is not active')
  devices.set(device_id, { ...device, name })
}

/** No id and no key is ever used twice, nor is a key of the root. */
function takeKeys(devices: ReadonlyMap<string, LogDevice>, used: Set<string>, device: LogBodyDevice): void {
  if (devices.has(device.device_id)) throw refuse('the device_id was used before')
  const sign_pub = toBase64url(device.sign_pub)
  const kem_pub = toBase64url(device.kem_pub)
  if (used.has(sign_pub)) throw refuse('the sign_pub was used before')
  if (used.has(kem_pub)) throw refuse('the kem_pub was used before')
  used.add(sign_pub).add(kem_pub)
}

function readEpoch(active: readonly string[], body: LogBody, entry_hash: Bytes): LogEpoch {
  const { commit, prev_box } = body.epoch
  const sealed = new Map(body.epoch.sealed.map(({ to, box_hash }) => [to, box_hash]))
  if (sealed.size !== body.epoch.sealed.length) throw refuse('sealed names a recipient twice')
  const recipients = ['root', ...active]
  if (sealed.size !== recipients.length || !recipients.every((to) => sealed.has(to)))
    throw refuse('sealed is not exactly the active devices and the root')
  if (body.type === 'genesis' && prev_box !== null) throw refuse('genesis has no prev_box')
  const mayClose = body.type === 'genesis' || body.type === 'rotate_keys' || body.type === 'recover'
  if (prev_box === null && !mayClose) throw refuse(`${body.type} has a prev_box`)
  return { entry_hash, commit, sealed, prev_box, prev_hash: body.prev_hash }
}

function refuse(reason: string): SealpostError {
  return new SealpostError('invalid_entry', reason)
}

function conflict(reason: string): SealpostError {
  return new SealpostError('log_conflict', reason)
}
