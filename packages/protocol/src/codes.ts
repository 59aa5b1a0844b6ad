/**
 * THE list of codes: errors, refusals (`nack`, `log_result`) and WebSocket close codes, and what a client does about each
 * (protocol.md §4, §5). A code never changes its meaning.
 */

/** `never`: do not connect again unchanged. `backoff`: connect again after a jittered, growing pause. */
export type ClosePolicy = 'never' | 'backoff'

export const CLOSE = {
  normal: { code: 1000, policy: 'backoff', says: 'Closed in good order.' },
  draining: { code: 1001, policy: 'backoff', says: 'The server is going away; connect again, perhaps to another node.' },
  inbound_overflow: { code: 1008, policy: 'backoff', says: 'Too many messages were waiting to be read.' },
  error: { code: 1011, policy: 'backoff', says: 'The server failed.' },
  overloaded: { code: 1013, policy: 'backoff', says: 'The server has no room now.' },
  auth_failed: { code: 4401, policy: 'never', says: 'The handshake was not accepted.' },
  device_revoked: { code: 4403, policy: 'never', says: 'This device was revoked.' },
  unsupported_version: { code: 4406, policy: 'never', says: 'No common protocol version.' },
  superseded: { code: 4409, policy: 'never', says: 'A newer session of this device took over.' },
  account_gone: { code: 4410, policy: 'never', says: 'The account was deleted.' },
  too_large: { code: 4413, policy: 'never', says: 'A frame was above the limit.' },
  internal: { code: 4450, policy: 'backoff', says: 'The server failed on this session.' },
  bad_frame: { code: 4451, policy: 'backoff', says: 'A frame could not be opened, decoded, or was not legal now.' },
  timeout: { code: 4452, policy: 'backoff', says: 'An answer did not come in time.' },
  rate_limited: { code: 4453, policy: 'backoff', says: 'Too many connections or handshakes.' },
  stalled: { code: 4454, policy: 'backoff', says: 'Nothing was read for 30 seconds.' },
  reauthenticate: { code: 4456, policy: 'backoff', says: 'The session was ended for safety; prove the device again.' },
  suspended: { code: 4457, policy: 'backoff', says: 'The operator of the server suspended this device or its account.' },
  rekey_failed: { code: 4455, policy: 'backoff', says: 'The session keys were not renewed in time.' },
} as const satisfies Record<string, { code: number; policy: ClosePolicy; says: string }>

export type CloseName = keyof typeof CLOSE

export function closeNameOf(code: number): CloseName | undefined {
  for (const name of Object.keys(CLOSE) as CloseName[]) if (CLOSE[name].code === code) return name
  return undefined
}

/** The policy of any close code, also of one this version does not know. */
export function closePolicy(code: number): ClosePolicy {
  const name = closeNameOf(code)
  if (name !== undefined) return CLOSE[name].policy
  return code >= 4400 && code <= 4449 ? 'never' : 'backoff'
}

/** Codes of `nack`. What the client does: protocol.md §5. */
export const NACK = {
  stale_epoch: 'The event was sealed under an epoch that is no longer current.',
  sequence_gap: 'The number is above the next one expected.',
  sequence_conflict: 'The number is taken by another event.',
  event_expired: 'The event had expired before it arrived.',
  clock_skew: 'The clock of the device is too far ahead for an event with a ttl.',
  payload_too_large: 'The payload is above the limit.',
  invalid_event: 'The event breaks a rule of the protocol.',
  quota_exceeded: 'A quota of the account is used up; nothing of it is stored before there is room.',
  too_many_streams: 'The account has as many streams as it may have, and the event is of another one.',
  rate_limited: 'Too many events; send the same bytes again later.',
  unavailable: 'The server cannot store now; send the same bytes again later.',
} as const
export type NackCode = keyof typeof NACK

export const LOG_RESULT = {
  log_conflict: 'Another entry came first; read it and decide again.',
  heads_stale: 'The revoked device has later events than the revocation pins.',
  name_taken: 'Another device of this account has that name.',
  invalid_entry: 'The entry breaks a rule of the device log.',
  rate_limited: 'Too many entries in this hour.',
} as const
export type LogResultCode = keyof typeof LOG_RESULT

/** Codes of REST problems, `error` messages and `SealpostError`. */
export const ERROR = {
  invalid_encoding: 'Bytes or text are not in the form that the protocol asks for.',
  invalid_message: 'A message breaks the list of messages.',
  invalid_request: 'The request is not valid.',
  invalid_signature: 'A signature does not hold.',
  invalid_token: 'The token is forged, foreign, expired or for another place.',
  invalid_box: 'A sealed box does not open or is not the one that was signed.',
  invalid_code: 'The pairing code is not valid.',
  invalid_words: 'The recovery words are not complete, not on the list, or do not add up.',
  decrypt_failed: 'A ciphertext does not open.',
  unknown_version: 'Made by a newer version; update this device.',
  unauthorized: 'No valid credentials.',
  forbidden: 'The credentials do not allow this.',
  not_found: 'There is no such thing here.',
  precondition_failed: 'It is no longer what the caller last saw.',
  overloaded: 'The server has no room now; try again later.',
  slot_taken: 'The slot is filled already.',
  last_owner: 'One owner has to stay.',
  admin_exists: 'There is an admin of that name or key already.',
  expired: 'It has expired.',
  too_large: 'Above the size limit.',
  headers_too_large: 'The headers of the request are above the size limit.',
  signup_closed: 'This server takes no new accounts.',
  account_gone: 'The account was deleted.',
  device_revoked: 'This device was revoked.',
  suspended: 'The operator of the server suspended this device or its account.',
  server_identity: 'The server does not have the key that this account knows.',
  superseded: 'A newer session of this device took over.',
  unsupported_version: 'No common protocol version.',
  log_fork: 'The server showed two different device logs.',
  log_withheld: 'The server withholds entries of the device log.',
  epoch_unreadable: 'The key of an epoch cannot be opened on this device.',
  state_diverged: 'The state of this device and of the server do not fit together.',
  state_damaged: 'The stored state of this device is damaged.',
  state_newer: 'The stored state was written by a newer version.',
  not_paired: 'This home holds no device.',
  not_admin: 'There is no key of an admin here, or the server does not know it.',
  already_paired: 'This home holds a device already.',
  insecure_permissions: 'Others can read the private state.',
  unreachable: 'The server cannot be reached.',
  timeout: 'No answer in time.',
  aborted: 'Ended by the caller.',
  disk: 'The disk refused a write.',
  queued: 'Kept in the outbox; not acknowledged yet.',
  check_phrase_mismatch: 'The check phrases were not confirmed to be the same.',
  data_newer: 'The data folder was written by a newer version.',
  data_in_use: 'Another relay uses the data folder.',
  port_in_use: 'The port is taken.',
  invalid_config: 'The configuration is not valid.',
  internal: 'A failure inside.',
  ...NACK,
  ...LOG_RESULT,
  rate_limited: 'Too much at once; try again later.',
} as const
export type ErrorCode = keyof typeof ERROR
