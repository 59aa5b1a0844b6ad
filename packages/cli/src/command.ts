/** What every command shares: where the home is, how an action ends, and help with examples. */
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { EXIT, type Exit, UsageError } from './exit-codes.ts'
import { listenForInterrupt } from './interrupt.ts'

export type Context = {
  /** Absolute path of the home. */
  home: string
  /** Aborted by SIGINT, SIGTERM or SIGHUP. */
  signal: AbortSignal
}

/** The home by option, then by `SEALPOST_HOME`, else `~/.sealpost`. */
export function homePath(option: string | undefined, env: NodeJS.ProcessEnv): string {
  const named = option ?? env.SEALPOST_HOME
  return named === undefined || named === '' ? join(userFolder('--home or SEALPOST_HOME'), '.sealpost') : resolve(named)
}

/** The home folder of the user. A user may have none, as in a container that runs under a number. */
export function userFolder(instead: string): string {
  let folder = ''
  try {
    folder = homedir()
  } catch {
    // the user has no entry in the list of users
  }
  if (folder === '') throw new UsageError('this user has no home folder: HOME is not set', `set HOME, or name the place with ${instead}`)
  return folder
}

/** An action of commander: `run` gets the context, then what commander gives (arguments, options), and says how it ended. */
export function endWith(run: (context: Context, ...args: never[]) => Promise<Exit>) {
  return async function action(this: Command, ...args: unknown[]): Promise<void> {
    const { home } = this.optsWithGlobals<{ home?: string }>()
    const interrupt = listenForInterrupt()
    try {
      const exit = await run({ home: homePath(home, process.env), signal: interrupt.signal }, ...(args.slice(0, -1) as never[]))
      process.exitCode = EXIT[exit].code
    } finally {
      interrupt.close()
    }
  }
}

export function examples(...rows: readonly (readonly [command: string, says: string])[]): string {
  const width = Math.max(...rows.map(([command]) => command.length))
  return `\nExamples:\n${rows.map(([command, says]) => `  $ ${command.padEnd(width)}   # ${says}`).join('\n')}\n`
}
