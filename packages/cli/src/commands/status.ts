/** `sealpost status`: what this device knows about itself, its connection and its outbox. */
import type { Command } from 'commander'
import { type Context, endWith, examples } from '../command.ts'
import type { Exit } from '../exit-codes.ts'
import { formatTable, plain, print, say } from '../output.ts'
import { catchUp, withSession } from '../session.ts'

const CONNECT_MS = 3_000

export function addStatus(program: Command): void {
  program
    .command('status')
    .summary('show this device, its connection and its outbox')
    .description('Shows this device, its connection and its outbox. Ends with 6 when an integrity alarm is on record.')
    .option('--json', 'one JSON object')
    .addHelpText('after', examples(['sealpost status', 'for people'], ['sealpost status --json | jq .outbox.pending', 'for scripts']))
    .action(endWith(showStatus))
}

async function showStatus(context: Context, options: { json?: boolean }): Promise<Exit> {
  return withSession(context, async (session) => {
    const behind = await catchUp(session, CONNECT_MS)
    if (behind !== null) say(`${behind.message}: the device list is what this device knows`)
    const status = await session.sealpost.status()
    await print(options.json === true ? `${JSON.stringify(status)}\n` : `${plain(formatTable(rowsOf('', status)))}\n`)
    return status.alarms > 0 || behind?.code === 'log_withheld' ? 'integrity' : 'ok'
  })
}

function rowsOf(prefix: string, value: object): string[][] {
  return Object.entries(value).flatMap(([name, one]: [string, unknown]) => {
    const label = `${prefix}${name.replaceAll('_', ' ')}`
    if (typeof one === 'object' && one !== null && !Array.isArray(one)) return rowsOf(`${label} `, one)
    return [[label, one === null || one === undefined ? '-' : typeof one === 'string' ? one : JSON.stringify(one)]]
  })
}
