/**
 * THE list of what a PostgreSQL, or the way to it, can refuse: what happened, and what to do. `serve` and `doctor` both speak by it.
 *
 * No sentence holds what PostgreSQL or the driver says, nor anything of DATABASE_URL but the names that are given (`Names`).
 * Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html, those of Node, and where the driver has none its message.
 */
import { type ErrorCode, SealpostError } from '@sealpost/protocol'
import { Client, type ClientConfig, DatabaseError, escapeIdentifier } from 'pg'

export type Refusal = {
  /** As the start of a relay ends by it. */
  code: ErrorCode
  says: string
  advice: string
}

/** As they are in SQL. */
export type Names = { role: string; database: string; schema: string }

const UNNAMED: Names = { role: '<user of DATABASE_URL>', database: '<database of DATABASE_URL>', schema: 'public' }

function quoteNames(names: Names): Names {
  return { role: escapeIdentifier(names.role), database: escapeIdentifier(names.database), schema: escapeIdentifier(names.schema) }
}

type Row = (names: Names) => Refusal

/** Nobody answers, or not now: it may come back by itself. */
const away =
  (says: string, advice: string): Row =>
  () => ({ code: 'unreachable', says, advice })
/** It answers, and has no room or time. */
const busy =
  (says: string, advice: string): Row =>
  () => ({ code: 'unavailable', says, advice })
/** It stays so until somebody changes something. */
const wrong =
  (says: string, advice: string | ((names: Names) => string)): Row =>
  (names) => ({ code: 'invalid_config', says, advice: typeof advice === 'string' ? advice : advice(names) })

const HOST = 'check that it runs, and host and port of DATABASE_URL'
const NO_ANSWER = away('no answer in time', `${HOST}, and that no firewall is between`)
const NO_WAY = away('no network leads to its host', 'check the network of this machine, and the host of DATABASE_URL')
const CUT = away('it hung up', `look at its log; ${HOST}`)
const ENDED = away('it was shut down while it was asked', 'try again when it runs')
const UNKNOWN_CA = wrong(
  'its certificate is of an authority that is not known here',
  'name the certificate of that authority in DATABASE_URL: sslmode=verify-full&sslrootcert=/path/to/ca.pem',
)
const NO_COMMON_TLS = wrong(
  'TLS failed: nothing in common, or what listens there is no PostgreSQL',
  `check host and port of DATABASE_URL, and ssl_min_protocol_version of the server`,
)
const NO_SCHEMA = wrong(
  'the user has no schema in which it may make tables',
  ({ role, schema }) => `as the owner of the database run: GRANT USAGE, CREATE ON SCHEMA ${schema} TO ${role}`,
)
const DISK_FULL = busy('the disk of the database is full', 'make room there; nothing that was acknowledged is lost')

