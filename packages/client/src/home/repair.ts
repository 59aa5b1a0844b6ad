/**
 * When a server refuses this device, or knows less of its log than the device does (protocol.md §2, restored server): look
 * over REST. A revocation that verifies is taken over; entries that the server lost are posted again, with a rotation behind
 * them; everything else stays refused. Nothing is ever wiped on a close code.
 */
import { buildEntry, createAssertion, type Crypto, equalBytes, type ErrorCode, SealpostError, toBase64url } from '@sealpost/protocol'
import type { AccountLog } from '../log/account-log.ts'
import type { CheckReason } from '../connection/machine.ts'
import type { Clock, DeviceStore, Identity } from '../ports.ts'
import { followsChain, type Rest } from '../connection/rest.ts'
import { clockError, type ServerClock } from '../connection/server-clock.ts'

export type RepairPorts = {
  crypto: Crypto
  clock: Clock
  store: DeviceStore
  account: AccountLog
  identity(): Identity
  rest(): Rest
  time: ServerClock
  /** Entries were applied: this device may be among the revoked. */
  logChanged(): Promise<void>
  identityChanged(change: { server_key: Uint8Array }): void
}

/** What the machine is to do next. Throws `unreachable` when the server does not answer. */
export async function look(ports: RepairPorts, why: CheckReason): Promise<'connect' | 'later' | ErrorCode> {
  try {
    return await (why === 'identity' ? lookAtIdentity(ports) : lookAtLog(ports))
  } catch (error) {
    if (error instanceof SealpostError && error.code === 'account_gone') return 'account_gone'
    if (error instanceof SealpostError && error.code === 'expired') throw clockError(error, ports.time)
    throw error
  }
}

async function lookAtLog(ports: RepairPorts): Promise<'connect' | ErrorCode> {
  const theirs = await readTheirs(ports)
  if (ports.account.log.devices.get(ports.identity().device_id)?.revoked !== null) {
    await ports.logChanged()
    return 'device_revoked'
  }
  const known = ports.account.log.log_seq
  // it knows this device and all that this device knows, perhaps by another one since; refused again, the machine stops
  if (theirs !== null && theirs >= known) return 'connect'
  return postMissing(ports, theirs === null ? 0 : theirs + 1)
}

async function lookAtIdentity(ports: RepairPorts): Promise<'connect' | ErrorCode> {
  const identity = await ports.rest().readServer()
  const pinned = ports.identity().server_key
  // the key it names is the known one, and yet another answers the socket
  if (equalBytes(identity.server_key, pinned)) return 'server_identity'
  if (!(await followsChain(ports.crypto, pinned, identity, ports.time.now()))) return 'server_identity'
  await ports.store.updateIdentity({ server_key: identity.server_key })
  ports.identityChanged({ server_key: identity.server_key })
  return 'connect'
}

/** Highest `log_seq` of the server's log, its entries applied; null when it knows nothing of this account or device. */
async function readTheirs(ports: RepairPorts): Promise<number | null> {
  const { crypto, account } = ports
  const identity = ports.identity()
  let from = 0
  let highest: number | null = null
  for (;;) {
    const claims = {
      purpose: 'log-read',
      aud: toBase64url(identity.server_key),
      user_id: identity.user_id,
      signer: identity.device_id,
      from_log_seq: from,
    }
    const assertion = await createAssertion(crypto, identity.sign_seed, claims, ports.time.now())
    let page
    try {
      page = await ports.rest().readLog(assertion)
    } catch (error) {
      if (error instanceof SealpostError && REFUSED.has(error.code)) return highest
      throw error
    }
    await account.apply(page.entries)
    if (page.entries.length > 0) highest = from + page.entries.length - 1
    if (!page.has_more || page.entries.length === 0) return highest
    from += page.entries.length
  }
}

const REFUSED: ReadonlySet<ErrorCode> = new Set(['unauthorized', 'forbidden', 'not_found', 'invalid_signature', 'invalid_token'])

/** `unauthorized`: the server refuses the entries. What may pass is thrown and tried again later. */
async function postMissing(ports: RepairPorts, from: number): Promise<'connect' | 'unauthorized'> {
  const { crypto, account } = ports
  const identity = ports.identity()
  const rest = ports.rest()
  const prove = (): ReturnType<typeof createAssertion> =>
    createAssertion(
      crypto,
      identity.sign_seed,
      { purpose: 'log', aud: toBase64url(identity.server_key), user_id: identity.user_id, signer: identity.device_id },
      ports.time.now(),
    )
  try {
    for (const row of account.rows.slice(from)) {
      const boxes: Record<string, string> = row.box === null ? {} : { [identity.device_id]: toBase64url(row.box) }
      await rest.appendLog({ body: toBase64url(row.body), sig: toBase64url(row.sig), boxes, proof: await prove(), repair: true })
    }
  } catch (error) {
    if (error instanceof SealpostError && error.code !== 'account_gone' && !PASSING.has(error.code)) return 'unauthorized'
    throw error
  }

  const { log } = account
  await account.openKeys([log.log_seq])
  const signer = { id: identity.device_id, seed: identity.sign_seed }
  const previous = account.epochKey(log.log_seq)
  const made = await buildEntry(crypto, log, identity.user_id, signer, { type: 'rotate_keys' }, previous, ports.time.now())
  const entry = { body: toBase64url(made.entry.body), sig: toBase64url(made.entry.sig) }
  try {
    await rest.appendLog({ ...entry, boxes: made.boxes, proof: await prove() })
  } catch (error) {
    // another device that brought the same back was faster, or there were too many entries: what was missing is there all the same
    if (error instanceof SealpostError && (error.code === 'log_conflict' || error.code === 'rate_limited')) return 'connect'
    throw error
  }
  await account.apply([{ ...entry, box: made.boxes[identity.device_id] ?? null }])
  return 'connect'
}

/** Answers that say nothing about this device. A conflict: another device brings back the same now, or a fork, which the next look finds. */
const PASSING: ReadonlySet<ErrorCode> = new Set(['unreachable', 'timeout', 'unavailable', 'internal', 'rate_limited', 'log_conflict'])
