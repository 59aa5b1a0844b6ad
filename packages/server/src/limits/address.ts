/**
 * Which address a limit counts for (protocol.md §9): the peer's, or what a trusted proxy says of it. A loopback peer is
 * exempt, unless it is a trusted proxy or sends a forwarding header. IPv6 counts by /64, the smallest network that is given out.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'

export type AddressRule = {
  /** The address to count for; null = exempt. */
  limitedAddress(peer: string | undefined, headers: IncomingHttpHeaders): string | null
}

const FORWARDING_HEADERS = ['forwarded', 'x-forwarded-for', 'x-real-ip'] as const
const FORWARDED_MAX = 16

/** `trusted_proxies`: addresses or networks (`10.0.0.0/8`), from the configuration. */
export function createAddressRule(trusted_proxies: readonly string[]): AddressRule {
  const trusted = new BlockList()
  for (const entry of trusted_proxies) {
    const [address = '', bits] = entry.split('/')
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (bits === undefined) trusted.addAddress(address, family)
    else trusted.addSubnet(address, Number(bits), family)
  }
  const isTrusted = (address: string): boolean => trusted.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')

  return {
    limitedAddress: (peer, headers) => {
      const address = plain(peer ?? '')
      if (isIP(address) === 0) return 'unknown'
      if (isTrusted(address)) return network(forwardedFor(headers, isTrusted) ?? address)
      if (isLoopback(address) && FORWARDING_HEADERS.every((name) => headers[name] === undefined)) return null
      return network(address)
    },
  }
}

/** The last address of X-Forwarded-For that no trusted proxy has: what stands before it is the client's own word. */
function forwardedFor(headers: IncomingHttpHeaders, isTrusted: (address: string) => boolean): string | null {
  const given = headers['x-forwarded-for']
  const hops = (Array.isArray(given) ? given.join(',') : (given ?? '')).split(',').slice(-FORWARDED_MAX)
  for (const hop of hops.reverse()) {
    const address = plain(hop.trim())
    if (isIP(address) === 0) return null
    if (!isTrusted(address)) return address
  }
  return null
}

function plain(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '').replace(/%.*$/, '')
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.')
}

function network(address: string): string {
  if (!isIPv6(address)) return address
  const [head = '', tail] = address.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length)
  const groups = [...left, ...Array.from({ length: zeros }, () => '0'), ...right]
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`
}
