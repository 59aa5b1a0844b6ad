/** Checks of the database: that it is the right one, keeps what it has taken, and goes on working. */
import { createHash } from 'node:crypto'
import { equalBytes } from '@sealpost/protocol'
import { readSchema } from '../store/postgres/schema-files.ts'
import { MAKE_UTF8, POSTGRES_VERSIONS } from '../store/postgres/migrate.ts'
import { POOLED_CONNECTIONS } from '../store/postgres/pool.ts'
import { MAY_NOT_CREATE } from '../store/postgres/refusals.ts'
import { type Check, fail, ok, secondsText, seen, skipped, type Verdict, warn } from './check.ts'
import type { Facts, OwnTables, ReachedDatabase, SettingName } from './facts.ts'

/** A start that migrates, this command, a backup, a person. */
const RESERVE = 5
const ROUND_TRIP_MS_MAX = 100
const CLOCK_MS_MAX = 1_000
/** A migration of a large database takes its time, and has no timeout of its own. */
const TIMEOUT_MS_MIN = 60_000
const TRANSACTION_S_MAX = 900
const OVERRIDDEN = 'the relay asks for on by itself, whoever else writes there does not'

export const DATABASE_CHECKS: readonly Check[] = [
  {
    name: 'database',
    says: 'that the database answers, and how fast',
    run: ({ database }) =>
      seen(database, (value) => {
        if (value.is === 'asleep')
          return skipped('no relay runs on the data folder, and its PostgreSQL only with it', 'run this again beside the running relay')
        if (value.is === 'unreachable')
          return fail(`not reached: ${value.reason}`, value.external ? value.advice : 'look at the log of the relay')
        const found = `answers in ${value.round_trip_ms.toFixed(1)} ms`
        if (value.round_trip_ms <= ROUND_TRIP_MS_MAX) return ok(found)
        return warn(`${found}: no event is acknowledged faster`, 'put the relay near its database, or look what keeps the database busy')
      }),
  },
  check('database-version', 'the version of PostgreSQL', ({ version }) => {
    const { min, max } = POSTGRES_VERSIONS
    if (version >= min && version <= max) return ok(`PostgreSQL ${version}`)
    return fail(`PostgreSQL ${version}: the relay does not start`, `use PostgreSQL ${min} to ${max}`)
  }),
  check('database-encoding', 'the encoding of the database', ({ encoding }) =>
    encoding === 'UTF8' ? ok(encoding) : fail(`${encoding}: the relay does not start`, MAKE_UTF8),
  ),
  check('database-primary', 'that the database is the primary and takes writes', ({ replica, settings }) => {
    if (replica) return fail('a replica: nothing can be stored, and what is read may be old', 'give the primary in DATABASE_URL')
    if (settings.default_transaction_read_only?.value === 'on')
      return fail('read only', resetAdvice('default_transaction_read_only', 'off', settings))
    return ok('the primary')
  }),
  own('migrations', 'the schema of the database against that of this version', (tables) => {
    const { version, functions } = readSchema()
    const above = Math.max(0, ...tables.migrations, ...tables.functions.map((row) => row.version))
    if (above > version)
      return fail(
        `its schema is ${above}, of a newer version; this one knows ${version} and does not start`,
        'run the newer version; there is no way back but a backup',
      )
    const pending = pendingOf(tables)
    if (pending.length === 0) return ok(`schema ${version}, ${functions.length} functions`)
    return warn(
      `the next start of this version applies: ${pending.join(', ')}`,
      'make a backup first; older versions do not start afterwards',
    )
  }),
  onlyOn(
    'fsync',
    'that PostgreSQL makes the disk write',
    'a power cut takes back what was acknowledged, or leaves a database that cannot be used',
  ),
  onlyOn('full_page_writes', 'that PostgreSQL can repair a half-written page', 'a power cut leaves pages that are half old and half new'),
  check('synchronous-commit', 'that a commit waits for the disk, for this user in this database', ({ settings }) => {
    const { value = 'unknown', source = 'nobody' } = settings.synchronous_commit ?? {}
    if (value !== 'off' && value !== 'unknown') return ok(value)
    return fail(
      `${value} (by ${source}): a commit may be acknowledged before it is on disk`,
      `${resetAdvice('synchronous_commit', 'on', settings)}; ${OVERRIDDEN}`,
    )
  }),
  check('wal-level', 'that replicas and backups from the log are possible', ({ settings }) => {
    const { value = 'unknown' } = settings.wal_level ?? {}
    if (value !== 'minimal') return ok(value)
    return warn('minimal: no replica, and no restore to a point in time', 'alter system set wal_level = replica, then restart PostgreSQL')
  }),
  check('data-checksums', 'that PostgreSQL notices pages that the disk damaged', ({ settings }) =>
    settings.data_checksums?.value === 'on'
      ? ok('on')
      : warn('off: a page that the disk damaged is read as if it were right', 'stop PostgreSQL and run: pg_checksums --enable'),
  ),
  check('autovacuum', 'that PostgreSQL removes dead rows', ({ settings }) => {
    const off = (['autovacuum', 'track_counts'] as const).filter((name) => settings[name]?.value !== 'on')
    if (off.length === 0) return ok('on')
    return warn(
      `${off.join(' and ')} off: tables grow without end, and every batch gets slower`,
      off.map((name) => resetAdvice(name, 'on', settings)).join('; '),
    )
  }),
  check('connections', 'the allowed number of connections against the number that the relay opens', judgeConnections),
  check('timeouts', 'timeouts of PostgreSQL that cut migrations and idle connections', ({ settings }) => {
    const names = ['statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_session_timeout'] as const
    const short = names.filter((name) => {
      const ms = Number(settings[name]?.value ?? 0)
      return ms > 0 && ms < TIMEOUT_MS_MIN
    })
    if (short.length === 0) return ok('none that is short')
    return warn(
      `${short.map((name) => `${name} ${settings[name]?.value} ms`).join(', ')}: a migration, an export or an idle connection is cut off`,
      `${short.map((name) => resetAdvice(name, '0', settings)).join('; ')}; the relay sets timeouts of its own`,
    )
  }),
  check('database-user', 'that the database user has enough rights, and not too many', ({ role, external, own }) => {
    if (role.may_write === false) return fail('may not write to the tables of the relay', 'let the user of DATABASE_URL own them')
    if (!role.may_create && 'seen' in own && pendingOf(own.seen).length > 0)
      return fail('may not make tables, and a start has to', MAY_NOT_CREATE.advice)
    if (external && role.superuser)
      return warn(
        'a superuser: who takes over the relay has the whole server, and its machine',
        'make a user of its own that owns this database alone',
      )
    return ok(external ? 'enough, and no superuser' : 'of the embedded PostgreSQL, by its socket alone')
  }),
  check('database-tls', 'that the connection to the database is encrypted and verified', ({ link, server_tls }) => {
    if (link.over === 'socket') return ok('a Unix socket')
    if (link.over === 'loopback') return ok('this machine')
    if (link.tls === 'none')
      return fail('in clear over the network', 'add sslmode=verify-full to DATABASE_URL, and sslrootcert for a certificate of your own')
    if (link.tls === 'unverified')
      return warn('TLS, but who answers is not verified', 'use sslmode=verify-full, and sslrootcert for a certificate of your own')
    return ok(server_tls ?? 'TLS, up to a pooler: what is between it and the database is not seen from here')
  }),
  check('database-pooler', 'that a pooler in front of the database is configured correctly', judgePooler),
  check('clock', 'the clock of this machine against the clock of the database', ({ clock_ahead_ms, round_trip_ms }, { config }) => {
    // what a round trip leaves open is no difference
    const apart = Math.max(0, Math.abs(clock_ahead_ms) - round_trip_ms / 2)
    const tolerance = Math.max(CLOCK_MS_MAX, 'seen' in config ? config.seen.clock_skew_ms : 0)
    const found = `${secondsText(Math.abs(clock_ahead_ms) / 1000)} ${clock_ahead_ms < 0 ? 'ahead of' : 'behind'} the database`
    const advice = 'set the clocks of both machines by NTP: timedatectl set-ntp true'
    if (apart > tolerance) return fail(`${found}, more than the tolerance of ${secondsText(tolerance / 1000)}`, advice)
    return apart > CLOCK_MS_MAX ? warn(found, advice) : ok(found)
  }),
  check(
    'old-transactions',
    'old transactions that keep PostgreSQL from removing dead rows',
    ({ oldest_transaction_s: oldest, prepared }) => {
      if (prepared.oldest_s > TRANSACTION_S_MAX)
        return warn(
          `${prepared.count} prepared, the oldest for ${secondsText(prepared.oldest_s)}`,
          'end what nobody will finish (select * from pg_prepared_xacts): rollback prepared …; the relay prepares none',
        )
      if (oldest > TRANSACTION_S_MAX)
        return warn(
          `one is open for ${secondsText(oldest)}`,
          'find it: select pid, usename, xact_start, query from pg_stat_activity order by xact_start; end it: select pg_terminate_backend(pid)',
        )
      return ok(`the oldest: ${secondsText(oldest)}`)
    },
  ),
  own('server-key', 'that secrets and database belong to the same relay', judgeKey),
  own('audit-log', 'that the audit log ends with the row that was written last', ({ audit }) => {
    if (audit === null) return skipped('there is none yet')
    if (audit === 'whole') return ok('whole at its end')
    return fail('its last row is not the one that was written last', 'rows were cut off or changed: sealpost admin audit verify says which')
  }),
  own('admin-owner', 'that the relay has an owner among its admins', ({ owners }) => {
    if (owners === null) return skipped('this database knows no admins yet')
    return owners > 0 ? ok(`owners: ${owners}`) : warn('there is none', 'make the first owner: sealpost admin init')
  }),
]

