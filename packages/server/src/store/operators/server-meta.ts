/** The database remembers whose it is: a node with another server key refuses to start on it. */
import { createHash } from 'node:crypto'
import type { Bytes } from '@sealpost/protocol'
import type { Pool } from 'pg'
import { withClient } from '../postgres/pool.ts'

/** The first key claims the store for ever; `mismatch` for any other. */
export async function claimServerKey(pool: Pool, server_key: Bytes): Promise<'ok' | 'mismatch'> {
  const key_hash = createHash('sha256').update(server_key).digest()
  const { rows } = await withClient(pool, (client) =>
    client.query<{ same: boolean }>(
      `update server_meta set server_key_hash = coalesce(server_key_hash, $1) returning server_key_hash = $1 as same`,
      [key_hash],
    ),
  )
  return rows[0]?.same === true ? 'ok' : 'mismatch'
}

/** SHA-256 of the key that claimed the store; null before. */
export async function readServerKeyHash(pool: Pool): Promise<Bytes | null> {
  const { rows } = await withClient(pool, (client) =>
    client.query<{ server_key_hash: Buffer | null }>('select m.server_key_hash from server_meta m'),
  )
  return rows[0]?.server_key_hash ?? null
}
