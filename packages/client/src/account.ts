/**
 * How a device comes into an account (protocol.md §10): a new account with its first device, or a pairing. Both end with identity
 * and verified log in the store, in one write; before that nothing of this device is kept.
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
  fromBase64url,
  introduceDevice,
  joinFitsOffer,
  LIMITS,
  openSlot,
  type PairingContent,
  type PairingKeys,
  type PairingSlot,
  recoverySeedToWords,
  revealFitsOffer,
  safeDeviceName,
  sealSlot,
  SealpostError,
  toBase64url,
  verifyEntry,
  verifyIntroduction,
  type WireEntry,
  commitNonce,
} from '@sealpost/protocol'
import type { Member } from './member.ts'
import type { Clock, Home, Identity, LogRow } from './ports.ts'
import { createRest, type Rest } from './rest.ts'
import { parseServerUrl } from './server-url.ts'
import { throwIfAborted } from './signal.ts'

export type ShownPhrase = Pick<CheckPhrase, 'emoji' | 'names'>

export type CreateOptions = { home: Home; server: string; name: string; device_type: DeviceType; invite?: string; signal?: AbortSignal }

/** A new account on that server. The words are the only recovery; they are not kept. */
export async function createAccount(
  o: CreateOptions,
): Promise<{ identity: Identity; recovery_words: string; server_key: string; pinned: boolean }> {
  const { home, signal } = o
  const { crypto, clock } = home
  await expectEmpty(home)
  const { url, pin } = parseServerUrl(o.server)
  const rest = createRest(home.http, url)
  const { server_key } = await rest.readServer(signal)
  if (pin !== null && !equalBytes(pin, server_key)) throw otherKey(server_key, pin)

  const recovery_seed = crypto.random(32)
  const root = await deriveRootKeys(crypto, recovery_seed)
  const keys = await createDeviceKeys(crypto)
  const name = safeDeviceName(o.name)
  const device = await introduceDevice(crypto, root.user_id, keys, name, o.device_type)
  const signer = { id: 'root', seed: root.sign_seed }
  const made = await buildEntry(
    crypto,
    null,
    root.user_id,
    signer,
    { type: 'genesis', root_kem_pub: root.kem_pub, device },
    null,
    clock.now(),
  )
  const entry = { body: toBase64url(made.entry.body), sig: toBase64url(made.entry.sig) }
  const proof = await createAssertion(
    crypto,
    keys.sign_seed,
    { purpose: 'log', aud: toBase64url(server_key), user_id: root.user_id, signer: keys.device_id },
    clock.now(),
  )
  throwIfAborted(signal)
  await rest.appendLog({ ...entry, boxes: made.boxes, proof, ...(o.invite === undefined ? {} : { invite: o.invite }) }, signal)

  const recovery_words = await recoverySeedToWords(recovery_seed)
  const identity = toIdentity(keys, { user_id: root.user_id, name, device_type: o.device_type, server_url: url, server_key }, clock)
  const box = made.boxes[keys.device_id]
  const row: LogRow = {
    ...made.entry,
    log_seq: made.log_seq,
    entry_hash: made.entry_hash,
    box: box === undefined ? null : fromBase64url(box),
    epoch_key: made.epoch_key,
    first_seen: clock.now(),
  }
  await home.store.createIdentity(identity, [row])
  for (const secret of [recovery_seed, root.sign_seed, root.kem_seed]) secret.fill(0)
  return { identity, recovery_words, server_key: toBase64url(server_key), pinned: pin !== null }
}

// ---------------------------------------------------------------- pairing, the existing device (A)

export type PairOptions = {
  onCode(code: string, expires_at: number): void
  /** True when a person has seen the same phrase on both devices. */
  confirm(phrase: ShownPhrase, device: { name: string; device_type: DeviceType }): Promise<boolean>
  signal?: AbortSignal
}

