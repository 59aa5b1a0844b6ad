/**
 * THE list of variables of a relay: what each may hold, its default, its unit, and whether it is a secret. The configuration is read
 * by it, and `docs/configuration.md` and `.env.example` are made of it.
 */
import { isIP } from 'node:net'
import { isLoopback, LABEL, LIMITS, parseServerUrl, parseWebOrigin, SealpostError, toHostName } from '@sealpost/protocol'
import { z } from 'zod'
import { RATES, type RateRule, rateVariable } from '../limits/rules.ts'
import { RELAY_LIMITS } from '../relay/limits.ts'
import { POOLERS } from '../store/postgres/pooler.ts'

export const SIGNUP = ['open', 'invite', 'closed'] as const
export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const
export const SWITCH = ['on', 'off'] as const

/** Whole numbers that JSON and the database hold exactly. */
const MAX = Number.MAX_SAFE_INTEGER
/** More than one process could count to. */
const COUNT_MAX = 1_000_000_000
/** Some 300 years; in milliseconds still exact. */
const SECONDS_MAX = 9_999_999_999

export const REDIS_MODES = ['standalone', 'sentinel', 'cluster'] as const

export type ConfigFlags = { host?: string; port?: string; data?: string; workers?: string; database_url?: string; redis_url?: string }

export type Variable = {
  flag?: keyof ConfigFlags
  /** Takes the text of the variable; undefined when it is not set. */
  schema: z.ZodType
  /** For people: the kind of text it takes. */
  type: string
  unit?: 's' | 'bytes' | 'frames' | 'per second' | 'bytes per second' | 'per minute' | 'per hour'
  /** Never shown, neither in a log nor in an answer. */
  secret?: true
  /** A value for those without a default. */
  example?: string
  says: string
}

