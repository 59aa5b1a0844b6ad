/** `sealpost serve` in the foreground: what it prints works as it stands, and what the system refuses has a sentence, a way out, and an exit code. */
import { spawnSync } from 'node:child_process'
import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '@sealpost/testing/components/test-database'
import { findFreePort } from '@sealpost/testing/components/free-port'
import { type Ended, SEALPOST, startProgram, startSealpost } from '@sealpost/testing/components/programs'
import { run } from '@sealpost/testing/clients/cli-world'

let folder: string
let database: TestDatabase
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealpost-serve-'))
  await chmod(folder, 0o755)
  database = await createTestDatabase()
})
afterAll(async () => {
  await database.drop()
  await rm(folder, { recursive: true, force: true })
})

/** A user who is in no list. */
const AS_NOBODY = ['--reuid=12345', '--regid=12345', '--clear-groups']
/** Root alone may become one, and it has to reach these sources. */
function canRunAsNobody(): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false
  return spawnSync('setpriv', [...AS_NOBODY, process.execPath, ...SEALPOST, '--version']).status === 0
}

let names = 0
const fresh = (): string => join(folder, `n${++names}`)
/** One relay after another, on one database and one key. */
const relay = (): NodeJS.ProcessEnv => ({
  DATABASE_URL: database.url,
  SEALPOST_SECRETS_FILE: join(folder, 'secrets.json'),
  SEALPOST_LOG_LEVEL: 'silent',
  SEALPOST_ADMIN_PORT: '0',
})

/** The arguments of the command in the text, as a shell makes them. */
function commandIn(text: string, name: string): string[] {
  const command = new RegExp(`^ {2}npx sealpost (${name} (?:.*\\\\\n)*.*)$`, 'm').exec(text)?.[1] ?? ''
  return [...command.replaceAll('\\\n', ' ').matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c ?? '')
}

describe('what serve prints', () => {
  test.each(['127.0.0.1', '0.0.0.0', '::', '::1', 'localhost'])('with --host %s are commands that work on this machine', async (host) => {
    const data = `${fresh()} of it`
    using server = startSealpost(['serve', '--host', host, '--port', '0', '--data', data], { env: relay() })
    const [text] = await server.printed(/listening on [^]*admin init .*\n/)
    const init = commandIn(text, 'init')
    expect(init).toContain('--server')
    expect(await run([...init, '--home', fresh(), '--recovery-file', fresh()])).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('it is the key that you gave'),
    })
    const admin = commandIn(text, 'admin init')
    expect(admin).toEqual(['admin', 'init', '--name', 'NAME'])
    const key = fresh()
    const first = await run([...admin, '--another', '--name', `ada ${names}`, '--key', key], { env: { DATABASE_URL: database.url } })
    expect(first).toMatchObject({ code: 0 })
    const url = /^for admins: (http:\S+), named with --url/m.exec(text)?.[1] ?? ''
    expect(await run(['admin', 'self', '--url', url, '--key', key])).toMatchObject({ code: 0 })
    server.kill('SIGINT')
    expect((await server.ended).code).toBe(0)
  })

  test('with SEALPOST_PUBLIC_URL is that address', async () => {
    const env = { ...relay(), SEALPOST_PUBLIC_URL: 'https://Bücher.example:443/' }
    using server = startSealpost(['serve', '--host', '0.0.0.0', '--port', '0', '--data', fresh()], { env })
    const [text] = await server.printed(/listening on [^]*admin init .*\n/)
    expect(commandIn(text, 'init').at(-1)).toMatch(/^https:\/\/xn--bcher-kva\.example\/#[\w-]{43}$/)
    expect(text).toMatch(/^next, on the first device:$/m)
  })
})

