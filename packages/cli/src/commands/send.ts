/**
 * `sealpost send`: stdin or a file as one event, or one event per line. Everything is durable in the outbox before it is sent;
 * what is not acked when the command ends stays there and exits 75.
 *
 * Bounds: one event is read up to the limit of the wire; of lines, at most `WINDOW` undecided ones while connected (reading
 * waits), and their ids alone while offline (the data is on disk).
 */
import { type FileHandle, open } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import type { Stream } from '@sealpost/client'
import { type Bytes, concat, type ErrorCode, LABEL, LIMITS, SealpostError } from '@sealpost/protocol'
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { parseDuration } from '../duration.ts'
import { type Exit, OUTCOMES, UsageError } from '../exit-codes.ts'
import { createLineSplitter } from '../line-splitter.ts'
import { say } from '../output.ts'
import { sayAside, type Session, withSession } from '../session.ts'

type Options = { stream: string; type: string; ttl?: string; lines?: boolean; queue?: boolean }
type Item = { data: Bytes; type: string; ttl?: number }

const WINDOW = 20_000
const LOOK_MS = 50
/** While the input rests, what was decided meanwhile is counted so often. */
const REST_MS = 1_000
/** One transaction of the outbox. */
const BATCH = { items: 1_000, bytes: 4 * 1_048_576 } as const

export function addSend(program: Command): void {
  program
    .command('send')
    .summary('send stdin or a file')
    .description(
      'Sends stdin or FILE as one event (at most 262140 bytes), or with --lines each line as an event; a line keeps its line feed.\n' +
        'Ends with 0 once the server has everything on disk. Interrupted or offline, what is not acknowledged stays in the outbox:\n' +
        'exit 75, and the next command sends it first. An event that is refused is set aside there: exit 3, and sealpost outbox shows it.',
    )
    .argument('[file]', 'what to send; - or nothing is stdin')
    .option('--stream <name>', 'stream to send to', 'main')
    .option('--type <type>', 'type of the events', 'app')
    .option('--ttl <duration>', 'how long the events are of use: 30s, 15m, 1h, 2d')
    .option('--lines', 'one event per line')
    .option('--queue', 'put it in the outbox and do not wait (exit 75)')
    .addHelpText(
      'after',
      examples(
        ['echo hello | sealpost send', 'one event'],
        ['sealpost send photo.jpg --stream photos --ttl 2d', 'a file, of use for two days'],
        ['tail -f app.log | sealpost send --lines --stream logs', 'each line as it comes'],
      ),
    )
    .action(endWith(send))
}

async function send(context: Context, file: string | undefined, options: Options): Promise<Exit> {
  for (const [name, label] of [
    ['--stream', options.stream],
    ['--type', options.type],
  ] as const)
    if (!LABEL.test(label)) throw new UsageError(`${name} "${label}" is not valid`, 'use 1 to 64 of A-Z a-z 0-9 . _ : -')
  const form = { type: options.type, ...(options.ttl === undefined ? {} : { ttl: parseDuration(options.ttl) }) }
  const input = await openInput(file)
  return withSession(context, async (session) => {
    const sending = createSending(session, session.sealpost.stream(options.stream))
    try {
      if (options.lines === true) await queueLines(input, form, sending, session.signal)
      else await queueWhole(input, form, sending, session.signal)
    } catch (error) {
      await sending.pause()
      // The lines before the failure are in the outbox and go out all the same.
      if (sending.queued > 0 && options.queue !== true) await settle(sending)
      if (sending.queued > 0) say(`sent ${sending.sent}, queued ${sending.queued - sending.decided}`)
      throw error
    }
    await sending.pause()
    if (session.signal.aborted && sending.queued === 0)
      throw new SealpostError('aborted', 'interrupted before the input had ended; nothing was sent')
    if (options.queue === true) {
      say(`queued ${sending.queued}`)
      return sending.queued === 0 ? 'ok' : 'queued'
    }
    const failure = await settle(sending)
    const { set_aside } = (await session.sealpost.status()).outbox
    const own = [...sending.refused.values()].reduce((sum, count) => sum + count, 0)
    sayAside(set_aside - session.left.set_aside - own)
    return report(sending, session, failure)
  })
}