export const VARIABLES = {
  SEALPOST_HOST: {
    flag: 'host',
    schema: host().default('127.0.0.1'),
    type: 'address or host name',
    says: 'Address to listen on.',
  },
  SEALPOST_PORT: {
    flag: 'port',
    schema: whole(0, 65_535).default(8787),
    type: 'whole number',
    says: 'Port to listen on; 0 = any free one.',
  },
  SEALPOST_DATA: { flag: 'data', schema: z.string().default('./sealpost-data'), type: 'path', says: 'Data folder.' },
  SEALPOST_WORKERS: {
    flag: 'workers',
    schema: whole(1, 256).default(1),
    type: 'whole number',
    says: 'Processes that serve, over one data folder and one database; one per core is enough. 1 = the relay is one process (docs/operations/workers.md).',
  },
  DATABASE_URL: {
    flag: 'database_url',
    schema: databaseUrl().nullable().default(null),
    type: 'URL',
    secret: true,
    example: 'postgresql://user:password@host:5432/database?sslmode=verify-full',
    says: 'External PostgreSQL 14 to 18; without it an embedded one in the data folder. On another machine it says its sslmode: verify-full, or disable where the network is trusted.',
  },
  REDIS_URL: {
    flag: 'redis_url',
    schema: redisUrls().default([]),
    type: 'URL, or several with commas between',
    secret: true,
    example: 'rediss://user:password@host:6379',
    says: 'Redis, by which several nodes hear of each other at once; without it they find everything in the database, within 5 s. Of Sentinel or a Cluster the URLs of several servers. On another machine it is rediss:, or says ?tls=disable where the network is trusted.',
  },
  SEALPOST_REDIS_MODE: {
    schema: oneOf(REDIS_MODES).default('standalone'),
    type: REDIS_MODES.join(' · '),
    says: 'What REDIS_URL names: one server, sentinels, or servers of a Cluster.',
  },
  SEALPOST_REDIS_MASTER: {
    schema: z.string().default('mymaster'),
    type: 'name',
    says: 'The name by which the sentinels know the master.',
  },
  SEALPOST_REDIS_SENTINEL_PASSWORD: {
    schema: z.string().nullable().default(null),
    type: 'text',
    secret: true,
    example: 'password',
    says: 'Password of the sentinels; that of the servers they watch is in REDIS_URL.',
  },
  SEALPOST_SIGNUP: { schema: oneOf(SIGNUP).default('open'), type: SIGNUP.join(' · '), says: 'Who may create accounts.' },
  SEALPOST_PUBLIC_URL: {
    schema: publicUrl().nullable().default(null),
    type: 'URL',
    example: 'https://relay.example',
    says: 'URL that devices connect to, when it is not the address listened on: https, or http on this machine alone.',
  },
  SEALPOST_SECRETS_FILE: {
    schema: z.string().nullable().default(null),
    type: 'path',
    example: './sealpost-data/secrets.json',
    says: 'File with the secrets of the relay; made when missing. Without it: `secrets.json` in the data folder.',
  },
  SEALPOST_ORIGINS: {
    schema: origins().default([]),
    type: 'list of origins',
    example: 'https://app.example',
    says: 'Origins of web pages that may connect, with commas between.',
  },
  SEALPOST_TRUSTED_PROXIES: {
    schema: networks().default([]),
    type: 'list of addresses or networks',
    example: '10.0.0.0/8',
    says: 'Proxies whose X-Forwarded-For is believed, with commas between. No other header says where a request comes from: Forwarded and X-Real-IP are not read.',
  },
  SEALPOST_DOCS: {
    schema: oneOf(SWITCH).default('on'),
    type: SWITCH.join(' · '),
    says: 'Whether /docs, /openapi.json and /asyncapi.json are served.',
  },
  SEALPOST_ADMIN: {
    schema: oneOf(SWITCH).default('on'),
    type: SWITCH.join(' · '),
    says: 'Whether there is a listener for admins.',
  },
  SEALPOST_ADMIN_HOST: {
    schema: host().default('127.0.0.1'),
    type: 'address',
    says: 'Address of the listener for admins. It has no TLS of its own: outside this machine it belongs behind a TLS proxy in a private network.',
  },
  SEALPOST_ADMIN_PORT: {
    schema: whole(0, 65_535).nullable().default(null),
    type: 'whole number',
    example: '8788',
    says: 'Port of the listener for admins; without it the one after SEALPOST_PORT. 0 = any free one.',
  },
  SEALPOST_LOG_LEVEL: {
    schema: oneOf(LOG_LEVELS).default('info'),
    type: LOG_LEVELS.join(' · '),
    says: 'What is logged. A failure that comes again is written once and then counted.',
  },
  SEALPOST_CLOCK_SKEW_S: {
    schema: whole(0, 86_400).default(LIMITS.clockSkewMs / 1000),
    type: 'whole number',
    unit: 's',
    says: 'Tolerance for clocks of devices.',
  },
  SEALPOST_REKEY_AFTER_S: {
    schema: whole(1, 86_400).default(LIMITS.rekeyAfterMs / 1000),
    type: 'whole number',
    unit: 's',
    says: 'Age of session keys.',
  },
  SEALPOST_REKEY_AFTER_FRAMES: {
    schema: whole(16, 2 ** 32).default(LIMITS.rekeyAfterFrames),
    type: 'whole number',
    unit: 'frames',
    says: 'Frames under one session key.',
  },
  SEALPOST_STOP_S: { schema: whole(1, 3600).default(20), type: 'whole number', unit: 's', says: 'Longest time of a stop.' },
  SEALPOST_DRAIN_NOTICE_S: {
    schema: whole(0, 3600).default(0),
    type: 'whole number',
    unit: 's',
    says: 'How long a relay that stops goes on as ever while /readyz says 503, so that load balancers send it nothing more before its sockets are closed (docs/operations/load-balancer.md).',
  },
  SEALPOST_DRAIN_SPREAD_S: {
    schema: whole(0, 3600).default(RELAY_LIMITS.drainSpreadMs / 1000),
    type: 'whole number',
    unit: 's',
    says: 'Time over which a relay that stops closes its sockets, a few at a time; less when SEALPOST_STOP_S leaves less. A few sockets are closed at once.',
  },
  SEALPOST_DATABASE_WAIT_S: {
    schema: whole(0, 3600).default(30),
    type: 'whole number',
    unit: 's',
    says: 'How long a start waits for an external database.',
  },
  SEALPOST_DATABASE_POOLER: {
    schema: oneOf(POOLERS).default('off'),
    type: POOLERS.join(' · '),
    says: 'Whether DATABASE_URL leads to a pooler like pgbouncer, and for how long it lends a connection of PostgreSQL: `session` or `transaction` (docs/operations/pooler.md).',
  },
  SEALPOST_QUOTA_BYTES: {
    schema: whole(0, MAX).default(10 * 2 ** 30),
    type: 'whole number',
    unit: 'bytes',
    says: 'Stored bytes of one user from which nothing more is taken (quota_exceeded); 0 = no quota. Judged before a batch, so it may be passed by one batch.',
  },
  SEALPOST_QUOTA_DEVICES: {
    schema: whole(1, LIMITS.devicesPerUserMax).default(LIMITS.devicesPerUserMax),
    type: 'whole number',
    says: 'Active devices of one user, above which none is added.',
  },
  SEALPOST_QUOTA_STREAMS: {
    schema: whole(1, 1_000_000).default(LIMITS.streamsPerUserMax),
    type: 'whole number',
    says: 'Streams of one user, above which an event of a new one is not taken (too_many_streams).',
  },
  SEALPOST_RETENTION_S: {
    schema: whole(0, SECONDS_MAX).default(0),
    type: 'whole number',
    unit: 's',
    says: 'Events that were received longer ago are removed, oldest first; 0 = kept.',
  },
  SEALPOST_RETENTION_BYTES: {
    schema: whole(0, MAX).default(0),
    type: 'whole number',
    unit: 'bytes',
    says: 'Stored bytes of all users together; above it the largest accounts lose their oldest events first. 0 = no bound.',
  },
  SEALPOST_RETENTION_STREAM_BYTES: {
    schema: whole(0, MAX).default(0),
    type: 'whole number',
    unit: 'bytes',
    says: 'Stored bytes of one stream of a user; above it the oldest become tombstones. 0 = no bound.',
  },
  SEALPOST_RETENTION_STREAMS: {
    schema: streamAges().default(new Map()),
    type: 'list of stream=seconds',
    example: 'presence=3600,log=604800',
    says: 'Ages of named streams from which their events become tombstones, with commas between.',
  },
  SEALPOST_RETENTION_TOMBSTONES_S: {
    schema: whole(0, SECONDS_MAX).default(90 * 86_400),
    type: 'whole number',
    unit: 's',
    says: 'Tombstones that were received longer ago are removed where no whole event stands before them; 0 = kept.',
  },
  SEALPOST_RETENTION_AUDIT_S: {
    schema: whole(0, SECONDS_MAX).default(400 * 86_400),
    type: 'whole number',
    unit: 's',
    says: 'Rows of the audit log are removed so long after the checkpoint behind them was signed; 0 = kept.',
  },
  SEALPOST_RETENTION_REVOKED_S: {
    schema: whole(0, SECONDS_MAX).default(30 * 86_400),
    type: 'whole number',
    unit: 's',
    says: 'How long after its revocation the boxes of a device and its last activity are kept; 0 = for ever. Its entries in the log stay.',
  },
  ...rateVariables(),
  SEALPOST_LIMIT_SOCKETS_ADDRESS: {
    schema: whole(1, COUNT_MAX).default(LIMITS.socketsPerAddressMax),
    type: 'whole number',
    says: 'Limit of each address: sockets that are open, and streams that are followed over REST.',
  },
  SEALPOST_LIMIT_UNAUTHENTICATED_ADDRESS: {
    schema: whole(1, COUNT_MAX).default(LIMITS.unauthenticatedPerAddressMax),
    type: 'whole number',
    says: 'Limit of each address: sockets that are open and have not proved a device.',
  },
  SEALPOST_LIMIT_HANDSHAKES: {
    schema: whole(1, COUNT_MAX).default(RELAY_LIMITS.handshakesPerSecond),
    type: 'whole number',
    unit: 'per second',
    says: 'Limit of each process: connections that it takes; above it they are sent away for a while (overloaded).',
  },
  SEALPOST_LIMIT_FOLLOWERS_DEVICE: {
    schema: whole(1, COUNT_MAX).default(RELAY_LIMITS.followersPerDeviceMax),
    type: 'whole number',
    says: 'Limit of each device: streams that are followed over REST.',
  },
  SEALPOST_LIMIT_EVENTS_DEVICE: {
    schema: whole(1, COUNT_MAX).default(LIMITS.eventsPerDevicePerSecond),
    type: 'whole number',
    unit: 'per second',
    says: `Limit of each device: events that it sends, ${LIMITS.burstSeconds} seconds of it at once. Above it a socket is read later.`,
  },
  SEALPOST_LIMIT_BYTES_DEVICE: {
    // a message of the greatest size holds a device up for seconds and not for hours
    schema: whole(65_536, MAX).default(LIMITS.bytesPerDevicePerSecond),
    type: 'whole number',
    unit: 'bytes per second',
    says: 'Limit of each device: bytes of the events that it sends, in the same way.',
  },
  SEALPOST_LIMIT_EVENTS_USER: {
    schema: whole(1, COUNT_MAX).default(LIMITS.eventsPerUserPerMinute),
    type: 'whole number',
    unit: 'per minute',
    says: 'Limit of each user: events that its devices send.',
  },
  SEALPOST_LIMIT_QUEUE_BYTES: {
    // what one session may have in flight fits
    schema: whole(LIMITS.inflightBytesMax, MAX).default(LIMITS.queueBytesMax),
    type: 'whole number',
    unit: 'bytes',
    says: 'What waits in the process for the database, and as much for the peers; near it new work is sent away (overloaded).',
  },
} as const satisfies Record<string, Variable>

