/**
 * The REST calls of a client (protocol.md §10): first contact and the chain of server keys, the device log without a socket,
 * tokens, and the pairing mailbox. An answer is checked before it is used; a problem (RFC 9457) becomes a SealpostError.
 */
import {
  type Bytes,
  type Crypto,
  check,
  concat,
  ERROR,
  type ErrorCode,
  equalBytes,
  fromBase64url,
  LIMITS,
  type PairingSlot,
  parseJson,
  ROUTES,
  type RouteName,
  routePath,
  retryAfterMs,
  type Of,
  type Shape,
  SealpostError,
  type SignedObject,
  tuple,
  utf8,
  type WireEntry,
} from '@sealpost/protocol'
import { describeAnswer, foreignAnswer } from '../failure.ts'
import type { Http, HttpRequest, HttpResponse } from '../ports.ts'

const TIMEOUT_MS = 20_000
/** A deletion takes as long as the account is large; so long the relay gives it at most. */
const DELETION_MS = 600_000
const SPARE_MS = 10_000
const PROBLEM_BYTES_MAX = 65_536

const shapes = {
  server: {
    server_key: 'key',
    chain: { list: { object: { key: 'key', not_before: 'int', sig: 'sig' } }, max: 64 },
  },
  appended: { log_seq: 'u32', log_head: 'key' },
  entries: { entries: { list: { object: { body: 'b64', sig: 'sig', box: 'box|null' } }, max: 64 }, has_more: 'bool' },
  token: { access_token: 'text', expires_in: 'int' },
} as const

export type ServerIdentity = { server_key: Bytes; chain: { key: Bytes; not_before: number; sig: Bytes }[] }

export type LogPost = {
  body: string
  sig: string
  boxes: Record<string, string>
  proof: SignedObject
  invite?: string
  repair?: boolean
}

export type Rest = {
  readServer(signal?: AbortSignal): Promise<ServerIdentity>
  appendLog(post: LogPost, signal?: AbortSignal): Promise<{ log_seq: number; log_head: Bytes }>
  readLog(assertion: SignedObject, signal?: AbortSignal): Promise<{ entries: WireEntry[]; has_more: boolean }>
  createToken(assertion: SignedObject, signal?: AbortSignal): Promise<{ access_token: string; expires_in: number }>
  /** Rows per table. */
  deleteUser(assertion: SignedObject, signal?: AbortSignal): Promise<Record<string, number>>
  /** The lines of an export as they come (docs/export.md). */
  exportUser(token: string, signal?: AbortSignal): Promise<AsyncIterable<Bytes>>
  putSlot(mailbox_id: string, slot: PairingSlot, box: Bytes, token: string | null, signal?: AbortSignal): Promise<void>
  /** Null: still empty after `wait_s` seconds, or the mailbox is not there (any more). */
  readSlot(mailbox_id: string, slot: PairingSlot, wait_s: number, signal?: AbortSignal): Promise<Bytes | null>
}

type CallOptions = {
  params?: Record<string, string>
  query?: string
  json?: object
  bytes?: Bytes
  token?: string | null
  wait_ms?: number
  signal?: AbortSignal | undefined
}

/** `ending` aborts every call. */
export function createRest(http: Http, server_url: string, ending?: AbortSignal): Rest {
  const call = (name: RouteName, o: CallOptions): Promise<HttpResponse> => http.request(requestOf(name, o))

  function requestOf(name: RouteName, o: CallOptions): HttpRequest {
    const headers: Record<string, string> = { accept: 'application/json' }
    if (o.json !== undefined) headers['content-type'] = 'application/json'
    if (o.bytes !== undefined) headers['content-type'] = 'application/octet-stream'
    if (o.token !== undefined && o.token !== null) headers['authorization'] = `Bearer ${o.token}`
    const body = o.json === undefined ? o.bytes : utf8(JSON.stringify(o.json))
    const signals = [o.signal, ending].filter((signal) => signal !== undefined)
    return {
      method: ROUTES[name].method,
      url: `${server_url}${routePath(name, o.params)}${o.query ?? ''}`,
      headers,
      ...(body === undefined ? {} : { body }),
      timeout_ms: o.wait_ms ?? TIMEOUT_MS,
      ...(signals.length === 0 ? {} : { signal: AbortSignal.any(signals) }),
    }
  }

  return {
    async readServer(signal) {
      const answer = read(shapes.server, await call('read_server', { signal }), 'sealpost.json')
      return {
        server_key: fromBase64url(answer.server_key, 32),
        chain: answer.chain.map((link) => ({
          key: fromBase64url(link.key, 32),
          not_before: link.not_before,
          sig: fromBase64url(link.sig, 64),
        })),
      }
    },
    async appendLog(post, signal) {
      const answer = read(shapes.appended, await call('append_log', { json: post, signal }), 'log')
      return { log_seq: answer.log_seq, log_head: fromBase64url(answer.log_head, 32) }
    },
    async readLog(assertion, signal) {
      return read(shapes.entries, await call('read_log', { json: assertion, signal }), 'log entries')
    },
    async createToken(assertion, signal) {
      return read(shapes.token, await call('create_token', { json: assertion, signal }), 'token')
    },
    async deleteUser(assertion, signal) {
      return readCounts(json(await call('delete_user', { json: assertion, wait_ms: DELETION_MS + SPARE_MS, signal })))
    },
    async exportUser(token, signal) {
      const response = await http.stream(requestOf('export_user', { token, signal }))
      if (response.status < 200 || response.status >= 300) {
        const parts: Bytes[] = []
        let length = 0
        for await (const part of response.body) if ((length += part.length) <= PROBLEM_BYTES_MAX) parts.push(part)
        throw problemOf({ ...response, body: concat(...parts) })
      }
      expectMedia(response, 'application/x-ndjson')
      return response.body
    },
    async putSlot(mailbox_id, slot, box, token, signal) {
      const response = await call(`put_${slot}`, { params: { mailbox_id }, bytes: box, token, signal })
      expectOk(response)
      if (response.status !== 204) throw foreign(response)
    },
    async readSlot(mailbox_id, slot, wait_s, signal) {
      const response = await call('read_slot', {
        params: { mailbox_id, slot },
        query: `?wait=${wait_s}`,
        wait_ms: wait_s * 1000 + SPARE_MS,
        signal,
      })
      if (response.status === 204 || (response.status === 404 && readProblem(response).code !== null)) return null
      expectOk(response)
      expectMedia(response, 'application/octet-stream')
      return response.body
    },
  }
}

