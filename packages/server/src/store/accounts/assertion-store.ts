/**
 * Assertion ids that were used (protocol.md §10): an assertion opens a door once. Remembered by the database's clock
 * for 600 s, or twice the tolerance for clocks: as long as any assertion is fresh. Of two at the same time one wins: the primary key decides.
 */
import { createHash } from 'node:crypto'
import { LIMITS, tuple } from '@sealpost/protocol'
import type { Pool } from 'pg'
import type { AssertionStore } from '../../ports/store.ts'
import { withClient } from '../postgres/pool.ts'

const REMEMBER = {
  name: 'remember_assertion',
  text: `insert into assertion as a (jti_hash, expires_at) values ($1::bytea, clock_ms() + $2::int8)
  on conflict (jti_hash) do update set expires_at = excluded.expires_at where a.expires_at <= clock_ms()`,
}

export function createAssertionStore(pool: Pool, clock_skew_ms: number): AssertionStore {
  const keep_ms = Math.max(LIMITS.assertionJtiMs, 2 * clock_skew_ms)
  return {
    async rememberAssertion(jti, user_id) {
      const jti_hash = createHash('sha256')
        .update(tuple('jti', user_id, jti))
        .digest()
      const { rowCount } = await withClient(pool, (client) => client.query({ ...REMEMBER, values: [jti_hash, keep_ms] }))
      return rowCount === 1
    },
  }
}
