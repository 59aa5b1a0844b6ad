/**
 * Owns one real PostgreSQL, from npm, with its files in the relay's data folder: `postgres/` (the cluster) and `run/`
 * (its Unix socket; a private temporary folder where that path would be too long for a socket). No TCP.
 *
 * The caller holds the lock of the data folder (`data-folder.ts`). So whoever still runs on these files has lost its
 * relay: it is told to shut down, and the start waits for it. What nobody runs on any more (`postmaster.ts`) is left to
 * PostgreSQL: it is told whose id in `postmaster.pid` says nothing, looks itself whether the shared memory is in use, and
 * replaces the file. Bound: a start gives up after `STARTING_MS_MAX`.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, open, readdir, realpath, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { diskError, SealpostError } from '@sealpost/protocol'
import { Client } from 'pg'
import type { Log } from '../../telemetry/log.ts'
import { choosePostgresAccount, giveFolder, type PostgresAccount } from './postgres-account.ts'
import { hasCluster } from './cluster-version.ts'
import { findPostgres, type PostgresBinaries } from './postgres-binaries.ts'
import { findPostgresOn, judgeRemains, pidFileOf, readPostmaster, type Remains, SOCKET_FILE } from './postmaster.ts'

const run = promisify(execFile)

const USER = 'sealpost'
const DATABASE = 'sealpost'
/** The longest path of a socket is 107 bytes on Linux and 103 on macOS; `/.s.PGSQL.5432` is part of it. */
const SOCKET_PATH_BYTES_MAX = 100
/** Recovery of a large log may take long; while it goes on the process lives. */
const STARTING_MS_MAX = 60_000
/** One that lost its relay needs a checkpoint. */
const LOCK_MS_MAX = 10_000
const FAST_STOP_MS_MAX = 15_000
const GONE_HINT = 'put a backup in its place, then start the relay again'

const BUSY = /lock file .* already exists|shared memory block .* is still in use/s

const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  max_connections: '60',
  shared_buffers: '128MB',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
  // the relay's log has the time, and counts lines that are equal
  log_line_prefix: '',
  lc_messages: 'C',
  // A line of the log never carries a value of a statement.
  log_error_verbosity: 'terse',
  log_min_error_statement: 'panic',
  log_parameter_max_length_on_error: '0',
  idle_in_transaction_session_timeout: '30s',
}

export type EmbeddedPostgresOptions = {
  /** The relay's data folder; made when missing. The caller holds its lock. */
  data_dir: string
  logger?: Log | undefined
  /** PostgreSQL settings beside or in place of the defaults. */
  settings?: Readonly<Record<string, string>> | undefined
  /** No fsync at all: for tests alone. */
  test?: boolean | undefined
  /** A start after a crash: the socket folder to keep, so that connections find the way again; no cluster is made. */
  again?: { sockets: string } | undefined
  /** Root only: forces one way to run as another user. */
  account?: PostgresAccount['way'] | undefined
}

