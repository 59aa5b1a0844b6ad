/**
 * The receiver's rules (protocol.md §3) over one page of records, pure over the chains it is given.
 *
 *   hash all → who may have sent it (`sender.ts`) → runs and their signatures → chains (`chain.ts`) → ttl → open → padding
 *
 * Each stage handles the whole page and is awaited once; with a crypto adapter that answers at once nothing waits. An event that
 * does not verify is never handed over and moves no chain; an expired one is never handed over; the other chains go on.
 * Bound: the page (`limits.replay_events`, one frame).
 */
import { type Awaitable, type Bytes, fromBase64url, viewOf } from './bytes.ts'
import { type ChainFault, type Chains, chainKey, createChainWalk, type GapReason, type KnownChains, splitRuns } from './chain.ts'
import type { AesGcmKey, Crypto } from './crypto.ts'
import type { DeviceLog } from './device-log.ts'
import { SealpostError } from './errors.ts'
import { eventKey, IV_BYTES, signedEventHash, TAG_BYTES, unpadData } from './event.ts'
import { HEADER_AT, hashInputBytes, writeHashInput } from './event-header.ts'
import { type EventRecord, expiresAtMs } from './record.ts'
import { findSenderFault, type SenderFault } from './sender.ts'

export type AlarmReason = SenderFault | ChainFault | 'invalid_signature' | 'decrypt_failed' | 'invalid_padding'

/** An event that verified and opened. */
export type OpenedEvent = { is: 'event'; record: EventRecord; data: Bytes }

/** What a record comes to. A gap stands before the record that showed it; `position` is that record's. */
export type Received =
  | OpenedEvent
  /** Verified, but past its ttl or a tombstone: nothing to hand over. */
  | { is: 'expired'; record: EventRecord }
  /** Verified, but the key of its epoch is closed to this device: nothing to hand over. */
  | { is: 'closed'; record: EventRecord }
  | { is: 'gap'; stream_id: string; device_id: string; from_device_seq: number; reason: GapReason; position: number }
  /** Not handed over. A chain moves only past what its device signed (`decrypt_failed`, `invalid_padding`). */
  | { is: 'alarm'; position: number; device_id: string; stream_id: string; reason: AlarmReason }

export type ReceiveContext = {
  user_id: string
  log: DeviceLog
  /** The content key of an epoch; null when it is closed to this device. */
  epoch_key(epoch: number): Bytes | null
  /** Positions up to here were removed by retention. */
  floor: number
  /** The device's clock, corrected by `server_time`. */
  now_ms: number
}

export type ReceivedPage = {
  /** In record order. */
  items: Received[]
  /** The chains that the page moved. */
  moved: Chains
  /** The first record whose epoch the log does not know; from there on nothing was touched. */
  unknown_epoch: { index: number; epoch: number } | null
}

/** Verifies and opens one page of numbered records. Throws `invalid_message` when a record has no server part. */
export async function receivePage(
  crypto: Crypto,
  context: ReceiveContext,
  chains: KnownChains,
  records: readonly EventRecord[],
): Promise<ReceivedPage> {
  const index = records.findIndex((record) => record.epoch > context.log.log_seq)
  const unknown = records[index]
  const page = await hashPage(crypto, context.user_id, unknown === undefined ? records : records.slice(0, index))
  const faults = page.records.map((record, i) => findSenderFault(context.log, record, at(page.hashes, i)))
  const verified = await verifyRuns(crypto, context.log, page, faults)

  const walk = createChainWalk(chains, context.floor)
  const items: Received[] = []
  const sealed: Sealed[] = []
  const quiet = new Map<string, GapReason>()
  for (const [i, record] of page.records.entries()) {
    const fault = faults[i] ?? (verified[i] === true ? null : 'invalid_signature')
    if (fault !== null) {
      items.push(alarm(record, fault))
      continue
    }
    const key = at(page.keys, i)
    const step = walk.step(record, key, at(page.hashes, i))
    if (step.is === 'fault') {
      items.push(alarm(record, step.reason))
      continue
    }
    if (step.gap !== null) {
      quiet.delete(key)
      items.push(gap(record, step.gap.from_device_seq, step.gap.reason))
    }
    const lost = lostReason(record, context.now_ms)
    if (lost !== null) {
      if (quiet.get(key) !== lost) items.push(gap(record, record.device_seq, lost))
      quiet.set(key, lost)
      items.push({ is: 'expired', record })
    } else {
      quiet.delete(key)
      sealed.push({ record, header: at(page.headers, i), item: items.length })
      items.push({ is: 'closed', record })
    }
  }
  await openAll(crypto, context, sealed, items)
  return {
    items,
    moved: walk.moved,
    unknown_epoch: unknown === undefined ? null : { index, epoch: unknown.epoch },
  }
}

type Page = {
  records: readonly EventRecord[]
  keys: string[]
  headers: Bytes[]
  hashes: Bytes[]
}

/** Headers and event hashes; the hash inputs of the page lie in one buffer. */
async function hashPage(crypto: Crypto, user_id: string, records: readonly EventRecord[]): Promise<Page> {
  const user = fromBase64url(user_id, 32)
  const payloadHashes = await settle(records.map((record) => payloadHash(crypto, record)))
  let length = 0
  for (const record of records) length += hashInputBytes(record)
  const buffer = new Uint8Array(length)
  const view = viewOf(buffer)
  const headers: Bytes[] = []
  const inputs: Bytes[] = []
  let start = 0
  for (const [i, record] of records.entries()) {
    const hash = at(payloadHashes, i)
    const end = writeHashInput(buffer, view, start, user, record)
    buffer.set(hash, end - hash.length)
    headers.push(buffer.subarray(start + HEADER_AT, end - hash.length - 4))
    inputs.push(buffer.subarray(start, end))
    start = end
  }
  const hashes = await settle(inputs.map((input) => crypto.sha256(input)))
  return { records, keys: records.map(chainKey), headers, hashes }
}

