import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Client } from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type EmbeddedPostgres, type EmbeddedPostgresOptions, startEmbeddedPostgres } from './embedded-postgres.ts'
import { findPostgresOn } from './postmaster.ts'

let folder: string
let running: EmbeddedPostgres[] = []
let holders: ChildProcess[] = []

/** A cluster that was made once; each test begins with a copy of it. */
let made: string

beforeAll(async () => {
  made = await mkdtemp(join(tmpdir(), 's-'))
  const postgres = await startEmbeddedPostgres({ data_dir: made, test: true })
  await postgres.stop()
})
afterAll(() => rm(made, { recursive: true, force: true }))

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
  await cp(join(made, 'postgres'), join(folder, 'postgres'), { recursive: true })
  await chmod(join(folder, 'postgres'), 0o700)
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
  const script = fileURLToPath(import.meta.resolve('@sealpost/testing/components/hold-postgres'))
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

  describe('after a hard kill of everything, whoever has the id that is in the files of the one before', () => {
    /** What was committed is in `kept`; nobody of it runs any more. */
    async function killEverything(data_dir = folder): Promise<void> {
      const postgres = await start({ data_dir, test: false })
      await ask(postgres, 'create table kept as select 42 as n')
      const pids = (await findPostgresOn(join(await realpath(data_dir), 'postgres'))) ?? []
      expect(pids).toContain(postgres.pid)
      for (const pid of pids) killHard(pid)
      await postgres.exited
    }

    async function leavePid(text: string): Promise<void> {
      const cluster = join(folder, 'postgres')
      const lines = (await readFile(join(cluster, 'postmaster.pid'), 'utf8')).split('\n')
      await writeFile(join(cluster, 'postmaster.pid'), [text, ...lines.slice(1)].join('\n'))
      await writeFile(join(folder, 'run/.s.PGSQL.5432.lock'), [text, ...lines.slice(1, 5), ''].join('\n'))
    }

    async function startAgain(): Promise<void> {
      expect(await ask(await start({ test: false }), 'select n from kept')).toBe(42)
    }

    it.each(['.', 'postgres'])('starts when that is an unrelated process, which works in the folder %s', async (cwd) => {
      await killEverything()
      const stranger = spawn('sleep', ['600'], { cwd: join(folder, cwd) })
      holders.push(stranger)
      await leavePid(String(stranger.pid))
      await startAgain()
      expect([stranger.exitCode, stranger.signalCode]).toEqual([null, null])
    })

    it('starts when that is this process', async () => {
      await killEverything()
      await leavePid(String(process.pid))
      await startAgain()
    })

    it('starts when the files name two that live', async () => {
      await killEverything()
      await leavePid(String(process.ppid))
      const cluster = join(folder, 'postgres/postmaster.pid')
      await writeFile(cluster, (await readFile(cluster, 'utf8')).replace(/^\d+/, String(process.pid)))
      await startAgain()
    })

    it.each(['', '-'])('starts when the file was cut short (%j)', async (text) => {
      await killEverything()
      await writeFile(join(folder, 'postgres/postmaster.pid'), text)
      await startAgain()
    })

    it.skipIf(process.platform !== 'linux')('starts when that is a zombie that nobody buries', async () => {
      await killEverything()
      // its parent does not wait for it
      const grave = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 600'], { stdio: ['ignore', 'pipe', 'inherit'] })
      holders.push(grave)
      const [line] = (await once(grave.stdout, 'data')) as [Buffer]
      const pid = Number(line.toString())
      await expect.poll(() => readFile(`/proc/${pid}/stat`, 'utf8'), { timeout: 10_000 }).toContain(') Z ')
      await leavePid(String(pid))
      await startAgain()
    })
  })

  it('leaves a database alone that answers from another container', async () => {
    const postgres = await start()
    await postgres.stop()
    const sockets = join(folder, 'run')
    // no process here is PostgreSQL on this folder, and somebody listens
    const elsewhere = createServer().listen(join(sockets, '.s.PGSQL.5432'))
    await once(elsewhere, 'listening')
    await writeFile(join(folder, 'postgres/postmaster.pid'), `${process.pid}\n${folder}/postgres\n1\n5432\n${sockets}\n\n1 1\nready   \n`)
    try {
      await expect(start()).rejects.toMatchObject({ code: 'data_in_use', message: expect.stringContaining('outside this container') })
    } finally {
      elsewhere.close()
    }
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
