/**
 * Runs the tasks of the repository, from a bare clone on: plain JavaScript for Node 20 and later, no dependency.
 *
 * Each task first makes the installed packages equal to the lock (`npm ci`), then runs under the Node that npm brought
 * into node_modules/.bin (24); where none is packaged, under the one at hand when it is new enough.
 *
 *   node scripts/run.mjs start | test | test:system | check | build | format | docs | measure | bench | soak   [arguments of the task]
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))

const NODE_MIN = [22, 15]
/** The first release of each line that runs TypeScript without a flag. */
const STRIPS_TYPES = { 22: 18, 23: 6 }
/** From the first moment on, also before a program has a listener to SIGUSR1 (packages/cli/src/main.ts). Node 23.0 to 23.6 lacks it. */
const NO_INSPECTOR = '--disable-sigusr1'
/** Another install of the same folder is waited for. */
const INSTALL_MS_MAX = 600_000

/** Figures of several nodes and of sockets under load; docs/measurements.md has what they gave. */
const BENCHES = ['deliveries', 'nodes', 'stalled']

const TASKS = {
  start: (args) => runNode(['packages/cli/src/main.ts', 'serve', ...args]),
  test: (args) => runTests('test', args),
  'test:system': (args) => runTests('test:system', args),
  check: async () => ((await runChecks()).every((check) => check.ok) ? 0 : 1),
  build: () => runNode([binOf('typescript', 'tsc'), '-b', 'tsconfig.build.json']),
  format: () => runNode([binOf('@biomejs/biome', 'biome'), 'format', '--write', '.']),
  measure: (args) => runNode(['bench/measure.ts', ...args]),
  bench: ([name = '', ...args]) =>
    BENCHES.includes(name) ? runNode([`bench/${name}.ts`, ...args]) : fail(`usage: node scripts/run.mjs bench ${BENCHES.join(' | ')}`, 2),
  soak: (args) => runNode(['test/soak.ts', ...args]),
  docs: () => runNode(['scripts/docs.ts']),
}

// ---------------------------------------------------------------- installed packages

/** Makes node_modules equal to the lock. Nothing is written to stdout: it may be a pipe of the user's. */
export async function ensureInstalled(root = ROOT) {
  const lock = readFileSync(join(root, 'package-lock.json'))
  const hash = createHash('sha256').update(lock).digest('hex')
  const stamp = join(root, 'node_modules', '.sealpost-lock')
  const isCurrent = () => readOrNull(stamp) === hash
  if (isCurrent()) return
  if (isInstalled(root, JSON.parse(lock.toString()))) return writeStamp(stamp, hash)
  const release = await takeInstallLock(root, isCurrent)
  try {
    if (isCurrent()) return
    install(root)
    writeStamp(stamp, hash)
  } finally {
    release()
  }
}

/** Whether somebody's own `npm ci` or `npm install` put the locked versions there: npm keeps its list in a hidden lock. */
function isInstalled(root, lock) {
  const text = readOrNull(join(root, 'node_modules', '.package-lock.json'))
  if (text === null) return false
  const installed = JSON.parse(text).packages ?? {}
  return Object.entries(lock.packages).every(
    ([path, wanted]) => !path.startsWith('node_modules/') || wanted.optional || wanted.link || installed[path]?.version === wanted.version,
  )
}

