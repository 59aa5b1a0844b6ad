/** `sealpost token`: an access token for scripts that talk to the relay over REST. */
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import type { Exit } from '../exit-codes.ts'
import { print } from '../output.ts'
import { withSession } from '../session.ts'

export function addToken(program: Command): void {
  program
    .command('token')
    .summary('print an access token for REST')
    .description(
      'Prints an access token of this device, good for 10 minutes. Whoever has it can read what the server knows of this account\n' +
        '(never the payloads); it cannot send events, nor change devices. Treat it as a secret.',
    )
    .option('--json', 'as JSON: access_token, and expires_in in seconds')
    .addHelpText(
      'after',
      examples(
        ['curl -H "Authorization: Bearer $(sealpost token)" http://127.0.0.1:8787/api/user', 'a call'],
        ['sealpost token --json', 'with its lifetime'],
      ),
    )
    .action(endWith(token))
}

async function token(context: Context, options: { json?: boolean }): Promise<Exit> {
  return withSession<Exit>(context, async ({ sealpost, signal }) => {
    const granted = await sealpost.accessToken({ signal })
    await print(options.json === true ? `${JSON.stringify(granted)}\n` : `${granted.access_token}\n`)
    return 'ok'
  })
}
