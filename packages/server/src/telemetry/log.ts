/**
 * The log: JSON lines, written synchronously, so that the last ones before an exit are not lost (a relay logs little).
 * Of an error only what is known to be safe is written: errors of the database driver carry the whole connection.
 *
 * A warning or error that comes again is counted (`repeats.ts`). Two of them are of one kind if their sentence, their fields and
 * the codes of their error and its causes are the same. What has a field `audit` is written each time.
 */
import { type BaseLogger, type DestinationStream, destination, pino } from 'pino'
import { inspect } from 'node:util'
import { createRepeats, type Occurrence } from './repeats.ts'

/**
 * What the parts of the server need of a logger: pino's four levels. A line with a field `over` says that what failed with that code
 * (of `err`, or a field of the line) has ended.
 */
export type Log = Pick<BaseLogger, 'debug' | 'info' | 'warn' | 'error'>

/** Its level may be set while it is used. `close` tells what was counted. */
export type LeveledLog = Log & { level: string; close(): void }

const CAUSES_MAX = 4
const WARN = 40

/** `base`: is in every line. */
export function createLog(
  level: string,
  out: DestinationStream = destination({ fd: 2, sync: true }),
  base: object | null = null,
): LeveledLog {
  const repeats = createRepeats()
  const log = pino(
    {
      level,
      base,
      serializers: { err: describeError },
      hooks: {
        logMethod(args, method, severity) {
          const [first, second] = args as unknown[]
          const fields: Fields = typeof first === 'object' && first !== null ? first : {}
          const sentence = [first, second].find((part) => typeof part === 'string') ?? ''
          const isFailure = severity >= WARN && fields.audit === undefined
          if (!isFailure && fields.over === undefined) return method.apply(this, args)
          const line = { ...kindOf(fields, sentence), write: (...told: [object, string]) => method.apply(this, told as never) }
          if (!isFailure) repeats.end(line)
          else if (repeats.take(line)) method.apply(this, args)
        },
      },
    },
    out,
  )
  return Object.assign(log, { close: repeats.close })
}

type Fields = { err?: unknown; code?: unknown; over?: unknown; audit?: unknown; request_id?: unknown }

/** What a count of lines tells of them: the cause, and no stack. */
function kindOf({ err, over, ...rest }: Fields, sentence: string): Omit<Occurrence, 'write'> {
  const fields = { ...rest, request_id: undefined }
  const chain = err === undefined ? [] : chainOf(describeError(err))
  const cause = chain.map(({ code, message }) => (code === undefined ? message : `${message} (${code})`)).join(': ')
  return {
    // of an error without a code what it says
    key: inspect([sentence, fields, over, chain.map(({ code, message }) => code ?? message)]),
    code: [over, chain[0]?.code, fields.code].find((code) => typeof code === 'string') ?? null,
    fields: cause === '' ? fields : { ...fields, cause },
    sentence,
  }
}

type Described = { type: string; code?: string; message: string; stack?: string; cause?: Described }

function describeError(error: unknown, depth = 0): Described {
  if (!(error instanceof Error)) return { type: typeof error, message: String(error) }
  const { name, message, stack, cause } = error
  const code = 'code' in error && typeof error.code === 'string' ? { code: error.code } : {}
  const inner = cause === undefined || depth >= CAUSES_MAX ? {} : { cause: describeError(cause, depth + 1) }
  return { type: name, ...code, message, ...(stack === undefined ? {} : { stack }), ...inner }
}

/** The error and its causes. */
function chainOf(described: Described): Described[] {
  return [described, ...(described.cause === undefined ? [] : chainOf(described.cause))]
}
