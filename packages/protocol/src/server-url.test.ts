import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { toBase64url } from './bytes.ts'
import type { SealpostError } from './errors.ts'
import { isLoopback, isUnspecified, localUrl, parseServerUrl, parseWebOrigin, socketUrl, toHostName } from './server-url.ts'

function refusal(work: () => unknown): Pick<SealpostError, 'code' | 'message' | 'hint'> | null {
  try {
    work()
    return null
  } catch (error) {
    return error as SealpostError
  }
}

describe('the address of a server', () => {
  it.each([
    ['https://Relay.Example/', 'https://relay.example'],
    ['HTTPS://relay.example:443', 'https://relay.example'],
    ['https://relay.example:8443/#', 'https://relay.example:8443'],
    ['https://relay.example.', 'https://relay.example'],
    ['https://relay_1.internal', 'https://relay_1.internal'],
    ['https://bücher.example', 'https://xn--bcher-kva.example'],
    ['https://xn--bcher-kva.example', 'https://xn--bcher-kva.example'],
    ['https://[2001:DB8:0::1]:9', 'https://[2001:db8::1]:9'],
    ['https://192.0.2.7', 'https://192.0.2.7'],
    ['  https://relay.example\n', 'https://relay.example'],
    ['http://127.0.0.1:8787', 'http://127.0.0.1:8787'],
    ['http://127.1:8787', 'http://127.0.0.1:8787'],
    ['http://0x7f.1', 'http://127.0.0.1'],
    ['http://127.255.3.4', 'http://127.255.3.4'],
    ['http://localhost:1', 'http://localhost:1'],
    ['http://LOCALHOST.', 'http://localhost'],
    ['http://[::1]:8787', 'http://[::1]:8787'],
    ['http://[0:0:0:0:0:0:0:1]', 'http://[::1]'],
    ['http://[::ffff:127.0.0.1]', 'http://[::ffff:7f00:1]'],
  ])('%s is %s', (text, url) => {
    expect(parseServerUrl(text)).toEqual({ url, pin: null })
  })

  it.each([
    ['', /no https:\/\/ in front/, /write it as https:/],
    ['relay.example', /no https:\/\/ in front/, /write it as https:/],
    ['localhost:8787', /no https:\/\/ in front/, /http:\/\/127\.0\.0\.1:8787/],
    ['wss://relay.example', /begins with https:\/\/ or http:\/\//, /https:\/\/relay\.example/],
    ['http://relay.example', /this machine alone/, /write https:\/\/ in front/],
    ['http://10.0.0.1', /this machine alone/, /TLS proxy/],
    ['http://127.0.0.1.example', /this machine alone/, /https/],
    ['http://relay.localhost', /this machine alone/, /https/],
    ['http://[::2]', /this machine alone/, /https/],
    ['http://0.0.0.0:8787', /places to listen at/, /127\.0\.0\.1 or \[::1\]/],
    ['https://0', /places to listen at/, /its name/],
    ['http://[::]:8787', /places to listen at/, /127\.0\.0\.1 or \[::1\]/],
    ['http://[::ffff:0.0.0.0]', /places to listen at/, /127\.0\.0\.1/],
    ['https://[fe80::1%eth0]', /one network link/, /the name of the relay/],
    ['https://[fe80::1%25eth0]:8787', /one network link/, /the name of the relay/],
    ['https://[FEBF::1]', /one network link/, /holds everywhere/],
    ['http://::1:8787', /in brackets/, /http:\/\/\[::1\]:8787/],
    ['https://user:hunter2@relay.example', /a user or a password/, /before @/],
    ['https://relay.example/path', /has a path/, /behind the host and port/],
    ['https://relay.example?x=1', /has a query/, /begins with \?/],
    ['https://relay.example:70000', /port above 65535/, /:8443/],
    ['https://relay.example:0', /port 0/, /port that sealpost serve shows/],
    ['https://1.2.3.4.5', /no valid host/, /https:\/\/relay\.example/],
    ['https://', /no valid host/, /https:\/\/relay\.example/],
    ['https://a..b', /not a valid name/, /https:\/\/relay\.example/],
    ['https://.', /not a valid name/, /https:\/\/relay\.example/],
    ['https://-a', /not a valid name/, /https:\/\/relay\.example/],
    ["https://a'b", /not a valid name/, /https:\/\/relay\.example/],
    ['https://a$(b)', /not a valid name/, /https:\/\/relay\.example/],
    [`https://${'a'.repeat(64)}`, /not a valid name/, /https:\/\/relay\.example/],
    [`https://${'a.'.repeat(127)}a`, /not a valid name/, /https:\/\/relay\.example/],
    ['https://relay.exam\nple', /a line end/, /https:\/\/relay\.example/],
    ['https://relay example', /a blank/, /https:\/\/relay\.example/],
    [`https://relay.example/#${'A'.repeat(3_000)}`, /more than 2048 characters/, /https:\/\/relay\.example/],
    ['https://relay.example/#short', /not a server key/, /copy the whole address/],
  ])('%s is refused with its reason, and with what to write instead', (text, reason, hint) => {
    const error = refusal(() => parseServerUrl(text))
    expect(error).toMatchObject({ code: 'invalid_request', message: expect.stringMatching(reason), hint: expect.stringMatching(hint) })
    expect(`${error?.message} ${error?.hint}`).not.toContain('hunter2')
  })

  it('has the key of the server after #', () => {
    expect(parseServerUrl(`https://x/#${'A'.repeat(43)}`).pin).toEqual(new Uint8Array(32))
    expect(parseServerUrl(`https://x#${'A'.repeat(43)}`).pin).toEqual(new Uint8Array(32))
  })

  it('whatever text it is, is taken in one spelling, or refused with a reason and a hint', () => {
    const part = fc.constantFrom(
      'http',
      'https',
      '://',
      ':',
      '/',
      '[',
      ']',
      '::',
      '1',
      '127.',
      '0',
      '%',
      '@',
      '#',
      '?',
      'a',
      'ü',
      '_',
      '.',
      '-',
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.webUrl(),
          fc.array(part).map((parts) => parts.join('')),
        ),
        (text) => {
          const error = refusal(() => parseServerUrl(text))
          if (error !== null) {
            expect(error).toMatchObject({ code: 'invalid_request', hint: expect.stringMatching(/\w+ \w+/) })
            return
          }
          const { url } = parseServerUrl(text)
          expect(parseServerUrl(url).url).toBe(url)
          expect(new URL(url).origin).toBe(url)
        },
      ),
    )
  })

  it('has its socket beside it', () => {
    expect(socketUrl('https://relay.example')).toBe('wss://relay.example/api/socket')
    expect(socketUrl('http://127.0.0.1:8787')).toBe('ws://127.0.0.1:8787/api/socket')
  })
})

