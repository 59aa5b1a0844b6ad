/**
 * How a device comes into an account (protocol.md §10): a new account with its first device, or a pairing. Both end with identity
 * and verified log in the store, in one write; before that nothing of this device is kept. The recovery words are handed out
 * before the account can exist. What fails in passing is tried again, up to the end of the pairing.
 */
import {
  buildEntry,
  checkPhrase,
  type CheckPhrase,
  createAssertion,
  createDeviceKeys,
  createPairingCode,
  type Crypto,
  decodeWireEntry,
  deriveRootKeys,
  type DeviceIntroduction,
  type DeviceLog,
  type DeviceKeys,
  derivePairingKeys,
  type DeviceType,
  equalBytes,
  type ErrorCode,
  fromBase64url,
  givenDeviceName,
  introduceDevice,
  joinFitsOffer,
  LIMITS,
  openSlot,
  type PairingContent,
  type PairingSlot,
  recoverySeedToWords,
  revealFitsOffer,
  type RootKeys,
  safeDeviceName,
  sealSlot,
  SealpostError,
  toBase64url,
  verifyEntry,
  verifyIntroduction,
  type WireEntry,
  commitNonce,
  keyTail,
  parseServerUrl,
} from '@sealpost/protocol'
import { awaitSlot, FIRST_TRIES_MS, isFinal, openContact, putSlot } from './contact.ts'
import type { AppendedEntry, Member } from '../home/member.ts'
import type { Clock, Home, Identity, LogRow } from '../ports.ts'
import type { Rest } from '../connection/rest.ts'
import { createServerClock, type ServerClock } from '../connection/server-clock.ts'
import { throwIfAborted } from '../signal.ts'

/** For the account to be made. */
export const CREATE_MS = 20_000
/** For the log, once this device may be in it. */
const LAST_MS = 30_000
/** Answers of the server: nothing was made. Any other failure leaves that open. */
const REFUSED: ReadonlySet<ErrorCode> = new Set([
  'invalid_request',
  'invalid_signature',
  'invalid_token',
  'invalid_entry',
  'unknown_version',
  'unauthorized',
  'forbidden',
  'not_found',
  'expired',
  'signup_closed',
  'account_gone',
  'name_taken',
  'log_conflict',
  'rate_limited',
])

export type ShownPhrase = Pick<CheckPhrase, 'emoji' | 'names'>

export type CreateOptions = {
  home: Home
  server: string
  name: string
  device_type: DeviceType
  invite?: string
  /** Awaited before the account is made: from then on losing the words could lose the account. What it throws ends it all. */
  onWords?(words: string): Promise<void> | void
  /** The server surely made no account: the words of `onWords` are of no use. Not called while that is not known. */
  onRefused?(): Promise<void> | void
  signal?: AbortSignal
}

/** A new account on that server. The words are the only recovery; they are not kept. */
export async function createAccount(
  o: CreateOptions,
): Promise<{ identity: Identity; recovery_words: string; server_key: string; pinned: boolean }> {
  const { crypto } = o.home
  await expectEmpty(o.home)
  const recovery_seed = crypto.random(32)
  const root = await deriveRootKeys(crypto, recovery_seed)
  try {
    return await createAs(root, recovery_seed, o)
  } finally {
    for (const secret of [recovery_seed, root.sign_seed, root.kem_seed]) secret.fill(0)
  }
}

