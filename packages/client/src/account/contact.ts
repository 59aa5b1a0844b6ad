/**
 * REST calls on the way into an account (protocol.md §10): there is no session yet that would tell the server's time or come back
 * by itself, so the first answer tells the time and what fails in passing is tried again. A pairing slot is filled once and
 * waited for; a lost answer to a fill is no failure.
 */
import { equalBytes, type ErrorCode, LIMITS, type PairingKeys, type PairingSlot, SealpostError } from '@sealpost/protocol'
import type { Clock, Home, Http } from '../ports.ts'
import { createRest, type Rest } from '../connection/rest.ts'
import { sleep, throwIfAborted } from '../signal.ts'

const PAUSE_MS = { first: 250, last: 4_000 } as const
const PASSING: ReadonlySet<ErrorCode> = new Set(['unreachable', 'timeout', 'unavailable', 'overloaded', 'rate_limited'])

/** For a first answer of a server that may not have been reached yet. */
export const FIRST_TRIES_MS = 1_500

export type Contact = {
  rest: Rest
  /** ms, the server's clock as its first answer told it (G07). */
  now(): number
  /** Calls until it succeeds, fails for good, or the next try, not before the server's own time for it, would be after `until` (monotonic). */
  again<T>(until: number, signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T>
}

export function openContact(home: Home, url: string, knownOffset: () => number): Contact {
  const { clock } = home
  let offset: number | null = null
  const http: Http = {
    async request(request) {
      const response = await home.http.request(request)
      const date = Date.parse(response.headers['date'] ?? '')
      // whole seconds, cut off
      if (offset === null && !Number.isNaN(date)) offset = date + 500 - clock.now()
      return response
    },
    stream: (request) => home.http.stream(request),
  }
  return {
    rest: createRest(http, url),
    now: () => clock.now() + (offset ?? knownOffset()),
    async again(until, signal, call) {
      for (let pause: number = PAUSE_MS.first; ; pause = Math.min(2 * pause, PAUSE_MS.last)) {
        try {
          return await call()
        } catch (error) {
          const wait = Math.max(pause, error instanceof SealpostError ? (error.retry_after_ms ?? 0) : 0)
          if (isFinal(error) || clock.mono() + wait >= until) throw error
          await sleep(clock, wait, signal)
        }
      }
    },
  }
}

export function isFinal(error: unknown): boolean {
  return !(error instanceof SealpostError && PASSING.has(error.code))
}

/** A slot that holds these very bytes was filled by this device: the answer to that was lost. */
export async function putSlot(
  rest: Rest,
  keys: PairingKeys,
  slot: PairingSlot,
  box: Uint8Array,
  token: string | null,
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    await rest.putSlot(keys.mailbox_id, slot, box, token, signal)
  } catch (error) {
    if (!(error instanceof SealpostError) || error.code !== 'slot_taken') throw error
    const held = await rest.readSlot(keys.mailbox_id, slot, 0, signal)
    if (held === null || !equalBytes(held, box)) throw error
  }
}

/** Long-polls a slot until it is filled; null when `until` (monotonic) has passed. */
export async function awaitSlot(
  { rest, again }: Pick<Contact, 'rest' | 'again'>,
  clock: Clock,
  keys: PairingKeys,
  slot: PairingSlot,
  until: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | null> {
  for (;;) {
    throwIfAborted(signal)
    const began = clock.mono()
    const left = Math.floor((until - began) / 1000)
    if (left <= 0) return null
    const wait = Math.min(LIMITS.pairingWaitSeconds, left)
    const box = await again(until, signal, () => rest.readSlot(keys.mailbox_id, slot, wait, signal))
    if (box !== null) return box
    // a server that does not wait is not asked without a pause
    if (clock.mono() - began < 1_000) await sleep(clock, 1_000, signal)
  }
}
