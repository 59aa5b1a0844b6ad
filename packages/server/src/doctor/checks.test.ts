/** Every check as a function of facts: what it finds right, and what it finds wrong. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { type Config, readConfig } from '../config/config.ts'
import { readSchema } from '../store/postgres/schema-files.ts'
import type { Verdict } from './check.ts'
import { CHECKS } from './doctor.ts'
import type {
  Disk,
  Facts,
  Folder,
  Machine,
  OwnTables,
  Port,
  PublicUrl,
  ReachedDatabase,
  RedisServers,
  Role,
  SettingName,
  Tls,
} from './facts.ts'

const KEY = new Uint8Array(32).fill(7)
const OTHER_KEY = new Uint8Array(32).fill(8)
const GIB = 2 ** 30
const DAY_MS = 86_400_000
const NOW = Date.UTC(2030, 0, 1)

const machine: Machine = { node: { version: '24.1.0', wanted: '22.15' }, open_files: 1_048_576, memory_bytes: 8 * GIB, uid: 1000 }
const disk: Disk = { free_bytes: 50 * GIB, total_bytes: 100 * GIB, free_inodes: 900_000, total_inodes: 1_000_000 }
const role: Role = {
  superuser: false,
  role_connections: -1,
  database_connections: -1,
  other_connections: 0,
  may_create: true,
  may_write: true,
}
const settings: Record<SettingName, string> = {
  fsync: 'on',
  full_page_writes: 'on',
  synchronous_commit: 'on',
  wal_level: 'replica',
  max_connections: '100',
  superuser_reserved_connections: '3',
  reserved_connections: '0',
  statement_timeout: '0',
  lock_timeout: '0',
  transaction_timeout: '0',
  idle_session_timeout: '0',
  autovacuum: 'on',
  track_counts: 'on',
  data_checksums: 'on',
  default_transaction_read_only: 'off',
}
const SCHEMA = readSchema()
const ownTables: OwnTables = {
  migrations: SCHEMA.tables.map(({ version }) => version),
  functions: SCHEMA.functions.map(({ name, sha256 }) => ({ name, sha256, version: SCHEMA.version })),
  server_key_hash: createHash('sha256').update(KEY).digest(),
  owners: 1,
  audit: 'whole',
  signup: null,
}
const reached: ReachedDatabase = {
  external: true,
  link: { over: 'network', tls: 'verified' },
  server_tls: 'TLSv1.3',
  round_trip_ms: 1,
  clock_ahead_ms: 3,
  version: 18,
  encoding: 'UTF8',
  replica: false,
  settings: settingsOf({}),
  role,
  oldest_transaction_s: 1,
  prepared: { count: 0, oldest_s: 0 },
  pooled: false,
  own: { seen: ownTables },
}
const tls: Tls = { version: 'TLSv1.3', old_version: null, refused: null, valid_to_ms: NOW + 60 * DAY_MS }
const url: PublicUrl = {
  url: 'https://relay.example',
  tls,
  answer: { status: 200, server_key: KEY },
  socket_failed: null,
}
const config = readConfig({
  DATABASE_URL: 'postgresql://u:p@db.example/d?sslmode=verify-full',
  SEALPOST_PUBLIC_URL: url.url,
  SEALPOST_SIGNUP: 'closed',
  SEALPOST_TRUSTED_PROXIES: '127.0.0.1',
})
const well: Facts = {
  config: { seen: config },
  mistakes: [],
  now: NOW,
  machine,
  folder: folder({}),
  secrets: { seen: { path: '/data/secrets.json', is: 'read', owner: 1000, server_key: KEY } },
  database: { seen: { is: 'reached', ...reached } },
  redis: { seen: { mode: 'standalone', over: 'network', tls: true, is: 'heard', versions: [7] } },
  port: { seen: { at: '127.0.0.1:8787', is: 'relay', ready: true, server_key: KEY } },
  admin_port: { seen: { host: '127.0.0.1', port: 8788, reached: [] } },
  public_url: { seen: url },
}

type There = Extract<Folder, { is: 'there' }>

function settingsOf(changes: Partial<Record<SettingName, string | [value: string, source: string]>>): ReachedDatabase['settings'] {
  const rows = Object.entries({ ...settings, ...changes }).map(([name, given]) => {
    const [value, source] = typeof given === 'string' ? [given, 'configuration file'] : given
    return [name, { value, source }]
  })
  return Object.fromEntries(rows) as ReachedDatabase['settings']
}

function folder(changes: Partial<There>): Facts['folder'] {
  return { seen: { path: '/data', is: 'there', mode: 0o700, owner: 1000, postgres_owner: null, disk, ...changes } }
}

const on = (changes: Partial<ReachedDatabase>): Partial<Facts> => ({ database: { seen: { is: 'reached', ...reached, ...changes } } })
const wrote = (changes: Partial<OwnTables>): Partial<ReachedDatabase> => ({ own: { seen: { ...ownTables, ...changes } } })
const own = (changes: Partial<OwnTables>): Partial<Facts> => on(wrote(changes))
const set = (changes: Parameters<typeof settingsOf>[0]): Partial<Facts> => on({ settings: settingsOf(changes) })
const configured = (changes: Partial<Config>): Partial<Facts> => ({ config: { seen: { ...config, ...changes } } })
const at = (changes: Partial<PublicUrl>): Partial<Facts> => ({ public_url: { seen: { ...url, ...changes } } })
const by = (changes: Partial<Tls>): Partial<Facts> => at({ tls: { ...tls, ...changes } })
const port = (value: Port): Partial<Facts> => ({ port: { seen: value } })
const space = (changes: Partial<Disk>): Partial<Facts> => ({ folder: folder({ disk: { ...disk, ...changes } }) })
const secrets = (is: 'missing' | 'open' | 'damaged' | 'unreadable'): Partial<Facts> => ({
  secrets: { seen: { path: '/data/secrets.json', is } },
})

const redis = (changes: Partial<Extract<RedisServers, { is: 'heard' }>>): Partial<Facts> => ({
  redis: { seen: { mode: 'standalone', over: 'network', tls: true, is: 'heard', versions: [7], ...changes } },
})
const silentRedis: Partial<Facts> = { redis: { seen: { mode: 'standalone', over: 'network', tls: true, is: 'silent' } } }

function run(name: string, changes: Partial<Facts>): Verdict {
  const check = CHECKS.find((row) => row.name === name)
  if (check === undefined) throw new Error(`there is no check ${name}`)
  return check.run({ ...well, ...changes })
}

type Case = [name: string, is: Verdict['is'], found: RegExp, changes: Partial<Facts>]

const CASES: Case[] = [
  ['redis', 'warn', /^no message came back/, silentRedis],
  ['redis', 'skipped', /./, { redis: { unseen: 'there is none' } }],
  ['redis-version', 'warn', /^Redis 5/, redis({ versions: [7, 5] })],
  ['redis-version', 'fail', /no sharded channels/, redis({ mode: 'cluster', versions: [6] })],
  ['redis-version', 'skipped', /may not ask/, redis({ versions: [] })],
  ['redis-version', 'skipped', /not reached/, silentRedis],
  ['redis-tls', 'warn', /^plain text/, redis({ tls: false })],
  ['redis-tls', 'ok', /this machine/, redis({ tls: false, over: 'loopback' })],
  ['configuration', 'fail', /^mistakes: 2/, { config: { unseen: 'x' }, mistakes: ['SEALPOST_PORT: a mistake', 'SEALPOST_HOST: b'] }],
  ['node', 'fail', /^20\.19\.0/, { machine: { ...machine, node: { version: '20.19.0', wanted: '22.15' } } }],
  ['node', 'fail', /^22\.9\.0/, { machine: { ...machine, node: { version: '22.9.0', wanted: '22.15' } } }],
  ['open-files', 'warn', /^1024 /, { machine: { ...machine, open_files: 1024 } }],
  ['open-files', 'skipped', /./, { machine: { ...machine, open_files: null } }],
  ['memory', 'warn', /^512 MiB/, { machine: { ...machine, memory_bytes: GIB / 2 } }],
  ['memory', 'warn', /^8\.0 GiB; under load the relay may want 16/, configured({ workers: 16 })],
  ['data-folder', 'fail', /no folder \/data/, { folder: { seen: { path: '/data', is: 'missing' } } }],
  ['data-folder', 'fail', /EACCES/, { folder: { seen: { path: '/data', is: 'unusable', reason: 'EACCES' } } }],
  ['data-folder', 'fail', /user 0, and you are 1000/, { folder: folder({ owner: 0 }) }],
  ['data-folder', 'fail', /write to \/data \(0777\)/, { folder: folder({ mode: 0o777 }) }],
  ['data-folder', 'fail', /write/, { folder: folder({ mode: 0o720 }) }],
  ['data-folder', 'warn', /look into \/data \(0755\)/, { folder: folder({ mode: 0o755 }) }],
  ['data-folder', 'warn', /0711/, { folder: folder({ mode: 0o711 }) }],
  ['data-folder', 'ok', /0711/, { folder: folder({ mode: 0o711, postgres_owner: 65_534 }) }],
  [
    'data-folder',
    'ok',
    /^\/data$/,
    { folder: folder({ mode: 0o755, postgres_owner: 65_534, owner: 0 }), machine: { ...machine, uid: null } },
  ],
  ['data-folder', 'ok', /0700/, { folder: folder({ owner: 33 }), machine: { ...machine, uid: 0 } }],
  ['disk', 'fail', /^200 MiB of/, space({ free_bytes: 200 * 2 ** 20 })],
  ['disk', 'warn', /^1\.0 GiB of/, space({ free_bytes: GIB, total_bytes: 10 * GIB })],
  ['disk', 'warn', /^40\.0 GiB of/, space({ free_bytes: 40 * GIB, total_bytes: 1000 * GIB })],
  ['disk', 'skipped', /./, { folder: { seen: { path: '/data', is: 'missing' } } }],
  ['inodes', 'fail', /^999 of/, space({ free_inodes: 999 })],
  ['inodes', 'warn', /^10000 of/, space({ free_inodes: 10_000 })],
  ['inodes', 'ok', /not count/, space({ free_inodes: 0, total_inodes: 0 })],
  ['secrets', 'fail', /no file/, secrets('missing')],
  ['secrets', 'fail', /others can read/, secrets('open')],
  ['secrets', 'fail', /damaged/, secrets('damaged')],
  ['secrets', 'fail', /cannot be read/, secrets('unreadable')],
  ['secrets', 'fail', /belongs to user 0/, { secrets: { seen: { path: '/s', is: 'read', owner: 0, server_key: KEY } } }],

  [
    'database',
    'fail',
    /refused/,
    { database: { seen: { is: 'unreachable', external: true, reason: 'connection refused', advice: 'check it' } } },
  ],
  ['database', 'skipped', /no relay runs/, { database: { seen: { is: 'asleep' } } }],
  ['database', 'warn', /^answers in 250\.0 ms/, on({ round_trip_ms: 250 })],
  ['database-version', 'fail', /13/, on({ version: 13 })],
  ['database-version', 'fail', /19/, on({ version: 19 })],
  ['database-encoding', 'fail', /LATIN1/, on({ encoding: 'LATIN1' })],
  ['database-primary', 'fail', /replica/, on({ replica: true })],
  ['database-primary', 'fail', /read only/, set({ default_transaction_read_only: ['on', 'user'] })],
  ['migrations', 'skipped', /may not read/, on({ own: { unseen: 'this user may not read the tables' } })],
  ['migrations', 'fail', /^its schema is 9999/, own({ migrations: [...ownTables.migrations, 9999] })],
  [
    'migrations',
    'warn',
    /applies: ingest$/,
    own({ functions: ownTables.functions.map((row) => (row.name === 'ingest' ? { ...row, sha256: 'other' } : row)) }),
  ],
  ['migrations', 'warn', /applies: 0001-baseline, append_audit/, own({ migrations: [], functions: [] })],
  ['fsync', 'fail', /^off: a power cut/, set({ fsync: 'off' })],
  ['full-page-writes', 'fail', /^off: a power cut/, set({ full_page_writes: 'off' })],
  ['synchronous-commit', 'fail', /^off \(by database\)/, set({ synchronous_commit: ['off', 'database'] })],
  ['synchronous-commit', 'ok', /^local$/, set({ synchronous_commit: 'local' })],
  ['wal-level', 'warn', /^minimal/, set({ wal_level: 'minimal' })],
  ['data-checksums', 'warn', /^off/, set({ data_checksums: 'off' })],
  ['autovacuum', 'warn', /^autovacuum off/, set({ autovacuum: 'off' })],
  ['autovacuum', 'warn', /^track_counts off/, set({ track_counts: 'off' })],
  [
    'connections',
    'ok',
    /^a pooler shares them/,
    { ...on({ pooled: true, settings: settingsOf({ max_connections: '10' }) }), ...configured({ database_pooler: 'transaction' }) },
  ],
  ['connections', 'fail', /^7 allowed/, set({ max_connections: '10' })],
  ['connections', 'fail', /^5 allowed/, on({ role: { ...role, role_connections: 5 } })],
  ['connections', 'warn', /^97 allowed, 85 in use/, on({ role: { ...role, other_connections: 85 } })],
  ['connections', 'warn', /^14 allowed/, on({ role: { ...role, database_connections: 14 } })],
  ['connections', 'ok', /a relay opens 36$/, configured({ workers: 3 })],
  ['connections', 'fail', /^97 allowed, .* a relay opens 120$/, configured({ workers: 10 })],
  ['timeouts', 'warn', /^statement_timeout 5000 ms/, set({ statement_timeout: ['5000', 'database user'] })],
  ['timeouts', 'warn', /^transaction_timeout 1000 ms, idle/, set({ transaction_timeout: '1000', idle_session_timeout: '1' })],
  ['timeouts', 'ok', /none/, set({ statement_timeout: '600000' })],
  ['database-user', 'warn', /superuser/, on({ role: { ...role, superuser: true } })],
  ['database-user', 'ok', /embedded/, on({ role: { ...role, superuser: true }, external: false })],
  ['database-user', 'fail', /may not write/, on({ role: { ...role, may_write: false } })],
  ['database-user', 'fail', /may not make/, on({ role: { ...role, may_write: null, may_create: false }, ...wrote({ migrations: [] }) })],
  ['database-tls', 'fail', /in clear/, on({ link: { over: 'network', tls: 'none' }, server_tls: null })],
  ['database-tls', 'warn', /not verified/, on({ link: { over: 'network', tls: 'unverified' } })],
  ['database-tls', 'ok', /this machine/, on({ link: { over: 'loopback', tls: 'none' }, server_tls: null })],
  ['database-tls', 'ok', /this machine/, on({ link: { over: 'loopback', tls: 'unverified' } })],
  ['database-tls', 'ok', /socket/, on({ link: { over: 'socket', tls: 'none' }, server_tls: null })],
  ['database-tls', 'ok', /pooler/, on({ server_tls: null })],
  ['database-pooler', 'fail', /none is configured/, on({ pooled: true })],
  ['database-pooler', 'ok', /one transaction$/, { ...configured({ database_pooler: 'transaction' }), ...on({ pooled: true }) }],
  ['database-pooler', 'ok', /one session$/, { ...configured({ database_pooler: 'session' }), ...on({ pooled: true }) }],
  ['database-pooler', 'warn', /every call pays/, configured({ database_pooler: 'transaction' })],
  ['database-pooler', 'ok', /none/, { ...configured({ database_pooler: 'transaction' }), ...on({ external: false }) }],
  ['clock', 'fail', /^10 min behind/, on({ clock_ahead_ms: 600_000 })],
  ['clock', 'warn', /^5\.0 s ahead/, on({ clock_ahead_ms: -5_000 })],
  ['clock', 'ok', /^1\.2 s/, on({ clock_ahead_ms: 1_200, round_trip_ms: 600 })],
  ['old-transactions', 'warn', /open for 60 min/, on({ oldest_transaction_s: 3_600 })],
  ['old-transactions', 'warn', /^2 prepared/, on({ prepared: { count: 2, oldest_s: 200_000 } })],
  ['server-key', 'fail', /another key/, { secrets: { seen: { path: '/s', is: 'read', owner: 1000, server_key: OTHER_KEY } } }],
  ['server-key', 'fail', /missing/, secrets('missing')],
  ['server-key', 'skipped', /not read/, secrets('damaged')],
  ['server-key', 'ok', /no relay/, { ...secrets('missing'), ...own({ server_key_hash: null }) }],
  ['audit-log', 'fail', /last row/, own({ audit: 'broken' })],
  ['audit-log', 'skipped', /none/, own({ audit: null })],
  ['admin-owner', 'warn', /none/, own({ owners: 0 })],
  ['admin-owner', 'skipped', /no admins/, own({ owners: null })],

  [
    'port',
    'fail',
    /something else is at 127\.0\.0\.1:8787: it answers 404/,
    port({ at: '127.0.0.1:8787', is: 'other', reason: 'it answers 404' }),
  ],
  ['port', 'fail', /no address/, port({ at: '192.0.2.1:8787', is: 'no_address' })],
  ['port', 'warn', /nothing listens/, port({ at: '127.0.0.1:8787', is: 'silent' })],
  ['port', 'fail', /not ready/, port({ at: '127.0.0.1:8787', is: 'relay', ready: false, server_key: KEY })],
  ['relay-key', 'fail', /another key/, port({ at: '127.0.0.1:8787', is: 'relay', ready: true, server_key: OTHER_KEY })],
  ['relay-key', 'skipped', /no relay/, port({ at: '127.0.0.1:8787', is: 'silent' })],
  ['relay-key', 'skipped', /not read/, secrets('open')],
  ['admin-port', 'fail', /192\.0\.2\.2/, { admin_port: { seen: { host: '127.0.0.1', port: 1, reached: ['192.0.2.2'] } } }],
  ['admin-port', 'warn', /0\.0\.0\.0/, { admin_port: { seen: { host: '0.0.0.0', port: 1, reached: ['192.0.2.2'] } } }],
  ['public-url', 'ok', /this relay/, at({ url: 'http://127.0.0.1:1', tls: null })],
  ['public-url', 'fail', /does not answer: ENOTFOUND/, at({ answer: { failed: 'ENOTFOUND' } })],
  ['public-url', 'fail', /no relay \(status 502\)/, at({ answer: { status: 502, server_key: null } })],
  ['public-url', 'fail', /another relay/, at({ answer: { status: 200, server_key: OTHER_KEY } })],
  ['public-url', 'ok', /a relay/, secrets('damaged')],
  ['public-url', 'skipped', /no url/, { public_url: { unseen: 'no url' } }],
  ['certificate', 'fail', /ended on 2029-12-31/, by({ valid_to_ms: NOW - 1, refused: 'CERT_HAS_EXPIRED' })],
  ['certificate', 'fail', /SELF_SIGNED/, by({ refused: 'DEPTH_ZERO_SELF_SIGNED_CERT' })],
  ['certificate', 'warn', /^13 days left/, by({ valid_to_ms: NOW + 14 * DAY_MS - 1 })],
  ['certificate', 'skipped', /ECONNREFUSED/, at({ tls: { failed: 'ECONNREFUSED' } })],
  ['certificate', 'skipped', /not https/, at({ tls: null })],
  ['tls-version', 'fail', /TLSv1\.1/, by({ old_version: 'TLSv1.1' })],
  ['websocket', 'fail', /status 400/, at({ socket_failed: 'status 400' })],
  ['forwarded-for', 'warn', /nobody/, configured({ trusted_proxies: [] })],
  ['forwarded-for', 'warn', /not of 127/, configured({ trusted_proxies: ['10.0.0.1'] })],
  ['forwarded-for', 'ok', /10\.0/, configured({ trusted_proxies: ['10.0.0.0/8'], host: '0.0.0.0' })],
  ['forwarded-for', 'fail', /everybody/, configured({ trusted_proxies: ['0.0.0.0/0', '::/0'] })],
  ['forwarded-for', 'fail', /everybody/, configured({ trusted_proxies: ['127.0.0.1', '192.0.0.0/3'] })],
  ['forwarded-for', 'fail', /everybody/, configured({ trusted_proxies: ['127.0.0.1', '2000::/3'] })],
  ['forwarded-for', 'ok', /nobody/, configured({ trusted_proxies: [], public_url: null })],
  ['sign-up', 'warn', /^open/, configured({ signup: 'open' })],
  ['sign-up', 'warn', /^open/, configured({ signup: 'open', public_url: null, host: '0.0.0.0' })],
  ['sign-up', 'ok', /this machine/, configured({ signup: 'open', public_url: null })],
  ['sign-up', 'warn', /^open/, own({ signup: 'open' })],
  ['sign-up', 'ok', /invite/, { ...configured({ signup: 'open' }), ...own({ signup: 'invite' }) }],
  ['retention', 'ok', /any age, no bound of all together, no quota/, configured({ quota_bytes: null })],
  [
    'retention',
    'warn',
    /200 GiB together.*more than the disk/,
    configured({ database_url: null, retention: { ...config.retention, bytes: 200 * GIB } }),
  ],
]

describe('the checks', () => {
  test.each(CHECKS.map(({ name }) => name))('%s finds nothing wrong with what is right', (name) => {
    expect(run(name, {})).toMatchObject({ is: 'ok', found: expect.stringMatching(/./) })
  })

  test.each(CASES)('%s: %s, %s', (name, is, found, changes) => {
    const verdict = run(name, changes)
    expect(verdict).toMatchObject({ is, found: expect.stringMatching(found) })
    if (is === 'warn' || is === 'fail') expect(verdict.advice).toMatch(/\w+ \S*\w/)
  })

  test('each has a case in which it finds something wrong', () => {
    const wrong = new Set(CASES.filter(([, is]) => is === 'fail' || is === 'warn').map(([name]) => name))
    expect([...wrong].sort()).toEqual(CHECKS.map(({ name }) => name).sort())
  })

  test('each is skipped, and says why, when nothing is known but that the configuration is wrong', () => {
    const unseen = { unseen: 'nobody looked' }
    const nothing = {
      config: unseen,
      folder: unseen,
      secrets: unseen,
      database: unseen,
      redis: unseen,
      port: unseen,
      admin_port: unseen,
      public_url: unseen,
    }
    const left = CHECKS.filter(({ name }) => !['configuration', 'node', 'open-files'].includes(name))
    for (const { name } of left) expect([name, run(name, nothing)]).toEqual([name, { is: 'skipped', found: 'nobody looked' }])
  })

  test.each([
    ['database', /^alter database … reset synchronous_commit;/],
    ['user', /^alter role … reset synchronous_commit;/],
    ['database user', /^alter role … in database … reset synchronous_commit;/],
    ['client', /DATABASE_URL/],
    ['command line', /^start PostgreSQL without/],
    ['default', /^alter system set synchronous_commit = on/],
  ])('a setting by %s is put right there', (source, advice) => {
    expect(run('synchronous-commit', set({ synchronous_commit: ['off', source] })).advice).toMatch(advice)
  })

  test('are on the page, in their order, with what they check, what is at stake and what to do', () => {
    const page = readFileSync(new URL('../../../../docs/operations/doctor.md', import.meta.url), 'utf8')
    const sections = page.split(/^### /m).slice(1)
    const rows = sections.map(
      (text) => /^`([\w-]+)` - Checks: (.+)\. - At stake: (\w.+) - To do: (\S.+)/.exec(text.replace(/\s+/g, ' ')) ?? [],
    )
    expect(rows.map(([, name, says]) => [name, says])).toEqual(CHECKS.map(({ name, says }) => [name, says]))
  })
})
