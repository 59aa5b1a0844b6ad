/**
 * The configuration of a relay: flags before environment before defaults. Pure: environment, flags and a way to read
 * files come in, a configuration comes out, or one error that lists every mistake. A mistake never repeats a secret.
 *
 * For each variable X, `X_FILE` names a file that holds the value (secrets mounted by an orchestrator).
 */
import { fileCause, SealpostError } from '@sealpost/protocol'
import type { z } from 'zod'
import type { Rates } from '../limits/rate-limits.ts'
import { RATES, type RateRule, rateVariable } from '../limits/rules.ts'
import type { RedisConfig } from '../bus/redis-link.ts'
import type { RetentionRules } from '../ports/store.ts'
import type { RelayLimits } from '../relay/limits.ts'
import type { Pooler } from '../store/postgres/pooler.ts'
import { type ShownVariable, showVariable } from './shown-variable.ts'
import { type ConfigFlags, type LOG_LEVELS, type SIGNUP, type Variable, VARIABLES } from './variables.ts'

export type Config = {
  host: string
  /** 0 = any free port. */
  port: number
  data_dir: string
  /** Processes that serve; 1 = the relay is one process. */
  workers: number
  /** External PostgreSQL; null = the embedded one in the data folder. */
  database_url: string | null
  signup: (typeof SIGNUP)[number]
  /** What devices are told to connect to, when it is not the address listened on. */
  public_url: string | null
  /** Null = `secrets.json` in the data folder. */
  secrets_file: string | null
  /** Origins of web pages that may connect. */
  origins: readonly string[]
  /** Addresses or networks (CIDR) of proxies whose X-Forwarded-For is believed. */
  trusted_proxies: readonly string[]
  /** Whether the API documents are served. */
  docs: boolean
  log_level: (typeof LOG_LEVELS)[number]
  clock_skew_ms: number
  rekey_after_ms: number
  rekey_after_frames: number
  /** A stop that takes longer is cut short. */
  stop_ms_max: number
  /** How long a stop begins with being not ready, and nothing else. */
  drain_notice_ms: number
  /** How long a start waits for an external database. */
  database_wait_ms_max: number
  /** What is between the relay and an external database. */
  database_pooler: Pooler
  /** Null: there is no Redis. */
  redis: RedisConfig | null
  /** Stored bytes of one user; null = no quota. */
  quota_bytes: number | null
  /** Active devices of one user. */
  quota_devices: number
  /** Streams of one user. */
  quota_streams: number
  retention: RetentionRules
  /** How long rows of the audit log are kept behind a checkpoint; null = for ever. */
  audit_ms: number | null
  /** The listener of admins; null = there is none. */
  admin: { host: string; port: number } | null
  /** The flag, the variable or the variable of a file that gave each value; where none did, the one that a person would use. */
  names: Readonly<Record<Name, string>>
  /** Every variable, as it may be shown. */
  shown: readonly ShownVariable[]
  /** Points of each rate. */
  rates: Required<Rates>
  /** What is bounded at once, and the rates of events. */
  limits: Pick<
    RelayLimits,
    | 'socketsPerAddressMax'
    | 'unauthenticatedPerAddressMax'
    | 'followersPerDeviceMax'
    | 'eventsPerDevicePerSecond'
    | 'bytesPerDevicePerSecond'
    | 'handshakesPerSecond'
    | 'eventsPerUserPerMinute'
    | 'queueBytesMax'
    | 'drainSpreadMs'
    | 'drainMs'
  >
}

type Name = keyof typeof VARIABLES
type Values = { [N in Name]: z.output<(typeof VARIABLES)[N]['schema']> }

/** Throws `invalid_config`; its sentence has one line per mistake. */
export function readConfig(env: NodeJS.ProcessEnv, flags: ConfigFlags = {}, readFile: (path: string) => string = noFiles): Config {
  const mistakes: string[] = []
  const values: Record<string, unknown> = {}
  const names: Record<string, string> = {}
  const shown: ShownVariable[] = []
  for (const [name, row] of Object.entries<Variable>(VARIABLES)) {
    const { given, label } = giveVariable(name, row, env, flags, readFile, mistakes)
    names[name] = label
    const parsed = row.schema.safeParse(given === '' ? undefined : given)
    shown.push(showVariable(name, row, given))
    if (given !== undefined && UNUSABLE.test(given)) mistakes.push(`${label}: it holds bytes that are not text in UTF-8, or a zero`)
    else if (parsed.success) values[name] = parsed.data
    else mistakes.push(`${label}: ${parsed.error.issues.map((issue) => issue.message).join('; ')}`)
  }
  for (const name of Object.keys(env)) if (isUnknown(name)) mistakes.push(`${name}: there is no such variable${nearest(name)}`)
  const { SEALPOST_DRAIN_NOTICE_S: notice = 0, SEALPOST_STOP_S: stop = Infinity } = values as Partial<Values>
  if (notice >= stop) mistakes.push(`${names['SEALPOST_DRAIN_NOTICE_S']}: has to be below ${names['SEALPOST_STOP_S']}`)
  const { REDIS_URL: redis = [], SEALPOST_REDIS_MODE: mode } = values as Partial<Values>
  if (redis.length > 1 && mode === 'standalone')
    mistakes.push(`${names['REDIS_URL']}: several servers need SEALPOST_REDIS_MODE=sentinel or cluster`)
  for (const [option, path] of certificatesOf(values)) {
    const cause = readCause(path, readFile)
    if (cause !== null) mistakes.push(`${names['DATABASE_URL']}: the file of ${option} cannot be read: ${cause}`)
  }
  if (mistakes.length > 0) throw new SealpostError('invalid_config', `the configuration is not valid:\n  ${mistakes.join('\n  ')}`)
  return toConfig(values as Values, names as Config['names'], shown)
}

