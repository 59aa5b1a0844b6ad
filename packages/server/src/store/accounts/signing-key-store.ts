/**
 * Which keys sign access tokens (protocol.md §10): next → active → retired → gone. The store sees public keys alone.
 *
 * Isolation: read committed, under an advisory lock: one node at a time changes them. All times are the database's.
 */
import type { ClientBase, Pool } from 'pg'
import type { KeySchedule, SigningKeyRow, SigningKeyStore } from '../../ports/store.ts'
import { withTransaction } from '../postgres/pool.ts'

const LOCK = { name: 'lock_signing_keys', text: `select pg_advisory_xact_lock(hashtext('sealpost signing keys'))` }
const CLOCK = { name: 'signing_key_clock', text: 'select clock_ms() as now' }

const READ = {
  name: 'read_signing_keys',
  text: `select k.generation, k.public_key, k.created_at, k.active_at, k.retired_at
  from signing_key k where k.purpose = $1::text order by k.generation`,
}

const ADD = {
  name: 'add_signing_key',
  text: `insert into signing_key (purpose, generation, public_key, created_at, active_at)
  values ($1::text, $2::int4, $3::bytea, clock_ms(), case when $4::bool then clock_ms() end)`,
}

const ACTIVATE = {
  name: 'activate_signing_key',
  text: 'update signing_key set active_at = clock_ms() where purpose = $1::text and generation = $2::int4',
}

const RETIRE = {
  name: 'retire_signing_key',
  text: 'update signing_key set retired_at = clock_ms() where purpose = $1::text and generation = $2::int4',
}

const DROP = { name: 'drop_signing_key', text: 'delete from signing_key where purpose = $1::text and generation = $2::int4' }

export function createSigningKeyStore(pool: Pool): SigningKeyStore {
  return {
    rotateSigningKeys: (purpose, publicKeyOf, schedule) =>
      withTransaction(pool, async (client) => {
        await client.query(LOCK)
        const now = (await client.query<{ now: number }>(CLOCK)).rows[0]?.now ?? 0
        const rows = await readKeys(client, purpose)
        const isForeign = (row: SigningKeyRow): boolean => !Buffer.from(publicKeyOf(row.generation)).equals(row.public_key)
        for (const change of planRotation(rows, isForeign, now, schedule)) {
          const values = [purpose, change.generation]
          if (change.is === 'add')
            await client.query({ ...ADD, values: [...values, Buffer.from(publicKeyOf(change.generation)), change.active] })
          else await client.query({ ...(change.is === 'drop' ? DROP : change.is === 'retire' ? RETIRE : ACTIVATE), values })
        }
        return readKeys(client, purpose)
      }),
  }
}

async function readKeys(client: ClientBase, purpose: string): Promise<SigningKeyRow[]> {
  return (await client.query<SigningKeyRow>({ ...READ, values: [purpose] })).rows
}

type Change = { is: 'drop' | 'retire' | 'activate'; generation: number } | { is: 'add'; generation: number; active: boolean }

/** One active key and one next one, whatever there was before; a generation is never used twice. */
function planRotation(
  rows: readonly SigningKeyRow[],
  isForeign: (row: SigningKeyRow) => boolean,
  now: number,
  schedule: KeySchedule,
): Change[] {
  const isOver = ({ retired_at }: SigningKeyRow): boolean => retired_at !== null && now - retired_at > schedule.retired_ms
  const dropped = rows.filter((row) => isForeign(row) || isOver(row))
  const kept = rows.filter((row) => !dropped.includes(row))
  const changes: Change[] = dropped.map(({ generation }) => ({ is: 'drop', generation }))
  let newest = Math.max(0, ...rows.map(({ generation }) => generation))

  const active = kept.find((row) => row.active_at !== null && row.retired_at === null)
  const next = kept.find((row) => row.active_at === null)
  if (active === undefined) changes.push({ is: 'add', generation: ++newest, active: true })
  if (next === undefined) changes.push({ is: 'add', generation: ++newest, active: false })
  else if (
    active !== undefined &&
    now - (active.active_at ?? now) >= schedule.active_ms &&
    now - next.created_at >= schedule.published_ms
  ) {
    changes.push({ is: 'retire', generation: active.generation }, { is: 'activate', generation: next.generation })
    changes.push({ is: 'add', generation: ++newest, active: false })
  }
  return changes
}
