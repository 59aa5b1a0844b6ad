/** `sealpost server`: the server of this home, and how the home follows it to another address. */
import { fromBase64url, serverKeyFingerprint } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import { advise, type Exit } from '../exit-codes.ts'
import { formatTable, plain, print, say } from '../output.ts'
import { type Session, withSession } from '../session.ts'

type Options = { json?: boolean }

export function addServer(program: Command): void {
  program
    .command('server')
    .summary('show the address of the server, or follow it to another one')
    .description(
      'Shows the address of the server and its key. With a URL the home follows its server there, and so does every process that uses it;\n' +
        'this is done only when the server there proves that it holds the key that this account knows. Else nothing changes, and it ends with 5.',
    )
    .argument('[url]', 'the new address, with its key after # if you have it')
    .option('--json', 'one JSON object')
    .addHelpText(
      'after',
      examples(['sealpost server', 'address and key'], ['sealpost server https://new.example', 'the server has moved there']),
    )
    .action(endWith(server))
}

async function server(context: Context, url: string | undefined, options: Options): Promise<Exit> {
  if (url === undefined) return withSession(context, (session) => show(session, options), false)
  return withSession(context, async (session) => {
    await session.sealpost.moveServer(url, { signal: session.signal }).catch(
      advise({
        server_identity: { hint: 'ask who runs the server for its address; where its key is lost, make a new account there' },
        invalid_request: { exit: 'usage', hint: 'give the address as you would to sealpost init' },
      }),
    )
    say('the server there holds the key that this account knows; this home uses that address from now on')
    return show(session, options)
  })
}

async function show({ sealpost }: Session, options: Options): Promise<Exit> {
  const { server: address, server_key } = await sealpost.status()
  const fingerprint = await serverKeyFingerprint(nodeCrypto, fromBase64url(server_key, 32))
  const rows = [
    ['server', address],
    ['key', server_key],
    ['key fingerprint', fingerprint],
  ]
  await print(options.json === true ? `${JSON.stringify({ server: address, server_key, fingerprint })}\n` : `${plain(formatTable(rows))}\n`)
  return 'ok'
}
