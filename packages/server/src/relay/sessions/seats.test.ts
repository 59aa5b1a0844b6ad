import { expect, it } from 'vitest'
import { createSeats } from './seats.ts'

it('counts sockets and strangers per address; a seat is given back once', () => {
  const seats = createSeats({ socketsPerAddressMax: 3, unauthenticatedPerAddressMax: 2, followersPerDeviceMax: 2 })
  const [one, two] = [seats.take('a'), seats.take('a')]
  expect(seats.take('a')).toBe(null)
  expect(seats.take('b')).not.toBe(null)
  one?.authenticated()
  one?.authenticated()
  expect(seats.take('a')).not.toBe(null)
  two?.authenticated()
  expect(seats.take('a')).toBe(null)
  two?.leave()
  two?.leave()
  expect(seats.take('a')).not.toBe(null)
  expect(seats.take('a')).toBe(null)
  for (let i = 0; i < 99; i++) expect(seats.take(null)).not.toBe(null)
})

it('R12: counts those that follow per device, and with the sockets of their address; none of them is a stranger', () => {
  const seats = createSeats({ socketsPerAddressMax: 3, unauthenticatedPerAddressMax: 1, followersPerDeviceMax: 2 })
  const [one, two] = [seats.takeKnown('a', '1/1'), seats.takeKnown('a', '1/1')]
  expect(seats.takeKnown('b', '1/1')).toBe(null)
  expect(seats.take('a')).not.toBe(null)
  expect(seats.takeKnown('a', '1/2')).toBe(null)
  one?.leave()
  one?.leave()
  expect(two).not.toBe(null)
  expect(seats.takeKnown('b', '1/1')).not.toBe(null)
  expect(seats.takeKnown('b', '1/1')).toBe(null)
  expect(seats.takeKnown('a', '1/2')).not.toBe(null)
  expect(seats.takeKnown(null, '1/3')).not.toBe(null)
})

it('R12: an IPv6 /48 has sixteen times the places of an address, however many addresses it has', () => {
  const seats = createSeats({ socketsPerAddressMax: 2, unauthenticatedPerAddressMax: 1, followersPerDeviceMax: 1 })
  const taken = Array.from({ length: 17 }, (_, i) => seats.take(`2001:db8:1:${i}::/64`))
  expect(taken.findIndex((seat) => seat === null)).toBe(16)
  expect(seats.take('2001:db8:2:1::/64')).not.toBe(null)
  taken[0]?.authenticated()
  expect(seats.take('2001:db8:1:a0::/64')).not.toBe(null)
  expect(seats.take('2001:db8:1:b0::/64')).toBe(null)
  for (const seat of taken) seat?.leave()
  for (let i = 0; i < 15; i++) expect(seats.take(`2001:db8:1:c${i}::/64`)).not.toBe(null)
  expect(seats.take('2001:db8:1:d::/64')).toBe(null)
})
