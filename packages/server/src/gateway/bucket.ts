/** The rate of one device (protocol.md §9): what is above it is not refused, the socket is read later. */
export type Bucket = {
  /** Takes; returns the ms after which the device is within its rate again, 0 when it is. */
  take(events: number, bytes: number, now_ms: number): number
}

export function createBucket(rate: { events: number; bytes: number; burst_s: number }): Bucket {
  let events = rate.events * rate.burst_s
  let bytes = rate.bytes * rate.burst_s
  let since = -1
  return {
    take(taken, size, now) {
      const passed = since < 0 ? 0 : (now - since) / 1000
      since = now
      events = Math.min(rate.events * rate.burst_s, events + passed * rate.events) - taken
      bytes = Math.min(rate.bytes * rate.burst_s, bytes + passed * rate.bytes) - size
      return Math.ceil(Math.max(0, -events / rate.events, -bytes / rate.bytes) * 1000)
    },
  }
}
