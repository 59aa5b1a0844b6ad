/**
 * What is known of a deployment when it is judged. Gathered once (`look-*.ts`), and then every check is a pure function of it. Nothing
 * secret is here: of the secrets the public key alone, of the URLs of database and Redis nothing.
 */
import type { Bytes } from '@sealpost/protocol'
import type { RedisConfig } from '../bus/redis-link.ts'
import type { Config } from '../config/config.ts'

/** What was not looked at says why. */
export type Seen<T> = { seen: T } | { unseen: string }

export type Facts = {
  config: Seen<Config>
  /** Of the configuration, one sentence each. */
  mistakes: readonly string[]
  /** The clock of this machine, ms. */
  now: number
  machine: Machine
  folder: Seen<Folder>
  secrets: Seen<SecretsFile>
  database: Seen<Database>
  redis: Seen<RedisServers>
  port: Seen<Port>
  admin_port: Seen<AdminPort>
  public_url: Seen<PublicUrl>
}

export type Machine = {
  node: { version: string; wanted: string }
  /** Null where the system does not tell. */
  open_files: number | null
  /** What this process may use: of the machine, or of its container. */
  memory_bytes: number
  /** The user who asks; null on Windows. */
  uid: number | null
}

export type Folder = { path: string } & (
  | { is: 'missing' }
  | { is: 'unusable'; reason: string }
  | {
      is: 'there'
      mode: number
      owner: number
      /** Of the embedded PostgreSQL; null when there is none. */
      postgres_owner: number | null
      disk: Disk
    }
)

/** For all but the superuser. A file system that counts no inodes has 0 of them. */
export type Disk = { free_bytes: number; total_bytes: number; free_inodes: number; total_inodes: number }

export type SecretsFile = { path: string } & (
  | { is: 'missing' }
  /** Others can read it. */
  | { is: 'open' }
  | { is: 'damaged' }
  | { is: 'unreadable' }
  | { is: 'read'; owner: number; server_key: Bytes }
)

export type Database =
  /** The embedded one, which runs with its relay alone. */
  { is: 'asleep' } | { is: 'unreachable'; external: boolean; reason: string; advice: string } | ({ is: 'reached' } & ReachedDatabase)

export type ReachedDatabase = {
  external: boolean
  /** As this machine sees it. `verified`: the driver checks the certificate. */
  link: { over: 'socket' | 'loopback' | 'network'; tls: 'none' | 'unverified' | 'verified' }
  /** The version of TLS as the server sees it, which may speak to a pooler; null = none. */
  server_tls: string | null
  round_trip_ms: number
  /** The database's clock minus this machine's; right to half a round trip. */
  clock_ahead_ms: number
  version: number
  encoding: string
  replica: boolean
  settings: Readonly<Record<SettingName, Setting | undefined>>
  role: Role
  /** In seconds, of what this user may see. */
  oldest_transaction_s: number
  prepared: { count: number; oldest_s: number }
  /** Somebody between answers for PostgreSQL. */
  pooled: boolean
  /** What the relay wrote there. */
  own: Seen<OwnTables>
}

/** `heard`: a message came back; `versions` are the major ones, of those that told. */
export type RedisServers = { mode: RedisConfig['mode']; over: 'loopback' | 'network'; tls: boolean } & (
  | { is: 'silent' }
  | { is: 'heard'; versions: readonly number[] }
)

export type OwnTables = {
  migrations: readonly number[]
  functions: readonly { name: string; sha256: string | null; version: number }[]
  /** SHA-256 of the key that claimed the database; null before the first start. */
  server_key_hash: Bytes | null
  /** Null where the database does not know admins yet. */
  owners: number | null
  /** Null where there is no audit log yet. */
  audit: 'whole' | 'broken' | null
  /** As an operator set it while the relay ran; null = as configured. */
  signup: string | null
}

/** Settings of PostgreSQL as a new connection of the relay's user finds them. */
export const SETTING_NAMES = [
  'fsync',
  'full_page_writes',
  'synchronous_commit',
  'wal_level',
  'max_connections',
  'superuser_reserved_connections',
  'reserved_connections',
  'statement_timeout',
  'lock_timeout',
  'transaction_timeout',
  'idle_session_timeout',
  'autovacuum',
  'track_counts',
  'data_checksums',
  'default_transaction_read_only',
] as const
export type SettingName = (typeof SETTING_NAMES)[number]

/** `source`: `database`, `user`, `configuration file` … */
export type Setting = { value: string; source: string }

export type Role = {
  superuser: boolean
  /** −1 = no limit. */
  role_connections: number
  database_connections: number
  /** Connections of others, to the whole server. */
  other_connections: number
  may_create: boolean
  /** Null before the first migration. */
  may_write: boolean | null
}

export type Port = { at: string } & (
  | { is: 'relay'; ready: boolean; server_key: Bytes }
  | { is: 'other'; reason: string }
  | { is: 'silent' }
  | { is: 'no_address' }
)

/** `reached`: addresses of this machine other than loopback at which the port answers. */
export type AdminPort = { host: string; port: number; reached: readonly string[] }

export type PublicUrl = {
  url: string
  /** Null over plain HTTP. */
  tls: Tls | { failed: string } | null
  answer: { status: number; server_key: Bytes | null } | { failed: string }
  /** Null: the socket opened, and the subprotocol was agreed on. */
  socket_failed: string | null
}

export type Tls = {
  version: string
  /** A version older than 1.2 that is taken too. */
  old_version: string | null
  /** Of the certificate; null = it stands. */
  refused: string | null
  valid_to_ms: number
}
