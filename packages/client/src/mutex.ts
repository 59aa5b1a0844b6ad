/** Runs calls one after another, in the order in which they came. A failed call does not stop the next. */
export type Mutex = <T>(call: () => Promise<T>) => Promise<T>

export function createMutex(): Mutex {
  let last: Promise<unknown> = Promise.resolve()
  return (call) => {
    const next = last.then(call, call)
    last = next.catch(() => undefined)
    return next
  }
}

/**
 * One run answers all who asked before it began; whoever asks while it runs may need what it has not seen, and gets the next run.
 * Bound: one run at a time, and one behind it.
 */
export function createShared(run: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | null = null
  let next: Promise<void> | null = null

  function begin(): Promise<void> {
    next = null
    running = run().finally(() => {
      running = null
    })
    return running
  }

  return () => {
    if (running === null) return begin()
    next ??= running.then(begin, begin)
    return next
  }
}
