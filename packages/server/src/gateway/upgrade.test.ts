import { expect, it } from 'vitest'
import { checkUpgrade } from './upgrade.ts'

const handshake = { upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==' }
const headers = { ...handshake, 'sec-websocket-protocol': 'sealpost.1' }

it.each([
  ['/api/socket', headers, null],
  ['/api/socket?x=1', { ...headers, origin: 'https://app.example' }, null],
  ['/api/socket', { ...handshake, 'sec-websocket-protocol': 'a, sealpost.1 ' }, null],
  ['/api/socket', { ...headers, upgrade: 'WebSocket' }, null],
  ['/api/socket', { ...headers, upgrade: 'h2c' }, 'invalid_request'],
  ['/api/socket', { ...headers, 'sec-websocket-version': '8' }, 'invalid_request'],
  ['/api/socket', { ...headers, 'sec-websocket-key': 'x' }, 'invalid_request'],
  ['/api/socket/', headers, 'not_found'],
  ['/', headers, 'not_found'],
  ['/api/socket', {}, 'invalid_request'],
  ['/api/socket', { 'sec-websocket-protocol': 'sealpost.10' }, 'invalid_request'],
  ['/api/socket', { ...headers, origin: 'https://app.example.evil' }, 'forbidden'],
  ['/api/socket', { ...headers, origin: 'null' }, 'forbidden'],
])('%s with %o: %s', (url, given, code) => {
  expect(checkUpgrade({ url, headers: given }, ['https://app.example'])?.code ?? null).toBe(code)
})
