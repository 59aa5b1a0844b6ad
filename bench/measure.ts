/**
 * The figures of docs/measurements.md, taken on this machine by the commands a person would use: `npm run measure`.
 * Each is the median of several runs; ratios and limits are for people to read, not for CI.
 */
import { openHome } from '@sealpost/client/node'
import { Sealpost } from '@sealpost/client'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { startProgram, type Relay, sealpost, startRelay, startSealpost } from '@sealpost/testing/components/programs'
import { makeFolder, pairTwoDevices } from '@sealpost/testing/clients/two-devices'

const LINES = 2_000
const MISSED = 20_000
const LONE = 300

const folder = await makeFolder()
const data = join(folder, 'data')
let relay: Relay = await startRelay(data)
try {
  const { laptop, phone } = await pairTwoDevices(relay.url, folder)
  report('2,000 lines by send --lines until tail has them, s (limit 5)', await repeat(3, () => measureLines(laptop, phone)))
  report(
    '20,000 missed events of 256 B received, verified, opened and stored, s (limit 3)',
    await repeat(3, () => measureCatchUp(laptop, phone)),
  )
  report('a lone event to the other device, ms, p50 (limit 5)', [await measureLone(laptop, phone)])
  relay.kill('SIGTERM')
  await relay.ended
  report('warm npm start until it listens, s (limit 2)', await repeat(3, measureStart))
  relay = await startRelay(data)
} finally {
  relay.kill('SIGTERM')
  await relay.ended
  await rm(folder, { recursive: true, force: true })
}

async function measureLines(from: string, to: string): Promise<number> {
  const lines = Array.from({ length: LINES }, (_, i) => `${i} ${'y'.repeat(60)}\n`).join('')
  using tail = startSealpost(['tail', '--home', to, '--from', 'now', '--count', String(LINES)])
  await waitForLeader(to)
  const began = performance.now()
  await sealpost(['send', '--home', from, '--lines'], { input: lines })
  const ended = await tail.ended
  const seconds = (performance.now() - began) / 1000
  if (ended.stdout.toString() !== lines) throw new Error('the lines did not arrive as they were sent')
  return seconds
}

async function measureCatchUp(from: string, to: string): Promise<number> {
  const sender = await Sealpost.open({ home: await openHome(from) })
  const stream = sender.stream(`missed-${Date.now()}`)
  for (let i = 0; i < MISSED; i += 1000) await stream.enqueue(Array.from({ length: 1000 }, () => ({ data: new Uint8Array(256) })))
  await sender.flush()
  const head = (await sender.status()).head_position
  await sender.close()
  const began = performance.now()
  const receiver = await Sealpost.open({ home: await openHome(to) })
  while ((await receiver.status()).position < (head ?? 0)) await new Promise((resolve) => setTimeout(resolve, 5))
  const seconds = (performance.now() - began) / 1000
  await receiver.close()
  return seconds
}

async function measureLone(from: string, to: string): Promise<number> {
  const sender = await Sealpost.open({ home: await openHome(from) })
  const receiver = await Sealpost.open({ home: await openHome(to) })
  const ending = new AbortController()
  const events = receiver.stream('lone').events({ from: 'now', signal: ending.signal })[Symbol.asyncIterator]()
  const times: number[] = []
  let next = events.next()
  await new Promise((resolve) => setTimeout(resolve, 1000))
  for (let i = 0; i < LONE; i++) {
    const began = performance.now()
    const sending = sender.stream('lone').send(new Uint8Array(256))
    await next
    times.push(performance.now() - began)
    next = events.next()
    await sending
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  ending.abort()
  await next.catch(() => undefined)
  await sender.close()
  await receiver.close()
  return median(times)
}

async function measureStart(): Promise<number> {
  const began = performance.now()
  using program = startProgram('npm', ['start', '--', '--port', '0', '--data', data])
  await program.printed(/listening on/)
  const seconds = (performance.now() - began) / 1000
  program.kill('SIGTERM')
  await program.ended
  return seconds
}

/** `tail` is there when another process of the home finds a leader. */
async function waitForLeader(home: string): Promise<void> {
  for (;;) {
    const { stdout } = await sealpost(['status', '--home', home, '--json'])
    if ((JSON.parse(stdout.toString()) as { role: string; state: string }).state === 'live') return
  }
}

async function repeat(n: number, measure: () => Promise<number>): Promise<number[]> {
  const out: number[] = []
  for (let i = 0; i < n; i++) out.push(await measure())
  return out
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

function report(name: string, values: readonly number[]): void {
  process.stdout.write(`${name}: ${median(values).toFixed(2)} (${values.map((value) => value.toFixed(2)).join(', ')})\n`)
}