const ROWS: Readonly<Record<string, Row>> = {
  // ---------------------------------------------------------------- the way to it
  ECONNREFUSED: away('connection refused', HOST),
  ECONNRESET: CUT,
  EPIPE: CUT,
  'Connection terminated unexpectedly': CUT,
  ENOTFOUND: away('host not found', 'check the host of DATABASE_URL, and the name server of this machine'),
  EAI_AGAIN: away('the name server does not answer', 'check the name server of this machine'),
  EHOSTUNREACH: NO_WAY,
  ENETUNREACH: NO_WAY,
  ETIMEDOUT: NO_ANSWER,
  'timeout expired': NO_ANSWER,
  'Connection terminated due to connection timeout': NO_ANSWER,
  ENOENT: away('no such socket', 'check that it runs, and the folder of its socket in DATABASE_URL'),
  EACCES: wrong('this user may not use its socket', 'check the rights of the folder and of the socket'),
  'ENOENT open': wrong('a file that DATABASE_URL names is not there', 'check sslrootcert, sslcert and sslkey'),
  'EACCES open': wrong('a file that DATABASE_URL names cannot be read', 'check the rights of the files of sslrootcert, sslcert and sslkey'),

  // ---------------------------------------------------------------- TLS
  'The server does not support SSL connections': wrong(
    'it has no TLS',
    'turn it on in postgresql.conf (ssl = on); or, where nobody can listen on the way, write sslmode=disable in DATABASE_URL',
  ),
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_CA,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_CA,
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_CA,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_CA,
  DEPTH_ZERO_SELF_SIGNED_CERT: wrong(
    'its certificate is signed by itself',
    'copy that certificate here and name it in DATABASE_URL: sslmode=verify-full&sslrootcert=/path/to/server.pem',
  ),
  ERR_TLS_CERT_ALTNAME_INVALID: wrong(
    'its certificate is for another host',
    'write a host in DATABASE_URL that the certificate names, or give the server a certificate for this one',
  ),
  CERT_HAS_EXPIRED: wrong('its certificate has expired', 'renew it on the server of the database, and check the clock of this machine'),
  CERT_NOT_YET_VALID: wrong('its certificate is not valid yet', 'check the clocks of this machine and of the server'),
  CERT_REVOKED: wrong('its certificate was revoked', 'renew it on the server of the database'),
  EPROTO: NO_COMMON_TLS,
  ERR_SSL: NO_COMMON_TLS,

  // ---------------------------------------------------------------- the door
  '28P01': wrong('wrong user or password', 'check both in DATABASE_URL; letters like @ : / # % in a password are written as %40 and so on'),
  'SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be': wrong(
    'it asks for a password, and DATABASE_URL has none',
    'write postgresql://user:password@host/database',
  ),
  '28000': wrong('it lets this user or this machine not in', 'check the user of DATABASE_URL and pg_hba.conf of the server'),
  '28000 ClientAuthentication': wrong(
    'its pg_hba.conf lets this user not into this database from here',
    ({ role, database }) =>
      `add a line for ${role}, ${database} and the address of this machine, and reload; where its lines are hostssl, write sslmode=verify-full in DATABASE_URL`,
  ),
  '28000 InitializeSessionUserId': wrong(
    'there is no such user, or it may not log in',
    ({ role }) => `check the user of DATABASE_URL; if it is there, run: ALTER ROLE ${role} LOGIN`,
  ),
  '3D000': wrong(
    'no such database',
    ({ database }) => `check the name in DATABASE_URL, or run: CREATE DATABASE ${database} ENCODING 'UTF8' TEMPLATE template0`,
  ),
  '42501 CheckMyDatabase': wrong(
    'the user may not connect to the database',
    ({ role, database }) => `run: GRANT CONNECT ON DATABASE ${database} TO ${role}`,
  ),
  '55000 CheckMyDatabase': away('the database takes no connections', 'run: ALTER DATABASE … ALLOW_CONNECTIONS true'),
  '53300': busy(
    'too many connections',
    'raise max_connections of the server, or the limit of the user or the database; a relay opens 12 for each of its processes',
  ),
  '57P03': away('it is starting up or shutting down', 'wait until it is done; its log says more'),
  '57P01': ENDED,
  '57P02': ENDED,
  '57P05': ENDED,
  '08P01': wrong(
    'it speaks another protocol, or a pooler refused',
    'check host and port of DATABASE_URL, and the log of the pooler (docs/operations/pooler.md)',
  ),
  '08': CUT,

  // ---------------------------------------------------------------- statements
  '42501': wrong(
    'the user may not use the tables of the relay',
    ({ role }) => `let it own them; as a superuser run: REASSIGN OWNED BY <their owner> TO ${role}`,
  ),
  '42501 create': NO_SCHEMA,
  '3F000': NO_SCHEMA,
  '25006': wrong(
    'it takes no writes: a replica, or default_transaction_read_only is on',
    ({ role }) =>
      `give the primary in DATABASE_URL; or run: ALTER ROLE ${role} RESET default_transaction_read_only, or the same for the database`,
  ),
  '53100': DISK_FULL,
  '53': busy('it has no memory or other means left', 'look at its log, and give it more'),
  '55P03': busy('another session holds a lock for too long', 'look who in pg_stat_activity, end it, and start again'),
  '40': busy('it took the transaction back in favour of another', 'try again'),
  '57014': wrong(
    'a timeout of the database cut a statement off',
    ({ role }) => `run: ALTER ROLE ${role} RESET statement_timeout, or the same for the database; the relay sets timeouts of its own`,
  ),
  '25P03': wrong(
    'a timeout of the database cut a transaction off',
    ({ role }) => `run: ALTER ROLE ${role} RESET idle_in_transaction_session_timeout, or the same for the database`,
  ),
  '57': ENDED,
  '58': busy('its files or its disk fail', 'look at the log of the database and at its disk'),
  XX001: wrong('it found a damaged table', 'look at its log and at its disk; put a backup back'),
  XX002: wrong('it found a damaged index', 'look at its log and at its disk; run REINDEX, or put a backup back'),
}

/** What `doctor` finds before a start does. */
export const MAY_NOT_CREATE = NO_SCHEMA(UNNAMED)

/** `creating`: the user may not make what is missing. */
export function explainRefusal(error: unknown, given?: Names, creating = false): Refusal {
  const { code = '', message = '', syscall = '' } = error as { code?: string; message?: string; syscall?: string }
  const { routine = '' } = error instanceof DatabaseError ? error : {}
  const names = given === undefined ? UNNAMED : quoteNames(given)
  const keys = [
    ...(creating ? [`${code} create`] : []),
    `${code} ${routine}`,
    `${code} ${syscall}`,
    code,
    message,
    ...(code.startsWith('ERR_SSL') ? ['ERR_SSL'] : []),
    // the class of a code
    ...(error instanceof DatabaseError ? [code.slice(0, 2)] : []),
    message.replace(/ a .*/, ''),
  ]
  const key = keys.find((one) => Object.hasOwn(ROWS, one))
  const row = key === undefined ? undefined : ROWS[key]
  if (row !== undefined) return row(names)
  if (error instanceof DatabaseError)
    return {
      code: 'internal',
      says: `it refused a statement with the code ${code}`,
      advice: 'look at its log; if nothing there explains it, report it',
    }
  return { code: 'unreachable', says: `no connection (${code === '' ? 'no reason given' : code})`, advice: HOST }
}

/** Why a relay does not start. `database`: which one it is. */
export function startRefused(error: unknown, database: string, names?: Names, creating?: boolean): SealpostError {
  const { code, says, advice } = explainRefusal(error, names, creating)
  return new SealpostError(code, `${database} cannot be used: ${says}; ${advice}`, { cause: error })
}

/** Of a connection that is not made; undefined when what it is made of cannot be read. */
export function namesOf(connection: ClientConfig): Names | undefined {
  try {
    const { user = '', database = '' } = new Client(connection)
    return { role: user, database, schema: 'public' }
  } catch {
    return undefined
  }
}
