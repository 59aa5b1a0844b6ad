/**
 * Entries of a device log with any content, also such as `buildEntry` refuses to write. The boxes behind the hashes do not
 * exist and KEM keys are mere bytes, which no verifier looks into: an entry costs a signature, not a KEM.
 */
import { type Bytes, bytesToUuid, toBase64url, utf8 } from '../../../protocol/src/bytes.ts'
import { type DeviceLog, type LogEntry, verifyLog } from '../../../protocol/src/device-log.ts'
import { type DeviceIntroduction, introductionBytes } from '../../../protocol/src/keys.ts'
import { nodeCrypto } from '../../../protocol/src/node.ts'
import { tuple } from '../../../protocol/src/tuple.ts'

export type Signer = { id: string; seed: Bytes }
export type ForgedDevice = Signer & { introduction: DeviceIntroduction }
export type EntryPlan = {
  type: string
  signer: Signer
  /** recipients of the epoch key */
  to: readonly string[]
  fields?: object
  prev_box?: null
  /** changes the finished body before it is signed */
  edit?: (body: Record<string, unknown>) => void
  /** changes the JSON text before it is signed */
  text?: (json: string) => string
  label?: string
  ctx?: Bytes
}

const bytesOf = (text: string, length = 32): Bytes => {
  const out = new Uint8Array(length)
  for (let at = 0; at < length; at += 32) out.set(nodeCrypto.sha256(utf8(`${text} ${at}`)).subarray(0, length - at), at)
  return out
}

export const ROOT: Signer = { id: 'root', seed: bytesOf('root') }
export const USER_ID = toBase64url(nodeCrypto.ed25519Public(ROOT.seed))
export const ROOT_KEM_PUB = toBase64url(bytesOf('root kem', 1216))
const PREV_BOX = toBase64url(bytesOf('prev box', 48))

/** A device out of numbered parts, so that a test can use a part twice. Its self_sig is by `selfSeed`, for `user_id`. */
export function forgeDevice(id: number, sign = id, kem = id, selfSeed?: Bytes, user_id = USER_ID): ForgedDevice {
  const device_id = bytesToUuid(bytesOf(`id ${id}`, 16))
  const seed = bytesOf(`sign ${sign}`)
  const sign_pub = nodeCrypto.ed25519Public(seed)
  const kem_pub = bytesOf(`kem ${kem}`, 1216)
  const self_sig = toBase64url(nodeCrypto.ed25519Sign(selfSeed ?? seed, introductionBytes(user_id, device_id, sign_pub, kem_pub)))
  const introduction = {
    device_id,
    sign_pub: toBase64url(sign_pub),
    kem_pub: toBase64url(kem_pub),
    self_sig,
    name: `device ${id}`,
    device_type: 'desktop',
  } as const
  return { id: device_id, seed, introduction }
}

/** The entry after `log` that `plan` describes. */
export function forgeEntry(log: DeviceLog | null, plan: EntryPlan): LogEntry {
  const body: Record<string, unknown> = {
    v: 1,
    user_id: USER_ID,
    created_at: 1_764_000_000_000,
    log_seq: log === null ? 0 : log.log_seq + 1,
    prev_hash: log === null ? null : toBase64url(log.log_head),
    type: plan.type,
    signer: plan.signer.id,
    ...plan.fields,
    epoch: {
      commit: toBase64url(bytesOf('commit')),
      sealed: plan.to.map((to) => ({ to, box_hash: toBase64url(bytesOf(`box ${to}`)) })),
      prev_box: log === null || plan.prev_box === null ? null : PREV_BOX,
    },
  }
  plan.edit?.(body)
  const json = JSON.stringify(body)
  const bytes = utf8(plan.text?.(json) ?? json)
  return { body: bytes, sig: nodeCrypto.ed25519Sign(plan.signer.seed, tuple(plan.label ?? 'log', plan.ctx ?? null, bytes)) }
}

export function forgeGenesis(device: ForgedDevice, change: Partial<EntryPlan> = {}): LogEntry {
  const fields = { root_kem_pub: ROOT_KEM_PUB, device: device.introduction }
  return forgeEntry(null, { type: 'genesis', signer: ROOT, to: ['root', device.id], fields, ...change })
}

/** The log of entries that are known to be valid. */
export async function logOf(...entries: LogEntry[]): Promise<DeviceLog> {
  const verified = await verifyLog(nodeCrypto, USER_ID, entries)
  if (!verified.ok) throw new Error(verified.reason)
  return verified.log
}
