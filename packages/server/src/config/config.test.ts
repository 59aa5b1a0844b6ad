import { readFileSync } from 'node:fs'
import { LIMITS } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { readConfig } from './config.ts'
import { RELAY_LIMITS } from '../relay/limits.ts'
import { VARIABLES } from './variables.ts'

describe('the configuration', () => {
  it('has a default for everything', () => {
    expect(readConfig({})).toMatchObject({
      host: '127.0.0.1',
      port: 8787,
      data_dir: './sealpost-data',
      database_url: null,
      signup: 'open',
      clock_skew_ms: 300_000,
      origins: [],
    })
  })

  it('takes flags before the environment', () => {
    const env = { SEALPOST_PORT: '1', SEALPOST_DATA: '/a', DATABASE_URL: 'postgres://localhost/a' }
    expect(readConfig(env, { port: '0', data: '/b', database_url: 'postgres://localhost/b' })).toMatchObject({
      port: 0,
      data_dir: '/b',
      database_url: 'postgres://localhost/b',
    })
  })

  it('lists all mistakes at once and repeats no secret', () => {
    const env = {
      SEALPOST_PORT: '70000',
      SEALPOST_SIGNUP: 'sometimes',
      SEALPOST_ORIGINS: 'https://a.example, nowhere',
      SEALPOST_PUBLIC_URL: 'https://relay.example/path',
      DATABASE_URL: 'mysql://user:hunter2@host/db',
    }
    const wrong = (): unknown => readConfig(env, { host: '::1' })
    expect(wrong).toThrow(expect.objectContaining({ code: 'invalid_config' }))
    for (const name of Object.keys(env)) expect(wrong).toThrow(name)
    expect(wrong).not.toThrow('hunter2')
    expect(() => readConfig({}, { port: 'http' })).toThrow('--port: expected a whole number from 0 to 65535')
  })

  it('reads the value from a file for X_FILE, and refuses both', () => {
    const read = (path: string): string => {
      if (path !== '/run/secrets/db') throw new Error('ENOENT')
      return 'postgresql://u:p@localhost/db\n'
    }
    expect(readConfig({ DATABASE_URL_FILE: '/run/secrets/db' }, {}, read).database_url).toBe('postgresql://u:p@localhost/db')
    expect(() => readConfig({ DATABASE_URL_FILE: '/missing' }, {}, read)).toThrow('DATABASE_URL_FILE: the file cannot be read')
    expect(() => readConfig({ DATABASE_URL_FILE: '/run/secrets/db', DATABASE_URL: 'x' }, {}, read)).toThrow('keep one')
  })

  it.each(['DATABASE_URL', 'SEALPOST_SIGNUP', 'SEALPOST_QUOTA_BYTES'])('%s_FILE that names an empty file is a mistake', (name) => {
    for (const text of ['', '\n', '  \n'])
      expect(() => readConfig({ [`${name}_FILE`]: '/secret', SEALPOST_PORT: 'x' }, {}, () => text)).toThrow(
        expect.objectContaining({
          message: expect.stringMatching(
            new RegExp(`SEALPOST_PORT: .*${name}_FILE: the file is empty|${name}_FILE: the file is empty.*SEALPOST_PORT: `, 's'),
          ),
        }),
      )
  })

  it('.env.example names every variable, in order, with a value that is valid', () => {
    const example = readFileSync(new URL('../../../../.env.example', import.meta.url), 'utf8')
    const rows = [...example.matchAll(/^#([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name, value])
    expect(rows.map(([name]) => name)).toEqual(Object.keys(VARIABLES))
    expect(() => readConfig(Object.fromEntries(rows))).not.toThrow()
  })

  it.each([
    ['SEALPOST_PROT', '; the nearest is SEALPOST_PORT'],
    ['SEALPOST_DATABASE_URL', '; the nearest is DATABASE_URL'],
    ['SEALPOST_SECRET_FILE', '; the nearest is SEALPOST_SECRETS_FILE'],
    ['SEALPOST_LIMIT_REST_ADDRES', '; the nearest is SEALPOST_LIMIT_REST_ADDRESS'],
    ['SEALPOST_TOKEN', ''],
    ['SEALPOST_X', ''],
    ['SEALPOST_', ''],
  ])('%s does not exist, which is a mistake; only what is really near is named', (name, hint) => {
    expect(() => readConfig({ [name]: '1' })).toThrow(
      expect.objectContaining({ message: `the configuration is not valid:\n  ${name}: there is no such variable${hint}` }),
    )
  })

  it('the variable of the device is none of the relay', () => {
    expect(() => readConfig({ SEALPOST_HOME: '/home', SEALPOST_DEBUG: '1', SEALPOST_SIGNUP_FILE: '' })).not.toThrow()
  })

  it.each([
    '127.0.0.1',
    '0.0.0.0',
    '::',
    '::1',
    'fe80::1%eth0',
    'localhost',
    'relay.example',
    'relay_1',
    '_relay',
    'xn--bcher-kva.example',
  ])('listens on %s', (host) => {
    expect(readConfig({ SEALPOST_HOST: host }).host).toBe(host)
  })

  it.each(['[::1]', '127.0.0.1:8787', 'http://127.0.0.1', '300.1.1.1', '1.2.3', '-a', 'a..b', 'a b', 'a/b', `${'a'.repeat(64)}.example`])(
    '%s is no address to listen on',
    (host) => {
      expect(() => readConfig({ SEALPOST_HOST: host, SEALPOST_SIGNUP: 'x' })).toThrow(
        /SEALPOST_HOST: expected an address .*\n.*SEALPOST_SIGNUP: /,
      )
      expect(() => readConfig({}, { host })).toThrow('--host: expected an address')
    },
  )

  it('spells the name of a host as the DNS has it', () => {
    expect(readConfig({ SEALPOST_HOST: 'Bücher.example', SEALPOST_ADMIN_HOST: 'Relay' })).toMatchObject({
      host: 'xn--bcher-kva.example',
      admin: { host: 'relay' },
    })
  })

  it.each([
    ['http://relay.example', /plain http is for this machine alone.*https:/],
    ['https://relay.example/path', /has a path/],
    ['relay.example', /no https:\/\/ in front/],
    ['http://0.0.0.0:8787', /places to listen at/],
    [`https://relay.example/#${'A'.repeat(43)}`, /key of the relay does not belong here.*begins with #/],
  ])('SEALPOST_PUBLIC_URL is an address that devices take, and %s is none', (url, reason) => {
    expect(() => readConfig({ SEALPOST_PUBLIC_URL: url })).toThrow(reason)
    expect(readConfig({ SEALPOST_PUBLIC_URL: 'https://Relay.example.:443/' }).public_url).toBe('https://relay.example')
  })

  it('an origin of web pages may be any host over http and https', () => {
    const { origins } = readConfig({ SEALPOST_ORIGINS: 'https://App.example, http://app.lan:5173' })
    expect(origins).toEqual(['https://app.example', 'http://app.lan:5173'])
  })

  it('a mistake names what gave the value: the flag, the variable, or the variable of the file', () => {
    const read = (): string => 'http'
    expect(() => readConfig({ SEALPOST_PORT: '1' }, { port: 'http' })).toThrow('\n  --port: expected')
    expect(() => readConfig({ SEALPOST_PORT: 'http' })).toThrow('\n  SEALPOST_PORT: expected')
    expect(() => readConfig({ SEALPOST_PORT_FILE: '/port' }, {}, read)).toThrow('\n  SEALPOST_PORT_FILE: expected')
    expect(() => readConfig({}, { redis_url: 'redis://a?tls=disable,redis://b?tls=disable' })).toThrow('\n  --redis-url: several servers')
    expect(readConfig({ SEALPOST_ADMIN_HOST: '::1' }, { host: '::1' }).names).toMatchObject({
      SEALPOST_HOST: '--host',
      SEALPOST_PORT: '--port',
      SEALPOST_ADMIN_HOST: 'SEALPOST_ADMIN_HOST',
      SEALPOST_ADMIN_PORT: 'SEALPOST_ADMIN_PORT',
    })
  })

  it('bytes that are no text, in a variable or in its file, are a mistake', () => {
    expect(() => readConfig({ SEALPOST_DATA: '/data/\ufffd' })).toThrow('SEALPOST_DATA: it holds bytes that are not text')
    expect(() => readConfig({ SEALPOST_DATA_FILE: '/data' }, {}, () => '/da\0ta')).toThrow('SEALPOST_DATA_FILE: it holds bytes')
  })

  it('a file that cannot be read says why: of a secret, and of a certificate of the database', async () => {
    const read = (path: string): string => readFileSync(path, 'utf8')
    const folder = import.meta.dirname
    for (const [path, cause] of [
      [`${folder}/nothing`, 'there is no such file or folder'],
      [folder, 'it is a folder, not a file'],
      [`${import.meta.filename}/x`, 'a part of the path is a file, not a folder'],
    ]) {
      expect(() => readConfig({ DATABASE_URL_FILE: path }, {}, read)).toThrow(`DATABASE_URL_FILE: the file cannot be read: ${cause}`)
      const url = `postgresql://u:hunter2@db.example/d?sslmode=verify-full&sslrootcert=${path}`
      const wrong = (): unknown => readConfig({ DATABASE_URL: url }, {}, read)
      expect(wrong).toThrow(`DATABASE_URL: the file of sslrootcert cannot be read: ${cause}`)
      expect(wrong).not.toThrow('hunter2')
    }
  })

  it('a stream that has two ages is a mistake', () => {
    expect(readConfig({ SEALPOST_RETENTION_STREAMS: 'a=1,b=1' }).retention.streams).toHaveLength(2)
    for (const text of ['a=1,a=2', 'a=1, a=1', 'a=1,b=2,a=3'])
      expect(() => readConfig({ SEALPOST_RETENTION_STREAMS: text })).toThrow('SEALPOST_RETENTION_STREAMS: expected')
  })

  it("every bound has a variable, its default the protocol's", () => {
    const { limits, quota_devices, quota_streams } = readConfig({})
    expect(limits).toEqual(Object.fromEntries(Object.keys(limits).map((name) => [name, RELAY_LIMITS[name as keyof typeof limits]])))
    expect({ quota_devices, quota_streams }).toEqual({ quota_devices: LIMITS.devicesPerUserMax, quota_streams: LIMITS.streamsPerUserMax })
    for (const name of Object.keys(VARIABLES).filter((key) => /_LIMIT_|_QUOTA_(DEVICES|STREAMS)/.test(key)))
      expect(() => readConfig({ [name]: '0' }), name).toThrow(`${name}: expected a whole number from `)
  })

  it('a stop has time for its notice, its slices and what is in flight, and some left', () => {
    for (const stop of [1, 2, 20, 3600])
      for (const notice of [0, 1, 19].filter((seconds) => seconds < stop))
        for (const spread of [0, 5, 3600]) {
          const { drain_notice_ms, stop_ms_max, limits } = readConfig({
            SEALPOST_STOP_S: `${stop}`,
            SEALPOST_DRAIN_NOTICE_S: `${notice}`,
            SEALPOST_DRAIN_SPREAD_S: `${spread}`,
          })
          expect(limits.drainSpreadMs).toBeLessThanOrEqual(spread * 1000)
          expect(limits.drainMs).toBeGreaterThanOrEqual(limits.drainSpreadMs === 0 ? 1 : limits.drainSpreadMs)
          const left_ms = stop_ms_max - drain_notice_ms - limits.drainSpreadMs - limits.drainMs
          expect(left_ms).toBeGreaterThanOrEqual(Math.min(5_000, (stop - notice) * 500))
        }
    expect(() => readConfig({ SEALPOST_DRAIN_NOTICE_S: '20' })).toThrow('SEALPOST_DRAIN_NOTICE_S: has to be below SEALPOST_STOP_S')
  })

  it('the page says which header tells where a request comes from', () => {
    expect(VARIABLES.SEALPOST_TRUSTED_PROXIES.says).toMatch(/X-Forwarded-For.*Forwarded and X-Real-IP are not read/)
  })

  it('an empty variable is one that is not set', () => {
    expect(readConfig({ DATABASE_URL: '', SEALPOST_PORT: '' })).toMatchObject({ database_url: null, port: 8787 })
  })
})
