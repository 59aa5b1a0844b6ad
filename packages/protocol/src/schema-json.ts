/** The shapes of `schema.ts` as JSON Schema (draft 2020-12), for documents. Unknown members are ignored on the wire, so they are allowed here. */
import { type Field, LABEL, type Shape } from './schema.ts'

export type JsonSchema = { readonly [keyword: string]: unknown }

const SAFE = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const
const base64url = (bytes: number): JsonSchema => ({ type: 'string', pattern: `^[A-Za-z0-9_-]{${Math.ceil((bytes * 4) / 3)}}$` })
const UUID = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'

const SCALARS: Readonly<Record<string, JsonSchema>> = {
  bool: { type: 'boolean' },
  int: SAFE,
  u32: { type: 'integer', minimum: 0, maximum: 0xffff_ffff },
  uuid: { type: 'string', pattern: `^${UUID}$` },
  signer: { type: 'string', pattern: `^(root|${UUID})$` },
  label: { type: 'string', pattern: LABEL.source },
  opaque: { type: 'string', minLength: 1, maxLength: 1_024 },
  text: { type: 'string', maxLength: 1_024 },
  code: { type: 'string', pattern: '^[a-z_]{1,64}$' },
  key: base64url(32),
  sig: base64url(64),
  kem_pub: base64url(1_216),
  box: base64url(1_168),
  prev_box: base64url(48),
  b64: { type: 'string', pattern: '^[A-Za-z0-9_-]*$', maxLength: 98_304 },
}

export function toJsonSchema(shape: Shape): JsonSchema {
  const fields = Object.entries(shape)
  const required = fields.filter(([, field]) => !isOptional(field)).map(([name]) => name)
  return {
    type: 'object',
    properties: Object.fromEntries(fields.map(([name, field]) => [name, fieldSchema(field)])),
    ...(required.length === 0 ? {} : { required }),
  }
}

function isOptional(field: Field): boolean {
  return typeof field === 'string' ? field.endsWith('?') && !field.startsWith('=') : field.optional === true
}

function fieldSchema(field: Field): JsonSchema {
  if (typeof field === 'string') {
    if (field.startsWith('=')) return { const: field.slice(1) }
    if (field.endsWith('|null')) return { anyOf: [scalar(field.slice(0, -5)), { type: 'null' }] }
    return scalar(field.replace('?', ''))
  }
  if ('oneOf' in field) return { enum: [...field.oneOf] }
  if ('object' in field)
    return field.nullable === true ? { anyOf: [toJsonSchema(field.object), { type: 'null' }] } : toJsonSchema(field.object)
  if ('list' in field) return { type: 'array', items: fieldSchema(field.list), maxItems: field.max }
  return { type: 'object', propertyNames: scalar('signer'), additionalProperties: scalar(field.map), maxProperties: field.max }
}

function scalar(kind: string): JsonSchema {
  const schema = SCALARS[kind]
  if (schema === undefined) throw new TypeError(`${kind} has no JSON schema`)
  return schema
}
