/**
 * An interpreter of about 60 lines for the plain-data schemas of `messages.ts`: validation with a bound on everything and
 * mapped types. A checked object holds the known fields only; unknown ones are ignored (protocol.md §1).
 */
import { fromBase64url, isUuid } from './bytes.ts'
import { SealpostError } from './errors.ts'

/** The scalar kinds: their TypeScript type and their rule. */
const SCALARS = {
  bool: (v: unknown): v is boolean => typeof v === 'boolean',
  /** A JSON safe integer ≥ 0. */
  int: (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) >= 0 && !Object.is(v, -0),
  u32: (v: unknown): v is number => Number.isInteger(v) && (v as number) >= 0 && (v as number) <= 0xffff_ffff && !Object.is(v, -0),
  uuid: (v: unknown): v is string => typeof v === 'string' && isUuid(v),
  /** `device_id` or `root`. */
  signer: (v: unknown): v is string => typeof v === 'string' && (v === 'root' || isUuid(v)),
  /** A stream_id or an event type. */
  label: (v: unknown): v is string => typeof v === 'string' && LABEL.test(v),
  /** Opaque text: session ids, tokens. */
  opaque: (v: unknown): v is string => typeof v === 'string' && v.length > 0 && v.length <= 1024,
  text: (v: unknown): v is string => typeof v === 'string' && v.length <= 1024,
  code: (v: unknown): v is string => typeof v === 'string' && /^[a-z_]{1,64}$/.test(v),
  key: (v: unknown): v is string => isBase64url(v, 32),
  sig: (v: unknown): v is string => isBase64url(v, 64),
  kem_pub: (v: unknown): v is string => isBase64url(v, 1216),
  box: (v: unknown): v is string => isBase64url(v, 1168),
  prev_box: (v: unknown): v is string => isBase64url(v, 48),
  /** Any bytes as base64url, at most 96 KiB of text. */
  b64: (v: unknown): v is string => isBase64url(v),
} as const

export const LABEL = /^[A-Za-z0-9._:-]{1,64}$/

function isBase64url(value: unknown, length?: number): boolean {
  if (typeof value !== 'string' || value.length > 98_304) return false
  try {
    fromBase64url(value, length)
    return true
  } catch {
    return false
  }
}

type Scalar = keyof typeof SCALARS
type ScalarType<S extends Scalar> = (typeof SCALARS)[S] extends (v: unknown) => v is infer T ? T : never

/** `kind`, `kind|null`, `kind?` (may be absent), a literal `=text`, a bounded list, a map by `device_id` or `root`, an object, a choice. */
export type Field =
  | Scalar
  | `${Scalar}|null`
  | `${Scalar}?`
  | `=${string}`
  | { readonly list: Field; readonly max: number; readonly optional?: true }
  | { readonly map: Scalar; readonly max: number; readonly optional?: true }
  | { readonly object: Shape; readonly nullable?: true; readonly optional?: true }
  | { readonly oneOf: readonly (string | number)[]; readonly optional?: true }

export type Shape = { readonly [name: string]: Field }

type OptionalKeys<S extends Shape> = { [K in keyof S]: S[K] extends `${string}?` | { optional: true } ? K : never }[keyof S]

export type Of<S extends Shape> = { [K in Exclude<keyof S, OptionalKeys<S>>]: OfField<S[K]> } & {
  [K in OptionalKeys<S>]?: OfField<S[K]>
}

type OfField<F> = F extends Scalar
  ? ScalarType<F>
  : F extends `${infer S extends Scalar}|null`
    ? ScalarType<S> | null
    : F extends `${infer S extends Scalar}?`
      ? ScalarType<S>
      : F extends `=${infer L}`
        ? L
        : F extends { readonly list: infer L; readonly max: number }
          ? OfField<L>[]
          : F extends { readonly map: infer S extends Scalar; readonly max: number }
            ? Record<string, ScalarType<S>>
            : F extends { readonly object: infer O extends Shape }
              ? Of<O> | (F extends { readonly nullable: true } ? null : never)
              : F extends { readonly oneOf: readonly (infer V)[] }
                ? V
                : never

/** Checks `value` against `shape`; throws `invalid_message` that names the field. */
export function check<const S extends Shape>(shape: S, value: unknown, at = 'message'): Of<S> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(at)
  const out: Record<string, unknown> = {}
  for (const [name, field] of Object.entries(shape)) {
    const given = Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
    if (given === undefined) {
      if (isOptional(field)) continue
      throw wrong(`${at}.${name}`)
    }
    out[name] = checkField(field, given, `${at}.${name}`)
  }
  return out as Of<S>
}

function isOptional(field: Field): boolean {
  return typeof field === 'string' ? field.endsWith('?') && !field.startsWith('=') : field.optional === true
}

function checkField(field: Field, value: unknown, at: string): unknown {
  if (typeof field === 'string') {
    if (field.startsWith('=')) return value === field.slice(1) ? value : fail(at)
    if (field.endsWith('|null')) return value === null ? null : checkField(field.slice(0, -5) as Scalar, value, at)
    return SCALARS[field.replace('?', '') as Scalar](value) ? value : fail(at)
  }
  if ('oneOf' in field) return (field.oneOf as readonly unknown[]).includes(value) ? value : fail(at)
  if ('object' in field) return value === null && field.nullable === true ? null : check(field.object, value, at)
  if ('list' in field) {
    if (!Array.isArray(value) || value.length > field.max) return fail(at)
    return value.map((item, i) => checkField(field.list, item, `${at}[${i}]`))
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail(at)
  const entries = Object.entries(value)
  if (entries.length > field.max) return fail(at)
  return Object.fromEntries(
    entries.map(([key, item]) => [SCALARS.signer(key) ? key : fail(at), checkField(field.map, item, `${at}.${key}`)]),
  )
}

function wrong(at: string): SealpostError {
  return new SealpostError('invalid_message', `${at} is missing or not valid`)
}

function fail(at: string): never {
  throw wrong(at)
}
