/** Finds the device that a person means: by its name, its id, or the first characters of its id. */
import { givenDeviceName, safeDeviceName, SealpostError } from '@sealpost/protocol'
import { advised, UsageError } from './exit-codes.ts'

export const PREFIX_MIN = 6
export const LISTED = 'sealpost devices lists names and ids'

type Selectable = { device_id: string; name: string; revoked: unknown }

/**
 * The device meant by `text`. Names are chosen by devices, so a name never counts before an id, nor an id before a name: what fits two
 * devices is refused, and `byId` says that it is an id. Of several devices of one name the active one is meant. Throws `not_found`, or
 * `UsageError` when more than one fits.
 */
export function selectDevice<D extends Selectable>(devices: readonly D[], text: string, byId = false): D {
  const id = text.trim().toLowerCase()
  const whole = devices.filter((device) => device.device_id === id)
  const started = id.length >= PREFIX_MIN ? devices.filter((device) => device.device_id.startsWith(id)) : []
  const found = [...new Set([...(whole.length > 0 ? whole : started), ...(byId ? [] : named(devices, text))])]
  const [first] = found
  if (first !== undefined && found.length === 1) return first
  if (found.length > 1) throw ambiguous(found, text)
  if (id.length > 0 && id.length < PREFIX_MIN && devices.some((device) => device.device_id.startsWith(id)))
    throw new UsageError(`"${text}" is too short for an id`, `give at least ${PREFIX_MIN} characters of the id, or the name`)
  throw advised(new SealpostError('not_found', `this account has no device "${text}"`), { hint: LISTED })
}

/** By what is shown of both: a name of the log may hold what nobody sees. */
function named<D extends Selectable>(devices: readonly D[], text: string): D[] {
  const wanted = shown(text)
  const all = devices.filter((device) => safeDeviceName(device.name) === wanted)
  const active = all.filter((device) => device.revoked === null)
  return active.length > 0 ? active : all
}

function shown(text: string): string | null {
  try {
    return givenDeviceName(text)
  } catch {
    return null
  }
}

function ambiguous(found: readonly Selectable[], text: string): UsageError {
  return new UsageError(
    `"${text}" fits ${found.length} devices`,
    `name one by its whole id: ${found.map((device) => `--id ${device.device_id} ("${device.name}")`).join(', ')}`,
  )
}
