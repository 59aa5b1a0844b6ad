import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client } from 'pg'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type EmbeddedPostgres, type EmbeddedPostgresOptions, startEmbeddedPostgres } from './embedded-postgres.ts'

let folder: string
let running: EmbeddedPostgres[] = []
let holders: ChildProcess[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
})

afterEach(async () => {
  for (const holder of holders) holder.kill('SIGKILL')
  await Promise.all(running.map((postgres) => postgres.stop()))
  running = []
  holders = []
  await rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
})

async function start(options: Partial<EmbeddedPostgresOptions> = {}): Promise<EmbeddedPostgres> {
  const postgres = await startEmbeddedPostgres({ data_dir: folder, test: true, ...options })
  running.push(postgres)
  return postgres
}

async function ask(postgres: EmbeddedPostgres, text: string): Promise<unknown> {
  const client = new Client(postgres.connection)
  await client.connect()
  try {
    const { rows } = await client.query({ text, rowMode: 'array' })
    return rows[0]?.[0]
  } finally {
    await client.end()
  }
}

/** Another process starts PostgreSQL on the folder and keeps it. */
async function startHolder(): Promise<{ holder: ChildProcess; pid: number }> {
  const script = fileURLToPath(new URL('../testing/hold-postgres.ts', import.meta.url))
  const args = ['--conditions=development', '--disable-warning=ExperimentalWarning', script, folder]
  const holder = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  holders.push(holder)
  const [line] = (await once(holder.stdout, 'data')) as [Buffer]
  return { holder, pid: (JSON.parse(line.toString()) as { pid: number }).pid }
}

/** Some of them end by themselves when their parent is gone. */
function killHard(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

async function startWithin(ms: number): Promise<EmbeddedPostgres> {
  const began = Date.now()
  const postgres = await start()
  expect(Date.now() - began).toBeLessThan(ms)
  return postgres
}

describe('the embedded PostgreSQL', { timeout: 60_000 }, () => {
  it('a second start finds the data of the first, with fsync on and no TCP', async () => {
    const first = await start({ test: false })
    expect(await ask(first, 'show fsync')).toBe('on')
    expect(await ask(first, 'show synchronous_commit')).toBe('on')
    expect(await ask(first, 'show listen_addresses')).toBe('')
    await ask(first, 'create table kept as select 42 as n')
    await first.stop()
    const began = Date.now()
    const second = await start({ test: false })
    expect(Date.now() - began).toBeLessThan(2000)
    expect(await ask(second, 'select n from kept')).toBe(42)
  })

  it('starts again after kill -9 of PostgreSQL alone, and tells that it ended', async () => {
    const first = await start()
    await ask(first, 'create table kept as select 1 as n')
    process.kill(first.pid, 'SIGKILL')
    expect(await first.exited).toEqual({ code: null, signal: 'SIGKILL' })
    expect(await ask(await startWithin(10_000), 'select n from kept')).toBe(1)
  })

  it('starts again after kill -9 of the relay alone', async () => {
    const { holder } = await startHolder()
    holder.kill('SIGKILL')
    expect(await ask(await startWithin(10_000), 'select 1')).toBe(1)
  })

  it('starts again after kill -9 of everything', async () => {
    const { holder, pid } = await startHolder()
    const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')).trim().split(' ')
    for (const victim of [holder.pid, pid, ...children.map(Number)]) if (victim) killHard(victim)
    expect(await ask(await startWithin(10_000), 'select 1')).toBe(1)
  })

  it('takes over from a PostgreSQL that outlived its relay', async () => {
    const lost = await start()
    const next = await startWithin(10_000)
    expect(await lost.exited).toEqual({ code: 0, signal: null })
    expect(await ask(next, 'select 1')).toBe(1)
  })

  it('runs in a folder whose path is too long for a socket, and leaves nothing behind', async () => {
    const data_dir = join(folder, 'a'.repeat(90), 'b c"d'.repeat(20))
    await mkdir(data_dir, { recursive: true, mode: 0o700 })
    const postgres = await start({ data_dir })
    expect(Buffer.byteLength(postgres.connection.host)).toBeLessThan(90)
    expect(await ask(postgres, 'select 1')).toBe(1)
    await postgres.stop()
    await expect(readdir(postgres.connection.host)).rejects.toThrow('ENOENT')
  })

  it('leaves a folder of another PostgreSQL alone', async () => {
    await mkdir(join(folder, 'postgres'))
    await writeFile(join(folder, 'postgres', 'PG_VERSION'), '99\n')
    await expect(start()).rejects.toMatchObject({ code: 'data_newer' })
  })

  const rootOnLinux = process.platform === 'linux' && process.getuid?.() === 0
  it.runIf(rootOnLinux).each(['unshare', 'setpriv'] as const)(
    'as root (%s) it runs below a folder that only root can enter',
    async (account) => {
      await chmod(folder, 0o700)
      const data_dir = join(folder, 'home')
      const postgres = await start({ data_dir, account })
      expect(await ask(postgres, 'select 1')).toBe(1)
      await postgres.stop()
      expect(await ask(await start({ data_dir }), 'select 2')).toBe(2)
    },
  )
})
