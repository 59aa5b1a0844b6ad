/**
 * THE list of REST routes (protocol.md §10): the whole truth about a route is one row. The router registers them in one loop;
 * documents and clients read the same rows. JSON in and out, but for the sealed bytes of a pairing slot, which travel as
 * `application/octet-stream`. Failures are RFC 9457 problems with a `code` of `codes.ts`.
 */

/** `none`: open to all, or the body carries its own authority. `assertion`: a device assertion in the body. `token`: `Authorization: Bearer`. */
export type RouteAuth = 'none' | 'assertion' | 'token'

export type Route = {
  readonly method: 'GET' | 'POST' | 'PUT'
  /** With `{name}` for a parameter. */
  readonly path: string
  readonly auth: RouteAuth
  /** What the request's body is, and its bound in bytes. */
  readonly body: 'none' | 'json' | 'bytes'
  readonly bodyBytesMax: number
  readonly says: string
}

const none = { body: 'none', bodyBytesMax: 0 } as const
const slot = { method: 'PUT', body: 'bytes', bodyBytesMax: 4_096 } as const

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
    body: 'json',
    bodyBytesMax: 262_144,
    says: 'Appends an entry to a device log; its signature is the authority.',
  },
  read_log: {
    method: 'POST',
    path: '/api/log/read',
    auth: 'assertion',
    body: 'json',
    bodyBytesMax: 16_384,
    says: 'Entries of a device log from from_log_seq on, with the boxes of the signer.',
  },
  create_token: {
    method: 'POST',
    path: '/api/auth/token',
    auth: 'assertion',
    body: 'json',
    bodyBytesMax: 16_384,
    says: 'A token of 10 minutes for an active device.',
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
  live: { method: 'GET', path: '/livez', auth: 'none', ...none, says: 'The process answers.' },
  ready: {
    method: 'GET',
    path: '/readyz',
    auth: 'none',
    ...none,
    says: 'The process may be given work: the database answers and it is not draining.',
  },
} as const satisfies Record<string, Route>

export type RouteName = keyof typeof ROUTES

/** The path with its parameters filled in, each encoded. */
export function routePath(name: RouteName, params: Readonly<Record<string, string>> = {}): string {
  return ROUTES[name].path.replace(/\{(\w+)\}/g, (_, key: string) => encodeURIComponent(params[key] ?? ''))
}
