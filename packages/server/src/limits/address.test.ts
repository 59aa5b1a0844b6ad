import { describe, expect, it } from 'vitest'
import { countedNetworks, createAddressRule } from './address.ts'

const direct = createAddressRule([])
const proxied = createAddressRule(['127.0.0.1', '10.0.0.0/8', '2001:db8:1::/48'])

describe('the address that limits count for', () => {
  it.each([
    ['a peer by its address', direct, '203.0.113.7', {}, '203.0.113.7'],
    ['a mapped address as IPv4', direct, '::ffff:203.0.113.7', {}, '203.0.113.7'],
    ['a mapped address in hex as IPv4', direct, '::ffff:cb00:7107', {}, '203.0.113.7'],
    ['a mapped address in full as IPv4', direct, '0:0:0:0:0:FFFF:cb00:7107', {}, '203.0.113.7'],
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
    ['an IPv4 hop without its port', proxied, '10.1.2.3', { 'x-forwarded-for': '9.9.9.9:1234' }, '9.9.9.9'],
    ['an IPv6 hop without port and brackets', proxied, '10.1.2.3', { 'x-forwarded-for': '[2001:db8:2::7]:1234' }, '2001:db8:2:0::/64'],
    ['an IPv6 hop without brackets', proxied, '10.1.2.3', { 'x-forwarded-for': '[2001:db8:2::7]' }, '2001:db8:2:0::/64'],
    ['a mapped hop with a port as IPv4', proxied, '10.1.2.3', { 'x-forwarded-for': '[::ffff:9.9.9.9]:1' }, '9.9.9.9'],
    ['a trusted hop with a port is passed by', proxied, '10.1.2.3', { 'x-forwarded-for': '9.9.9.9, 10.9.9.9:80' }, '9.9.9.9'],
    ['the proxy when a port is none', proxied, '10.1.2.3', { 'x-forwarded-for': '9.9.9.9:http' }, '10.1.2.3'],
    [
      'a proxy that is trusted as a mapped address',
      createAddressRule(['::ffff:10.1.2.3']),
      '10.1.2.3',
      { 'x-forwarded-for': '9.9.9.9' },
      '9.9.9.9',
    ],
    ['no other header than X-Forwarded-For', proxied, '10.1.2.3', { forwarded: 'for=9.9.9.9', 'x-real-ip': '9.9.9.9' }, '10.1.2.3'],
    ['the proxy when the header is not an address', proxied, '10.1.2.3', { 'x-forwarded-for': 'evil' }, '10.1.2.3'],
    ['an untrusted peer of another network, itself', proxied, '11.0.0.1', { 'x-forwarded-for': '1.1.1.1' }, '11.0.0.1'],
    ['nobody, as one', direct, undefined, {}, 'unknown'],
  ])('%s', (_, rule, peer, headers, expected) => {
    expect(rule.limitedAddress(peer, headers)).toBe(expected)
  })
})

describe('the networks that count with an address', () => {
  it.each([
    ['203.0.113.7', ['203.0.113.7']],
    ['unknown', ['unknown']],
    ['2001:db8:0:1::/64', ['2001:db8::/32', '2001:db8:0::/48', '2001:db8:0:1::/64']],
  ])('%s: %j', (address, keys) => {
    expect(countedNetworks(address).map(({ key }) => key)).toEqual(keys)
  })

  it('are the same for all addresses in them, however they are written', () => {
    const of = (address: string): string[] => countedNetworks(direct.limitedAddress(address, {}) ?? '').map(({ key }) => key)
    expect(of('2001:DB8::1')).toEqual(of('2001:0db8:0000:0::ffff:1.2.3.4'))
    expect(of('2001:db8:1::1')[0]).toBe(of('2001:db8:ffff::1')[0])
    expect(of('2001:db8:1:1::1')[1]).toBe(of('2001:db8:1:ffff::1')[1])
  })
})
