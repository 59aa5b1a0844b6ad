/**
 * Which keys sign access tokens (why-crypto.md §6): next → active → retired → gone. The store sees public keys alone.
 *
 * Isolation: read committed, under an advisory lock: one node at a time changes them. All times are the database's.
 */
import type { Pool } from 'pg'
import type { SigningKeyRow, SigningKeyStore } from '../ports.ts'
import { withTransaction } from './pool.ts'

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

export function createSigningKeyStore(pool: Pool): SigningKeyStore {
  return {
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
        const rows = await read()
        return rows.map(({ generation, public_key, created_at, active_at, retired_at }) => ({
          generation,
          public_key,
          created_at,
          active_at,
          retired_at,
        }))
      }),
  }
}