/** One that needs the database. */
function check(name: string, says: string, judge: (database: ReachedDatabase, facts: Facts) => Verdict): Check {
  const run = (facts: Facts): Verdict =>
    seen(facts.database, (value) => (value.is === 'reached' ? judge(value, facts) : skipped('the database was not reached')))
  return { name, says, run }
}

/** One that needs the tables of the relay. */
function own(name: string, says: string, judge: (tables: OwnTables, facts: Facts) => Verdict): Check {
  return check(name, says, (database, facts) => seen(database.own, (tables) => judge(tables, facts)))
}

/** Tables and functions that are missing, or not those of this version. */
function pendingOf({ migrations, functions: applied }: Pick<OwnTables, 'migrations' | 'functions'>): string[] {
  const { tables, functions } = readSchema()
  const known = new Map(applied.map(({ name, sha256 }) => [name, sha256]))
  return [
    ...tables.filter(({ version }) => !migrations.includes(version)),
    ...functions.filter(({ name, sha256 }) => known.get(name) !== sha256),
  ].map(({ name }) => name)
}

/** A setting without which nothing that was acknowledged is safe. */
function onlyOn(setting: SettingName, says: string, endangers: string): Check {
  return check(setting.replaceAll('_', '-'), says, ({ settings }) => {
    const value = settings[setting]?.value ?? 'unknown'
    return value === 'on' ? ok(value) : fail(`${value}: ${endangers}`, resetAdvice(setting, 'on', settings))
  })
}

