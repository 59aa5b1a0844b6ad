/**
 * Devices of several accounts that talk all the time through one address, each sending at a fixed pace without waiting for its
 * acks, and what came of it: for a test in which something happens to the server meanwhile.
 *
 * Invariant: what was sent is known one by one, so the check is equality. Bound: whoever waits for the end waits `SETTLE_MS`.
 */
import { Sealpost } from '@sealpost/client'
import { openHome } from '@sealpost/client/node'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'

const SETTLE_MS = 20_000
const STREAM = 'talk'

export type LoadOptions = { url: string; folder: string; accounts: number; devices: number; every_ms: number }

export type Load = {
  /** Sends no more, waits until all is acked and delivered, closes the devices. */
  end(): Promise<LoadReport>
  /** Closes the devices, whatever is under way. */
  abandon(): Promise<void>
}

type Sent = { n: number; position: number; took_ms: number }
type Heard = { from: string; n: number; position: number }

export type DeviceReport = {
  user_id: string
  device_id: string
  /** In the order of sending. */
  sent: Sent[]
  /** In the order in which the application had them. */
  heard: Heard[]
  /** What an application should not have to see: a send that failed, a gap, an alarm, a reset, an error. */
  seen: string[]
  /** How often it had no connection. */
  offline: number
}

export type LoadReport = { devices: DeviceReport[] }

export async function startLoad({ url, folder, accounts, devices, every_ms }: LoadOptions): Promise<Load> {
  const opened: Sealpost[] = []
  const close = async (): Promise<void> => {
    await Promise.allSettled(opened.map((device) => device.close()))
  }
  try {
    const made = await Promise.allSettled(
      Array.from({ length: accounts }, (_, i) => openAccount(url, join(folder, `${i}`), devices, opened)),
    )
    for (const account of made) if (account.status === 'rejected') throw account.reason
  } catch (error) {
    await close()
    throw error
  }
  const ending = new AbortController()
  const sending = new AbortController()
  const talking = opened.map((device) => talk(device, every_ms, sending.signal, ending.signal))
  return {
    async end() {
      sending.abort()
      await Promise.all(talking.map(({ all_sent }) => all_sent))
      const reports = talking.map(({ report }) => report)
      const whole = (): boolean => reports.every((report) => report.heard.length >= expectedOf(report, reports))
      for (const until = performance.now() + SETTLE_MS; performance.now() < until && !whole(); ) await sleep(20)
      // an event that came twice would follow
      await sleep(500)
      ending.abort()
      await Promise.all(talking.map(({ all_heard }) => all_heard))
      await close()
      return { devices: reports }
    },
    async abandon() {
      sending.abort()
      ending.abort()
      await close()
    },
  }
}

async function openAccount(url: string, folder: string, devices: number, opened: Sealpost[]): Promise<void> {
  const { sealpost: first } = await Sealpost.create({
    home: await openHome(join(folder, '1')),
    server: url,
    name: 'one',
    device_type: 'desktop',
  })
  opened.push(first)
  for (let i = 2; i <= devices; i++) {
    const home = await openHome(join(folder, `${i}`))
    const joined = Promise.withResolvers<Sealpost>()
    const confirm = (): Promise<boolean> => Promise.resolve(true)
    const onCode = (code: string): void =>
      void Sealpost.join({ home, server: url, code, name: `number ${i}`, device_type: 'mobile', confirm }).then(
        joined.resolve,
        joined.reject,
      )
    await first.pair({ onCode, confirm })
    opened.push(await joined.promise)
  }
}

function talk(device: Sealpost, every_ms: number, sending: AbortSignal, ending: AbortSignal) {
  const { user_id, device_id } = device
  const report: DeviceReport = { user_id, device_id, sent: [], heard: [], seen: [], offline: 0 }
  const stream = device.stream(STREAM)
  device.on((notice) => {
    if (notice.is === 'state' && notice.state === 'offline') report.offline += 1
    else if (notice.is !== 'state' && notice.is !== 'log') report.seen.push(JSON.stringify(notice))
  })

  async function send(n: number): Promise<void> {
    const began = performance.now()
    try {
      const { position } = await stream.send(new TextEncoder().encode(`${n}`), { signal: ending })
      report.sent[n] = { n, position, took_ms: performance.now() - began }
    } catch (error) {
      report.seen.push(`send ${n}: ${String(error)}`)
    }
  }

  async function sendAll(): Promise<void> {
    const sends: Promise<void>[] = []
    const began = performance.now()
    while (!sending.aborted) {
      sends.push(send(sends.length))
      await sleep(Math.max(0, began + sends.length * every_ms - performance.now()))
    }
    await Promise.all(sends)
  }

  async function hearAll(): Promise<void> {
    try {
      for await (const event of stream.events({ signal: ending })) {
        if (event.is === 'event')
          report.heard.push({ from: event.from.device_id, n: Number(new TextDecoder().decode(event.data)), position: event.position })
        else report.seen.push(JSON.stringify(event))
      }
    } catch (error) {
      report.seen.push(`events: ${String(error)}`)
    }
  }

  return { report, all_sent: sendAll(), all_heard: hearAll() }
}

function expectedOf(report: DeviceReport, all: readonly DeviceReport[]): number {
  return othersOf(report, all).reduce((sum, { sent }) => sum + sent.length, 0)
}

function othersOf({ user_id, device_id }: DeviceReport, all: readonly DeviceReport[]): DeviceReport[] {
  return all.filter((other) => other.user_id === user_id && other.device_id !== device_id)
}

/** What is wrong: nothing, when every acked event is in the store and every other device of its account had it once and in order. */
export async function faultsOf({ devices }: LoadReport, database_url: string): Promise<string[]> {
  const faults: string[] = []
  const client = new Client({ connectionString: database_url })
  await client.connect()
  try {
    for (const device of devices) {
      const name = device.device_id.slice(0, 6)
      faults.push(...device.seen.map((what) => `${name} saw ${what}`))
      const { rows } = await client.query<{ position: string }>(
        'select position from event join account using (user_no) where user_id = $1',
        [Buffer.from(device.user_id, 'base64url')],
      )
      const stored = new Set(rows.map(({ position }) => Number(position)))
      for (const { n, position } of device.sent) if (!stored.has(position)) faults.push(`${name}: ${n} was acked and is not stored`)
      const disorder = device.heard.findIndex(({ position }, i) => position <= (device.heard[i - 1]?.position ?? 0))
      if (disorder >= 0) faults.push(`${name} had position ${device.heard[disorder]?.position} out of order`)
      for (const other of othersOf(device, devices)) {
        const heard = device.heard.filter(({ from }) => from === other.device_id)
        const is_equal =
          heard.length === other.sent.length && heard.every(({ n, position }, i) => n === i && position === other.sent[i]?.position)
        if (!is_equal)
          faults.push(`${name} had ${heard.length} of ${other.sent.length} events of ${other.device_id.slice(0, 6)}, or not in their order`)
      }
    }
  } finally {
    await client.end()
  }
  return faults
}

export function figuresOf({ devices }: LoadReport): {
  events: number
  deliveries: number
  p50_ms: number
  p99_ms: number
  most_ms: number
} {
  const took = devices.flatMap(({ sent }) => sent.map(({ took_ms }) => took_ms)).sort((a, b) => a - b)
  const at = (part: number): number => Math.round(took[Math.min(took.length - 1, Math.floor(took.length * part))] ?? Number.NaN)
  const deliveries = devices.reduce((sum, { heard }) => sum + heard.length, 0)
  return { events: took.length, deliveries, p50_ms: at(0.5), p99_ms: at(0.99), most_ms: at(1) }
}
