/** `sealpost admin` as a person or a script types it: keys, the first owner, the lists, decisions, the audit log, and how each refusal ends. */
import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { toBase64url } from '@sealpost/protocol'
import { readConfig, type RunningServer, startServer } from '@sealpost/server'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createTestDatabase, query, type TestDatabase } from '@sealpost/testing/components/test-database'
import { silent } from '@sealpost/testing/relays/silent-log'
import { createProgram, report } from '../src/program.ts'
import { run } from '@sealpost/testing/clients/cli-world'

let folder = ''
let database: TestDatabase
let server: RunningServer
let owner = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealpost-admin-'))
  database = await createTestDatabase()
  server = await start()
  owner = join(folder, 'owner.json')
  await ok(['init', '--name', 'ada', '--data', join(folder, 'data')], { key: owner, database: true })
})
afterAll(async () => {
  await server?.stop()
  await database?.drop()
  await rm(folder, { recursive: true, force: true })
})

function start(): Promise<RunningServer> {
  const env = {
    SEALPOST_PORT: '0',
    SEALPOST_ADMIN_PORT: '0',
    SEALPOST_DATA: join(folder, 'data'),
    DATABASE_URL: database.url,
    SEALPOST_SIGNUP: 'invite',
  }
  return startServer(readConfig(env), { logger: silent, test: true })
}

type How = { key?: string; url?: string; database?: boolean }
type Ended = { code: number; out: string; err: string }
let running: Promise<unknown> = Promise.resolve()
/** In this process, one after another: what the command prints, and how it would end. */
function admin(args: string[], how: How = {}): Promise<Ended> {
  const next = running.then(() => runHere(args, how))
  running = next.catch(() => {})
  return next
}
async function runHere(args: string[], { key = owner, url = String(server.admin_url), database: direct = false }: How): Promise<Ended> {
  let [out, err] = ['', '']
  const stdout = vi.spyOn(process.stdout, 'write').mockImplementation((text: string | Uint8Array, ...rest: unknown[]) => {
    out += String(text)
    const done = rest.at(-1)
    if (typeof done === 'function') (done as () => void)()
    return true
  })
  const stderr = vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    err += String(text)
    return true
  })
  vi.stubEnv('DATABASE_URL', direct ? database.url : '')
  try {
    await createProgram().parseAsync(['node', 'sealpost', 'admin', '--key', key, '--url', url, ...args])
    return { code: Number(process.exitCode ?? 0), out, err }
  } catch (error) {
    return { code: report(error), out, err }
  } finally {
    process.exitCode = undefined
    vi.unstubAllEnvs()
    stdout.mockRestore()
    stderr.mockRestore()
  }
}
async function ok(args: string[], how?: How): Promise<string> {
  const { code, out, err } = await admin(args, how)
  expect([args.join(' '), code, code === 0 ? '' : err]).toEqual([args.join(' '), 0, ''])
  return out
}
// oxlint-disable-next-line typescript/no-explicit-any -- what an answer holds is what the tests look at
const linesOf = (out: string): any[] =>
  out
    .trimEnd()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
const refused = async (cases: [what: string, args: string[], exit: number, says: RegExp, how?: How][]): Promise<void> => {
  for (const [what, args, exit, says, how] of cases) {
    const { code, out, err } = await admin(args, how)
    expect([what, code, err, out]).toEqual([what, exit, expect.stringMatching(says), ''])
    expect(err).not.toMatch(/\bat .*\.[jt]s:|Error:/)
  }
}

const newInvite = async (): Promise<string> => linesOf(await ok(['invite', '--json']))[0].code
async function newUser(name: string): Promise<{ home: string; user_id: string; device_id: string }> {
  const home = join(folder, name)
  const words = join(folder, `${name}.txt`)
  const made = await run([
    'init',
    '--home',
    home,
    '--server',
    server.url,
    '--name',
    name,
    '--recovery-file',
    words,
    '--invite',
    await newInvite(),
  ])
  expect([made.code, made.stderr]).toEqual([0, expect.stringContaining('account created')])
  const users = linesOf(await ok(['users', '--json']))
  const user_id = users.at(-1).user_id as string
  const [device] = linesOf(await ok(['devices', '--json', '--', user_id]))
  return { home, user_id, device_id: device.device_id }
}

