/** Admins: how they come by a token, who they are, and how owners add and remove them (G24). */
import { adminIdOf, type Bytes, fromBase64url, readAdminAssertion, toBase64url, verifyAdminAssertion } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { adminName } from '../../audit/entry.ts'
import type { Audit } from '../../audit/recorder.ts'
import { readClaims } from '../../http/auth/assertions.ts'
import type { Answer } from '../../http/call.ts'
import type { AdminRow, AdminStore, AssertionStore, OwnerChange } from '../../ports/store.ts'
import type { AdminTokens } from './tokens.ts'
import { type AdminAnswers, type AdminCall, DONE } from '../call.ts'
import type { ADMIN_CONTRACTS } from './contracts.ts'

export type AdminRouteDeps = {
  store: AdminStore & AssertionStore & { now(): number }
  server_key: Bytes
  skew_ms: number
  tokens: Pick<AdminTokens, 'issue'>
  audit: Audit
}

export function createAdminRoutes(deps: AdminRouteDeps): AdminAnswers<typeof ADMIN_CONTRACTS> {
  const { store } = deps
  return {
    create_admin_token: (call) => createToken(deps, call),
    read_self: async ({ caller }) => {
      const admin = await store.findAdmin(caller.admin_id)
      return admin === null ? { problem: { code: 'unauthorized' } } : { json: show(admin) }
    },
    list_admins: async () => ({ json: { admins: (await store.listAdmins()).map(show) } }),
    async add_admin({ body }) {
      const public_key = fromBase64url(body.public_key, 32)
      const admin_id = await adminIdOf(nodeCrypto, public_key)
      const added = await store.addAdmin({ admin_id, name: body.name, role: body.role, public_key }, false)
      if (added.is === 'exists') return { problem: { code: 'admin_exists' } }
      const admin = await store.findAdmin(admin_id)
      return admin === null ? { problem: { code: 'admin_exists' } } : { json: show(admin) }
    },
    set_admin_role: async ({ params, body }) => answerChange(await store.setAdminRole(params.admin_id, body.role)),
    remove_admin: async ({ params }) => answerChange(await store.removeAdmin(params.admin_id)),
  }
}

async function createToken(deps: AdminRouteDeps, call: AdminCall<typeof ADMIN_CONTRACTS, 'create_admin_token'>): Promise<Answer> {
  const { store, server_key, skew_ms: skew, audit } = deps
  const origin = { request_id: call.request_id, address: call.address }
  const refuse = (target: string | null): Answer => {
    audit.note({ actor: 'stranger', action: 'admin_token_refused', outcome: 'refused', target, origin })
    return { problem: { code: 'unauthorized' } }
  }
  const claimed = readClaims(readAdminAssertion, call.body)
  const admin_key = fromBase64url(claimed.admin_key, 32)
  const admin_id = await adminIdOf(nodeCrypto, admin_key)
  const checked = await verifyAdminAssertion(nodeCrypto, admin_key, call.body, { server_key, now_ms: store.now(), skew_ms: skew })
  const admin = await store.findAdmin(admin_id)
  const isAdmin = admin !== null && admin.removed_at === null
  // the time is told to those alone who are known to have the key
  if (checked === 'expired' && isAdmin)
    return { problem: { code: 'expired', detail: `the clock of this machine is off by more than ${skew / 1000} s; set it` } }
  if (checked !== 'ok' || !isAdmin) return refuse(null)
  if (!(await store.rememberAssertion(`admin ${claimed.jti}`, claimed.admin_key))) return refuse(adminName(admin_id))
  await audit.write({ actor: adminName(admin_id), action: 'create_admin_token', outcome: 'done', origin })
  const { access_token, expires_in } = await deps.tokens.issue({ admin_id, public_key: admin.public_key })
  return { json: { access_token, token_type: 'Bearer', expires_in, role: admin.role } }
}

function answerChange(change: OwnerChange): Answer {
  return change === 'ok' ? DONE : { problem: { code: change } }
}

function show({ public_key, ...admin }: AdminRow): object {
  return { ...admin, public_key: toBase64url(public_key) }
}
