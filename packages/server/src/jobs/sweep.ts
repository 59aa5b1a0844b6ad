/** Removes expired mailboxes and remembered assertions, a bounded number at a time, again at once while there are more. */
import type { Log } from '../log.ts'
import type { PairingStore } from '../ports.ts'

const PAUSE_MS = 60_000
const ROWS_MAX = 1_000

/** Returns how to end it; a sweep that runs is waited for. */
export function startSweep(store: Pick<PairingStore, 'sweepExpired'>, logger: Log): () => Promise<void> {
  const ending = new AbortController()
  let running = Promise.resolve()
  const timer = setInterval(() => {
    running = running.then(sweep)
  }, PAUSE_MS)
  timer.unref()

  async function sweep(): Promise<void> {
    try {
      while (!ending.signal.aborted && (await store.sweepExpired(ROWS_MAX)) >= ROWS_MAX);
    } catch (error) {
      logger.warn({ err: error }, 'expired rows were not removed; the next sweep does it')
    }
  }

  return async () => {
    ending.abort()
    clearInterval(timer)
    await running
  }
}
