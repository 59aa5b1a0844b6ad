/**
 * Which address a limit counts for (protocol.md §9): the peer's, or what a trusted proxy says of it. A loopback peer is
 * exempt, unless it is a trusted proxy or sends a forwarding header. IPv6 counts by /64, the smallest network that is given out,
 * and by the wider ones that one owner may have in one piece.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'

export type AddressRule = {
  /** A proxy stands for many peers; one on this machine need not be named. */
  isProxy(peer: string | undefined): boolean
  /** The address to count for; null = exempt. */
  limitedAddress(peer: string | undefined, headers: IncomingHttpHeaders): string | null
}

/** A network that counts with an address. `times`: how many times as much as one address it may have. */
export type CountedNetwork = { key: string; times: number }

/** From the widest to the one that counts as one address. Bits in whole groups of 16. */
export const IPV6_NETWORKS = [
  { bits: 32, times: 256 },
  { bits: 48, times: 16 },
  { bits: 64, times: 1 },
] as const

const FORWARDING_HEADERS = ['forwarded', 'x-forwarded-for', 'x-real-ip'] as const
const FORWARDED_MAX = 16

/** `trusted_proxies`: addresses or networks (`10.0.0.0/8`), from the configuration. */
export function createAddressRule(trusted_proxies: readonly string[]): AddressRule {
  const trusted = new BlockList()
  for (const entry of trusted_proxies) {
    const [given = '', bits] = entry.split('/')
    const address = bits === undefined ? plain(given) : given
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (bits === undefined) trusted.addAddress(address, family)
    else trusted.addSubnet(address, Number(bits), family)
  }
  const isTrusted = (address: string): boolean => trusted.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')

  return {
    isProxy: (peer) => {
      const address = plain(peer ?? '')
      return isIP(address) !== 0 && (isLoopback(address) || isTrusted(address))
    },
    limitedAddress: (peer, headers) => {
      const address = plain(peer ?? '')
      if (isIP(address) === 0) return 'unknown'
      if (isTrusted(address)) return oneAddress(forwardedFor(headers, isTrusted) ?? address)
      if (isLoopback(address) && FORWARDING_HEADERS.every((name) => headers[name] === undefined)) return null
      return oneAddress(address)
    },
  }
}

/** What a limited address counts for at once: itself, and before it the networks around it. */
export function countedNetworks(address: string): readonly CountedNetwork[] {
  const [network = '', bits] = address.split('::/')
  if (bits === undefined) return [{ key: address, times: 1 }]
  const groups = network.split(':')
  return IPV6_NETWORKS.map(({ bits: wide, times }) => ({ key: networkOf(groups, wide), times }))
}

/** The last address of X-Forwarded-For that no trusted proxy has: what stands before it is the client's own word. */
function forwardedFor(headers: IncomingHttpHeaders, isTrusted: (address: string) => boolean): string | null {
  const given = headers['x-forwarded-for']
  const hops = (Array.isArray(given) ? given.join(',') : (given ?? '')).split(',').slice(-FORWARDED_MAX)
  for (const hop of hops.reverse()) {
    const address = plain(withoutPort(hop.trim()))
    if (isIP(address) === 0) return null
    if (!isTrusted(address)) return address
  }
  return null
}

/** Some proxies add the port: `192.0.2.1:1234`, `[2001:db8::1]:1234`. */
function withoutPort(hop: string): string {
  return /^\[(.*)\](?::\d{1,5})?$/.exec(hop)?.[1] ?? /^([\d.]+):\d{1,5}$/.exec(hop)?.[1] ?? hop
}

/** Without a zone; an IPv4 address that is written as IPv6 is the IPv4 address. */
function plain(given: string): string {
  const address = given.replace(/%.*$/, '')
  if (!isIPv6(address)) return address
  const groups = groupsOf(address)
  if (groups.slice(0, 6).join(':') !== '0:0:0:0:0:ffff') return address
  return groups
    .slice(6)
    .map((group) => Number.parseInt(group, 16))
    .flatMap((group) => [group >> 8, group & 255])
    .join('.')
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.')
}

function oneAddress(address: string): string {
  return isIPv6(address) ? networkOf(groupsOf(address), 64) : address
}

function networkOf(groups: readonly string[], bits: number): string {
  return `${groups.slice(0, bits / 16).join(':')}::/${bits}`
}

/** The eight groups of an IPv6 address, in hex without leading zeros. */
function groupsOf(address: string): string[] {
  // the last two may be written as an IPv4 address
  const hex = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...bytes: string[]) => {
    const [a = 0, b = 0, c = 0, d = 0] = bytes.map(Number)
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
  })
  const [head = '', tail] = hex.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - left.length - right.length }, () => '0')
  return [...left, ...zeros, ...right].map((group) => Number.parseInt(group, 16).toString(16))
}
