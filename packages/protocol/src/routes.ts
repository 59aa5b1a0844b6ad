/**
 * THE list of REST routes (protocol.md §10): the whole truth about a route is one row. The router registers them in one loop;
 * documents and clients read the same rows. JSON in and out, but for the sealed bytes of a pairing slot, which travel as
 * `application/octet-stream`. Failures are RFC 9457 problems with a `code` of `codes.ts`.
 */

/** `none`: open to all, or the body carries its own authority. `assertion`: a device assertion in the body. `token`: `Authorization: Bearer`. */
export type RouteAuth = 'none' | 'assertion' | 'token'

export type Route = {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** With `{name}` for a parameter. */
  readonly path: string
  readonly auth: RouteAuth
  /** What the request's body is, and its bound in bytes. */
  readonly body: 'none' | 'json' | 'bytes'
  readonly bodyBytesMax: number
  readonly says: string
  /** Health checks: no limit of an address stands before them. */
  readonly unlimited?: true
  /** Why the request may be sent again when its answer was lost; every route that changes something says it. */
  readonly again?: string
}

const none = { body: 'none', bodyBytesMax: 0 } as const
const signed = { body: 'json', bodyBytesMax: 16_384 } as const
const entry = { body: 'json', bodyBytesMax: 262_144 } as const
const slot = { method: 'PUT', body: 'bytes', bodyBytesMax: 4_096, again: 'The same bytes are a success.' } as const

