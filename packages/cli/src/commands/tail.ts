/**
 * `sealpost tail`: payloads exactly as sent on stdout, nothing else; gaps, alarms and resets on stderr (with --json as lines
 * of JSON there too). The place in the stream moves when stdout has taken the bytes, so a reader that ends early loses nothing.
 */
import type { StreamEvent } from '@sealpost/client'
import { type Bytes, LABEL, SealpostError, utf8Decode } from '@sealpost/protocol'
import { type Command, Option } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { parseCount, parseSecondsToMs } from '../duration.ts'
import { type Exit, UsageError } from '../exit-codes.ts'
import { print, say, sayJson } from '../output.ts'
import { sendLeftovers, type Session, withSession } from '../session.ts'

const FROM = ['start', 'last', 'now'] as const

type Options = { stream: string; from: (typeof FROM)[number]; json?: boolean; count?: string; idleExit?: string }
type EventItem = Extract<StreamEvent, { is: 'event' }>

/** Each consumer of a home has its own place in a stream. Reading from elsewhere does not move the place of `--from last`. */
const CONSUMER = { last: 'tail', start: 'tail-start', now: 'tail-now' } as const

export function addTail(program: Command): void {
  program
    .command('tail')
    .summary('receive: write what the other devices send')
    .description(
      'Writes the payloads of a stream to stdout, exactly as they were sent, and goes on live. Gaps and alarms go to stderr.\n' +
        '--from last (the default) goes on where this device stopped, start reads all that the server still has, now what comes from now on.\n' +
        'What this device sent itself is never shown.\n' +
        'With --json each event is an object on a line of its own: `data` is the payload if it is UTF-8, else `data_b64` (base64).\n' +
        'Ends with 0 on Ctrl-C, --count or --idle-exit; with 6 if an alarm was shown.',
    )
    .option('--stream <name>', 'stream to read', 'main')
    .addOption(new Option('--from <where>', 'where to begin').choices(FROM).default('last'))
    .option('--json', 'one JSON object per event')
    .option('--count <n>', 'end after so many events')
    .option('--idle-exit <seconds>', 'end when nothing has come for so long')
    .addHelpText(
      'after',
      examples(
        ['sealpost tail', 'follow the stream main'],
        ['sealpost tail --from start --idle-exit 2 > all.txt', 'everything there is, then end'],
        ['sealpost tail --json | jq -r \'.from.name + ": " + .data\'', 'who said what'],
      ),
    )
    .action(endWith(tail))
}

async function tail(context: Context, options: Options): Promise<Exit> {
  if (!LABEL.test(options.stream)) throw new UsageError(`--stream "${options.stream}" is not valid`, 'use 1 to 64 of A-Z a-z 0-9 . _ : -')
  const count = options.count === undefined ? Number.POSITIVE_INFINITY : parseCount(options.count, '--count', 1)
  const idle_ms = options.idleExit === undefined ? null : parseSecondsToMs(options.idleExit, '--idle-exit')
  return withSession(context, async (session) => {
    const done = new AbortController()
    const leftovers = sendLeftovers(session, done.signal).catch(() => {})
    const stop = sayWhenOffline(session)
    const { left, alarms } = await follow(session, options, count, idle_ms).finally(() => {
      stop()
      done.abort()
    })
    await leftovers
    const { watch, signal } = session
    if (watch.alarm !== null && !alarms.has(watch.alarm.reason)) {
      alarms.add(watch.alarm.reason)
      say(`sealpost: ALARM: ${watch.alarm.message} (${watch.alarm.reason})`)
    }
    if (alarms.size > 0) return 'integrity'
    if (left > 0 && idle_ms !== null && !signal.aborted && !watch.isConnected()) throw watch.awayBecause()
    return 'ok'
  })
}

type Followed = { /** Of the count. */ left: number /** Reasons of the alarms shown. */; alarms: Set<string> }

