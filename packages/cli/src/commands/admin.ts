/** `sealpost admin`: running a relay. Most of it is the list in `admin/admin-list.ts`; keys, the first owner and the audit log are here. */
import type { Command } from 'commander'
import { type AdminRouteName, DEFAULT_ADMIN_URL, fromBase64url, SealpostError, toBase64url } from '@sealpost/protocol'
import { type AdminClient, openAdminClient } from '../admin/admin-client.ts'
import { adminKeyPath, createAdminKey, pinServer, readAdminKey } from '../admin/admin-key.ts'
import { ADMIN_COMMANDS, type AdminCommand, text, time } from '../admin/admin-list.ts'
import { verifyAuditOf } from '../admin/audit-check.ts'
import { examples } from '../command.ts'
import { parseCount } from '../duration.ts'
import { EXIT, type Exit, UsageError } from '../exit-codes.ts'
import { listenForInterrupt } from '../interrupt.ts'
import { ask, formatTable, plain, print, say } from '../output.ts'
import { readServerUrl } from '../server-url.ts'

type Shared = { url?: string; key?: string; json?: boolean }
type Options = Readonly<Record<string, string | boolean | undefined>>

export function addAdmin(program: Command): void {
  const admin = program
    .command('admin')
    .summary('run a relay: accounts, limits, invites, jobs, audit')
    .description('Asks the admin listener of a relay, with the key of an admin on this machine.')
    .option('--url <url>', `the admin listener (default SEALPOST_ADMIN_URL, else ${DEFAULT_ADMIN_URL})`)
    .option('--key <file>', 'the key of this admin (default SEALPOST_ADMIN_KEY, else ~/.sealpost-admin.json)')
    .option('--json', 'the answer as JSON, a list one object a line')
    .showHelpAfterError(
      '  an id that begins with - stands behind --: sealpost admin user -- ID\n  sealpost admin <command> --help shows what is possible',
    )
    .addHelpText(
      'after',
      examples(
        ['sealpost admin init --name ada', 'the first owner, on the machine of the relay'],
        ['sealpost admin users', 'accounts'],
        ['sealpost admin suspend USER --reason abuse', 'shut one out'],
        ['sealpost admin audit verify', 'has anybody changed the audit log?'],
      ),
    )
  addInit(admin)
  addKey(admin)
  addAudit(admin)
  for (const row of ADMIN_COMMANDS) addListed(admin, row)
}

// ---------------------------------------------------------------- keys

function addInit(admin: Command): void {
  admin
    .command('init')
    .summary('make a key and write the first owner, with the data folder or the database')
    .requiredOption('--name <name>', 'of the owner')
    .option('--data <dir>', 'data folder of the relay (default SEALPOST_DATA, else ./sealpost-data)')
    .option('--database-url <url>', 'its external PostgreSQL; also DATABASE_URL')
    .option('--another', 'also when there is an owner: for those who lost the keys of all')
    .action(
      run(async (_, __, options) => {
        const name = String(options.name)
        const { readConfig, writeFirstOwner } = await import('@sealpost/server')
        const { readFileSync } = await import('node:fs')
        const flags = { ...textOf('data', options.data), ...textOf('database_url', options.databaseUrl) }
        const config = readConfig(process.env, flags, (path) => readFileSync(path, 'utf8'))
        const key = await createAdminKey(adminKeyPath(text(options.key), process.env))
        const silent = { debug() {}, info() {}, warn() {}, error() {} }
        const owner = { name, public_key: key.public_key, another: options.another === true }
        const written = await writeFirstOwner(config, owner, silent).catch(async (error: unknown) => {
          await key.discard()
          throw error
        })
        if (written.server_key_hash !== null) await pinServer(key, written.server_key_hash)
        say(`${name} is an owner; the key is in ${key.path}: keep a copy, and let nobody read it`)
        await print(`${options.json === true ? JSON.stringify({ admin_id: key.admin_id, name, role: 'owner' }) : key.admin_id}\n`)
        return 'ok'
      }),
    )
}

function addKey(admin: Command): void {
  admin
    .command('key')
    .summary('show the public key of this admin; makes a key when there is none')
    .action(
      run(async (_, __, options) => {
        const path = adminKeyPath(text(options.key), process.env)
        const key = await readAdminKey(path).catch((error: unknown) => {
          if (error instanceof SealpostError && error.code === 'not_admin') return createAdminKey(path)
          throw error
        })
        const public_key = toBase64url(key.public_key)
        say(`an owner adds it with: sealpost admin add NAME ${public_key} --role ROLE`)
        await print(`${options.json === true ? JSON.stringify({ admin_id: key.admin_id, public_key }) : public_key}\n`)
        return 'ok'
      }),
    )
}

// ---------------------------------------------------------------- the audit log