async function createAs(root: RootKeys, recovery_seed: Uint8Array, o: CreateOptions): ReturnType<typeof createAccount> {
  const { home, signal } = o
  const { crypto, clock } = home
  const name = givenDeviceName(o.name)
  const { url, pin } = parseServerUrl(o.server)
  const time = createServerClock(clock)
  const { rest, again } = openContact(home, url, time)
  const { server_key } = await again(clock.mono() + FIRST_TRIES_MS, signal, () => rest.readServer(signal))
  if (pin !== null && !equalBytes(pin, server_key)) throw otherKey(server_key, pin)

  const keys = await createDeviceKeys(crypto)
  const device = await introduceDevice(crypto, root.user_id, keys, name, o.device_type)
  const signer = { id: 'root', seed: root.sign_seed }
  const made = await buildEntry(
    crypto,
    null,
    root.user_id,
    signer,
    { type: 'genesis', root_kem_pub: root.kem_pub, device },
    null,
    time.now(),
  )
  const entry = { body: toBase64url(made.entry.body), sig: toBase64url(made.entry.sig) }
  const recovery_words = await recoverySeedToWords(recovery_seed)
  await o.onWords?.(recovery_words)
  let unsure = false
  try {
    await again(clock.mono() + CREATE_MS, signal, async () => {
      throwIfAborted(signal)
      const claims = { purpose: 'log', aud: toBase64url(server_key), user_id: root.user_id, signer: keys.device_id }
      const proof = await createAssertion(crypto, keys.sign_seed, claims, time.now())
      // the same entry again is fine: an answer may have been lost
      try {
        await rest.appendLog({ ...entry, boxes: made.boxes, proof, ...(o.invite === undefined ? {} : { invite: o.invite }) }, signal)
      } catch (error) {
        unsure ||= !(error instanceof SealpostError && REFUSED.has(error.code))
        throw error
      }
    })
  } catch (error) {
    if (unsure) throw notConfirmed(error)
    await o.onRefused?.()
    throw error
  }
  const identity = toIdentity(keys, { user_id: root.user_id, name, device_type: o.device_type, server_url: url, server_key }, clock)
  const box = made.boxes[keys.device_id]
  const row: LogRow = {
    ...made.entry,
    log_seq: made.log_seq,
    entry_hash: made.entry_hash,
    box: box === undefined ? null : fromBase64url(box),
    epoch_key: made.epoch_key,
    first_seen: time.now(),
  }
  await home.store.createIdentity(identity, [row])
  return { identity, recovery_words, server_key: toBase64url(server_key), pinned: pin !== null }
}

// ---------------------------------------------------------------- pairing, the existing device (A)

export type PairOptions = {
  /** `expires_at`: ms, the clock of this device. */
  onCode(code: string, expires_at: number): void
  /** True when a person has seen the same phrase on both devices. */
  confirm(phrase: ShownPhrase, device: { name: string; device_type: DeviceType }): Promise<boolean>
  signal?: AbortSignal
}

/** Shows a code, waits for the new device, adds it after the phrase was confirmed. Returns its device_id. The offer names the newest entry of the log. */
export async function pairDevice(home: Home, member: Member, o: PairOptions): Promise<string> {
  const { crypto, clock } = home
  const { signal } = o
  const { time, identity } = member
  const { rest, again } = openContact(home, identity.server_url, time)
  await again(clock.mono() + FIRST_TRIES_MS, signal, () => rest.readServer(signal))
  await member.readLog(signal)
  const code = createPairingCode(crypto)
  const keys = await derivePairingKeys(crypto, code)
  const nonce = crypto.random(32)
  const expires_at = time.now() + LIMITS.pairingMs
  const until = clock.mono() + LIMITS.pairingMs
  const { log } = member.account
  const offer = await sealSlot(crypto, keys, 'offer', {
    v: 1,
    user_id: identity.user_id,
    log_seq: log.log_seq,
    log_head: toBase64url(log.log_head),
    server_key: toBase64url(identity.server_key),
    commit: toBase64url(await commitNonce(crypto, nonce)),
    expires_at,
  })
  const put = async (slot: PairingSlot, box: Uint8Array): Promise<void> => {
    const token = await again(until, signal, async () => {
      const claims = { purpose: 'token', aud: toBase64url(identity.server_key), user_id: identity.user_id, signer: identity.device_id }
      return (await rest.createToken(await createAssertion(crypto, identity.sign_seed, claims, time.now()), signal)).access_token
    })
    await again(until, signal, () => putSlot(rest, keys, slot, box, token, signal))
  }
  await put('offer', offer)
  o.onCode(code, clock.now() + LIMITS.pairingMs)

  const joinBox = await awaitSlot({ rest, again }, clock, keys, 'join', until, signal)
  if (joinBox === null) throw new SealpostError('expired', 'no device joined with this code within 10 minutes')
  const join = await openSlot(crypto, keys, 'join', joinBox)
  if (!(await joinFitsOffer(crypto, offer, join)) || !(await verifyIntroduction(crypto, identity.user_id, join.device)))
    throw new SealpostError('invalid_signature', 'what joined does not hold the keys that it shows; nothing was added')
  await put('reveal', await sealSlot(crypto, keys, 'reveal', { nonce: toBase64url(nonce) }))
  const device: DeviceIntroduction = { ...join.device, name: safeDeviceName(join.device.name) }
  const { emoji, names } = await checkPhrase(crypto, offer, joinBox, nonce)
  const add = async (): Promise<AppendedEntry> => {
    if (!(await o.confirm({ emoji, names }, { name: device.name, device_type: device.device_type }))) throw mismatch()
    throwIfAborted(signal)
    return again(until, signal, () => member.addDevice(device, signal))
  }
  const added = await add().catch(async (error: unknown) => {
    // a log that stands where the offer saw it tells the new device that it waits in vain
    const stands = { log_seq: log.log_seq, entry_hash: toBase64url(log.log_head) }
    if (isFinal(error)) await put('done', await sealSlot(crypto, keys, 'done', stands)).catch(() => undefined)
    if (error instanceof SealpostError && error.code === 'name_taken')
      throw new SealpostError('name_taken', `another device of this account is called "${device.name}"; nothing was added`, {
        cause: error,
      })
    throw error
  })
  await put('done', await sealSlot(crypto, keys, 'done', { log_seq: added.log_seq, entry_hash: toBase64url(added.entry_hash) }))
  return device.device_id
}

