/**
 * The configuration of a relay: flags before environment before defaults. Pure: environment, flags and a way to read
 * files come in, a configuration comes out, or one error that lists every mistake. A mistake never repeats a secret.
 *
 * For each variable X, `X_FILE` names a file that holds the value (secrets mounted by an orchestrator).
 */
import { isIP } from 'node:net'
import { LIMITS, SealpostError } from '@sealpost/protocol'
import { z } from 'zod'

export const SIGNUP = ['open', 'invite', 'closed'] as const
export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const

export type Config = {
  host: string
  /** 0 = any free port. */
  port: number
  data_dir: string
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
  log_level: (typeof LOG_LEVELS)[number]
  clock_skew_ms: number
  rekey_after_ms: number
  rekey_after_frames: number
  /** A stop that takes longer is cut short. */
  stop_ms_max: number
  /** How long a start waits for an external database. */
  database_wait_ms_max: number
}

export type ConfigFlags = { host?: string; port?: string; data?: string; database_url?: string }

type Row = { flag?: keyof ConfigFlags; schema: z.ZodType; says: string }

/** THE list of variables. */
export const VARIABLES = {
  SEALPOST_HOST: { flag: 'host', schema: z.string().default('127.0.0.1'), says: 'Address to listen on.' },
  SEALPOST_PORT: { flag: 'port', schema: whole(0, 65_535).default(8787), says: 'Port to listen on; 0 = any free one.' },
  SEALPOST_DATA: { flag: 'data', schema: z.string().default('./sealpost-data'), says: 'Data folder.' },
  DATABASE_URL: { flag: 'database_url', schema: databaseUrl().nullable().default(null), says: 'External PostgreSQL 14 to 18.' },
  SEALPOST_SIGNUP: { schema: z.enum(SIGNUP, `expected one of ${SIGNUP.join(', ')}`).default('open'), says: 'Who may create accounts.' },
  SEALPOST_PUBLIC_URL: { schema: publicUrl().nullable().default(null), says: 'URL that devices connect to.' },
  SEALPOST_SECRETS_FILE: { schema: z.string().nullable().default(null), says: 'Secrets of the relay; made when missing.' },
  SEALPOST_ORIGINS: { schema: origins().default([]), says: 'Origins of web pages that may connect, with commas between.' },
  SEALPOST_TRUSTED_PROXIES: { schema: networks().default([]), says: 'Proxies whose X-Forwarded-For is believed, with commas between.' },
  SEALPOST_LOG_LEVEL: { schema: z.enum(LOG_LEVELS, `expected one of ${LOG_LEVELS.join(', ')}`).default('info'), says: 'Log level.' },
  SEALPOST_CLOCK_SKEW_S: {
    schema: whole(0, 86_400).default(LIMITS.clockSkewMs / 1000),
    says: 'Tolerance for clocks of devices, in seconds.',
  },
  SEALPOST_REKEY_AFTER_S: { schema: whole(1, 86_400).default(LIMITS.rekeyAfterMs / 1000), says: 'Age of session keys, in seconds.' },
  SEALPOST_REKEY_AFTER_FRAMES: { schema: whole(16, 2 ** 32).default(LIMITS.rekeyAfterFrames), says: 'Frames under one session key.' },
  SEALPOST_STOP_S: { schema: whole(1, 3600).default(20), says: 'Longest time of a stop, in seconds.' },
  SEALPOST_DATABASE_WAIT_S: { schema: whole(0, 3600).default(30), says: 'How long a start waits for the database, in seconds.' },
} as const satisfies Record<string, Row>

type Name = keyof typeof VARIABLES
type Values = { [N in Name]: z.output<(typeof VARIABLES)[N]['schema']> }

/** Throws `invalid_config`; its sentence has one line per mistake. */
export function readConfig(env: NodeJS.ProcessEnv, flags: ConfigFlags = {}, readFile: (path: string) => string = noFiles): Config {
  const mistakes: string[] = []
  const values: Record<string, unknown> = {}
  for (const [name, row] of Object.entries<Row>(VARIABLES)) {
    const flag = row.flag === undefined ? undefined : flags[row.flag]
    const given = flag ?? readVariable(env, name, readFile, mistakes)
    const parsed = row.schema.safeParse(given === '' ? undefined : given)
    const label = flag === undefined ? name : `--${String(row.flag).replace('_', '-')}`
    if (parsed.success) values[name] = parsed.data
    else mistakes.push(`${label}: ${parsed.error.issues.map((issue) => issue.message).join('; ')}`)
  }
  if (mistakes.length > 0) throw new SealpostError('invalid_config', `the configuration is not valid:\n  ${mistakes.join('\n  ')}`)
  return toConfig(values as Values)
}

function toConfig(values: Values): Config {
  return {
    host: values.SEALPOST_HOST,
    port: values.SEALPOST_PORT,
    data_dir: values.SEALPOST_DATA,
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
    database_wait_ms_max: values.SEALPOST_DATABASE_WAIT_S * 1000,
  }
}

function readVariable(env: NodeJS.ProcessEnv, name: string, readFile: (path: string) => string, mistakes: string[]): string | undefined {
  const file = env[`${name}_FILE`]
  if (file === undefined || file === '') return env[name]
  if (env[name] !== undefined && env[name] !== '') {
    mistakes.push(`${name} and ${name}_FILE are both set; keep one`)
    return undefined
  }
  try {
    return readFile(file).trim()
  } catch {
    mistakes.push(`${name}_FILE: the file cannot be read`)
    return undefined
  }
}

function noFiles(): string {
  throw new TypeError('no files here')
}

function whole(min: number, max: number) {
  const message = `expected a whole number from ${min} to ${max}`
  return z
    .string()
    .regex(/^\d{1,10}$/, message)
    .transform(Number)
    .refine((value) => value >= min && value <= max, message)
}

function databaseUrl() {
  const message = 'expected postgresql://user:password@host:port/database'
  return z.string().refine((text) => /^postgres(ql)?:\/\//.test(text) && URL.canParse(text), message)
}

function publicUrl() {
  const message = 'expected https://host or http://host, without path, query or fragment'
  return z.string().refine(isOrigin, message).transform(originOf)
}

function origins() {
  const message = 'expected origins like https://app.example, with commas between'
  return z
    .string()
    .transform((text) => text.split(',').map((origin) => origin.trim()))
    .refine((list) => list.every(isOrigin), message)
    .transform((list) => list.map(originOf))
}

function networks() {
  const message = 'expected addresses like 10.0.0.1 or networks like 10.0.0.0/8, with commas between'
  return z
    .string()
    .transform((text) => text.split(',').map((network) => network.trim()))
    .refine((list) => list.every(isNetwork), message)
}

function isNetwork(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/')
  const family = isIP(address)
  if (family === 0 || rest.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))
}

function isOrigin(text: string): boolean {
  if (!URL.canParse(text)) return false
  const url = new URL(text)
  return /^https?:$/.test(url.protocol) && url.pathname === '/' && url.search === '' && url.hash === '' && url.username === ''
}

function originOf(text: string): string {
  return new URL(text).origin
}