type Sending = {
  queued: number
  decided: number
  sent: number
  /** Codes of refused items, with their number. */
  refused: Map<string, number>
  add(items: Item[]): Promise<void>
  /** Ends the counting beside the input. */
  pause(): Promise<void>
  /** Waits until everything queued is decided. */
  finish(): Promise<void>
  /** Counts what is decided already. */
  look(): Promise<void>
}

function createSending(session: Session, stream: Stream): Sending {
  const { watch, signal } = session
  const batches: string[][] = []

  const decide = async (event_ids: string[], ended: AbortSignal): Promise<void> => {
    for (const outcome of await stream.outcome(event_ids, { signal: ended })) {
      sending.decided += 1
      // What was forgotten was decided among so many that refusals would be the exception.
      if (outcome.state === 'acked' || outcome.state === 'forgotten') sending.sent += 1
      else sending.refused.set(outcome.code, (sending.refused.get(outcome.code) ?? 0) + 1)
    }
  }
  const decideOldest = async (ended: AbortSignal): Promise<void> => {
    const [batch] = batches
    if (batch !== undefined) await decide(batch, ended)
    batches.shift()
  }
  /** The oldest batch, if it is decided within `ms`; true when it was. */
  const tryOldest = async (ms: number): Promise<boolean> => {
    const late = AbortSignal.any([signal, watch.failed, AbortSignal.timeout(ms)])
    try {
      await decideOldest(late)
      return true
    } catch (error) {
      if (late.aborted && error instanceof SealpostError) return false
      throw error
    }
  }
  /** Counting goes on in one place at a time. */
  let counting: Promise<unknown> = Promise.resolve()
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = counting.then(work)
    counting = turn.catch(() => {})
    return turn
  }
  const timer = setInterval(() => {
    void inTurn(async () => {
      while (batches.length > 0 && (await tryOldest(LOOK_MS)));
    }).catch(() => {})
  }, REST_MS)

  const sending: Sending = {
    queued: 0,
    decided: 0,
    sent: 0,
    refused: new Map(),
    async add(items) {
      if (items.length === 0) return
      batches.push(await stream.enqueue(items))
      sending.queued += items.length
      while (sending.queued - sending.decided > WINDOW && watch.isConnected() && watch.failure === null && !signal.aborted)
        await inTurn(() => tryOldest(1_000))
    },
    async pause() {
      clearInterval(timer)
      await counting
    },
    async finish() {
      while (batches.length > 0) await watch.during(decideOldest, signal, 'acks')
    },
    async look() {
      // Items are decided in order, so the first open one ends the look.
      const ids = batches.flat()
      try {
        for (const id of ids) await decide([id], AbortSignal.timeout(LOOK_MS))
      } catch (error) {
        if (!(error instanceof SealpostError)) throw error
      }
    },
  }
  return sending
}

async function settle(sending: Sending): Promise<SealpostError | null> {
  try {
    await sending.finish()
    return null
  } catch (error) {
    if (!(error instanceof SealpostError)) throw error
    await sending.look()
    return error
  }
}

function report(sending: Sending, session: Session, failure: SealpostError | null): Exit {
  const left = sending.queued - sending.decided
  say(`sent ${sending.sent}`)
  const { watch, signal } = session
  const ended = watch.failure ?? failure
  for (const [code, count] of sending.refused) if (code !== ended?.code) say(`sealpost: ${count} refused (${code})\n  ${hintOf(code)}`)
  if (ended !== null && !PASSING.has(ended.code)) {
    if (watch.failure !== null || left === 0 || !STAYS.has(OUTCOMES[ended.code].exit)) throw ended
    say(`sealpost: ${ended.message} (${left} in the outbox)\n  ${OUTCOMES[ended.code].hint}`)
    return 'queued'
  }
  if (left > 0 || signal.aborted) {
    const why = signal.aborted ? null : watch.awayBecause()
    const hint = why?.hint === undefined ? OUTCOMES.queued.hint : `${why.hint}; ${OUTCOMES.queued.hint}`
    say(`sealpost: ${why?.message ?? 'interrupted'}; ${left} in the outbox\n  ${hint}`)
    return 'queued'
  }
  if (watch.alarm !== null) {
    say(`sealpost: ALARM: ${watch.alarm.message} (${watch.alarm.reason})`)
    return 'integrity'
  }
  return sending.refused.size > 0 ? 'refused' : 'ok'
}