describe('keys and the first owner', () => {
  it('init writes one owner, keeps the key to its user, and pins the relay; the second is refused and leaves no key', async () => {
    expect((await stat(owner)).mode & 0o777).toBe(0o600)
    const stored = JSON.parse(await readFile(owner, 'utf8')) as { sign_seed: string; server_key_hash: string }
    expect(stored.server_key_hash).toMatch(/^[\w-]{43}$/)
    const self = JSON.parse(await ok(['self', '--json']))
    expect(self).toMatchObject({ name: 'ada', role: 'owner', removed_at: null })
    const second = join(folder, 'second.json')
    const bad = join(folder, 'bad.json')
    await refused([
      ['a second owner', ['init', '--name', 'eve'], 3, /owner already/, { key: second, database: true }],
      ['a name that is none', ['init', '--name', 'eve\nada', '--another'], 2, /name/, { key: bad, database: true }],
      ['a file that is there', ['init', '--name', 'eve', '--another'], 3, /exists already/, { database: true }],
      ['no relay in the folder', ['init', '--name', 'eve', '--data', join(folder, 'nothing')], 2, /no relay/, { key: bad }],
    ])
    for (const path of [second, bad]) await expect(stat(path)).rejects.toMatchObject({ code: 'ENOENT' })
    const another = JSON.parse(await ok(['init', '--name', 'mary', '--another', '--json'], { key: second, database: true }))
    expect(another).toEqual({ admin_id: expect.stringMatching(/^[\w-]{22}$/), name: 'mary', role: 'owner' })
    expect(JSON.parse(await ok(['self', '--json'], { key: second }))).toMatchObject(another)
    await ok(['remove', '--', another.admin_id])
  })

  it('a colleague makes a key, an owner adds it, gives it another role and removes it', async () => {
    const key = join(folder, 'grace.json')
    const public_key = (await ok(['key'], { key })).trim()
    expect(JSON.parse(await ok(['key', '--json'], { key })).public_key).toBe(public_key)
    expect((await admin(['users'], { key })).code).toBe(4)
    const { admin_id } = JSON.parse(await ok(['add', '--json', '--', 'grace', public_key]))
    await ok(['users'], { key })
    await refused([
      [
        'a viewer who adds',
        ['add', '--role', 'owner', '--', 'eve', toBase64url(randomBytes(32))],
        3,
        /role owner, and yours is viewer/,
        { key },
      ],
      ['a viewer who acts', ['signup', 'open'], 3, /role operator, and yours is viewer/, { key }],
      ['the last owner', ['remove', '--', JSON.parse(await ok(['self', '--json'])).admin_id], 3, /owner/],
    ])
    await ok(['role', '--', admin_id, 'operator'])
    expect(linesOf(await ok(['list', '--json']))).toContainEqual(expect.objectContaining({ admin_id, role: 'operator', removed_at: null }))
    await ok(['run', 'expired_events'], { key })
    await ok(['remove', '--', admin_id])
    expect((await admin(['self'], { key })).code).toBe(4)
    const table = await ok(['list'])
    expect(table).toMatch(/ADMIN +NAME +ROLE/)
    expect(table).toMatch(/grace +operator .*removed/)
  })
})

describe('what is looked at', () => {
  it.each([
    [['status'], 'accounts'],
    [['version'], 'schema'],
    [['database'], 'fsync'],
    [['config'], 'name'],
    [['limits'], 'rule'],
    [['jobs'], 'job'],
    [['signing-keys'], 'kid'],
    [['signup'], 'by'],
    [['log-level'], 'log_level'],
    [['audit', '--count', '3'], 'actor'],
    [['audit', 'head'], 'hash'],
  ])('%j, for people and as JSON', async (args, member) => {
    const [plain, json] = await Promise.all([ok(args), ok([...args, '--json'])])
    expect(plain.length).toBeGreaterThan(5)
    for (const line of linesOf(json)) expect(line).toHaveProperty(member)
    expect(plain + json).not.toContain(database.url)
  })

  it('what is set is shown, and goes back to the configuration', async () => {
    await ok(['log-level', 'error'])
    expect(JSON.parse(await ok(['log-level', '--json']))).toEqual({ log_level: 'error', by: 'operator' })
    await ok(['log-level', 'configured'])
    await ok(['limit', 'offer', '77'])
    const limits = linesOf(await ok(['limits', '--json']))
    expect(limits.find(({ rule }) => rule === 'offer')).toMatchObject({ points: 77, by: 'operator' })
    await ok(['limit', 'offer', 'configured'])
    expect(JSON.parse(await ok(['signup', '--json']))).toEqual({ signup: 'invite', by: 'configuration' })
  })
})

