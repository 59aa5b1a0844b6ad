/** Requests to the listener of admins, made of its list and its document, about what is there or about nobody. */
import { randomUUID } from 'node:crypto'
import { ADMIN_ROUTES, type AdminRoute, type AdminRouteName, toBase64url } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { CONTRACTS } from '../../../server/src/admin/contracts.ts'
import type { Contract } from '../../../server/src/http/contract.ts'
import type { TestAccount } from './store-accounts.ts'
import type { AdminServer } from '../relays/admin-server.ts'
import { freshAddress } from '../relays/configured-relays.ts'

export const ROUTES_OF_ADMINS = Object.entries(ADMIN_ROUTES) as [AdminRouteName, AdminRoute][]

export type AdminRequest = { params: Record<string, string>; json?: object; headers: Record<string, string> }
type Make = (server: AdminServer, account: TestAccount) => string | Promise<string>

/** What there is to act on, by the name of the parameter. */
const THERE: Record<string, Make> = {
  user_id: (_, account) => account.user_id,
  device_id: (_, account) => account.devices.at(-1)?.device_id ?? '',
  async invite_id({ store }) {
    const invite_id = randomUUID()
    await store.addInvite({ invite_id, lifetime_ms: 60_000, uses_max: 1, note: null, code_hash: nodeCrypto.random(32) })
    return invite_id
  },
  admin_id: async (server) => (await server.admin('viewer')).admin_id,
  rule: () => 'offer',
  job: () => 'expired_events',
  file: () => 'swagger-ui.css',
}

/** Well formed, and of nobody; of the others there is none. */
export const NOBODYS: Readonly<Record<string, () => string>> = {
  user_id: () => toBase64url(nodeCrypto.random(32)),
  device_id: () => randomUUID(),
  invite_id: () => randomUUID(),
  admin_id: () => toBase64url(nodeCrypto.random(32)).slice(0, 22),
  job: () => 'no_such_job',
}

export function paramsOf(name: AdminRouteName): string[] {
  return [...ADMIN_ROUTES[name].path.matchAll(/\{(\w+)\}/g)].map(([, param]) => String(param))
}

/** The request of the document, about something new, or about this account. Fails for a parameter that nothing here stands for. */
export async function requestFor(server: AdminServer, name: AdminRouteName, account?: TestAccount): Promise<AdminRequest> {
  const { example = {} }: Contract = CONTRACTS[name]
  const names = paramsOf(name)
  const about = account ?? (names.includes('user_id') ? await server.account(2) : undefined)
  const params: Record<string, string> = {}
  for (const param of names) {
    const make = THERE[param]
    if (make === undefined) throw new Error(`what stands for {${param}} of ${name}?`)
    params[param] = await make(server, about as TestAccount)
  }
  // a key is added once
  const own = name === 'add_admin' ? { public_key: toBase64url(nodeCrypto.random(32)), name: `grace ${randomUUID().slice(0, 8)}` } : {}
  return {
    params,
    ...(example.body === undefined ? {} : { json: { ...(example.body as object), ...own } }),
    headers: { 'x-forwarded-for': freshAddress(), 'x-request-id': randomUUID() },
  }
}