function toConfig(values: Values, names: Config['names'], shown: readonly ShownVariable[]): Config {
  return {
    names,
    host: values.SEALPOST_HOST,
    port: values.SEALPOST_PORT,
    data_dir: values.SEALPOST_DATA,
    workers: values.SEALPOST_WORKERS,
    database_url: values.DATABASE_URL,
    signup: values.SEALPOST_SIGNUP,
    public_url: values.SEALPOST_PUBLIC_URL,
    secrets_file: values.SEALPOST_SECRETS_FILE,
    origins: values.SEALPOST_ORIGINS,
    trusted_proxies: values.SEALPOST_TRUSTED_PROXIES,
    log_level: values.SEALPOST_LOG_LEVEL,
    clock_skew_ms: values.SEALPOST_CLOCK_SKEW_S * 1000,
    rekey_after_ms: values.SEALPOST_REKEY_AFTER_S * 1000,
    rekey_after_frames: values.SEALPOST_REKEY_AFTER_FRAMES,
    stop_ms_max: values.SEALPOST_STOP_S * 1000,
    drain_notice_ms: values.SEALPOST_DRAIN_NOTICE_S * 1000,
    database_wait_ms_max: values.SEALPOST_DATABASE_WAIT_S * 1000,
    database_pooler: values.SEALPOST_DATABASE_POOLER,
    redis:
      values.REDIS_URL.length === 0
        ? null
        : {
            mode: values.SEALPOST_REDIS_MODE,
            urls: values.REDIS_URL,
            master: values.SEALPOST_REDIS_MASTER,
            sentinel_password: values.SEALPOST_REDIS_SENTINEL_PASSWORD,
          },
    quota_bytes: values.SEALPOST_QUOTA_BYTES || null,
    quota_devices: values.SEALPOST_QUOTA_DEVICES,
    quota_streams: values.SEALPOST_QUOTA_STREAMS,
    retention: {
      age_ms: values.SEALPOST_RETENTION_S * 1000 || null,
      streams: [...values.SEALPOST_RETENTION_STREAMS].map(([stream_id, seconds]) => ({ stream_id, age_ms: seconds * 1000 })),
      stream_bytes: values.SEALPOST_RETENTION_STREAM_BYTES || null,
      bytes: values.SEALPOST_RETENTION_BYTES || null,
      tombstone_ms: values.SEALPOST_RETENTION_TOMBSTONES_S * 1000 || null,
      revoked_ms: values.SEALPOST_RETENTION_REVOKED_S * 1000 || null,
    },
    audit_ms: values.SEALPOST_RETENTION_AUDIT_S * 1000 || null,
    docs: values.SEALPOST_DOCS === 'on',
    admin:
      values.SEALPOST_ADMIN === 'on'
        ? { host: values.SEALPOST_ADMIN_HOST, port: values.SEALPOST_ADMIN_PORT ?? portAfter(values.SEALPOST_PORT) }
        : null,
    shown,
    rates: Object.fromEntries(Object.keys(RATES).map((rule) => [rule, values[rateVariable(rule as RateRule)]])) as Required<Rates>,
    limits: {
      socketsPerAddressMax: values.SEALPOST_LIMIT_SOCKETS_ADDRESS,
      unauthenticatedPerAddressMax: values.SEALPOST_LIMIT_UNAUTHENTICATED_ADDRESS,
      handshakesPerSecond: values.SEALPOST_LIMIT_HANDSHAKES,
      followersPerDeviceMax: values.SEALPOST_LIMIT_FOLLOWERS_DEVICE,
      eventsPerDevicePerSecond: values.SEALPOST_LIMIT_EVENTS_DEVICE,
      bytesPerDevicePerSecond: values.SEALPOST_LIMIT_BYTES_DEVICE,
      eventsPerUserPerMinute: values.SEALPOST_LIMIT_EVENTS_USER,
      queueBytesMax: values.SEALPOST_LIMIT_QUEUE_BYTES,
      ...drainTimes(values),
    },
  }
}

