/**
 * Who gets what (G23, R10): every kind of credential and of foreign id, and what it is answered with, on every route that asks for one. Data:
 * the tests drive each cell, and `docs/routes.md` shows it.
 */
import type { NackCode, RouteName } from '@sealpost/protocol'
import type { ProblemCode } from '../problems.ts'

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

/** `code`: of the problem, or of what a good answer says: its `nack`, or that the place is none (`reset`). */
export type Foreign = { route: RouteName; id: string; says: string; status: number; code: ProblemCode | NackCode | 'reset' }

const NONE = { status: 404, code: 'not_found' } as const
const RESET = { status: 200, code: 'reset' } as const

/** Ids of others, with a good token (or assertion) of one's own. An id that nobody has is answered in the same way. */
export const FOREIGN: readonly Foreign[] = [
  { route: 'read_device', id: 'device_id', says: 'a device of another account', ...NONE },
  { route: 'rename_device', id: 'device_id', says: 'a device of another account', ...NONE },
  { route: 'revoke_device', id: 'device_id', says: 'a device of another account', ...NONE },
  { route: 'rename_device', id: 'body', says: 'an entry of another account', status: 403, code: 'forbidden' },
  { route: 'revoke_device', id: 'body', says: 'an entry of another account', status: 403, code: 'forbidden' },
  { route: 'append_log', id: 'body', says: 'an entry of another account', ...UNAUTHORIZED },
  { route: 'append_events', id: 'session_id', says: 'the session of another device', status: 409, code: 'superseded' },
  { route: 'append_events', id: 'user_id', says: 'an event of another account', status: 400, code: 'invalid_message' },
  { route: 'append_events', id: 'events.device_id', says: 'an event of a device of another account', status: 200, code: 'invalid_event' },
  { route: 'read_events', id: 'continuation_token', says: 'a token of another device', status: 400, code: 'invalid_request' },
  { route: 'read_events', id: 'cursor', says: 'the place of an event of another account', ...RESET },
  { route: 'follow_events', id: 'cursor', says: 'the place of an event of another account', ...RESET },
  { route: 'follow_events', id: 'last-event-id', says: 'the id of a message to another account', ...RESET },
  { route: 'refresh_token', id: 'refresh_token', says: 'a refresh token of another device', status: 401, code: 'invalid_token' },
  { route: 'put_reveal', id: 'mailbox_id', says: 'a mailbox of another device', ...NONE },
  { route: 'put_done', id: 'mailbox_id', says: 'a mailbox of another device', ...NONE },
]

/**
 * Where the id itself is the right: 128 bits out of the pairing code, and whoever asks for ones that are not there is stopped (B02). `known`: the
 * answer to a mailbox of another device, `unknown`: to one that nobody has.
 */
export const RIGHT_BY_ID: readonly { route: RouteName; says: string; known: number; unknown: number }[] = [
  { route: 'read_slot', says: 'reads what is sealed for the other side', known: 200, unknown: 404 },
  { route: 'put_join', says: 'answers the offer, once', known: 204, unknown: 404 },
  { route: 'put_offer', says: 'opens a mailbox; one that another device has is taken', known: 409, unknown: 204 },
]
