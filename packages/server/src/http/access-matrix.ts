/**
 * Who gets what (G23, R10): every kind of credential and of foreign id, and what it is answered with, on every route that asks for one. Data:
 * the tests drive each cell, and `docs/routes.md` shows it.
 */
import type { RouteName } from '@sealpost/protocol'
import type { ProblemCode } from './problems.ts'

export type Refused = { says: string; status: number; code: ProblemCode }

const UNAUTHORIZED = { status: 401, code: 'unauthorized' } as const

/** On each route with a token; what is asked for makes no difference. */
export const TOKENS = {
  none: { says: 'no credential', ...UNAUTHORIZED },
  malformed: { says: 'a header that is no token', ...UNAUTHORIZED },
  expired: { says: 'a token that has expired', ...UNAUTHORIZED },
  unsigned: { says: 'a token with `alg: none`', ...UNAUTHORIZED },
  symmetric: { says: 'a token signed by HS256 with the public key', ...UNAUTHORIZED },
  own_key: { says: 'a token that brings its own key (`jwk`, `jku`)', ...UNAUTHORIZED },
  other_server: { says: 'a token of another server', ...UNAUTHORIZED },
  other_audience: { says: 'a token for another audience', ...UNAUTHORIZED },
  other_subject: { says: 'a token whose account was changed', ...UNAUTHORIZED },
  refresh_token: { says: 'a refresh token in place of an access token', ...UNAUTHORIZED },
  assertion: { says: 'a device assertion in place of a token', ...UNAUTHORIZED },
  in_query: { says: 'a good token in the address', ...UNAUTHORIZED },
  identity_headers: { says: '`X-User-ID`, `X-Device-ID`, `X-Forwarded-User` and the like', ...UNAUTHORIZED },
  revoked_device: { says: 'the token of a device that was revoked', ...UNAUTHORIZED },
  deleted_account: { says: 'the token of an account that was deleted', ...UNAUTHORIZED },
  after_logout: { says: 'a token from before a logout', ...UNAUTHORIZED },
} as const satisfies Record<string, Refused>

export type TokenKind = keyof typeof TOKENS

/** On each route with an assertion, in place of the right one. */
export const ASSERTIONS = {
  other_purpose: { says: 'made for another purpose', ...UNAUTHORIZED },
  other_server: { says: 'made for another server', ...UNAUTHORIZED },
  other_signature: { says: 'with the signature of another device', ...UNAUTHORIZED },
  unknown_signer: { says: 'of a device that the account does not have', ...UNAUTHORIZED },
  unknown_account: { says: 'of an account that is not there', ...UNAUTHORIZED },
  replayed: { says: 'used before', ...UNAUTHORIZED },
  stale: { says: 'made more than 5 minutes ago', status: 401, code: 'expired' },
  early: { says: 'made more than 5 minutes ahead', status: 401, code: 'expired' },
} as const satisfies Record<string, Refused>

export type AssertionKind = keyof typeof ASSERTIONS

/** Ids of others, with a good token of one's own. An id that nobody has is answered in the same way. */
export const FOREIGN: readonly (Refused & { route: RouteName; id: string })[] = [
  { route: 'read_device', id: 'device_id', says: 'a device of another account', status: 404, code: 'not_found' },
  { route: 'rename_device', id: 'device_id', says: 'a device of another account', status: 404, code: 'not_found' },
  { route: 'revoke_device', id: 'device_id', says: 'a device of another account', status: 404, code: 'not_found' },
  { route: 'rename_device', id: 'body', says: 'an entry of another account', status: 403, code: 'forbidden' },
  { route: 'revoke_device', id: 'body', says: 'an entry of another account', status: 403, code: 'forbidden' },
  { route: 'append_events', id: 'session_id', says: 'the session of another device', status: 409, code: 'superseded' },
  { route: 'append_events', id: 'user_id', says: 'an event of another account', status: 400, code: 'invalid_message' },
  { route: 'read_events', id: 'continuation_token', says: 'a token of another device', status: 400, code: 'invalid_request' },
  { route: 'refresh_token', id: 'refresh_token', says: 'a refresh token of another device', status: 401, code: 'invalid_token' },
  { route: 'put_reveal', id: 'mailbox_id', says: 'a mailbox of another device', status: 403, code: 'forbidden' },
  { route: 'put_done', id: 'mailbox_id', says: 'a mailbox of another device', status: 403, code: 'forbidden' },
]