function whole(min: number, max: number) {
  const message = `expected a whole number from ${min} to ${max}`
  return z
    .string()
    .regex(/^\d{1,16}$/, message)
    .transform(Number)
    .refine((value) => value >= min && value <= max, message)
}

function oneOf<const T extends readonly [string, ...string[]]>(values: T) {
  return z.enum(values, `expected one of ${values.join(', ')}`)
}

/** One variable for each rate. */
function rateVariables(): {
  [R in RateRule as ReturnType<typeof rateVariable<R>>]: Variable & { schema: z.ZodDefault<ReturnType<typeof whole>> }
} {
  const rows = Object.entries(RATES).map(([rule, { per, points, duration, says }]) => [
    rateVariable(rule as RateRule),
    {
      schema: whole(1, COUNT_MAX).default(points),
      type: 'whole number',
      unit: duration === 60 ? 'per minute' : 'per hour',
      says: `Limit of each ${per}: ${says}.`,
    },
  ])
  return Object.fromEntries(rows)
}

function streamAges() {
  const message = 'expected stream=seconds, with commas between, each stream once'
  return z
    .string()
    .transform((text) => text.split(',').map((part) => part.trim().split('=')))
    .refine(
      (parts) =>
        parts.every(([stream = '', age = '', ...rest]) => rest.length === 0 && LABEL.test(stream) && /^[1-9]\d{0,9}$/.test(age)) &&
        new Set(parts.map(([stream]) => stream)).size === parts.length,
      message,
    )
    .transform((parts): ReadonlyMap<string, number> => new Map(parts.map(([stream = '', age]) => [stream, Number(age)])))
}

