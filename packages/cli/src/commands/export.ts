/** `sealpost export`: a copy of everything that the server holds about the account, and reading it. */
import { createReadStream } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { type Bytes, SealpostError, utf8Decode, diskError } from '@sealpost/protocol'
import type { ExportItem } from '@sealpost/client'
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { advise, type Exit, UsageError } from '../exit-codes.ts'
import { createExportCheck, LINE_BYTES_MAX } from '../export-check.ts'
import { createLineSplitter } from '../line-splitter.ts'
import { print, say } from '../output.ts'
import { type Session, withSession } from '../session.ts'

export function addExport(program: Command): void {
  const command = program
    .command('export')
    .summary('save all that the server holds about the account')
    .description(
      'Writes everything that the server holds about this account to FILE, one JSON object a line; events stay encrypted. An existing file is replaced\n' +
        'only when the export is whole. `sealpost export decrypt FILE` opens the events with the keys of this device.',
    )
    .argument('<file>', 'the file to write; - for stdout')
    .addHelpText(
      'after',
      examples(
        ['sealpost export all.ndjson', 'everything'],
        ['sealpost export decrypt all.ndjson > events.ndjson', 'its events, verified and opened'],
      ),
    )
    .action(endWith(exportAccount))
  command
    .command('decrypt')
    .summary('verify and open the events of an export')
    .description(
      'Verifies and opens the events of an export with the keys of this device, without the server. One JSON object a line: `data` is the payload if it is\n' +
        'UTF-8, else `data_b64`. Events that had expired have neither. What does not verify is told on stderr, and the exit code is 6.',
    )
    .argument('<file>', 'a file of sealpost export')
    .addHelpText(
      'after',
      examples(
        ['sealpost export decrypt all.ndjson > events.ndjson', 'all events'],
        ['sealpost export decrypt all.ndjson | jq -r \'select(.stream_id == "main").data\'', 'the texts of one stream'],
      ),
    )
    .action(endWith(decrypt))
}

async function exportAccount(context: Context, name: string): Promise<Exit> {
  return withSession<Exit>(context, async ({ sealpost, signal }) => {
    const check = createExportCheck()
    const lines = sealpost.exportAccount({ signal })
    if (name === '-') {
      for await (const part of lines) {
        check.add(part)
        await print(part)
      }
      check.end()
      return 'ok'
    }
    const counts = await save(resolve(name), lines, check)
    say(
      `exported ${Object.entries(counts)
        .map(([kind, count]) => `${count} ${kind}`)
        .join(', ')}`,
    )
    return 'ok'
  })
}

/** The file is there when it is whole and on disk; else nothing is left of it. */
async function save(
  path: string,
  lines: AsyncIterable<Bytes>,
  check: ReturnType<typeof createExportCheck>,
): Promise<Record<string, number>> {
  const part = `${path}.${process.pid}.part`
  const failed = (cause: unknown): SealpostError => diskError(`${path} cannot be written`, cause)
  let file: FileHandle
  try {
    file = await open(part, 'wx', 0o600)
  } catch (cause) {
    throw failed(cause)
  }
  try {
    for await (const bytes of lines) {
      check.add(bytes)
      await file.writeFile(bytes).catch((cause: unknown) => Promise.reject(failed(cause)))
    }
    const counts = check.end()
    await file.sync()
    await file.close()
    await rename(part, path)
    return counts
  } catch (error) {
    await file.close().catch(() => {})
    await rm(part, { force: true })
    throw error instanceof SealpostError ? error : failed(error)
  }
}

const WHOLE = 'use a whole file of sealpost export; this one is cut, changed or something else'
const UNREADABLE = {
  invalid_message: { hint: WHOLE },
  invalid_encoding: { hint: WHOLE },
  forbidden: { hint: 'use a home of the account that it is of: --home DIR' },
} as const

async function decrypt(context: Context, name: string): Promise<Exit> {
  const open = async ({ sealpost }: Session): Promise<Exit> => {
    let alarms = 0
    for await (const item of sealpost.openExport(readLines(name))) {
      const line = toLine(item)
      if (line !== null) await print(`${JSON.stringify(line)}\n`)
      else if (item.is === 'gap')
        say(`sealpost: gap: events of device ${item.device_id} from number ${item.from_device_seq} on are missing (${item.reason})`)
      else if (item.is === 'alarm' || item.is === 'unknown_epoch') {
        alarms++
        say(`sealpost: ALARM: ${describeAlarm(item)}`)
      }
    }
    return alarms > 0 ? 'integrity' : 'ok'
  }
  return withSession(context, open, false).catch(advise(UNREADABLE))
}

/** Without their terminators. Throws `invalid_message` where there is no line of an export. */
async function* readLines(name: string): AsyncGenerator<string> {
  const splitter = createLineSplitter(LINE_BYTES_MAX)
  for await (const chunk of readFile(name)) yield* decoded(splitter.push(chunk))
  yield* decoded(splitter.end())
}

async function* readFile(name: string): AsyncGenerator<Bytes> {
  const input = createReadStream(resolve(name))
  try {
    for await (const chunk of input) yield chunk as Buffer
  } catch {
    throw new UsageError(`${name} cannot be read`, 'check the name of the file, and that you may read it')
  } finally {
    input.destroy()
  }
}

function* decoded(lines: Iterable<Bytes>): Generator<string> {
  try {
    for (const line of lines) yield utf8Decode(line).trimEnd()
  } catch (cause) {
    throw new SealpostError('invalid_message', 'this file is not an export of Sealpost: a line is too long, or no text', { cause })
  }
}

function toLine(item: ExportItem): Record<string, unknown> | null {
  if (item.is !== 'event' && item.is !== 'expired' && item.is !== 'closed') return null
  const { event_id, device_id, device_seq, stream_id, type, ttl, server } = item.record
  const known = { event_id, stream_id, type, device_id, device_seq, ttl, ...server }
  if (item.is !== 'event') return { ...known, [item.is]: true }
  const text = textOf(item.data)
  return { ...known, ...(text === null ? { data_b64: Buffer.from(item.data).toString('base64') } : { data: text }) }
}

function describeAlarm(item: Extract<ExportItem, { is: 'alarm' | 'unknown_epoch' }>): string {
  return item.is === 'alarm'
    ? `the event at position ${item.position} of device ${item.device_id} did not verify (${item.reason})`
    : `the event at position ${item.position} is of a device list that this device has not seen; connect it once (sealpost status), then try again`
}

function textOf(data: Bytes): string | null {
  try {
    return utf8Decode(data)
  } catch {
    return null
  }
}
