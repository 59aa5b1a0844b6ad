/**
 * Families of refresh tokens and the keys of access tokens (protocol.md §10). The store sees hashes and public keys alone.
 *
 * Isolation: read committed. Locks: the account row, then the family; keys under an advisory lock, so that one node at a time
 * changes them. All times are the database's.
 */
import type { ClientBase, Pool } from 'pg'
import type { FamilyRotation, SigningKeyRow, TokenStore } from '../ports.ts'
import { withClient, withTransaction } from './pool.ts'

/** Whoever asks is an active device of an active account, and stays it until the end of the transaction. */
const LOCK_DEVICE = {
  name: 'lock_token_device',
  text: `select p.token_version from account a
  join device d on d.user_no = a.user_no
  join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where a.user_no = $1::int8 and d.device_no = $2::int4 and a.active and d.active for no key update of a`,
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
  text: `select f.generation, f.token_hash = $4::bytea as is_current, coalesce(f.previous_hash = $4::bytea, false) as is_previous,
       coalesce(clock_ms() - f.rotated_at, 0) as rotated_ms_ago
  from refresh_family f
 where f.user_no = $1::int8 and f.device_no = $2::int4 and f.family_id = $3::uuid and f.expires_at > clock_ms() for update`,
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

const KEYS_LOCK = { name: 'lock_signing_keys', text: `select pg_advisory_xact_lock(hashtext('sealpost signing keys'))` }

const KEYS = {
  name: 'read_signing_keys',
  text: `select k.generation, k.public_key, k.created_at, k.active_at, k.retired_at, clock_ms() as now
  from signing_key k where k.purpose = $1::text order by k.generation`,
}

const ADD_KEY = {
  name: 'add_signing_key',
  text: `insert into signing_key (purpose, generation, public_key, created_at, active_at)
  values ($1::text, $2::int4, $3::bytea, clock_ms(), case when $4::bool then clock_ms() end)`,
}

const ACTIVATE_KEY = {
  name: 'activate_signing_key',
  text: 'update signing_key set active_at = clock_ms() where purpose = $1::text and generation = $2::int4',
}

const RETIRE_KEY = {
  name: 'retire_signing_key',
  text: 'update signing_key set retired_at = clock_ms() where purpose = $1::text and generation = $2::int4',
}

const DROP_KEY = { name: 'drop_signing_key', text: 'delete from signing_key where purpose = $1::text and generation = $2::int4' }

type FamilyRow = { generation: number; is_current: boolean; is_previous: boolean; rotated_ms_ago: number }

export function createTokenStore(pool: Pool): TokenStore {
  return {
    startFamily: (user_no, device_no, family, lifetime_ms) =>
      withTransaction(pool, async (client) => {
        const token_version = await lockDevice(client, user_no, device_no)
        if (token_version === null) return null
        await client.query({ ...START, values: [user_no, device_no, family.family_id, Buffer.from(family.token_hash), lifetime_ms] })
        return { token_version }
      }),
    rotateFamily: (user_no, device_no, ask, rules) =>
      withTransaction(pool, async (client): Promise<FamilyRotation> => {
        const token_version = await lockDevice(client, user_no, device_no)
        if (token_version === null) return { is: 'unknown' }
        const values = [user_no, device_no, ask.family_id, Buffer.from(ask.token_hash)]
        const family = (await client.query<FamilyRow>({ ...FIND, values })).rows[0]
        if (family === undefined) return { is: 'unknown' }
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
        await client.query({ ...END_FENCE, values: [user_no, device_no] })
        return { is: 'reused' }
      }),
    endFamily: (user_no, device_no) =>
      withTransaction(pool, async (client) => {
        if ((await lockDevice(client, user_no, device_no)) !== null) await endTokens(client, user_no, device_no)
      }),
    sweepTokens: (limit) => withClient(pool, async (client) => (await client.query({ ...SWEEP, values: [limit] })).rowCount ?? 0),
    rotateSigningKeys: (purpose, publicKeyOf, schedule) =>
      withTransaction(pool, async (client) => {
        await client.query(KEYS_LOCK)
        const read = async () => (await client.query<SigningKeyRow & { now: number }>({ ...KEYS, values: [purpose] })).rows
        const on = (query: { name: string; text: string }, generation: number, ...more: unknown[]) =>
          client.query({ ...query, values: [purpose, generation, ...more] })
        let newest = 0
        const known: (SigningKeyRow & { now: number })[] = []
        for (const row of await read()) {
          newest = Math.max(newest, row.generation)
          const foreign = !Buffer.from(publicKeyOf(row.generation)).equals(row.public_key)
          const over = row.retired_at !== null && row.now - row.retired_at > schedule.retired_ms
          if (foreign || over) await on(DROP_KEY, row.generation)
          else known.push(row)
        }
        const add = async (active: boolean) => {
          newest += 1
          await on(ADD_KEY, newest, Buffer.from(publicKeyOf(newest)), active)
        }
        const active = known.find((row) => row.active_at !== null && row.retired_at === null)
        const next = known.find((row) => row.active_at === null)
        if (active === undefined) await add(true)
        const due = active !== undefined && active.now - (active.active_at ?? 0) >= schedule.active_ms
        if (due && next !== undefined && next.now - next.created_at >= schedule.published_ms) {
          await on(RETIRE_KEY, active.generation)
          await on(ACTIVATE_KEY, next.generation)
          await add(false)
        } else if (next === undefined) await add(false)
        return (await read()).map(({ now: _, ...row }) => row)
      }),
  }
}

async function lockDevice(client: ClientBase, user_no: number, device_no: number): Promise<number | null> {
  const { rows } = await client.query<{ token_version: number }>({ ...LOCK_DEVICE, values: [user_no, device_no] })
  return rows[0]?.token_version ?? null
}

async function endTokens(client: ClientBase, user_no: number, device_no: number): Promise<void> {
  await client.query({ ...END_FAMILY, values: [user_no, device_no] })
  await client.query({ ...END_ACCESS, values: [user_no, device_no] })
}
