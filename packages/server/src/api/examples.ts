/** Example values of the fields of messages: of the right form, of nobody. */
import type { Field, Shape } from '@sealpost/protocol'
import { BOX, DEVICE_ID, EVENT_ID, LOG_HEAD, SESSION_ID, SIGNATURE, TIME_MS } from '../http/examples.ts'

const SCALARS: Readonly<Record<string, unknown>> = {
  bool: true,
  int: 42,
  u32: 1,
  uuid: DEVICE_ID,
  signer: DEVICE_ID,
  label: 'clipboard',
  opaque: SESSION_ID,
  text: 'laptop',
  key: LOG_HEAD,
  sig: SIGNATURE,
  box: BOX,
  b64: 'eyJ2IjoxfQ',
}

/** What a field of this name holds, where the kind alone does not say. */
const NAMED: Readonly<Record<string, unknown>> = {
  event_id: EVENT_ID,
  received_at: TIME_MS,
  last_seen: TIME_MS,
  t: TIME_MS,
  versions: [1],
  features: [],
  expected_device_seq: 42,
  reason: 'age',
  message: 'A request could not be answered.',
}

export function exampleHead(shape: Shape): Record<string, unknown> {
  return Object.fromEntries(Object.entries(shape).map(([name, field]) => [name, exampleOf(name, field)]))
}

function exampleOf(name: string, field: Field): unknown {
  if (typeof field !== 'string' && 'oneOf' in field) return field.oneOf[0]
  if (Object.hasOwn(NAMED, name)) return NAMED[name]
  if (typeof field === 'string') return field.startsWith('=') ? field.slice(1) : SCALARS[field.replace(/\?$|\|null$/, '')]
  if ('object' in field) return exampleHead(field.object)
  if ('list' in field) return [exampleOf(name, field.list)]
  return { root: SCALARS[field.map], [DEVICE_ID]: SCALARS[field.map] }
}
