/** Pauses between attempts to connect (protocol.md §4): full jitter over an exponentially growing bound, 0.25 s to 30 s. */

const FIRST_MS = 500
const MOST_MS = 30_000
/** Never at once: a server that refuses everybody must not be met by a busy loop. */
const LEAST_MS = 100

/** `attempt` counts failures in a row from 1; `jitter` in [0, 1). The result lies in [100, 30,000] ms. */
export function backoffMs(attempt: number, jitter: number): number {
  const bound = Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(attempt - 1, 16))
  return Math.max(LEAST_MS, Math.round(bound / 2 + (bound / 2) * jitter))
}

/** A number in [0, 1) out of six random bytes. */
export function toUnit(random: Uint8Array): number {
  let value = 0
  for (const byte of random.subarray(0, 6)) value = value * 256 + byte
  return value / 2 ** 48
}
