/** The command line as a whole: every command, the help, and what a failure comes to (`exit-codes.ts`). */
import { Command, CommanderError } from 'commander'
import { examples } from './command.ts'
import { addAdmin } from './commands/admin.ts'
import { addDeleteAccount } from './commands/delete-account.ts'
import { addDevices } from './commands/devices.ts'
import { addDoctor } from './commands/doctor.ts'
import { addExport } from './commands/export.ts'
import { addInit } from './commands/init.ts'
import { addJoin } from './commands/join.ts'
import { addOutbox } from './commands/outbox.ts'
import { addPair } from './commands/pair.ts'
import { addRecover } from './commands/recover.ts'
import { addRename } from './commands/rename.ts'
import { addRevoke } from './commands/revoke.ts'
import { addSend } from './commands/send.ts'
import { addServe } from './commands/serve.ts'
import { addServer } from './commands/server.ts'
import { addStatus } from './commands/status.ts'
import { addTail } from './commands/tail.ts'
import { addToken } from './commands/token.ts'
import { describeExits, EXIT, failureOf } from './exit-codes.ts'
import { OutputClosed, plain, sayFailure } from './output.ts'
import { VERSION } from './version.ts'

export function createProgram(): Command {
  const program = new Command('sealpost')
    .description('End-to-end encrypted events between your devices.')
    .version(VERSION)
    .option('--home <dir>', 'home of this device (default SEALPOST_HOME, else ~/.sealpost)')
    .exitOverride()
    .showSuggestionAfterError()
    .configureOutput({ outputError: (text, write) => write(plain(text).replace(/^error: /, 'sealpost: ')) })
    .showHelpAfterError('  sealpost --help and sealpost <command> --help show what is possible')
    .addHelpText(
      'after',
      `${examples(
        ['sealpost init --server http://127.0.0.1:8787 --name laptop', 'first device'],
        ['sealpost pair', 'add another one'],
        ['echo hello | sealpost send', 'send'],
        ['sealpost tail', 'receive'],
      )}\n${describeExits()}`,
    )
  const commands = [
    addServe,
    addDoctor,
    addInit,
    addPair,
    addJoin,
    addSend,
    addTail,
    addOutbox,
    addDevices,
    addRename,
    addRevoke,
    addStatus,
    addServer,
    addToken,
    addExport,
    addRecover,
    addDeleteAccount,
    addAdmin,
  ]
  for (const add of commands) add(program)
  return program
}

/** Says what went wrong, if it was not said yet; the exit code. */
export function report(error: unknown): number {
  // commander has printed its sentence.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok.code : EXIT.usage.code
  if (error instanceof OutputClosed) return EXIT.ok.code
  const failure = failureOf(error)
  sayFailure(failure)
  if (process.env.SEALPOST_DEBUG === '1') console.error(error)
  return EXIT[failure.exit].code
}
