/**
 * Child processes of the tests: started in a group of their own, read line by line, and ended for sure. What a test starts
 * it also ends: `using` kills what is left.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { findFreePort } from './free-port.ts'

export const ROOT = join(import.meta.dirname, '..', '..', '..', '..')
const CLI = join(ROOT, 'packages', 'cli', 'src', 'main.ts')
const NODE_FLAGS = ['--conditions=development', '--disable-warning=ExperimentalWarning']
/** The arguments by which Node runs the sealpost command from its sources. */
export const SEALPOST: readonly string[] = [...NODE_FLAGS, CLI]

export type Ended = { code: number | null; signal: NodeJS.Signals | null; stdout: Buffer; stderr: string }

export type Program = {
  readonly pid: number
  /** Resolves with the first match in what was printed so far or later; rejects when the program ends before, or late. */
  printed(pattern: RegExp, ms?: number): Promise<RegExpMatchArray>
  readonly ended: Promise<Ended>
  kill(signal: NodeJS.Signals): void
  [Symbol.dispose](): void
}

export type ProgramOptions = { cwd?: string; env?: NodeJS.ProcessEnv; input?: Uint8Array | string; ms_max?: number }

const running = new Set<ChildProcess>()
// a test that failed before it ended its programs leaves none behind
process.on('exit', () => {
  for (const child of running) killGroup(child, 'SIGKILL')
})

/** Starts a program; without `input` its stdin is empty. It is killed after `ms_max` (60 s). */
export function startProgram(command: string, args: readonly string[], options: ProgramOptions = {}): Program {
  const child = spawn(command, args, {
    cwd: options.cwd ?? ROOT,
    env: { ...process.env, SEALPOST_HOME: '', DATABASE_URL: '', ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  })
  running.add(child)
  child.once('close', () => running.delete(child))
  const stdout: Buffer[] = []
  let stderr = ''
  let watchers: (() => void)[] = []
  const changed = (): void => {
    for (const watch of watchers) watch()
  }
  child.stdout.on('data', (chunk: Buffer) => {
    stdout.push(chunk)
    changed()
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
    changed()
  })
  child.stdin.on('error', () => {})
  child.stdin.end(options.input ?? '')
  const timer = setTimeout(() => killGroup(child, 'SIGKILL'), options.ms_max ?? 60_000)
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ code, signal, stdout: Buffer.concat(stdout), stderr })
    })
  })
  void ended.then(changed, changed)
  return {
    pid: child.pid ?? 0,
    ended,
    kill: (signal) => killGroup(child, signal),
    [Symbol.dispose]: () => killGroup(child, 'SIGKILL'),
    printed: (pattern, ms = 30_000) =>
      new Promise((resolve, reject) => {
        const text = (): string => `${Buffer.concat(stdout).toString()}\n${stderr}`
        const late = setTimeout(() => end(() => reject(new Error(`no ${pattern} within ${ms} ms in:\n${text()}`))), ms)
        const end = (settle: () => void): void => {
          clearTimeout(late)
          watchers = watchers.filter((watch) => watch !== look)
          settle()
        }
        const look = (): void => {
          const match = text().match(pattern)
          if (match !== null) end(() => resolve(match))
          else if (child.exitCode !== null || child.signalCode !== null)
            end(() => reject(new Error(`ended without ${pattern}:\n${text()}`)))
        }
        watchers.push(look)
        look()
      }),
  }
}

/** Runs the sealpost command from its sources under this Node. */
export function startSealpost(args: readonly string[], options: ProgramOptions = {}): Program {
  return startProgram(process.execPath, [...SEALPOST, ...args], options)
}

/** Runs it to its end and asks for exit code 0, or 75 (queued) for `--queue`. */
export async function sealpost(args: readonly string[], options: ProgramOptions = {}): Promise<Ended> {
  const ended = await startSealpost(args, options).ended
  if (ended.code !== (args.includes('--queue') ? 75 : 0))
    throw new Error(`sealpost ${args.join(' ')} ended with ${ended.code ?? ended.signal}:\n${ended.stderr}`)
  return ended
}

export type Relay = Program & { url: string; port: number; data: string }

/**
 * Starts a relay on `data` and waits until it listens, at a port to which it can come back if nothing else is said. `within`: a command
 * that runs it.
 */
export async function startRelay(data: string, env: NodeJS.ProcessEnv = {}, port?: number, within: readonly string[] = []): Promise<Relay> {
  const serve = ['serve', '--port', String(port ?? (await findFreePort())), '--data', data]
  const [command = '', ...args] = [...within, process.execPath, ...SEALPOST, ...serve]
  const program = startProgram(command, args, { env: { SEALPOST_ADMIN_PORT: '0', ...env }, ms_max: 600_000 })
  const match = await program.printed(/listening on (http:\/\/127\.0\.0\.1:(\d+))/)
  return { ...program, [Symbol.dispose]: program[Symbol.dispose], url: match[1] ?? '', port: Number(match[2]), data }
}

/** The postmaster of a relay's data folder, as PostgreSQL itself names it. */
export function postmasterPid(data: string): number {
  return Number(readFileSync(join(data, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0])
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    process.kill(-child.pid, signal)
  } catch {
    // gone already
  }
}
