/**
 * The life of one started component: a folder of its own, ports of its own, a check that it really answers; killed, frozen,
 * started again on the same ports; and ended for sure.
 *
 * Invariant: it never outlives the process that started it, and after `stop` neither process nor folder is left.
 * Bound: a start ends within `READY_MS_MAX`, ready or with what the component said.
 */
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findFreePort } from './free-port.ts'
import { type Program, startProgram } from './programs.ts'
import { type Command, commandOf, findCommand } from './available.ts'

const READY_MS_MAX = 20_000
const POLL_MS = 20
const CONNECT_MS_MAX = 1000
/** A port that was free may be another's by the time it is bound. */
const ATTEMPTS_MAX = 5
/** What a component may run: longer than any test. */
const RUN_MS_MAX = 86_400_000

/** Where a component runs: on loopback, or in a private network namespace (`network-namespaces.ts`). */
export type Place = { readonly host: string; readonly prefix: readonly string[] }
export const LOOPBACK: Place = { host: '127.0.0.1', prefix: [] }

export type Given = { readonly host: string; readonly port: number; readonly ports: readonly number[]; readonly folder: string }

export type Running = Given & {
  readonly pid: number
  /** What it has printed since it was started last. */
  output(): Promise<string>
  /** SIGKILL to it and its children; resolves when they are gone. */
  kill(): Promise<void>
  freeze(): void
  thaw(): void
  /** Starts it again on the same ports; one that runs is killed first. */
  restart(): Promise<void>
  /** Kills it and removes its folder. */
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export type Recipe = {
  command: Command
  at?: Place | undefined
  ports?: number | undefined
  /** A distance at which a port has to be free too. */
  also_at?: number | undefined
  /** This one and no other. */
  port?: number | undefined
  /** Who is told when its parent dies, and how: a master that has children needs a signal that it can pass on. */
  dies_by?: 'KILL' | 'TERM' | undefined
  /** The prefix that changes the user; it says itself how the program dies with its parent. */
  account?: readonly string[] | undefined
  /** Writes what it needs into the folder; the answer is its arguments. Called at every start. */
  prepare(given: Given): Promise<readonly string[]>
  /** Whether it answers; one that throws does not yet. */
  isReady(given: Given): Promise<boolean>
}

const folders = new Set<string>()
// a test that failed before it stopped its components leaves no files behind; the programs are ended by programs.ts
process.on('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

async function makeFolder(command: Command): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `sealpost-${command}-`))
  folders.add(folder)
  return folder
}

async function removeFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true })
  folders.delete(folder)
}

export async function startComponent(recipe: Recipe): Promise<Running> {
  for (let attempt = 1; ; attempt++) {
    const ports = recipe.port === undefined ? await findFreePorts(recipe) : [recipe.port]
    const folder = await makeFolder(recipe.command)
    const given: Given = { host: placeOf(recipe).host, port: ports[0] ?? 0, ports, folder }
    try {
      return createRunning(recipe, given, await launch(recipe, given))
    } catch (error) {
      await removeFolder(folder)
      if (attempt === ATTEMPTS_MAX || recipe.port !== undefined || !isPortTaken(error)) throw error
    }
  }
}

function createRunning(recipe: Recipe, given: Given, first: Program): Running {
  let program = first
  let stopped = false
  const kill = async (): Promise<void> => {
    program.kill('SIGKILL')
    await program.ended
  }
  const stop = async (): Promise<void> => {
    stopped = true
    await kill()
    await removeFolder(given.folder)
  }
  return {
    ...given,
    get pid() {
      return program.pid
    },
    output: () => outputOf(program),
    kill,
    freeze: () => program.kill('SIGSTOP'),
    thaw: () => program.kill('SIGCONT'),
    async restart() {
      if (stopped) throw new Error(`${recipe.command} was stopped for good`)
      await kill()
      program = await relaunch(recipe, given)
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

/** Connections of the killed one may hold its port for a moment. */
async function relaunch(recipe: Recipe, given: Given): Promise<Program> {
  for (const end = performance.now() + READY_MS_MAX; ; await sleep(POLL_MS)) {
    try {
      return await launch(recipe, given)
    } catch (error) {
      if (!isPortTaken(error) || performance.now() > end) throw error
    }
  }
}

async function launch(recipe: Recipe, given: Given): Promise<Program> {
  const args = await recipe.prepare(given)
  const dying = recipe.account ?? (findCommand('setpriv') === null ? [] : ['setpriv', '--pdeathsig', recipe.dies_by ?? 'KILL'])
  const [command = '', ...rest] = [...placeOf(recipe).prefix, ...dying, commandOf(recipe.command), ...args]
  const program = startProgram(command, rest, { cwd: '/', ms_max: RUN_MS_MAX })
  let ended = false
  void program.ended.finally(() => (ended = true)).catch(() => {})
  let ready = false
  for (const end = performance.now() + READY_MS_MAX; performance.now() < end; await sleep(POLL_MS)) {
    ready = await recipe.isReady(given).catch(() => false)
    // who answers may be another on the same port, which this one ends for
    if (ready || ended) break
  }
  if (ready && !ended) return program
  program.kill('SIGKILL')
  await program.ended
  throw new Error(`${recipe.command} ${ended ? 'ended' : `did not answer within ${READY_MS_MAX} ms`}:\n${await outputOf(program)}`)
}

function placeOf(recipe: Recipe): Place {
  return recipe.at ?? LOOPBACK
}

async function outputOf(program: Program): Promise<string> {
  return (await program.printed(/[^]*/))[0]
}

function isPortTaken(error: unknown): boolean {
  return /address already in use|EADDRINUSE/i.test(String(error))
}

// ---------------------------------------------------------------- ports

async function findFreePorts({ ports: count = 1, also_at = 0 }: Recipe): Promise<number[]> {
  const ports: number[] = []
  while (ports.length < count) {
    const port = await findFreePort(also_at)
    if (!ports.includes(port)) ports.push(port)
  }
  return ports
}

/** Whether somebody takes a TCP connection there. */
export function isListening(port: number, host = LOOPBACK.host): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host, timeout: CONNECT_MS_MAX })
    const end = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => end(true)).once('error', () => end(false))
    socket.once('timeout', () => end(false))
  })
}

/** Waits until `holds` says yes; one that throws does not yet. */
export async function waitUntil(what: string, holds: () => Promise<boolean>, ms = READY_MS_MAX): Promise<void> {
  for (const end = performance.now() + ms; performance.now() < end; await sleep(POLL_MS)) {
    if (await holds().catch(() => false)) return
  }
  throw new Error(`not within ${ms} ms: ${what}`)
}
