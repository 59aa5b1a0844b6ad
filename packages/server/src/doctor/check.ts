/** One check of a deployment, and the words that all of them use. */
import type { Facts, Seen } from './facts.ts'

export type Verdict =
  | { is: 'ok' | 'skipped'; found: string; advice?: string }
  /** `fail`: a promise is in danger, or the relay cannot do its work. `warn`: it may come to that. */
  | { is: 'warn' | 'fail'; found: string; advice: string }

export type Check = {
  name: string
  /** What it looks at. */
  says: string
  run(facts: Facts): Verdict
}

export const ok = (found: string): Verdict => ({ is: 'ok', found })
export const warn = (found: string, advice: string): Verdict => ({ is: 'warn', found, advice })
export const fail = (found: string, advice: string): Verdict => ({ is: 'fail', found, advice })
export const skipped = (found: string, advice?: string): Verdict => ({
  is: 'skipped',
  found,
  ...(advice === undefined ? {} : { advice }),
})

/** Judges what was seen; what was not is skipped, and says why. */
export function seen<T>(value: Seen<T>, judge: (value: T) => Verdict): Verdict {
  return 'seen' in value ? judge(value.seen) : skipped(value.unseen)
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

export function sizeText(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(bytes) / 10))
  const value = bytes / 2 ** (10 * power)
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[power]}`
}

export function secondsText(seconds: number): string {
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`
  return seconds < 7_200 ? `${Math.round(seconds / 60)} min` : seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : daysText(seconds)
}

export function daysText(seconds: number): string {
  return `${Math.round(seconds / 86_400)} days`
}
