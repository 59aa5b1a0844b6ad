import { expect, it } from 'vitest'
import { checkUpgrade, createSeats } from './upgrade.ts'

const headers = { 'sec-websocket-protocol': 'sealpost.1' }

it.each([
  ['/api/socket', headers, null],
  ['/api/socket?x=1', { ...headers, origin: 'https://app.example' }, null],
  ['/api/socket', { 'sec-websocket-protocol': 'a, sealpost.1 ' }, null],
  ['/api/socket/', headers, 404],
  ['/', headers, 404],
  ['/api/socket', {}, 400],
  ['/api/socket', { 'sec-websocket-protocol': 'sealpost.10' }, 400],
  ['/api/socket', { ...headers, origin: 'https://app.example.evil' }, 403],
  ['/api/socket', { ...headers, origin: 'null' }, 403],
])('%s with %o: %s', (url, given, status) => {
  expect(checkUpgrade({ url, headers: given }, ['https://app.example'])?.status ?? null).toBe(status)
})

it('counts sockets and strangers per address; a seat is given back once', () => {
  const seats = createSeats({ socketsPerAddressMax: 3, unauthenticatedPerAddressMax: 2 })
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
