/**
 * The log: JSON lines, written synchronously, so that the last ones before an exit are not lost (a relay logs little).
 * Of an error only what is known to be safe is written: errors of the database driver carry the whole connection.
 */
import { type BaseLogger, type DestinationStream, destination, pino } from 'pino'

/** What the parts of the server need of a logger: pino's four levels. */
export type Log = Pick<BaseLogger, 'debug' | 'info' | 'warn' | 'error'>

/** Its level may be set while it is used. */
export type LeveledLog = Log & { level: string }

const CAUSES_MAX = 4

/** `base`: is in every line. */
export function createLog(
  level: string,
  out: DestinationStream = destination({ fd: 2, sync: true }),
  base: object | null = null,
): LeveledLog {
  return pino({ level, base, serializers: { err: describeError } }, out)
}

type Described = { type: string; code?: string; message: string; stack?: string; cause?: Described }

function describeError(error: unknown, depth = 0): Described {
  if (!(error instanceof Error)) return { type: typeof error, message: String(error) }
  const { name, message, stack, cause } = error
  const code = 'code' in error && typeof error.code === 'string' ? { code: error.code } : {}
  const inner = cause === undefined || depth >= CAUSES_MAX ? {} : { cause: describeError(cause, depth + 1) }
  return { type: name, ...code, message, ...(stack === undefined ? {} : { stack }), ...inner }
}