/** Ends of a wait: the connection was away, or the person had enough. */
const PASSING: ReadonlySet<ErrorCode> = new Set(['unreachable', 'aborted', 'timeout'])
/** With these a trouble leaves the events in the outbox; others (integrity, disk) are worse than that. */
const STAYS: ReadonlySet<Exit> = new Set(['refused', 'queued', 'unreachable', 'internal'])

function hintOf(code: string): string {
  return Object.hasOwn(OUTCOMES, code) ? OUTCOMES[code as keyof typeof OUTCOMES].hint : OUTCOMES.internal.hint
}

type Input = { chunks: AsyncIterable<Bytes>; name: string; bytes: number | null }

async function openInput(file: string | undefined): Promise<Input> {
  if (file === undefined || file === '-') {
    if (process.stdin.isTTY) say('reading from the terminal; Ctrl-D on an empty line ends it')
    return { chunks: process.stdin, name: 'stdin', bytes: null }
  }
  const handle = await open(file).catch((): FileHandle => {
    throw new UsageError(`${file} cannot be read`, 'check the name of the file, and that you may read it')
  })
  const stats = await handle.stat()
  if (stats.isDirectory()) {
    await handle.close()
    throw new UsageError(`${file} is a folder`, 'name a file, or pipe something in')
  }
  return { chunks: handle.createReadStream(), name: file, bytes: stats.isFile() ? stats.size : null }
}

async function queueWhole(input: Input, form: Omit<Item, 'data'>, sending: Sending, signal: AbortSignal): Promise<void> {
  if (input.bytes !== null) refuseLarge(input.name, input.bytes)
  const parts: Bytes[] = []
  let length = 0
  await read(input, signal, async (chunk) => {
    length += chunk.length
    refuseLarge(input.name, length)
    parts.push(chunk)
  })
  if (!signal.aborted) await sending.add([{ ...form, data: concat(...parts) }])
}

function refuseLarge(name: string, bytes: number): void {
  if (bytes > LIMITS.payloadDataBytesMax)
    throw new SealpostError(
      'too_large',
      `${name} is longer than ${LIMITS.payloadDataBytesMax} bytes, the limit of one event; nothing of it was sent`,
    )
}

async function queueLines(input: Input, form: Omit<Item, 'data'>, sending: Sending, signal: AbortSignal): Promise<void> {
  const splitter = createLineSplitter(LIMITS.payloadDataBytesMax)
  let batch: Item[] = []
  let bytes = 0
  const flush = async (): Promise<void> => {
    const items = batch
    batch = []
    bytes = 0
    await sending.add(items)
  }
  const take = async (lines: Iterable<Bytes>): Promise<void> => {
    try {
      for (const data of lines) {
        batch.push({ ...form, data })
        bytes += data.length
        if (batch.length >= BATCH.items || bytes >= BATCH.bytes) await flush()
      }
    } finally {
      await flush()
    }
  }
  await read(input, signal, (chunk) => take(splitter.push(chunk)))
  // A cut-off last line is a line only when the input has ended by itself.
  if (!signal.aborted) await take(splitter.end())
}

/** Reads to the end, or until the signal. */
async function read(input: Input, signal: AbortSignal, take: (chunk: Bytes) => Promise<void>): Promise<void> {
  try {
    await pipeline(
      input.chunks,
      async (chunks: AsyncIterable<Bytes>) => {
        for await (const chunk of chunks) await take(chunk)
      },
      { signal },
    )
  } catch (error) {
    if (signal.aborted) return
    if (error instanceof Error && 'syscall' in error && error.syscall === 'read')
      throw new UsageError(`${input.name} cannot be read`, 'check the file')
    throw error
  }
}
