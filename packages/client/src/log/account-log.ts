/**
 * The device log of this account as this device knows it, and the epoch keys (protocol.md §2). Every entry goes through the
 * verifier and to disk before it counts; an entry at a known `log_seq` must be the known one (`log_fork` otherwise).
 *
 * Invariant: `log` in memory is what the store holds. Calls that change it run one after another.
 */
import {
  type Bytes,
  type Crypto,
  decodeWireEntry,
  type DeviceLog,
  equalBytes,
  eventKey,
  fromBase64url,
  hashEntry,
  type LogBody,
  type LogEntry,
  openEpochKey,
  parseJson,
  previousEpochKey,
  SealpostError,
  verifyEntry,
  type WireEntry,
} from '@sealpost/protocol'
import type { DeviceStore, Identity, LogRow } from '../ports.ts'
import { createMutex } from '../mutex.ts'
import type { ServerClock } from '../connection/server-clock.ts'

export type AppliedEntry = { log_seq: number; body: LogBody }

/** `missing`: the entries begin above what is known; the ones between are needed first. */
export type Applied = { applied: AppliedEntry[]; missing: boolean }

/** What sealing needs of the current epoch. */
export type SealingKey = { epoch: number; key: Bytes; first_seen: number }

export type AccountLog = {
  readonly log: DeviceLog
  /** Verifies, stores and takes over entries. Throws `log_fork`, `unknown_version`, `invalid_entry`. */
  apply(entries: readonly WireEntry[]): Promise<Applied>
  /** Content keys of these epochs, opened where that is possible; the answers are then in `epochKey`. */
  openKeys(epochs: Iterable<number>): Promise<void>
  /** Null: closed to this device, or not asked for by `openKeys`. */
  epochKey(epoch: number): Bytes | null
  /** Null when this device cannot open the current epoch (`epoch_unreadable`). */
  sealingKey(): Promise<SealingKey | null>
  /** Entries from here on as they are, for the repair of a restored server. */
  readonly rows: readonly LogRow[]
  deviceName(device_id: string): string
  /** Takes over what another process of this home has stored. */
  refresh(): Promise<void>
}

