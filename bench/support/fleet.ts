/**
 * Devices of many users, under load together: connected where they are told, sending in a closed loop or at a steady pace, counted
 * from mark to mark. The first device of a user sends, the others of it receive. Times are of one clock, from the moment an event was
 * to be sent until its ack, or its delivery to one of the others, was read.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { fromBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { backoffMs, toUnit } from '../../packages/client/src/connection/backoff.ts'
import { createDevice, type Device, type DeviceIdentity } from './device.ts'
import { percentile } from './figures.ts'

export type FleetPlan = { identities: DeviceIdentity[]; server_key: string; payload_bytes: number }

export type Quantiles = { p50: number; p99: number }
/** Since the mark before. `messages`: those that the deliveries came in. */
export type Counts = { acked: number; delivered: number; messages: number; ack_ms: Quantiles; delivery_ms: Quantiles }

/** What was not as it should be: how often, by name. */
export type Faults = Record<string, number>

/** One socket that was lost and found: `lost_at`, `live_at` in ms since 1970. */
export type Return = { lost_at: number; live_at: number; attempts: number; refused: number }

export type Fleet = {
  /** One URL for each identity of the plan. */
  connect(urls: readonly string[]): Promise<void>
  /** Each sender has so many events on their way, always. */
  loop(outstanding: number): void
  /** So many events per second over all senders, in turn, so many of them in one message. */
  pace(per_second: number, together: number): void
  /** Counts since the mark before, and begins anew. */
  mark(): Counts
  /** Nobody sends more; resolves when all is acked and delivered to whoever reads, or names as faults what is not. */
  settle(ms_max: number): Promise<Faults>
  stall(indices: readonly number[]): void
  /** Whoever is lost from now on comes back as the SDK does, to these in turn. */
  survive(urls: readonly string[]): void
  /** Those that came back, and how many are away. */
  returns(): { back: Return[]; away: number }
  disconnect(): Promise<void>
}

const TICK_MS = 4
const RING = 2 ** 14
/** Each handshake takes its time of both ends: one after another would take long, all at once be a herd. */
const TOGETHER = 24
const SETTLE_MS = 20

export function createFleet(plan: FleetPlan): Fleet {
  const faults: Faults = {}
  const sentAt: Float64Array[] = []
  let acked = 0
  let delivered = 0
  let messages = 0
  let ack_ms: number[] = []
  let delivery_ms: number[] = []
  let outstanding = 0
  let pacing: NodeJS.Timeout | undefined
  let refuges: readonly string[] = []
  let refuge = 0
  let away = 0
  const back: Return[] = []

  const fault = (what: string): void => void (faults[what] = (faults[what] ?? 0) + 1)
  const server_key = fromBase64url(plan.server_key, 32)
  const senders = new Map<number, Device>()
  const devices = plan.identities.map((identity) => {
    const { user } = identity
    const times = (sentAt[user] ??= new Float64Array(RING))
    const since = (device_seq: number, at: number): number => at - (times[device_seq % RING] ?? at)
    const device = createDevice({
      identity,
      server_key,
      payload_bytes: plan.payload_bytes,
      listener: {
        acked(device_seq, at) {
          acked += 1
          ack_ms.push(since(device_seq, at))
          owe(device)
        },
        delivered(device_seq, at) {
          delivered += 1
          delivery_ms.push(since(device_seq, at))
        },
        message: () => void (messages += 1),
        fault,
        lost: (lost) => {
          if (refuges.length > 0) void comeBack(lost)
        },
      },
    })
    if (!senders.has(user)) senders.set(user, device)
    return device
  })

  function send(device: Device, count: number, at: number): void {
    const times = sentAt[device.identity.user]
    for (let i = 1; i <= count; i++) if (times !== undefined) times[(device.sent_seq + i) % RING] = at
    device.send(count)
  }

  // ---- closed loop: what one message of acks sets free leaves in one message

  const owing = new Set<Device>()
  function owe(device: Device): void {
    if (outstanding === 0) return
    if (owing.size === 0) queueMicrotask(pay)
    owing.add(device)
  }
  function pay(): void {
    const now = performance.now()
    for (const device of owing) {
      const free = outstanding - (device.sent_seq - device.acked_seq)
      if (free > 0) send(device, free, now)
    }
    owing.clear()
  }

  function pace(per_second: number, together: number): void {
    const turns = [...senders.values()]
    const began = performance.now()
    const message_ms = (1000 * together) / per_second
    let done = 0
    pacing = setInterval(() => {
      for (let due = Math.floor((performance.now() - began) / message_ms); done < due; done++) {
        const device = turns[done % turns.length]
        if (device !== undefined) send(device, together, began + done * message_ms)
      }
    }, TICK_MS)
  }

  function pending(): Faults {
    let unacked = 0
    let undelivered = 0
    for (const device of devices) {
      const sender = senders.get(device.identity.user)
      if (sender === undefined || device.stalled) continue
      if (device === sender) unacked += sender.sent_seq - sender.acked_seq
      else undelivered += Math.max(0, sender.acked_seq - device.heard_seq)
    }
    return { ...(unacked > 0 ? { unacked } : {}), ...(undelivered > 0 ? { undelivered } : {}) }
  }

  async function comeBack(device: Device): Promise<void> {
    const lost_at = Date.now()
    away += 1
    for (let attempts = 1, refused = 0; ; attempts++) {
      await sleep(backoffMs(attempts, toUnit(nodeCrypto.random(6))))
      const url = refuges[refuge++ % refuges.length]
      const how = url === undefined ? 'failed' : await device.connect(url)
      if (how === 'refused') refused += 1
      if (how !== 'live') continue
      away -= 1
      back.push({ lost_at, live_at: Date.now(), attempts, refused })
      return
    }
  }

  return {
    async connect(urls) {
      let next = 0
      const work = async (): Promise<void> => {
        for (let i = next++; i < devices.length; i = next++) {
          const [device, url] = [devices[i], urls[i]]
          if (device === undefined || url === undefined) continue
          for (let attempts = 1; (await device.connect(url)) !== 'live'; attempts++)
            await sleep(backoffMs(attempts, toUnit(nodeCrypto.random(6))))
        }
      }
      await Promise.all(Array.from({ length: TOGETHER }, work))
    },
    loop(count) {
      outstanding = count
      for (const device of senders.values()) owe(device)
    },
    pace,
    mark() {
      const counts = { acked, delivered, messages, ack_ms: quantiles(ack_ms), delivery_ms: quantiles(delivery_ms) }
      acked = 0
      delivered = 0
      messages = 0
      ack_ms = []
      delivery_ms = []
      return counts
    },
    async settle(ms_max) {
      outstanding = 0
      clearInterval(pacing)
      for (const end = performance.now() + ms_max; performance.now() < end && Object.keys(pending()).length > 0; ) await sleep(SETTLE_MS)
      return { ...faults, ...pending() }
    },
    stall(indices) {
      for (const index of indices) devices[index]?.stall()
    },
    survive(urls) {
      refuges = urls
    },
    returns: () => ({ back, away }),
    async disconnect() {
      refuges = []
      await Promise.all(devices.map((device) => device.close()))
    },
  }
}

function quantiles(values: readonly number[]): Quantiles {
  const sorted = Float64Array.from(values).sort()
  return { p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) }
}
