/**
 * Stream names to numbers. A number is given once, under the account's row lock, in a short transaction before the batch
 * that needs it; from then on it never changes, so that it may be remembered, but not beyond a restart of the database,
 * which may have been a restore. Bounds: 10,000 streams per user, and
 * `CACHE_MAX` remembered names, the least recently used leave first.
 */
import type { ClientBase } from 'pg'
import type { Run } from '../ports.ts'
import { int8Array } from './binary-array.ts'

/** `busy`: the account is locked by another writer. `gone`: no active account. `full`: the limit is reached. */
export type StreamNumber = number | 'busy' | 'gone' | 'full'

export type StreamDirectory = {
  /** The numbers of all streams of `runs`, made where missing; good for a batch on this connection. */
  numberStreams(client: ClientBase, runs: readonly Run[], patient: boolean): Promise<(user_no: number, stream_id: string) => StreamNumber>
}

const CACHE_MAX = 200_000

const NUMBER = {
  name: 'number_streams',
  text: 'select s.stream_no, s.outcome from number_streams($1::int8[], $2::text[], $3::int4, $4::bool) s',
}

export function createStreamDirectory(
  incarnationOf: (client: ClientBase) => string,
  streams_max: number,
  cache_max = CACHE_MAX,
): StreamDirectory {
  let incarnation = ''
  // a Map keeps the order of insertion; what is used is put back at the end
  const known = new Map<string, number>()

  const recall = (key: string): number | undefined => {
    const number = known.get(key)
    if (number === undefined) return undefined
    known.delete(key)
    known.set(key, number)
    return number
  }

  const remember = (key: string, number: number): void => {
    known.set(key, number)
    const oldest = known.size > cache_max ? known.keys().next().value : undefined
    if (oldest !== undefined) known.delete(oldest)
  }

  return {
    async numberStreams(client, runs, patient) {
      if (incarnation !== incarnationOf(client)) {
        incarnation = incarnationOf(client)
        known.clear()
      }
      const found = new Map<string, StreamNumber>()
      const missing = new Map<string, { user_no: number; stream_id: string }>()
      for (const { user_no, events } of runs) {
        let last: string | undefined
        for (const { stream_id } of events) {
          if (stream_id === last) continue
          last = stream_id
          const key = keyOf(user_no, stream_id)
          if (found.has(key) || missing.has(key)) continue
          const number = recall(key)
          if (number === undefined) missing.set(key, { user_no, stream_id })
          else found.set(key, number)
        }
      }
      if (missing.size > 0) {
        const pairs = [...missing.values()]
        const values = [int8Array(pairs.map((pair) => pair.user_no)), pairs.map((pair) => pair.stream_id), streams_max, patient]
        const { rows } = await client.query<{ stream_no: number; outcome: number }>({ ...NUMBER, values })
        for (const [i, key] of [...missing.keys()].entries()) {
          const row = rows[i] ?? { stream_no: 0, outcome: 1 }
          found.set(key, row.outcome === 0 ? row.stream_no : row.outcome === 1 ? 'busy' : row.outcome === 2 ? 'gone' : 'full')
          if (row.outcome === 0 && incarnation === incarnationOf(client)) remember(key, row.stream_no)
        }
      }
      return (user_no, stream_id) => found.get(keyOf(user_no, stream_id)) ?? 'busy'
    },
  }
}

function keyOf(user_no: number, stream_id: string): string {
  return `${user_no}/${stream_id}`
}
