/**
 * `sealpost outbox`: what waits to be sent and what was set aside, to send it again or to drop it. Looking and dropping need no
 * connection and begin none: what is to be dropped must not be sent meanwhile.
 */
import type { OutboxItem, Sealpost } from '@sealpost/client'
import { ERROR, type ErrorCode, SealpostError } from '@sealpost/protocol'
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { type Exit, advise, OUTCOMES, UsageError } from '../exit-codes.ts'
import { ask, formatTable, isInteractive, plain, print, say } from '../output.ts'
import { type Session, withSession } from '../session.ts'

type Which = { all?: boolean }

export function addOutbox(program: Command): void {
  const outbox = program
    .command('outbox')
    .summary('show what waits to be sent and what was set aside; send it again, or drop it')
    .description(
      'Shows what waits to be sent, and what the server refused and this device set aside. What waits is sent by the next command;\n' +
        'what is set aside holds up nothing and stays until you send it again or drop it. The oldest go above 10,000 or 64 MiB.',
    )
    .option('--json', 'one JSON object per line')
    .addHelpText(
      'after',
      examples(
        ['sealpost outbox', 'a table'],
        ['sealpost outbox retry --all', 'send again what was set aside, with its whole ttl'],
        ['sealpost outbox drop 01993b1c-…', 'one that is of no use any more'],
      ),
    )
    .action(endWith(list))
  outbox
    .command('retry')
    .summary('send again what was set aside')
    .description('Queues what was set aside anew, behind everything that waits, with the time of now and its whole ttl, and sends it.')
    .argument('[id...]', 'ids, as sealpost outbox shows them')
    .option('--all', 'everything that is set aside')
    .action(endWith(retry))
  outbox
    .command('drop')
    .summary('drop events that were not sent, for ever')
    .description('Drops events from the outbox, for ever. One whose bytes may be on the server stays: the server decides it first.')
    .argument('[id...]', 'ids, as sealpost outbox shows them')
    .option('--all', 'everything in the outbox, what waits to be sent too')
    .option('--yes', 'do not ask')
    .action(endWith(drop))
}

async function list(context: Context, options: { json?: boolean }): Promise<Exit> {
  return withSession<Exit>(
    context,
    async ({ sealpost, signal }) => {
      const rows = [['ID', 'STREAM', 'BYTES', 'QUEUED', 'STATE']]
      for await (const item of sealpost.outbox.list()) {
        if (signal.aborted) throw new SealpostError('aborted', 'interrupted')
        if (options.json === true) await print(`${JSON.stringify(item)}\n`)
        else
          rows.push([item.event_id, item.stream_id, String(item.bytes), new Date(item.queued_at).toISOString().slice(0, 19), stateOf(item)])
      }
      if (options.json === true) return 'ok'
      if (rows.length === 1) say('the outbox is empty')
      else await print(`${plain(formatTable(rows))}\n`)
      return 'ok'
    },
    false,
  )
}

function stateOf({ state, code, sent }: OutboxItem): string {
  if (state === 'pending') return sent ? 'sent, not acknowledged yet' : 'waits'
  const says = code !== null && Object.hasOwn(ERROR, code) ? ` ${ERROR[code as ErrorCode]}` : ''
  return `set aside (${code}):${says}`
}

async function retry(context: Context, ids: string[], options: Which): Promise<Exit> {
  const which = whichOf(ids, options)
  return withSession<Exit>(context, async (session) => {
    const event_ids = await session.sealpost.outbox.retry(which).catch(MISSING)
    if (event_ids.length === 0) {
      say('nothing is set aside')
      return 'ok'
    }
    return settle(session, event_ids)
  })
}

/** As `send` does: 0 when all of it is on the server, 3 when some was refused again, 75 when it is still to be sent. */
async function settle({ sealpost, watch, signal }: Session, event_ids: string[]): Promise<Exit> {
  let failure: SealpostError | null = null
  await watch
    .during((ended) => sealpost.flush({ signal: ended }), signal, 'acks')
    .catch((error: unknown) => {
      if (!(error instanceof SealpostError)) throw error
      failure = error
    })
  const waiting = new Set<string>()
  const refused = new Set<string>()
  for await (const { event_id, state } of sealpost.outbox.list()) (state === 'pending' ? waiting : refused).add(event_id)
  const left = event_ids.filter((event_id) => waiting.has(event_id)).length
  const again = event_ids.filter((event_id) => refused.has(event_id)).length
  say(`sent ${event_ids.length - left - again}`)
  if (again > 0) say(`sealpost: ${again} refused again\n  sealpost outbox shows why`)
  if (watch.failure !== null) throw watch.failure
  if (left > 0) {
    say(`sealpost: ${(failure ?? { message: 'not sent yet' }).message} (${left} in the outbox)\n  ${OUTCOMES.queued.hint}`)
    return 'queued'
  }
  return again > 0 ? 'refused' : 'ok'
}

async function drop(context: Context, ids: string[], options: Which & { yes?: boolean }): Promise<Exit> {
  const which = whichOf(ids, options)
  if (options.yes !== true && !isInteractive())
    throw new UsageError('drop asks before it drops, which needs a terminal', 'use --yes to drop without being asked')
  return withSession<Exit>(
    context,
    async ({ sealpost, signal }) => {
      if (options.yes !== true && !(await ask(await questionOf(sealpost, which), signal)))
        throw new SealpostError('aborted', 'nothing was dropped')
      const { dropped, kept } = await sealpost.outbox.drop(which).catch(MISSING)
      say(`dropped ${dropped.length}`)
      if (kept.length === 0) return 'ok'
      say(
        `sealpost: ${kept.length} stayed: they were sent, and may be on the server\n` +
          '  run sealpost status with a connection: the server then takes them or refuses them',
      )
      return 'refused'
    },
    false,
  )
}

async function questionOf(sealpost: Sealpost, which: string[] | 'all'): Promise<string> {
  const { pending, set_aside } = (await sealpost.status()).outbox
  const what = which === 'all' ? `everything in the outbox (${pending} that wait, ${set_aside} set aside)` : `${which.length} of the outbox`
  return `drop ${what} for ever?`
}

function whichOf(ids: readonly string[], { all }: Which): string[] | 'all' {
  if (all === true && ids.length > 0) throw new UsageError('--all and ids do not go together', 'name ids, or use --all alone')
  if (all === true) return 'all'
  if (ids.length === 0) throw new UsageError('nothing is named', 'name ids as sealpost outbox shows them, or use --all')
  return [...ids]
}

const MISSING = advise({ not_found: { hint: 'sealpost outbox shows what is there' } })