export type EmbeddedPostgres = {
  /** For `new Client()` and `new pg.Pool()`. */
  connection: { host: string; user: string; database: string }
  pid: number
  /** Fast shutdown; resolves when the process is gone. */
  stop(): Promise<void>
  /** Resolves when the process has ended, for whatever reason. */
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

/** Throws `disk`, `data_newer`, `data_in_use` or `internal`, with a sentence that says what to do. */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const data_dir = resolve(options.data_dir)
  const binaries = await findPostgres()
  const account = await choosePostgresAccount(options.account)
  await mkdir(data_dir, { recursive: true, mode: 0o700 })
  // the same in each life, whatever links lead to it
  const cluster = join(await realpath(data_dir), 'postgres')
  // That user has to pass through; what is secret in the folder has a mode of its own.
  if (account.way === 'setuid') await chmod(data_dir, 0o711)
  const there = await hasCluster(cluster, binaries.major)
  if (!there && options.again !== undefined) throw new SealpostError('disk', `the database in ${cluster} is gone`, { hint: GONE_HINT })
  if (options.again === undefined) await createCluster(binaries, account, cluster, there, options.test === true)
  await giveFolder(account, cluster)

  const lost = await readPostmaster(cluster)
  const sockets = await prepareSocketFolder(account, data_dir, options.again?.sockets)
  const settings = {
    ...SETTINGS,
    ...(options.test === true ? { fsync: 'off', full_page_writes: 'off' } : {}),
    ...options.settings,
    unix_socket_directories: `"${sockets.path.replaceAll('"', '""')}"`,
  }
  const args = ['-D', cluster, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])]

  const deadline = Date.now() + LOCK_MS_MAX
  for (;;) {
    const remains = await judgeRemains(cluster)
    const started = await startAfter(remains)
    if (started.ok) {
      if (lost !== null && lost.sockets !== sockets.path && isTemporarySocketFolder(lost.sockets)) await removeFolder(lost.sockets)
      return finishStart(started.child, sockets, options.logger)
    }
    const { busy, output } = started
    if (!busy || Date.now() > deadline) {
      if (sockets.temporary && options.again === undefined) await removeFolder(sockets.path)
      throw busy ? inUse(data_dir, cluster, remains, output) : startFailure(data_dir, account, output)
    }
    await sleep(100)
  }

  async function startAfter(remains: Remains): Promise<Attempt> {
    if (remains.is === 'running' && remains.postmaster !== null) interrupt(remains.postmaster)
    if (remains.is === 'running' || remains.is === 'elsewhere') return { ok: false, busy: true, output: '' }
    const env = remains.is === 'stale' ? await clearStale(remains.pid, cluster, sockets.path) : {}
    return startOnce(binaries, account, args, cluster, env, options.logger)
  }
}

/** How to reach the PostgreSQL that runs on this data folder, whoever started it; null when none does. It starts and changes nothing. */
export async function findRunningPostgres(data_dir: string): Promise<EmbeddedPostgres['connection'] | null> {
  const cluster = join(await realpath(data_dir).catch(() => resolve(data_dir)), 'postgres')
  const postmaster = await readPostmaster(cluster)
  if (postmaster === null || (await findPostgresOn(cluster))?.includes(postmaster.pid) !== true) return null
  return { host: postmaster.sockets, user: USER, database: DATABASE }
}

// ---------------------------------------------------------------- the cluster on disk

/** `initdb` into a folder beside, then one rename: a start that was cut short leaves no half-made cluster. */
async function createCluster(
  binaries: PostgresBinaries,
  account: PostgresAccount,
  cluster: string,
  there: boolean,
  test: boolean,
): Promise<void> {
  const parent = dirname(cluster)
  const unfinished = (await readdir(parent)).filter((name) => name.startsWith('postgres.new-'))
  for (const name of unfinished) await removeFolder(join(parent, name))
  if (there) return

  const fresh = await mkdtemp(join(parent, 'postgres.new-'))
  await giveFolder(account, fresh)
  const args = ['-D', fresh, '-U', USER, '-A', 'trust', '--encoding=UTF8', '--locale=C', ...(test ? ['--no-sync'] : [])]
  const [command = '', ...rest] = [...account.prefix, binaries.initdb, ...args]
  try {
    // initdb asks for the working folder, which the other user need not be able to read.
    await run(command, rest, { cwd: '/', ...account.ids, env: postgresEnvironment() })
  } catch (cause) {
    await removeFolder(fresh)
    throw startFailure(parent, account, String((cause as { stderr?: string }).stderr))
  }
  await rename(fresh, cluster)
  if (!test) await syncFolder(parent)
}

type SocketFolder = { path: string; temporary: boolean }

async function prepareSocketFolder(account: PostgresAccount, data_dir: string, kept: string | undefined): Promise<SocketFolder> {
  const inside = join(data_dir, 'run')
  const temporary = Buffer.byteLength(join(inside, SOCKET_FILE)) > SOCKET_PATH_BYTES_MAX
  const base = Buffer.byteLength(tmpdir()) > 60 ? '/tmp' : tmpdir()
  const path = kept ?? (temporary ? await makeTemporary(base) : inside)
  await mkdir(path, { recursive: true, mode: 0o700 })
  await giveFolder(account, path)
  return { path, temporary }
}

