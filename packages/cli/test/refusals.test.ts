import { DatabaseSync } from 'node:sqlite'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { chmod, mkdir, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { toBase64url } from '@sealpost/protocol'
import { describe, expect, test } from 'vitest'
import { copyHome, run, sealpost, startSealpost, useWorld, wrongClock } from '@sealpost/testing/clients/cli-world'

const world = useWorld()

/** Waits until a process of this home leads. */
async function leads(home: string): Promise<void> {
  const isThere = (): Promise<boolean> =>
    stat(join(home, 'leader.sock')).then(
      (file) => file.isSocket(),
      () => false,
    )
  for (const end = performance.now() + 15_000; !(await isThere()); await sleep(20))
    if (performance.now() > end) throw new Error(`no process of ${home} leads`)
}

async function stateFiles(home: string): Promise<string[]> {
  return (await readdir(home)).filter((name) => name.startsWith('sealpost.sqlite'))
}

describe('the command line', () => {
  test('a mistake ends with 2 and a way out on stderr', async () => {
    const ended = await run(['send', '--stream', 'not a name'], { env: { SEALPOST_HOME: join(world.folder, 'unused') } })
    expect(ended.code).toBe(2)
    expect(ended.stderr).toMatch(/not valid\n {2}\w/)
    expect(ended.stdout.length).toBe(0)
  })

  test('--help documents the exit codes, on stdout', async () => {
    expect((await sealpost(['--help'])).stdout.toString()).toMatch(/Exit codes:\n +0 +done[^]*75 +kept in the outbox/)
  })
})

describe('pairing (B02)', () => {
  test('a wrong code is refused (3)', async () => {
    const home = join(world.folder, 'wrong')
    const malformed = await run(['join', 'K7QM-3XWP', '--home', home, '--server', world.relay.url, '--name', 'x', '--yes'])
    expect(malformed.code).toBe(3)
    const unknown = await run(['join', 'K7QM-3XWP-9RTB-D2FH', '--home', home, '--server', world.relay.url, '--name', 'x', '--yes'])
    expect(unknown.code).toBe(3)
    expect(unknown.stderr).toMatch(/sealpost pair/)
    expect((await run(['send', '--home', home], { input: 'x' })).code).toBe(4)
  })

  test('without a terminal and without --yes nobody can be asked (2)', async () => {
    expect((await run(['pair', '--home', world.laptop])).code).toBe(2)
    const join_ = await run([
      'join',
      'K7QM-3XWP-9RTB-D2FH',
      '--home',
      join(world.folder, 'nobody'),
      '--server',
      world.relay.url,
      '--name',
      'x',
    ])
    expect(join_.code).toBe(2)
  })

  test('the code is the only line of pair --yes on stdout', async () => {
    using pair = startSealpost(['pair', '--home', world.laptop, '--yes'])
    const [code] = await pair.printed(/[0-9A-Z]{4}(-[0-9A-Z]{4}){3}/)
    pair.kill('SIGINT')
    const ended = await pair.ended
    expect(ended.stdout.toString()).toBe(`${code}\n`)
    expect(ended.code).toBe(3)
  })

  test('a home that holds a device takes no other (3)', async () => {
    const again = await run(['init', '--home', world.laptop, '--server', world.relay.url, '--name', 'x'])
    expect(again.code).toBe(3)
    expect(again.stderr).toMatch(/--home/)
    expect(again.stdout.length).toBe(0)
  })
})

describe.concurrent('the server (B01)', () => {
  test('another key than the pinned one ends init with 5, and nothing is made', async () => {
    const home = join(world.folder, 'pinned')
    const pin = toBase64url(new Uint8Array(32).fill(9))
    const refused = await run(['init', '--home', home, '--server', `${world.relay.url}/#${pin}`, '--name', 'x'])
    expect(refused.code).toBe(5)
    expect((await run(['status', '--home', home])).code).toBe(4)
  })

  test('the right pin is said to be the one given', async () => {
    const pinned = `${world.relay.url}/#${toBase64url(world.relay.server_key)}`
    const made = await sealpost(['init', '--home', join(world.folder, 'right'), '--server', pinned, '--name', 'x'])
    expect(made.stderr).toMatch(/fingerprint: ([0-9a-f]{4} ?){4}\nit is the key that you gave/)
  })

  test('a server whose key has changed ends send with 5, and nothing is lost', async () => {
    const home = await copyHome(world.phone, join(world.folder, 'changed'))
    const db = new DatabaseSync(join(home, 'sealpost.sqlite'))
    db.prepare('update identity set server_key = ?').run(new Uint8Array(32).fill(3))
    db.close()
    const refused = await run(['send', '--home', home], { input: 'secret' })
    expect(refused.code).toBe(5)
    expect(refused.stderr).toMatch(/sent 0/)
    const check = new DatabaseSync(join(home, 'sealpost.sqlite'))
    expect(check.prepare('select count(*) as n from outbox where state = 0').get()).toEqual({ n: 1 })
    check.close()
  })

  test('a plain address that is not this machine is refused', async () => {
    expect((await run(['init', '--home', join(world.folder, 'plain'), '--server', 'http://relay.example', '--name', 'x'])).code).toBe(3)
  })

  test('serve on a taken port says so', async () => {
    const ended = await run(['serve', '--port', String(world.relay.port), '--data', join(world.folder, 'second')], {
      env: { DATABASE_URL: world.relay.database_url, SEALPOST_SECRETS_FILE: world.relay.secrets_file, SEALPOST_LOG_LEVEL: 'silent' },
    })
    expect(ended.code).toBe(3)
    expect(ended.stderr).toMatch(/is taken\n {2}choose another port with --port \(0 takes a free one\)/)
  })
})

describe.concurrent('init', () => {
  test('shows the recovery words once, on stdout, and no other secret', async () => {
    const home = join(world.folder, 'words')
    const made = await sealpost(['init', '--home', home, '--server', world.relay.url, '--name', 'x'])
    expect(made.stdout.toString().trim().split(/\s+/)).toHaveLength(24)
    expect(made.stderr).toMatch(/trusted on first use/)
    const db = new DatabaseSync(join(home, 'sealpost.sqlite'))
    const row = db.prepare('select sign_seed, kem_seed from identity').get() as { sign_seed: Uint8Array; kem_seed: Uint8Array }
    db.close()
    const everything = [made, await sealpost(['status', '--home', home]), await sealpost(['devices', '--home', home, '--json'])]
      .map(({ stdout, stderr }) => stdout.toString() + stderr)
      .join('')
    for (const seed of [row.sign_seed, row.kem_seed])
      for (const form of ['hex', 'base64', 'base64url'] as const) expect(everything).not.toContain(Buffer.from(seed).toString(form))
  })

  test('when nobody reads the words there is no account (2)', async () => {
    const home = join(world.folder, 'unread')
    const main = join(import.meta.dirname, '..', 'src', 'main.ts')
    const args = ['--conditions=development', main, 'init', '--home', home, '--server', world.relay.url, '--name', 'x']
    const init = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    init.stdout.destroy()
    let stderr = ''
    init.stderr.on('data', (text: Buffer) => (stderr += text.toString()))
    expect((await once(init, 'close'))[0]).toBe(2)
    expect(stderr).toMatch(/no account was made\n {2}\w/)
    expect((await run(['status', '--home', home])).code).toBe(4)
  })

  test('--recovery-file is 0600 and never overwritten', async () => {
    const file = join(world.folder, 'w.txt')
    const init = (name: string): ReturnType<typeof run> =>
      run(['init', '--home', join(world.folder, name), '--server', world.relay.url, '--name', 'x', '--recovery-file', file])
    const made = await init('file-1')
    expect(made.code).toBe(0)
    const words = await readFile(file, 'utf8')
    expect(words.trim().split(' ')).toHaveLength(24)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(made.stdout.toString() + made.stderr).not.toContain(words.split(' ').slice(0, 3).join(' '))
    const again = await init('file-2')
    expect(again.code).toBe(3)
    expect(await readFile(file, 'utf8')).toBe(words)
    expect((await run(['status', '--home', join(world.folder, 'file-2')])).code).toBe(4)
  })
})

describe.concurrent('the home', () => {
  test('is 0700 with files of 0600', async () => {
    expect((await stat(world.phone)).mode & 0o777).toBe(0o700)
    for (const name of await stateFiles(world.phone)) expect((await stat(join(world.phone, name))).mode & 0o777).toBe(0o600)
  })

  test('without a device: 4, and what to do', async () => {
    const ended = await run(['status', '--home', join(world.folder, 'nobody-yet')])
    expect(ended.code).toBe(4)
    expect(ended.stderr).toMatch(/sealpost init/)
  })

  test('is refused when others can read it, or its file (3)', async () => {
    const home = await copyHome(world.phone, join(world.folder, 'open'))
    await chmod(home, 0o755)
    const folder = await run(['send', '--home', home], { input: 'x' })
    expect(folder.code).toBe(3)
    expect(folder.stderr).toMatch(/chmod 700/)
    await chmod(home, 0o700)
    await chmod(join(home, 'sealpost.sqlite'), 0o644)
    const file = await run(['send', '--home', home], { input: 'x' })
    expect(file.code).toBe(3)
    expect(file.stderr).toMatch(/chmod 600/)
  })

  test('with a damaged state: 74, the file is left as it is', async () => {
    const home = await copyHome(world.phone, join(world.folder, 'damaged'))
    const path = join(home, 'sealpost.sqlite')
    await writeFile(path, Buffer.alloc(8_192, 'not a database'))
    const ended = await run(['status', '--home', home])
    expect(ended.code).toBe(74)
    expect(ended.stderr).toMatch(/damaged[^]*\n {2}\w/)
    expect(await readFile(path)).toEqual(Buffer.alloc(8_192, 'not a database'))
  })

  test.each([0, 6_000])('with a state that is cut off after %i bytes: 74', async (bytes) => {
    const home = await copyHome(world.phone, join(world.folder, `cut-${bytes}`))
    await truncate(join(home, 'sealpost.sqlite'), bytes)
    expect((await run(['status', '--home', home])).code).toBe(74)
  })

  test('of a newer version: 74, and to update', async () => {
    const home = await copyHome(world.phone, join(world.folder, 'newer'))
    const db = new DatabaseSync(join(home, 'sealpost.sqlite'))
    db.exec('pragma user_version = 999')
    db.close()
    const ended = await run(['status', '--home', home])
    expect(ended.code).toBe(74)
    expect(ended.stderr).toMatch(/newer version/)
  })

  test('in a deep folder works', async () => {
    const deep = join(world.folder, 'd'.repeat(60), 'e'.repeat(60), 'home')
    await mkdir(join(world.folder, 'd'.repeat(60), 'e'.repeat(60)), { recursive: true })
    await copyHome(world.phone, deep)
    using tail = startSealpost(['tail', '--home', deep, '--stream', 'deep', '--count', '1'])
    await leads(deep)
    expect(JSON.parse((await sealpost(['status', '--home', deep, '--json'])).stdout.toString())).toMatchObject({ role: 'follower' })
    await sealpost(['send', '--home', world.laptop, '--stream', 'deep'], { input: 'x' })
    expect((await tail.ended).stdout.toString()).toBe('x')
  })

  test('used in two places at once: one of them is told, and loses nothing', async () => {
    const original = await world.addDevice('original')
    const copy = await copyHome(original, join(world.folder, 'copied'))
    using tail = startSealpost(['tail', '--home', original, '--stream', 'twice'])
    await leads(original)
    await sealpost(['send', '--home', copy, '--stream', 'twice'], { input: 'from the copy' })
    const ended = await tail.ended
    expect(ended.code).toBe(3)
    expect(ended.stderr).toMatch(/two places/)
    // Both seal the number 2 next; the later one sees that it is taken and goes on after it.
    await run(['send', '--home', original, '--stream', 'twice'], { input: 'from the original' })
    await run(['status', '--home', original])
    const all = await sealpost(['tail', '--home', world.laptop, '--stream', 'twice', '--from', 'start', '--idle-exit', '1'])
    expect(all.stdout.toString()).toBe('from the copyfrom the original')
  })
})

describe('a wrong clock', () => {
  const HOUR = 3_600_000
  const wrongBy = (ms: number): { env: NodeJS.ProcessEnv } => ({ env: { NODE_OPTIONS: `--import=${wrongClock(ms)}` } })

  test.each([HOUR, -HOUR, 400 * 24 * HOUR])('by %i ms: send with a ttl, token, export and revoke do their work (G07, B04)', async (ms) => {
    const home = await world.addDevice(`wrong ${ms}`)
    await world.addDevice(`unwanted ${ms}`)
    const stream = `wrong${ms}`
    await sealpost(['send', '--home', home, '--stream', stream, '--ttl', '1h'], { input: 'in time', ...wrongBy(ms) })
    expect((await sealpost(['tail', '--home', world.laptop, '--stream', stream, '--count', '1'])).stdout.toString()).toBe('in time')
    expect((await sealpost(['token', '--home', home], wrongBy(ms))).stdout.length).toBeGreaterThan(100)
    expect((await sealpost(['export', '--home', home, '-'], wrongBy(ms))).stdout.toString()).toContain('"kind":"end"')
    expect((await run(['revoke', `unwanted ${ms}`, '--home', home], wrongBy(ms))).stderr).toMatch(/^revoked "unwanted/)
  })
})

describe('send', () => {
  test('a file that is there and cannot be opened is a mistake (2)', async () => {
    const path = join(world.folder, 's')
    const server = createServer().listen(path)
    await once(server, 'listening')
    const refused = await run(['send', path, '--home', world.laptop])
    server.close()
    expect(refused.code).toBe(2)
    expect(refused.stderr).toMatch(/cannot be read\n {2}\w/)
  })
})

describe('revoke', () => {
  test('shuts a device out at once: what it runs ends with 4 and says who did it (R01)', async () => {
    const watch = await world.addDevice('watch')
    using tail = startSealpost(['tail', '--home', watch])
    await leads(watch)
    const done = await sealpost(['revoke', 'watch', '--home', world.laptop])
    expect(done.stderr).toMatch(/revoked "watch"/)
    const live = await tail.ended
    expect(live.code).toBe(4)
    expect(live.stderr).toMatch(/revoked by "laptop"/)
    const already = await sealpost(['revoke', 'watch', '--home', world.laptop])
    expect(already.stderr).toMatch(/was revoked already/)
  })

  test('by the start of an id: the next command of that device ends with 4, and its keys are gone', async () => {
    const tablet = await world.addDevice('tablet')
    const { stdout } = await sealpost(['status', '--home', tablet, '--json'])
    const { device_id } = JSON.parse(stdout.toString()) as { device_id: string }
    await sealpost(['revoke', device_id.slice(0, 8), '--home', world.laptop])
    expect((await run(['send', '--home', tablet], { input: 'x' })).code).toBe(4)
    const again = await run(['send', '--home', tablet], { input: 'x' })
    expect(again.code).toBe(4)
    expect(again.stderr).toMatch(/sealpost join/)
    const db = new DatabaseSync(join(tablet, 'sealpost.sqlite'))
    expect(db.prepare('select count(*) as n from identity').get()).toEqual({ n: 0 })
    db.close()
  })

  test('an unknown device is refused (3), also this device itself', async () => {
    expect((await run(['revoke', 'toaster', '--home', world.laptop])).code).toBe(3)
    expect((await run(['revoke', 'laptop', '--home', world.laptop])).code).toBe(3)
  })
})
