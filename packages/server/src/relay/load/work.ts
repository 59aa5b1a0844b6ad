/** What is going on in the store for sessions and requests: counted, so that a close can wait for it, and in turn where it has to be. */
import type { Log } from '../../telemetry/log.ts'

export type Work = {
  /** Keeps count of it; a failure goes to the log. */
  track(work: Promise<void>): void
  /** Runs one at a time per key. */
  exclusively<T>(key: string, work: () => Promise<T>): Promise<T>
  /** Resolves when nothing is going on. */
  idle(): Promise<void>
}

export function createWork(logger: Log): Work {
  const working = new Set<Promise<void>>()
  const queues = new Map<string, Promise<unknown>>()
  return {
    track(work) {
      const tracked = work
        .catch((error: unknown) => logger.error({ err: error }, 'work of the relay failed'))
        .finally(() => working.delete(tracked))
      working.add(tracked)
    },
    async exclusively(key, work) {
      const before = queues.get(key) ?? Promise.resolve()
      const mine = before.then(work, work)
      queues.set(key, mine)
      try {
        return await mine
      } finally {
        if (queues.get(key) === mine) queues.delete(key)
      }
    },
    async idle() {
      while (working.size > 0) await Promise.all(working)
    },
  }
}

/** Whoever writes the fence of a device, or looks at it, takes its turn under this key. */
export function deviceKey({ user_no, device_no }: { user_no: number; device_no: number }): string {
  return `${user_no}/${device_no}`
}