function makeTemporary(base: string): Promise<string> {
  return mkdtemp(join(base, 'sealpost-')).catch((cause: unknown) => {
    throw diskError(`no folder for the socket of the database can be made in ${base}`, cause, 'or set TMPDIR to one that can be written')
  })
}

function isTemporarySocketFolder(path: string): boolean {
  return /^sealpost-\w{6}$/.test(basename(path))
}

// ---------------------------------------------------------------- the process

/** `busy`: it may do later. */
type Attempt = { ok: true; child: ChildProcess } | { ok: false; busy: boolean; output: string }

async function startOnce(
  binaries: PostgresBinaries,
  account: PostgresAccount,
  args: readonly string[],
  cluster: string,
  env: NodeJS.ProcessEnv,
  logger: Log | undefined,
): Promise<Attempt> {
  const [command = '', ...rest] = [...account.prefix, binaries.postgres, ...args]
  // its file may name the id that the new one gets
  const before = await readPostmaster(cluster)
  const child = spawn(command, rest, {
    cwd: '/',
    ...account.ids,
    env: { ...postgresEnvironment(), ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
    // A Ctrl-C on the terminal reaches the relay alone, which drains first and stops PostgreSQL last.
    detached: true,
  })
  let output = ''
  let ended = false
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-4096)
    for (const line of text.split('\n')) if (line !== '') writeLine(logger, line)
  })
  child.on('error', (error) => {
    output += String(error)
    ended = true
  })
  // 'close' and not 'exit': the reason is in what stderr still holds.
  child.on('close', () => {
    ended = true
  })
  const deadline = Date.now() + STARTING_MS_MAX
  for (;;) {
    if (ended) return { ok: false, busy: BUSY.test(output), output }
    const postmaster = await readPostmaster(cluster)
    const isNew = postmaster !== null && postmaster.written_ns !== before?.written_ns
    if (isNew && postmaster.pid === child.pid && postmaster.ready) return { ok: true, child }
    if (Date.now() > deadline) {
      child.kill('SIGQUIT')
      return { ok: false, busy: false, output: `${output}\nnot ready after ${STARTING_MS_MAX / 1000} s` }
    }
    await sleep(10)
  }
}

async function finishStart(child: ChildProcess, sockets: SocketFolder, logger: Log | undefined): Promise<EmbeddedPostgres> {
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((settle) => {
    if (child.exitCode !== null || child.signalCode !== null) settle({ code: child.exitCode, signal: child.signalCode })
    else child.once('exit', (code, signal) => settle({ code, signal }))
  })
  const stop = async (): Promise<void> => {
    child.kill('SIGINT')
    const late = setTimeout(() => child.kill('SIGQUIT'), FAST_STOP_MS_MAX)
    await exited
    clearTimeout(late)
    if (sockets.temporary) await removeFolder(sockets.path)
  }
  try {
    await createDatabase(sockets.path)
  } catch (cause) {
    await stop()
    throw new SealpostError('internal', 'the embedded PostgreSQL does not answer', { cause })
  }
  logger?.debug({ pid: child.pid }, 'PostgreSQL is ready')
  return { connection: { host: sockets.path, user: USER, database: DATABASE }, pid: child.pid ?? 0, stop, exited }
}

async function createDatabase(host: string): Promise<void> {
  const client = new Client({ host, user: USER, database: 'postgres', connectionTimeoutMillis: 10_000 })
  // What breaks is reported by the statement that waits for it.
  client.on('error', () => {})
  await client.connect()
  try {
    const { rowCount } = await client.query('select 1 from pg_database where datname = $1', [DATABASE])
    if (rowCount === 0) await client.query(`create database ${DATABASE}`)
  } finally {
    await client.end()
  }
}

/** Tells a PostgreSQL that outlived its relay to shut down. */
function interrupt(pid: number): void {
  try {
    process.kill(pid, 'SIGINT')
  } catch {
    // Gone meanwhile.
  }
}

