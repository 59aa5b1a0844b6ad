/** `sealpost doctor`: checks a deployment of a relay, and says what to do. It changes nothing. */
import type { Finding } from '@sealpost/server'
import type { Command } from 'commander'
import { examples } from '../command.ts'
import { EXIT, type Exit, UsageError } from '../exit-codes.ts'
import { formatTable, plain, print } from '../output.ts'
import { readServerUrl } from '../server-url.ts'

type Options = { data?: string; databaseUrl?: string; url?: string; json?: boolean }

const MARKS = { ok: '✓', warn: '!', fail: '✗', skipped: '-' } as const

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .summary('check a deployment of a relay')
    .description(
      'Looks at a relay as it is deployed, best beside the running one, under its user and with its variables, and says what endangers it and what to do. Changes nothing. Ends with 7 when a check failed; a warning is none.',
    )
    .option('--data <dir>', 'data folder (default SEALPOST_DATA, else ./sealpost-data)')
    .option('--database-url <url>', 'an external PostgreSQL; also DATABASE_URL')
    .option('--url <url>', 'URL that devices connect to; also SEALPOST_PUBLIC_URL')
    .option('--json', 'one JSON object per line, one for each check, and a summary')
    .addHelpText(
      'after',
      examples(
        ['sealpost doctor', 'the relay of this folder'],
        ['sealpost doctor --data /var/lib/sealpost --url https://relay.example', 'another folder, and from outside'],
        ['sealpost doctor --json | jq -r \'select(.is == "fail").name\'', 'for scripts'],
      ),
    )
    .action(async (options: Options) => {
      process.exitCode = EXIT[await examine(options)].code
    })
}

async function examine({ data, databaseUrl: database_url, url, json }: Options): Promise<Exit> {
  const { diagnose, VARIABLES } = await import('@sealpost/server')
  const wrong = VARIABLES.DATABASE_URL.schema.safeParse(database_url).error?.issues[0]
  if (wrong !== undefined) throw new UsageError('--database-url is not valid', wrong.message)
  const flags = { ...(data === undefined ? {} : { data }), ...(database_url === undefined ? {} : { database_url }) }
  const findings = await diagnose({ flags, url: url === undefined ? undefined : readServerUrl(url, '--url').url })
  await print(plain(json === true ? toLines(findings) : describe(findings)))
  return findings.some(({ is }) => is === 'fail') ? 'unhealthy' : 'ok'
}

function toLines(findings: readonly Finding[]): string {
  return [...findings, { summary: count(findings) }].map((line) => `${JSON.stringify(line)}\n`).join('')
}

function describe(findings: readonly Finding[]): string {
  // a path may hold a line feed, which must not begin a line of its own
  const rows = findings.map(({ name, is, found }) => [MARKS[is], name, found.replaceAll(/\s+/g, ' ')])
  const lines = formatTable(rows)
    .split('\n')
    .flatMap((line, i) => [line, ...(findings[i]?.advice ?? '').split('\n').flatMap((advice) => (advice === '' ? [] : [`    ${advice}`]))])
  const { ok, warn, fail, skipped } = count(findings)
  return `${lines.join('\n')}\n\n${ok} fine, ${warn} to look at, ${fail} failed, ${skipped} skipped\n`
}

function count(findings: readonly Finding[]): Record<Finding['is'], number> {
  const counts = { ok: 0, warn: 0, fail: 0, skipped: 0 }
  for (const { is } of findings) counts[is] += 1
  return counts
}
