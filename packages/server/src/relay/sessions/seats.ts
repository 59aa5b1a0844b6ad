/**
 * Places for sessions (protocol.md §9): per address, those without a proven device counted apart, and per device for those that
 * follow by REST. What an address counts for, and that loopback is exempt, says `limits/address.ts`. Bound: one row per network and
 * device that has a seat.
 */
import { countedNetworks } from '../../limits/address.ts'
import type { RelayLimits } from '../limits.ts'

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
  const networks = new Map<string, Taken>()
  const followers = new Map<string, number>()

  function take(address: string | null, strangers: number): Seat | null {
    if (address === null) return { authenticated: () => {}, leave: () => {} }
    const counts = countedNetworks(address).map(({ key, times }) => ({
      key,
      times,
      taken: networks.get(key) ?? { sockets: 0, strangers: 0 },
    }))
    for (const { times, taken } of counts) {
      if (taken.sockets >= limits.socketsPerAddressMax * times) return null
      if (strangers > 0 && taken.strangers >= limits.unauthenticatedPerAddressMax * times) return null
    }
    for (const { key, taken } of counts) {
      taken.sockets += 1
      taken.strangers += strangers
      networks.set(key, taken)
    }
    const known = once(() => {
      for (const { taken } of counts) taken.strangers -= strangers
    })
    const leave = once(() => {
      known()
      for (const { key, taken } of counts) {
        taken.sockets -= 1
        if (taken.sockets === 0) networks.delete(key)
      }
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