/** Shows a code, waits for the new device, adds it after the phrase was confirmed. Returns its device_id. */
export async function pairDevice(home: Home, identity: Identity, member: Member, o: PairOptions): Promise<string> {
  const { crypto, clock } = home
  const { signal } = o
  const rest = createRest(home.http, identity.server_url)
  const now = (): number => clock.now() + member.status.clock_offset
  const code = createPairingCode(crypto)
  const keys = await derivePairingKeys(crypto, code)
  const nonce = crypto.random(32)
  const expires_at = now() + LIMITS.pairingMs
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
    const claims = { purpose: 'token', aud: toBase64url(identity.server_key), user_id: identity.user_id, signer: identity.device_id }
    const token = await rest.createToken(await createAssertion(crypto, identity.sign_seed, claims, now()), signal)
    await rest.putSlot(keys.mailbox_id, slot, box, token, signal)
  }
  await put('offer', offer)
  o.onCode(code, expires_at)

  const joinBox = await awaitSlot(rest, clock, keys, 'join', expires_at - member.status.clock_offset, signal)
  if (joinBox === null) throw new SealpostError('expired', 'no device joined with this code within 10 minutes; run pair again')
  const join = await openSlot(crypto, keys, 'join', joinBox)
  if (!(await joinFitsOffer(crypto, offer, join)) || !(await verifyIntroduction(crypto, identity.user_id, join.device)))
    throw new SealpostError('invalid_signature', 'what joined does not hold the keys that it shows; nothing was added')
  await put('reveal', await sealSlot(crypto, keys, 'reveal', { nonce: toBase64url(nonce) }))
  const device: DeviceIntroduction = { ...join.device, name: safeDeviceName(join.device.name) }
  const { emoji, names } = await checkPhrase(crypto, offer, joinBox, nonce)
  if (!(await o.confirm({ emoji, names }, { name: device.name, device_type: device.device_type }))) throw mismatch()
  throwIfAborted(signal)
  const added = await member.addDevice(device, signal)
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
  const { url, pin } = parseServerUrl(o.server)
  const rest = createRest(home.http, url)
  const pairing = await derivePairingKeys(crypto, o.code)
  const offerBox = await rest.readSlot(pairing.mailbox_id, 'offer', 0, signal)
  if (offerBox === null)
    throw new SealpostError('invalid_code', 'no device waits with this code on this server; codes end after 10 minutes')
  const offer = await openSlot(crypto, pairing, 'offer', offerBox)
  const server_key = fromBase64url(offer.server_key, 32)
  if (pin !== null && !equalBytes(pin, server_key)) throw otherKey(server_key, pin)

  const keys = await createDeviceKeys(crypto)
  const name = safeDeviceName(o.name)
  const device = await introduceDevice(crypto, offer.user_id, keys, name, o.device_type)
  const offer_hash = toBase64url(await crypto.sha256(offerBox))
  const joinBox = await sealSlot(crypto, pairing, 'join', { v: 1, offer_hash, device })
  await rest.putSlot(pairing.mailbox_id, 'join', joinBox, null, signal)

  const revealBox = await awaitSlot(rest, clock, pairing, 'reveal', offer.expires_at, signal)
  if (revealBox === null) throw new SealpostError('expired', 'the other device did not answer; run pair there again')
  const reveal = await openSlot(crypto, pairing, 'reveal', revealBox)
  if (!(await revealFitsOffer(crypto, offer, reveal))) throw mismatch()
  const { emoji, names } = await checkPhrase(crypto, offerBox, joinBox, fromBase64url(reveal.nonce, 32))
  if (!(await o.confirm({ emoji, names }))) throw mismatch()

  const doneBox = await awaitSlot(rest, clock, pairing, 'done', offer.expires_at, signal)
  const done = doneBox === null ? null : await openSlot(crypto, pairing, 'done', doneBox)
  const joined = { user_id: offer.user_id, name, device_type: o.device_type, server_url: url, server_key }
  const identity = toIdentity(keys, joined, clock)
  const rows = await readWholeLog(home, rest, identity, offer, done, keys, signal)
  await home.store.createIdentity(identity, rows)
  return identity
}