/** Follows the chain of server keys from the pinned one, as far as it is valid at `now_ms`; false when it does not lead to `server_key`. */
export async function followsChain(crypto: Crypto, pinned: Bytes, identity: ServerIdentity, now_ms: number): Promise<boolean> {
  let key = pinned
  for (const link of identity.chain) {
    if (link.not_before > now_ms + LIMITS.clockSkewMs) continue
    const signed = tuple('server-key', key, link.key, link.not_before)
    if (await crypto.ed25519Verify(key, signed, link.sig)) key = link.key
  }
  return equalBytes(key, identity.server_key)
}

function readCounts(value: unknown): Record<string, number> {
  const counts = typeof value === 'object' && value !== null && 'deleted' in value ? value.deleted : null
  const rows = typeof counts === 'object' && counts !== null ? Object.entries(counts) : []
  if (
    rows.length === 0 ||
    rows.length > 100 ||
    !rows.every(([table, count]) => /^[a-z_]{1,64}$/.test(table) && Number.isSafeInteger(count))
  )
    throw foreignAnswer(OTHER_JSON)
  return Object.fromEntries(rows)
}

/**
 * JSON without the members of the answer is that of another product, or of a page that speaks JSON. It is no alarm: it does not claim to be
 * a relay's. What has the shape is verified by whoever asked for it.
 */
function read<const S extends Shape>(shape: S, response: HttpResponse, what: string): Of<S> {
  const value = json(response)
  try {
    return check(shape, value, what)
  } catch (cause) {
    throw foreignAnswer(OTHER_JSON, cause)
  }
}

const OTHER_JSON = 'JSON of something else'

function json(response: HttpResponse): unknown {
  expectOk(response)
  expectMedia(response, 'application/json')
  try {
    return parseJson(response.body)
  } catch {
    throw foreignAnswer('what is no JSON')
  }
}

function mediaOf({ headers }: Pick<HttpResponse, 'headers'>): string {
  return headers['content-type']?.split(';')[0]?.trim() ?? ''
}

function expectMedia(response: Pick<HttpResponse, 'status' | 'headers'>, media: string): void {
  if (mediaOf(response) !== media) throw foreign(response)
}

function foreign({ status, headers }: Pick<HttpResponse, 'status' | 'headers'>): SealpostError {
  return foreignAnswer(describeAnswer(status, headers['content-type'] ?? ''))
}

function expectOk(response: HttpResponse): void {
  if (response.status >= 200 && response.status < 300) return
  throw problemOf(response)
}

/** What no problem of a relay (RFC 9457) is told by, was said by something before it: a proxy, or the sign-in page of a network. */
function problemOf(response: HttpResponse): SealpostError {
  const { code, detail, unknown } = readProblem(response)
  const later = { retry_after_ms: retryAfterMs(response.headers['retry-after']) }
  if (code === 'disk') return new SealpostError('unavailable', detail ?? ERROR.unavailable, later)
  if (code !== null) return new SealpostError(code, detail ?? ERROR[code], later)
  const { status } = response
  // of a newer relay
  if (unknown) return new SealpostError('invalid_request', `the server refused the request (${status})`)
  if (status === 404) return new SealpostError('unreachable', NO_RELAY)
  if (status >= 500 && status !== SIGN_IN_STATUS)
    return new SealpostError('unreachable', `the server cannot answer now (${status}); try again later`, later)
  return foreign(response)
}

const PROBLEM = 'application/problem+json'
const NO_RELAY = 'there is no Sealpost server at this address'
/** RFC 6585 §6. */
const SIGN_IN_STATUS = 511

/** `unknown`: it has a code, and not one of ours. */
function readProblem(response: HttpResponse): { code: ErrorCode | null; detail: string | null; unknown: boolean } {
  const NONE = { code: null, detail: null, unknown: false }
  if (mediaOf(response) !== PROBLEM) return NONE
  try {
    const value = parseJson(response.body)
    if (typeof value !== 'object' || value === null) return NONE
    const code = 'code' in value && typeof value.code === 'string' && Object.hasOwn(ERROR, value.code) ? (value.code as ErrorCode) : null
    const detail = 'detail' in value && typeof value.detail === 'string' && value.detail.length <= 300 ? value.detail : null
    return { code, detail, unknown: code === null && 'code' in value && typeof value.code === 'string' }
  } catch {
    return NONE
  }
}
