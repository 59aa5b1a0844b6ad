import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createHash } from 'node:crypto'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const SCRIPT = fileURLToPath(new URL('../scripts/run.mjs', import.meta.url))
const LAUNCHER = fileURLToPath(new URL('../packages/cli/bin/sealpost.js', import.meta.url))

/** A program that tells what it was given, ends with 7, or waits for a signal and then ends with 9. */
const MAIN = `
if (process.argv.includes('wait')) {
  setInterval(() => {}, 1000)
  process.on('SIGTERM', () => process.exit(9))
} else process.exitCode = 7
process.stdout.write(JSON.stringify({ args: process.argv.slice(2), cwd: process.cwd(), flags: process.execArgv, pid: process.pid }) + '\\n')
`
/** Stands where npm is: writes down that it was called. */
const NPM = `
import { appendFileSync, mkdirSync } from 'node:fs'
mkdirSync('node_modules', { recursive: true })
appendFileSync('calls', process.argv.slice(2, 3) + '\\n')
process.stdout.write('noise')
`

let root: string
let children: ChildProcess[] = []

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'sealpost-run-'))
  await mkdir(join(root, 'scripts'))
  await mkdir(join(root, 'packages/cli/bin'), { recursive: true })
  await mkdir(join(root, 'packages/cli/src'))
  await copyFile(SCRIPT, join(root, 'scripts/run.mjs'))
  await copyFile(LAUNCHER, join(root, 'packages/cli/bin/sealpost.js'))
  await writeFile(join(root, 'package.json'), '{"type": "module"}')
  await writeFile(join(root, 'packages/cli/src/main.ts'), MAIN)
  await writeFile(join(root, 'npm.js'), NPM)
  await writeLock('1.0.0')
})

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  children = []
  await rm(root, { recursive: true, force: true })
})

async function writeLock(version: string): Promise<void> {
  await writeFile(join(root, 'package-lock.json'), JSON.stringify({ packages: { '': {}, 'node_modules/a': { version } } }))
}

function start(script: string, ...args: string[]): ChildProcess {
  const env = { ...process.env, npm_execpath: join(root, 'npm.js') }
  const child = spawn(process.execPath, [join(root, script), ...args], {
    cwd: join(root, 'packages'),
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  return child
}

async function run(script: string, ...args: string[]): Promise<{ code: number; stdout: string }> {
  const child = start(script, ...args)
  let stdout = ''
  child.stdout?.on('data', (text) => (stdout += text))
  const [code] = (await once(child, 'close')) as [number]
  return { code, stdout }
}

const calls = (): Promise<string> => readFile(join(root, 'calls'), 'utf8').catch(() => '')

describe('the tasks and the launcher', () => {
  it('installs when the lock has changed since the last install, and only then, and keeps stdout clean', async () => {
    expect(await run('packages/cli/bin/sealpost.js', 'status')).toMatchObject({ code: 7, stdout: expect.stringMatching(/^\{/) })
    expect(await calls()).toBe('ci\n')
    await run('packages/cli/bin/sealpost.js')
    expect(await calls()).toBe('ci\n')
    await writeLock('1.0.1')
    const scripts = ['packages/cli/bin/sealpost.js', 'packages/cli/bin/sealpost.js', 'scripts/run.mjs']
    const ends = await Promise.all(scripts.map((script) => run(script, 'start')))
    expect([ends.map(({ code }) => code), await calls()]).toEqual([[7, 7, 7], 'ci\nci\n'])
  })

  it('of many that wait for one that was killed, one installs', async () => {
    const lock = join(tmpdir(), `sealpost-install-${createHash('sha256').update(root).digest('hex').slice(0, 16)}`)
    for (let round = 1; round <= 3; round++) {
      const killed = spawn(process.execPath, ['--version'])
      await once(killed, 'close')
      await mkdir(lock)
      await writeFile(join(lock, 'pid'), String(killed.pid))
      await writeLock(`1.0.${round}`)
      const ends = await Promise.all(Array.from({ length: 6 }, () => run('packages/cli/bin/sealpost.js')))
      expect([ends.map(({ code }) => code), await calls()]).toEqual([Array(6).fill(7), 'ci\n'.repeat(round)])
    }
    expect((await readdir(tmpdir())).filter((name) => name.startsWith(basename(lock)))).toEqual([])
  })

  it.skipIf(process.platform === 'win32')(
    'an install whose owner was killed is not waited for when another process has its id',
    async () => {
      const lock = join(tmpdir(), `sealpost-install-${createHash('sha256').update(root).digest('hex').slice(0, 16)}`)
      await mkdir(lock)
      // this process did not begin then
      await writeFile(join(lock, 'pid'), `${process.pid}-1-of-an-earlier-life`)
      expect(await run('packages/cli/bin/sealpost.js')).toMatchObject({ code: 7 })
      expect(await calls()).toBe('ci\n')
    },
  )

  it('an install of a process that lives is waited for', async () => {
    await writeFile(join(root, 'npm.js'), `${NPM}\nawait new Promise((resolve) => setTimeout(resolve, 1_000))`)
    const ends = await Promise.all([run('packages/cli/bin/sealpost.js'), run('packages/cli/bin/sealpost.js')])
    expect([ends.map(({ code }) => code), await calls()]).toEqual([[7, 7], 'ci\n'])
  })

  it('takes the packages that somebody else installed', async () => {
    await mkdir(join(root, 'node_modules'))
    await copyFile(join(root, 'package-lock.json'), join(root, 'node_modules/.package-lock.json'))
    await run('packages/cli/bin/sealpost.js')
    expect(await calls()).toBe('')
  })

  it('passes arguments, folder and exit code on', async () => {
    const { code, stdout } = await run('packages/cli/bin/sealpost.js', 'send', '--stream', 'a b')
    expect(code).toBe(7)
    expect(JSON.parse(stdout)).toMatchObject({ args: ['send', '--stream', 'a b'], cwd: join(root, 'packages') })
    const started = await run('scripts/run.mjs', 'start', '--port', '0')
    expect(started.code).toBe(7)
    expect(JSON.parse(started.stdout)).toMatchObject({ args: ['serve', '--port', '0'], cwd: root })
  })

  it('passes signals on and ends with the code of the program, or 128 + the signal', async () => {
    for (const [signal, code] of [
      ['SIGTERM', 9],
      ['SIGHUP', 129],
    ] as const) {
      const child = start('packages/cli/bin/sealpost.js', 'wait')
      await once(child.stdout!, 'data')
      child.kill(signal)
      expect(await once(child, 'close')).toEqual([code, null])
    }
  })

  it.skipIf(process.platform === 'win32')('SIGUSR1 opens the inspector neither of the launcher nor of the program', async () => {
    const child = start('packages/cli/bin/sealpost.js', 'wait')
    let stderr = ''
    child.stderr!.on('data', (text) => (stderr += text))
    const [line] = (await once(child.stdout!, 'data')) as [Buffer]
    const { pid } = JSON.parse(line.toString()) as { pid: number }
    for (const one of [pid, child.pid!]) process.kill(one, 'SIGUSR1')
    await sleep(500)
    child.kill('SIGTERM')
    expect(await once(child, 'close')).toEqual([9, null])
    expect(stderr).not.toMatch(/debugger|inspector/i)
  })

  it('an unknown task is a mistake', async () => {
    expect((await run('scripts/run.mjs', 'fly')).code).toBe(2)
  })
})
