/** Arbitrary values of a schema: what a test of every message begins from. */
import * as fc from 'fast-check'
import { toBase64url } from '../../../protocol/src/bytes.ts'
import type { Field, Shape } from '../../../protocol/src/schema.ts'

const base64url = (length: number) => fc.uint8Array({ minLength: length, maxLength: length }).map(toBase64url)

const scalars: Record<string, fc.Arbitrary<unknown>> = {
  bool: fc.boolean(),
  int: fc.maxSafeNat(),
  u32: fc.integer({ min: 0, max: 0xffff_ffff }),
  uuid: fc.uuid(),
  signer: fc.oneof(fc.uuid(), fc.constant('root')),
  label: fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/),
  opaque: fc.string({ minLength: 1, maxLength: 20 }),
  text: fc.string({ maxLength: 20 }),
  code: fc.stringMatching(/^[a-z_]{1,64}$/),
  key: base64url(32),
  sig: base64url(64),
  // long constants of the right size: their bytes are not looked at
  kem_pub: fc.nat(255).map((byte) => toBase64url(new Uint8Array(1216).fill(byte))),
  box: fc.nat(255).map((byte) => toBase64url(new Uint8Array(1168).fill(byte))),
  prev_box: base64url(48),
  b64: fc.uint8Array({ maxLength: 30 }).map(toBase64url),
}

export function valuesOf(field: Field): fc.Arbitrary<unknown> {
  if (typeof field === 'string') {
    if (field.startsWith('=')) return fc.constant(field.slice(1))
    const kind = scalars[field.replace('?', '').replace('|null', '')]
    if (kind === undefined) throw new Error(`no values of ${field}`)
    return field.endsWith('|null') ? fc.option(kind) : kind
  }
  if ('oneOf' in field) return fc.constantFrom(...field.oneOf)
  if ('object' in field) return field.nullable === true ? fc.option(objectsOf(field.object)) : objectsOf(field.object)
  if ('list' in field) return fc.array(valuesOf(field.list), { maxLength: Math.min(3, field.max) })
  return fc.dictionary(scalars['uuid'] as fc.Arbitrary<string>, valuesOf(field.map), { maxKeys: 3, noNullPrototype: true })
}

export function objectsOf(shape: Shape): fc.Arbitrary<Record<string, unknown>> {
  const required = Object.entries(shape).flatMap(([name, field]) => (isOptional(field) ? [] : [name]))
  const fields = Object.fromEntries(Object.entries(shape).map(([name, field]) => [name, valuesOf(field)]))
  return fc.record(fields, { requiredKeys: required, noNullPrototype: true })
}

function isOptional(field: Field): boolean {
  return typeof field === 'string' ? field.endsWith('?') : field.optional === true
}
