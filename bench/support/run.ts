/**
 * The frame of every bench: what it opens is closed in reverse, also after an error, a signal or too long a time; then its process ends.
 */
export const NODE_FLAGS = ['--conditions=development', '--disable-warning=ExperimentalWarning']

/** Remembers how something is closed. */
export type Defer = (close: () => Promise<unknown> | void) => void

const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const
const CLOSE_MS_MAX = 20_000

/** `bench` answers whether its figures are what they must be. */
export async function runBench(bench: (defer: Defer) => Promise<boolean>, ms_max: number): Promise<never> {
  const open: (() => Promise<unknown> | void)[] = []
  let closing: Promise<void> | undefined
  const closeAll = async (): Promise<void> => {
    for (let close = open.pop(); close !== undefined; close = open.pop()) {
      await Promise.resolve()
        .then(close)
        .catch((error: unknown) => process.stderr.write(`${String(error)}\n`))
    }
  }
  const end = async (code: number): Promise<never> => {
    setTimeout(() => process.exit(code), CLOSE_MS_MAX)
    await (closing ??= closeAll())
    process.exit(code)
  }
  for (const [signal, code] of Object.entries(SIGNALS)) process.on(signal, () => void end(code))
  if (process.connected) process.on('disconnect', () => void end(1))
  const late = setTimeout(() => {
    process.stderr.write(`not done after ${ms_max / 1000} s\n`)
    void end(1)
  }, ms_max)
  try {
    const good = await bench((close) => {
      open.push(close)
      // what was still being opened when all was closed
      if (closing !== undefined) void closeAll()
    })
    clearTimeout(late)
    return await end(good ? 0 : 1)
  } catch (error) {
    // what was closed under a bench that goes on is no news
    if (closing === undefined) process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
    return end(1)
  }
}