function addAudit(admin: Command): void {
  const audit = admin
    .command('audit')
    .summary('the audit log; audit verify finds what was done to it')
    .option('--newest', 'newest first')
    .option('--action <action>', 'only this')
    .option('--admin <admin>', 'only by this admin')
    .option('--user <user>', 'only about this account')
    .option('--count <n>', 'at most so many (default 100)')
    .action(
      run(async (client, _, options) => {
        const { newest, action, admin: admin_id, user, count } = options
        const query = { order: newest === true ? 'newest' : 'oldest', action: text(action), admin_id: text(admin_id), user_id: text(user) }
        const max = parseCount(text(count) ?? '100', '--count', 1)
        const opened = await client()
        await printList(opened.all('list_audit', 'rows', { query }, { max }), AUDIT_COLUMNS, opened.now(), options.json === true)
        return 'ok'
      }),
    )
  audit
    .command('head')
    .summary('the end of the log, to be kept elsewhere for audit verify --head')
    .action(
      run(async (client, _, options) => {
        const { seq, hash } = (await (await client()).call('read_audit_head')) as { seq: number; hash: string }
        await print(`${options.json === true ? JSON.stringify({ seq, hash }) : `${seq}:${hash}`}\n`)
        return 'ok'
      }),
    )
  audit
    .command('verify')
    .summary('read the whole log and find any change, gap or cut')
    .option(
      '--head <seq:hash>',
      'a head that was kept elsewhere; may be given again',
      (value: string, all: string[]) => [...all, value],
      [],
    )
    .action(
      run(async (client, _, options) => {
        const witnesses = ((options.head ?? []) as unknown as string[]).map(readHead)
        const { faults, rows, head } = await verifyAuditOf(await client(), witnesses)
        if (options.json === true) await print(`${JSON.stringify({ rows, head, faults })}\n`)
        else {
          for (const { seq, says } of faults) say(`row ${seq}: ${says}`)
          await print(
            `${rows} rows, ${faults.length === 0 ? 'nothing was changed or taken away' : `${faults.length} faults`}; head ${head}\n`,
          )
        }
        return faults.length === 0 ? 'ok' : 'integrity'
      }),
    )
}

const AUDIT_COLUMNS: NonNullable<AdminCommand['list']>['columns'] = [
  ['ROW', (row) => row.seq],
  ['TIME', (row) => time(row.at)],
  ['ACTOR', (row) => row.actor],
  ['ACTION', (row) => row.action],
  ['OUTCOME', (row) => row.outcome],
  ['TARGET', (row) => row.target ?? (row.user_hash === null ? '' : `user:${row.user_hash}`)],
  ['DETAIL', (row) => row.detail ?? ''],
]

function readHead(given: string): { seq: number; hash: Uint8Array } {
  const match = /^(\d{1,16}):([A-Za-z0-9_-]{43})$/.exec(given)
  if (match === null) throw new UsageError(`${given} is not a head`, 'sealpost admin audit head shows one')
  return { seq: Number(match[1]), hash: fromBase64url(String(match[2]), 32) }
}

// ---------------------------------------------------------------- the list

function addListed(admin: Command, row: AdminCommand): void {
  const command = admin
    .command(row.usage)
    .summary(row.says)
    .description(`${row.says[0]?.toUpperCase()}${row.says.slice(1)}.`)
  for (const [flags, says] of row.options ?? []) command.option(flags, says)
  command.action(
    run(async (client, args, options, signal) => {
      const question = row.confirm?.(args)
      if (question !== undefined && options.yes !== true && !(await ask(question, signal)))
        throw new SealpostError('aborted', 'nothing was done')
      const wanted = row.ask?.(args, options) ?? {}
      const route = routeOf(row, options, wanted.body !== undefined)
      const opened = await client()
      if (row.list !== undefined) {
        const { member, columns, paged = false } = row.list
        const max = typeof options.count === 'string' ? parseCount(options.count, '--count', 1) : undefined
        await printList(opened.all(route, member, wanted, { paged, max }), columns, opened.now(), options.json === true)
        return 'ok'
      }
      const answer = (await opened.call(route, wanted)) as object
      if (options.json === true) await print(`${JSON.stringify(answer)}\n`)
      else if (row.done !== undefined || 'done' in answer) say(row.done ?? 'done')
      else await print(`${plain(JSON.stringify(answer, null, 2))}\n`)
      return 'ok'
    }),
  )
}

function routeOf({ route, sets }: AdminCommand, options: Options, hasBody: boolean): AdminRouteName {
  if (sets !== undefined && hasBody) return sets
  return typeof route === 'function' ? route(options) : route
}

async function printList(
  // oxlint-disable-next-line typescript/no-explicit-any -- rows of an answer, as the contract of its route says
  rows: AsyncIterable<any>,
  columns: NonNullable<AdminCommand['list']>['columns'],
  now_ms: number,
  json: boolean,
): Promise<void> {
  const table: string[][] = [columns.map(([title]) => title)]
  for await (const row of rows) {
    if (json) await print(`${JSON.stringify(row)}\n`)
    else table.push(columns.map(([, cell]) => String(cell(row, now_ms))))
  }
  if (!json) await print(`${plain(formatTable(table))}\n`)
}

// ---------------------------------------------------------------- running one

type Run = (client: () => Promise<AdminClient>, args: readonly string[], options: Options, signal: AbortSignal) => Promise<Exit>

/** An action of commander; the relay is asked when the command asks for it. */
function run(work: Run) {
  return async function action(this: Command, ...given: unknown[]): Promise<void> {
    const options = this.optsWithGlobals<Options & Shared>()
    const args = given.slice(0, -2).map((value) => (typeof value === 'string' ? value : undefined)) as string[]
    const interrupt = listenForInterrupt()
    try {
      const client = async (): Promise<AdminClient> => {
        const key = await readAdminKey(adminKeyPath(options.key, process.env))
        return openAdminClient(adminUrl(options.url, process.env), key, interrupt.signal)
      }
      process.exitCode = EXIT[await work(client, args, options, interrupt.signal)].code
    } finally {
      interrupt.close()
    }
  }
}

function textOf<N extends string>(name: N, value: string | boolean | undefined): Partial<Record<N, string>> {
  return typeof value === 'string' ? ({ [name]: value } as Record<N, string>) : {}
}

function adminUrl(option: string | undefined, env: NodeJS.ProcessEnv): ReturnType<typeof readServerUrl> {
  if (option !== undefined) return readServerUrl(option, '--url')
  const { SEALPOST_ADMIN_URL: named } = env
  return named === undefined || named === '' ? readServerUrl(DEFAULT_ADMIN_URL, '--url') : readServerUrl(named, 'SEALPOST_ADMIN_URL')
}