// ---------------------------------------------------------------- pairing, the new device (N)

export type JoinOptions = {
  home: Home
  server: string
  code: string
  name: string
  device_type: DeviceType
  confirm(phrase: ShownPhrase): Promise<boolean>
  signal?: AbortSignal
}

export async function joinAccount(o: JoinOptions): Promise<Identity> {
  const { home, signal } = o
  const { crypto, clock } = home
  await expectEmpty(home)
  const name = givenDeviceName(o.name)
  const { url, pin } = parseServerUrl(o.server)
  const time = createServerClock(clock)
  const { rest, again } = openContact(home, url, time)
  const pairing = await derivePairingKeys(crypto, o.code)
  const offerBox = await again(clock.mono() + FIRST_TRIES_MS, signal, () => rest.readSlot(pairing.mailbox_id, 'offer', 0, signal))
  if (offerBox === null)
    throw new SealpostError('invalid_code', 'no device waits with this code on this server; codes end after 10 minutes')
  // the end by this device's own count: its clock may be wrong, and the mailbox lives no longer than that
  const until = clock.mono() + LIMITS.pairingMs
  const offer = await openSlot(crypto, pairing, 'offer', offerBox)
  const server_key = fromBase64url(offer.server_key, 32)
  if (pin !== null && !equalBytes(pin, server_key)) throw otherKey(server_key, pin)

  const keys = await createDeviceKeys(crypto)
  const device = await introduceDevice(crypto, offer.user_id, keys, name, o.device_type)
  const offer_hash = toBase64url(await crypto.sha256(offerBox))
  const joinBox = await sealSlot(crypto, pairing, 'join', { v: 1, offer_hash, device })
  await again(until, signal, () => putSlot(rest, pairing, 'join', joinBox, null, signal))

  const revealBox = await awaitSlot({ rest, again }, clock, pairing, 'reveal', until, signal)
  if (revealBox === null) throw new SealpostError('expired', 'the other device did not answer within 10 minutes')
  const reveal = await openSlot(crypto, pairing, 'reveal', revealBox)
  if (!(await revealFitsOffer(crypto, offer, reveal))) throw mismatch()
  const { emoji, names } = await checkPhrase(crypto, offerBox, joinBox, fromBase64url(reveal.nonce, 32))
  if (!(await o.confirm({ emoji, names }))) throw mismatch()

  const doneBox = await awaitSlot({ rest, again }, clock, pairing, 'done', until, signal)
  const done = doneBox === null ? null : await openSlot(crypto, pairing, 'done', doneBox)
  if (done !== null && done.log_seq <= offer.log_seq)
    throw new SealpostError('check_phrase_mismatch', 'the other device did not add this one and says why there: its name may be taken')
  const joined = { user_id: offer.user_id, name, device_type: o.device_type, server_url: url, server_key }
  const identity = toIdentity(keys, joined, clock)
  const read: ReadLog = (from_log_seq) =>
    again(until + LAST_MS, signal, async () => {
      const claims = {
        purpose: 'log-read',
        aud: toBase64url(server_key),
        user_id: identity.user_id,
        signer: identity.device_id,
        from_log_seq,
      }
      return rest.readLog(await createAssertion(crypto, identity.sign_seed, claims, time.now()), signal)
    })
  const rows = await readWholeLog(home, read, identity, offer, done, keys, time).catch((error: unknown) => {
    if (done !== null || !(error instanceof SealpostError) || error.code !== 'unauthorized') throw error
    throw new SealpostError('expired', 'the other device did not add this one within 10 minutes', { cause: error })
  })
  await home.store.createIdentity(identity, rows)
  return identity
}