describe('accounts', () => {
  it('come by an invite, are listed, suspended and resumed, and deleted', { timeout: 60_000 }, async () => {
    const uninvited = await run([
      'init',
      '--home',
      join(folder, 'nobody'),
      '--server',
      server.url,
      '--name',
      'x',
      '--recovery-file',
      join(folder, 'x.txt'),
    ])
    expect([uninvited.code, uninvited.stderr]).toEqual([3, expect.stringContaining('account')])
    const { home, user_id, device_id } = await newUser('laptop')
    const send = (): Promise<{ code: number | null; stderr: string }> => run(['send', '--home', home], { input: 'hello' })
    expect((await send()).code).toBe(0)
    const user = JSON.parse(await ok(['user', '--json', '--', user_id]))
    expect(user).toMatchObject({ user_id, devices: 1, events: 1, suspended_at: null })
    expect(await ok(['users'])).toContain(user_id)

    await ok(['suspend', '--reason', 'abuse report 4711', '--', user_id])
    const out = await send()
    expect([out.code, out.stderr]).toEqual([75, expect.stringMatching(/suspended/)])
    expect(linesOf(await ok(['users', '--json', '--state', 'suspended']))).toMatchObject([{ user_id }])
    await ok(['resume', '--', user_id])
    expect((await send()).code).toBe(0)
    await ok(['suspend', '--device', device_id, '--', user_id])
    expect(linesOf(await ok(['devices', '--json', '--', user_id]))).toMatchObject([{ device_id, state: 'suspended' }])
    await ok(['resume', '--device', device_id, '--', user_id])
    await ok(['quota', '--', user_id, '1000000', 'configured', '2'])
    expect(JSON.parse(await ok(['user', '--json', '--', user_id])).quota).toEqual({ bytes: 1_000_000, streams: null, devices: 2 })
    await ok(['disconnect', '--', user_id])
    expect(await ok(['sessions', '--user', user_id])).toContain('SESSION')
    const rows = linesOf(await ok(['audit', '--json', '--action', 'suspend_user', '--user', user_id]))
    expect(rows.map(({ outcome, detail }) => [outcome, detail])).toEqual([
      ['begun', '{"reason":"abuse report 4711"}'],
      ['done', '{"reason":"abuse report 4711"}'],
    ])
    expect((await admin(['delete-user', '--', user_id])).code).toBe(2)
    await ok(['delete-user', '--yes', '--', user_id])
    expect((await admin(['user', '--', user_id])).code).toBe(3)
  })

  it('invites are made for a time and a number, listed without their codes, and revoked', async () => {
    const { invite, code } = linesOf(await ok(['invite', '--json', '--uses', '3', '--for', '2h', '--note', 'for the club']))[0]
    expect(invite).toMatchObject({ uses_max: 3, note: 'for the club' })
    expect(invite.expires_at - invite.created_at).toBe(7_200_000)
    const table = await ok(['invites'])
    expect(table).toMatch(/0 of 3 +open +for the club/)
    expect(table).not.toContain(code)
    await ok(['revoke-invite', invite.invite_id])
    expect(await ok(['invites'])).toMatch(/0 of 3 +revoked/)
  })
})

