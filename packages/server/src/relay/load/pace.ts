/**
 * The rate of a device, over all that it sends by (protocol.md §9): what is above it is not refused on a socket, which is read
 * later; a request is asked to come again. Bound: one bucket per device that sent within the burst time.
 */
export type Pace = {
  /** Takes; returns the ms after which the device is within its rate again, 0 when it is. */
  take(device: string, events: number, bytes: number, now_ms: number): number
  /** The same, and takes nothing. */
  owed(device: string, now_ms: number): number
  size(): number
}

type Bucket = { events: number; bytes: number; since: number }

const FORGET_MS = 60_000

export function createPace(rate: { events: number; bytes: number; burst_s: number }): Pace {
  const events_max = rate.events * rate.burst_s
  const bytes_max = rate.bytes * rate.burst_s
  const buckets = new Map<string, Bucket>()
  let forgotAt = 0

  function refill(device: string, now: number): Bucket {
    forget(now)
    const bucket = buckets.get(device) ?? { events: events_max, bytes: bytes_max, since: now }
    const passed = (now - bucket.since) / 1000
    bucket.since = now
    bucket.events = Math.min(events_max, bucket.events + passed * rate.events)
    bucket.bytes = Math.min(bytes_max, bucket.bytes + passed * rate.bytes)
    return bucket
  }

  function owed({ events, bytes }: Bucket): number {
    return Math.ceil(Math.max(0, -events / rate.events, -bytes / rate.bytes) * 1000)
  }

  /** One that is full again says nothing. */
  function forget(now: number): void {
    if (now - forgotAt < FORGET_MS) return
    forgotAt = now
    for (const [device, bucket] of buckets) {
      const passed = (now - bucket.since) / 1000
      if (bucket.events + passed * rate.events >= events_max && bucket.bytes + passed * rate.bytes >= bytes_max) buckets.delete(device)
    }
  }

  return {
    take(device, events, bytes, now) {
      const bucket = refill(device, now)
      bucket.events -= events
      bucket.bytes -= bytes
      buckets.set(device, bucket)
      return owed(bucket)
    },
    owed: (device, now) => (buckets.has(device) ? owed(refill(device, now)) : 0),
    size: () => buckets.size,
  }
}
