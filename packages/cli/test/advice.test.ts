import { existsSync } from 'node:fs'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { query } from '@sealpost/testing/components/test-database'
import { copyHome, run, sealpost, useWorld } from '@sealpost/testing/clients/cli-world'

const world = useWorld()
const WORDS = `${'abandon '.repeat(23)}art`

let files = 0
async function fileOf(text: string): Promise<string> {
  const path = join(world.folder, `file-${++files}`)
  await writeFile(path, text)
  return path
}

describe('recover says what is wrong', () => {
  const recover = async (words: string, ...more: string[]) =>
    run([
      'recover',
      '--home',
      join(world.folder, 'recovered'),
      '--server',
      world.relay.url,
      '--name',
      'x',
      '--recovery-file',
      await fileOf(words),
      ...more,
    ])

  test('no account of these words: 3, and nothing about pairing', async () => {
    expect(await recover(WORDS)).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/no account of these[^]*\n {2}check the words, and the address of the server\n$/),
    })
  })

  test('a file that is not there is a mistake (2)', async () => {
    expect(await recover(WORDS, '--recovery-file', join(world.folder, 'no-such-file'))).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/cannot be read\n {2}check the name of the file/),
    })
  })
})

describe('rename says what is wrong', () => {
  const rename = (...args: string[]) => run(['rename', '--home', world.laptop, ...args])

  test('the name is taken (3): another name, and no option that there is not', async () => {
    expect(await rename('phone', 'laptop')).toMatchObject({ code: 3, stderr: expect.stringMatching(/\n {2}choose another name\n$/) })
  })

  test('no such device (3): where to look', async () => {
    expect(await rename('toaster', 'x')).toMatchObject({ code: 3, stderr: expect.stringMatching(/"toaster"\n {2}sealpost devices lists/) })
  })

  test('another device that was revoked is refused (3): this one is healthy', async () => {
    await world.addDevice('old')
    await sealpost(['revoke', 'old', '--home', world.laptop])
    expect(await rename('old', 'older')).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/a revoked device keeps the name[^]*\n {2}sealpost devices lists/),
    })
  })

  test('what is said is the name that is stored (G08)', async () => {
    expect(await rename('phone', '  pocket\u{202e}\n phone ')).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/is now "pocket phone"\n/),
    })
    await sealpost(['rename', '--home', world.laptop, 'pocket phone', 'phone'])
  })
})

describe('a name', () => {
  test('is said by init and recover as it is stored (G08)', async () => {
    const home = join(world.folder, 'bidi')
    const words = join(world.folder, 'bidi-words')
    const server = ['--server', world.relay.url, '--name', ' desk\u{202e} top ', '--recovery-file', words]
    expect((await sealpost(['init', '--home', home, ...server])).stderr).toContain('this device is "desk top"')
    expect((await sealpost(['recover', '--home', `${home}-2`, ...server])).stderr).toContain('this device is "desk top"')
  })
})

describe('export says what is wrong', () => {
  let whole = ''
  beforeAll(async () => {
    await sealpost(['send', '--home', world.laptop, '--stream', 'exported'], { input: 'kept' })
    whole = (await sealpost(['export', '--home', world.laptop, '-'])).stdout.toString()
  })
  const decrypt = async (file: string) => run(['export', 'decrypt', '--home', world.laptop, file])

  test('decrypt of a file that is not there is a mistake (2)', async () => {
    expect(await decrypt(join(world.folder, 'nope.ndjson'))).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/cannot be read\n {2}check the name of the file/),
    })
  })

  test('decrypt of one that is cut, or no export, asks for a whole one (6)', async () => {
    for (const text of [
      whole.split('\n').slice(0, -2).join('\n'),
      '{"kind":"other"}\n',
      'no JSON\n',
      whole.replace(/("kind":"event".*"sig":")./, '$1*'),
    ])
      expect(await decrypt(await fileOf(text))).toMatchObject({
        code: 6,
        stderr: expect.stringMatching(/\n {2}use a whole file of sealpost export/),
      })
  })

  test('decrypt of another account names --home (3)', async () => {
    expect(await decrypt(await fileOf(whole.replace(/"user_id":"[^"]*"/, `"user_id":"${'A'.repeat(43)}"`)))).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/another account\n {2}.*--home/),
    })
  })

  test('one too many in an hour is told how long to wait', async () => {
    const token = (await sealpost(['token', '--home', world.laptop])).stdout.toString().trim()
    const ask = () => fetch(`${world.relay.url}/api/user/export`, { headers: { authorization: `Bearer ${token}` } })
    for (let status = 200; status === 200; ) {
      const response = await ask()
      status = response.status
      await response.text()
    }
    expect(await run(['export', '--home', world.laptop, '-'])).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/\n {2}try again in (59|60) minutes\n$/),
    })
  })
})

describe('a home that was not there', () => {
  const nowhere = (): string => join(world.folder, `nowhere-${++files}`)

  test('is taken away again by init, join and recover that fail before anything is stored', async () => {
    const home = nowhere()
    const nobody = ['--home', home, '--name', 'x', '--server', 'http://127.0.0.1:1']
    const here = ['--home', home, '--name', 'x', '--server', world.relay.url]
    const failures: [string[], number][] = [
      [['init', ...nobody], 69],
      [['join', 'K7QM-3XWP', ...here, '--yes'], 3],
      [['join', 'K7QM-3XWP-9RTB-D2FH', ...here, '--yes'], 3],
      [['recover', ...here, '--recovery-file', await fileOf(WORDS)], 3],
    ]
    for (const [args, code] of failures) {
      expect((await run(args)).code).toBe(code)
      expect(existsSync(home)).toBe(false)
    }
  })

  test('but one that was there, or that holds something else, stays', async () => {
    const home = nowhere()
    await mkdir(home, { mode: 0o700 })
    await writeFile(join(home, 'mine'), 'kept', { mode: 0o600 })
    expect((await run(['init', '--home', home, '--name', 'x', '--server', 'http://127.0.0.1:1'])).code).toBe(69)
    expect(await readdir(home)).toContain('mine')
  })
})

describe('a device whose account an operator suspended', () => {
  test('send says so and keeps the event (75); when it is over, the next command sends it', async () => {
    const home = await copyHome(world.phone, join(world.folder, 'suspended'))
    const suspend = (active: boolean) => query(world.relay.database_url, `update account set active = ${active}`)
    await suspend(false)
    const refused = await run(['send', '--home', home], { input: 'later' })
    expect(refused).toMatchObject({
      code: 75,
      stderr: expect.stringMatching(/operator of the server suspended[^]*1 in the outbox[^]*\n {2}ask who runs the server/),
    })
    expect(refused.stderr).not.toContain('cannot be reached')
    expect((await run(['revoke', 'laptop', '--home', home])).stderr).toMatch(/suspended/)
    await suspend(true)
    expect((await sealpost(['send', '--home', home], { input: 'now' })).stderr).toMatch(/sent 1\n$/)
  })
})
