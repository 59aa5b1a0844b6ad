/**
 * Places for sessions (protocol.md §9): per address, those without a proven device counted apart, and per device for those that
 * follow by REST. Loopback is exempt as `http/address.ts` says. Bound: one row per address and device that has a seat.
 */
import type { RelayLimits } from './limits.ts'

/** A seat is given back once, by whoever took it. */
export type Seat = { authenticated(): void; leave(): void }

export type Seats = {
  /** For a socket; null when the address has no more. */
  take(address: string | null): Seat | null
  /** For a device that proved itself; null when the address or the device has no more. */
  takeKnown(address: string | null, device: string): Seat | null
}

type Taken = { sockets: number; strangers: number }

export function createSeats(
  limits: Pick<RelayLimits, 'socketsPerAddressMax' | 'unauthenticatedPerAddressMax' | 'followersPerDeviceMax'>,
): Seats {
  const addresses = new Map<string, Taken>()
  const followers = new Map<string, number>()

  function take(address: string | null, strangers: number): Seat | null {
    if (address === null) return { authenticated: () => {}, leave: () => {} }
    const taken = addresses.get(address) ?? { sockets: 0, strangers: 0 }
    if (taken.sockets >= limits.socketsPerAddressMax) return null
    if (strangers > 0 && taken.strangers >= limits.unauthenticatedPerAddressMax) return null
    taken.sockets += 1
    taken.strangers += strangers
    addresses.set(address, taken)
    const known = once(() => {
      taken.strangers -= strangers
    })
    const leave = once(() => {
      known()
      taken.sockets -= 1
      if (taken.sockets === 0) addresses.delete(address)
    })
    return { authenticated: known, leave }
  }

  return {
    take: (address) => take(address, 1),
    takeKnown(address, device) {
      const count = followers.get(device) ?? 0
      if (count >= limits.followersPerDeviceMax) return null
      const seat = take(address, 0)
      if (seat === null) return null
      followers.set(device, count + 1)
      const leave = once(() => {
        seat.leave()
        const left = (followers.get(device) ?? 1) - 1
        if (left === 0) followers.delete(device)
        else followers.set(device, left)
      })
      return { authenticated: () => {}, leave }
    },
  }
}

function once(act: () => void): () => void {
  let done = false
  return () => {
    if (!done) act()
    done = true
  }
}
