/**
 * An account as its devices see it, for tests that talk to a real server: real keys, real entries, real assertions. The server
 * is not asked; whoever uses it posts what is built here.
 */
import {
  type Bytes,
  buildEntry,
  createAssertion,
  createDeviceKeys,
  type DeviceKeys,
  type DeviceLog,
  deriveRootKeys,
  introduceDevice,
  type LogChange,
  type LogEntry,
  type NewEntry,
  type RootKeys,
  type SignedObject,
  toBase64url,
  verifyEntry,
} from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'

export type TestAccount = {
  root: RootKeys
  user_id: string
  /** The first device. */
  device: DeviceKeys
  /** As built so far. */
  log: DeviceLog
  entries: NewEntry[]
  epoch_key: Bytes
}

export async function createTestAccount(name = 'laptop'): Promise<TestAccount> {
  const root = await deriveRootKeys(nodeCrypto, nodeCrypto.random(32))
  const device = await createDeviceKeys(nodeCrypto)
  const introduction = await introduceDevice(nodeCrypto, root.user_id, device, name, 'desktop')
  const change: LogChange = { type: 'genesis', root_kem_pub: root.kem_pub, device: introduction }
  const built = await buildEntry(nodeCrypto, null, root.user_id, { id: 'root', seed: root.sign_seed }, change, null, Date.now())
  const log = await verified(null, root.user_id, built.entry)
  return { root, user_id: root.user_id, device, log, entries: [built], epoch_key: built.epoch_key }
}

/** The next entry, signed by `signer`; the account moves on to it. */
export async function extendAccount(
  account: TestAccount,
  change: LogChange,
  signer: DeviceKeys | 'root' = account.device,
): Promise<NewEntry> {
  const by = signer === 'root' ? { id: 'root', seed: account.root.sign_seed } : { id: signer.device_id, seed: signer.sign_seed }
  const built = await buildEntry(nodeCrypto, account.log, account.user_id, by, change, account.epoch_key, Date.now())
  account.log = await verified(account.log, account.user_id, built.entry)
  account.entries.push(built)
  account.epoch_key = built.epoch_key
  return built
}

/** A second device with the entry that adds it. */
export async function addTestDevice(account: TestAccount, name: string): Promise<{ device: DeviceKeys; built: NewEntry }> {
  const device = await createDeviceKeys(nodeCrypto)
  const introduction = await introduceDevice(nodeCrypto, account.user_id, device, name, 'mobile')
  return { device, built: await extendAccount(account, { type: 'add_device', device: introduction }) }
}

/** An assertion of a device or of the root, made for the server with this key. */
export function assertAs(
  account: TestAccount,
  server_key: Bytes,
  purpose: string,
  options: { signer?: DeviceKeys | 'root'; now_ms?: number; from_log_seq?: number } = {},
): Promise<SignedObject> {
  const { signer = account.device, now_ms = Date.now(), from_log_seq } = options
  const [id, seed] = signer === 'root' ? ['root', account.root.sign_seed] : [signer.device_id, signer.sign_seed]
  const claims = { purpose, aud: toBase64url(server_key), user_id: account.user_id, signer: id }
  return createAssertion(nodeCrypto, seed, from_log_seq === undefined ? claims : { ...claims, from_log_seq }, now_ms)
}

async function verified(log: DeviceLog | null, user_id: string, entry: LogEntry): Promise<DeviceLog> {
  const result = await verifyEntry(nodeCrypto, log, user_id, entry)
  if (!result.ok) throw new Error(`the entry is not valid: ${result.code}: ${result.reason}`)
  return result.log
}