/** An address as it is written, or a name in its one spelling. */
function host() {
  const message = 'expected an address like 127.0.0.1 or ::1, or a host name, without a port'
  return z.string().transform((text, context) => {
    const taken = isIP(text) === 0 ? toHostName(text) : text
    if (taken !== null) return taken
    context.addIssue({ code: 'custom', message })
    return z.NEVER
  })
}

function databaseUrl() {
  const message = 'expected postgresql://user:password@host:port/database'
  const over =
    'a database on another machine is reached over TLS: add ?sslmode=verify-full, or ?sslmode=disable where the network is trusted'
  return z
    .string()
    .refine((text) => /^postgres(ql)?:\/\//.test(text) && URL.canParse(text), { message, abort: true })
    .refine((text) => isOnThisMachine(new URL(text)) || SSL_MODES.has(new URL(text).searchParams.get('sslmode') ?? ''), over)
}

/** Those that leave nothing open: `prefer` and `allow` do without TLS when they are told to by whoever is in between. */
const SSL_MODES: ReadonlySet<string> = new Set(['disable', 'require', 'verify-ca', 'verify-full'])

function redisUrls() {
  const message = 'expected redis://host:port or rediss://host:port, several with commas between'
  const over = 'a Redis on another machine is reached over TLS: rediss://, or redis:// with ?tls=disable where the network is trusted'
  return z
    .string()
    .transform((text) => text.split(',').map((url) => url.trim()))
    .refine((urls) => urls.every(isRedisUrl), { message, abort: true })
    .refine((urls) => urls.map((url) => new URL(url)).every((url) => isEncrypted(url) || isOnThisMachine(url)), over)
}

function isRedisUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname, pathname, searchParams, hash } = new URL(text)
  const known = [...searchParams.keys()].every((name) => name === 'tls')
  return /^rediss?:$/.test(protocol) && hostname !== '' && /^\/?\d{0,3}$/.test(pathname) && known && hash === ''
}

function isEncrypted({ protocol, searchParams }: URL): boolean {
  return protocol === 'rediss:' || searchParams.get('tls') === 'disable'
}

function isOnThisMachine({ hostname, searchParams }: URL): boolean {
  const host = searchParams.get('host') ?? decodeURIComponent(hostname)
  return host === '' || host.startsWith('/') || isLoopback(host)
}

/** What `sealpost init` takes, without the key, which the relay adds itself. */
function publicUrl() {
  return z.string().transform((text, context) =>
    parsed(context, () => {
      const { url, pin } = parseServerUrl(text)
      if (pin === null) return url
      throw new SealpostError('invalid_request', 'the key of the relay does not belong here', { hint: 'leave out what begins with #' })
    }),
  )
}

function origins() {
  return z.string().transform((text, context) => parsed(context, () => text.split(',').map(parseWebOrigin)))
}

/** A refusal becomes a mistake of the configuration: its reason, and what to write instead. */
function parsed<T>(context: z.RefinementCtx, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof SealpostError)) throw error
    context.addIssue({ code: 'custom', message: [error.message, error.hint].join('; ') })
    return z.NEVER
  }
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
