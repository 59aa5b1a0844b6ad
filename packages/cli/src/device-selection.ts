/** Finds the device that a person means: by its name, its id, or the first characters of its id. */
import { SealpostError } from '@sealpost/protocol'
import { advised, UsageError } from './exit-codes.ts'

export const PREFIX_MIN = 6
export const LISTED = 'sealpost devices lists names and ids'

type Selectable = { device_id: string; name: string; revoked: unknown }

/**
 * The device meant by `text`. An exact name or id counts before a prefix, an active device before a revoked one of the same
 * name. Throws `not_found`, or `UsageError` when more than one fits.
 */
export function selectDevice<D extends Selectable>(devices: readonly D[], text: string): D {
  const wanted = text.trim()
  const id = wanted.toLowerCase()
  const byId = devices.find((device) => device.device_id === id)
  if (byId !== undefined) return byId
  const named = devices.filter((device) => device.name === wanted.normalize('NFC'))
  const active = named.filter((device) => device.revoked === null)
  const prefixed = id.length >= PREFIX_MIN ? devices.filter((device) => device.device_id.startsWith(id)) : []
  for (const found of [active, named, prefixed]) {
    const [first] = found
    if (first !== undefined && found.length === 1) return first
    if (found.length > 1) throw ambiguous(found, text)
  }
  if (id.length < PREFIX_MIN && devices.some((device) => id.length > 0 && device.device_id.startsWith(id)))
    throw new UsageError(`"${text}" is too short for an id`, `give at least ${PREFIX_MIN} characters of the id, or the name`)
  throw advised(new SealpostError('not_found', `this account has no device "${text}"`), { hint: LISTED })
}

function ambiguous(found: readonly Selectable[], text: string): UsageError {
  return new UsageError(
    `"${text}" fits ${found.length} devices`,
    `give the whole id: ${found.map((device) => `${device.device_id} (${device.name})`).join(', ')}`,
  )
}