function install(root) {
  process.stderr.write('installing packages (npm ci) …\n')
  const args = ['ci', '--include=dev', '--include=optional', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const npm = process.env.npm_execpath
  const options = { cwd: root, stdio: ['ignore', 2, 2] }
  const result = npm?.endsWith('.js')
    ? spawnSync(process.execPath, [npm, ...args], options)
    : spawnSync('npm', args, { ...options, shell: process.platform === 'win32' })
  if (result.status !== 0) fail(`npm ci failed${result.error ? ` (${result.error.message})` : ''}; see above`, 1)
}

/**
 * The lock is a folder that names its owner, which comes and goes as a whole: a rename onto a folder that is not empty fails. That of an
 * owner who was killed is cleared by the one process that marks it, and only if it is still of that owner.
 */
async function takeInstallLock(root, isDone) {
  const lock = join(tmpdir(), `sealpost-install-${createHash('sha256').update(root).digest('hex').slice(0, 16)}`)
  const own = mkdtempSync(`${lock}-`)
  writeFileSync(join(own, 'pid'), nameProcess(process.pid) ?? String(process.pid))
  const remove = (path) => rmSync(path, { recursive: true, force: true })
  const release = () => {
    renameSync(lock, own)
    remove(own)
  }
  const deadline = Date.now() + INSTALL_MS_MAX
  for (;;) {
    if (tryRename(own, lock)) return release
    if (isDone()) {
      remove(own)
      return () => {}
    }
    if (Date.now() > deadline) {
      remove(own)
      fail(`another install has been running for long; if not, remove ${lock}`, 1)
    }
    const owner = readOrNull(join(lock, 'pid'))
    if (owner !== null && !isRunning(owner)) clearLock(lock, owner)
    await sleep(randomInt(20, 200))
  }
}

/** False: there is one. */
function tryRename(own, lock) {
  try {
    renameSync(own, lock)
    return true
  } catch (error) {
    if (['EEXIST', 'ENOTEMPTY'].includes(error.code) || (error.code === 'EPERM' && process.platform === 'win32')) return false
    throw error
  }
}

function clearLock(lock, owner) {
  try {
    mkdirSync(join(lock, `cleared-${owner}`))
  } catch {
    // somebody else clears it, or has done so
    return
  }
  if (readOrNull(join(lock, 'pid')) !== owner) return
  const old = `${lock}-${randomBytes(6).toString('hex')}`
  renameSync(lock, old)
  rmSync(old, { recursive: true, force: true })
}

/** Its id and when it began, because ids come again, in a container with each start. Null: there is none. */
function nameProcess(pid) {
  if (process.platform === 'win32') return isAlive(pid) ? String(pid) : null
  if (process.platform === 'linux') {
    // proc_pid_stat(5): the fields behind the name, the state first; a zombie is gone
    const fields = readOrNull(`/proc/${pid}/stat`)?.split(') ').at(-1).split(' ') ?? ['Z']
    const boot = readOrNull('/proc/sys/kernel/random/boot_id')?.trim()
    return fields[0] === 'Z' ? null : `${pid}-${fields[19]}-${boot}`
  }
  const began = spawnSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).stdout?.trim() ?? ''
  return began === '' ? null : `${pid}-${began.replace(/\W+/g, '.')}`
}

/** An owner that an older version wrote down has an id alone. */
function isRunning(owner) {
  const pid = Number.parseInt(owner, 10)
  return owner.includes('-') ? nameProcess(pid) === owner : isAlive(pid)
}

function isAlive(pid) {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return error.code === 'EPERM'
  }
}

function writeStamp(stamp, hash) {
  try {
    writeFileSync(stamp, hash)
  } catch {
    // A folder that cannot be written needs no stamp: what is there was found to be right.
  }
}

function readOrNull(path) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

// ---------------------------------------------------------------- Node

/** The Node to run with, and the flags it needs for the sources. */
export function findNode(root = ROOT) {
  const flags = ['--conditions=development', '--disable-warning=ExperimentalWarning', NO_INSPECTOR]
  const packaged = join(root, 'node_modules', '.bin', 'node')
  if (process.platform !== 'win32' && existsSync(packaged)) return { node: packaged, flags }
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
    fail(`Sealpost needs Node ${NODE_MIN.join('.')} or later on this platform; this is ${process.versions.node}`, 2)
  }
  const known = flags.filter((flag) => flag !== NO_INSPECTOR || process.allowedNodeEnvironmentFlags.has(flag))
  return { node: process.execPath, flags: minor < (STRIPS_TYPES[major] ?? 0) ? [...known, '--experimental-strip-types'] : known }
}

/** Compiled sources are kept: a command starts in a third of the time. Where it cannot be written, Node goes without. */
const COMPILE_CACHE = join(ROOT, 'node_modules', '.cache', 'compiled')

/**
 * Runs a program to its end with this one's stdio, passes signals on, and resolves to the exit code to end with.
 * The channel lets a relay notice that whoever started it was killed.
 */
