import { expect, it } from 'vitest'
import { checkUpgrade } from './upgrade.ts'

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
