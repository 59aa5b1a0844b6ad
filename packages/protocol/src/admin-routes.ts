/**
 * THE list of routes for operators, and of who may use them: served by a listener of its own, never by the one that devices reach. Each
 * route with a token names the least role that may use it; there is no route without a rule. The router registers them in one loop;
 * documents, the command and the tests of every cell read the same rows.
 */
import type { Route } from './routes.ts'

/** Least first; each may do what the ones before it may. */
export const ROLES = ['viewer', 'operator', 'owner'] as const
export type Role = (typeof ROLES)[number]

export type AdminRoute = Route & ({ readonly auth: 'token'; readonly role: Role } | { readonly auth: 'none' | 'assertion' })

const look = { method: 'GET', auth: 'token', role: 'viewer', body: 'none', bodyBytesMax: 0 } as const
const open = { method: 'GET', auth: 'none', body: 'none', bodyBytesMax: 0 } as const
const act = { method: 'POST', auth: 'token', role: 'operator', body: 'json', bodyBytesMax: 4_096, again: 'It is done already.' } as const
const set = { ...act, method: 'PUT', again: 'The same again changes nothing.' } as const

export const ADMIN_ROUTES = {
  read_server: { ...open, path: '/.well-known/sealpost.json', says: 'The key of this server, which assertions name.' },
  create_admin_token: {
    method: 'POST',
    path: '/api/admin/token',
    auth: 'assertion',
    body: 'json',
    bodyBytesMax: 16_384,
    says: 'A token of 5 minutes for an admin, by an assertion that its key signed.',
    again: 'With a new assertion.',
  },
  read_self: { ...look, path: '/api/admin/self', says: 'Who asks, and in which role.' },
  read_figures: { ...look, path: '/api/admin/figures', says: 'How much there is, and how busy this node is.' },
  list_nodes: { ...look, path: '/api/admin/nodes', says: 'The processes that serve the relay, and how busy each was at its last beat.' },
  read_version: { ...look, path: '/api/admin/version', says: 'Versions of the relay, its protocol, Node, the database and its schema.' },
  read_config: { ...look, path: '/api/admin/config', says: 'Every variable with its value in force; secrets are not shown.' },
  read_database: { ...look, path: '/api/admin/database', says: 'Settings and size of the database, and the pools of this node.' },
  list_signing_keys: { ...look, path: '/api/admin/signing-keys', says: 'Keys that sign tokens: public parts and state.' },
  rotate_signing_keys: {
    ...act,
    role: 'owner',
    path: '/api/admin/signing-keys/rotate',
    says: 'Retires the active key at once; the next one signs from now on. Tokens that it signed stay good until they end.',
    again: 'Another rotation.',
  },

  list_users: { ...look, path: '/api/admin/users', says: 'Accounts, oldest first.' },
  read_user: { ...look, path: '/api/admin/users/{user_id}', says: 'An account: its figures, its state, its quotas.' },
  list_user_devices: { ...look, path: '/api/admin/users/{user_id}/devices', says: 'The devices of an account, revoked ones too.' },
  suspend_user: {
    ...act,
    path: '/api/admin/users/{user_id}/suspend',
    says: 'Shuts an account out until it is resumed; nothing of it is lost.',
  },
  resume_user: { ...act, path: '/api/admin/users/{user_id}/resume', says: 'Ends the suspension of an account.' },
  disconnect_user: {
    ...act,
    path: '/api/admin/users/{user_id}/disconnect',
    says: 'Ends the sessions of an account; its devices come back.',
    again: 'Again.',
  },
  suspend_device: {
    ...act,
    path: '/api/admin/users/{user_id}/devices/{device_id}/suspend',
    says: 'Shuts a device out until it is resumed.',
  },
  resume_device: { ...act, path: '/api/admin/users/{user_id}/devices/{device_id}/resume', says: 'Ends the suspension of a device.' },
  disconnect_device: {
    ...act,
    path: '/api/admin/users/{user_id}/devices/{device_id}/disconnect',
    says: 'Ends the sessions of a device; it comes back.',
    again: 'Again.',
  },
  set_user_quota: {
    ...set,
    path: '/api/admin/users/{user_id}/quota',
    says: 'Quotas of one account, in place of those of the configuration.',
  },
  delete_user: {
    method: 'DELETE',
    path: '/api/admin/users/{user_id}',
    auth: 'token',
    role: 'owner',
    body: 'none',
    bodyBytesMax: 0,
    says: 'Deletes an account and all that belongs to it, for ever.',
    again: 'The second finds none.',
  },

  list_sessions: { ...look, path: '/api/admin/sessions', says: 'Sessions that are open on this node.' },

  read_signup: { ...look, path: '/api/admin/signup', says: 'Who may create accounts, and by what this is ruled.' },
  set_signup: { ...set, path: '/api/admin/signup', says: 'Who may create accounts, in place of the configuration; null = as configured.' },
  list_invites: { ...look, path: '/api/admin/invites', says: 'Invites; not their codes.' },
  create_invite: { ...act, path: '/api/admin/invites', says: 'An invite; its code is shown this once.', again: 'Another invite.' },
  revoke_invite: {
    method: 'DELETE',
    path: '/api/admin/invites/{invite_id}',
    auth: 'token',
    role: 'operator',
    body: 'none',
    bodyBytesMax: 0,
    says: 'Ends an invite; accounts that came by it stay.',
    again: 'It is done already.',
  },

  list_limits: { ...look, path: '/api/admin/limits', says: 'Rates in force, as configured or as set here.' },
  set_limit: { ...set, path: '/api/admin/limits/{rule}', says: 'A rate, in place of the configuration; null = as configured.' },

  list_jobs: { ...look, path: '/api/admin/jobs', says: 'Jobs of this node and their last runs.' },
  run_job: { ...act, path: '/api/admin/jobs/{job}/run', says: 'Runs a job as soon as the one at work has ended.', again: 'Once more.' },

  read_log_level: { ...look, path: '/api/admin/log-level', says: 'What is logged, and by what this is ruled.' },
  set_log_level: { ...set, path: '/api/admin/log-level', says: 'What is logged, in place of the configuration; null = as configured.' },

  list_admins: { ...look, path: '/api/admin/admins', says: 'Admins, removed ones too.' },
  add_admin: {
    ...act,
    role: 'owner',
    path: '/api/admin/admins',
    says: 'Adds an admin by its public key.',
    again: 'The same key in the same role is a success.',
  },
  set_admin_role: {
    ...set,
    role: 'owner',
    path: '/api/admin/admins/{admin_id}/role',
    says: 'Gives an admin another role; one owner stays.',
  },
  remove_admin: {
    method: 'DELETE',
    path: '/api/admin/admins/{admin_id}',
    auth: 'token',
    role: 'owner',
    body: 'none',
    bodyBytesMax: 0,
    says: 'Removes an admin; its tokens die at once. One owner stays.',
    again: 'It is done already.',
  },

  list_audit: { ...look, path: '/api/admin/audit', says: 'The audit log, oldest first or newest first.' },
  read_audit_head: {
    ...look,
    path: '/api/admin/audit/head',
    says: 'The end of the audit log and its signed checkpoints, to verify it with.',
  },

  live: { ...open, path: '/livez', unlimited: true, says: 'The process answers.' },
  ready: { ...open, path: '/readyz', unlimited: true, says: 'The process may be given work, and if not, why.' },
  read_openapi: { ...open, path: '/openapi.json', says: 'This list as OpenAPI 3.1.' },
  read_docs: { ...open, path: '/docs', says: 'This list, for people.' },
  read_docs_file: { ...open, path: '/docs/{file}', says: 'A file of that page.' },
} as const satisfies Record<string, AdminRoute>

export type AdminRouteName = keyof typeof ADMIN_ROUTES

/** Whether a role may do what asks for `least`. */
export function mayAct(role: Role, least: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(least)
}

/** The path with its parameters filled in, each encoded. */
export function adminRoutePath(name: AdminRouteName, params: Readonly<Record<string, string>> = {}): string {
  return ADMIN_ROUTES[name].path.replace(/\{(\w+)\}/g, (_, key: string) => encodeURIComponent(params[key] ?? ''))
}
