/**
 * What an operator sees of accounts, and decides about them: states, quotas, the ends of sessions. There is no way from here to a payload, nor
 * into a device log: nobody but the account has the keys. What is decided is told to the sessions of all nodes at once by the bus, and
 * found by them in the store if the bus fails (the fence).
 */
import { adminName } from '../../audit/entry.ts'
import type { Answer } from '../../http/call.ts'
import type { AccountStore, Bus, OperatedDevice, OperatedStore, OperatedUser } from '../../ports/store.ts'
import type { Sessions } from '../../relay/sessions/sessions.ts'
import { type AdminAnswers, DONE, NOT_FOUND } from '../call.ts'
import { cursorAfter, decodeCursor, decodePlace, encodeCursor, encodePlace } from '../cursor.ts'
import { PAGE } from '../fields.ts'
import type { USER_CONTRACTS } from './contracts.ts'

export type AdminUserDeps = {
  store: OperatedStore & Pick<AccountStore, 'deleteAccount'> & { now(): number }
  bus: Pick<Bus, 'publish'>
  sessions: Pick<Sessions, 'list'>
}

export function createAdminUserRoutes({ store, bus, sessions }: AdminUserDeps): AdminAnswers<typeof USER_CONTRACTS> {
  /** Ends what is open of these devices; the store has let them go, or lets them come back. */
  function end(found: { user_no: number; device_ids: readonly string[] } | null): Answer {
    if (found === null) return NOT_FOUND
    for (const device_id of found.device_ids) bus.publish(found.user_no, { is: 'device', device_id })
    return DONE
  }

  /** The other devices of the account see what was done to this one. */
  function tellOthers(user_no: number, device_id: string, suspended: boolean): void {
    bus.publish(user_no, { is: 'presence', device_id, online: false, last_seen: Math.floor(store.now()), suspended })
  }

  return {
    async list_users({ query }) {
      const limit = query.limit ?? PAGE
      const suspended = query.state === undefined ? null : query.state === 'suspended'
      const users = await store.listUsers(decodeCursor(query.cursor) ?? 0, suspended, limit)
      return { json: { users: users.map(showUser), next_cursor: cursorAfter(users, limit, ({ user_no }) => encodeCursor(user_no)) } }
    },
    async read_user({ params }) {
      const user = await store.readOperatedUser(params.user_id)
      return user === null ? NOT_FOUND : { json: showUser(user) }
    },
    async list_user_devices({ params }) {
      if ((await store.readOperatedUser(params.user_id)) === null) return NOT_FOUND
      return { json: { devices: (await store.listOperatedDevices(params.user_id)).map(showDevice) } }
    },
    suspend_user: async ({ params }) => end(await store.suspendUser(params.user_id, true)),
    resume_user: async ({ params }) => ((await store.suspendUser(params.user_id, false)) === null ? NOT_FOUND : DONE),
    disconnect_user: async ({ params }) => end(await store.endSessions(params.user_id, null)),
    suspend_device: async ({ params: { user_id, device_id } }) => {
      const found = await store.suspendDevice(user_id, device_id, true)
      if (found !== null) tellOthers(found.user_no, device_id, true)
      return end(found)
    },
    async resume_device({ params: { user_id, device_id } }) {
      const found = await store.suspendDevice(user_id, device_id, false)
      if (found === null) return NOT_FOUND
      tellOthers(found.user_no, device_id, false)
      return DONE
    },
    disconnect_device: async ({ params }) => end(await store.endSessions(params.user_id, params.device_id)),
    set_user_quota: async ({ params, body }) => ((await store.setUserQuota(params.user_id, body)) ? DONE : NOT_FOUND),
    async delete_user({ params, caller, request_id, address }) {
      const by = { actor: adminName(caller.admin_id), origin: { request_id, address } }
      const deleted = await store.deleteAccount(params.user_id, null, by)
      if (deleted === null) return NOT_FOUND
      bus.publish(deleted.user_no, { is: 'deleted' })
      return { json: { deleted: deleted.counts } }
    },
    async list_sessions({ query }) {
      const limit = query.limit ?? PAGE
      const after = decodePlace(query.cursor)
      const all = sessions.list().filter((session) => query.user_id === undefined || session.user_id === query.user_id)
      const shown = all
        .sort(byTime)
        .filter((session) => after === null || byTime(session, { opened_at: after.at, session_id: after.id }) > 0)
        .slice(0, limit)
      const next_cursor = cursorAfter(shown, limit, ({ opened_at, session_id }) => encodePlace({ at: opened_at, id: session_id }))
      return { json: { sessions: shown, total: all.length, next_cursor } }
    },
  }
}

type Opened = { opened_at: number; session_id: string }
function byTime(a: Opened, b: Opened): number {
  return a.opened_at - b.opened_at || (a.session_id < b.session_id ? -1 : a.session_id === b.session_id ? 0 : 1)
}

function showUser(user: OperatedUser): object {
  const { user_no: _, quota_bytes: bytes, quota_streams: streams, quota_devices: devices, ...shown } = user
  return { ...shown, quota: { bytes, streams, devices } }
}

function showDevice({ active, ...device }: OperatedDevice): object {
  const state = device.revoked_log_seq !== null ? 'revoked' : active ? 'active' : 'suspended'
  return { ...device, state }
}