/** What a stop keeps back for requests under way and the database. */
const STOP_RESERVE_MS = 5_000

/** Sessions have what a stop leaves of its time: half of it at most until the last is told, the rest for what is in flight. */
function drainTimes(values: Values): Pick<RelayLimits, 'drainSpreadMs' | 'drainMs'> {
  const left = (values.SEALPOST_STOP_S - values.SEALPOST_DRAIN_NOTICE_S) * 1000
  const drain = left - Math.min(STOP_RESERVE_MS, left / 2)
  const drainSpreadMs = Math.min(values.SEALPOST_DRAIN_SPREAD_S * 1000, drain / 2)
  return { drainSpreadMs, drainMs: drain - drainSpreadMs }
}

function portAfter(port: number): number {
  return port === 0 || port === 65_535 ? 0 : port + 1
}

/** A misspelt variable would silently leave a default in force. Some are of the command on a device or of an admin. */
function isUnknown(name: string): boolean {
  const known = name.replace(/_FILE$/, '')
  return name.startsWith('SEALPOST_') && !OF_OTHERS.has(name) && !Object.hasOwn(VARIABLES, name) && !Object.hasOwn(VARIABLES, known)
}

const OF_OTHERS: ReadonlySet<string> = new Set(['SEALPOST_HOME', 'SEALPOST_DEBUG', 'SEALPOST_ADMIN_KEY', 'SEALPOST_ADMIN_URL'])

/** Says which variable was probably meant; nothing when none is near. */
function nearest(name: string): string {
  const given = bare(name)
  const [near] = Object.keys(VARIABLES)
    .map((other) => ({ other, edits: editsBetween(given, bare(other)) }))
    .sort((a, b) => a.edits - b.edits)
  return near !== undefined && near.edits <= Math.max(2, given.length / 4) ? `; the nearest is ${near.other}` : ''
}

/** What the variables differ by. */
function bare(name: string): string {
  return name.replace(/^SEALPOST_/, '').replace(/_FILE$/, '')
}

/** How many letters have to be put in, taken out or replaced. */
function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1]
    for (let j = 0; j < b.length; j++)
      next.push(Math.min((row[j] ?? 0) + (a[i] === b[j] ? 0 : 1), (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1))
    row = next
  }
  return row.at(-1) ?? 0
}

type Given = { given: string | undefined; label: string }

/** The text of a variable, and the name of what gave it. */
function giveVariable(
  name: string,
  row: Variable,
  env: NodeJS.ProcessEnv,
  flags: ConfigFlags,
  readFile: (path: string) => string,
  mistakes: string[],
): Given {
  const flag = row.flag === undefined ? null : `--${row.flag.replaceAll('_', '-')}`
  const ofFlag = row.flag === undefined ? undefined : flags[row.flag]
  if (flag !== null && ofFlag !== undefined) return { given: ofFlag, label: flag }
  const file = env[`${name}_FILE`]
  const isSet = env[name] !== undefined && env[name] !== ''
  if (file === undefined || file === '') return { given: env[name], label: isSet ? name : (flag ?? name) }
  const label = `${name}_FILE`
  if (isSet) {
    mistakes.push(`${name} and ${label} are both set; keep one`)
    return { given: undefined, label: name }
  }
  try {
    const given = readFile(file).trim()
    // a secret that was not mounted must not become a default
    if (given === '') mistakes.push(`${label}: the file is empty`)
    return { given, label }
  } catch (error) {
    mistakes.push(`${label}: the file cannot be read: ${fileCause(error)}`)
    return { given: undefined, label }
  }
}

/** What no path, address or number has in it. The system gives bytes that are not UTF-8 as U+FFFD. */
const UNUSABLE = /[\0\ufffd]/

/** Files that the driver reads by itself, where nothing tells what is wrong with them. */
const CERTIFICATES = ['sslrootcert', 'sslcert', 'sslkey'] as const

function certificatesOf({ DATABASE_URL: url }: Partial<Values>): [option: string, path: string][] {
  if (url === null || url === undefined) return []
  const { searchParams } = new URL(url)
  return CERTIFICATES.flatMap((option) => {
    const path = searchParams.get(option)
    return path === null || path === '' ? [] : [[option, path] as [string, string]]
  })
}

function readCause(path: string, readFile: (path: string) => string): string | null {
  try {
    readFile(path)
    return null
  } catch (error) {
    return fileCause(error)
  }
}

function noFiles(): string {
  throw new TypeError('no files here')
}
