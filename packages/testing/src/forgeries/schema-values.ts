/** Requests made of the operations of the API document: right ones, nearly right ones, and noise. */
import { createHash } from 'node:crypto'
import * as fc from 'fast-check'
import type { Operation } from '../../../server/src/api/operations.ts'

type Schema = { [keyword: string]: unknown }
export type FuzzRequest = { method: string; url: string; headers: Record<string, string>; payload?: string | Buffer }
/** Values that somebody has: ids, tokens, names of files. */
export type Known = { ids: readonly string[]; token: string; files: readonly string[] }

/** Values of no schema. */
export const weird: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(null, true, -1, 2 ** 53, 1e308, '', '\u0000', '../..', "' or 1=1 --", '\ud800', '__proto__', 'A'.repeat(3_000)),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.jsonValue({ maxDepth: 3 }),
)

/** Bytes of a length, out of one number: drawing each by itself costs more than the request. */
const bytesOf = (length: number): fc.Arbitrary<Buffer> =>
  fc.nat().map((from) => createHash('shake256', { outputLength: length }).update(String(from)).digest())

/** Values that a schema takes, as far as it matters here; `weird` ones now and then. */
function valueOf(schema: Schema, known: Known): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 30, arbitrary: fitting(schema, known) }, { weight: 1, arbitrary: weird })
}

function fitting(schema: Schema, known: Known): fc.Arbitrary<unknown> {
  if (Array.isArray(schema['anyOf'])) return fc.oneof(...(schema['anyOf'] as Schema[]).map((one) => valueOf(one, known)))
  if (Array.isArray(schema['enum'])) return fc.constantFrom(...(schema['enum'] as unknown[]))
  if ('const' in schema) return fc.constant(schema['const'])
  switch (schema['type']) {
    case 'object':
      return objectOf(schema, known)
    case 'array':
      return fc.array(valueOf(schema['items'] as Schema, known), { maxLength: 3 })
    case 'integer':
    case 'number':
      return numberOf(schema)
    case 'boolean':
      return fc.boolean()
    case 'null':
      return fc.constant(null)
    default:
      return textOf(schema, known)
  }
}

function objectOf(schema: Schema, known: Known): fc.Arbitrary<object> {
  const required = new Set((schema['required'] ?? []) as string[])
  const members = Object.entries((schema['properties'] ?? {}) as Record<string, Schema>).map(([name, one]) =>
    fc.tuple(valueOf(one, known), fc.integer({ min: 0, max: 30 })).map(([value, luck]): [string, unknown][] => {
      const isThere = required.has(name) ? luck > 0 : luck > 12
      return isThere ? [[name, value]] : []
    }),
  )
  const extra = fc.oneof(
    { weight: 30, arbitrary: fc.constant([]) },
    { weight: 1, arbitrary: fc.tuple(fc.string(), fc.jsonValue()).map((pair): [string, unknown][] => [pair]) },
  )
  const rest = schema['additionalProperties']
  const entries =
    typeof rest === 'object'
      ? fc.array(fc.tuple(fc.constantFrom('root', ...known.ids), valueOf(rest as Schema, known)), { maxLength: 3 })
      : fc.tuple(...members, extra).map((all) => all.flat())
  return entries.map((pairs) => Object.fromEntries(pairs) as object)
}

/** At the bounds, near them, and anywhere. */
function numberOf({ minimum, maximum }: Schema): fc.Arbitrary<number> {
  const edges = [minimum, maximum].filter((bound) => typeof bound === 'number').flatMap((bound) => [bound, bound - 1, bound + 1])
  return fc.oneof(fc.nat(10), fc.maxSafeNat(), fc.constantFrom(0, 1, 0xffff_ffff, ...edges))
}

function textOf(schema: Schema, known: Known): fc.Arbitrary<string> {
  const pattern = typeof schema['pattern'] === 'string' ? schema['pattern'] : ''
  const length = /^\^\[A-Za-z0-9_-\]\{(\d+)\}\$$/.exec(pattern)
  if (length !== null) return bytesOf(Math.floor((Number(length[1]) * 3) / 4)).map((bytes) => bytes.toString('base64url'))
  if (pattern.includes('[0-9a-f]{8}-')) return fc.oneof(fc.uuid(), fc.constantFrom(...known.ids))
  if (pattern === '^[A-Za-z0-9_-]*$')
    return fc.oneof(
      fc.nat(200).chain((bytes) => bytesOf(bytes).map((of) => of.toString('base64url'))),
      fc.json().map((text) => Buffer.from(text).toString('base64url')),
    )
  const short = fc.oneof(fc.string({ maxLength: 30 }), fc.stringMatching(/^[a-zA-Z0-9._:-]{1,20}$/))
  return pattern.startsWith('^[a-z0-9.-]') ? fc.oneof(fc.constantFrom(...known.files), short) : short
}

/** A request of this operation. */
export function requestOf(path: string, method: string, operation: Operation, known: Known): fc.Arbitrary<FuzzRequest> {
  const parameters = operation.parameters ?? []
  const values = fc.tuple(...parameters.map((one) => valueOf(one.schema as Schema, known)))
  const rarely = <T>(arbitrary: fc.Arbitrary<T>, weight: number): fc.Arbitrary<T | null> =>
    fc.oneof({ weight, arbitrary: fc.constant(null) }, { weight: 1, arbitrary })
  const damage = rarely(fc.tuple(fc.nat(2_000), fc.string({ unit: 'binary', maxLength: 3 })), 20)
  const credential = rarely(fc.constantFrom('', 'Bearer x', 'Basic YTpi'), 20)
  const type = rarely(fc.constantFrom('text/plain', 'application/json; charset=latin1', 'x'), 40)
  return fc.tuple(values, payloadOf(operation, known), damage, credential, type).map(([given, payload, damaged, authorization, media]) => {
    const headers: Record<string, string> = { authorization: authorization ?? `Bearer ${known.token}` }
    const query = new URLSearchParams()
    let url = path
    for (const [i, { name, in: place, required }] of parameters.entries()) {
      const value = typeof given[i] === 'string' ? given[i] : (JSON.stringify(given[i]) ?? '')
      if (place === 'path') url = url.replace(`{${name}}`, encodeURIComponent(value.toWellFormed()) || '%20')
      else if (place === 'query') {
        if (required || value.length % 3 > 0) query.set(name, value)
      } else if (/^[\x21-\x7e]{1,200}$/.test(value)) headers[name] = value
    }
    const broken =
      typeof payload === 'string' && damaged !== null ? payload.slice(0, damaged[0]) + damaged[1] + payload.slice(damaged[0] + 1) : payload
    if (broken !== null) headers['content-type'] = media ?? (typeof broken === 'string' ? 'application/json' : 'application/octet-stream')
    const text = [...query].length === 0 ? '' : `?${query.toString()}`
    return { method: method.toUpperCase(), url: `${url}${text}`, headers, ...(broken === null ? {} : { payload: broken }) }
  })
}

function payloadOf({ requestBody }: Operation, known: Known): fc.Arbitrary<string | Buffer | null> {
  const json = requestBody?.content['application/json']?.schema
  if (json !== undefined) return valueOf(json as Schema, known).map((value) => JSON.stringify(value) ?? '')
  return requestBody === undefined ? fc.constant(null) : fc.nat(5_000).chain(bytesOf)
}