describe('the place where a relay listens', () => {
  it.each([
    ['127.0.0.1', 'http://127.0.0.1:80'],
    ['0.0.0.0', 'http://127.0.0.1:80'],
    ['::', 'http://[::1]:80'],
    ['::1', 'http://[::1]:80'],
    ['::ffff:0.0.0.0', 'http://127.0.0.1:80'],
    ['localhost', 'http://localhost:80'],
    ['192.0.2.7', 'http://192.0.2.7:80'],
    ['fe80::1%eth0', 'http://[fe80::1%eth0]:80'],
  ])('%s is reached from this machine at %s', (host, url) => {
    expect(localUrl(host, 80)).toBe(url)
  })

  it('on this machine alone, or at all addresses, has a URL that devices take, at every port', () => {
    const bytes = fc.integer({ min: 0, max: 255 })
    const loopback = fc.tuple(bytes, bytes, bytes).map((rest) => `127.${rest.join('.')}`)
    const hosts = fc.oneof(loopback, fc.constantFrom('0.0.0.0', '::', '::1', 'localhost', '::ffff:127.0.0.1', '0:0:0:0:0:0:0:0'))
    const key = fc.uint8Array({ minLength: 32, maxLength: 32 })
    fc.assert(
      fc.property(hosts, fc.integer({ min: 1, max: 65_535 }), key, (host, port, pin) => {
        expect(isLoopback(host) || isUnspecified(host)).toBe(true)
        expect(parseServerUrl(`${localUrl(host, port)}/#${toBase64url(pin)}`).pin).toEqual(pin)
      }),
    )
  })

  it.each([
    'localhost',
    'relay_1',
    '_x',
    'relay.example.',
    'bücher.example',
    'Relay',
    '::1',
    '1.2.3',
    '127.1',
    '0x7f',
    'a b',
    'a/',
    'a:1',
    '',
  ])('%j is a name, or none', (text) => {
    const names: Record<string, string> = {
      localhost: 'localhost',
      relay_1: 'relay_1',
      _x: '_x',
      'relay.example.': 'relay.example.',
      'bücher.example': 'xn--bcher-kva.example',
      Relay: 'relay',
    }
    expect(toHostName(text)).toBe(names[text] ?? null)
  })

  it.each(['relay.localhost', '127.evil.example', '128.0.0.1', '::2', '::ffff:1.2.3.4', '0.0.0.0', '', 'fe80::1%lo'])(
    '%j is not this machine alone',
    (host) => {
      expect(isLoopback(host)).toBe(false)
    },
  )
})

describe('the origin of web pages', () => {
  it('is spelled as a browser sends it, over http and https', () => {
    expect(parseWebOrigin('https://App.example:443/')).toBe('https://app.example')
    expect(parseWebOrigin(' http://app.lan:5173')).toBe('http://app.lan:5173')
    expect(parseWebOrigin('https://bücher.example')).toBe('https://xn--bcher-kva.example')
  })

  it.each([
    'nowhere',
    'https://a.example/path',
    'https://a.example/#x',
    'https://a.example?x',
    'https://u@a.example',
    'null',
    '*',
    'https://*.a',
  ])('%s is none', (text) => {
    expect(refusal(() => parseWebOrigin(text))).toMatchObject({ code: 'invalid_request', hint: expect.any(String) })
  })
})
