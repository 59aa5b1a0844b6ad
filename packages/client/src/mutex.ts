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
