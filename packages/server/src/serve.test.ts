import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const SCRIPT = fileURLToPath(import.meta.resolve('@sealpost/testing/relays/run-serve'))
const FLAGS = ['--conditions=development', '--disable-warning=ExperimentalWarning']

let folder: string
let children: ChildProcess[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 's-'))
})
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  children = []
  await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
})

type Relay = { child: ChildProcess; url: string; output: string; ms: number }

async function startRelay(): Promise<Relay> {
  const began = Date.now()
  const env = { ...process.env, DATABASE_URL: '', SEALPOST_LOG_LEVEL: 'error' }
  const child = spawn(process.execPath, [...FLAGS, SCRIPT, join(folder, 'data')], { env, stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
  children.push(child)
  let output = ''
  child.stdout?.on('data', (text) => (output += text))
  await expect.poll(() => output.split('\n').length, { timeout: 30_000, interval: 10 }).toBeGreaterThan(4)
  const url = /^listening on (http:\/\/127\.0\.0\.1:\d+)\n/.exec(output)?.[1]
  if (url === undefined) throw new Error(`no address in ${output}`)
  return { child, url, output, ms: Date.now() - began }
}

/** A database that takes connections and says nothing. */
async function startSilence(): Promise<{ url: string; asked: Promise<unknown>; close(): void }> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}).resume())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const close = (): void => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  return { url: `postgresql://u:p@127.0.0.1:${port}/db`, asked: once(server, 'connection'), close }
}

async function postmaster(): Promise<number> {
  const text = await readFile(join(folder, 'data/postgres/postmaster.pid'), 'utf8')
  return Number(text.split('\n')[0])
}

const status = (url: string): Promise<number> =>
  fetch(url, { signal: AbortSignal.timeout(5000) }).then(
    (answer) => answer.status,
    () => 0,
  )
const isGone = (pid: number): boolean => {
  try {
    return !process.kill(pid, 0)
  } catch {
    return true
  }
}

describe('a relay in the foreground', { timeout: 90_000 }, () => {
  it('tells its address and key, ends with 0 by SIGTERM, starts again within 2 s with the same key, leaves no process', async () => {
    const first = await startRelay()
    expect(first.output).toMatch(/^listening on http:\S+\nserver key fingerprint: (?:[0-9a-f]{4} ?){4}\n/)
    expect(await Promise.all([status(`${first.url}/livez`), status(`${first.url}/readyz`)])).toEqual([200, 200])
    const pid = await postmaster()
    // A terminal and a wrapper both deliver it: one stop.
    first.child.kill('SIGTERM')
    first.child.kill('SIGTERM')
    expect(await once(first.child, 'exit')).toEqual([0, null])
    expect(isGone(pid)).toBe(true)
    const second = await startRelay()
    const key = (text: string): string | undefined => /#([\w-]{43})/.exec(text)?.[1]
    expect(key(second.output)).toBe(key(first.output))
    expect(second.ms).toBeLessThan(5000)
    second.child.kill('SIGINT')
    expect(await once(second.child, 'exit')).toEqual([0, null])
  })

  it('ends at once, and with 0, by SIGTERM while it waits for a database at its start', async () => {
    const silence = await startSilence()
    const env = { ...process.env, DATABASE_URL: silence.url, SEALPOST_LOG_LEVEL: 'error' }
    const child = spawn(process.execPath, [...FLAGS, SCRIPT, join(folder, 'data')], { env, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    children.push(child)
    await silence.asked
    const began = Date.now()
    child.kill('SIGTERM')
    expect(await once(child, 'exit')).toEqual([0, null])
    expect(Date.now() - began).toBeLessThan(2_000)
    silence.close()
  })

  it('is back within 10 s after kill -9 of the relay, of everything, and of PostgreSQL alone', async () => {
    const first = await startRelay()
    first.child.kill('SIGKILL')
    const second = await startRelay()
    expect(second.ms).toBeLessThan(10_000)
    for (const pid of [second.child.pid ?? 0, await postmaster()]) process.kill(pid, 'SIGKILL')
    const third = await startRelay()
    expect(third.ms).toBeLessThan(10_000)
    const lost = await postmaster()
    process.kill(lost, 'SIGKILL')
    expect(await status(`${third.url}/livez`)).toBe(200)
    await expect.poll(async () => (await postmaster()) !== lost && (await status(`${third.url}/readyz`)), { timeout: 10_000 }).toBe(200)
    // Whoever started it is gone.
    third.child.disconnect()
    expect(await once(third.child, 'exit')).toEqual([0, null])
  })
})
