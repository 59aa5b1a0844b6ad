/**
 * `Sealpost`: one device of an account, as an application holds it. Everything durable is in the home; closing and opening again
 * continues where it stood. Errors are `SealpostError` with a code and a sentence for people.
 */
import { type Bytes, deviceListFingerprint, type DeviceType, givenDeviceName, SealpostError, toBase64url } from '@sealpost/protocol'
import { createAccount, type CreateOptions, joinAccount, type JoinOptions, pairDevice, type PairOptions } from '../account/account.ts'
import { createAccessToken, deleteAccount, exportAccount } from '../account/account-calls.ts'
import { type ExportItem, openExport } from './export.ts'
import { recoverAccount, type RecoverOptions } from '../account/recover.ts'
import { revokedError } from '../log/own-revocation.ts'
import type { ConnectionState } from '../connection/machine.ts'
import { type Member, openMember } from '../home/member.ts'
import type { Notice } from '../notices.ts'
import { openOutboxItems, type OutboxItems } from '../home/outbox-items.ts'
import type { Home, Identity } from '../ports.ts'
import { openStream, type Stream, watch } from './stream.ts'

export type Device = {
  device_id: string
  name: string
  device_type: DeviceType
  /** ms; null when the entry is not readable. */
  added_at: number | null
  revoked: { by_name: string; at: number } | null
  /** Null: not known while offline. */
  online: boolean | null
  last_seen: number | null
  /** By an operator of the server; as far as it told. */
  suspended: boolean
  self: boolean
}

export type Status = {
  state: ConnectionState
  server: string
  server_key: string
  user_id: string
  device_id: string
  name: string
  role: 'leader' | 'follower'
  last_error: { code: string; message: string } | null
  /** `pending` is sent by itself; `set_aside` waits for a decision (`sealpost.outbox`); `rejected` was refused or dropped, and is gone. */
  outbox: { pending: number; set_aside: number; rejected: number }
  /** Up to here all is received, verified and stored. */
  position: number
  /** The newest position the server told of; null before the first connection. */
  head_position: number | null
  log_seq: number
  /** Five groups of four; equal on all devices that see the same device list. */
  device_list_fingerprint: string
  alarms: number
}

export class Sealpost {
  readonly user_id: string
  readonly device_id: string
  /** What waits to be sent and what was set aside. */
  readonly outbox: OutboxItems
  readonly #home: Home
  readonly #member: Member
  readonly #streams = new Map<string, Stream>()
  #closing: Promise<void> | null = null

  private constructor(home: Home, member: Member) {
    this.user_id = member.identity.user_id
    this.device_id = member.identity.device_id
    this.#home = home
    this.#member = member
    this.outbox = openOutboxItems(home, member)
  }

