/** Durations at the command line: a whole number and a unit, `30s`, `15m`, `1h`, `2d`; a bare number is seconds. */
import { UsageError } from './exit-codes.ts'

const SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 } as const

/** The ttl of an event is a u32 of seconds on the wire. */
const TTL_SECONDS_MAX = 0xffff_ffff

/** Seconds, 1 … 2^32−1. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,12})([smhdw])?$/.exec(text.trim())
  const seconds = match === null ? 0 : Number(match[1]) * SECONDS[(match[2] ?? 's') as keyof typeof SECONDS]
  if (seconds < 1 || seconds > TTL_SECONDS_MAX)
    throw new UsageError(`"${text}" is not a duration`, 'give a number and a unit, such as 30s, 15m, 1h or 2d')
  return seconds
}

/** A whole number ≥ `min`. */
export function parseCount(text: string, what: string, min: number): number {
  const value = /^\d{1,15}$/.test(text.trim()) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value) || value < min)
    throw new UsageError(`${what} must be a whole number of at least ${min}, not "${text}"`, `for example ${what} ${Math.max(min, 10)}`)
  return value
}

/** Seconds ≥ 0, fractions allowed; the answer is in milliseconds. */
export function parseSecondsToMs(text: string, what: string): number {
  const value = /^\d{1,9}(\.\d{1,3})?$/.test(text.trim()) ? Number(text) : Number.NaN
  if (!Number.isFinite(value)) throw new UsageError(`${what} must be a number of seconds, not "${text}"`, `for example ${what} 5`)
  return Math.round(value * 1000)
}
