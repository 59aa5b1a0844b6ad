import { expect, it } from 'vitest'
import { checkUpgrade } from './upgrade.ts'

const headers = { 'sec-websocket-protocol': 'sealpost.1' }

it.each([
  ['/api/socket', headers, null],
  ['/api/socket?x=1', { ...headers, origin: 'https://app.example' }, null],
  ['/api/socket', { 'sec-websocket-protocol': 'a, sealpost.1 ' }, null],
  ['/api/socket/', headers, 'not_found'],
  ['/', headers, 'not_found'],
  ['/api/socket', {}, 'invalid_request'],
  ['/api/socket', { 'sec-websocket-protocol': 'sealpost.10' }, 'invalid_request'],
  ['/api/socket', { ...headers, origin: 'https://app.example.evil' }, 'forbidden'],
  ['/api/socket', { ...headers, origin: 'null' }, 'forbidden'],
])('%s with %o: %s', (url, given, code) => {
  expect(checkUpgrade({ url, headers: given }, ['https://app.example'])?.code ?? null).toBe(code)
})
