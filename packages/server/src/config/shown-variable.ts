/** Variables as they may be shown: of a secret only whether it is set. */
import type { Variable } from './variables.ts'

export type ShownVariable = { name: string; value: string | null; is_set: boolean; secret: boolean; says: string }

/** `given`: the text that it was set to. */
export function showVariable(name: string, variable: Variable, given: string | undefined): ShownVariable {
  const { secret = false, says } = variable
  const is_set = given !== undefined && given !== ''
  return { name, value: secret ? null : is_set ? given : defaultText(variable), is_set, secret, says }
}

/** The text of a default, or null when there is none. */
export function defaultText(variable: Variable): string | null {
  const value: unknown = variable.schema.parse(undefined)
  if (value === null || (Array.isArray(value) && value.length === 0) || (value instanceof Map && value.size === 0)) return null
  return typeof value === 'string' ? value : JSON.stringify(value)
}
