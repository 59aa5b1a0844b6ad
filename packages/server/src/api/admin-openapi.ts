/** OpenAPI 3.1 of the listener of admins (G24). */
import { ADMIN_ROUTES, type AdminRouteName } from '@sealpost/protocol'
import { CONTRACTS } from '../admin/contracts.ts'
import { describeRoutes, FORMS, type OpenApi } from './describe-routes.ts'

const TAGS = {
  Relay: 'What the relay is and how it is.',
  Accounts: 'Accounts, their devices and sessions; no payload is here.',
  Settings: 'What may be set while the relay runs.',
  Jobs: 'What comes back by itself.',
  Admins: 'Who may do this, and the keys of tokens.',
  Audit: 'What was done.',
  Documents: 'This document.',
} as const

const TAG_OF: Record<AdminRouteName, keyof typeof TAGS> = {
  read_server: 'Relay',
  create_admin_token: 'Admins',
  read_self: 'Admins',
  read_figures: 'Relay',
  list_nodes: 'Relay',
  read_version: 'Relay',
  read_config: 'Relay',
  read_database: 'Relay',
  list_signing_keys: 'Admins',
  rotate_signing_keys: 'Admins',
  list_users: 'Accounts',
  read_user: 'Accounts',
  list_user_devices: 'Accounts',
  suspend_user: 'Accounts',
  resume_user: 'Accounts',
  disconnect_user: 'Accounts',
  suspend_device: 'Accounts',
  resume_device: 'Accounts',
  disconnect_device: 'Accounts',
  set_user_quota: 'Accounts',
  delete_user: 'Accounts',
  list_sessions: 'Accounts',
  read_signup: 'Settings',
  set_signup: 'Settings',
  list_invites: 'Settings',
  create_invite: 'Settings',
  revoke_invite: 'Settings',
  list_limits: 'Settings',
  set_limit: 'Settings',
  list_jobs: 'Jobs',
  run_job: 'Jobs',
  read_log_level: 'Settings',
  set_log_level: 'Settings',
  list_admins: 'Admins',
  add_admin: 'Admins',
  set_admin_role: 'Admins',
  remove_admin: 'Admins',
  list_audit: 'Audit',
  read_audit_head: 'Audit',
  live: 'Relay',
  ready: 'Relay',
  read_openapi: 'Documents',
  read_docs: 'Documents',
  read_docs_file: 'Documents',
}

export function makeAdminOpenApi(): OpenApi {
  return describeRoutes({
    title: 'Sealpost for operators',
    summary: 'Who runs a relay sees how it is and acts, and leaves a trace.',
    description: `What the listener of admins offers. ${FORMS} Every request with a token is written into the audit log.`,
    token: 'An access token of `create_admin_token`, for 5 minutes. The role is asked of the database on each request.',
    tags: TAGS,
    tagOf: TAG_OF,
    routes: ADMIN_ROUTES,
    contracts: CONTRACTS,
    asks: { assertion: 'an assertion of an admin', token: 'a token of an admin' },
  })
}