function judgePooler({ pooled, external }: ReachedDatabase, { config }: Facts): Verdict {
  const pooler = 'seen' in config && external ? config.seen.database_pooler : 'off'
  if (pooled && pooler === 'off')
    return fail(
      'there is one, and none is configured: the relay does not start',
      'set SEALPOST_DATABASE_POOLER=transaction, or session if it lends a connection for as long as a client is connected',
    )
  if (pooled) return ok(`there is one, which is said to lend a connection for one ${pooler}`)
  if (pooler === 'transaction') return warn('none is there, and every call pays for one', 'take SEALPOST_DATABASE_POOLER away')
  return ok('none')
}

function judgeConnections({ settings, role, pooled }: ReachedDatabase, { config }: Facts): Verdict {
  if (pooled && 'seen' in config && config.seen.database_pooler === 'transaction')
    return ok('a pooler shares them out; its own bounds are not seen from here')
  const number = (name: SettingName): number => Number(settings[name]?.value ?? 0)
  const limits = [role.role_connections, role.database_connections].filter((limit) => limit >= 0)
  const server = number('max_connections') - number('superuser_reserved_connections') - number('reserved_connections')
  const limit = Math.min(server, ...limits)
  const free = Math.min(server - role.other_connections, ...limits)
  const opens = POOLED_CONNECTIONS * ('seen' in config ? config.seen.workers : 1)
  const found = `${limit} allowed, ${role.other_connections} in use by others; a relay opens ${opens}`
  const advice = `allow ${opens + RESERVE} for each relay: max_connections, and connection limit of user and database`
  if (limit < opens) return fail(found, advice)
  return free < opens + RESERVE ? warn(found, advice) : ok(found)
}

function judgeKey({ server_key_hash }: OwnTables, { secrets }: Facts): Verdict {
  if (server_key_hash === null) return ok('no relay has claimed the database yet')
  return seen(secrets, (file) => {
    if (file.is === 'missing')
      return fail(
        'the database has a relay, and its secrets are missing',
        'put secrets.json back from a backup: devices refuse any other key',
      )
    if (file.is !== 'read') return skipped('the secrets were not read')
    if (equalBytes(createHash('sha256').update(file.server_key).digest(), server_key_hash)) return ok('one relay')
    return fail(
      'the database belongs to a relay with another key: this one does not start',
      'put its secrets.json back, or name it with SEALPOST_SECRETS_FILE; or use another database',
    )
  })
}

/** How a setting is put right where it was set. */
function resetAdvice(name: SettingName, to: string, settings: ReachedDatabase['settings']): string {
  const source = settings[name]?.source ?? ''
  if (source === 'database') return `alter database … reset ${name}`
  if (source === 'user') return `alter role … reset ${name}`
  if (source === 'database user') return `alter role … in database … reset ${name}`
  if (source === 'client') return `take ${name} out of DATABASE_URL`
  if (source === 'command line') return `start PostgreSQL without ${name}`
  return `alter system set ${name} = ${to}, then select pg_reload_conf()`
}