/** Writes until the count, the idle time, an interrupt or a failure. */
async function follow(session: Session, options: Options, count: number, idle_ms: number | null): Promise<Followed> {
  const { sealpost, watch, signal } = session
  const ended = new AbortController()
  const stop = (): void => ended.abort()
  const idle = createIdleTimer(idle_ms, session, stop)
  signal.addEventListener('abort', stop, { once: true })
  watch.failed.addEventListener('abort', stop, { once: true })
  if (signal.aborted || watch.failed.aborted) stop()
  let left = count
  const alarms = new Set<string>()
  try {
    const { from, stream } = options
    const items = sealpost.stream(stream).events({ from, signal: ended.signal, consumer: CONSUMER[from] })
    while (left > 0) {
      idle.start()
      const { done, value: item } = await items.next().finally(idle.stop)
      if (done === true) break
      if (item.is === 'event') {
        // Thrown into the iterator, a failed write keeps the place before this event.
        await print(options.json === true ? `${JSON.stringify(toJson(item))}\n` : item.data).catch((error: unknown) => items.throw(error))
        left -= 1
      } else {
        if (item.is === 'alarm' || (item.is === 'gap' && item.reason === 'unexplained')) alarms.add(item.reason)
        if (options.json === true) sayJson(item)
        else say(describe(item))
      }
    }
    await items.return()
  } catch (error) {
    if (!(ended.signal.aborted && error instanceof SealpostError && error.code === 'aborted')) throw error
  } finally {
    signal.removeEventListener('abort', stop)
    watch.failed.removeEventListener('abort', stop)
  }
  if (watch.failure !== null && left > 0) throw watch.failure
  return { left, alarms }
}

/** Counts while this device waits for events, not while it catches up. */
function createIdleTimer(idle_ms: number | null, { sealpost }: Session, expired: () => void): { start(): void; stop(): void } {
  if (idle_ms === null) return { start() {}, stop() {} }
  let timer: NodeJS.Timeout | undefined
  const wait = (ms: number): void => {
    timer = setTimeout(() => {
      if (sealpost.state === 'live' || sealpost.state === 'offline') expired()
      else wait(Math.min(idle_ms, 100))
    }, ms)
  }
  return { start: () => wait(idle_ms), stop: () => clearTimeout(timer) }
}

function sayWhenOffline({ sealpost }: Session): () => void {
  let away = false
  return sealpost.on((notice) => {
    if (notice.is !== 'state') return
    if (notice.state === 'offline' && !away) {
      away = true
      say('sealpost: offline, trying again')
    } else if (notice.state === 'live' && away) {
      away = false
      say('sealpost: connected again')
    }
  })
}

function toJson({ data, ...event }: EventItem): Record<string, unknown> {
  const text = textOf(data)
  return { ...event, ...(text === null ? { data_b64: Buffer.from(data).toString('base64') } : { data: text }) }
}

function textOf(data: Bytes): string | null {
  try {
    return utf8Decode(data)
  } catch {
    return null
  }
}

function describe(item: Exclude<StreamEvent, { is: 'event' }>): string {
  switch (item.is) {
    case 'gap':
      return `sealpost: gap: events of device ${item.device_id} from number ${item.from_device_seq} on are missing (${item.reason})`
    case 'alarm':
      return `sealpost: ALARM: ${describeAlarm(item)}`
    case 'reset':
      return `sealpost: the server's history has changed (${item.reason}); what follows is what this device has not seen`
  }
}

function describeAlarm({ position, device_id, reason }: Extract<StreamEvent, { is: 'alarm' }>): string {
  switch (reason) {
    case 'log_withheld':
      return 'the server withholds entries of the device list; nothing that needs them is handed over (log_withheld)'
    case 'cursor_gap':
      return `the server left out a part of the stream behind position ${position} again and again (cursor_gap)`
    case 'epoch_unreadable':
      return `the key of an epoch that this device should have is missing; what needs it is not handed over (epoch_unreadable)`
    default:
      return `the record at position ${position} of device ${device_id} did not verify (${reason}) and was not handed over`
  }
}
