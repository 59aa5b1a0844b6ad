/**
 * REST calls on the way into an account (protocol.md §10): there is no session yet that would tell the server's time or come back
 * by itself, so what fails in passing is tried again, and so is what was refused for its time: the refusal tells the server's. A pairing
 * slot is filled once and waited for; a lost answer to a fill is no failure.
 */
import { equalBytes, type ErrorCode, LIMITS, type PairingKeys, type PairingSlot, SealpostError } from '@sealpost/protocol'
import type { Clock, Home } from '../ports.ts'
import { createRest, type Rest } from '../connection/rest.ts'
import { clockError, hearing, type ServerClock } from '../connection/server-clock.ts'
import { sleep, throwIfAborted } from '../signal.ts'

const PAUSE_MS = { first: 250, last: 4_000 } as const
const PASSING: ReadonlySet<ErrorCode> = new Set(['unreachable', 'timeout', 'unavailable', 'overloaded', 'rate_limited'])

/** For a first answer of a server that may not have been reached yet. */
export const FIRST_TRIES_MS = 1_500

export type Contact = {
  rest: Rest
  /** Calls until it succeeds, fails for good, or the next try, not before the server's own time for it, would be after `until` (monotonic). */
  again<T>(until: number, signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T>
}

/** `time`: hears what each answer tells, and is asked for what is signed. */
export function openContact({ clock, http }: Pick<Home, 'clock' | 'http'>, url: string, time: ServerClock): Contact {
  return {
    rest: createRest(hearing(http, time), url),
    async again(until, signal, call) {
      let corrected = false
      for (let pause: number = PAUSE_MS.first; ; pause = Math.min(2 * pause, PAUSE_MS.last)) {
        try {
          return await call()
        } catch (error) {
          if (error instanceof SealpostError && error.code === 'expired') {
            if (corrected) throw clockError(error, time)
            // what was signed with the time that was known before
            corrected = true
            continue
          }
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
