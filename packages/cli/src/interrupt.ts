/**
 * SIGINT, SIGTERM and SIGHUP ask a command to end in good order; asked again after a second, the process ends at once.
 * A terminal and a wrapper may both deliver the same Ctrl-C, so signals within that second are one.
 */
const SAME_SIGNAL_MS = 1_000
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
const EXIT_INTERRUPTED = 130

export type Interrupt = { signal: AbortSignal; close(): void }

export function listenForInterrupt(): Interrupt {
  const controller = new AbortController()
  let first: number | null = null
  const take = (): void => {
    const now = performance.now()
    first ??= now
    if (now - first > SAME_SIGNAL_MS) process.exit(EXIT_INTERRUPTED)
    controller.abort()
  }
  for (const name of SIGNALS) process.on(name, take)
  return {
    signal: controller.signal,
    close() {
      for (const name of SIGNALS) process.off(name, take)
    },
  }
}