export function runProgram(command, args, options = {}) {
  return new Promise((resolve) => {
    const env = { NODE_COMPILE_CACHE: COMPILE_CACHE, ...process.env }
    const child = spawn(command, args, { stdio: ['inherit', 'inherit', 'inherit', 'ipc'], env, ...options })
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP']
    const pass = (signal) => child.kill(signal)
    for (const signal of signals) process.on(signal, pass)
    const watch = watchParent(() => child.kill('SIGTERM'))
    const end = (code) => {
      clearInterval(watch)
      for (const signal of signals) process.off(signal, pass)
      resolve(code)
    }
    child.on('error', (error) => {
      process.stderr.write(`${command}: ${error.message}\n`)
      end(1)
    })
    child.on('exit', (code, signal) => end(signal === null ? (code ?? 1) : 128 + constants.signals[signal]))
  })
}

/** npm passes every signal on but the one that cannot be caught: then this process gets another parent. */
function watchParent(onGone) {
  if (process.env.npm_lifecycle_event === undefined) return undefined
  const parent = process.ppid
  return setInterval(() => {
    if (process.ppid !== parent) onGone()
  }, 100).unref()
}

function runNode(args) {
  const { node, flags } = findNode()
  return runProgram(node, [...flags, ...args], { cwd: ROOT })
}

function binOf(name, bin) {
  const folder = join(ROOT, 'node_modules', name)
  const listed = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).bin
  return join(folder, typeof listed === 'string' ? listed : listed[bin])
}

// ---------------------------------------------------------------- check, test

/** Formatting, lint and types, at the same time; the output of those that fail is shown. */
async function runChecks() {
  const checks = {
    format: [binOf('@biomejs/biome', 'biome'), 'format', '.'],
    lint: [binOf('oxlint', 'oxlint'), '--type-aware', '--quiet'],
    types: [binOf('typescript', 'tsc'), '-p', 'tsconfig.json', '--noEmit'],
  }
  const { node, flags } = findNode()
  const run = (name, args) =>
    new Promise((resolve) => {
      const child = spawn(node, [...flags, ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] })
      let output = ''
      for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text))
      child.on('error', (error) => (output += error.message))
      child.on('close', (code) => resolve({ name, ok: code === 0, output }))
    })
  const results = await Promise.all(Object.entries(checks).map(([name, args]) => run(name, args)))
  for (const { name, ok, output } of results) process.stdout.write(ok ? `${name}: ok\n` : `${output}\n${name}: failed\n`)
  return results
}

/** Projects of `vitest.config.ts` that each tier runs. */
const TIERS = { test: ['pure', 'quick'], 'test:system': ['system'] }

/**
 * The tests of a tier; before those of `test` the checks. Files that are named run alone, whatever their tier.
 * The last line of the output is `N passed, N failed`.
 */
async function runTests(tier, args) {
  const namesFiles = args.some((arg) => !arg.startsWith('-'))
  const checks = tier === 'test' && !namesFiles ? await runChecks() : []
  const projects = namesFiles && tier === 'test' ? [] : TIERS[tier].map((name) => `--project=${name}`)
  const folder = mkdtempSync(join(tmpdir(), 'sealpost-report-'))
  const report = join(folder, 'report.json')
  try {
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
    const code = await runNode([binOf('vitest', 'vitest'), 'run', ...projects, ...reporters, ...args])
    const { numPassedTests = 0, numFailedTests = 0 } = JSON.parse(readOrNull(report) ?? '{}')
    const passed = numPassedTests + checks.filter((check) => check.ok).length
    // A file that does not load, or an error outside every test, fails the run without a failed test.
    const failed = Math.max(numFailedTests, code === 0 ? 0 : 1) + checks.filter((check) => !check.ok).length
    process.stdout.write(`${passed} passed, ${failed} failed\n`)
    return failed === 0 ? 0 : 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

// ---------------------------------------------------------------- main

function fail(sentence, code) {
  process.stderr.write(`${sentence}\n`)
  process.exit(code)
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === realpathSync(fileURLToPath(import.meta.url))) {
  process.on('SIGUSR1', () => {})
  const [name = '', ...args] = process.argv.slice(2)
  if (!Object.hasOwn(TASKS, name)) fail(`usage: node scripts/run.mjs ${Object.keys(TASKS).join(' | ')}`, 2)
  await ensureInstalled()
  process.exitCode = await TASKS[name](args)
}