export const ROUTES = {
  read_server: {
    method: 'GET',
    path: '/.well-known/sealpost.json',
    auth: 'none',
    ...none,
    says: 'The key of this server, and the chain of keys that led to it.',
  },
  append_log: {
    method: 'POST',
    path: '/api/log',
    auth: 'assertion',
    ...entry,
    says: 'Appends an entry to a device log; its signature is the authority.',
    again: 'With a new proof: an entry that is there already is a success.',
  },
  read_log: {
    method: 'POST',
    path: '/api/log/read',
    auth: 'assertion',
    ...signed,
    says: 'Entries of a device log from from_log_seq on, with the boxes of the signer.',
    again: 'It changes nothing.',
  },
  create_token: {
    method: 'POST',
    path: '/api/auth/token',
    auth: 'assertion',
    ...signed,
    says: 'A token of 10 minutes for an active device, and a refresh token.',
    again: 'With a new assertion: the refresh token of the answer that was lost ends.',
  },
  refresh_token: {
    method: 'POST',
    path: '/api/auth/refresh',
    auth: 'assertion',
    ...signed,
    says: 'New tokens for a refresh token, which is used up by it. One that is used twice ends all tokens and sessions of the device.',
    again: 'Within 30 seconds, with a new assertion: the answer is the same refresh token.',
  },
  logout: {
    method: 'POST',
    path: '/api/auth/logout',
    auth: 'token',
    ...none,
    says: 'Ends the refresh token, every access token and the open streams of this device; its socket has to prove the device anew.',
    again: 'The second is refused as unauthorized: the first was done.',
  },
  read_jwks: {
    method: 'GET',
    path: '/.well-known/jwks.json',
    auth: 'none',
    ...none,
    says: 'The public keys that access tokens are signed with (RFC 7517).',
  },
  list_devices: { method: 'GET', path: '/api/devices', auth: 'token', ...none, says: 'The devices of this account.' },
  read_device: { method: 'GET', path: '/api/devices/{device_id}', auth: 'token', ...none, says: 'A device of this account.' },
  rename_device: {
    method: 'PATCH',
    path: '/api/devices/{device_id}',
    auth: 'token',
    ...entry,
    says: 'Renames a device, by a signed entry of the device log.',
    again: 'An entry that is there already is a success.',
  },
  revoke_device: {
    method: 'DELETE',
    path: '/api/devices/{device_id}',
    auth: 'token',
    ...entry,
    says: 'Revokes a device, by a signed entry of the device log.',
    again: 'An entry that is there already is a success.',
  },
  read_connection_status: {
    method: 'GET',
    path: '/api/connection-status',
    auth: 'token',
    ...none,
    says: 'Which devices of this account are connected now.',
  },
  read_user: { method: 'GET', path: '/api/user', auth: 'token', ...none, says: 'This account: its numbers, its quota, its last activity.' },
  delete_user: {
    method: 'DELETE',
    path: '/api/user',
    auth: 'assertion',
    ...signed,
    says: 'Deletes the account and all that belongs to it, for ever.',
    again: 'The second is refused: the account is gone.',
  },
  export_user: {
    method: 'GET',
    path: '/api/user/export',
    auth: 'token',
    ...none,
    says: 'Everything that the server holds about this account, one JSON object a line.',
  },
  read_events: { method: 'GET', path: '/api/events', auth: 'token', ...none, says: 'A page of events, as in a replay.' },
  append_events: {
    method: 'POST',
    path: '/api/events',
    auth: 'token',
    body: 'json',
    bodyBytesMax: 1_048_576,
    says: 'Stores events, as on the socket: acked means on disk.',
    again: 'The same events are acked again with their first numbers.',
  },
  take_session: {
    method: 'POST',
    path: '/api/events/session',
    auth: 'assertion',
    ...signed,
    says: 'Makes the caller the one session of its device, which may send events; the one before is superseded.',
    again: 'With a new assertion: the session of the answer that was lost is superseded.',
  },
  follow_events: {
    method: 'GET',
    path: '/api/events/live',
    auth: 'token',
    ...none,
    says: 'Server-sent events: all that comes after a position, as it comes.',
  },
  put_offer: { ...slot, path: '/api/pairing/{mailbox_id}/offer', auth: 'token', says: 'Opens a mailbox for 10 minutes.' },
  put_join: {
    ...slot,
    path: '/api/pairing/{mailbox_id}/join',
    auth: 'none',
    says: 'The one answer to an offer; who knows the mailbox_id may give it.',
  },
  put_reveal: {
    ...slot,
    path: '/api/pairing/{mailbox_id}/reveal',
    auth: 'token',
    says: 'Reveals the nonce that the offer committed to; by its creator.',
  },
  put_done: {
    ...slot,
    path: '/api/pairing/{mailbox_id}/done',
    auth: 'token',
    says: 'Names the entry that added the new device; by its creator.',
  },
  read_slot: {
    method: 'GET',
    path: '/api/pairing/{mailbox_id}/{slot}',
    auth: 'none',
    ...none,
    says: 'The sealed bytes of a slot; with wait, as soon as it is filled, 25 seconds at most.',
  },
  live: { method: 'GET', path: '/livez', auth: 'none', ...none, unlimited: true, says: 'The process answers.' },
  ready: {
    method: 'GET',
    path: '/readyz',
    auth: 'none',
    ...none,
    unlimited: true,
    says: 'The process may be given work: the database answers and it is not draining.',
  },
  read_openapi: { method: 'GET', path: '/openapi.json', auth: 'none', ...none, says: 'This list as OpenAPI 3.1.' },
  read_asyncapi: { method: 'GET', path: '/asyncapi.json', auth: 'none', ...none, says: 'The messages of the socket as AsyncAPI 3.' },
  read_docs: { method: 'GET', path: '/docs', auth: 'none', ...none, says: 'This list, for people.' },
  read_docs_file: { method: 'GET', path: '/docs/{file}', auth: 'none', ...none, says: 'A file of that page.' },
} as const satisfies Record<string, Route>

export type RouteName = keyof typeof ROUTES

/** The path with its parameters filled in, each encoded. */
export function routePath(name: RouteName, params: Readonly<Record<string, string>> = {}): string {
  return ROUTES[name].path.replace(/\{(\w+)\}/g, (_, key: string) => encodeURIComponent(params[key] ?? ''))
}
