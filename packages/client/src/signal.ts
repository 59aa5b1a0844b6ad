/** Listeners and waiting: the few pieces that every asynchronous part of the engine shares. */
import { SealpostError } from '@sealpost/protocol'
import type { Clock } from './ports.ts'

/** A set of listeners; a listener that throws does not keep the others from hearing. */
export type Topic<T> = { emit(value: T): void; on(listener: (value: T) => void): () => void }

export function createTopic<T>(): Topic<T> {
  const listeners = new Set<(value: T) => void>()
  return {
    emit(value) {
      for (const listener of Array.from(listeners)) {
        try {
          listener(value)
        } catch (error) {
          // the application's own fault: it surfaces as such, outside of the engine
          queueMicrotask(() => {
            throw error
          })
        }
      }
    },
    on(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

export type Deferred<T> = { promise: Promise<T>; resolve(value: T): void; reject(error: unknown): void }

export function defer<T>(): Deferred<T> {
  const deferred = Promise.withResolvers<T>()
  // whoever waits sees the failure; a deferred nobody waits for any more is no fault
  deferred.promise.catch(() => undefined)
  return deferred
}

/** Waits until `look` is true, asked now and whenever the topic speaks. An error that it gives ends the wait; `bound` limits it. */
export async function until<T>(
  topic: Topic<T>,
  look: () => boolean | SealpostError,
  bound: (met: Promise<void>) => Promise<void>,
): Promise<void> {
  const met = defer<void>()
  const ask = (): void => {
    const seen = look()
    if (seen === true) met.resolve()
    else if (seen !== false) met.reject(seen)
  }
  const off = topic.on(ask)
  ask()
  try {
    await bound(met.promise)
  } finally {
    off()
  }
}

export function aborted(signal: AbortSignal | undefined): SealpostError {
  return new SealpostError('aborted', 'ended by the caller', { cause: signal?.reason })
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw aborted(signal)
}

/** The promise, or `aborted` as soon as the signal says so. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  throwIfAborted(signal)
  const stop = defer<never>()
  const listener = (): void => stop.reject(aborted(signal))
  signal.addEventListener('abort', listener, { once: true })
  try {
    return await Promise.race([promise, stop.promise])
  } finally {
    signal.removeEventListener('abort', listener)
  }
}

/** The promise, or what `late` throws after `ms`. */
export async function within<T>(clock: Clock, ms: number, promise: Promise<T>, late: () => SealpostError): Promise<T> {
  const stop = defer<never>()
  const cancel = clock.setTimer(ms, () => stop.reject(late()))
  try {
    return await Promise.race([promise, stop.promise])
  } finally {
    cancel()
  }
}

export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  const slept = defer<void>()
  const cancel = clock.setTimer(ms, () => slept.resolve())
  return orAborted(slept.promise, signal).finally(cancel)
}