export async function openAccountLog(
  crypto: Crypto,
  store: DeviceStore,
  time: Pick<ServerClock, 'now'>,
  identity: Identity,
): Promise<AccountLog> {
  const rows: LogRow[] = []
  let log: DeviceLog | null = null
  let sealing: SealingKey | null = null
  const keys = new Map<number, Bytes>()
  const unreadable = new Set<number>()
  const mutex = createMutex()

  async function load(): Promise<void> {
    for (const row of (await store.readLog()).slice(rows.length)) {
      const verified = await verifyEntry(crypto, log, identity.user_id, row)
      if (!verified.ok) throw new SealpostError('state_damaged', 'the stored device log does not verify')
      log = verified.log
      rows.push(row)
      if (row.epoch_key !== null) keys.set(row.log_seq, row.epoch_key)
    }
  }

  function known(): DeviceLog {
    if (log === null) throw new SealpostError('state_damaged', 'the stored device log is empty')
    return log
  }

  async function applyAll(entries: readonly WireEntry[]): Promise<Applied> {
    const applied: AppliedEntry[] = []
    const fresh: LogRow[] = []
    for (const wire of entries) {
      const entry = decodeWireEntry(wire)
      const log_seq = logSeqOf(entry)
      const same = log_seq === null ? undefined : rows[log_seq]
      if (same !== undefined) {
        if (!equalBytes(same.entry_hash, await hashEntry(crypto, entry.body))) throw forked()
        continue
      }
      if (log_seq !== null && log_seq > known().log_seq + 1) return { applied, missing: true }
      const verified = await verifyEntry(crypto, known(), identity.user_id, entry)
      if (!verified.ok) {
        // the next number on another predecessor: two histories of one account
        if (verified.code === 'log_conflict') throw forked()
        throw new SealpostError(verified.code, `the server sent an entry that does not verify: ${verified.reason}`)
      }
      const box = wire.box === null ? null : fromBase64url(wire.box, 1168)
      const row: LogRow = {
        ...entry,
        log_seq: verified.body.log_seq,
        entry_hash: verified.entry_hash,
        box,
        epoch_key: null,
        first_seen: time.now(),
      }
      row.epoch_key = await openBox(verified.log, row)
      await store.appendLog([row])
      log = verified.log
      sealing = null
      rows.push(row)
      fresh.push(row)
      if (row.epoch_key !== null) keys.set(row.log_seq, row.epoch_key)
      applied.push({ log_seq: row.log_seq, body: verified.body })
    }
    return { applied, missing: false }
  }

  async function openBox(at: DeviceLog, row: LogRow): Promise<Bytes | null> {
    if (row.box === null || unreadable.has(row.log_seq)) return null
    try {
      return await openEpochKey(crypto, at, row.log_seq, identity.device_id, identity.kem_seed, row.box)
    } catch (error) {
      if (!(error instanceof SealpostError)) throw error
      unreadable.add(row.log_seq)
      return null
    }
  }

  /** Own box first; else down the chain of prev_boxes from the nearest later key. */
  async function openOne(epoch: number, found: { log_seq: number; epoch_key: Bytes }[]): Promise<void> {
    if (keys.has(epoch)) return
    const row = rows[epoch]
    if (row === undefined) return
    const own = await openBox(known(), row)
    if (own !== null) return keep(epoch, own, found)
    let from = epoch + 1
    while (from < rows.length && !keys.has(from)) {
      const later = rows[from]
      const opened = later === undefined ? null : await openBox(known(), later)
      if (opened !== null) keep(from, opened, found)
      else from++
    }
    for (let n = from; n > epoch; n--) {
      const key = keys.get(n)
      const previous = key === undefined ? null : await previousEpochKey(crypto, known(), n, key)
      if (previous === null) return
      keep(n - 1, previous, found)
    }
  }

  function keep(log_seq: number, epoch_key: Bytes, found: { log_seq: number; epoch_key: Bytes }[]): void {
    keys.set(log_seq, epoch_key)
    found.push({ log_seq, epoch_key })
  }

  async function openKeys(epochs: Iterable<number>): Promise<void> {
    const found: { log_seq: number; epoch_key: Bytes }[] = []
    for (const epoch of epochs) await openOne(epoch, found)
    if (found.length > 0) await store.saveEpochKeys(found)
  }

  await load()
  known()

  return {
    get log() {
      return known()
    },
    rows,
    apply: (entries) => mutex(() => applyAll(entries)),
    openKeys: (epochs) => {
      const missing = [...new Set(epochs)].filter((epoch) => !keys.has(epoch))
      return missing.length === 0 ? Promise.resolve() : mutex(() => openKeys(missing))
    },
    epochKey: (epoch) => keys.get(epoch) ?? null,
    async sealingKey() {
      const { log_seq } = known()
      if (sealing?.epoch === log_seq) return sealing
      await mutex(() => openKeys([log_seq]))
      const secret = keys.get(log_seq)
      const row = rows[log_seq]
      if (secret === undefined || row === undefined) return null
      const key = await eventKey(crypto, secret, row.entry_hash, identity.device_id)
      sealing = { epoch: log_seq, key, first_seen: row.first_seen }
      return sealing
    },
    deviceName: (device_id) => known().devices.get(device_id)?.name ?? (device_id === 'root' ? 'the recovery words' : device_id),
    refresh: () => mutex(load),
  }
}

function logSeqOf(entry: LogEntry): number | null {
  try {
    const body = parseJson(entry.body)
    const log_seq = typeof body === 'object' && body !== null && 'log_seq' in body ? body.log_seq : null
    return Number.isSafeInteger(log_seq) ? (log_seq as number) : null
  } catch {
    return null
  }
}

function forked(): SealpostError {
  return new SealpostError(
    'log_fork',
    'the server showed two different device logs of this account; nothing more is sent. Compare the devices, then pair this device again',
  )
}
