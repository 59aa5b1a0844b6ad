import { describe, expect, it } from 'vitest'
import { parseServerUrl, socketUrl } from './server-url.ts'

describe('a server address', () => {
  it('is https, or http on this machine alone', () => {
    expect(parseServerUrl('https://Relay.example/').url).toBe('https://relay.example')
    for (const url of ['http://127.0.0.1:8787', 'http://localhost:1', 'http://[::1]:8787']) expect(parseServerUrl(url).url).toBe(url)
    for (const url of [
      'http://relay.example',
      'http://127.0.0.1.example',
      'ws://x',
      'relay.example',
      'https://x/path',
      'https://u:p@x',
      '',
    ])
      expect(() => parseServerUrl(url)).toThrow(expect.objectContaining({ code: 'invalid_request' }))
  })

  it('may carry the key of the server', () => {
    expect(parseServerUrl(`https://x/#${'A'.repeat(43)}`).pin).toEqual(new Uint8Array(32))
    expect(parseServerUrl('https://x').pin).toBeNull()
    expect(() => parseServerUrl('https://x/#short')).toThrow(expect.objectContaining({ code: 'invalid_request' }))
  })

  it('has its socket beside it', () => {
    expect(socketUrl('https://relay.example')).toBe('wss://relay.example/api/socket')
    expect(socketUrl('http://127.0.0.1:8787')).toBe('ws://127.0.0.1:8787/api/socket')
  })
})
