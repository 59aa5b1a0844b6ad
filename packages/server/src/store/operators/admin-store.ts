/**
 * Admins, settings and invites (docs/operations/admin.md). The role of an admin is read here on each request and nowhere else.
 *
 * Isolation: read committed. Changes of admins take all rows of owners in one order, so that of two that take the last owners away one
 * finds that it may not.
 */
import type { ClientBase, Pool } from 'pg'
import type { AdminRow, AdminStore, InviteRow } from '../../ports/store.ts'
import { withClient, withTransaction } from '../postgres/pool.ts'

const COLUMNS = 'a.admin_id, a.name, a.role, a.public_key, a.created_at, a.removed_at'
const FIND = { name: 'find_admin', text: `select ${COLUMNS} from admin a where a.admin_id = $1::text` }
const FIND_NAME = {
  name: 'find_admin_name',
  text: `select ${COLUMNS} from admin a where lower(a.name) = lower($1::text) and a.removed_at is null`,
}
const LIST = { name: 'list_admins', text: `select ${COLUMNS} from admin a order by a.created_at, a.admin_id limit 1000` }

const ADD = {
  name: 'add_admin',
  text: `insert into admin (admin_id, created_at, role, name, public_key) values ($1::text, clock_ms(), $2::text, $3::text, $4::bytea)`,
}

const LOCK_OWNERS = {
  name: 'lock_owners',
  text: `select a.admin_id from admin a where a.role = 'owner' and a.removed_at is null order by a.admin_id for update`,
}

/** One who was removed stays so. */
const SET_ROLE = { name: 'set_admin_role', text: 'update admin set role = $2::text where admin_id = $1::text and removed_at is null' }
const REMOVE = {
  name: 'remove_admin',
  text: 'update admin set removed_at = coalesce(removed_at, clock_ms()) where admin_id = $1::text',
}

const READ_SETTINGS = { name: 'read_settings', text: 'select s.name, s.value, s.changed_at from setting s order by s.name' }
const SET = {
  name: 'set_setting',
  text: `insert into setting (name, changed_at, value) values ($1::text, clock_ms(), $2::text)
  on conflict (name) do update set changed_at = excluded.changed_at, value = excluded.value`,
}
const UNSET = { name: 'unset_setting', text: 'delete from setting where name = $1::text' }

const INVITE = 'i.invite_id, i.created_at, i.expires_at, i.revoked_at, i.uses_max, i.uses, i.note'
const LIST_INVITES = {
  name: 'list_invites',
  text: `select ${INVITE} from invite i where (i.created_at, i.invite_id) < ($1::int8, $2::uuid) order by i.created_at desc, i.invite_id desc limit $3::int4`,
}
const ADD_INVITE = {
  name: 'add_invite',
  text: `insert into invite as i (invite_id, created_at, expires_at, uses_max, note, code_hash)
  values ($1::uuid, clock_ms(), clock_ms() + $2::int8, $3::int4, $4::text, $5::bytea) returning ${INVITE}`,
}
const REVOKE_INVITE = {
  name: 'revoke_invite',
  text: 'update invite set revoked_at = coalesce(revoked_at, clock_ms()) where invite_id = $1::uuid',
}
const USE_INVITE = {
  name: 'use_invite',
  text: `update invite set uses = uses + 1
 where code_hash = $1::bytea and uses < uses_max and revoked_at is null and expires_at > clock_ms()`,
}
const SWEEP_INVITES = {
  name: 'sweep_invites',
  text: `delete from invite where ctid = any(array(select i.ctid from invite i where i.expires_at < clock_ms() - $1::int8 limit $2::int4))`,
}
/** How long an invite that ended is still listed. */
const INVITE_KEPT_MS = 90 * 86_400_000

/** Uses it up by one, in the transaction of the account that it lets in. */
export async function useInvite(client: ClientBase, code_hash: Uint8Array): Promise<boolean> {
  return (await client.query({ ...USE_INVITE, values: [Buffer.from(code_hash)] })).rowCount === 1
}

export function createAdminStore(pool: Pool): AdminStore {
  async function findAdmin(admin_id: string): Promise<AdminRow | null> {
    return withClient(pool, async (client) => (await client.query<AdminRow>({ ...FIND, values: [admin_id] })).rows[0] ?? null)
  }

  /** `keeps`: what is left of the owners when the change is made. */
  async function changeOwners(admin_id: string, change: { name: string; text: string }, values: unknown[], keepsOwner: boolean) {
    return withTransaction(pool, async (client) => {
      const owners = (await client.query<{ admin_id: string }>(LOCK_OWNERS)).rows
      if (!keepsOwner && owners.length === 1 && owners[0]?.admin_id === admin_id) return 'last_owner' as const
      return ((await client.query({ ...change, values })).rowCount ?? 0) > 0 ? ('ok' as const) : ('not_found' as const)
    })
  }

  return {
    findAdmin,
    listAdmins: () => withClient(pool, async (client) => (await client.query<AdminRow>(LIST)).rows),
    addAdmin: ({ admin_id, role, name, public_key }, first) =>
      withTransaction(pool, async (client) => {
        // one after another: two first owners at once are one too many
        await client.query('lock table admin in share row exclusive mode')
        const known = (await client.query<AdminRow>({ ...FIND, values: [admin_id] })).rows[0]
        if (known !== undefined)
          return known.removed_at === null && known.role === role && known.name === name ? { is: 'ok' as const } : { is: 'exists' as const }
        if (first && (await client.query(LOCK_OWNERS)).rowCount !== 0) return { is: 'exists' as const }
        if ((await client.query({ ...FIND_NAME, values: [name] })).rowCount !== 0) return { is: 'exists' as const }
        await client.query({ ...ADD, values: [admin_id, role, name, Buffer.from(public_key)] })
        return { is: 'ok' as const }
      }),
    setAdminRole: (admin_id, role) => changeOwners(admin_id, SET_ROLE, [admin_id, role], role === 'owner'),
    removeAdmin: (admin_id) => changeOwners(admin_id, REMOVE, [admin_id], false),
    readSettings: () =>
      withClient(pool, async (client) => (await client.query<{ name: string; value: string; changed_at: number }>(READ_SETTINGS)).rows),
    async setSetting(name, value) {
      await withClient(pool, (client) => client.query(value === null ? { ...UNSET, values: [name] } : { ...SET, values: [name, value] }))
    },
    listInvites: (before, limit) =>
      withClient(pool, async (client) => {
        const values = [before?.created_at ?? Number.MAX_SAFE_INTEGER, before?.invite_id ?? '00000000-0000-0000-0000-000000000000', limit]
        return (await client.query<InviteRow>({ ...LIST_INVITES, values })).rows
      }),
    addInvite: ({ invite_id, lifetime_ms, uses_max, note, code_hash }) =>
      withClient(pool, async (client) => {
        const values = [invite_id, lifetime_ms, uses_max, note, Buffer.from(code_hash)]
        const row = (await client.query<InviteRow>({ ...ADD_INVITE, values })).rows[0]
        if (row === undefined) throw new TypeError('an insert returns its row')
        return row
      }),
    revokeInvite: (invite_id) =>
      withClient(pool, async (client) => (await client.query({ ...REVOKE_INVITE, values: [invite_id] })).rowCount === 1),
    sweepInvites: (limit) =>
      withClient(pool, async (client) => (await client.query({ ...SWEEP_INVITES, values: [INVITE_KEPT_MS, limit] })).rowCount ?? 0),
  }
}
