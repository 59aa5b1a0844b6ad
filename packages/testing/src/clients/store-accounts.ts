/**
 * Accounts and events for tests of the store and of what stands on it. Entries are signed as the verifier asks; the boxes
 * are random bytes, which no server can tell from real ones and which cost nothing.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import {
  type Bytes,
  type DeviceType,
  encodeRecord,
  fromBase64url,
  type LogEntry,
  toBase64url,
  tuple,
  utf8,
  uuidToBytes,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { AppendRequest, Run, RunEvent, Store } from '../../../server/src/ports/store.ts'

export type TestDevice = { device_id: string; sign_seed: Bytes; sign_pub: Bytes; kem_pub: Bytes; name: string; device_type: DeviceType }

/** One account as its own devices see it; entries are made against `log_seq` and `log_head`. */
export type TestAccount = {
  user_id: string
  root_seed: Bytes
  user_no: number
  log_seq: number
  log_head: Bytes | null
  devices: TestDevice[]
}

export type TestChange =
  | { type: 'genesis'; device: TestDevice }
  | { type: 'add_device'; device: TestDevice }
  | {
      type: 'revoke_device'
      revoked: { device_id: string; last_device_seq?: number; heads?: { stream_id: string; device_seq: number; event_hash: string }[] }[]
    }
  | { type: 'rename_device'; rename: { device_id: string; name: string } }
  | { type: 'rotate_keys' }
  | { type: 'recover'; device: TestDevice }

export function makeDevice(name: string = `device ${randomUUID()}`, device_type: DeviceType = 'desktop'): TestDevice {
  const sign_seed = nodeCrypto.random(32)
  return {
    device_id: randomUUID(),
    sign_seed,
    sign_pub: nodeCrypto.ed25519Public(sign_seed),
    kem_pub: nodeCrypto.random(1216),
    name,
    device_type,
  }
}

export function makeAccount(): TestAccount {
  const root_seed = nodeCrypto.random(32)
  return { user_id: toBase64url(nodeCrypto.ed25519Public(root_seed)), root_seed, user_no: 0, log_seq: -1, log_head: null, devices: [] }
}

/** An entry as it stands in the body of a request (protocol.md §10). */
export function wire({ entry, boxes }: Pick<AppendRequest, 'entry' | 'boxes'>): {
  body: string
  sig: string
  boxes: Readonly<Record<string, string>>
} {
  return { body: toBase64url(entry.body), sig: toBase64url(entry.sig), boxes }
}

/** The next entry of the account, signed by its first device (or the root); the account is not changed. */
export function makeEntry(account: TestAccount, change: TestChange, signer: TestDevice | undefined = account.devices[0]): AppendRequest {
  const byRoot = change.type === 'genesis' || change.type === 'recover'
  const revoked =
    change.type === 'recover' ? account.devices.map(({ device_id }) => ({ device_id })) : 'revoked' in change ? change.revoked : []
  const boxes: Record<string, string> = {}
  const sealed: { to: string; box_hash: string }[] = []
  for (const to of ['root', ...devicesAfter(account, change).map((device) => device.device_id)]) {
    const box = randomBytes(1168)
    boxes[to] = toBase64url(box)
    sealed.push({ to, box_hash: toBase64url(nodeCrypto.sha256(box)) })
  }
  const body = utf8(
    JSON.stringify({
      v: 1,
      user_id: account.user_id,
      created_at: Date.now(),
      log_seq: account.log_seq + 1,
      prev_hash: account.log_head === null ? null : toBase64url(account.log_head),
      type: change.type,
      signer: byRoot ? 'root' : signer?.device_id,
      ...(change.type === 'genesis' ? { root_kem_pub: toBase64url(randomBytes(1216)) } : {}),
      ...('device' in change ? { device: introduce(account.user_id, change.device) } : {}),
      ...(change.type === 'revoke_device' || change.type === 'recover' ? { revoked } : {}),
      ...('rename' in change ? { rename: change.rename } : {}),
      epoch: { commit: toBase64url(randomBytes(32)), sealed, prev_box: change.type === 'genesis' ? null : toBase64url(randomBytes(48)) },
    }),
  )
  const seed = byRoot ? account.root_seed : signer?.sign_seed
  if (seed === undefined) throw new Error('an entry has a signer')
  const entry: LogEntry = { body, sig: nodeCrypto.ed25519Sign(seed, tuple('log', null, body)) }
  return { user_id: account.user_id, entry, boxes, repair: false, allow_genesis: true }
}

