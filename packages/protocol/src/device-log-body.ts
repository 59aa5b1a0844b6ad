/**
 * The body of a device-log entry (protocol.md §2): its typed form, and the strict decoder. Shape alone is judged here;
 * what an entry means for the log before it is `device-log.ts`'s part. Unknown fields are allowed and stay in the bytes;
 * a known field in an entry type that has no use for it is refused, so that no two readers can differ on its meaning.
 */
import { type Bytes, fromBase64url, parseJson } from './bytes.ts'
import { isLoggableName } from './device-name.ts'
import { SealpostError } from './errors.ts'
import { LIMITS } from './limits.ts'
import { type DeviceType, SHAPES } from './messages.ts'
import { check, type Shape } from './schema.ts'

/** `heads` pin the past of a revoked device: what lies above them was not there when it was revoked. */
export type RevocationPins = { last_device_seq: number; heads: { stream_id: string; device_seq: number; event_hash: Bytes }[] }
export type Revocation = { device_id: string; pins: RevocationPins | null }
export type LogBodyDevice = {
  device_id: string
  sign_pub: Bytes
  kem_pub: Bytes
  self_sig: Bytes
  name: string
  device_type: DeviceType
}
export type LogBodyEpoch = { commit: Bytes; sealed: { to: string; box_hash: Bytes }[]; prev_box: Bytes | null }

type Common = {
  user_id: string
  /** ms, for display only */
  created_at: number
  log_seq: number
  prev_hash: Bytes | null
  /** device_id or `root` */
  signer: string
  epoch: LogBodyEpoch
}

export type LogBody = Common &
  (
    | { type: 'genesis'; root_kem_pub: Bytes; device: LogBodyDevice }
    | { type: 'add_device'; device: LogBodyDevice }
    | { type: 'revoke_device'; revoked: Revocation[] }
    | { type: 'rename_device'; rename: { device_id: string; name: string } }
    | { type: 'rotate_keys' }
    | { type: 'recover'; device: LogBodyDevice; revoked: Revocation[] }
  )
export type LogEntryType = LogBody['type']

/** What every entry of version 1 has, also one whose type this version does not know: enough to check its signature. */
export type LogBodyFrame = Omit<Common, 'epoch'> & { type: string; value: object }

/** More than any body of 64 KiB can hold: the bound is the body's. */
const LIST_MAX = 4_096

const FRAME = { user_id: 'key', created_at: 'int', log_seq: 'u32', prev_hash: 'key|null', type: 'text', signer: 'signer' } as const
const EPOCH = {
  epoch: {
    object: { commit: 'key', sealed: { list: { object: { to: 'signer', box_hash: 'key' } }, max: LIST_MAX }, prev_box: 'prev_box|null' },
  },
} as const satisfies Shape
const ROOT = { root_kem_pub: 'kem_pub' } as const
const DEVICE = { device: { object: SHAPES.device } } as const
const RENAME = { rename: { object: { device_id: 'uuid', name: 'text' } } } as const
const HEAD = { stream_id: 'label', device_seq: 'int', event_hash: 'key' } as const
const REVOKED = {
  revoked: {
    list: {
      object: { device_id: 'uuid', last_device_seq: 'int?', heads: { list: { object: HEAD }, max: LIST_MAX, optional: true } },
    },
    max: LIST_MAX,
  },
} as const satisfies Shape

/** The fields that only some types have. */
const FIELDS_OF: Record<LogEntryType, readonly string[]> = {
  genesis: ['root_kem_pub', 'device'],
  add_device: ['device'],
  revoke_device: ['revoked'],
  rename_device: ['rename'],
  rotate_keys: [],
  recover: ['device', 'revoked'],
}
const SPECIFIC_FIELDS = new Set(Object.values(FIELDS_OF).flat())

export function isLogEntryType(type: string): type is LogEntryType {
  return Object.hasOwn(FIELDS_OF, type)
}

