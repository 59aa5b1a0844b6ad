import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { readConfig } from './config.ts'
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
    const env = { SEALPOST_PORT: '1', SEALPOST_DATA: '/a', DATABASE_URL: 'postgres://h/a' }
    expect(readConfig(env, { port: '0', data: '/b', database_url: 'postgres://h/b' })).toMatchObject({
      port: 0,
      data_dir: '/b',
      database_url: 'postgres://h/b',
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
      return 'postgresql://u:p@h/db\n'
    }
    expect(readConfig({ DATABASE_URL_FILE: '/run/secrets/db' }, {}, read).database_url).toBe('postgresql://u:p@h/db')
    expect(() => readConfig({ DATABASE_URL_FILE: '/missing' }, {}, read)).toThrow('DATABASE_URL_FILE: the file cannot be read')
    expect(() => readConfig({ DATABASE_URL_FILE: '/run/secrets/db', DATABASE_URL: 'x' }, {}, read)).toThrow('keep one')
  })

  it('.env.example names every variable, in order, with a value that is valid', () => {
    const example = readFileSync(new URL('../../../.env.example', import.meta.url), 'utf8')
    const rows = [...example.matchAll(/^#([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name, value])
    expect(rows.map(([name]) => name)).toEqual(Object.keys(VARIABLES))
    expect(() => readConfig(Object.fromEntries(rows))).not.toThrow()
  })

  it('a SEALPOST_ variable that does not exist is a mistake, and the nearest is named', () => {
    expect(() => readConfig({ SEALPOST_PROT: '1', SEALPOST_SIGNUP_FILE: '' })).toThrow(
      'SEALPOST_PROT: there is no such variable; the nearest is SEALPOST_',
    )
    expect(() => readConfig({ SEALPOST_HOME: '/home', SEALPOST_SIGNUP_FILE: '' })).not.toThrow()
  })

  it('an empty variable is one that is not set', () => {
    expect(readConfig({ DATABASE_URL: '', SEALPOST_PORT: '' })).toMatchObject({ database_url: null, port: 8787 })
  })
})