describe('refusals', () => {
  it('end as the list of exit codes says, with what to do, and nothing of the inside', { timeout: 60_000 }, async () => {
    const open = join(folder, 'open.json')
    await writeFile(open, await readFile(owner))
    await chmod(open, 0o644)
    const damaged = join(folder, 'damaged.json')
    await writeFile(damaged, '{"v":1', { mode: 0o600 })
    const elsewhere = join(folder, 'elsewhere.json')
    const stored = JSON.parse(await readFile(owner, 'utf8')) as object
    await writeFile(elsewhere, JSON.stringify({ ...stored, server_key_hash: toBase64url(randomBytes(32)) }), { mode: 0o600 })
    const stranger = join(folder, 'stranger.json')
    await ok(['key'], { key: stranger })
    const page = createServer((_, response) => response.end('<html>'))
    const other = createServer((_, response) => response.setHeader('content-type', 'application/json').end('{"hello":1}'))
    await Promise.all([page, other].map((one) => new Promise<void>((resolve) => one.listen(0, '127.0.0.1', resolve))))
    const urlOf = (one: typeof page): string => `http://127.0.0.1:${(one.address() as AddressInfo).port}`
    try {
      await refused([
        ['a key that others can read', ['self'], 3, /chmod 600/, { key: open }],
        ['no key', ['self'], 4, /no admin key/, { key: join(folder, 'none.json') }],
        ['a key of nobody', ['self'], 4, /does not know this key/, { key: stranger }],
        ['a damaged key', ['self'], 74, /damaged/, { key: damaged }],
        ['another relay', ['self'], 5, /not the relay/, { key: elsewhere }],
        ['nothing there', ['self'], 69, /no listener for admins/, { url: 'http://127.0.0.1:1' }],
        ['a page', ['self'], 69, /no admin listener/, { url: urlOf(page) }],
        ['another service', ['self'], 69, /no admin listener/, { url: urlOf(other) }],
        ['what devices reach', ['self'], 3, /./, { url: server.url }],
        ['no such command', ['nonsense'], 2, /./],
        ['a missing argument', ['suspend'], 2, /./],
        ['no such account', ['user', toBase64url(Buffer.alloc(32, 1))], 3, /no such/],
        ['no id', ['user', 'x'], 2, /user_id/],
        ['no such role', ['role', 'x'.repeat(22), 'king'], 2, /role/],
        ['no such state', ['users', '--state', 'asleep'], 2, /state/],
        ['a number that is none', ['users', '--count', 'many'], 2, /--count/],
        ['a number of rows that is none', ['audit', '--count', '1.5'], 2, /--count/],
        ['uses that are none', ['invite', '--uses', 'configured'], 2, /--uses/],
        ['a duration that is none', ['invite', '--for', 'ever'], 2, /duration/],
        ['points that are none', ['limit', 'offer', '-1'], 2, /./],
        ['no such limit', ['limit', 'nothing', '1'], 2, /rule/],
        ['no such job', ['run', 'nothing'], 3, /no such/],
        ['a head that is none', ['audit', 'verify', '--head', 'x'], 2, /not a head/],
      ])
    } finally {
      page.close()
      other.close()
    }
  })

  it('an id that begins with a dash stands behind two', async () => {
    await refused([
      ['as an option', ['user', `-${'A'.repeat(42)}`], 2, /-- /],
      ['behind --', ['user', '--', `-${'A'.repeat(42)}`], 3, /no such/],
    ])
  })
})

describe('the audit log', () => {
  it('verifies, by itself and against a head that was kept', async () => {
    const { rows, faults, head } = linesOf(await ok(['audit', 'verify', '--json']))[0]
    expect(faults).toEqual([])
    expect(rows).toBeGreaterThan(20)
    expect(await ok(['audit', 'verify', '--head', head])).toMatch(/nothing was changed or taken away/)
  })

  it('that was edited, cut or shortened by SQL does not (exit 6)', { timeout: 60_000 }, async () => {
    const kept = (await ok(['audit', 'head'])).trim()
    const sql = (text: string): Promise<void> => query(database.url, text)
    const forge = (text: string): Promise<void> =>
      sql(`alter table audit disable trigger user; ${text}; alter table audit enable trigger user`)
    const verify = async (...more: string[]): Promise<[number, string]> => {
      const { code, out, err } = await admin(['audit', 'verify', ...more])
      return [code, out + err]
    }
    await forge(`create table kept_audit as select * from audit`)
    const restore = (): Promise<void> => forge('update audit a set actor = k.actor from kept_audit k where k.seq = a.seq')

    await forge(`update audit set actor = 'root' where seq = 5`)
    expect(await verify()).toEqual([6, expect.stringContaining('row 5: the row was changed')])
    await restore()
    expect((await verify())[0]).toBe(0)
    await forge('delete from audit where seq = 7')
    expect(await verify()).toEqual([6, expect.stringContaining('rows 7 to 7 are missing')])
    await forge('insert into audit select * from kept_audit where seq = 7')
    expect((await verify())[0]).toBe(0)

    // as a script sees it
    await forge(`update audit set actor = 'root' where seq = 5`)
    const script = await run(['admin', '--key', owner, '--url', String(server.admin_url), 'audit', 'verify'])
    expect([script.code, script.stderr]).toEqual([6, expect.stringContaining('row 5')])
    await restore()

    // whoever takes head and checkpoints along is found by a head that was kept elsewhere
    const cut = `delete from audit where seq > 10; delete from audit_checkpoint; update audit_head set seq = 10, hash = (select a.hash from audit a where a.seq = 10)`
    await forge(cut)
    expect((await verify())[0]).toBe(0)
    expect(await verify('--head', kept)).toEqual([6, expect.stringMatching(/ended later|not what it was/)])
  })
})