/**
 * Nobody runs on the cluster: the files of the socket are taken away, and the next PostgreSQL is told whose id says nothing.
 * It takes a file for stale if that names its grandparent, goes on to its other checks, and replaces the file.
 */
async function clearStale(pid: number | null, cluster: string, sockets: string): Promise<NodeJS.ProcessEnv> {
  for (const name of [SOCKET_FILE, `${SOCKET_FILE}.lock`]) await rm(join(sockets, name), { force: true })
  if (pid === null) return {}
  if (pid > 0) return { PG_GRANDPARENT_PID: String(pid) }
  // A file without an id was cut short: it tells of no shared memory either, and PostgreSQL would refuse it for ever.
  await rm(pidFileOf(cluster), { force: true })
  return {}
}

function inUse(data_dir: string, cluster: string, remains: Remains, output: string): SealpostError {
  return new SealpostError('data_in_use', `the database in ${data_dir} is in use: ${whoUses(cluster, remains, output)}`, {
    cause: new Error(output),
  })
}

function whoUses(cluster: string, remains: Remains, output: string): string {
  switch (remains.is) {
    case 'running': {
      const pids = remains.postmaster ?? remains.pids.join(' ')
      return `PostgreSQL of an earlier relay (process ${pids}) does not end; end it with: kill -INT ${pids}`
    }
    case 'elsewhere':
      return 'a PostgreSQL outside this container or machine answers on its socket; end the relay or container to which it belongs'
    case 'unknown':
      return `${pidFileOf(cluster)} names process ${remains.pid}, and this system does not tell what that is; look with: ps -p ${remains.pid}; if it is not PostgreSQL on this folder, remove the file and start again`
    case 'stale':
      return lastLine(output)
    default:
      return remains satisfies never
  }
}

function startFailure(data_dir: string, account: PostgresAccount, output: string): SealpostError {
  const cause = new Error(output)
  const reason = lastLine(output)
  if (/No space left|Check free disk space|Read-only file system|Disk quota/i.test(output)) {
    const hint = 'free some space on that disk, or mount it for writing, then start again'
    return new SealpostError('disk', `no room for the database in ${data_dir}`, { cause, hint })
  }
  if (/insufficient file descriptors|Too many open files/.test(output)) {
    const hint = 'raise the limit of open files (LimitNOFILE, ulimit -n), then start again'
    return new SealpostError('disk', 'PostgreSQL may open too few files', { cause, hint })
  }
  if (account.way === 'setuid' && /ermission denied|EACCES/.test(output)) {
    const hint = 'name a folder that all can enter with --data, start as a normal user, or set DATABASE_URL'
    const sentence = `PostgreSQL does not run as root, and another user cannot reach ${data_dir} or the program`
    return new SealpostError('disk', sentence, { cause, hint })
  }
  if (/could not look up effective user ID/.test(output)) {
    const hint = 'add the user to /etc/passwd, let it make user namespaces (unshare), or set DATABASE_URL'
    return new SealpostError('invalid_config', `PostgreSQL needs a name for user ${process.getuid?.() ?? ''}, which has none`, {
      cause,
      hint,
    })
  }
  return new SealpostError('internal', `PostgreSQL did not start on ${data_dir}: ${reason}`, { cause })
}

function writeLine(logger: Log | undefined, line: string): void {
  // What a shutdown says to a connection that is just closing is no news.
  if (/\b(FATAL|PANIC)\b/.test(line) && !line.includes('due to administrator command')) logger?.warn({ from: 'postgres' }, line)
  else logger?.debug({ from: 'postgres' }, line)
}

/** PG* of the caller must not reach it, nor anything secret. */
function postgresEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' }
}

function lastLine(text: string | undefined): string {
  const lines = (text ?? '').split('\n').filter((line) => line.trim() !== '')
  return (lines.findLast((line) => /FATAL|PANIC|error:/.test(line)) ?? lines.at(-1) ?? 'no reason given').trim()
}

function removeFolder(path: string): Promise<void> {
  return rm(path, { recursive: true, force: true })
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