/** Appends a change that must succeed, and brings the account up to date. */
export async function append(store: Store, account: TestAccount, change: TestChange, signer?: TestDevice): Promise<AppendRequest> {
  const request = makeEntry(account, change, signer)
  const result = await store.appendEntry(request)
  if (!result.ok) throw new Error(`append: ${result.code} ${result.reason ?? ''}`)
  account.user_no = result.user_no
  account.log_seq = result.log_seq
  account.log_head = result.log_head
  account.devices = devicesAfter(account, change)
  return request
}

/** An account with `devices` devices, numbered from 1 in the store. */
export async function createAccount(store: Store, devices = 1): Promise<TestAccount> {
  const account = makeAccount()
  await append(store, account, { type: 'genesis', device: makeDevice() })
  for (let i = 1; i < devices; i++) await append(store, account, { type: 'add_device', device: makeDevice() })
  return account
}

/** Opens a session for a device by its number; returns the session_id. */
export async function openSession(store: Store, user_no: number, device_no: number): Promise<string> {
  const session_id = randomUUID()
  const cursor = { position: 0, event_id: null, received_at: null, history_id: null }
  const result = await store.establishSession({ user_no, device_no, session_id, node_no: null, cursor, last_device_seq: 0, log_seq: null })
  if (!result.ok) throw new Error(`establish: ${result.code}`)
  return session_id
}

export type TestEvent = { stream_id?: string; payload?: Bytes; ttl?: number; made_at?: number; event_id?: string; epoch?: number }

/** An event as a gateway hands it to the store. The signature is random: the server verifies none. */
export function makeEvent(device_seq: number, options: TestEvent = {}): RunEvent {
  const { stream_id = 'main', ttl, made_at = Date.now(), payload = nodeCrypto.random(64), epoch = 0 } = options
  const event_id = options.event_id ?? makeEventId(made_at)
  const record = encodeRecord({
    server: null,
    event_id,
    device_id: '00000000-0000-4000-8000-000000000000',
    device_seq,
    epoch,
    ttl: ttl ?? null,
    prev_hash: null,
    stream_id,
    type: 'app',
    sig: nodeCrypto.random(64),
    payload,
    payload_hash: null,
  })
  const timed = ttl !== undefined
  return {
    stream_id,
    flags: record[4] ?? 0,
    client: record.subarray(5),
    expires_at: timed ? made_at + ttl * 1000 : 0,
    made_at: timed ? made_at : 0,
  }
}

export function makeRun(fields: Omit<Run, 'events'>, events: number | TestEvent[]): Run {
  const list = typeof events === 'number' ? Array.from({ length: events }, (): TestEvent => ({})) : events
  return { ...fields, events: list.map((event, i) => makeEvent(fields.first_seq + i, event)) }
}

/** A UUIDv7 of that time. */
export function makeEventId(ms: number): string {
  const hex = Math.floor(ms).toString(16).padStart(12, '0')
  const rest = randomBytes(9).toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7${rest.slice(0, 3)}-8${rest.slice(3, 6)}-${rest.slice(6, 18)}`
}

function devicesAfter(account: TestAccount, change: TestChange): TestDevice[] {
  if (change.type === 'recover' || change.type === 'genesis') return [change.device]
  if (change.type === 'add_device') return [...account.devices, change.device]
  if (change.type !== 'revoke_device') return account.devices
  const gone = new Set(change.revoked.map((revocation) => revocation.device_id))
  return account.devices.filter((device) => !gone.has(device.device_id))
}

function introduce(user_id: string, { device_id, sign_seed, sign_pub, kem_pub, name, device_type }: TestDevice): object {
  const signed = tuple('device', fromBase64url(user_id, 32), uuidToBytes(device_id), sign_pub, kem_pub)
  return {
    device_id,
    sign_pub: toBase64url(sign_pub),
    kem_pub: toBase64url(kem_pub),
    self_sig: toBase64url(nodeCrypto.ed25519Sign(sign_seed, signed)),
    name,
    device_type,
  }
}