/** Throws `unknown_version` for another `v`, else `invalid_entry`. */
export function decodeLogFrame(bytes: Bytes): LogBodyFrame {
  if (bytes.length > LIMITS.logBodyBytesMax) throw refuse('the body is above 64 KiB')
  return guard(() => {
    const value = parseJson(bytes)
    if (typeof value !== 'object' || value === null || !('v' in value)) throw refuse('not a log entry')
    if (value.v !== 1) {
      if (!Number.isSafeInteger(value.v)) throw refuse('v is not a number')
      throw new SealpostError('unknown_version', 'the entry was made by a newer version')
    }
    const frame = check(FRAME, value, 'entry')
    return { ...frame, prev_hash: frame.prev_hash === null ? null : fromBase64url(frame.prev_hash), value }
  })
}

/** Throws `unknown_version` for an unknown type, else `invalid_entry`. */
export function decodeLogBody({ type, value, ...frame }: LogBodyFrame): LogBody {
  if (!isLogEntryType(type)) throw new SealpostError('unknown_version', 'the entry has a type of a newer version')
  return guard(() => {
    for (const field of SPECIFIC_FIELDS)
      if (Object.hasOwn(value, field) && !FIELDS_OF[type].includes(field)) throw refuse(`${type} has no field ${field}`)
    const common: Common = { ...frame, epoch: readEpoch(value) }
    switch (type) {
      case 'genesis':
        return { ...common, type, root_kem_pub: fromBase64url(check(ROOT, value, 'entry').root_kem_pub), device: readDevice(value) }
      case 'add_device':
        return { ...common, type, device: readDevice(value) }
      case 'revoke_device':
        return { ...common, type, revoked: readRevoked(value) }
      case 'rename_device':
        return { ...common, type, rename: readRename(value) }
      case 'rotate_keys':
        return { ...common, type }
      case 'recover':
        return { ...common, type, device: readDevice(value), revoked: readRevoked(value) }
    }
  })
}

function readEpoch(value: object): LogBodyEpoch {
  const { commit, sealed, prev_box } = check(EPOCH, value, 'entry').epoch
  return {
    commit: fromBase64url(commit),
    sealed: sealed.map(({ to, box_hash }) => ({ to, box_hash: fromBase64url(box_hash) })),
    prev_box: prev_box === null ? null : fromBase64url(prev_box),
  }
}

function readDevice(value: object): LogBodyDevice {
  const { device_id, sign_pub, kem_pub, self_sig, name, device_type } = check(DEVICE, value, 'entry').device
  return {
    device_id,
    sign_pub: fromBase64url(sign_pub),
    kem_pub: fromBase64url(kem_pub),
    self_sig: fromBase64url(self_sig),
    name: readName(name),
    device_type,
  }
}

function readRename(value: object): { device_id: string; name: string } {
  const { device_id, name } = check(RENAME, value, 'entry').rename
  return { device_id, name: readName(name) }
}

function readName(name: string): string {
  if (!isLoggableName(name)) throw refuse('the device name is not a safe one')
  return name
}

function readRevoked(value: object): Revocation[] {
  return check(REVOKED, value, 'entry').revoked.map(({ device_id, last_device_seq, heads }) => {
    if (last_device_seq === undefined && heads === undefined) return { device_id, pins: null }
    if (last_device_seq === undefined || heads === undefined) throw refuse('last_device_seq and heads come together or not at all')
    const pins = heads.map((head) => ({ ...head, event_hash: fromBase64url(head.event_hash) }))
    return { device_id, pins: { last_device_seq, heads: pins } }
  })
}

/** Whatever the shared decoders throw on foreign bytes is an invalid entry. */
function guard<T>(decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    if (!(error instanceof SealpostError) || error.code === 'unknown_version' || error.code === 'invalid_entry') throw error
    throw new SealpostError('invalid_entry', error.message, { cause: error })
  }
}

function refuse(reason: string): SealpostError {
  return new SealpostError('invalid_entry', reason)
}
