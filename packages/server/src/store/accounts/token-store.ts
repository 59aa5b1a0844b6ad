/**
 * Families of refresh tokens (protocol.md §10): one per device, known by the hashes of its last two tokens.
 *
 * Isolation: read committed. Locks: the account row, in turn, then the family. All times are the database's.
 */
import type { ClientBase, Pool } from 'pg'
import type { FamilyRotation, TokenStore } from '../../ports/store.ts'
import { inTurn, withClient, withTransaction } from '../postgres/pool.ts'

const LOCK_ACCOUNT = {
  name: 'lock_token_account',
  text: 'select from account a where a.user_no = $1::int8 and a.active for no key update',
}

/** A statement of its own: what waited for the lock would otherwise see the device as it was before the wait. */
const DEVICE = {
  name: 'read_token_device',
  text: `select p.token_version from device d
  join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where d.user_no = $1::int8 and d.device_no = $2::int4 and d.active`,
}

const START = {
  name: 'start_refresh_family',
  text: `insert into refresh_family as f (user_no, device_no, family_id, token_hash, created_at, expires_at)
  values ($1::int8, $2::int4, $3::uuid, $4::bytea, clock_ms(), clock_ms() + $5::int8)
  on conflict (user_no, device_no) do update set family_id = excluded.family_id, token_hash = excluded.token_hash, generation = 0,
    previous_hash = null, rotated_at = null, created_at = excluded.created_at, expires_at = excluded.expires_at`,
}

const FIND = {
  name: 'find_refresh_family',
  text: `select f.generation, f.family_id = $3::uuid as is_family, f.token_hash = $4::bytea as is_current, coalesce(f.previous_hash = $4::bytea, false) as is_previous,
       coalesce(clock_ms() - f.rotated_at, 0) as rotated_ms_ago
  from refresh_family f
 where f.user_no = $1::int8 and f.device_no = $2::int4 and f.expires_at > clock_ms() for update`,
}

const ROTATE = {
  name: 'rotate_refresh_family',
  text: `update refresh_family f
   set generation = f.generation + 1, previous_hash = f.token_hash, token_hash = $3::bytea, rotated_at = clock_ms(), expires_at = clock_ms() + $4::int8
 where f.user_no = $1::int8 and f.device_no = $2::int4`,
}

const END_FAMILY = {
  name: 'end_refresh_family',
  text: 'delete from refresh_family f where f.user_no = $1::int8 and f.device_no = $2::int4',
}

const END_ACCESS = {
  name: 'end_access_tokens',
  text: 'update device_profile p set token_version = p.token_version + 1 where p.user_no = $1::int8 and p.device_no = $2::int4',
}

const END_FENCE = {
  name: 'end_fence',
  text: 'update device d set session_id = null where d.user_no = $1::int8 and d.device_no = $2::int4',
}

const SWEEP = {
  name: 'sweep_refresh_families',
  text: `delete from refresh_family where (user_no, device_no) in (
  select f.user_no, f.device_no from refresh_family f where f.expires_at <= clock_ms() order by f.expires_at limit $1::int4 for update skip locked)`,
}

type FamilyRow = { generation: number; is_family: boolean; is_current: boolean; is_previous: boolean; rotated_ms_ago: number }

export function createTokenStore(pool: Pool): TokenStore {
  const change = <T>(user_no: number, work: (client: ClientBase) => Promise<T>): Promise<T> =>
    inTurn(pool, user_no, () => withTransaction(pool, work))
  return {
    startFamily: (user_no, device_no, family, lifetime_ms) =>
      change(user_no, async (client) => {
        const token_version = await lockDevice(client, user_no, device_no)
        if (token_version === null) return null
        await client.query({ ...START, values: [user_no, device_no, family.family_id, Buffer.from(family.token_hash), lifetime_ms] })
        return { token_version }
      }),
    rotateFamily: (user_no, device_no, ask, rules) =>
      change(user_no, async (client): Promise<FamilyRotation> => {
        const token_version = await lockDevice(client, user_no, device_no)
        if (token_version === null) return { is: 'unknown' }
        const values = [user_no, device_no, ask.family_id, Buffer.from(ask.token_hash)]
        const family = (await client.query<FamilyRow>({ ...FIND, values })).rows[0]
        if (family === undefined) return { is: 'unknown' }
        if (!family.is_family) return { is: 'replaced' }
        const { generation } = family
        if (ask.generation === generation) {
          if (!family.is_current) return { is: 'unknown' }
          await client.query({ ...ROTATE, values: [user_no, device_no, Buffer.from(ask.next_hash), rules.lifetime_ms] })
          return { is: 'rotated', generation: generation + 1, token_version }
        }
        if (ask.generation === generation - 1 && family.is_previous && family.rotated_ms_ago <= rules.grace_ms)
          return { is: 'repeated', generation, token_version }
        if (ask.generation > generation) return { is: 'unknown' }
        await endTokens(client, user_no, device_no)
        return { is: 'reused' }
      }),
    endFamily: (user_no, device_no) =>
      change(user_no, async (client) => {
        if ((await lockDevice(client, user_no, device_no)) !== null) await endTokens(client, user_no, device_no)
      }),
    sweepTokens: (limit) => withClient(pool, async (client) => (await client.query({ ...SWEEP, values: [limit] })).rowCount ?? 0),
  }
}

/** Of an active device of an active account, which it stays until the end of the transaction: the version of its tokens. */
async function lockDevice(client: ClientBase, user_no: number, device_no: number): Promise<number | null> {
  if ((await client.query({ ...LOCK_ACCOUNT, values: [user_no] })).rowCount !== 1) return null
  const { rows } = await client.query<{ token_version: number }>({ ...DEVICE, values: [user_no, device_no] })
  return rows[0]?.token_version ?? null
}

async function endTokens(client: ClientBase, user_no: number, device_no: number): Promise<void> {
  await client.query({ ...END_FAMILY, values: [user_no, device_no] })
  await client.query({ ...END_ACCESS, values: [user_no, device_no] })
  await client.query({ ...END_FENCE, values: [user_no, device_no] })
}
