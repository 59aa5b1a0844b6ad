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
