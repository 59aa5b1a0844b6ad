/**
 * THE list of what the audit log tells of, beside the actions of admins, which are the names of their routes. Nothing of it carries a
 * payload or a secret; accounts and devices stand in it as hashes of their ids (docs/operations/audit.md).
 */
export const SECURITY_ACTIONS = {
  account_created: 'A genesis was stored: sign-up.',
  device_added: 'A device was paired.',
  device_renamed: 'A device got another name.',
  device_revoked: 'A device was revoked by another.',
  account_recovered: 'The recovery words were used: all other devices are revoked.',
  account_deleted: 'An account was deleted, by a device, its root or an owner.',
  refresh_token_reused: 'A refresh token was used twice: the tokens and the session of its device were ended.',
  refresh_token_replaced: 'A refresh token of a family that was replaced was used.',
  token_refused: 'A token was shown that this server did not issue, or not so.',
  assertion_refused: 'An assertion was shown that does not hold, or was used before.',
  rate_limited: 'A limit was reached.',
  signing_keys_replaced: 'Another relay on this database has other secrets.',
  admin_created: 'An owner was written by someone with access to the data.',
  admin_token_refused: 'A token or an assertion of an admin was shown that does not hold.',
  role_refused: 'An admin asked for what its role does not allow.',
  audit_lost: 'More happened in a minute than is written down one by one.',
} as const

export type SecurityAction = keyof typeof SECURITY_ACTIONS
