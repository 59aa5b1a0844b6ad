import { describe, expect, it } from 'vitest'
import { createAddressRule } from './address.ts'
import { createRateLimits } from './rate-limits.ts'

const direct = createAddressRule([])
const proxied = createAddressRule(['127.0.0.1', '10.0.0.0/8', '2001:db8:1::/48'])

describe('the address that limits count for', () => {
  it.each([
    ['a peer by its address', direct, '203.0.113.7', {}, '203.0.113.7'],
    ['a mapped address as IPv4', direct, '::ffff:203.0.113.7', {}, '203.0.113.7'],
    ['IPv6 by its /64', direct, '2001:db8:0:1:aaaa::1', {}, '2001:db8:0:1::/64'],
    ['another host of the same /64 the same', direct, '2001:0db8::1:ffff:0:0:2', {}, '2001:db8:0:1::/64'],
    ['loopback not at all', direct, '127.0.0.1', {}, null],
    ['IPv6 loopback not at all', direct, '::1', {}, null],
    ['mapped loopback not at all', direct, '::ffff:127.0.0.1', {}, null],
    ['loopback that forwards for somebody, itself', direct, '127.0.0.1', { 'x-forwarded-for': '203.0.113.7' }, '127.0.0.1'],
    ['loopback with Forwarded, itself', direct, '127.0.0.1', { forwarded: 'for=1.2.3.4' }, '127.0.0.1'],
    ['a peer that is not trusted, whatever it claims', direct, '203.0.113.7', { 'x-forwarded-for': '127.0.0.1' }, '203.0.113.7'],
    ['a trusted proxy without a header, itself, though loopback', proxied, '127.0.0.1', {}, '127.0.0.1'],
    ['what a trusted proxy says', proxied, '127.0.0.1', { 'x-forwarded-for': '203.0.113.7' }, '203.0.113.7'],
    [
      'the last untrusted hop, not what the client made up',
      proxied,
      '10.1.2.3',
      { 'x-forwarded-for': '1.1.1.1, 203.0.113.7, 10.9.9.9' },
      '203.0.113.7',
    ],
    ['the proxy when the header is not an address', proxied, '10.1.2.3', { 'x-forwarded-for': 'evil' }, '10.1.2.3'],
    ['an untrusted peer of another network, itself', proxied, '11.0.0.1', { 'x-forwarded-for': '1.1.1.1' }, '11.0.0.1'],
    ['nobody, as one', direct, undefined, {}, 'unknown'],
  ])('%s', (_, rule, peer, headers, expected) => {
    expect(rule.limitedAddress(peer, headers)).toBe(expected)
  })
})

describe('rate limits (R12)', () => {
  it('10 genesis entries per address and hour, and then the time to wait', async () => {
    const limits = createRateLimits()
    for (let i = 0; i < 10; i++) expect(await limits.take('genesis', 'a')).toBeNull()
    const wait = await limits.take('genesis', 'a')
    expect(wait).toBeGreaterThan(3_590_000)
    expect(wait).toBeLessThanOrEqual(3_600_000)
    expect(await limits.take('mailbox', 'a')).toBeNull()
  })

  it('an exempt key is never counted', async () => {
    const limits = createRateLimits()
    for (let i = 0; i < 50; i++) expect(await limits.take('genesis', null)).toBeNull()
  })
})
