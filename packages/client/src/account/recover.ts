/**
 * Back into an account without any of its devices (protocol.md §10): words → root keys → read the log as the root → verify → open
 * the root's box → a `recover` entry that brings this device in and revokes all others. The words are not kept, and the root's keys are
 * wiped whatever becomes of it. What was begun and broken off is simply done again: the next recovery revokes the device of the one before.
 */
import {
  buildEntry,
  createAssertion,
  createDeviceKeys,
  decodeWireEntry,
  deriveRootKeys,
  type DeviceLog,
  type DeviceType,
  equalBytes,
  ERROR,
  type ErrorCode,
  fromBase64url,
  givenDeviceName,
  introduceDevice,
  openEpochKey,
  type RootKeys,
  SealpostError,
  toBase64url,
  type WireEntry,
  wordsToRecoverySeed,
  parseServerUrl,
} from '@sealpost/protocol'
import { addRow, CREATE_MS, expectEmpty, otherKey, toIdentity } from './account.ts'
import { FIRST_TRIES_MS, openContact } from './contact.ts'
import type { Home, Identity, LogRow } from '../ports.ts'
import { createServerClock } from '../connection/server-clock.ts'
import { throwIfAborted } from '../signal.ts'

export type RecoverOptions = {
  home: Home
  server: string
  name: string
  device_type: DeviceType
  /** 24 words. */
  words: string
  signal?: AbortSignal
}

/** Others may change the log meanwhile; none of them is in it afterwards. */
const TRIES_MAX = 8

/** `history`: whether what was sent before can be read. */
export async function recoverAccount(
  o: RecoverOptions,
): Promise<{ identity: Identity; server_key: string; pinned: boolean; history: boolean }> {
  await expectEmpty(o.home)
  const server = parseServerUrl(o.server)
  const recovery_seed = await wordsToRecoverySeed(o.words)
  const root = await deriveRootKeys(o.home.crypto, recovery_seed).finally(() => recovery_seed.fill(0))
  try {
    return await recoverAs(root, server, o)
  } catch (error) {
    throw explained(error)
  } finally {
    for (const secret of [root.sign_seed, root.kem_seed]) secret.fill(0)
  }
}

const SAYS: Partial<Record<ErrorCode, string>> = {
  not_found: 'there is no account of these recovery words on this server; nothing was changed',
  account_gone: 'the account of these recovery words was deleted on this server, for ever; nothing was changed',
}

function explained(error: unknown): unknown {
  const says = error instanceof SealpostError ? SAYS[error.code] : undefined
  return error instanceof SealpostError && says !== undefined ? new SealpostError(error.code, says, { cause: error }) : error
}

async function recoverAs(
  root: RootKeys,
  { url, pin }: ReturnType<typeof parseServerUrl>,
  o: RecoverOptions,
): ReturnType<typeof recoverAccount> {
  const { home, signal } = o
  const { crypto, clock } = home
  const name = givenDeviceName(o.name)
  const time = createServerClock(clock)
  const { rest, again } = openContact(home, url, time)
  const { server_key } = await again(clock.mono() + FIRST_TRIES_MS, signal, () => rest.readServer(signal))
  if (pin !== null && !equalBytes(pin, server_key)) throw otherKey(server_key, pin)
  const { user_id } = root
  const aud = toBase64url(server_key)
  const until = clock.mono() + CREATE_MS
  const assert = (purpose: string, from_log_seq?: number) =>
    createAssertion(
      crypto,
      root.sign_seed,
      { purpose, aud, user_id, signer: 'root', ...(from_log_seq === undefined ? {} : { from_log_seq }) },
      time.now(),
    )

  const keys = await createDeviceKeys(crypto)
  const device = await introduceDevice(crypto, user_id, keys, name, o.device_type)
  const identity = toIdentity(keys, { user_id, name, device_type: o.device_type, server_url: url, server_key }, clock)
  const rows: LogRow[] = []
  let log: DeviceLog | null = null
  let newest: WireEntry | null = null

  async function readLog(): Promise<DeviceLog> {
    for (let more = true; more; ) {
      const page = await again(until, signal, async () => rest.readLog(await assert('log-read', rows.length), signal))
      for (const wire of page.entries) {
        // its boxes are the root's, not this device's
        log = await addRow(crypto, time, identity, log, { ...wire, box: null }, rows)
        newest = wire
      }
      more = page.has_more && page.entries.length > 0
    }
    if (log === null) throw new SealpostError('not_found', ERROR.not_found)
    return log
  }

  for (let tries = 0; tries < TRIES_MAX; tries++) {
    throwIfAborted(signal)
    const current: DeviceLog = await readLog()
    const previous = await openRootBox(home, root, current, newest)
    const signer = { id: 'root', seed: root.sign_seed }
    const made = await buildEntry(crypto, current, user_id, signer, { type: 'recover', device }, previous, time.now())
    const entry = { body: toBase64url(made.entry.body), sig: toBase64url(made.entry.sig) }
    try {
      await again(until, signal, async () => rest.appendLog({ ...entry, boxes: made.boxes, proof: await assert('log') }, signal))
    } catch (error) {
      if (error instanceof SealpostError && error.code === 'log_conflict') continue
      throw error
    }
    const box = made.boxes[keys.device_id]
    const { log_seq, entry_hash, epoch_key } = made
    const own = { ...decodeWireEntry(entry), log_seq, entry_hash, epoch_key, first_seen: time.now() }
    await home.store.createIdentity(identity, [...rows, { ...own, box: box === undefined ? null : fromBase64url(box) }])
    return { identity, server_key: aud, pinned: pin !== null, history: previous !== null }
  }
  throw new SealpostError('log_conflict', 'another device changes the device list all the time; try again')
}

/** The key of the newest epoch. Null: its box does not open, and older events stay closed. */
async function openRootBox(home: Home, root: RootKeys, log: DeviceLog, newest: WireEntry | null): Promise<Uint8Array | null> {
  const box = newest?.box ?? null
  if (box === null) return null
  try {
    return await openEpochKey(home.crypto, log, log.log_seq, 'root', root.kem_seed, fromBase64url(box, 1168))
  } catch (error) {
    if (error instanceof SealpostError) return null
    throw error
  }
}
