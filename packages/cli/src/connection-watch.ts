/**
 * Waiting for the server without waiting for ever: work goes on while a connection stands or comes back soon; it ends with
 * the engine's terminal error, or with `unreachable` once the connection has been away for the grace. What waits for acks
 * also ends with a trouble that lasts (a quota): the connection stands then and nothing moves.
 */
import type { Notice, Sealpost } from '@sealpost/client'
import { type ErrorCode, SealpostError } from '@sealpost/protocol'
import { OUTCOMES } from './exit-codes.ts'

/** For a server that has not answered yet, and for one that this command has already talked to (it may be restarting). */
const GRACE_MS = { first: 3_000, later: 15_000 } as const
/** A trouble that is over by then was none; one that passes by itself, at a time that the server gives, gets longer. */
const TROUBLE_MS = 2_000
const PASSING_MS: Partial<Record<ErrorCode, number>> = { rate_limited: 90_000, unavailable: 90_000 }
const LOOK_MS = 50

export type ConnectionWatch = {
  /** Runs `work` with a signal; rejects with what ended the wait. The signal also follows `signal`. `acks`: a trouble that lasts ends it too. */
  during<T>(work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal, waitsFor?: 'acks'): Promise<T>
  /** True once connected and caught up, false as soon as an attempt failed or `ms` are over. */
  settle(ms: number, signal: AbortSignal): Promise<boolean>
  isConnected(): boolean
  /** The terminal error of the engine, once there is one. */
  readonly failure: SealpostError | null
  /** Why the server is away: `unreachable`, with the first cause that is known. */
  awayBecause(): SealpostError
  /** The last thing told of that did not verify, or null. */
  readonly alarm: { reason: string; message: string } | null
  /** Aborted with the terminal error. */
  readonly failed: AbortSignal
  close(): void
}

export function watchConnection(sealpost: Sealpost): ConnectionWatch {
  let away: number | null = performance.now()
  let attemptFailed = false
  let metBefore = false
  let failure: SealpostError | null = null
  let alarm: ConnectionWatch['alarm'] = null
  let trouble: { error: SealpostError; since: number } | null = null
  const failed = new AbortController()

  const note = (state: Sealpost['state']): void => {
    if (state === 'live' || state === 'replaying') {
      away = null
      attemptFailed = false
      metBefore = true
      return
    }
    away ??= performance.now()
    if (state === 'offline') attemptFailed = true
  }
  const take = (notice: Notice): void => {
    if (notice.is === 'state') note(notice.state)
    if (notice.is === 'alarm')
      alarm = { reason: notice.reason, message: 'something from the server did not verify and was not handed over' }
    if (notice.is !== 'error') return
    if (!notice.terminal) {
      const { code, message } = notice.error
      if (OUTCOMES[code].exit === 'integrity') alarm = { reason: code, message }
      return
    }
    failure ??= notice.error
    failed.abort(failure)
  }
  const look = (): void => {
    // A failure may have come before anybody listened, and a follower hears of the state late.
    if (sealpost.failure !== null) take({ is: 'error', error: sealpost.failure, terminal: true })
    note(sealpost.state)
    const error = sealpost.trouble
    if (error === null) trouble = null
    else if (trouble?.error.code !== error.code) trouble = { error, since: performance.now() }
  }
  look()
  const stop = sealpost.on(take)

  const awayBecause = (): SealpostError => {
    const cause = sealpost.offlineCause
    return cause?.code === 'unreachable' ? cause : new SealpostError('unreachable', 'the server cannot be reached', { cause })
  }

  const isGone = (): boolean => {
    look()
    return away !== null && attemptFailed && performance.now() - away > (metBefore ? GRACE_MS.later : GRACE_MS.first)
  }

  return {
    async during(work, signal, waitsFor) {
      const ended = new AbortController()
      const ending = Promise.withResolvers<never>()
      const end = (error: SealpostError): void => {
        ending.reject(error)
        ended.abort(error)
      }
      const fail = (): void => end(failure ?? new SealpostError('internal', 'the engine has stopped'))
      const interrupt = (): void => end(new SealpostError('aborted', 'interrupted'))
      const began = performance.now()
      const check = (): void => {
        if (isGone()) end(sealpost.trouble?.code === 'suspended' ? sealpost.trouble : awayBecause())
        else if (
          waitsFor === 'acks' &&
          trouble !== null &&
          performance.now() - Math.max(began, trouble.since) > (PASSING_MS[trouble.error.code] ?? TROUBLE_MS)
        )
          end(trouble.error)
      }
      const timer = setInterval(check, LOOK_MS)
      failed.signal.addEventListener('abort', fail, { once: true })
      signal.addEventListener('abort', interrupt, { once: true })
      try {
        if (failed.signal.aborted) fail()
        else if (signal.aborted) interrupt()
        return await Promise.race([ending.promise, work(ended.signal)])
      } finally {
        clearInterval(timer)
        failed.signal.removeEventListener('abort', fail)
        signal.removeEventListener('abort', interrupt)
      }
    },
    async settle(ms, signal) {
      const until = performance.now() + ms
      while (performance.now() < until && !signal.aborted) {
        look()
        if (failure !== null) return false
        if (sealpost.state === 'live') return true
        if (attemptFailed) return false
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS / 5))
      }
      return away === null
    },
    awayBecause,
    isConnected: () => sealpost.state === 'live' || sealpost.state === 'replaying',
    get failure() {
      return failure
    },
    get alarm() {
      return alarm
    },
    failed: failed.signal,
    close: stop,
  }
}
