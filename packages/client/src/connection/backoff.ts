/**
 * Pauses between attempts to connect (protocol.md §4): half of an exponentially growing bound and a random part of the other half,
 * 0.25 to 0.5 s at first, 15 to 30 s at last.
 */

const FIRST_MS = 500
const MOST_MS = 30_000
/** `attempt` counts failures in a row from 1; `jitter` in [0, 1). The result lies in [250, 30,000] ms. */
export function backoffMs(attempt: number, jitter: number): number {
  const bound = Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(attempt - 1, 16))
  return Math.round(bound / 2 + (bound / 2) * jitter)
}

/** A number in [0, 1) out of six random bytes. */
export function toUnit(random: Uint8Array): number {
  let value = 0
  for (const byte of random.subarray(0, 6)) value = value * 256 + byte
  return value / 2 ** 48
}