  /**
   * A new account with this device as its first. `recovery_words` are never kept; `onWords` has them before the account exists. `pinned`: the server's key came
   * with the URL; else it was trusted on first use and its fingerprint is to be compared. Throws `already_paired`,
   * `server_identity`, `signup_closed`, `unreachable`, `invalid_request`.
   */
  static async create(
    o: CreateOptions & { connect?: boolean },
  ): Promise<{ sealpost: Sealpost; recovery_words: string; server_key: string; pinned: boolean }> {
    const { identity, ...made } = await createAccount(o)
    return { sealpost: await Sealpost.#open(o.home, identity, o), ...made }
  }

  /** This device joins an account with a pairing code. Throws `invalid_code`, `check_phrase_mismatch`, `expired`, `log_fork`, `server_identity`. */
  static async join(o: JoinOptions & { connect?: boolean }): Promise<Sealpost> {
    return Sealpost.#open(o.home, await joinAccount(o), o)
  }

  /**
   * Back into an account by its recovery words, with a new device in place of all others. Throws `invalid_words`, `not_found` (no such
   * account there), `already_paired`, `server_identity`, `unreachable`.
   */
  static async recover(
    o: RecoverOptions & { connect?: boolean },
  ): Promise<{ sealpost: Sealpost; server_key: string; pinned: boolean; history: boolean }> {
    const { identity, ...made } = await recoverAccount(o)
    return { sealpost: await Sealpost.#open(o.home, identity, o), ...made }
  }

  /** Throws `not_paired`, or `device_revoked` with who did it and when. `connect: false` only reads and queues. */
  static async open(o: { home: Home; connect?: boolean; signal?: AbortSignal }): Promise<Sealpost> {
    const identity = await o.home.store.readIdentity()
    if (identity !== null) return Sealpost.#open(o.home, identity, o)
    const revocation = await o.home.store.readRevocation()
    if (revocation !== null) throw revokedError(revocation)
    throw new SealpostError('not_paired', 'this home holds no device')
  }

  static async #open(home: Home, identity: Identity, o: { connect?: boolean; signal?: AbortSignal }): Promise<Sealpost> {
    return new Sealpost(home, await openMember(home, identity, o.connect ?? true, o.signal))
  }

  get role(): 'leader' | 'follower' {
    return this.#member.role
  }

  get state(): ConnectionState {
    return this.#member.status.state
  }

  /** What ended the engine for good (revoked, superseded, server_identity …), or null. */
  get failure(): SealpostError | null {
    return this.#member.status.terminal
  }

  /** What the engine told of last and goes on after (quota_exceeded, log_withheld …); null once an event was acked since. `suspended` as long as it is. */
  get trouble(): SealpostError | null {
    const { trouble, last_error } = this.#member.status
    return last_error?.code === 'suspended' ? last_error : trouble
  }

  /** Why there is no connection now (`unreachable`, with the first cause that is known); null while there is one, or none was tried yet. */
  get offlineCause(): SealpostError | null {
    const { state, last_error } = this.#member.status
    return state === 'live' || state === 'replaying' ? null : last_error
  }

  stream(stream_id: string): Stream {
    const known = this.#streams.get(stream_id)
    if (known !== undefined) return known
    const stream = openStream(this.#home, this.#member.identity, this.#member, stream_id)
    this.#streams.set(stream_id, stream)
    return stream
  }

  /** Returns the way to stop listening. */
  on(listener: (notice: Notice) => void): () => void {
    return this.#member.notices.on(listener)
  }

  /**
   * Reads the device list up to what the server has now; `devices()` and `status()` show it then. To be called before a device is looked
   * up: another device may have added it a moment ago. Throws `unreachable`, `timeout`, `log_withheld`.
   */
  async refreshDevices(o: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#member.readLog(o.signal)
  }

  /** The devices of the account, as far as this device knows; also without a connection. */
  async devices(): Promise<Device[]> {
    const { presence } = await this.#member.refreshStatus()
    const { account } = this.#member
    const seen = new Map(presence.map((device) => [device.device_id, device]))
    return [...account.log.devices.values()].map((device) => {
      const { device_id, name, device_type, added, revoked } = device
      return {
        device_id,
        name,
        device_type,
        added_at: createdAt(account.rows[added]?.body),
        revoked: revoked === null ? null : { by_name: account.deviceName(revoked.by), at: revoked.created_at },
        online: revoked === null ? (seen.get(device_id)?.online ?? null) : false,
        last_seen: seen.get(device_id)?.last_seen ?? null,
        suspended: revoked === null && seen.get(device_id)?.suspended === true,
        self: device_id === this.device_id,
      }
    })
  }

  /** Resolves when the server has it: nothing that device sends is accepted any more. A device that is revoked already is fine. */
  async revoke(device_id: string, o: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#member.revoke(device_id, o.signal)
  }

  /** Under a safe form of the name; throws `name_taken`, `not_found`, `invalid_request` (nothing is left of the name; the device is revoked). Returns the name as it is now. */
  async rename(device_id: string, name: string, o: { signal?: AbortSignal } = {}): Promise<string> {
    const safe = givenDeviceName(name)
    await this.#member.rename(device_id, safe, o.signal)
    if (device_id === this.device_id) await this.#home.store.updateIdentity({ name: safe })
    return safe
  }

  /**
   * Follows the server to another address, `https://host[:port]`, with its key after `#` if you have it. It is stored, and every process of
   * this home takes it, once the server there has proved in a handshake that it holds the key that this account knows. Works also where the
   * connection has ended with `server_identity`. Throws `server_identity`, `unreachable`, `invalid_request`.
   */
  async moveServer(server: string, o: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#member.moveServer(server, o.signal)
  }

  /** An access token for REST, good for `expires_in` seconds: a secret. */
  accessToken(o: { signal?: AbortSignal } = {}): Promise<{ access_token: string; expires_in: number }> {
    return createAccessToken(this.#home, this.#member, o.signal)
  }

  /** Everything that the server holds about this account, as lines of JSON (docs/export.md). */
  exportAccount(o: { signal?: AbortSignal } = {}): AsyncIterable<Bytes> {
    return exportAccount(this.#home, this.#member, o.signal)
  }

  /** Verifies and opens the events of an export of this account with the keys of this device. */
  openExport(lines: AsyncIterable<string>): AsyncIterable<ExportItem> {
    return openExport(this.#home, this.#member.identity, this.#member.account, this.#member.time, lines)
  }

  /**
   * Deletes the account on the server, for all devices and for ever, then wipes this home. Returns the rows per table; null when it was gone
   * already, or the answer was lost. What was broken off is simply called again.
   */
  async deleteAccount(o: { signal?: AbortSignal } = {}): Promise<Record<string, number> | null> {
    const deleted = await deleteAccount(this.#home, this.#member, o.signal)
    await this.#member.close()
    await this.#home.store.wipe(null)
    return deleted
  }

  /** Adds a device: shows a code, waits, lets a person compare the phrase. Throws `expired`, `check_phrase_mismatch`, `unreachable`. */
  async pair(o: PairOptions): Promise<Device> {
    const device_id = await pairDevice(this.#home, this.#member, o)
    const device = (await this.devices()).find((known) => known.device_id === device_id)
    if (device === undefined) throw new SealpostError('internal', 'the new device is not in the list')
    return device
  }

  async status(): Promise<Status> {
    const { store } = this.#home
    const known = await this.#member.refreshStatus()
    const { cursor } = await store.readReceiveState()
    const { pending, set_aside, rejected } = await store.countOutbox()
    const error = known.terminal ?? known.last_error ?? known.trouble
    const { account, identity } = this.#member
    const { log } = account
    return {
      state: known.state,
      server: identity.server_url,
      server_key: toBase64url(identity.server_key),
      user_id: this.user_id,
      device_id: this.device_id,
      name: log.devices.get(this.device_id)?.name ?? identity.name,
      role: this.role,
      last_error: error === null ? null : { code: error.code, message: error.message },
      outbox: { pending, set_aside, rejected },
      position: cursor.position,
      head_position: known.head_position,
      log_seq: log.log_seq,
      device_list_fingerprint: deviceListFingerprint(log.log_head),
      alarms: await store.countAlarms(),
    }
  }

  /** Waits until every event queued before is acked, set aside or dropped. Throws a terminal error of the engine, or `aborted`. */
  async flush(o: { signal?: AbortSignal } = {}): Promise<void> {
    const { store } = this.#home
    const { last_item } = await store.countOutbox()
    this.#member.wake()
    await watch(this.#home, this.#member, o.signal, async () => {
      // asked on every ack: the first one is found at once, however many wait
      const [first] = await store.readPending(0, 1, 1)
      if (first === undefined || first.item_no > last_item) return true
      if (this.failure !== null) throw this.failure
      return false
    })
  }

  /** Ends the connection or the link to the leader, then the home. What is queued stays queued. */
  close(): Promise<void> {
    this.#closing ??= this.#member.close().then(() => this.#home.close())
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function createdAt(body: Uint8Array | undefined): number | null {
  if (body === undefined) return null
  const value: unknown = JSON.parse(new TextDecoder().decode(body))
  return typeof value === 'object' && value !== null && 'created_at' in value && typeof value.created_at === 'number'
    ? value.created_at
    : null
}