function payloadHash(crypto: Crypto, record: EventRecord): Awaitable<Bytes> {
  const hash = record.payload === null ? record.payload_hash : crypto.sha256(record.payload)
  if (hash === null || record.server === null)
    throw new SealpostError('invalid_message', 'a delivered record is numbered and has a payload')
  return hash
}

/** True for each record that its device's signature vouches for. One check per run; a run whose end fails is checked one by one. */
async function verifyRuns(crypto: Crypto, log: DeviceLog, page: Page, faults: readonly (SenderFault | null)[]): Promise<boolean[]> {
  const verify = (i: number): Awaitable<boolean> => {
    const record = at(page.records, i)
    const device = log.devices.get(record.device_id)
    return device !== undefined && crypto.ed25519Verify(device.sign_pub, signedEventHash(at(page.hashes, i)), record.sig)
  }
  const indices: number[] = []
  for (const [i, fault] of faults.entries()) if (fault === null) indices.push(i)
  const runs = splitRuns(page.records, page.keys, page.hashes, indices)
  const ends = await settle(runs.map((run) => verify(at(run, run.length - 1))))
  const singles = await settle(runs.flatMap((run, r) => (ends[r] === true ? [] : run.slice(0, -1).map(verify))))

  const verified = page.records.map(() => false)
  let next = 0
  for (const [r, run] of runs.entries()) {
    let vouched = run.length
    if (ends[r] !== true) {
      // links lead back from the last event whose own signature holds
      vouched = singles.slice(next, next + run.length - 1).lastIndexOf(true) + 1
      next += run.length - 1
    }
    for (const i of run.slice(0, vouched)) verified[i] = true
  }
  return verified
}

/** An event still to be opened; `item` is its place in the items. */
type Sealed = { record: EventRecord; header: Bytes; item: number }

/** Opens what stands sealed and puts the outcome in its place; what is closed stays as it is. */
async function openAll(crypto: Crypto, context: ReceiveContext, sealed: readonly Sealed[], items: Received[]): Promise<void> {
  const keys = await senderKeys(crypto, context, sealed)
  const plaintexts = await settle(
    sealed.map(({ record, header }) => {
      const key = keys.get(senderKey(record))
      return key === undefined || record.payload === null ? CLOSED : open(key, header, record.payload)
    }),
  )
  for (const [i, { record, item }] of sealed.entries()) {
    const plaintext = plaintexts[i]
    if (plaintext === CLOSED || plaintext === undefined) continue
    const data = plaintext === null ? null : unpadData(plaintext)
    if (data !== null) items[item] = { is: 'event', record, data }
    else items[item] = alarm(record, plaintext === null ? 'decrypt_failed' : 'invalid_padding')
  }
}

const CLOSED = 'closed'

/** The plaintext, or null when it does not open. */
function open(key: AesGcmKey, header: Bytes, payload: Bytes): Awaitable<Bytes | null> {
  if (payload.length < IV_BYTES + TAG_BYTES) return null
  try {
    const plaintext = key.open(payload.subarray(0, IV_BYTES), header, payload.subarray(IV_BYTES))
    return plaintext instanceof Promise ? plaintext.catch(refused) : plaintext
  } catch (error) {
    return refused(error)
  }
}

function refused(error: unknown): null {
  if (error instanceof SealpostError && error.code === 'decrypt_failed') return null
  throw error
}

/** One key per sender and epoch of the page; none for an epoch that is closed. */
async function senderKeys(crypto: Crypto, context: ReceiveContext, sealed: readonly Sealed[]): Promise<Map<string, AesGcmKey>> {
  const derived = new Map<string, Awaitable<Bytes>>()
  for (const { record } of sealed) {
    const name = senderKey(record)
    if (derived.has(name)) continue
    const secret = context.epoch_key(record.epoch)
    const epoch = context.log.epochs[record.epoch]
    if (secret !== null && epoch !== undefined) derived.set(name, eventKey(crypto, secret, epoch.entry_hash, record.device_id))
  }
  const keys = await settle([...derived.values()])
  return new Map([...derived.keys()].map((name, i) => [name, crypto.aesGcmKey(at(keys, i))]))
}

function senderKey(record: EventRecord): string {
  return `${record.epoch}/${record.device_id}`
}

/** Why a verified record holds nothing to hand over, or null. */
function lostReason(record: EventRecord, now_ms: number): 'expired' | 'retention' | null {
  const expires_at = expiresAtMs(record)
  if (expires_at !== null && expires_at <= now_ms) return 'expired'
  return record.payload === null ? 'retention' : null
}

function gap(record: EventRecord, from_device_seq: number, reason: GapReason): Received {
  const { stream_id, device_id } = record
  return { is: 'gap', stream_id, device_id, from_device_seq, reason, position: record.server?.position ?? 0 }
}

function alarm(record: EventRecord, reason: AlarmReason): Received {
  return { is: 'alarm', position: record.server?.position ?? 0, device_id: record.device_id, stream_id: record.stream_id, reason }
}

/** Awaits a stage as a whole; answers that are there already cost no promise. */
function settle<T>(answers: Awaitable<T>[]): Awaitable<T[]> {
  return answers.some((answer) => answer instanceof Promise) ? Promise.all(answers) : (answers as T[])
}

function at<T>(list: readonly T[], i: number): T {
  const item = list[i]
  if (item === undefined) throw new TypeError('the lists of a page have one length')
  return item
}