describe('what the system refuses', () => {
  type Case = { args?: string[]; env?: NodeJS.ProcessEnv; code: number; says: RegExp }
  async function serve({ args = [], env = {} }: Omit<Case, 'code' | 'says'>): Promise<Ended> {
    const given = args.includes('--data') ? args : ['--data', fresh(), ...args]
    return run(['serve', '--port', '0', ...given], { env: { ...relay(), ...env } })
  }
  async function expectEnd(ended: Ended, { code, says }: Case): Promise<void> {
    expect(ended.code, ended.stderr).toBe(code)
    expect(ended.stderr).toMatch(says)
    expect(ended.stderr).toMatch(/\n {2}\w+ \w+.*\n$/)
    expect(ended.stderr).not.toMatch(/unexpected failure|report it/)
  }

  const hosts: Record<string, Case> = {
    'an address of a link without its zone': { args: ['--host', 'fe80::1'], code: 2, says: /one network link[^]*\n {2}.*fe80::1%eth0/ },
    'an address of another machine, for devices': {
      args: ['--host', '192.0.2.200'],
      code: 2,
      says: /192\.0\.2\.200 is not an address of this machine\n {2}.*--host/,
    },
    'an address of another machine, for admins': {
      env: { SEALPOST_ADMIN_HOST: '192.0.2.200' },
      code: 2,
      says: /192\.0\.2\.200 is not an address of this machine\n {2}.*SEALPOST_ADMIN_HOST/,
    },
    'the same of workers': {
      args: ['--workers', '2'],
      env: { SEALPOST_HOST: '192.0.2.200' },
      code: 2,
      says: /192\.0\.2\.200 is not an address of this machine\n {2}.*SEALPOST_HOST/,
    },
    'a name that nobody has': { args: ['--host', 'relay.invalid'], code: 2, says: /relay\.invalid (is not known|could not be looked up)/ },
    'a public URL that devices refuse': {
      env: { SEALPOST_PUBLIC_URL: 'http://relay.example' },
      code: 2,
      says: /SEALPOST_PUBLIC_URL: plain http is for this machine alone/,
    },
  }
  test.each(Object.entries(hosts))('%s', async (_, row) => expectEnd(await serve(row), row))

  test('a port that is taken, of admins', async () => {
    const port = String(await findFreePort())
    const row: Case = { args: ['--port', port], env: { SEALPOST_ADMIN_PORT: port }, code: 3, says: /is taken\n {2}.*SEALPOST_ADMIN_PORT/ }
    await expectEnd(await serve(row), row)
  })

  test('a data folder that is a file, secrets that are a folder, a certificate that is not there', async () => {
    const file = fresh()
    await writeFile(file, '')
    const url = new URL(database.url)
    url.searchParams.set('sslrootcert', join(folder, 'none.pem'))
    const rows: Case[] = [
      { args: ['--data', file], code: 74, says: /cannot be used: there is a file in its place\n {2}.*--data or SEALPOST_DATA/ },
      { env: { SEALPOST_SECRETS_FILE: folder }, code: 74, says: /the secrets in .* cannot be read: it is a folder/ },
      {
        env: { SEALPOST_SECRETS_FILE: join(folder, 'no', 's.json') },
        code: 74,
        says: /cannot be written: there is no such file or folder/,
      },
      { env: { DATABASE_URL: url.href }, code: 2, says: /the file of sslrootcert cannot be read: there is no such file/ },
      { env: { DATABASE_URL: '', DATABASE_URL_FILE: folder }, code: 2, says: /DATABASE_URL_FILE: the file cannot be read: it is a folder/ },
    ]
    for (const row of rows) await expectEnd(await serve(row), row)
  })

  test('an embedded database of another PostgreSQL is left as it is', async () => {
    const data = fresh()
    await mkdir(join(data, 'postgres'), { recursive: true, mode: 0o700 })
    await writeFile(join(data, 'postgres', 'PG_VERSION'), '17\n')
    const row: Case = {
      args: ['--data', data],
      env: { DATABASE_URL: '', SEALPOST_SECRETS_FILE: '' },
      code: 74,
      says: /is of PostgreSQL 17[^]*nothing was changed\n {2}.*pg_upgrade/,
    }
    await expectEnd(await serve(row), row)
  })

  describe.runIf(canRunAsNobody())('a user without a name and a home', () => {
    const nobody = [...AS_NOBODY, process.execPath, ...SEALPOST]
    const runAs = (args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> =>
      startProgram('setpriv', [...nobody, ...args], { env: { ...relay(), SEALPOST_SECRETS_FILE: '', HOME: '', ...env } }).ended

    test('a folder that it may not write is refused with the cause', async () => {
      const data = fresh()
      await mkdir(data, { mode: 0o555 })
      for (const path of [data, join(data, 'below')])
        await expectEnd(await runAs(['serve', '--port', '0', '--data', path]), {
          code: 74,
          says: /cannot be used: this user has no right to it\n {2}.*chown/,
        })
    })

    test('a port below 1024 is refused with the cause, or is its own', async () => {
      const data = fresh()
      await mkdir(data, { mode: 0o700 })
      await chown(data, 12_345, 12_345)
      const ended = await runAs(['serve', '--port', '1', '--data', data, '--host', '192.0.2.200'], { DATABASE_URL: '' })
      await expectEnd(ended, { code: 2, says: /may not listen at port 1\n {2}.*--port|not an address/ })
    })

    test('the embedded database says what PostgreSQL needs, where the system gives the user no name', async () => {
      const data = fresh()
      await mkdir(data, { mode: 0o700 })
      await chown(data, 12_345, 12_345)
      // without a PATH there is no unshare
      const args = [...AS_NOBODY, '/usr/bin/env', 'PATH=/nowhere', process.execPath, ...SEALPOST, 'serve', '--port', '0', '--data', data]
      const ended = await startProgram('setpriv', args, { env: { ...relay(), DATABASE_URL: '', SEALPOST_SECRETS_FILE: '' } }).ended
      await expectEnd(ended, { code: 2, says: /PostgreSQL needs a name for user 12345[^]*\n {2}.*DATABASE_URL/ })
    })

    test('commands ask for a home by name', async () => {
      await expectEnd(await runAs(['status']), { code: 2, says: /no home folder: HOME is not set\n {2}.*--home or SEALPOST_HOME/ })
      await expectEnd(await runAs(['admin', 'users']), { code: 2, says: /no home folder[^]*--key or SEALPOST_ADMIN_KEY/ })
    })
  })
})