type ReadLog = (from_log_seq: number) => ReturnType<Rest['readLog']>

/** The log from genesis, verified under the offer's account, with this device in it and the offer's head among its entries. */
async function readWholeLog(
  home: Home,
  read: ReadLog,
  identity: Identity,
  offer: PairingContent['offer'],
  done: PairingContent['done'] | null,
  keys: DeviceKeys,
  time: ServerClock,
): Promise<LogRow[]> {
  const { crypto } = home
  const rows: LogRow[] = []
  let log: DeviceLog | null = null
  for (let more = true; more; ) {
    const page = await read(rows.length)
    for (const wire of page.entries) {
      log = await addRow(crypto, time, identity, log, wire, rows)
    }
    more = page.has_more && page.entries.length > 0
  }
  const me = log?.devices.get(identity.device_id)
  if (
    log === null ||
    me === undefined ||
    me.revoked !== null ||
    !equalBytes(me.sign_pub, keys.sign_pub) ||
    !equalBytes(me.kem_pub, keys.kem_pub)
  )
    throw new SealpostError('check_phrase_mismatch', 'the other device did not add this one')
  const offered = log.epochs[offer.log_seq]
  if (
    offered === undefined ||
    !equalBytes(offered.entry_hash, fromBase64url(offer.log_head, 32)) ||
    (done !== null && !isEntry(log, me.added, done))
  )
    throw new SealpostError('log_fork', 'the server shows another device list than the device that was paired with; nothing was kept')
  return rows
}

/** Whether `done` names the entry that added this device. */
function isEntry(log: DeviceLog, added: number, done: PairingContent['done']): boolean {
  const entry = log.epochs[added]
  return done.log_seq === added && entry !== undefined && equalBytes(entry.entry_hash, fromBase64url(done.entry_hash, 32))
}

export async function addRow(
  crypto: Crypto,
  time: ServerClock,
  identity: Identity,
  log: DeviceLog | null,
  wire: WireEntry,
  rows: LogRow[],
): Promise<DeviceLog> {
  const entry = decodeWireEntry(wire)
  const verified = await verifyEntry(crypto, log, identity.user_id, entry)
  if (!verified.ok) throw new SealpostError(verified.code, `the device list of the server does not verify: ${verified.reason}`)
  const box = wire.box === null ? null : fromBase64url(wire.box, 1168)
  rows.push({ ...entry, log_seq: rows.length, entry_hash: verified.entry_hash, box, epoch_key: null, first_seen: time.now() })
  return verified.log
}

// ---------------------------------------------------------------- shared

export async function expectEmpty(home: Home): Promise<void> {
  if ((await home.store.readIdentity()) !== null) throw new SealpostError('already_paired', 'this home holds a device already')
}

export function toIdentity(
  keys: DeviceKeys,
  of: Pick<Identity, 'user_id' | 'name' | 'device_type' | 'server_url' | 'server_key'>,
  clock: Clock,
): Identity {
  return { ...of, device_id: keys.device_id, sign_seed: keys.sign_seed, kem_seed: keys.kem_seed, created_at: clock.now() }
}

export function otherKey(found: Uint8Array, expected: Uint8Array): SealpostError {
  return new SealpostError(
    'server_identity',
    `the server's key is not the expected one (${keyTail(found)}, expected ${keyTail(expected)}); nothing was sent`,
  )
}

function notConfirmed(cause: unknown): SealpostError {
  const known = cause instanceof SealpostError ? cause : new SealpostError('internal', 'a failure inside', { cause })
  return new SealpostError(known.code, `${known.message}; whether the account was made is not known: keep the recovery words`, { cause })
}

function mismatch(): SealpostError {
  return new SealpostError('check_phrase_mismatch', 'the check phrases were not confirmed to be the same; nothing was added')
}