/** The log from genesis, verified under the offer's account, with this device in it and the offer's head among its entries. */
async function readWholeLog(
  home: Home,
  rest: Rest,
  identity: Identity,
  offer: PairingContent['offer'],
  done: PairingContent['done'] | null,
  keys: DeviceKeys,
  signal: AbortSignal | undefined,
): Promise<LogRow[]> {
  const { crypto, clock } = home
  const rows: LogRow[] = []
  let log: DeviceLog | null = null
  for (let more = true; more; ) {
    const claims = {
      purpose: 'log-read',
      aud: toBase64url(identity.server_key),
      user_id: identity.user_id,
      signer: identity.device_id,
      from_log_seq: rows.length,
    }
    const page = await rest.readLog(await createAssertion(crypto, identity.sign_seed, claims, clock.now()), signal)
    for (const wire of page.entries) {
      log = await addRow(crypto, clock, identity, log, wire, rows)
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
    throw new SealpostError('check_phrase_mismatch', 'the other device did not add this one; run pair there again')
  const offered = log.epochs[offer.log_seq]
  const added = done === null ? null : log.epochs[done.log_seq]
  if (offered === undefined || !equalBytes(offered.entry_hash, fromBase64url(offer.log_head, 32)) || isOther(added, done))
    throw new SealpostError('log_fork', 'the server shows another device list than the device that was paired with; nothing was kept')
  return rows
}

function isOther(added: { entry_hash: Uint8Array } | null | undefined, done: PairingContent['done'] | null): boolean {
  if (done === null) return false
  return added === null || added === undefined || !equalBytes(added.entry_hash, fromBase64url(done.entry_hash, 32))
}

async function addRow(
  crypto: Crypto,
  clock: Clock,
  identity: Identity,
  log: DeviceLog | null,
  wire: WireEntry,
  rows: LogRow[],
): Promise<DeviceLog> {
  const entry = decodeWireEntry(wire)
  const verified = await verifyEntry(crypto, log, identity.user_id, entry)
  if (!verified.ok) throw new SealpostError(verified.code, `the device list of the server does not verify: ${verified.reason}`)
  const box = wire.box === null ? null : fromBase64url(wire.box, 1168)
  rows.push({ ...entry, log_seq: rows.length, entry_hash: verified.entry_hash, box, epoch_key: null, first_seen: clock.now() })
  return verified.log
}

// ---------------------------------------------------------------- shared

/** Long-polls a slot until it is filled; null when `until` (this device's clock) has passed. */
async function awaitSlot(
  rest: Rest,
  clock: Clock,
  keys: PairingKeys,
  slot: PairingSlot,
  until: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | null> {
  for (;;) {
    throwIfAborted(signal)
    const left = Math.floor((until - clock.now()) / 1000)
    if (left <= 0) return null
    const box = await rest.readSlot(keys.mailbox_id, slot, Math.min(LIMITS.pairingWaitSeconds, left), signal)
    if (box !== null) return box
  }
}

async function expectEmpty(home: Home): Promise<void> {
  if ((await home.store.readIdentity()) !== null)
    throw new SealpostError('already_paired', 'this home holds a device already; use another folder (--home) for another device')
}

function toIdentity(
  keys: DeviceKeys,
  of: Pick<Identity, 'user_id' | 'name' | 'device_type' | 'server_url' | 'server_key'>,
  clock: Clock,
): Identity {
  return { ...of, device_id: keys.device_id, sign_seed: keys.sign_seed, kem_seed: keys.kem_seed, created_at: clock.now() }
}

function otherKey(found: Uint8Array, expected: Uint8Array): SealpostError {
  const tail = (key: Uint8Array): string => `…${toBase64url(key).slice(-4)}`
  return new SealpostError(
    'server_identity',
    `the server's key is not the expected one (${tail(found)}, expected ${tail(expected)}); nothing was sent`,
  )
}

function mismatch(): SealpostError {
  return new SealpostError('check_phrase_mismatch', 'the check phrases were not confirmed to be the same; nothing was added')
}
