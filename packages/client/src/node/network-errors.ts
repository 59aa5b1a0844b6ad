/**
 * What a failed connection means to a person: the first cause in words, and what to do. REST (`http.ts`) and the socket
 * (`transport.ts`) fail with the same errors of the system, of TLS and of proxies, so both ask here.
 *
 * Sources: codes of system calls (errno(3)), `getaddrinfo(3)`, X.509 verification (`X509_V_ERR_…` of OpenSSL), undici, ws.
 */
import { SealpostError } from '@sealpost/protocol'

type Row = { says: string; hint: string }

const ADDRESS = 'check the address of the server'
const NETWORK = 'check the network of this machine, and the address of the server'
const ISSUER: Row = {
  says: 'its certificate is signed by an authority that this machine does not know',
  hint: 'if it is your own authority, name its certificate in NODE_EXTRA_CA_CERTS=FILE; else do not trust this connection',
}
const EXPIRED_HINT = 'check the clock of this machine; if it is right, whoever runs the server has to renew the certificate'
const NO_ROUTE: Row = { says: 'there is no way to it in the network', hint: NETWORK }
const LATE: Row = { says: 'it does not answer', hint: NETWORK }
const BROKEN: Row = { says: 'the connection was broken off', hint: 'try again; if it comes back, check the server and proxies before it' }
const NO_TLS: Row = { says: 'what answers there does not speak TLS', hint: 'check the port of the address, and that https is right there' }
const OLD_TLS: Row = {
  says: 'it speaks no version of TLS that this machine accepts',
  hint: 'whoever runs the server has to allow TLS 1.2 or 1.3',
}
const NO_HTTP: Row = { says: 'what answers there does not speak HTTP', hint: 'check the port of the address' }
const PROXY: Row = { says: 'the proxy refused the connection', hint: 'check HTTPS_PROXY, HTTP_PROXY and NO_PROXY' }

const ROWS: Readonly<Record<string, Row>> = {
  ENOTFOUND: { says: 'its name is not known in the DNS', hint: ADDRESS },
  EAI_AGAIN: { says: 'no name server answers', hint: NETWORK },
  ECONNREFUSED: { says: 'nothing listens there', hint: 'check that the server runs, its port, and the proxy if one is set' },
  EHOSTUNREACH: NO_ROUTE,
  ENETUNREACH: NO_ROUTE,
  ENETDOWN: NO_ROUTE,
  EADDRNOTAVAIL: NO_ROUTE,
  ETIMEDOUT: LATE,
  UND_ERR_CONNECT_TIMEOUT: LATE,
  UND_ERR_HEADERS_TIMEOUT: LATE,
  ECONNRESET: BROKEN,
  ECONNABORTED: BROKEN,
  EPIPE: BROKEN,
  UND_ERR_SOCKET: BROKEN,
  CERT_HAS_EXPIRED: { says: 'its certificate has expired', hint: EXPIRED_HINT },
  CERT_NOT_YET_VALID: { says: 'its certificate is not valid yet', hint: EXPIRED_HINT },
  CERT_REVOKED: { says: 'its certificate was revoked', hint: 'do not trust this connection; ask who runs the server' },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    says: 'its certificate is for another name',
    hint: `${ADDRESS}: it has to be a name that the certificate holds`,
  },
  DEPTH_ZERO_SELF_SIGNED_CERT: { ...ISSUER, says: 'its certificate is signed by itself' },
  SELF_SIGNED_CERT_IN_CHAIN: ISSUER,
  UNABLE_TO_GET_ISSUER_CERT: ISSUER,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: ISSUER,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: { ...ISSUER, says: `${ISSUER.says}, or its chain is not whole` },
  EPROTO: NO_TLS,
  ERR_SSL_WRONG_VERSION_NUMBER: NO_TLS,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: NO_TLS,
  ERR_SSL_HTTP_REQUEST: NO_TLS,
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: OLD_TLS,
  HPE: NO_HTTP,
  Z: { says: 'the answer is damaged', hint: BROKEN.hint },
  ERR_SSL_UNSUPPORTED_PROTOCOL: OLD_TLS,
  ERR_TLS_PROTOCOL_VERSION_CONFLICT: OLD_TLS,
  ERR_PROXY_TUNNEL: PROXY,
  // what undici says of a tunnel that was refused; an end by the caller is told apart before
  UND_ERR_ABORTED: PROXY,
  ERR_PROXY_INVALID_CONFIG: PROXY,
}

/** How far causes and parts of errors are followed. */
const DEPTH_MAX = 8

/**
 * The first cause that has a row, as an `unreachable` whose message is a part of a sentence: "nothing listens there". An error that says so
 * already is returned as it is; undefined where no cause is known.
 *
 * @example networkError(new TypeError('fetch failed', { cause: refused }))?.message // 'nothing listens there'
 */
export function networkError(error: unknown): SealpostError | undefined {
  if (error instanceof SealpostError) return error.code === 'unreachable' ? error : undefined
  const found = findRow(error, 0)
  return found && new SealpostError('unreachable', found.says, { cause: error, hint: found.hint })
}

function findRow(error: unknown, depth: number): Row | undefined {
  if (!(error instanceof Error) || depth > DEPTH_MAX) return undefined
  const code = codeOf(error)
  const row = code === undefined ? undefined : ROWS[code]
  if (row !== undefined) return row
  // one part for each address of a name that was tried
  const parts: unknown[] = error instanceof AggregateError ? error.errors : []
  for (const inner of [error.cause, ...parts]) {
    const found = findRow(inner, depth + 1)
    if (found !== undefined) return found
  }
  return undefined
}

function codeOf(error: Error): string | undefined {
  // ws gives it no code
  if (error.message === 'Opening handshake has timed out') return 'ETIMEDOUT'
  // an answer that is no HTTP: llhttp has many codes for it, undici a name
  if (error.name === 'HTTPParserError') return 'HPE'
  if (!('code' in error) || typeof error.code !== 'string') return undefined
  // a body that does not unpack: zlib has many codes for it
  return /^(HPE|Z)_/.exec(error.code)?.[1] ?? error.code
}
