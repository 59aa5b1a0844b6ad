/** `sealpost delete-account`: the end of an account, on the server and in this home. */
import { SealpostError } from '@sealpost/protocol'
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { type Exit, UsageError } from '../exit-codes.ts'
import { isInteractive, print, say } from '../output.ts'
import { withSession } from '../session.ts'

/** What has to be typed. */
const WORD = 'delete'

export function addDeleteAccount(program: Command): void {
  program
    .command('delete-account')
    .summary('delete the account, for all devices and for ever')
    .description(
      'Deletes the account with all its devices, events and entries from the server, for ever: also the recovery words are of no use afterwards.\n' +
        'Then it wipes this home, and with it the keys that open an export: save a copy in clear before. Other devices are told that the account is\n' +
        'gone and show no events any more; sealpost export decrypt opens an export there, until delete-account empties them too.\n' +
        'When it was broken off, or another device was first, run it again: it empties this home.',
    )
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      examples(
        ['sealpost export all.ndjson', 'a copy, encrypted …'],
        ['sealpost export decrypt all.ndjson > events.ndjson', '… and its events in clear'],
        ['sealpost delete-account', 'then the end'],
      ),
    )
    .action(endWith(deleteAccount))
}

async function deleteAccount(context: Context, options: { yes?: boolean }): Promise<Exit> {
  if (options.yes !== true && !isInteractive())
    throw new UsageError('delete-account asks before it deletes, which needs a terminal', 'use --yes to delete without being asked')
  return withSession<Exit>(context, async ({ sealpost, signal }) => {
    const { pending, set_aside } = (await sealpost.status()).outbox
    if (pending + set_aside > 0) say(`${pending + set_aside} events in the outbox were not sent and will be lost`)
    if (options.yes !== true && !(await confirmed(sealpost.user_id, signal))) throw new SealpostError('aborted', 'nothing was deleted')
    const deleted = await sealpost.deleteAccount({ signal })
    if (deleted === null) {
      say('the account is gone from the server, and this home is empty')
      return 'ok'
    }
    say('the account was deleted and this home is empty; rows deleted on the server:')
    await print(`${JSON.stringify(deleted)}\n`)
    return 'ok'
  })
}

async function confirmed(user_id: string, signal: AbortSignal): Promise<boolean> {
  const { text, isCancel } = await import('@clack/prompts')
  const message = `this deletes the account ${user_id} for ever, on all devices; type ${WORD} to go on`
  const answer = await text({ message, signal })
  return !isCancel(answer) && answer.trim() === WORD
}
